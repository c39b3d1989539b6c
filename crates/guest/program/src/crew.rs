//! All processors on one phase of a workload: timed operations, reports, and the end by time or by the host's wish.

use crate::arena::Arena;
use crate::failure::Failure;
use crate::lock::Lock;
use crate::machine::Machine;
use crate::report::Reporter;
use crate::workloads::Ending;
use crate::{background, clock, timer};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use guest_logic::command_line::Duration;
use guest_logic::histogram::Histogram;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// What the processors of a phase share. One phase may be several pieces of work, reported together.
pub struct Phase<'a> {
    machine: &'a Machine,
    reporter: Lock<Reporter<'a>>,
    histograms: &'a [Histogram],
    next_tick_ns: AtomicU64,
    deadline_ns: u64,
    stopping: Stopping,
    stopped: AtomicBool,
    /// An operation was the last one of its processor, though there was more to do.
    cut_short: AtomicBool,
}

/// What the host's wish for a stop does to a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// It ends.
    Heeded,
    /// Nothing: what a workload does after it was stopped.
    Ignored,
}

/// One processor's part in a phase.
pub struct Worker<'w, 'p> {
    phase: &'w Phase<'p>,
    index: usize,
    crew: usize,
}

/// Runs `work` on every processor and gives reports meanwhile. The phase ends when all have returned; they should as
/// soon as an operation says so. A duration of one pass sets no bound in time.
pub fn run_phase(
    machine: &Machine,
    arena: &Arena,
    name: (&'static str, &'static str),
    duration: Duration,
    work: &(dyn Fn(&Worker) + Sync),
) -> Result<Ending, Failure> {
    let phase = Phase::new(machine, arena, name, duration, Stopping::Heeded)?;
    phase.run(work);
    Ok(phase.finish())
}

/// The same for one pass that a stop does not end.
pub fn run_last_phase(
    machine: &Machine,
    arena: &Arena,
    name: (&'static str, &'static str),
    work: &(dyn Fn(&Worker) + Sync),
) -> Result<(), Failure> {
    let phase = Phase::new(machine, arena, name, Duration::OnePass, Stopping::Ignored)?;
    phase.run(work);
    phase.finish();
    Ok(())
}

impl<'a> Phase<'a> {
    /// A phase that starts now.
    pub fn new(
        machine: &'a Machine,
        arena: &'a Arena,
        name: (&'static str, &'static str),
        duration: Duration,
        stopping: Stopping,
    ) -> Result<Self, Failure> {
        let histograms = &*arena.slice::<Histogram>(machine.team.size(), 64)?;
        let reporter = Reporter::new(arena, name.0, name.1, &machine.arguments, histograms)?;
        let deadline_ns = match duration {
            Duration::Seconds(seconds) => {
                reporter.start_ns().saturating_add(seconds.saturating_mul(NS_PER_SECOND))
            }
            Duration::OnePass | Duration::UntilStopped => u64::MAX,
        };
        Ok(Self {
            machine,
            next_tick_ns: AtomicU64::new(reporter.next_ns()),
            reporter: Lock::new(reporter),
            histograms,
            deadline_ns,
            stopping,
            stopped: AtomicBool::new(false),
            cut_short: AtomicBool::new(false),
        })
    }

    /// Runs `work` on every processor until all have returned.
    pub fn run(&self, work: &(dyn Fn(&Worker) + Sync)) {
        let crew = self.machine.team.size();
        self.machine.team.run(&|index| work(&Worker { phase: self, index, crew }), || self.wait(u64::MAX));
        timer::stop();
    }

    /// Sleeps for `ns`, or until the phase is over.
    pub fn pause(&self, ns: u64) {
        let end = clock::now().saturating_add(ns);
        while clock::now() < end && !self.is_over() {
            self.wait(end.min(self.deadline_ns));
        }
        timer::stop();
    }

    /// Whether its time is over, or a stop was requested.
    pub fn is_over(&self) -> bool {
        let now = clock::now();
        self.tick_if_due(now);
        self.cut_short.load(Ordering::Relaxed) || !self.has_time(now)
    }

    /// Counts a cycle, for the reports.
    pub fn count_cycle(&self) {
        self.reporter.hold().count_cycle();
    }

    /// The last report.
    pub fn finish(self) -> Ending {
        self.reporter.hold().finish();
        if self.stopped.load(Ordering::Relaxed) { Ending::Stopped } else { Ending::Completed }
    }

    /// Whether to go on at `now`; on the boot processor, also what is due by then.
    fn goes_on(&self, index: usize, now: u64) -> bool {
        if index == 0 {
            background::look(now);
            self.tick_if_due(now);
        }
        let goes_on = self.has_time(now);
        if !goes_on {
            self.cut_short.store(true, Ordering::Relaxed);
        }
        goes_on
    }

    fn has_time(&self, now: u64) -> bool {
        now < self.deadline_ns && !self.stopped.load(Ordering::Relaxed)
    }

    fn tick_if_due(&self, now: u64) {
        if now < self.next_tick_ns.load(Ordering::Relaxed) {
            return;
        }
        let mut reporter = self.reporter.hold();
        if reporter.tick(now) && self.stopping == Stopping::Heeded {
            self.stopped.store(true, Ordering::Relaxed);
        }
        self.next_tick_ns.store(reporter.next_ns(), Ordering::Relaxed);
    }

    /// Sleeps on the boot processor until something is due, at the latest at `end_ns`, or another processor has finished.
    fn wait(&self, end_ns: u64) {
        // No look at the background here: it may take the interrupt for which this sleeps.
        let now = clock::now();
        self.tick_if_due(now);
        let next = self.next_tick_ns.load(Ordering::Relaxed).min(end_ns);
        timer::once(next.saturating_sub(now));
        background::halt();
    }
}

impl Worker<'_, '_> {
    /// This processor's index.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The part of `count` things that is this processor's: from the first number up to, not including, the second.
    pub fn share(&self, count: u64) -> (u64, u64) {
        let part = |index: usize| (u128::from(count) * index as u128 / self.crew as u128) as u64;
        (part(self.index), part(self.index + 1))
    }

    /// Times one operation. True if there should be another.
    pub fn operation(&self, operate: impl FnOnce()) -> bool {
        let start = clock::now();
        operate();
        let end = clock::now();
        self.phase.histograms[self.index].record(end.saturating_sub(start));
        self.phase.goes_on(self.index, end)
    }
}
