//! `rng`: reads entropy and looks whether it is any.

use super::Ending;
use crate::arena::Arena;
use crate::clock;
use crate::failure::{CODE_CORRUPT, Failure};
use crate::machine::Machine;
use crate::pci::Function;
use crate::report::Reporter;
use crate::virtio::entropy::{Entropy, PIECE};
use guest_logic::entropy::Check;
use guest_logic::histogram::Histogram;

pub fn run(machine: &Machine, arena: &Arena, functions: &[Function], size: u64) -> Result<Ending, Failure> {
    let mut source = Entropy::open(functions, arena)?;
    let histogram = &arena.slice::<Histogram>(1, 64)?[..];
    let mut reporter = Reporter::new(arena, "rng", "read", &machine.arguments, histogram)?;
    let mut check = Check::default();
    let bad =
        |fault| Failure::new(CODE_CORRUPT, format_args!("virtio-rng: the output is not random: {fault:?}"));
    let mut left = size;
    let mut ending = Ending::Completed;
    while left > 0 {
        let start = clock::now();
        let piece = source.read(left.min(PIECE as u64) as usize)?;
        let end = clock::now();
        histogram[0].record(end.saturating_sub(start));
        left = left.saturating_sub(piece.len() as u64);
        check.add(piece).map_err(bad)?;
        if reporter.tick(end) {
            ending = Ending::Stopped;
            break;
        }
    }
    reporter.finish();
    check.finish().map_err(bad)?;
    Ok(ending)
}
