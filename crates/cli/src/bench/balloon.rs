//! How fast a guest gives memory that it has touched to the host and takes it back, and what that costs in CPU time.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use napa_units::{Bytes, Pages};

use super::figure::{Better, Figure, Subject, Unit};
use super::remote::Remote;
use super::subject::{self, Machine};
use super::vm::Vm;
use super::{Bench, BenchError};
use crate::guests::{Footprint, Line, Part, cpu_time};

const REPETITIONS: (usize, usize) = (5, 1);
const MEMORY: Bytes = Bytes::gib(1);
/// What the guest touches first, and what the balloon takes: its balloon finds nothing but touched memory.
const TOUCHED: Bytes = Bytes::mib(992);
const BALLOON: Bytes = Bytes::mib(768);
/// Of the balloon, what may still be resident: a VMM that has taken nothing was not measured.
const LEFT_MAX: Bytes = Bytes::mib(16);
const BOUND: Duration = Duration::from_secs(120);
/// Between a guest's work and the command: the host has done what was begun.
const SETTLE: Duration = Duration::from_millis(300);

/// What came of one balloon.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    inflate: f64,
    deflate: f64,
    per_cpu_second: f64,
}

/// Measures balloons.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>, BenchError> {
    let subjects = bench.vmms.pair();
    let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); subjects.len()];
    let repetitions = bench.effort(REPETITIONS);
    for repetition in 1..=repetitions {
        for (&subject, outcomes) in subjects.iter().zip(&mut outcomes) {
            bench.progress(&format!("balloon: {}, {repetition} of {repetitions}", subject::name(subject)));
            outcomes.push(run(bench, subject)?);
        }
    }
    let figure = |name: &str, aim: Option<f64>, value: fn(&Outcome) -> f64| {
        let figure = Figure::new("balloon", name, Unit::BytesPerSecond, Better::Higher);
        let mut figure = match aim {
            Some(aim) => figure.limit(Some(Subject::QemuMicrovm), 1.0, aim),
            None => figure,
        };
        for (&subject, outcomes) in subjects.iter().zip(&outcomes) {
            figure.add(subject, &outcomes.iter().map(value).collect::<Vec<_>>());
        }
        figure
    };
    Ok(vec![
        figure("inflate, memory that was touched", Some(3.0), |outcome| outcome.inflate),
        figure("deflate", Some(3.0), |outcome| outcome.deflate),
        figure("memory returned per second of CPU time, guest included", None, |outcome| {
            outcome.per_cpu_second
        }),
    ])
}

fn run(bench: &Bench, subject: Subject) -> Result<Outcome, BenchError> {
    let socket = bench.folder.path().join("balloon.sock");
    let cmdline = format!("workload=touch:{TOUCHED}+balloon balloon=on reporting=off report=0");
    let machine = Machine { control: Some(&socket), ..Machine::plain(MEMORY, &cmdline) };
    let mut vm = bench.start(subject, machine)?;
    vm.watch(BOUND, |line| match line {
        Line::Report(report) if report.part == Part::Total && report.phase != "fill" => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })?;
    let mut remote = Remote::connect(subject, &socket, MEMORY)?;
    vm.settle(SETTLE)?;
    let cpu = || cpu_time(vm.pid()).map_err(gone);
    let before = cpu()?;
    let inflated = follow(&mut remote, &mut vm, BALLOON)?;
    let used = cpu_time(vm.pid()).map_err(gone)?.saturating_sub(before);
    vm.settle(SETTLE)?;
    let resident = Footprint::measure(vm.pid(), MEMORY).map_err(gone)?.guest;
    if resident.0 > MEMORY.0 - BALLOON.0 + LEFT_MAX.0 {
        let name = subject::name(subject);
        return Err(BenchError::failed(format!(
            "{name} kept {resident} of a guest that gave {BALLOON} away"
        )));
    }
    let deflated = follow(&mut remote, &mut vm, Bytes(0))?;
    let rate = |time: Duration| BALLOON.0 as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(Outcome { inflate: rate(inflated), deflate: rate(deflated), per_cpu_second: rate(used) })
}

/// From the command to the guest's word that its balloon has this size.
fn follow(remote: &mut Remote, vm: &mut Vm<'_>, size: Bytes) -> Result<Duration, BenchError> {
    let start = Instant::now();
    remote.balloon(size)?;
    let wanted = Pages::covering(size);
    vm.watch(BOUND, |line| match line {
        Line::Balloon(pages) if *pages == wanted => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })?;
    Ok(start.elapsed())
}

fn gone(error: std::io::Error) -> BenchError {
    BenchError::failed(format!("cannot look at a VM's process: {error}"))
}
