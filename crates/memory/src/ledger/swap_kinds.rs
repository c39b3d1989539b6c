//! What kinds of swap areas the host has, and which of them holds a page.

use napa_sys::host::{Swap, SwapKind};
use napa_sys::own_memory::SwapAreas;
use napa_units::{Bytes, Ledger, PAGE_SIZE, PageState, Pages};

/// The state of a page by the number of its swap area.
///
/// The kernel numbers areas from 0 and lists them in this order, but not their numbers: once an area was taken away,
/// those behind it have greater numbers than their places in the list. So numbers count only as long as nothing
/// contradicts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapKinds {
    areas: Vec<PageState>,
}

/// How the pages in compressed swap are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The kernel counts them.
    Counted,
    /// The kernel counts them for the whole host, and this guest is taken to have the same part of its pages there.
    Estimated,
}

impl SwapKinds {
    /// From the list of areas, in the order of their numbers.
    pub fn of(areas: &[Swap]) -> Self {
        let state = |area: &Swap| match area.kind {
            SwapKind::Zram => PageState::SwappedCompressed,
            SwapKind::File | SwapKind::Partition => PageState::SwappedDisk,
        };
        Self { areas: areas.iter().map(state).collect() }
    }

    /// Whether the number of an area tells anything.
    pub fn areas(&self) -> SwapAreas {
        if self.only_kind().is_some() || self.areas.is_empty() { SwapAreas::Alike } else { SwapAreas::Named }
    }

    /// These kinds, unless pages were seen in an area that is not in the list: then its order says nothing.
    pub fn unless_contradicted(self, mut seen: impl Iterator<Item = u8>) -> Self {
        let count = self.areas.len();
        let contradicted = self.only_kind().is_none() && seen.any(|area| usize::from(area) >= count);
        if contradicted { Self { areas: Vec::new() } } else { self }
    }

    /// The state of a page in this area.
    pub fn state(&self, area: Option<u8>) -> PageState {
        let named = area.and_then(|area| self.areas.get(usize::from(area)));
        self.only_kind().or(named.copied()).unwrap_or(PageState::SwappedSomewhere)
    }

    fn only_kind(&self) -> Option<PageState> {
        let first = self.areas.first()?;
        self.areas.iter().all(|area| area == first).then_some(*first)
    }
}

/// What zswap, which stands before the disk, holds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zswap {
    /// Nothing, or there is none.
    Empty,
    /// So much of what the guest's own control group has in swap.
    OfGroup {
        /// What zswap holds, before compression.
        held: Bytes,
    },
    /// So much of the host's `used` swap on disks.
    OfHost {
        /// What zswap holds, before compression.
        held: Bytes,
        /// What the areas on disks have taken in, with that.
        used: Bytes,
    },
}

impl Zswap {
    /// Takes pages in zswap off those on disk.
    pub fn refine(self, ledger: &mut Ledger) -> Certainty {
        let on_disk = ledger.count(PageState::SwappedDisk).0;
        let (held, certainty) = match self {
            Self::OfHost { held, used } if used.0 > 0 => {
                let part = u128::from(on_disk) * u128::from(held.0) / u128::from(used.0);
                (Pages(part.min(u128::from(on_disk)) as u64), Certainty::Estimated)
            }
            Self::OfGroup { held } => (Pages(held.0 / PAGE_SIZE), Certainty::Counted),
            Self::Empty | Self::OfHost { .. } => (Pages(0), Certainty::Counted),
        };
        ledger.shift(PageState::SwappedDisk, PageState::SwappedCompressed, held);
        // An estimate of nothing is exact.
        if on_disk == 0 { Certainty::Counted } else { certainty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZRAM: &str = "/dev/zram0 partition 1024 0 100\n";
    const FILE: &str = "/swapfile file 1024 0 -2\n";
    const DISK: &str = "/dev/vda2 partition 1024 0 -3\n";

    fn kinds(lines: &[&str]) -> SwapKinds {
        SwapKinds::of(&Swap::of(&format!("Filename Type Size Used Priority\n{}", lines.concat())))
    }

    #[test]
    fn areas_of_one_kind_need_no_numbers() {
        for (lines, expected) in [
            (&[ZRAM][..], PageState::SwappedCompressed),
            (&[FILE, DISK], PageState::SwappedDisk),
            (&[], PageState::SwappedSomewhere),
        ] {
            let kinds = kinds(lines);
            assert_eq!(kinds.areas(), SwapAreas::Alike);
            assert_eq!([kinds.state(None), kinds.state(Some(7))], [expected; 2]);
        }
    }

    #[test]
    fn mixed_areas_are_told_apart_by_number() {
        let mixed = kinds(&[ZRAM, FILE]);
        assert_eq!(mixed.areas(), SwapAreas::Named);
        let states = [Some(0), Some(1), Some(2), None].map(|area| mixed.state(area));
        let (compressed, disk) = (PageState::SwappedCompressed, PageState::SwappedDisk);
        assert_eq!(states, [compressed, disk, PageState::SwappedSomewhere, PageState::SwappedSomewhere]);
        assert_eq!(mixed.clone().unless_contradicted([0, 1].into_iter()), mixed);
        // An area was taken away: what is first in the list may have any number.
        let unknown = mixed.unless_contradicted([0, 2].into_iter());
        assert_eq!([Some(0), Some(2)].map(|area| unknown.state(area)), [PageState::SwappedSomewhere; 2]);
    }

    #[test]
    fn zswap_takes_its_part_of_what_is_on_disk() {
        for (zswap, expected, certainty) in [
            (Zswap::Empty, [0, 100], Certainty::Counted),
            (Zswap::OfHost { held: Bytes(300), used: Bytes(1000) }, [30, 70], Certainty::Estimated),
            (Zswap::OfHost { held: Bytes(u64::MAX), used: Bytes(1) }, [100, 0], Certainty::Estimated),
            (Zswap::OfHost { held: Bytes(1), used: Bytes(0) }, [0, 100], Certainty::Counted),
            (Zswap::OfGroup { held: Bytes(0) }, [0, 100], Certainty::Counted),
            (Zswap::OfGroup { held: Pages(60).bytes() }, [60, 40], Certainty::Counted),
            // The group holds more than guest memory, and what was seen of that was seen at another moment.
            (Zswap::OfGroup { held: Pages(101).bytes() }, [100, 0], Certainty::Counted),
        ] {
            let mut ledger = Ledger::untouched(Pages(150));
            ledger.shift(PageState::Zero, PageState::SwappedDisk, Pages(100));
            assert_eq!(zswap.refine(&mut ledger), certainty, "{zswap:?}");
            let states = [PageState::SwappedCompressed, PageState::SwappedDisk];
            assert_eq!(states.map(|state| ledger.count(state).0), expected, "{zswap:?}");
        }
    }
}
