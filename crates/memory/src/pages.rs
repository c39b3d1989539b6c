//! What has become of the pages of guest RAM that napa took back.
#![allow(unsafe_code)] // Memory is given back by address.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use napa_units::{Gfn, PAGE_SIZE, Pages};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

use crate::{GuestRam, host_address};

/// Guest RAM with a mark for every page that was discarded. What devices may address besides RAM is not among its pages.
///
/// The mark says that napa gave the page's memory back to the host because the guest did not need it (balloon, free
/// page reporting). The guest may touch such a page again at any time and then finds zeros, so a marked page that is
/// present has become an ordinary one.
#[derive(Debug)]
pub struct PageStates {
    ram: Arc<GuestRam>,
    /// One bit a page, over all regions in the order of their addresses.
    discarded: Vec<AtomicU64>,
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
        let pages: u64 = ram.iter().map(pages_of).sum();
        let discarded = (0..pages.div_ceil(u64::BITS.into())).map(|_| AtomicU64::new(0)).collect();
        Self { ram, discarded }
    }

    /// The RAM.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// How many pages there are.
    pub fn count(&self) -> Pages {
        Pages(self.ram.iter().map(pages_of).sum())
    }

    /// The place of a page among all pages of RAM, from 0; `None` if the guest has no such page.
    pub fn index(&self, page: Gfn) -> Option<u64> {
        let mut before = 0;
        for region in self.ram.iter() {
            let first = region.start_addr().0 / PAGE_SIZE;
            if page.0 >= first && page.0 - first < pages_of(region) {
                return Some(before + page.0 - first);
            }
            before += pages_of(region);
        }
        None
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

    /// The pieces of RAM that hold these pages, in order: where each starts in this process, and how long it is.
    pub fn host_ranges(&self, indices: Range<u64>) -> Vec<(u64, Pages)> {
        let mut before = 0;
        let mut pieces = Vec::new();
        for region in self.ram.iter() {
            let end = before + pages_of(region);
            let (first, last) = (indices.start.max(before), indices.end.min(end));
            if first < last {
                pieces.push((host_address(region) + (first - before) * PAGE_SIZE, Pages(last - first)));
            }
            before = end;
        }
        pieces
    }

    /// Removes the mark of the page with this [`index`](Self::index): it holds the guest's data again.
    pub fn forget_discard(&self, index: u64) {
        self.mark(index, Pages(1), false);
    }

    fn find(&self, first: Gfn, count: Pages) -> Option<(&GuestRegionMmap<()>, u64)> {
        let index = self.index(first)?;
        let region = self.ram.find_region(vm_memory::GuestAddress(first.address()?.0))?;
        let offset = first.0 - region.start_addr().0 / PAGE_SIZE;
        (count.0 <= pages_of(region) - offset).then_some((region, index))
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

#[cfg(test)]
mod tests {
    use napa_units::{Bytes, GuestAddress};
    use proptest::prelude::*;
    use vm_memory::mmap::MmapRegionBuilder;
    use vm_memory::{Bytes as _, FileOffset};

    use super::*;
    use crate::{RamRegion, allocate};

    fn two_regions() -> PageStates {
        let low = RamRegion { start: GuestAddress(0), size: Bytes::mib(1) };
        let high = RamRegion { start: GuestAddress(1 << 32), size: Bytes::mib(1) };
        PageStates::new(Arc::new(allocate(&[low, high]).unwrap()))
    }

    fn word_at(states: &PageStates, page: u64) -> u64 {
        states.ram().read_obj(vm_memory::GuestAddress(page * PAGE_SIZE)).unwrap()
    }

    #[test]
    fn a_discarded_page_holds_zeros_and_is_marked() {
        let states = two_regions();
        let high = (1 << 32) / PAGE_SIZE;
        for page in [0, 1, 2, high, high + 255] {
            states.ram().write_obj(7_u64, vm_memory::GuestAddress(page * PAGE_SIZE)).unwrap();
        }
        states.discard(Gfn(1), Pages(1)).unwrap();
        states.discard(Gfn(high + 255), Pages(1)).unwrap();
        assert_eq!([0, 1, 2, high, high + 255].map(|page| word_at(&states, page)), [7, 0, 7, 7, 0]);
        let marked: Vec<u64> = (0..states.count().0).filter(|index| states.is_discarded(*index)).collect();
        assert_eq!(marked, [1, 511]);
        states.forget_discard(511);
        assert!(!states.is_discarded(511) && states.is_discarded(1));
    }

    #[test]
    fn pages_that_the_guest_does_not_have_are_refused() {
        let states = two_regions();
        let high = (1 << 32) / PAGE_SIZE;
        for (first, count) in [(256, 1), (255, 2), (0, 257), (high - 1, 1), (u64::MAX, 1), (0, u64::MAX)] {
            let error = states.discard(Gfn(first), Pages(count)).unwrap_err();
            assert!(matches!(error, DiscardError::Outside { .. }), "{first} {count}: {error}");
        }
        assert!((0..512).all(|index| !states.is_discarded(index)));
    }

    #[test]
    fn discarded_pages_of_a_file_do_not_show_the_file_again() {
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0x55; 4 * 4096], 0).unwrap();
        let mapping = MmapRegionBuilder::new_with_bitmap(4 * 4096, ())
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE)
            .with_file_offset(FileOffset::new(file, 0))
            .build()
            .unwrap();
        let region = GuestRegionMmap::new(mapping, vm_memory::GuestAddress(0)).unwrap();
        let states = PageStates::new(Arc::new(GuestRam::from_regions(vec![region]).unwrap()));
        states.discard(Gfn(1), Pages(2)).unwrap();
        let file_word = 0x5555_5555_5555_5555;
        assert_eq!([0, 1, 2, 3].map(|page| word_at(&states, page)), [file_word, 0, 0, file_word]);
    }

    #[test]
    fn pages_lie_in_the_pieces_of_their_regions() {
        let states = two_regions();
        let starts: Vec<u64> = states.ram().iter().map(host_address).collect();
        let check = |indices, expected: &[(u64, Pages)]| assert_eq!(states.host_ranges(indices), expected);
        check(0..512, &[(starts[0], Pages(256)), (starts[1], Pages(256))]);
        check(255..258, &[(starts[0] + 255 * PAGE_SIZE, Pages(1)), (starts[1], Pages(2))]);
        check(300..301, &[(starts[1] + 44 * PAGE_SIZE, Pages(1))]);
        check(512..600, &[]);
        check(3..3, &[]);
    }

    proptest! {
        #[test]
        fn marks_are_counted(ranges in proptest::collection::vec((0..256_u64, 0..200_u64), 0..8),
            start in 0..520_u64, count in 0..520_u64) {
            let states = two_regions();
            for (first, count) in ranges {
                let _outside = states.discard(Gfn(first), Pages(count));
            }
            let indices = start..start + count;
            let expected = indices.clone().filter(|index| states.is_discarded(*index)).count() as u64;
            prop_assert_eq!(states.discarded_in(indices), Pages(expected));
        }

        #[test]
        fn marks_are_those_of_the_ranges(ranges in proptest::collection::vec((0..256_u64, 0..200_u64), 0..8)) {
            let states = two_regions();
            let mut expected = vec![false; 512];
            for (first, count) in ranges {
                if states.discard(Gfn(first), Pages(count)).is_ok() {
                    expected[first as usize..(first + count) as usize].fill(true);
                }
            }
            for (index, expected) in expected.iter().enumerate() {
                prop_assert_eq!(states.is_discarded(index as u64), *expected);
            }
        }
    }
}
