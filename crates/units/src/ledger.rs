//! Where the pages of a guest are.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Bytes, PAGE_SIZE, Pages};

/// What can be said about one page of a guest. Every page is in exactly one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageState {
    /// In memory, for this guest alone.
    Resident,
    /// In memory, merged with equal pages of this guest or of others.
    Shared,
    /// Without memory of its own: never touched, or the kernel's page of zeros.
    Zero,
    /// Given back to the host, because the guest has no use for it.
    Discarded,
    /// In swap, compressed in the host's memory.
    SwappedCompressed,
    /// In swap, on a disk.
    SwappedDisk,
    /// In swap, and the kernel does not show in which kind.
    SwappedSomewhere,
    /// Not arrived yet from where the guest came from.
    Remote,
}

impl PageState {
    /// All of them, those in memory first.
    pub const ALL: [Self; 8] = [
        Self::Resident,
        Self::Shared,
        Self::SwappedCompressed,
        Self::SwappedDisk,
        Self::SwappedSomewhere,
        Self::Discarded,
        Self::Zero,
        Self::Remote,
    ];
}

/// How many pages of a guest are in which state.
///
/// The counts sum to the guest's size whatever happens: a ledger begins with all pages in one state, and pages only
/// ever [move](Self::shift) from one state to another. It travels as sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    counts: [u64; PageState::ALL.len()],
}

impl Ledger {
    /// A guest of this size that has touched nothing.
    pub fn untouched(size: Pages) -> Self {
        let mut counts = [0; PageState::ALL.len()];
        counts[PageState::Zero as usize] = size.0;
        Self { counts }
    }

    /// The pages in one state.
    pub const fn count(&self, state: PageState) -> Pages {
        Pages(self.counts[state as usize])
    }

    /// All pages: the guest's size.
    pub fn size(&self) -> Pages {
        Pages(self.counts.iter().sum())
    }

    /// The pages in swap of any kind.
    pub const fn swapped(&self) -> Pages {
        Pages(
            self.count(PageState::SwappedCompressed).0
                + self.count(PageState::SwappedDisk).0
                + self.count(PageState::SwappedSomewhere).0,
        )
    }

    /// The pages in memory: resident and shared.
    pub const fn present(&self) -> Pages {
        Pages(self.count(PageState::Resident).0 + self.count(PageState::Shared).0)
    }

    /// Moves pages from one state to another, as many as there are if that is fewer. Returns how many were moved.
    pub fn shift(&mut self, from: PageState, to: PageState, pages: Pages) -> Pages {
        let moved = pages.0.min(self.counts[from as usize]);
        self.counts[from as usize] -= moved;
        self.counts[to as usize] += moved;
        Pages(moved)
    }

    /// The ledger of a guest of this size whose pages are distributed as those of this ledger, which is a sample of
    /// it. Rounded by largest remainders, so that no state is off by a page or more.
    ///
    /// A sample without any page says nothing: all pages are taken for untouched ones then.
    pub fn scaled_to(&self, size: Pages) -> Self {
        let sample = u128::from(self.size().0);
        if sample == 0 {
            return Self::untouched(size);
        }
        let exact = |count: u64| u128::from(count) * u128::from(size.0);
        let mut counts = self.counts.map(|count| (exact(count) / sample) as u64);
        let missing = size.0 - counts.iter().sum::<u64>();
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|state| std::cmp::Reverse(exact(self.counts[*state]) % sample));
        // Fewer are missing than there are states: each lost less than one page to rounding.
        order.iter().take(missing as usize).for_each(|state| counts[*state] += 1);
        Self { counts }
    }
}

/// A ledger as it travels, in bytes.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
struct Wire {
    resident: Bytes,
    shared: Bytes,
    swapped_compressed: Bytes,
    swapped_disk: Bytes,
    swapped_somewhere: Bytes,
    discarded: Bytes,
    zero: Bytes,
    remote: Bytes,
}

#[cfg(feature = "schema")]
mod schema {
    use utoipa::openapi::{RefOr, schema::Schema};

    use super::{Ledger, Wire};

    impl utoipa::ToSchema for Ledger {
        fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            <Wire as utoipa::ToSchema>::schemas(schemas);
        }
    }

    impl utoipa::PartialSchema for Ledger {
        fn schema() -> RefOr<Schema> {
            <Wire as utoipa::PartialSchema>::schema()
        }
    }
}

impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = |state| self.count(state).bytes();
        Wire {
            resident: bytes(PageState::Resident),
            shared: bytes(PageState::Shared),
            swapped_compressed: bytes(PageState::SwappedCompressed),
            swapped_disk: bytes(PageState::SwappedDisk),
            swapped_somewhere: bytes(PageState::SwappedSomewhere),
            discarded: bytes(PageState::Discarded),
            zero: bytes(PageState::Zero),
            remote: bytes(PageState::Remote),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Ledger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let mut counts = [0; PageState::ALL.len()];
        for (state, bytes) in [
            (PageState::Resident, wire.resident),
            (PageState::Shared, wire.shared),
            (PageState::SwappedCompressed, wire.swapped_compressed),
            (PageState::SwappedDisk, wire.swapped_disk),
            (PageState::SwappedSomewhere, wire.swapped_somewhere),
            (PageState::Discarded, wire.discarded),
            (PageState::Zero, wire.zero),
            (PageState::Remote, wire.remote),
        ] {
            counts[state as usize] = bytes.0 / PAGE_SIZE;
        }
        let sum = counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count));
        sum.ok_or_else(|| serde::de::Error::custom("the pages of a guest are too many to count"))?;
        Ok(Self { counts })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> impl Strategy<Value = PageState> {
        proptest::sample::select(&PageState::ALL[..])
    }

    fn ledger() -> impl Strategy<Value = Ledger> {
        let moves = proptest::collection::vec((state(), state(), 0..1_u64 << 30), 0..20);
        (0..1_u64 << 40, moves).prop_map(|(size, moves)| {
            let mut ledger = Ledger::untouched(Pages(size));
            for (from, to, pages) in moves {
                ledger.shift(from, to, Pages(pages));
            }
            ledger
        })
    }

    #[test]
    fn each_state_has_a_count_of_its_own() {
        let mut ledger = Ledger::untouched(Pages(36));
        for (index, state) in PageState::ALL.into_iter().enumerate() {
            ledger.shift(PageState::Zero, state, Pages(index as u64));
        }
        let counts = PageState::ALL.map(|state| ledger.count(state).0);
        assert_eq!(counts, [0, 1, 2, 3, 4, 5, 14, 7]);
        assert_eq!((ledger.swapped(), ledger.present()), (Pages(9), Pages(1)));
    }

    #[test]
    fn more_than_there_is_cannot_be_moved() {
        let mut ledger = Ledger::untouched(Pages(3));
        assert_eq!(ledger.shift(PageState::Zero, PageState::Resident, Pages(5)), Pages(3));
        assert_eq!(ledger.shift(PageState::Zero, PageState::Resident, Pages(1)), Pages(0));
        assert_eq!(ledger.count(PageState::Resident), Pages(3));
    }

    proptest! {
        #[test]
        fn moves_never_change_the_sum(size in 0..1_u64 << 40,
            moves in proptest::collection::vec((state(), state(), any::<u64>()), 0..40)) {
            let mut ledger = Ledger::untouched(Pages(size));
            for (from, to, pages) in moves {
                ledger.shift(from, to, Pages(pages));
                let sum: u64 = PageState::ALL.map(|state| ledger.count(state).0).iter().sum();
                prop_assert_eq!((sum, ledger.size()), (size, Pages(size)));
            }
        }

        #[test]
        fn a_scaled_sample_has_the_size_and_the_shares(sample in ledger(), size in 0..1_u64 << 40) {
            let scaled = sample.scaled_to(Pages(size));
            prop_assert_eq!(scaled.size(), Pages(size));
            if sample.size().0 > 0 {
                for state in PageState::ALL {
                    let (part, whole) = (u128::from(sample.count(state).0), u128::from(sample.size().0));
                    let exact = part * u128::from(size) / whole;
                    let found = u128::from(scaled.count(state).0);
                    prop_assert!(found == exact || found == exact + 1, "{:?}: {} of {}", state, found, exact);
                }
            }
        }

        #[test]
        fn a_ledger_survives_its_journey(ledger in ledger()) {
            let text = serde_json::to_string(&ledger).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
        }
    }
}
