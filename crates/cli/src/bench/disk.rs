//! Transfers a second: a guest's disk against QEMU's and against the host's own.

use std::ops::ControlFlow;
use std::time::Duration;

use napa_units::Bytes;

use super::figure::{Better, Figure, Subject, Unit};
use super::load::{LOADS, Load, Outcome};
use super::storage::Storage;
use super::subject::{self, Machine};
use super::{Bench, BenchError, host_loop};
use crate::guests::{Line, Part};

const REPETITIONS: (usize, usize) = (5, 1);
const SECONDS: (usize, usize) = (2, 1);
/// What a guest may take beyond its time: a slow disk finishes its last transfers.
const OVERTIME: Duration = Duration::from_secs(30);

/// Measures the disks of guests on each of the bench's storages.
pub fn measure(bench: &Bench, storages: &[Storage]) -> Result<Vec<Figure>, BenchError> {
    let mut figures = Vec::new();
    for storage in storages {
        for load in LOADS.into_iter().filter(|load| storage.may_write || !load.write) {
            figures.push(measure_load(bench, storage, load)?);
        }
    }
    Ok(figures)
}

fn measure_load(bench: &Bench, storage: &Storage, load: Load) -> Result<Figure, BenchError> {
    let mut subjects = bench.vmms.pair();
    subjects.push(Subject::Host);
    let mut values = vec![Vec::new(); subjects.len()];
    let repetitions = bench.effort(REPETITIONS);
    for repetition in 1..=repetitions {
        for (&subject, values) in subjects.iter().zip(&mut values) {
            let (load_name, name) = (load.name(), subject::name(subject));
            bench.progress(&format!(
                "disk ({}): {load_name}: {name}, {repetition} of {repetitions}",
                storage.name
            ));
            values.push(transfer(bench, storage, load, subject)?.per_second);
        }
    }
    let scale = if load.sequential { f64::from(load.block) } else { 1.0 };
    let mut figure = figure(storage, load);
    for (&subject, values) in subjects.iter().zip(&values) {
        figure.add(subject, &values.iter().map(|value| value * scale).collect::<Vec<_>>());
    }
    Ok(figure)
}

fn figure(storage: &Storage, load: Load) -> Figure {
    let unit = if load.sequential { Unit::BytesPerSecond } else { Unit::PerSecond };
    let name = format!("{}: {}", storage.name, load.name());
    let figure = Figure::new("disk", name, unit, Better::Higher);
    match storage.in_memory && !load.write && !load.sequential && load.depth > 1 {
        true => figure.limit(Some(Subject::QemuMicrovm), 1.0, 1.3).limit(Some(Subject::Host), 0.8, 0.95),
        false => figure,
    }
}

fn transfer(bench: &Bench, storage: &Storage, load: Load, subject: Subject) -> Result<Outcome, BenchError> {
    let seconds = bench.effort(SECONDS);
    if subject == Subject::Host {
        bench.check_signals()?;
        let duration = Duration::from_secs(seconds as u64);
        return host_loop::run(&storage.path, load, duration).map_err(|error| {
            BenchError::input(format!(
                "{}: {}: {error}; choose another --device",
                storage.path.display(),
                load.name()
            ))
        });
    }
    let cmdline = format!("workload={} report=0", load.workload(seconds));
    let machine =
        Machine { memory: Bytes::mib(128), cmdline: &cmdline, disk: Some(storage.disk()), tap: None };
    bench.start(subject, machine)?.watch(Duration::from_secs(seconds as u64) + OVERTIME, |line| match line {
        Line::Report(report) if report.part == Part::Total => ControlFlow::Break(Outcome::reported(report)),
        _ => ControlFlow::Continue(()),
    })
}
