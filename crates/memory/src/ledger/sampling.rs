//! Which pages are looked at.

use std::ops::Range;

use napa_units::{Bytes, PAGE_SIZE, Pages};

/// Up to this size every page is looked at: about a third of a second where all of it is in small pages.
const WHOLE_MAX: Bytes = Bytes::gib(16);
/// What is looked at in one piece of a larger guest: a huge page.
const BLOCK: u64 = Bytes::mib(2).0 / PAGE_SIZE;
/// Pieces that are looked at of a larger guest, one in each of so many equal parts: 8 GiB.
const BLOCKS: u64 = 4096;

/// The ranges of pages to look at of a guest of this size, in order and apart from each other.
pub fn ranges(size: Pages, seed: u64) -> Vec<Range<u64>> {
    if size.bytes() <= WHOLE_MAX {
        return std::iter::once(0..size.0).collect();
    }
    let mut random = Random(seed);
    let stratum = |number: u64| (u128::from(size.0) * u128::from(number) / u128::from(BLOCKS)) as u64;
    let block = |number| {
        let (start, end) = (stratum(number), stratum(number + 1));
        let first = start + random.below(end - start - BLOCK + 1);
        first..first + BLOCK
    };
    (0..BLOCKS).map(block).collect()
}

/// Numbers that look random (SplitMix64): a choice of pages that a guest cannot foresee as long as the seed is secret.
pub struct Random(pub u64);

impl Random {
    /// A number from 0 up to and without `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_guest_that_is_not_large_is_looked_at_whole() {
        for size in [Pages::covering(WHOLE_MAX), Pages(0)] {
            assert_eq!(ranges(size, 1), std::slice::from_ref(&(0..size.0)));
        }
    }

    proptest! {
        #[test]
        fn a_sample_lies_in_the_guest_and_has_each_page_once(
            pages in WHOLE_MAX.0 / PAGE_SIZE + 1..1 << 40, seed in any::<u64>()) {
            let ranges = ranges(Pages(pages), seed);
            prop_assert_eq!(ranges.len() as u64, BLOCKS);
            prop_assert!(ranges.is_sorted_by(|one, next| one.end <= next.start));
            prop_assert!(ranges.iter().all(|range| range.end - range.start == BLOCK && range.end <= pages));
        }

        #[test]
        fn random_numbers_are_below_their_bound(seed in any::<u64>(), bound in 1..=u64::MAX) {
            prop_assert!(Random(seed).below(bound) < bound);
        }
    }
}
