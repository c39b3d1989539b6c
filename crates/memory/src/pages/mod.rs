//! What has become of the pages of guest RAM that napa took back.
#![allow(unsafe_code)] // Memory is given back by address.

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use napa_units::{Gfn, PAGE_SIZE, Pages};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

use crate::{Blocks, GuestRam, RamError, host_address};

/// The pages of a guest, with a mark for every one that was discarded: its RAM, and of the memory that can be plugged
/// what is. What else devices may address is not among its pages.
///
/// Every page has an index, which stays the same while other memory is plugged and unplugged: first come those of RAM,
/// then those of all blocks. Pages of an unplugged block are not the guest's and appear nowhere.
///
/// The mark says that napa gave the page's memory back to the host because the guest did not need it (balloon, free
/// page reporting). The guest may touch such a page again at any time and then finds zeros, so a marked page that is
/// present has become an ordinary one.
#[derive(Debug)]
pub struct PageStates {
    ram: Arc<GuestRam>,
    /// What can be plugged.
    blocks: Option<Arc<Blocks>>,
    /// RAM, and all that can be plugged.
    all: Arc<GuestRam>,
    /// One bit for each index.
    discarded: Box<[AtomicU64]>,
}

/// Pages that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// [Index](PageStates::index) of the first one.
    pub index: u64,
    /// Where it starts in this process.
    pub start: u64,
    /// How many there are.
    pub count: Pages,
}

impl Piece {
    /// The part of it with these indices, if there is one.
    fn part(self, indices: &Range<u64>) -> Option<Self> {
        let first = indices.start.max(self.index);
        let end = indices.end.min(self.index + self.count.0);
        let start = self.start + first.saturating_sub(self.index) * PAGE_SIZE;
        (first < end).then(|| Self { index: first, start, count: Pages(end - first) })
    }
}

