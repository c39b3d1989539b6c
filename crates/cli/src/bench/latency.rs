//! From a guest's doorbell to the completion it sees, one request at a time.

use std::ops::ControlFlow;
use std::time::Duration;

use napa_units::Bytes;

use super::figure::{Better, Figure, Subject, Unit};
use super::load::Outcome;
use super::storage::Storage;
use super::subject::{self, Machine};
use super::{Bench, BenchError};
use crate::guests::{Line, Part};

const REPETITIONS: (usize, usize) = (5, 1);
/// Half of it for requests that touch no disk, half for reads.
const SECONDS: (usize, usize) = (4, 2);
const OVERTIME: Duration = Duration::from_secs(30);
/// Phases of the guest's workload, and what they are to people.
const PHASES: [(&str, &str); 2] = [("identify", "request that touches no disk"), ("read", "4 KiB read")];

/// Measures latencies on `storage`.
pub fn measure(bench: &Bench, storage: &Storage) -> Result<Vec<Figure>, BenchError> {
    let subjects = bench.vmms.pair();
    let mut outcomes: Vec<Vec<[Outcome; 2]>> = vec![Vec::new(); subjects.len()];
    let repetitions = bench.effort(REPETITIONS);
    for repetition in 1..=repetitions {
        for (&subject, outcomes) in subjects.iter().zip(&mut outcomes) {
            bench.progress(&format!("latency: {}, {repetition} of {repetitions}", subject::name(subject)));
            outcomes.push(run(bench, storage, subject)?);
        }
    }
    let mut figures = Vec::new();
    for (index, (_, name)) in PHASES.into_iter().enumerate() {
        figures.push(figure(storage, name, "p50", &subjects, &outcomes, |outcomes| outcomes[index].p50_ns));
        figures.push(figure(storage, name, "p99", &subjects, &outcomes, |outcomes| outcomes[index].p99_ns));
    }
    Ok(figures)
}

fn figure(
    storage: &Storage,
    name: &str,
    percentile: &str,
    subjects: &[Subject],
    outcomes: &[Vec<[Outcome; 2]>],
    value: impl Fn(&[Outcome; 2]) -> f64,
) -> Figure {
    let name = format!("{}: doorbell to completion, {name}, {percentile}", storage.name);
    let mut figure = Figure::new("latency", name, Unit::Nanoseconds, Better::Lower);
    for (&subject, outcomes) in subjects.iter().zip(outcomes) {
        figure.add(subject, &outcomes.iter().map(&value).collect::<Vec<_>>());
    }
    figure
}

fn run(bench: &Bench, storage: &Storage, subject: Subject) -> Result<[Outcome; 2], BenchError> {
    let seconds = bench.effort(SECONDS);
    let cmdline = format!("workload=blk-latency:{seconds} report=0");
    let machine = Machine { disk: Some(storage.disk()), ..Machine::plain(Bytes::mib(128), &cmdline) };
    let mut found: [Option<Outcome>; 2] = [None; 2];
    bench.start(subject, machine)?.watch(Duration::from_secs(seconds as u64) + OVERTIME, |line| {
        if let Line::Report(report) = line
            && report.part == Part::Total
            && let Some(index) = PHASES.iter().position(|(phase, _)| *phase == report.phase)
        {
            found[index] = Some(Outcome::reported(report));
        }
        match found {
            [Some(first), Some(second)] => ControlFlow::Break([first, second]),
            _ => ControlFlow::Continue(()),
        }
    })
}
