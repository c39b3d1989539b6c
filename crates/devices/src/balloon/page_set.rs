//! Sets of a guest's pages.

use napa_memory::GuestRam;
use napa_units::PAGE_SIZE;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// Pages one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Frame number of the first one.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Run {
    /// The frame number after the last page.
    pub const fn end(self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// The pages that both have, if there are any.
    pub fn common(self, other: Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let end = self.end().min(other.end());
        (first < end).then(|| Self { first, count: end - first })
    }

    /// The whole pages within `bytes` bytes from `address` on; may be none.
    pub const fn within(address: u64, bytes: u64) -> Self {
        let first = address.div_ceil(PAGE_SIZE);
        let end = address.saturating_add(bytes) / PAGE_SIZE;
        Self { first, count: end.saturating_sub(first) }
    }
}

/// The runs of a sorted list of frame numbers; one that is there twice counts once.
pub(super) fn runs(sorted: &[u32]) -> impl Iterator<Item = Run> {
    sorted.chunk_by(|one, next| next - one <= 1).map(|frames| {
        let (first, last) = (frames[0], frames[frames.len() - 1]);
        Run { first: first.into(), count: u64::from(last - first) + 1 }
    })
}

/// Where a guest has RAM.
#[derive(Clone, Debug)]
pub(super) struct Spans(Vec<Run>);

impl Spans {
    pub fn new(ram: &GuestRam) -> Self {
        let span = |region: &vm_memory::GuestRegionMmap<()>| Run {
            first: region.start_addr().0 / PAGE_SIZE,
            count: region.len() / PAGE_SIZE,
        };
        Self(ram.iter().map(span).collect())
    }

    /// The parts of `run` that the guest has, each in one region.
    pub fn parts(&self, run: Run) -> impl Iterator<Item = Run> {
        self.0.iter().filter_map(move |span| span.common(run))
    }
}

/// A set of the pages of one guest.
#[derive(Clone, Debug)]
pub struct PageSet {
    spans: Spans,
    /// One bit a page, over all regions in the order of their addresses.
    words: Vec<u64>,
    count: u64,
}

impl PageSet {
    /// No pages of a guest with this memory.
    pub fn new(ram: &GuestRam) -> Self {
        let spans = Spans::new(ram);
        let pages: u64 = spans.0.iter().map(|span| span.count).sum();
        Self { spans, words: vec![0; pages.div_ceil(u64::BITS.into()) as usize], count: 0 }
    }

    /// How many pages are in it.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether it has this page.
    pub fn contains(&self, page: u64) -> bool {
        let mut found = false;
        self.visit(Run { first: page, count: 1 }, |index, _| {
            found = self.words[(index / 64) as usize] >> (index % 64) & 1 != 0;
        });
        found
    }

    /// Adds what the guest has of `run`.
    pub fn insert(&mut self, run: Run) {
        self.change(run, |word, mask| word | mask);
    }

    /// Removes what the guest has of `run`.
    pub fn remove(&mut self, run: Run) {
        self.change(run, |word, mask| word & !mask);
    }

    fn change(&mut self, run: Run, change: impl Fn(u64, u64) -> u64) {
        let (mut words, mut count) = (std::mem::take(&mut self.words), self.count);
        self.visit(run, |index, pages| {
            let (mut at, end) = (index, index + pages);
            while at < end {
                let bits = (end - at).min(64 - at % 64);
                let word = &mut words[(at / 64) as usize];
                let changed = change(*word, (u64::MAX >> (64 - bits)) << (at % 64));
                count = count + u64::from(changed.count_ones()) - u64::from(word.count_ones());
                *word = changed;
                at += bits;
            }
        });
        (self.words, self.count) = (words, count);
    }

    /// Calls `visit` with the place and the length of each part of `run` that the guest has.
    fn visit(&self, run: Run, mut visit: impl FnMut(u64, u64)) {
        let mut before = 0;
        for span in &self.spans.0 {
            if let Some(part) = span.common(run) {
                visit(before + part.first - span.first, part.count);
            }
            before += span.count;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use napa_memory::{RamRegion, allocate};
    use napa_units::{Bytes, GuestAddress};
    use proptest::prelude::*;

    use super::*;

    fn two_regions() -> GuestRam {
        let low = RamRegion { start: GuestAddress(0), size: Bytes::kib(400) };
        let high = RamRegion { start: GuestAddress(800 << 10), size: Bytes::kib(400) };
        allocate(&[low, high]).unwrap()
    }

    #[test]
    fn frames_become_runs() {
        let run = |first, count| Run { first, count };
        for (frames, expected) in [
            (&[][..], vec![]),
            (&[7, 7, 7], vec![run(7, 1)]),
            (&[1, 2, 2, 3, 5, 6, 9], vec![run(1, 3), run(5, 2), run(9, 1)]),
            (&[0, u32::MAX - 1, u32::MAX], vec![run(0, 1), run(u64::from(u32::MAX) - 1, 2)]),
        ] {
            assert_eq!(runs(frames).collect::<Vec<_>>(), expected, "{frames:?}");
        }
    }

    #[test]
    fn only_whole_pages_are_within() {
        for (address, bytes, first, count) in [
            (0x1000, 0x1000, 1, 1),
            (0x1001, 0x1fff, 2, 1),
            (0x1001, 0x1000, 2, 0),
            (0x1000, 0xfff, 1, 0),
            (u64::MAX, u64::MAX, u64::MAX / 4096 + 1, 0),
        ] {
            assert_eq!(Run::within(address, bytes), Run { first, count }, "{address:#x} {bytes:#x}");
        }
    }

    proptest! {
        #[test]
        fn a_set_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0..320_u64, 0..150_u64), 0..20)) {
            let (mut set, mut model) = (PageSet::new(&two_regions()), BTreeSet::new());
            for (adds, first, count) in steps {
                let owned = (first..first + count).filter(|page| *page < 100 || (200..300).contains(page));
                if adds {
                    set.insert(Run { first, count });
                    model.extend(owned);
                } else {
                    set.remove(Run { first, count });
                    owned.for_each(|page| _ = model.remove(&page));
                }
                prop_assert_eq!(set.count(), model.len() as u64);
            }
            for page in 0..400 {
                prop_assert_eq!(set.contains(page), model.contains(&page), "{}", page);
            }
        }
    }
}