/// Why pages could not be discarded.
#[derive(Debug, thiserror::Error)]
pub enum DiscardError {
    /// The guest has no such memory, or not in one piece.
    #[error("the guest has no {} pages of memory at frame {:#x}", .count.0, .first.0)]
    Outside {
        /// The first page.
        first: Gfn,
        /// How many.
        count: Pages,
    },
    /// The kernel refused.
    #[error("cannot give {} pages of guest memory at frame {:#x} back: {source}", .count.0, .first.0)]
    Refused {
        /// The first page.
        first: Gfn,
        /// How many.
        count: Pages,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl PageStates {
    /// The pages of `ram`, none of which was discarded.
    pub fn new(ram: Arc<GuestRam>) -> Self {
        let discarded = marks(ram.iter().map(pages_of).sum());
        Self { all: Arc::clone(&ram), ram, blocks: None, discarded }
    }

    /// The pages of `ram`, and those of `blocks` that are plugged; none was discarded.
    ///
    /// # Errors
    /// They overlap.
    pub fn with_blocks(ram: Arc<GuestRam>, blocks: Arc<Blocks>) -> Result<Self, RamError> {
        let all = ram.insert_region(Arc::clone(blocks.region()));
        let all = Arc::new(all.map_err(|error| RamError::Layout(error.to_string()))?);
        let discarded = marks(all.iter().map(pages_of).sum());
        Ok(Self { ram, blocks: Some(blocks), all, discarded })
    }

    /// The RAM that the guest has from its start.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// What can be plugged besides.
    pub fn blocks(&self) -> Option<&Arc<Blocks>> {
        self.blocks.as_ref()
    }

    /// RAM and all that can be plugged, whether it is or not: where pages of the guest can ever be.
    pub fn all(&self) -> &Arc<GuestRam> {
        &self.all
    }

    /// How many pages the guest has now: its RAM and what is plugged.
    pub fn count(&self) -> Pages {
        let plugged = self.blocks.as_ref().map_or(0, |blocks| blocks.plugged().0 / PAGE_SIZE);
        Pages(self.ram_count().0 + plugged)
    }

    /// How many pages of RAM there are.
    pub fn ram_count(&self) -> Pages {
        Pages(self.ram.iter().map(pages_of).sum())
    }

    /// The end of all indices.
    pub fn end(&self) -> u64 {
        self.ram_count().0 + self.blocks.as_ref().map_or(0, |blocks| pages_of(blocks.region()))
    }

    /// The place of a page among all that the guest has or can have, from 0; `None` if it does not have it now.
    pub fn index(&self, page: Gfn) -> Option<u64> {
        let mut before = 0;
        for region in self.ram.iter() {
            let first = region.start_addr().0 / PAGE_SIZE;
            if page.0 >= first && page.0 - first < pages_of(region) {
                return Some(before + page.0 - first);
            }
            before += pages_of(region);
        }
        let blocks = self.blocks.as_ref()?;
        let offset = page.0.checked_sub(blocks.region().start_addr().0 / PAGE_SIZE)?;
        blocks.is_plugged(offset / blocks.block_pages()).then_some(before + offset)
    }

    /// Removes all marks of a block: when it is plugged next, it is new.
    pub fn forget_block(&self, block: u64) {
        let Some(blocks) = self.blocks.as_ref().filter(|blocks| block < blocks.count()) else { return };
        let first = self.ram_count().0 + block * blocks.block_pages();
        self.mark(first, Pages(blocks.block_pages()), false);
    }

    /// Gives the memory of `count` pages from `first` on back to the host and marks them. A guest that touches them
    /// again finds zeros, also where its memory began as the contents of a file.
    ///
    /// # Errors
    /// The pages do not lie in one region of RAM, or the kernel refused; nothing is marked then.
    pub fn discard(&self, first: Gfn, count: Pages) -> Result<(), DiscardError> {
        let (region, index) = self.find(first, count).ok_or(DiscardError::Outside { first, count })?;
        if count.0 == 0 {
            return Ok(());
        }
        // Marked before it is done: a guest that comes back in between makes its pages present, which counts more.
        self.mark(index, count, true);
        discard(region, first, count).map_err(|source| {
            self.mark(index, count, false);
            DiscardError::Refused { first, count, source }
        })
    }

    /// Whether the page with this [`index`](Self::index) was discarded and its mark not removed since.
    pub fn is_discarded(&self, index: u64) -> bool {
        let word = self.discarded.get((index / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (index % 64) & 1 != 0)
    }

    /// How many of these pages, by their [indices](Self::index), are marked.
    pub fn discarded_in(&self, indices: Range<u64>) -> Pages {
        let words = indices.start / 64..indices.end.div_ceil(64);
        let marks = |word: u64| {
            let first = word * 64;
            let bits = self.discarded.get(word as usize).map_or(0, |word| word.load(Ordering::Relaxed));
            let below = |end: u64| if end - first >= 64 { u64::MAX } else { (1 << (end - first)) - 1 };
            (bits & below(indices.end) & !below(indices.start.max(first))).count_ones()
        };
        Pages(words.map(|word| u64::from(marks(word))).sum())
    }

    /// The pieces of memory that hold these pages, in order: where each starts in this process, and how long it is.
    pub fn host_ranges(&self, indices: Range<u64>) -> Vec<(u64, Pages)> {
        self.pieces(indices).into_iter().map(|piece| (piece.start, piece.count)).collect()
    }

    /// The pieces of memory that the guest has of these pages, in order.
    pub fn pieces(&self, indices: Range<u64>) -> Vec<Piece> {
        let mut before = 0;
        let mut pieces = Vec::new();
        for region in self.ram.iter() {
            let piece = Piece { index: before, start: host_address(region), count: Pages(pages_of(region)) };
            pieces.extend(piece.part(&indices));
            before += pages_of(region);
        }
        if let Some(blocks) = &self.blocks {
            let piece = |run: Range<u64>| Piece {
                index: before + run.start * blocks.block_pages(),
                start: blocks.host_address(run.start),
                count: Pages((run.end - run.start) * blocks.block_pages()),
            };
            let (first, end) = (indices.start.saturating_sub(before), indices.end.saturating_sub(before));
            let touched = first / blocks.block_pages()..end.div_ceil(blocks.block_pages());
            pieces
                .extend(blocks.plugged_runs(touched).into_iter().filter_map(|run| piece(run).part(&indices)));
        }
        pieces
    }

    /// Whether the guest has the page with this [index](Self::index) now.
    pub fn is_there(&self, index: u64) -> bool {
        match (index.checked_sub(self.ram_count().0), &self.blocks) {
            (None, _) => true,
            (Some(offset), Some(blocks)) => blocks.is_plugged(offset / blocks.block_pages()),
            (Some(_), None) => false,
        }
    }

    /// How many pages the guest has now from this [index](Self::index) on.
    pub fn count_from(&self, index: u64) -> Pages {
        Pages(self.pieces(index..self.end()).iter().map(|piece| piece.count.0).sum())
    }

    /// Does something with the page of this [index](Self::index) while the guest is sure to have it: what is plugged is
    /// not unplugged meanwhile. `None`: the guest does not have it.
    ///
    /// Whoever plugs or unplugs waits for it, so it must not take long, nor wait for anybody who touches memory that is
    /// absent.
    pub fn while_there<T>(&self, index: u64, work: impl FnOnce() -> T) -> Option<T> {
        match index.checked_sub(self.ram_count().0) {
            None => Some(work()),
            Some(offset) => {
                let blocks = self.blocks.as_ref()?;
                blocks.while_plugged(offset / blocks.block_pages(), work)
            }
        }
    }

    /// Whether the page with this [index](Self::index) began as a part of a file: without it the file's bytes are there.
    pub fn began_as_file(&self, index: u64) -> bool {
        let mut before = 0;
        let mut holds = |region: &&GuestRegionMmap<()>| {
            before += pages_of(region);
            index < before
        };
        self.ram.iter().find(|region| holds(region)).is_some_and(|region| region.file_offset().is_some())
    }

    /// Removes the mark of the page with this [`index`](Self::index): it holds the guest's data again.
    pub fn forget_discard(&self, index: u64) {
        self.mark(index, Pages(1), false);
    }

    fn find(&self, first: Gfn, count: Pages) -> Option<(&GuestRegionMmap<()>, u64)> {
        let index = self.index(first)?;
        let region = self.all.find_region(vm_memory::GuestAddress(first.address()?.0))?;
        let offset = first.0 - region.start_addr().0 / PAGE_SIZE;
        if count.0 > pages_of(region) - offset {
            return None;
        }
        if index < self.ram_count().0 {
            return Some((region, index));
        }
        let blocks = self.blocks.as_ref()?;
        let mut touched = offset / blocks.block_pages()..(offset + count.0).div_ceil(blocks.block_pages());
        touched.all(|block| blocks.is_plugged(block)).then_some((region, index))
    }

    fn mark(&self, index: u64, count: Pages, is_discarded: bool) {
        let end = index + count.0;
        let mut at = index;
        while at < end {
            let word = &self.discarded[(at / 64) as usize];
            let bits = (end - at).min(64 - at % 64);
            let mask = (u64::MAX >> (64 - bits)) << (at % 64);
            if is_discarded {
                word.fetch_or(mask, Ordering::Relaxed);
            } else {
                word.fetch_and(!mask, Ordering::Relaxed);
            }
            at += bits;
        }
    }
}

/// One bit a page, all off. The host gives memory for them as marks are set, not before.
fn marks(pages: u64) -> Box<[AtomicU64]> {
    let words = Box::new_zeroed_slice(pages.div_ceil(u64::BITS.into()) as usize);
    // SAFETY: all bits zero is a value of an atomic number.
    unsafe { words.assume_init() }
}

fn pages_of(region: &GuestRegionMmap<()>) -> u64 {
    region.len() / PAGE_SIZE
}

fn discard(region: &GuestRegionMmap<()>, first: Gfn, count: Pages) -> io::Result<()> {
    let offset = first.0 * PAGE_SIZE - region.start_addr().0;
    let start = (host_address(region) + offset) as *mut libc::c_void;
    let bytes = (count.0 * PAGE_SIZE) as usize;
    if region.file_offset().is_some() {
        return map_zeros(start, bytes);
    }
    // SAFETY: the range lies inside the region's mapping, which `ram` keeps; what it held is the guest's, who gave it
    // up, and whoever looks at it finds zeros.
    match unsafe { libc::madvise(start, bytes, libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts fresh memory in place of a part of a private file mapping: advice alone would bring the file's bytes back.
fn map_zeros(start: *mut libc::c_void, bytes: usize) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the range lies inside a mapping that `ram` owns and unmaps whole; it stays mapped with the same rights.
    let mapped = unsafe { libc::mmap(start, bytes, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}
