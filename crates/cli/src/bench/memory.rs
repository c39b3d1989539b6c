//! What a VM costs beside its guest's memory: pages, threads, wake-ups.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use napa_units::Bytes;

use super::figure::{Better, Figure, Subject, Unit};
use super::subject::Machine;
use super::vm::Vm;
use super::{Bench, BenchError, VMS_AT_ONCE};
use crate::guests::{Footprint, Line, Part};

const REPETITIONS: (usize, usize) = (3, 1);
const SMALL: Bytes = Bytes::mib(128);
const LARGE: Bytes = Bytes::gib(4);
/// From the guest's first word to the first look: what starting has begun is over by then.
const SETTLE: Duration = Duration::from_millis(500);
/// How long wake-ups are counted.
const WATCH_S: (usize, usize) = (5, 2);
/// A second of I/O, so that the disk's thread and its buffers exist.
const BUSY: &str = "workload=blk-read:4K,32,1+idle report=0";
const BUSY_BOUND: Duration = Duration::from_secs(30);
const IDLE: &str = "workload=idle";

/// Figures of an idle VM: one per line of the table.
struct Costs {
    private: Figure,
    private_large: Figure,
    private_after_io: Figure,
    proportional: Figure,
    threads: Figure,
    threads_after_io: Figure,
    wakeups: Figure,
}

/// Measures idle VMs.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>, BenchError> {
    let mut costs = Costs::new();
    for subject in bench.vmms.pair() {
        costs.measure(bench, subject)?;
    }
    let Costs { private, private_large, private_after_io, proportional, threads, threads_after_io, wakeups } =
        costs;
    Ok(vec![private, private_large, private_after_io, proportional, threads, threads_after_io, wakeups])
}

impl Costs {
    fn new() -> Self {
        let figure = |name: &str, unit| Figure::new("memory", name, unit, Better::Lower);
        let kib = |kib: u32| f64::from(kib) * 1024.0;
        Self {
            private: figure("private anonymous pages beside guest RAM, 128 MiB idle", Unit::Bytes).limit(
                None,
                kib(600),
                kib(250),
            ),
            private_large: figure("the same, 4 GiB idle", Unit::Bytes).limit(None, kib(600), kib(250)),
            private_after_io: figure("the same, 128 MiB after disk I/O", Unit::Bytes).limit(
                None,
                kib(600),
                kib(250),
            ),
            proportional: figure("Pss beside guest RAM, mean of 8 VMs", Unit::Bytes).limit(
                None,
                kib(1200),
                kib(600),
            ),
            threads: figure("threads, 1 vCPU, idle", Unit::Count).limit(None, 4.0, 3.0),
            threads_after_io: figure("threads, 1 vCPU, after disk I/O", Unit::Count).limit(None, 4.0, 3.0),
            wakeups: figure("wake-ups, idle", Unit::PerSecond).limit(None, 0.0, 0.0),
        }
    }

    fn measure(&mut self, bench: &Bench, subject: Subject) -> Result<(), BenchError> {
        let mut values: [Vec<f64>; 7] = Default::default();
        let repetitions = bench.effort(REPETITIONS);
        for repetition in 1..=repetitions {
            bench.progress(&format!(
                "memory: {}, {repetition} of {repetitions}",
                super::subject::name(subject)
            ));
            let (pages, threads, wakeups) = idle(bench, subject, SMALL)?;
            let (pages_large, ..) = idle(bench, subject, LARGE)?;
            let (pages_after_io, threads_after_io) = after_io(bench, subject)?;
            let proportional = proportional_of_many(bench, subject)?;
            let row = [pages, pages_large, pages_after_io, proportional, threads, threads_after_io, wakeups];
            values.iter_mut().zip(row).for_each(|(values, value)| values.push(value));
        }
        let figures = [
            &mut self.private,
            &mut self.private_large,
            &mut self.private_after_io,
            &mut self.proportional,
            &mut self.threads,
            &mut self.threads_after_io,
            &mut self.wakeups,
        ];
        figures.into_iter().zip(&values).for_each(|(figure, values)| figure.add(subject, values));
        Ok(())
    }
}

