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
const SECONDS: (usize, usize) = (6, 4);
const OVERTIME: Duration = Duration::from_secs(60);

/// When a guest reports memory that is free.
struct Way {
    after_ms: u32,
    name: &'static str,
    /// What that may cost, in percent: at most, and what is aimed for.
    limit: Option<(f64, f64)>,
}

/// Linux waits for two seconds: what is taken and freed all the time is not reported then.
const WAYS: [Way; 2] = [
    Way { after_ms: 2000, name: "after 2 s, as Linux does", limit: Some((5.0, 2.0)) },
    Way { after_ms: 0, name: "at once, so that it faults in again each time", limit: None },
];

/// Measures a workload with reporting and without, in turn.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>, BenchError> {
    WAYS.iter().map(|way| measure_way(bench, way)).collect()
}

fn measure_way(bench: &Bench, way: &Way) -> Result<Figure, BenchError> {
    let name = format!("throughput lost to reporting free memory {}", way.name);
    let mut lost = Figure::new("reporting", name, Unit::Percent, Better::Lower);
    if let Some((at_least, aim)) = way.limit {
        lost = lost.limit(None, at_least, aim);
    }
    let repetitions = bench.effort(REPETITIONS);
    for subject in bench.vmms.pair() {
        let mut losses = Vec::new();
        for repetition in 1..=repetitions {
            bench.progress(&format!("reporting: {}, {repetition} of {repetitions}", subject::name(subject)));
            let without = run(bench, subject, "reporting=off")?;
            let with = run(bench, subject, &format!("reporting=on reporting-after={}", way.after_ms))?;
            losses.push((1.0 - with / without) * 100.0);
        }
        lost.add(subject, &losses);
    }
    Ok(lost)
}

/// Cycles a second of a guest that first frees a part of its memory for good, and then takes and frees another part.
fn run(bench: &Bench, subject: Subject, reporting: &str) -> Result<f64, BenchError> {
    let seconds = bench.effort(SECONDS);
    let cmdline = format!("workload=touch:384M+churn:128M,{seconds} balloon=on {reporting} pause=5 report=0");
    let bound = Duration::from_secs(seconds as u64) + OVERTIME;
    bench.start(subject, Machine::plain(MEMORY, &cmdline))?.watch(bound, |line| match line {
        Line::Report(report) if report.part == Part::Total && report.phase == "cycle" => {
            ControlFlow::Break(report.operations as f64 / report.elapsed_ms.max(1) as f64)
        }
        _ => ControlFlow::Continue(()),
    })
}
