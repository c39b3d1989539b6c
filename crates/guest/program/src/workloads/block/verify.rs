//! `blk-verify`: every 4 KiB block of a region holds a pattern of its number and generation, in memory and on the disk.
//!
//! The region is written, flushed, then read and rewritten at random, and at last read whole. Requests under way never
//! overlap, so what a read must find is known.

use super::{Ending, Work, pump};
use crate::arena::Arena;
use crate::failure::{CODE_BAD_INPUT, CODE_CORRUPT, Failure};
use crate::machine::Machine;
use crate::pci::Function;
use crate::print_line;
use crate::virtio::block::{Block, Done, Operation, Request, SECTOR};
use guest_logic::command_line::{DEPTH_MAX, Duration};
use guest_logic::pattern;
use guest_logic::random::Random;

const BLOCK: u64 = 4096;
const SECTORS_PER_BLOCK: u64 = BLOCK / SECTOR;
const DEPTH: usize = 16;
/// Blocks of one request at most.
const EXTENT_MAX: u64 = 16;
/// Random requests between two flushes.
const FLUSH_EVERY: u64 = 256;
/// Places tried for a request that must not overlap one under way.
const TRIES_MAX: u32 = 8;
/// `CORRUPT` lines at most.
const LINES_MAX: u64 = 16;

/// Blocks from `first` up to, not including, `end`.
#[derive(Debug, Clone, Copy)]
struct Extent {
    first: u64,
    end: u64,
}

/// The order of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Fill,
    Random,
    Check,
    Flush,
}

struct Verify<'a> {
    mode: Mode,
    generations: &'a mut [u32],
    disk: u64,
    seed: u64,
    writes_percent: u64,
    flushes: bool,
    /// The next block in order.
    cursor: u64,
    /// Random requests, or flushes, still to make.
    left: u64,
    since_flush: u64,
    under_way: [Option<Extent>; DEPTH_MAX as usize],
    random: Random,
    corrupt: u64,
}

pub fn run(
    machine: &Machine,
    arena: &Arena,
    functions: &[Function],
    size: u64,
    duration: Duration,
) -> Result<Ending, Failure> {
    let arguments = &machine.arguments;
    let disk = arguments.disk;
    let mut block = Block::open(functions, disk, DEPTH, (EXTENT_MAX * BLOCK) as usize, arena)?;
    if block.read_only() {
        return Err(Failure::new(CODE_BAD_INPUT, format_args!("disk {disk} is read-only")));
    }
    if size / SECTOR > block.capacity() {
        let bytes = block.capacity() * SECTOR;
        return Err(Failure::new(
            CODE_BAD_INPUT,
            format_args!("{size} bytes do not fit disk {disk} of {bytes}"),
        ));
    }
    let blocks = size / BLOCK;
    let mut verify = Verify {
        mode: Mode::Fill,
        generations: arena.slice::<u32>(blocks as usize, 64)?,
        disk,
        seed: arguments.seed,
        writes_percent: arguments.writes_percent,
        flushes: block.flushes(),
        cursor: 0,
        left: 0,
        since_flush: 0,
        under_way: [None; DEPTH_MAX as usize],
        random: Random::new(arguments.seed),
        corrupt: 0,
    };
    let visits = if duration == Duration::OnePass { blocks } else { u64::MAX };
    let steps = [
        (Mode::Fill, "fill", 0, Duration::OnePass),
        (Mode::Flush, "flush", 1, Duration::OnePass),
        (Mode::Random, "visit", visits, duration),
        (Mode::Flush, "flush", 1, Duration::OnePass),
        (Mode::Check, "check", 0, Duration::OnePass),
    ];
    let mut ending = Ending::Completed;
    for (mode, phase, left, duration) in steps {
        if mode == Mode::Flush && !verify.flushes {
            continue;
        }
        verify.begin(mode, left);
        ending = pump(machine, arena, &mut block, &mut verify, ("blk-verify", phase), duration)?;
        if ending == Ending::Stopped {
            break;
        }
    }
    match verify.corrupt {
        0 => Ok(ending),
        count => Err(Failure::new(CODE_CORRUPT, format_args!("{count} blocks read back are not as written"))),
    }
}

