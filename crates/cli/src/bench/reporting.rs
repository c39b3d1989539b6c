//! What free page reporting costs a guest that takes memory and frees it all the time.

use std::ops::ControlFlow;
use std::time::Duration;

use napa_units::Bytes;

use super::figure::{Better, Figure, Unit};
use super::subject::{self, Machine};
use super::{Bench, BenchError, Subject};
use crate::guests::{Line, Part};

const REPETITIONS: (usize, usize) = (5, 1);
const MEMORY: Bytes = Bytes::mib(512);
const SECONDS: (usize, usize) = (6, 3);
const OVERTIME: Duration = Duration::from_secs(60);

/// Measures a workload with reporting and without, in turn.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>, BenchError> {
    let mut rate =
        Figure::new("reporting", "pages filled, freed and reported", Unit::PerSecond, Better::Higher);
    let mut lost = Figure::new("reporting", "throughput lost to reporting", Unit::Percent, Better::Lower)
        .limit(None, 5.0, 2.0);
    let repetitions = bench.effort(REPETITIONS);
    for subject in bench.vmms.pair() {
        let (mut rates, mut losses) = (Vec::new(), Vec::new());
        for repetition in 1..=repetitions {
            bench.progress(&format!("reporting: {}, {repetition} of {repetitions}", subject::name(subject)));
            let without = run(bench, subject, "off")?;
            let with = run(bench, subject, "on")?;
            rates.push(with);
            losses.push((1.0 - with / without) * 100.0);
        }
        rate.add(subject, &rates);
        lost.add(subject, &losses);
    }
    Ok(vec![rate, lost])
}

/// Pages a second.
fn run(bench: &Bench, subject: Subject, reporting: &str) -> Result<f64, BenchError> {
    let seconds = bench.effort(SECONDS);
    let cmdline = format!("workload=churn:256M,{seconds} balloon=on reporting={reporting} pause=20 report=0");
    let bound = Duration::from_secs(seconds as u64) + OVERTIME;
    bench.start(subject, Machine::plain(MEMORY, &cmdline))?.watch(bound, |line| match line {
        Line::Report(report) if report.part == Part::Total => {
            ControlFlow::Break(report.operations_per_second as f64)
        }
        _ => ControlFlow::Continue(()),
    })
}
