//! Transfers a second: a guest's disk against QEMU's and against the host's own.

use std::ops::ControlFlow;
use std::time::Duration;

use napa_units::Bytes;

use super::figure::{Better, Figure, Subject, Unit};
use super::load::{LOADS, Load, Outcome};
use super::storage::Storage;
use super::subject::{self, Machine};
use super::{Bench, BenchError, host_loop};
use crate::guests::{Line, Part, cpu_time};

const REPETITIONS: (usize, usize) = (5, 1);
const SECONDS: (usize, usize) = (2, 1);
/// What a guest may take beyond its time: a slow disk finishes its last transfers.
const OVERTIME: Duration = Duration::from_secs(30);

/// What one run came to.
#[derive(Clone, Copy)]
struct Run {
    per_second: f64,
    /// CPU time of the whole process for a transfer, the guest's own included, in nanoseconds.
    cpu_ns: f64,
}

/// Measures the disks of guests on each of `storages`.
pub fn measure(bench: &Bench, storages: &[Storage]) -> Result<Vec<Figure>, BenchError> {
    let mut figures = Vec::new();
    for storage in storages {
        for load in LOADS.into_iter().filter(|load| storage.may_write || !load.write) {
            figures.extend(measure_load(bench, storage, load)?);
        }
    }
    Ok(figures)
}

fn measure_load(bench: &Bench, storage: &Storage, load: Load) -> Result<Vec<Figure>, BenchError> {
    let mut subjects = bench.vmms.pair();
    subjects.push(Subject::Host);
    let mut runs = vec![Vec::new(); subjects.len()];
    let repetitions = bench.effort(REPETITIONS);
    for repetition in 1..=repetitions {
        for (&subject, runs) in subjects.iter().zip(&mut runs) {
            let (what, name) = (load.name(), subject::name(subject));
            bench
                .progress(&format!("disk ({}): {what}: {name}, {repetition} of {repetitions}", storage.name));
            runs.push(run(bench, storage, load, subject)?);
        }
    }
    let scale = if load.sequential { f64::from(load.block) } else { 1.0 };
    let mut figures = vec![rate_figure(storage, load)];
    add(&mut figures[0], &subjects, &runs, |run| run.per_second * scale);
    if storage.in_memory && load.depth > 1 {
        let name = format!("{}: {}, CPU for a transfer", storage.name, load.name());
        let mut figure = Figure::new("disk", name, Unit::Nanoseconds, Better::Lower);
        add(&mut figure, &subjects, &runs, |run| run.cpu_ns);
        figures.push(figure);
    }
    Ok(figures)
}

fn rate_figure(storage: &Storage, load: Load) -> Figure {
    let unit = if load.sequential { Unit::BytesPerSecond } else { Unit::PerSecond };
    let name = format!("{}: {}", storage.name, load.name());
    let figure = Figure::new("disk", name, unit, Better::Higher);
    match storage.in_memory && !load.write && !load.sequential && load.depth > 1 {
        true => figure.limit(Some(Subject::QemuMicrovm), 1.0, 1.3).limit(Some(Subject::Host), 0.8, 0.95),
        false => figure,
    }
}

fn add(figure: &mut Figure, subjects: &[Subject], runs: &[Vec<Run>], value: impl Fn(&Run) -> f64) {
    for (&subject, runs) in subjects.iter().zip(runs) {
        figure.add(subject, &runs.iter().map(&value).collect::<Vec<_>>());
    }
}

fn run(bench: &Bench, storage: &Storage, load: Load, subject: Subject) -> Result<Run, BenchError> {
    let seconds = bench.effort(SECONDS);
    match subject {
        Subject::Host => on_host(bench, storage, load, seconds),
        _ => in_guest(bench, storage, load, subject, seconds),
    }
}

fn on_host(bench: &Bench, storage: &Storage, load: Load, seconds: usize) -> Result<Run, BenchError> {
    bench.check_signals()?;
    let before = used(std::process::id())?;
    let outcome =
        host_loop::run(&storage.path, load, Duration::from_secs(seconds as u64)).map_err(|error| {
            let (path, load) = (storage.path.display(), load.name());
            BenchError::input(format!("{path}: {load}: {error}; choose another --device"))
        })?;
    Ok(Run::new(outcome, used(std::process::id())?.saturating_sub(before)))
}

fn in_guest(
    bench: &Bench,
    storage: &Storage,
    load: Load,
    subject: Subject,
    seconds: usize,
) -> Result<Run, BenchError> {
    let cmdline = format!("workload={}+idle report=0", load.workload(seconds));
    let machine = Machine { disk: Some(storage.disk()), ..Machine::plain(Bytes::mib(128), &cmdline) };
    let mut vm = bench.start(subject, machine)?;
    let bound = Duration::from_secs(seconds as u64) + OVERTIME;
    let outcome = vm.watch(bound, |line| match line {
        Line::Report(report) if report.part == Part::Total => ControlFlow::Break(Outcome::reported(report)),
        _ => ControlFlow::Continue(()),
    })?;
    Ok(Run::new(outcome, used(vm.pid())?))
}

fn used(pid: u32) -> Result<Duration, BenchError> {
    cpu_time(pid).map_err(|error| BenchError::failed(format!("cannot look at a process: {error}")))
}

impl Run {
    fn new(outcome: Outcome, used: Duration) -> Self {
        let cpu_ns = used.as_nanos() as f64 / outcome.count.max(1.0);
        Self { per_second: outcome.per_second, cpu_ns }
    }
}
