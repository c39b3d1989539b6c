//! Putting guest memory into the host's swap, by the VM's own process.
//!
//! ```text
//!   hand -> [ block ][ block ][ block ] ...     2 MiB each
//!             |  nothing resident           -> next
//!             |  pages came back since then -> spared once, next
//!             |  otherwise                  -> MADV_PAGEOUT on what is resident, counted, next
//! ```
//!
//! The hand goes on where it stopped, so that a guest's memory goes in turns. The kernel shows nobody which pages were
//! used without being away (MADV_PAGEOUT forgets that too), so what a guest uses is learnt from what it brings back.
//! A step is one block: the guest runs on, and waits for no more than the pages that it wants just then. What is taken
//! is counted by what is gone, not by what was asked.
#![allow(unsafe_code)] // The kernel is advised by address.

mod clock;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use napa_sys::own_memory::{Run, Seen, SwapAreas};
use napa_units::{Bytes, PAGE_SIZE, Pages};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use self::clock::{Clock, Turn};
use crate::{PageStates, Sensors, host_address};

/// A block: what a huge page covers, so that none is split but the last.
const BLOCK: Bytes = Bytes::mib(2);
/// Times that the hand goes round without taking a page before it is said that none is left: in the first, blocks may
/// have had their second chance.
const IDLE_ROUNDS_MAX: usize = 2;

/// Takes memory of one guest in turns.
#[derive(Debug)]
pub struct PageOut {
    pages: Arc<PageStates>,
    sensors: Arc<Sensors>,
    stretches: Vec<Stretch>,
    clock: Clock,
}

/// A region in blocks.
#[derive(Debug)]
struct Stretch {
    /// Its addresses in this process.
    range: Range<u64>,
    /// [Index](PageStates::index) of its first page.
    index: u64,
    /// Blocks of the stretches before it.
    before: usize,
}

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Pages that left memory.
    pub pages: Pages,
    /// Pages found on the way that had been taken before and are in memory again.
    pub came_back: Pages,
    /// Why it ended.
    pub end: End,
}

/// Why no more was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was all that was wanted.
    Complete,
    /// Whoever asked wants to hear from it now.
    Interrupted,
    /// The hand went round and nothing more would go: nothing is left, or the kernel keeps it.
    NothingGoes,
}

/// Why memory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum PageOutError {
    /// The kernel does not say where pages are.
    #[error("cannot read where the guest's pages are: {0}")]
    Pagemap(#[source] io::Error),
    /// The kernel refused the advice.
    #[error("the kernel does not put guest memory into swap: {0}")]
    Refused(#[source] io::Error),
}

/// Where the pages of a block are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Census {
    resident: u64,
    swapped: u64,
}

impl PageOut {
    /// For the memory of one guest, which has some.
    pub fn new(pages: Arc<PageStates>, sensors: Arc<Sensors>) -> Self {
        let (mut stretches, mut index, mut before) = (Vec::new(), 0, 0);
        let plugged = pages.blocks().map(|blocks| &**blocks.region());
        for region in pages.ram().iter().chain(plugged) {
            let start = host_address(region);
            let range = start..start + region.len();
            let count = count_of_blocks(&range);
            stretches.push(Stretch { range, index, before });
            index += region.len() / PAGE_SIZE;
            before += count;
        }
        Self { pages, sensors, stretches, clock: Clock::new(before) }
    }

    /// Takes up to `wanted` pages, as long as `may_go_on` says so; it is asked before each block.
    ///
    /// # Errors
    /// The kernel refuses to say where pages are, or to take any.
    pub fn take(&mut self, wanted: Pages, may_go_on: impl Fn() -> bool) -> Result<Taken, PageOutError> {
        let mut taken = Taken { pages: Pages(0), came_back: Pages(0), end: End::Complete };
        let mut idle = 0;
        while taken.pages < wanted {
            if idle >= IDLE_ROUNDS_MAX * self.clock.len() {
                return Ok(Taken { end: End::NothingGoes, ..taken });
            }
            if !may_go_on() {
                return Ok(Taken { end: End::Interrupted, ..taken });
            }
            let gone = self.step(wanted.0 - taken.pages.0, &mut taken.came_back)?;
            taken.pages.0 += gone;
            idle = if gone > 0 { 0 } else { idle + 1 };
        }
        Ok(taken)
    }

