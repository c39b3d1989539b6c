//! How long a guest waits for a page that the host has put into swap.

use std::ops::ControlFlow;
use std::time::Duration;

use napa_units::Bytes;

use super::figure::{Better, Figure, Subject, Unit};
use super::pageout::page_out;
use super::subject::{self, Machine};
use super::{Bench, BenchError};
use crate::guests::{Footprint, Line, Part};

const REPETITIONS: (usize, usize) = (5, 1);
const MEMORY: Bytes = Bytes::mib(512);
/// What the guest holds, and visits at the end once, in any order.
const HELD: Bytes = Bytes::mib(256);
/// How long it holds it: the host empties it meanwhile.
const HOLD_S: u64 = 8;
/// What may stay behind of the guest.
const LEFT_MAX: Bytes = Bytes::mib(16);
const BOUND: Duration = Duration::from_secs(120);

/// Measures swap-ins.
///
/// # Errors
/// The host has no swap, or a VMM failed.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>, BenchError> {
    let subjects = bench.vmms.pair();
    let mut latencies: Vec<Vec<[f64; 2]>> = vec![Vec::new(); subjects.len()];
    let repetitions = bench.effort(REPETITIONS);
    for repetition in 1..=repetitions {
        for (&subject, latencies) in subjects.iter().zip(&mut latencies) {
            bench.progress(&format!("swap: {}, {repetition} of {repetitions}", subject::name(subject)));
            latencies.push(run(bench, subject)?);
        }
    }
    let names = ["p50", "p99"];
    Ok((0..names.len())
        .map(|index| {
            let name = format!("touch of a page in compressed swap, {}", names[index]);
            let mut figure = Figure::new("swap", name, Unit::Nanoseconds, Better::Lower);
            for (&subject, latencies) in subjects.iter().zip(&latencies) {
                figure.add(subject, &latencies.iter().map(|latency| latency[index]).collect::<Vec<_>>());
            }
            figure
        })
        .collect())
}

/// Median and 99th percentile, in nanoseconds.
fn run(bench: &Bench, subject: Subject) -> Result<[f64; 2], BenchError> {
    let cmdline = format!("workload=hold:{HELD},random,{HOLD_S} report=0");
    let mut vm = bench.start(subject, Machine::plain(MEMORY, &cmdline))?;
    vm.watch(BOUND, |line| match line {
        Line::Report(report) if report.phase == "fill" && report.part == Part::Total => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })?;
    let failed = |error| BenchError::failed(format!("cannot put a guest into swap: {error}"));
    page_out(vm.pid(), MEMORY).map_err(failed)?;
    let resident = Footprint::measure(vm.pid(), MEMORY).map_err(failed)?.guest;
    if resident.0 > LEFT_MAX.0 {
        let name = subject::name(subject);
        return Err(BenchError::failed(format!("{resident} of the guest of {name} stayed out of swap")));
    }
    vm.watch(BOUND, |line| match line {
        Line::Report(report) if report.phase == "check" && report.part == Part::Total => {
            ControlFlow::Break([report.p50_ns as f64, report.p99_ns as f64])
        }
        _ => ControlFlow::Continue(()),
    })
}
