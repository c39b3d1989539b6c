//! Marks, pieces, and what is discarded.

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
