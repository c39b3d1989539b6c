//! Which memory is free. Workloads take it from the bottom of each range of RAM and give it back together; the balloon
//! takes it from the top (`balloon.rs`). What lies between is free.

mod balloon;

pub use balloon::BLOCK;

use heapless::Vec;

/// Guest-physical addresses from `start` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first address.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
}

impl Range {
    /// Its length in bytes; a range that ends before it starts is empty.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Free ranges at most: each range of RAM is cut in two by the image at most once.
const RANGES_MAX: usize = 17;
const PAGE: u64 = 4096;

/// Not enough free memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The bytes asked for.
    pub wanted: u64,
    /// The bytes still free, over all ranges.
    pub free: u64,
}

/// Free memory.
#[derive(Debug, Clone)]
pub struct FreeMemory {
    spans: Vec<Span, RANGES_MAX>,
}

/// A range of RAM. From the bottom up: what is in use, what is free, what the balloon is giving back, what it holds.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// Where the free part starts.
    start: u64,
    /// Where it ends.
    end: u64,
    /// Where the balloon's part starts.
    balloon: u64,
    /// Where the RAM ends.
    ram_end: u64,
    /// Free memory below this address was in use before, and nobody told the host since that it is free.
    used_end: u64,
}

impl Span {
    fn free(&self) -> Range {
        Range { start: self.start, end: self.end }
    }

    fn take_up_to(&mut self, end: u64) {
        self.start = end;
        self.used_end = self.used_end.max(end);
    }
}

/// How much was in use at some time: see [`FreeMemory::mark`].
#[derive(Debug, Clone)]
pub struct Mark(Vec<u64, RANGES_MAX>);

impl FreeMemory {
    /// All of `ram` from `image_end` up; below it lie the image and what the loader left for it.
    #[must_use]
    pub fn above(image_end: u64, ram: &[Range]) -> Self {
        let mut spans = Vec::new();
        for range in ram.iter().take(RANGES_MAX) {
            let start = range.start.max(image_end).next_multiple_of(PAGE);
            let end = range.end & !(PAGE - 1);
            if start < end {
                let span = Span { start, end, balloon: end, ram_end: end, used_end: start };
                spans.push(span).expect("no more ranges are taken than fit");
            }
        }
        Self { spans }
    }

    /// Bytes still free, over all ranges.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.spans.iter().map(|span| span.free().bytes()).sum()
    }

    /// Takes `bytes` in one piece, aligned to `alignment` (a power of two), from the first range that holds them.
    pub fn take(&mut self, bytes: u64, alignment: u64) -> Result<Range, OutOfMemory> {
        for span in &mut self.spans {
            let Some(start) = span.start.checked_next_multiple_of(alignment) else { continue };
            let Some(end) = start.checked_add(bytes) else { continue };
            if end <= span.end {
                span.take_up_to(end);
                return Ok(Range { start, end });
            }
        }
        Err(OutOfMemory { wanted: bytes, free: self.free() })
    }

    /// Takes `pages` 4 KiB pages in as few pieces as there are ranges.
    pub fn take_pages(&mut self, pages: u64) -> Result<PageSet, OutOfMemory> {
        let mut missing = pages;
        let mut rest = self.clone();
        let mut pieces = Vec::new();
        for span in &mut rest.spans {
            span.start = span.start.next_multiple_of(PAGE).min(span.end);
            let start = span.start;
            let taken = missing.min(span.free().bytes() / PAGE);
            if taken > 0 {
                let end = start + taken * PAGE;
                pieces.push(Range { start, end }).expect("as many pieces as ranges fit");
                span.take_up_to(end);
                missing -= taken;
            }
        }
        if missing > 0 {
            return Err(OutOfMemory { wanted: pages.saturating_mul(PAGE), free: self.free() });
        }
        *self = rest;
        Ok(PageSet { pieces, pages })
    }

    /// What is in use now, to come back to it with [`Self::release`].
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.spans.iter().map(|span| span.start).collect())
    }

    /// Frees everything that was taken from the bottom since `mark` was.
    pub fn release(&mut self, mark: &Mark) {
        for (span, &start) in self.spans.iter_mut().zip(&mark.0) {
            span.start = start;
        }
    }
}

/// Pages that are numbered through, though they may lie in several ranges.
#[derive(Debug, Clone)]
pub struct PageSet {
    pieces: Vec<Range, RANGES_MAX>,
    pages: u64,
}

impl PageSet {
    /// How many pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The address of page `index`; none from the number of pages on.
    #[must_use]
    pub fn address(&self, index: u64) -> Option<u64> {
        let mut offset = index.checked_mul(PAGE)?;
        for piece in &self.pieces {
            if offset < piece.bytes() {
                return Some(piece.start + offset);
            }
            offset -= piece.bytes();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RAM: [Range; 3] = [
        Range { start: 0, end: 0x9_fc00 },
        Range { start: 0x10_0000, end: 0x100_0000 },
        Range { start: 1 << 32, end: (1 << 32) + 0x80_0000 },
    ];

    #[test]
    fn memory_below_the_end_of_the_image_stays_untouched() {
        let mut free = FreeMemory::above(0x12_3456, &RAM);
        assert_eq!(free.take(1, 1).unwrap().start, 0x12_4000);
    }

    #[test]
    fn pages_are_numbered_across_ranges() {
        let mut free = FreeMemory::above(0x80_0000, &RAM);
        let total = free.free() / PAGE;
        let set = free.take_pages(total).unwrap();
        assert_eq!(set.address(0), Some(0x80_0000));
        assert_eq!(set.address(0x800), Some(1 << 32));
        assert_eq!(set.address(total), None);
        assert_eq!(set.address(u64::MAX), None);
        assert_eq!(free.free(), 0);
    }

    #[test]
    fn too_much_is_refused_and_takes_nothing() {
        let mut free = FreeMemory::above(0x80_0000, &RAM);
        let before = free.free();
        assert_eq!(free.take_pages(before / PAGE + 1).unwrap_err().free, before);
        assert_eq!(free.take(u64::MAX, PAGE).unwrap_err(), OutOfMemory { wanted: u64::MAX, free: before });
        assert_eq!(free.free(), before);
    }

    proptest! {
        #[test]
        fn pieces_are_aligned_inside_ram_and_disjoint(
            wishes in prop::collection::vec((0_u64..0x20_0000, 0_u32..17), 1..40)
        ) {
            let mut free = FreeMemory::above(0x20_0000, &RAM);
            let mut taken: Vec<Range> = Vec::new();
            for (bytes, shift) in wishes {
                let alignment = 1 << shift;
                let Ok(piece) = free.take(bytes, alignment) else { continue };
                prop_assert_eq!(piece.start % alignment, 0);
                prop_assert_eq!(piece.bytes(), bytes);
                prop_assert!(RAM.iter().any(|r| r.start <= piece.start && piece.end <= r.end));
                prop_assert!(taken.iter().all(|other| other.end <= piece.start || piece.end <= other.start));
                taken.push(piece);
            }
        }
    }
    use std::vec::Vec;
}