    /// Deals with the block at the hand and moves on; gives how many pages left memory.
    fn step(&mut self, wanted: u64, came_back: &mut Pages) -> Result<u64, PageOutError> {
        let (block, index) = self.block(self.clock.hand());
        if !self.pages.is_there(index) {
            self.clock.forget();
            self.clock.advance();
            return Ok(0);
        }
        // A block that is unplugged from here on is no memory of the guest's any more, nothing of which is in swap: the
        // advice harms nothing, and no page of it counts.
        let (found, resident) = self.look(&block, wanted)?;
        let (turn, back) = self.clock.judge(found);
        came_back.0 += back;
        let mut gone = 0;
        if turn == Turn::Take {
            page_out(resident)?;
            let (left, _) = self.look(&block, 0)?;
            gone = left.swapped.saturating_sub(found.swapped);
            self.clock.record(left.swapped);
        }
        self.clock.advance();
        Ok(gone)
    }

    /// The addresses of a block, and the [index](PageStates::index) of its first page.
    fn block(&self, number: usize) -> (Range<u64>, u64) {
        let next = self.stretches.partition_point(|stretch| stretch.before <= number);
        let stretch = &self.stretches[next - 1];
        let block = block_of(&stretch.range, (number - stretch.before) as u64);
        let index = stretch.index + (block.start - stretch.range.start) / PAGE_SIZE;
        (block, index)
    }

    /// Where the pages of a block are, and the range from its first page in memory that holds `wanted` of them.
    fn look(&self, block: &Range<u64>, wanted: u64) -> Result<(Census, Range<u64>), PageOutError> {
        let pages = (block.end - block.start) / PAGE_SIZE;
        let mut census = Census::default();
        let mut range = block.start..block.start;
        let mut at = block.start;
        let mut each = |run: Run| {
            match run.seen {
                Seen::Swapped(_) => census.swapped += run.pages,
                Seen::Present | Seen::PresentOrZeros => {
                    if census.resident == 0 {
                        range.start = at;
                    }
                    if census.resident < wanted {
                        range.end = at + run.pages.min(wanted - census.resident) * PAGE_SIZE;
                    }
                    census.resident += run.pages;
                }
                Seen::Absent | Seen::Zeros => {}
            }
            at += run.pages * PAGE_SIZE;
        };
        let looked = self.sensors.pagemap.look(block.start, pages, SwapAreas::Alike, &mut each);
        looked.map_err(PageOutError::Pagemap)?;
        Ok((census, range))
    }
}

/// How many blocks there are in a range of addresses that is cut where huge pages begin.
fn count_of_blocks(range: &Range<u64>) -> usize {
    (range.end.div_ceil(BLOCK.0) - range.start / BLOCK.0) as usize
}

/// One of them.
fn block_of(range: &Range<u64>, number: u64) -> Range<u64> {
    let block = range.start / BLOCK.0 + number;
    (block * BLOCK.0).max(range.start)..((block + 1) * BLOCK.0).min(range.end)
}

fn page_out(range: Range<u64>) -> Result<(), PageOutError> {
    if range.is_empty() {
        return Ok(());
    }
    let (start, bytes) = (range.start as *mut libc::c_void, (range.end - range.start) as usize);
    // SAFETY: the range lies inside a mapping of guest RAM that the caller keeps; the advice moves pages, not what
    // they hold.
    match unsafe { libc::madvise(start, bytes, libc::MADV_PAGEOUT) } {
        0 => Ok(()),
        _ => Err(PageOutError::Refused(io::Error::last_os_error())),
    }
}
