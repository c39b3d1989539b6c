//! The run state of a VM and the moves between its states. Lives on the control thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use napa_api::config::OnReboot;
use napa_api::control::{RpcError, State, Status, code};
use napa_api::{Exit, VmConfig};
use napa_virtio::Threads;

use crate::assemble::{Assembly, assemble};
use crate::error::RunError;
use crate::events::Events;
use crate::memory::Subject;
use crate::opened::Opened;
use crate::status;

/// How long the devices of a machine that ends may take to complete what the guest began.
const END_BOUND: Duration = Duration::from_secs(30);

/// A VM that was started.
pub struct Lifecycle {
    phase: Phase,
    /// The vCPUs are stopped for a moment only, and nobody who asks is told.
    is_braked: bool,
    /// `None` between the end of one machine and the start of the next, and when the VM is over.
    assembly: Option<Assembly>,
    opened: Opened,
    events: Events,
    threads: Threads,
    started: Instant,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// The vCPUs were asked to park.
    Pausing,
    Paused,
    /// The power button was pressed; the VM ends hard at the deadline.
    Stopping {
        deadline: Instant,
    },
    /// The vCPUs were asked to end; the last one quietens the devices, at the latest at the deadline.
    Ending {
        exit: Exit,
        deadline: Instant,
    },
    Over,
}

/// How the VM ended, once it has.
#[derive(Clone, Default)]
pub struct Outcome(Arc<Mutex<Option<Result<Exit, RunError>>>>);

impl Outcome {
    /// What the VM's run came to.
    pub fn take(&self) -> Result<Exit, RunError> {
        let unfinished = || Err(RunError::Host("the control thread ended before the VM did".into()));
        self.lock().take().unwrap_or_else(unfinished)
    }

