//! `spin`: every processor computes and touches no memory.

use super::Ending;
use crate::arena::Arena;
use crate::crew::run_phase;
use crate::failure::Failure;
use crate::machine::Machine;
use guest_logic::command_line::Duration;
use guest_logic::random::Random;

/// Random numbers drawn in one operation.
const DRAWS: u32 = 1000;

pub fn run(machine: &Machine, arena: &Arena, duration: Duration) -> Result<Ending, Failure> {
    // There is nothing to pass over.
    let duration = if duration == Duration::OnePass { Duration::Seconds(1) } else { duration };
    run_phase(machine, arena, ("spin", "run"), duration, &|worker| {
        let mut random = Random::new(worker.index() as u64);
        let mut draw = || {
            let sum = (0..DRAWS).fold(0_u64, |sum, _| sum ^ random.next_u64());
            core::hint::black_box(sum);
        };
        while worker.operation(&mut draw) {}
    })
}
