//! `blk-read`, `blk-write`, `blk-seq-read`, `blk-seq-write`: transfers of one size at one depth.

use super::{Ending, Work, pump};
use crate::arena::Arena;
use crate::failure::{CODE_BAD_INPUT, Failure};
use crate::machine::Machine;
use crate::pci::Function;
use crate::virtio::block::{Block, Done, Operation, Request, SECTOR};
use guest_logic::command_line::{self, Duration};
use guest_logic::random::Random;

struct Transfer {
    operation: Operation,
    sequential: bool,
    block_bytes: u64,
    blocks: u64,
    next_block: u64,
    /// Requests still to make.
    left: u64,
    random: Random,
}

pub fn run(
    machine: &Machine,
    arena: &Arena,
    functions: &[Function],
    work: command_line::Block,
) -> Result<Ending, Failure> {
    let arguments = &machine.arguments;
    let mut block = Block::open(functions, arguments.disk, work.depth as usize, work.block as usize, arena)?;
    let blocks = block.capacity() * SECTOR / work.block;
    if blocks == 0 || work.write && block.read_only() {
        let reason = if blocks == 0 { "is smaller than one block" } else { "is read-only" };
        return Err(Failure::new(CODE_BAD_INPUT, format_args!("disk {} {reason}", arguments.disk)));
    }
    if work.write {
        (0..block.slots()).for_each(|slot| fill(block.buffer(slot), arguments.seed ^ slot as u64));
    }
    let mut transfer = Transfer {
        operation: if work.write { Operation::Write } else { Operation::Read },
        sequential: work.sequential,
        block_bytes: work.block,
        blocks,
        next_block: 0,
        left: if work.duration == Duration::OnePass { blocks } else { u64::MAX },
        random: Random::new(arguments.seed),
    };
    let name = match (work.write, work.sequential) {
        (false, false) => "blk-read",
        (true, false) => "blk-write",
        (false, true) => "blk-seq-read",
        (true, true) => "blk-seq-write",
    };
    pump(machine, arena, &mut block, &mut transfer, (name, "transfer"), work.duration)
}

/// Writes what does not compress, so that a host cannot save the work.
fn fill(buffer: &mut [u8], seed: u64) {
    let mut random = Random::new(seed);
    for word in buffer.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next_u64().to_le_bytes());
    }
}

impl Work for Transfer {
    fn next(&mut self, _slot: usize, _buffer: &mut [u8]) -> Option<Request> {
        self.left = self.left.checked_sub(1)?;
        let block = if self.sequential {
            let block = self.next_block;
            self.next_block = (block + 1) % self.blocks;
            block
        } else {
            self.random.below(self.blocks)
        };
        let sector = block * (self.block_bytes / SECTOR);
        Some(Request { operation: self.operation, sector, bytes: self.block_bytes as u32 })
    }

    fn done(&mut self, _done: &Done, _buffer: &mut [u8]) -> Result<(), Failure> {
        Ok(())
    }
}
