//! All processors on one phase of a workload: timed operations, reports, and the end by time or by the host's wish.

use crate::arena::Arena;
use crate::failure::Failure;
use crate::lock::Lock;
use crate::machine::Machine;
use crate::report::Reporter;
use crate::workloads::Ending;
use crate::{clock, services, timer};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use guest_logic::command_line::Duration;
use guest_logic::histogram::Histogram;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// What the processors of a phase share.
struct Phase<'a> {
    reporter: Lock<Reporter<'a>>,
    histograms: &'a [Histogram],
    next_tick_ns: AtomicU64,
    deadline_ns: u64,
    stopped: AtomicBool,
}

/// One processor's part in a phase.
pub struct Worker<'a> {
    phase: &'a Phase<'a>,
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
    let crew = machine.team.size();
    let histograms = arena.slice::<Histogram>(crew, 64)?;
    let reporter = Reporter::new(name.0, name.1, &machine.arguments, histograms);
    let deadline_ns = match duration {
        Duration::Seconds(seconds) => {
            reporter.start_ns().saturating_add(seconds.saturating_mul(NS_PER_SECOND))
        }
        Duration::OnePass | Duration::UntilStopped => u64::MAX,
    };
    let next_tick_ns = AtomicU64::new(reporter.next_ns());
    let stopped = AtomicBool::new(false);
    let phase = Phase { reporter: Lock::new(reporter), histograms, next_tick_ns, deadline_ns, stopped };
    machine.team.run(&|index| work(&Worker { phase: &phase, index, crew }), || phase.wait());
    timer::stop();
    phase.reporter.hold().finish();
    Ok(if phase.stopped.load(Ordering::Relaxed) { Ending::Stopped } else { Ending::Completed })
}

impl Phase<'_> {
    /// Whether to go on at `now`; on the boot processor, also what is due by then.
    fn goes_on(&self, index: usize, now: u64) -> bool {
        if index == 0 && now >= self.next_tick_ns.load(Ordering::Relaxed) {
            let mut reporter = self.reporter.hold();
            if reporter.tick(now) {
                self.stopped.store(true, Ordering::Relaxed);
            }
            self.next_tick_ns.store(reporter.next_ns(), Ordering::Relaxed);
        }
        now < self.deadline_ns && !self.stopped.load(Ordering::Relaxed)
    }

    /// Sleeps on the boot processor until something is due or another processor has finished.
    fn wait(&self) {
        let now = clock::now();
        self.goes_on(0, now);
        timer::once(self.next_tick_ns.load(Ordering::Relaxed).saturating_sub(now));
        services::halt();
    }
}

impl Worker<'_> {
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
