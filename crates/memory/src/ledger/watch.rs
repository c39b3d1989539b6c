//! One guest's memory over time: what is seen now, and what has come back since the last look.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use napa_sys::own_memory::Run;
use napa_sys::own_memory::Seen;
use napa_units::{Bytes, Ledger, PAGE_SIZE, Pages};

use super::census::{Census, Counters};
use super::sampling;
use super::sensors::Sensors;
use super::swap_kinds::{Certainty, SwapKinds};
use crate::{PageStates, Piece};

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
        // What is plugged or unplugged from now on is looked at the next time.
        let pieces = self.pages.pieces(0..self.pages.end());
        let size = Pages(pieces.iter().map(|piece| piece.count.0).sum());
        let end = Pages(self.pages.end());
        let areas = sensors.swap_areas();
        let kinds = SwapKinds::of(&areas);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let mut census = Census::default();
        for range in sampling::ranges(size, seed) {
            for piece in cut(&pieces, &range) {
                let mut index = piece.index;
                let mut each = |run: Run| {
                    let indices = index..index + run.pages;
                    index = indices.end;
                    past.see(indices.clone(), run.seen, end);
                    census.count(run, self.pages.discarded_in(indices));
                };
                sensors.pagemap.look(piece.start, piece.count.0, kinds.areas(), &mut each)?;
            }
        }
        let kinds = kinds.unless_contradicted(census.swapped().map(|(area, _)| area));
        let mut ledger = census.ledger(&kinds).scaled_to(size);
        let is_whole = census.pages() == size;
        let sums = if is_whole { sensors.mappings(&addresses(&pieces)) } else { None };
        census.refine(&mut ledger, &Counters::of(sums, sensors.merged()));
        let compressed = sensors.zswap(&areas).refine(&mut ledger);
        assert_eq!(ledger.size(), size, "pages move between states, and none is made or lost");
        let huge = sums.map(|sums| sums.huge);
        Ok(Look { ledger, looked_at: census.pages(), huge, compressed, refaults: past.refaults })
    }
}

fn addresses(pieces: &[Piece]) -> Vec<Range<u64>> {
    pieces.iter().map(|piece| piece.start..piece.start + piece.count.0 * PAGE_SIZE).collect()
}

/// The parts of `pieces` that hold the pages of these ranks among all pages of theirs.
fn cut(pieces: &[Piece], ranks: &Range<u64>) -> Vec<Piece> {
    let mut before = 0;
    let mut parts = Vec::new();
    for piece in pieces {
        let first = ranks.start.max(before) - before;
        let end = ranks.end.saturating_sub(before).min(piece.count.0);
        if first < end {
            let (index, start) = (piece.index + first, piece.start + first * PAGE_SIZE);
            parts.push(Piece { index, start, count: Pages(end - first) });
        }
        before += piece.count.0;
    }
    parts
}

impl Past {
    /// Pages of a guest that has so many at most are like this now.
    fn see(&mut self, indices: Range<u64>, seen: Seen, size: Pages) {
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
    use proptest::prelude::*;
    use vm_memory::Bytes as _;

    use super::*;
    use crate::{Backing, Blocks, DiscardError, RamRegion, allocate};

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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_plugged_is_the_guests_and_nothing_else(
            steps in proptest::collection::vec((0..8_u64, 0..16_u64, 0..4_u8), 0..40)
        ) {
            const BLOCK: u64 = 16;
            let first = (6 << 30) / PAGE_SIZE;
            let ram = RamRegion { start: GuestAddress(0), size: Bytes::mib(1) };
            let size = Bytes(8 * BLOCK * PAGE_SIZE);
            let region = RamRegion { start: GuestAddress(first * PAGE_SIZE), size };
            let scratch = tempfile::tempfile().unwrap();
            scratch.set_len(BLOCK * PAGE_SIZE).unwrap();
            let block_size = Bytes(BLOCK * PAGE_SIZE);
            let blocks = Blocks::new(region, block_size, Arc::new(scratch), Backing::Ordinary).unwrap();
            let ram = Arc::new(allocate(&[ram]).unwrap());
            let pages = Arc::new(PageStates::with_blocks(ram, Arc::new(blocks)).unwrap());
            let blocks = Arc::clone(pages.blocks().unwrap());
            let watch = Watch::new(Arc::clone(&pages));
            let sensors = Sensors::open(&Root::system(), GroupFiles::default()).unwrap();
            let mut model = [[PageState::Zero; BLOCK as usize]; 8];
            let mut is_plugged = [false; 8];
            for (block, page, step) in steps {
                let (at, plugged) = (block as usize, is_plugged[block as usize]);
                let gfn = Gfn(first + block * BLOCK + page);
                match step {
                    0 => {
                        if !plugged {
                            pages.forget_block(block);
                            model[at] = [PageState::Zero; BLOCK as usize];
                        }
                        blocks.plug(block).unwrap();
                        is_plugged[at] = true;
                    }
                    1 => {
                        blocks.unplug(block).unwrap();
                        is_plugged[at] = false;
                    }
                    // Where nothing is plugged the scratch block takes it, which is nobody's.
                    2 => {
                        pages.all().write_obj(7_u64, vm_memory::GuestAddress(gfn.0 * PAGE_SIZE)).unwrap();
                        model[at][page as usize] = PageState::Resident;
                    }
                    _ => {
                        let refused = matches!(pages.discard(gfn, Pages(1)), Err(DiscardError::Outside { .. }));
                        prop_assert_eq!(refused, !plugged);
                        model[at][page as usize] = PageState::Discarded;
                    }
                }
                prop_assert_eq!(pages.index(gfn).is_some(), is_plugged[at]);
                let look = watch.look(&sensors, 1).unwrap();
                let count = is_plugged.iter().filter(|is| **is).count() as u64;
                prop_assert_eq!(look.ledger.size(), Pages(256 + count * BLOCK));
                prop_assert_eq!((pages.count(), look.looked_at), (look.ledger.size(), look.ledger.size()));
                let held = model.iter().zip(is_plugged).filter(|(_, is)| *is).flat_map(|(block, _)| block);
                let expected = |state| Pages(held.clone().filter(|found| **found == state).count() as u64);
                for state in [PageState::Resident, PageState::Discarded] {
                    prop_assert_eq!(look.ledger.count(state), expected(state));
                }
            }
        }
    }

    #[test]
    fn ranks_are_cut_from_pieces_that_are_apart() {
        let piece = |index, start, count| Piece { index, start, count: Pages(count) };
        let pieces = [piece(0, 0x10_0000, 10), piece(50, 0x90_0000, 5)];
        assert_eq!(cut(&pieces, &(0..15)), pieces);
        assert_eq!(cut(&pieces, &(8..12)), [piece(8, 0x10_8000, 2), piece(50, 0x90_0000, 2)]);
        assert_eq!(cut(&pieces, &(12..13)), [piece(52, 0x90_2000, 1)]);
        assert_eq!(cut(&pieces, &(15..20)), []);
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
