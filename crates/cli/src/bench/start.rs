//! How long a VM takes from exec to the first byte of its guest.

use napa_units::Bytes;

use super::figure::{Better, Figure, Subject, Unit};
use super::subject::Machine;
use super::{Bench, BenchError};

/// Repetitions, and those of a machine that takes seconds.
const REPETITIONS: (usize, usize) = (21, 5);
const REPETITIONS_SLOW: (usize, usize) = (3, 1);
/// Starts that are not counted: they bring files and host memory in.
const WARM_UP: usize = 2;

/// Measures starts.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>, BenchError> {
    let small = bench.vmms.pair();
    let mut times = vec![Vec::new(); small.len()];
    let repetitions = bench.effort(REPETITIONS);
    for repetition in 0..WARM_UP + repetitions {
        bench.progress(&format!("start: {} of {repetitions}", repetition.saturating_sub(WARM_UP) + 1));
        for (&subject, times) in small.iter().zip(&mut times) {
            let time = first_byte(bench, subject)?;
            if repetition >= WARM_UP {
                times.push(time);
            }
        }
    }
    let name = format!("exec to the guest's first byte: {}", bench.devices());
    let mut figure = Figure::new("start", name, Unit::Nanoseconds, Better::Lower).limit(
        Some(Subject::QemuMicrovm),
        0.08,
        0.04,
    );
    for (&subject, times) in small.iter().zip(&times) {
        figure.add(subject, times);
    }
    if bench.vmms.qemu.is_some() {
        figure.add(Subject::QemuQ35, &slow(bench)?);
    }
    Ok(vec![figure])
}

fn slow(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    let repetitions = bench.effort(REPETITIONS_SLOW);
    let time = |repetition| {
        bench.progress(&format!("start: q35, {} of {repetitions}", repetition + 1));
        first_byte(bench, Subject::QemuQ35)
    };
    (0..repetitions).map(time).collect()
}

/// In nanoseconds.
fn first_byte(bench: &Bench, subject: Subject) -> Result<f64, BenchError> {
    let machine = Machine {
        disk: Some(bench.disk(0)),
        tap: bench.tap(0),
        ..Machine::plain(Bytes::mib(128), "workload=idle")
    };
    let time = bench.start(subject, machine)?.first_byte()?;
    Ok(time.as_nanos() as f64)
}
