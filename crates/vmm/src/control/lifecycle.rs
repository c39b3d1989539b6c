//! The run state of a VM and the moves between its states. Lives on the control thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use napa_api::Exit;
use napa_api::control::{RpcError, State, Status, code};
use napa_devices::StopRequest;
use napa_virtio::Threads;

use crate::power::PowerButton;
use crate::status::Identity;
use crate::vcpus::Vcpus;

/// What a VM's run state is made of.
pub struct Lifecycle {
    phase: Phase,
    vcpus: Vcpus,
    threads: Threads,
    power: PowerButton,
    stop_request: StopRequest,
    identity: Identity,
    stop_timeout: Duration,
    ended: Ended,
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
}

/// How the VM ended, once it has.
#[derive(Clone, Default)]
pub struct Ended(Arc<Mutex<Option<Exit>>>);

impl Ended {
    /// The first reason that was given.
    pub fn get(&self) -> Option<Exit> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, exit: Exit) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(exit);
    }
}

impl Lifecycle {
    /// A VM whose vCPUs run.
    pub fn new(
        vcpus: Vcpus,
        threads: Threads,
        power: PowerButton,
        stop_request: StopRequest,
        identity: Identity,
        stop_timeout: Duration,
        ended: Ended,
    ) -> Self {
        Self { phase: Phase::Running, vcpus, threads, power, stop_request, identity, stop_timeout, ended }
    }

    /// Asks the vCPUs to stop; [`on_parked`](Self::on_parked) completes it.
    pub fn pause(&mut self) -> Result<(), RpcError> {
        match self.phase {
            Phase::Running => {
                self.phase = Phase::Pausing;
                self.vcpus.park();
                Ok(())
            }
            Phase::Pausing | Phase::Paused => Ok(()),
            Phase::Stopping { .. } => Err(wrong_state("pause", "is stopping")),
        }
    }

    /// All vCPUs have stopped: waits for the I/O that they began.
    pub fn on_parked(&mut self) {
        if self.phase == Phase::Pausing && self.vcpus.are_parked() {
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
            Phase::Stopping { .. } => Err(wrong_state("resume", "is stopping, and runs")),
        }
    }

    /// Asks the guest to switch itself off. Returns how long it has.
    pub fn stop(&mut self, timeout_s: Option<u32>) -> Result<Duration, RpcError> {
        let bound = timeout_s.map_or(self.stop_timeout, |seconds| Duration::from_secs(seconds.into()));
        if matches!(self.phase, Phase::Pausing | Phase::Paused) {
            // A guest that does not run cannot switch itself off.
            self.run_again();
        }
        self.phase = Phase::Stopping { deadline: Instant::now() + bound };
        self.stop_request.raise();
        self.power.press();
        Ok(bound)
    }

    /// Ends the VM. The first reason counts.
    pub fn end(&mut self, exit: Exit) {
        self.ended.set(exit);
    }

    pub fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    pub fn is_paused(&self) -> bool {
        self.phase == Phase::Paused
    }

    pub fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    /// How long an orderly stop may still take; `None` if none is under way.
    pub fn time_left(&self) -> Option<Duration> {
        match self.phase {
            Phase::Stopping { deadline } => Some(deadline.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// The VM as it is now.
    pub fn status(&self) -> Status {
        self.identity.status(match self.phase {
            Phase::Running | Phase::Pausing => State::Running,
            Phase::Paused => State::Paused,
            Phase::Stopping { .. } => State::Stopping,
        })
    }

    /// What those who wait for a pause are told; `None` while it is under way.
    pub fn pause_outcome(&self) -> Option<Result<Status, RpcError>> {
        match self.phase {
            Phase::Pausing => None,
            Phase::Paused => Some(Ok(self.status())),
            Phase::Running | Phase::Stopping { .. } => {
                Some(Err(wrong_state("pause", "was told to go on meanwhile")))
            }
        }
    }

    fn run_again(&mut self) {
        self.threads.resume();
        self.vcpus.unpark();
        self.phase = Phase::Running;
    }
}

fn wrong_state(method: &str, state: &str) -> RpcError {
    RpcError::new(code::WRONG_STATE, format!("cannot {method}: the VM {state}"))
}
