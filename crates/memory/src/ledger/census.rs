//! What was seen of a guest's pages, and what that makes of them.

use napa_sys::own_memory::{MappingSums, Run, Seen};
use napa_units::{Ledger, PAGE_SIZE, PageState, Pages};

use super::swap_kinds::SwapKinds;

/// Kinds of swap areas that an entry of pagemap can name, and one for those it does not.
const AREAS: usize = 32;

/// Pages counted by what the kernel shows of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    present: u64,
    present_or_zeros: u64,
    zeros: u64,
    absent: u64,
    discarded: u64,
    swapped_somewhere: u64,
    swapped: [u64; AREAS],
}

/// What the kernel says about all of a guest's memory at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pages that are present, those of the kernel's page of zeros apart.
    pub resident: Option<Pages>,
    /// Pages merged by KSM.
    pub merged: Pages,
}

impl Counters {
    /// From sums over the mappings of RAM; `merged` where those do not count merged pages.
    pub fn of(sums: Option<MappingSums>, merged: Option<Pages>) -> Self {
        let resident = sums.map(|sums| Pages(sums.resident.0 / PAGE_SIZE));
        let by_mapping = sums.and_then(|sums| sums.merged).map(|merged| Pages(merged.0 / PAGE_SIZE));
        Self { resident, merged: by_mapping.or(merged).unwrap_or_default() }
    }
}

impl Census {
    /// Counts a run of pages, of which so many are marked as discarded.
    pub fn count(&mut self, run: Run, discarded: Pages) {
        match run.seen {
            // A page that was discarded and is there again has been used since.
            Seen::Present => self.present += run.pages,
            Seen::PresentOrZeros => self.present_or_zeros += run.pages,
            Seen::Zeros => self.zeros += run.pages,
            Seen::Absent => {
                let discarded = discarded.0.min(run.pages);
                self.discarded += discarded;
                self.absent += run.pages - discarded;
            }
            Seen::Swapped(area) => match area.and_then(|area| self.swapped.get_mut(usize::from(area))) {
                Some(count) => *count += run.pages,
                None => self.swapped_somewhere += run.pages,
            },
        }
    }

    /// All pages that were counted.
    pub fn pages(&self) -> Pages {
        let swapped = self.swapped_somewhere + self.swapped.iter().sum::<u64>();
        let absent = self.absent + self.discarded;
        Pages(self.present + self.present_or_zeros + self.zeros + absent + swapped)
    }

    /// The pages in swap, by the number of their area.
    pub fn swapped(&self) -> impl Iterator<Item = (u8, u64)> {
        (0..).zip(self.swapped).filter(|(_, pages)| *pages > 0)
    }

    /// The pages by their states, before the kernel's counters tell more.
    pub fn ledger(&self, kinds: &SwapKinds) -> Ledger {
        let mut ledger = Ledger::untouched(self.pages());
        let mut put = |state, pages| ledger.shift(PageState::Zero, state, Pages(pages));
        put(PageState::Resident, self.present + self.present_or_zeros);
        put(PageState::Discarded, self.discarded);
        put(kinds.state(None), self.swapped_somewhere);
        for (area, pages) in self.swapped() {
            put(kinds.state(Some(area)), pages);
        }
        ledger
    }

    /// Tells pages in memory apart by what the kernel counts.
    pub fn refine(&self, ledger: &mut Ledger, counters: &Counters) {
        if let Some(resident) = counters.resident {
            let present = self.present + self.present_or_zeros;
            let zeros = present.saturating_sub(resident.0).min(self.present_or_zeros);
            ledger.shift(PageState::Resident, PageState::Zero, Pages(zeros));
        }
        ledger.shift(PageState::Resident, PageState::Shared, counters.merged);
    }
}

#[cfg(test)]
mod tests {
    use napa_sys::host::Swap;
    use proptest::prelude::*;

    use super::*;

    fn census(runs: &[(u64, Seen, u64)]) -> Census {
        let mut census = Census::default();
        for (pages, seen, discarded) in runs {
            census.count(Run { pages: *pages, seen: *seen }, Pages(*discarded));
        }
        census
    }

    fn kinds() -> SwapKinds {
        SwapKinds::of(&Swap::of("\n/dev/zram0 partition 8 0 1\n/swap file 8 0 1\n"))
    }

    fn counts(ledger: &Ledger) -> [u64; 8] {
        PageState::ALL.map(|state| ledger.count(state).0)
    }

    #[test]
    fn each_page_has_the_state_in_which_it_was_seen() {
        let census = census(&[
            (1, Seen::Present, 1),
            (2, Seen::PresentOrZeros, 0),
            (4, Seen::Zeros, 4),
            (8, Seen::Absent, 0),
            (16, Seen::Absent, 16),
            (32, Seen::Swapped(Some(0)), 0),
            (64, Seen::Swapped(Some(1)), 9),
            (128, Seen::Swapped(None), 0),
        ]);
        assert_eq!(counts(&census.ledger(&kinds())), [3, 0, 32, 64, 128, 16, 12, 0]);
    }

    #[test]
    fn counters_tell_pages_of_zeros_and_merged_ones_apart() {
        let census = census(&[(10, Seen::Present, 0), (6, Seen::PresentOrZeros, 0), (4, Seen::Absent, 0)]);
        for (resident, merged, expected) in [
            (None, 0, [16, 0, 4]),
            (Some(16), 5, [11, 5, 4]),
            (Some(12), 5, [7, 5, 8]),
            // Read at another moment: no more than what may be zeros, no more than what is there.
            (Some(0), 0, [10, 0, 10]),
            (Some(90), 90, [0, 16, 4]),
        ] {
            let mut ledger = census.ledger(&kinds());
            let resident = resident.map(Pages);
            census.refine(&mut ledger, &Counters { resident, merged: Pages(merged) });
            let [resident_now, shared, .., zero, _] = counts(&ledger);
            assert_eq!([resident_now, shared, zero], expected, "{resident:?} {merged}");
        }
    }

    fn seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            Just(Seen::Absent),
            Just(Seen::Zeros),
            Just(Seen::Present),
            Just(Seen::PresentOrZeros),
            proptest::option::of(any::<u8>()).prop_map(Seen::Swapped),
        ]
    }

    proptest! {
        #[test]
        fn the_sum_is_the_number_of_pages(runs in proptest::collection::vec((0..1_u64 << 40, seen(), any::<u64>()), 0..20),
            resident in proptest::option::of(any::<u64>()), merged in any::<u64>()) {
            let census = census(&runs);
            let all = Pages(runs.iter().map(|(pages, ..)| pages).sum());
            let mut ledger = census.ledger(&kinds());
            prop_assert_eq!((census.pages(), ledger.size()), (all, all));
            census.refine(&mut ledger, &Counters { resident: resident.map(Pages), merged: Pages(merged) });
            prop_assert_eq!(ledger.size(), all);
        }
    }
}
