//! The `REPORT` lines: operations, latencies and the guest's own view of time.

use crate::arena::Arena;
use crate::failure::Failure;
use crate::{clock, print_line, stop};
use core::fmt::Write;
use guest_logic::command_line::Arguments;
use guest_logic::histogram::{Histogram, Snapshot};
use heapless::String;

const NS_PER_SECOND: u64 = 1_000_000_000;
/// How often the host is asked for a stop request while a workload runs.
const ASK_NS: u64 = NS_PER_SECOND;

/// Reports one phase of one workload from the histograms of the processors that work on it.
pub struct Reporter<'a> {
    workload: &'static str,
    phase: &'static str,
    histograms: &'a [Histogram],
    start_ns: u64,
    interval_ns: Option<u64>,
    last_report_ns: u64,
    next_report_ns: u64,
    next_ask_ns: u64,
    /// The sum of all histograms at the last report. Here and below by reference: they are large, and stacks are small.
    previous: &'a mut Snapshot,
    sum: &'a mut Snapshot,
    cycles: u64,
}

impl<'a> Reporter<'a> {
    /// Starts the phase now, with memory from `arena`.
    pub fn new(
        arena: &'a Arena,
        workload: &'static str,
        phase: &'static str,
        arguments: &Arguments,
        histograms: &'a [Histogram],
    ) -> Result<Self, Failure> {
        let [previous, sum] = arena.slice::<Snapshot>(2, 64)? else { unreachable!("two were asked for") };
        let start_ns = clock::now();
        let interval_ns =
            (arguments.report_seconds > 0).then(|| arguments.report_seconds.saturating_mul(NS_PER_SECOND));
        Ok(Self {
            workload,
            phase,
            histograms,
            start_ns,
            interval_ns,
            last_report_ns: start_ns,
            next_report_ns: interval_ns.map_or(u64::MAX, |interval| start_ns.saturating_add(interval)),
            next_ask_ns: start_ns.saturating_add(ASK_NS),
            previous,
            sum,
            cycles: 0,
        })
    }

    /// When the phase started.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// When the next call of [`Self::tick`] has something to do.
    pub fn next_ns(&self) -> u64 {
        self.next_report_ns.min(self.next_ask_ns)
    }

    /// One more cycle of a workload that counts them.
    pub fn count_cycle(&mut self) {
        self.cycles += 1;
    }

    /// Reports if it is time, and asks for a stop request if it is time for that. True if a stop was requested.
    pub fn tick(&mut self, now: u64) -> bool {
        if now >= self.next_report_ns {
            self.report_interval(now);
        }
        if now >= self.next_ask_ns {
            self.next_ask_ns = now.saturating_add(ASK_NS);
            return stop::ask();
        }
        stop::announced()
    }

    fn add_up(&mut self) {
        self.sum.clear();
        self.histograms.iter().for_each(|histogram| self.sum.add(histogram));
    }

    fn report_interval(&mut self, now: u64) {
        self.add_up();
        self.previous.become_what_came_until(self.sum);
        self.line("interval", now, now.saturating_sub(self.last_report_ns), self.previous);
        self.previous.copy_from(self.sum);
        self.last_report_ns = now;
        self.next_report_ns = self.interval_ns.map_or(u64::MAX, |interval| now.saturating_add(interval));
    }

    /// The last line of the phase, over all of it.
    pub fn finish(&mut self) {
        let now = clock::now();
        self.add_up();
        self.line("total", now, now.saturating_sub(self.start_ns), self.sum);
    }

    fn line(&self, part: &str, now: u64, elapsed_ns: u64, snapshot: &Snapshot) {
        let operations = snapshot.count();
        let per_second = u128::from(operations) * u128::from(NS_PER_SECOND) / u128::from(elapsed_ns.max(1));
        let mut cycles = String::<28>::new();
        if self.cycles > 0 {
            write!(cycles, " cycles={}", self.cycles).expect("a number has at most twenty digits");
        }
        print_line!(
            "REPORT workload={} phase={} part={part} ms={} ops={operations} ops_per_second={per_second} p50_ns={} \
             p99_ns={} max_ns={} clock_ns={now} clock_steps_back={}{cycles}",
            self.workload,
            self.phase,
            elapsed_ns / 1_000_000,
            snapshot.percentile(50),
            snapshot.percentile(99),
            snapshot.largest(),
            clock::steps_back(),
        );
    }
}