/// Pages in bytes, threads, and wake-ups a second.
fn idle(bench: &Bench, subject: Subject, memory: Bytes) -> Result<(f64, f64, f64), BenchError> {
    let vm = settled(bench, subject, machine(bench, memory, IDLE, 0))?;
    let before = switches(vm.pid()).map_err(gone)?;
    let watch_s = bench.effort(WATCH_S) as u64;
    vm.settle(Duration::from_secs(watch_s))?;
    let wakeups = switches(vm.pid()).map_err(gone)?.saturating_sub(before);
    let footprint = Footprint::measure(vm.pid(), memory).map_err(gone)?;
    let threads = threads(vm.pid()).map_err(gone)?;
    Ok((footprint.private_anonymous.0 as f64, threads as f64, wakeups as f64 / watch_s as f64))
}

/// Pages in bytes, and threads.
fn after_io(bench: &Bench, subject: Subject) -> Result<(f64, f64), BenchError> {
    let mut vm = bench.start(subject, machine(bench, SMALL, BUSY, 0))?;
    vm.watch(BUSY_BOUND, |line| match line {
        Line::Report(report) if report.part == Part::Total => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })?;
    vm.settle(SETTLE)?;
    let footprint = Footprint::measure(vm.pid(), SMALL).map_err(gone)?;
    let threads = threads(vm.pid()).map_err(gone)?;
    Ok((footprint.private_anonymous.0 as f64, threads as f64))
}

/// Several VMs share the pages of their program.
fn proportional_of_many(bench: &Bench, subject: Subject) -> Result<f64, BenchError> {
    let start = |index| settled(bench, subject, machine(bench, SMALL, IDLE, index));
    let vms = (0..VMS_AT_ONCE).map(start).collect::<Result<Vec<Vm<'_>>, BenchError>>()?;
    let measure = |vm: &Vm<'_>| Footprint::measure(vm.pid(), SMALL).map(|footprint| footprint.proportional.0);
    let sum: u64 = vms.iter().map(measure).sum::<io::Result<u64>>().map_err(gone)?;
    Ok(sum as f64 / VMS_AT_ONCE as f64)
}

fn machine<'a>(bench: &'a Bench, memory: Bytes, cmdline: &'a str, index: usize) -> Machine<'a> {
    Machine { disk: Some(bench.disk(index)), tap: bench.tap(index), ..Machine::plain(memory, cmdline) }
}

fn settled<'a>(bench: &'a Bench, subject: Subject, machine: Machine<'_>) -> Result<Vm<'a>, BenchError> {
    let mut vm = bench.start(subject, machine)?;
    vm.wait_ready()?;
    vm.settle(SETTLE)?;
    Ok(vm)
}

fn gone(error: io::Error) -> BenchError {
    BenchError::failed(format!("cannot look at a VM's process: {error}"))
}

fn threads(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.count())
}

/// How often threads of a process were taken off a CPU so far, of their own accord or not.
fn switches(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        sum += fs::read_to_string(task?.path().join("status")).map_or(0, |status| parse_switches(&status));
    }
    Ok(sum)
}

/// The lines `voluntary_ctxt_switches` and `nonvoluntary_ctxt_switches` (proc_pid_status(5)).
fn parse_switches(status: &str) -> u64 {
    let value = |line: &str| line.split_once("voluntary_ctxt_switches:")?.1.trim().parse::<u64>().ok();
    status.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_switches_count() {
        let status = "Name:\tnapa\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(parse_switches(status), 42);
        assert_eq!(parse_switches(""), 0);
    }

    #[test]
    fn this_process_has_threads_and_switches() {
        assert!(threads(std::process::id()).unwrap() > 0);
        assert!(switches(std::process::id()).unwrap() > 0);
        assert!(threads(u32::MAX).is_err());
    }
}