    fn set(&self, result: Result<Exit, RunError>) {
        *self.lock() = Some(result);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Result<Exit, RunError>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lifecycle {
    /// Starts the VM.
    ///
    /// # Errors
    /// The machine could not be built, or its kernel cannot be booted.
    pub fn start(
        opened: Opened,
        events: Events,
        threads: Threads,
        outcome: Outcome,
    ) -> Result<Self, RunError> {
        let assembly = Some(assemble(&opened, &events, &threads)?);
        let (phase, started) = (Phase::Running, Instant::now());
        Ok(Self { phase, is_braked: false, assembly, opened, events, threads, started, outcome })
    }

    /// Asks the vCPUs to stop; [`on_parked`](Self::on_parked) completes it.
    pub fn pause(&mut self) -> Result<(), RpcError> {
        self.is_braked = false;
        match (self.phase, &self.assembly) {
            (Phase::Running, Some(assembly)) => {
                self.phase = Phase::Pausing;
                assembly.vcpus.park();
                Ok(())
            }
            (Phase::Pausing | Phase::Paused, _) => Ok(()),
            _ => Err(wrong_state("pause", "is stopping")),
        }
    }

    /// Stops the vCPUs for a moment. A VM that is paused, or stops, is left as it is.
    pub fn brake(&mut self) {
        if let (Phase::Running, Some(assembly)) = (self.phase, &self.assembly) {
            self.phase = Phase::Pausing;
            self.is_braked = true;
            assembly.vcpus.park();
        }
    }

    /// Lets the vCPUs go on, if they were stopped for a moment only.
    pub fn release(&mut self) {
        if self.is_braked && matches!(self.phase, Phase::Pausing | Phase::Paused) {
            self.run_again();
        }
    }

    /// All vCPUs have stopped: waits for the I/O that they began.
    pub fn on_parked(&mut self) {
        let are_parked = self.assembly.as_ref().is_some_and(|assembly| assembly.vcpus.are_parked());
        if self.phase == Phase::Pausing && are_parked {
            // A thread that has ended has no I/O under way.
            let _ = self.threads.pause();
            self.phase = Phase::Paused;
        }
    }

    /// Lets the VM go on after a pause, or gives up one that is not complete.
    pub fn resume(&mut self) -> Result<(), RpcError> {
        match self.phase {
            Phase::Running => Ok(()),
            Phase::Pausing | Phase::Paused => {
                self.run_again();
                Ok(())
            }
            Phase::Stopping { .. } | Phase::Ending { .. } | Phase::Over => {
                Err(wrong_state("resume", "is stopping"))
            }
        }
    }

    /// Asks the guest to switch itself off. Returns how long it has.
    pub fn stop(&mut self, timeout_s: Option<u32>) -> Result<Duration, RpcError> {
        let seconds = timeout_s.unwrap_or(self.opened.config.stop_timeout_s);
        let bound = Duration::from_secs(seconds.into());
        match self.phase {
            // A guest that does not run cannot switch itself off.
            Phase::Pausing | Phase::Paused => self.run_again(),
            Phase::Running | Phase::Stopping { .. } => {}
            Phase::Ending { deadline, .. } if self.is_rebooting() => {
                // Between two machines: the next one does not start.
                self.phase = Phase::Ending { exit: Exit::PowerOff, deadline };
                return Ok(bound);
            }
            Phase::Ending { .. } | Phase::Over => return Err(wrong_state("stop", "is ending")),
        }
        self.phase = Phase::Stopping { deadline: Instant::now() + bound };
        if let Some(assembly) = &self.assembly {
            assembly.stop_request.raise();
            assembly.power.press();
        }
        Ok(bound)
    }

    /// Ends the machine that runs. The first reason counts, but for a hard stop in the middle of a reboot.
    /// [`on_over`](Self::on_over) completes it.
    pub fn end(&mut self, exit: Exit) {
        let was_stopping = self.is_stopping();
        match self.phase {
            Phase::Ending { deadline, .. } if exit == Exit::HardStop && self.is_rebooting() => {
                self.phase = Phase::Ending { exit, deadline };
                return;
            }
            Phase::Ending { .. } | Phase::Over => return,
            // Vcpus that are parked end too, but the I/O threads have to take their workers' leave.
            Phase::Pausing | Phase::Paused => self.threads.resume(),
            Phase::Running | Phase::Stopping { .. } => {}
        }
        // A guest that was asked to stop and resets itself instead has stopped.
        let exit = if was_stopping && exit == Exit::Reboot { Exit::PowerOff } else { exit };
        self.phase = Phase::Ending { exit, deadline: Instant::now() + END_BOUND };
        if let Some(assembly) = &self.assembly {
            assembly.vcpus.end();
        }
    }

    /// The machine has come to rest: starts it again if that is what its end meant.
    pub fn on_over(&mut self) {
        let Phase::Ending { exit, .. } = self.phase else { return };
        let starts_again = self.is_rebooting();
        self.assembly = None;
        if !starts_again {
            return self.finish(Ok(exit));
        }
        self.opened
            .console
            .say(&format!("napa: {}: the guest asked for a reboot", self.opened.config.name_or_default()));
        match assemble(&self.opened, &self.events, &self.threads) {
            Ok(assembly) => {
                self.assembly = Some(assembly);
                self.phase = Phase::Running;
            }
            Err(error) => self.finish(Err(error)),
        }
    }

    /// Gives up waiting for a machine that does not come to rest: its threads end with the process.
    pub fn abandon(&mut self) {
        if let Phase::Ending { exit, .. } = self.phase {
            eprintln!("napa: the VM's devices did not come to rest; writes under way may be lost");
            std::mem::forget(self.assembly.take());
            self.finish(Ok(exit));
        }
    }

    /// Whether there is nothing left to serve.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether the machine was asked to end and has not come to rest.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    /// Whether it ends only to start again.
    fn is_rebooting(&self) -> bool {
        let is_reset = matches!(self.phase, Phase::Ending { exit: Exit::Reboot, .. });
        is_reset && self.opened.config.on_reboot == OnReboot::Restart
    }

    pub fn is_paused(&self) -> bool {
        self.phase == Phase::Paused
    }

    pub fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    /// How long an orderly stop may still take; `None` if none is under way.
    pub fn stop_time_left(&self) -> Option<Duration> {
        match self.phase {
            Phase::Stopping { deadline } => Some(deadline.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// How long the machine may still take to come to rest; `None` if it was not asked to end.
    pub fn end_time_left(&self) -> Option<Duration> {
        match self.phase {
            Phase::Ending { deadline, .. } => Some(deadline.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// The VM as it is now.
    pub fn status(&self) -> Status {
        let state = match self.phase {
            Phase::Running | Phase::Pausing => State::Running,
            Phase::Paused if self.is_braked => State::Running,
            Phase::Paused => State::Paused,
            Phase::Stopping { .. } | Phase::Ending { .. } | Phase::Over => State::Stopping,
        };
        let monitors = self.assembly.as_ref().map_or(&[][..], |assembly| &assembly.monitors);
        status::status(&self.opened, monitors, self.started, state)
    }

    /// How the VM is configured.
    pub fn config(&self) -> &VmConfig {
        &self.opened.config
    }

    /// The machine, for those who ask about its memory.
    ///
    /// # Errors
    /// There is none: it has ended, and the next one has not started.
    pub fn subject(&self) -> Result<Weak<Subject>, RpcError> {
        let assembly =
            self.assembly.as_ref().ok_or_else(|| wrong_state("look at its memory", "is ending"))?;
        Ok(Arc::downgrade(&assembly.subject))
    }

    /// What those who wait for a pause are told; `None` while it is under way.
    pub fn pause_outcome(&self) -> Option<Result<Status, RpcError>> {
        match self.phase {
            Phase::Pausing => None,
            Phase::Paused => Some(Ok(self.status())),
            _ => Some(Err(wrong_state("pause", "was told to go on meanwhile"))),
        }
    }

    fn run_again(&mut self) {
        self.is_braked = false;
        self.threads.resume();
        if let Some(assembly) = &self.assembly {
            assembly.vcpus.unpark();
        }
        self.phase = Phase::Running;
    }

    fn finish(&mut self, result: Result<Exit, RunError>) {
        self.phase = Phase::Over;
        // Last output before anybody is told; then the terminal is as it was.
        self.opened.console.close();
        self.outcome.set(result);
    }
}

fn wrong_state(method: &str, state: &str) -> RpcError {
    RpcError::new(code::WRONG_STATE, format!("cannot {method}: the VM {state}"))
}