impl Work for Verify<'_> {
    fn next(&mut self, slot: usize, buffer: &mut [u8]) -> Option<Request> {
        match self.mode {
            Mode::Fill => self.in_order().map(|extent| self.write(slot, extent, buffer)),
            Mode::Check => self.in_order().map(|extent| self.read(slot, extent)),
            Mode::Random => self.at_random(slot, buffer),
            Mode::Flush => {
                self.left = self.left.checked_sub(1)?;
                Some(Request::FLUSH)
            }
        }
    }

    fn done(&mut self, done: &Done, buffer: &mut [u8]) -> Result<(), Failure> {
        if let Some(extent) = self.under_way[done.slot].take()
            && done.request.operation == Operation::Read
        {
            (extent.first..extent.end)
                .zip(buffer.chunks_exact(BLOCK as usize))
                .for_each(|(block, bytes)| self.check(block, bytes));
        }
        Ok(())
    }
}

impl Verify<'_> {
    fn begin(&mut self, mode: Mode, left: u64) {
        (self.mode, self.left, self.cursor, self.since_flush) = (mode, left, 0, 0);
    }

    fn blocks(&self) -> u64 {
        self.generations.len() as u64
    }

    fn in_order(&mut self) -> Option<Extent> {
        let first = self.cursor;
        self.cursor = (first + EXTENT_MAX).min(self.blocks());
        (first < self.cursor).then_some(Extent { first, end: self.cursor })
    }

    fn at_random(&mut self, slot: usize, buffer: &mut [u8]) -> Option<Request> {
        if self.left == 0 {
            return None;
        }
        if self.flushes && self.since_flush >= FLUSH_EVERY {
            self.since_flush = 0;
            return Some(Request::FLUSH);
        }
        let extent = self.free_extent()?;
        self.left -= 1;
        self.since_flush += 1;
        let write = self.random.percent(self.writes_percent);
        Some(if write { self.write(slot, extent, buffer) } else { self.read(slot, extent) })
    }

    /// A random extent that overlaps none under way; none if a few tries found none.
    fn free_extent(&mut self) -> Option<Extent> {
        for _ in 0..TRIES_MAX {
            let first = self.random.below(self.blocks());
            let end = (first + 1 + self.random.below(EXTENT_MAX)).min(self.blocks());
            let overlaps = |other: &Extent| first < other.end && other.first < end;
            if !self.under_way.iter().flatten().any(overlaps) {
                return Some(Extent { first, end });
            }
        }
        None
    }

    fn request(&mut self, slot: usize, extent: Extent, operation: Operation) -> Request {
        self.under_way[slot] = Some(extent);
        let bytes = ((extent.end - extent.first) * BLOCK) as u32;
        Request { operation, sector: extent.first * SECTORS_PER_BLOCK, bytes }
    }

    fn read(&mut self, slot: usize, extent: Extent) -> Request {
        self.request(slot, extent, Operation::Read)
    }

    fn write(&mut self, slot: usize, extent: Extent, buffer: &mut [u8]) -> Request {
        for (block, bytes) in (extent.first..extent.end).zip(buffer.chunks_exact_mut(BLOCK as usize)) {
            let generation = &mut self.generations[block as usize];
            *generation = generation.wrapping_add(1);
            pattern::fill_bytes(bytes, pattern::first_word(self.seed, block, *generation));
        }
        self.request(slot, extent, Operation::Write)
    }

    fn check(&mut self, block: u64, bytes: &[u8]) {
        let generation = self.generations[block as usize];
        let Err(mismatch) = pattern::check_bytes(bytes, pattern::first_word(self.seed, block, generation))
        else {
            return;
        };
        self.corrupt += 1;
        if self.corrupt <= LINES_MAX {
            let address = block * BLOCK + 8 * mismatch.word as u64;
            print_line!(
                "CORRUPT address={address:#x} expected={:#x} found={:#x} disk={} block={block} generation={generation}",
                mismatch.expected,
                mismatch.found,
                self.disk,
            );
        }
    }
}
