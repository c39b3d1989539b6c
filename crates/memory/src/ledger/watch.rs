//! One guest's memory over time: what is seen now, and what has come back since the last look.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use napa_sys::own_memory::Run;
use napa_sys::own_memory::Seen;
use napa_units::{Bytes, Ledger, PAGE_SIZE, Pages};

use super::census::{Census, Counters};
use super::sampling;
use super::sensors::Sensors;
use super::swap_kinds::{Certainty, SwapKinds};
use crate::PageStates;

/// Looks at a guest's memory.
#[derive(Debug)]
pub struct Watch {
    pages: Arc<PageStates>,
    past: Mutex<Past>,
}

/// What was seen at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Where every page is.
    pub ledger: Ledger,
    /// How many pages were looked at; where that is fewer than there are, the ledger is scaled from these.
    pub looked_at: Pages,
    /// What is in huge pages; `None`: not looked at, because the guest is too large for it.
    pub huge: Option<Bytes>,
    /// How the pages in compressed swap are known.
    pub compressed: Certainty,
    /// Pages that were seen in swap once and in memory later, since the guest started.
    pub refaults: u64,
}

/// What earlier looks have seen.
#[derive(Debug, Default)]
struct Past {
    /// One bit a page that was in swap when it was last seen. Empty until the first of them.
    swapped: Vec<u64>,
    refaults: u64,
}

impl Watch {
    /// Of a guest that nobody has looked at.
    pub fn new(pages: Arc<PageStates>) -> Self {
        Self { pages, past: Mutex::default() }
    }

    /// The pages that are watched.
    pub fn pages(&self) -> &Arc<PageStates> {
        &self.pages
    }

    /// Looks at the guest's memory. `seed` chooses the pages where there are too many to look at each.
    ///
    /// # Errors
    /// The kernel does not show them.
    pub fn look(&self, sensors: &Sensors, seed: u64) -> io::Result<Look> {
        let size = self.pages.count();
        let areas = sensors.swap_areas();
        let kinds = SwapKinds::of(&areas);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let mut census = Census::default();
        for range in sampling::ranges(size, seed) {
            let mut index = range.start;
            for (start, pages) in self.pages.host_ranges(range) {
                let mut each = |run: Run| {
                    let indices = index..index + run.pages;
                    index = indices.end;
                    past.see(indices.clone(), run.seen, size);
                    census.count(run, self.pages.discarded_in(indices));
                };
                sensors.pagemap.look(start, pages.0, kinds.areas(), &mut each)?;
            }
        }
        let kinds = kinds.unless_contradicted(census.swapped().map(|(area, _)| area));
        let mut ledger = census.ledger(&kinds).scaled_to(size);
        let is_whole = census.pages() == size;
        let sums = if is_whole { sensors.mappings(&self.addresses()) } else { None };
        census.refine(&mut ledger, &Counters::of(sums, sensors.merged()));
        let compressed = sensors.zswap(&areas).refine(&mut ledger);
        assert_eq!(ledger.size(), size, "pages move between states, and none is made or lost");
        let huge = sums.map(|sums| sums.huge);
        Ok(Look { ledger, looked_at: census.pages(), huge, compressed, refaults: past.refaults })
    }

    fn addresses(&self) -> Vec<std::ops::Range<u64>> {
        let pieces = self.pages.host_ranges(0..self.pages.count().0);
        pieces.into_iter().map(|(start, pages)| start..start + pages.0 * PAGE_SIZE).collect()
    }
}

impl Past {
    /// Pages of a guest of this size are like this now.
    fn see(&mut self, indices: std::ops::Range<u64>, seen: Seen, size: Pages) {
        if matches!(seen, Seen::Swapped(_)) && self.swapped.is_empty() {
            self.swapped = vec![0; size.0.div_ceil(64) as usize];
        }
        if self.swapped.is_empty() {
            return;
        }
        let mut at = indices.start;
        while at < indices.end {
            let bits = (indices.end - at).min(64 - at % 64);
            let mask = (u64::MAX >> (64 - bits)) << (at % 64);
            let word = &mut self.swapped[(at / 64) as usize];
            match seen {
                Seen::Swapped(_) => *word |= mask,
                Seen::Present | Seen::PresentOrZeros => {
                    self.refaults += u64::from((*word & mask).count_ones());
                    *word &= !mask;
                }
                Seen::Absent | Seen::Zeros => *word &= !mask,
            }
            at += bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use napa_sys::cgroup::GroupFiles;
    use napa_sys::host::Root;
    use napa_units::{Gfn, GuestAddress, PageState};
    use vm_memory::Bytes as _;

    use super::*;
    use crate::{RamRegion, allocate};

    #[test]
    fn touched_untouched_and_discarded_pages_are_told_apart() {
        let low = RamRegion { start: GuestAddress(0), size: Bytes::mib(1) };
        let high = RamRegion { start: GuestAddress(1 << 32), size: Bytes::mib(3) };
        let pages = Arc::new(PageStates::new(Arc::new(allocate(&[low, high]).unwrap())));
        let watch = Watch::new(Arc::clone(&pages));
        let sensors = Sensors::open(&Root::system(), GroupFiles::default()).unwrap();
        let states = [PageState::Resident, PageState::Discarded, PageState::Zero];
        let counts = || {
            let look = watch.look(&sensors, 1).unwrap();
            assert_eq!((look.ledger.size(), look.looked_at), (Pages(1024), Pages(1024)));
            states.map(|state| look.ledger.count(state).0)
        };
        assert_eq!(counts(), [0, 0, 1024]);
        for page in 0..100 {
            pages.ram().write_obj(7_u64, vm_memory::GuestAddress(page * PAGE_SIZE)).unwrap();
        }
        let first_high = (1 << 32) / PAGE_SIZE;
        let last = vm_memory::GuestAddress((first_high + 767) * PAGE_SIZE);
        pages.ram().write_obj(7_u64, last).unwrap();
        // Pages that were never touched can be given up as well.
        pages.discard(Gfn(90), Pages(20)).unwrap();
        pages.discard(Gfn(first_high + 766), Pages(2)).unwrap();
        assert_eq!(counts(), [90, 22, 912]);
        // A discarded page that is used again is like any other.
        pages.ram().write_obj(7_u64, last).unwrap();
        assert_eq!(counts(), [91, 21, 912]);
    }

    #[test]
    fn a_page_that_comes_back_from_swap_is_counted_once() {
        let mut past = Past::default();
        let size = Pages(300);
        past.see(0..300, Seen::Present, size);
        assert!(past.swapped.is_empty(), "nothing to remember");
        past.see(10..210, Seen::Swapped(None), size);
        past.see(0..50, Seen::Present, size);
        past.see(0..50, Seen::Present, size);
        assert_eq!(past.refaults, 40);
        // Given up in swap: it does not come back, it is new.
        past.see(50..150, Seen::Absent, size);
        past.see(0..300, Seen::PresentOrZeros, size);
        assert_eq!(past.refaults, 100);
    }
}
