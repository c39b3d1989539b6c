//! `blk-latency`: one request at a time, timed from doorbell to completion. Half of the time goes to requests that need
//! no disk (the serial number), half to reads of the first sectors.

use super::{Ending, Work, pump};
use crate::arena::Arena;
use crate::failure::{CODE_BAD_INPUT, Failure};
use crate::machine::Machine;
use crate::pci::Function;
use crate::virtio::block::{Block, Done, Operation, Request, SECTOR};
use guest_logic::command_line::Duration;

const READ_BYTES: u32 = 4096;
/// Requests of each kind where the command line sets no time.
const REQUESTS: u64 = 1000;

struct Repeat {
    request: Request,
    left: u64,
}

pub fn run(
    machine: &Machine,
    arena: &Arena,
    functions: &[Function],
    duration: Duration,
) -> Result<Ending, Failure> {
    let disk = machine.arguments.disk;
    let mut block = Block::open(functions, disk, 1, READ_BYTES as usize, arena)?;
    if block.capacity() * SECTOR < u64::from(READ_BYTES) {
        return Err(Failure::new(CODE_BAD_INPUT, format_args!("disk {disk} is smaller than 4 KiB")));
    }
    let half = match duration {
        Duration::Seconds(seconds) => Duration::Seconds(seconds.div_ceil(2)),
        other => other,
    };
    let left = if duration == Duration::OnePass { REQUESTS } else { u64::MAX };
    let mut identify =
        Repeat { request: Request { operation: Operation::Identify, sector: 0, bytes: 0 }, left };
    let ending = pump(machine, arena, &mut block, &mut identify, ("blk-latency", "identify"), half)?;
    if ending == Ending::Stopped {
        return Ok(ending);
    }
    let mut read =
        Repeat { request: Request { operation: Operation::Read, sector: 0, bytes: READ_BYTES }, left };
    pump(machine, arena, &mut block, &mut read, ("blk-latency", "read"), half)
}

impl Work for Repeat {
    fn next(&mut self, _slot: usize, _buffer: &mut [u8]) -> Option<Request> {
        self.left = self.left.checked_sub(1)?;
        Some(self.request)
    }

    fn done(&mut self, _done: &Done, _buffer: &mut [u8]) -> Result<(), Failure> {
        Ok(())
    }
}
