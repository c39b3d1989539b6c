//! With real memory. What needs swap skips where the host has none.

use std::cell::Cell;

use napa_sys::cgroup::GroupFiles;
use napa_sys::host::Root;
use napa_units::GuestAddress;
use vm_memory::Bytes as _;

use super::*;
use crate::{Backing, Blocks, RamRegion, allocate};

const REGION: Bytes = Bytes::mib(6);

fn ram() -> Arc<PageStates> {
    let region = |start| RamRegion { start: GuestAddress(start), size: REGION };
    Arc::new(PageStates::new(Arc::new(allocate(&[region(0), region(1 << 32)]).unwrap())))
}

/// The same, and four blocks of 4 MiB besides, none of which is plugged.
fn with_blocks() -> Arc<PageStates> {
    let block = Bytes::mib(4);
    let scratch = tempfile::tempfile().unwrap();
    scratch.set_len(block.0).unwrap();
    let region = RamRegion { start: GuestAddress(2 << 32), size: Bytes(4 * block.0) };
    let blocks = Blocks::new(region, block, Arc::new(scratch), Backing::Ordinary).unwrap();
    Arc::new(PageStates::with_blocks(Arc::clone(ram().ram()), Arc::new(blocks)).unwrap())
}

fn page_out_of(pages: &Arc<PageStates>) -> PageOut {
    PageOut::new(Arc::clone(pages), Arc::new(Sensors::open(&Root::system(), GroupFiles::default()).unwrap()))
}

fn starts() -> impl Iterator<Item = u64> {
    let pages = REGION.0 / PAGE_SIZE;
    [0, 1 << 32].into_iter().flat_map(move |start| (0..pages).map(move |page| start + page * PAGE_SIZE))
}

fn has_swap() -> bool {
    let areas = std::fs::read_to_string("/proc/swaps").unwrap_or_default().lines().count();
    if areas < 2 {
        println!("skipped: the host has no swap");
    }
    areas >= 2
}

#[test]
fn blocks_begin_where_huge_pages_do() {
    let mib = 1 << 20;
    for (range, expected) in [
        (0..4 * mib, &[(0, 2 * mib), (2 * mib, 4 * mib)][..]),
        (mib..5 * mib, &[(mib, 2 * mib), (2 * mib, 4 * mib), (4 * mib, 5 * mib)]),
        (mib..mib + 4096, &[(mib, mib + 4096)]),
    ] {
        let numbers = 0..count_of_blocks(&range) as u64;
        let block = |number| block_of(&range, number);
        let blocks: Vec<(u64, u64)> = numbers.map(block).map(|block| (block.start, block.end)).collect();
        assert_eq!(blocks, expected);
    }
}

#[test]
fn of_untouched_memory_nothing_goes() {
    let mut page_out = page_out_of(&ram());
    let taken = page_out.take(Pages(10), || true).unwrap();
    assert_eq!(taken, Taken { pages: Pages(0), came_back: Pages(0), end: End::NothingGoes });
}

#[test]
fn whoever_asked_can_end_it() {
    let mut page_out = page_out_of(&ram());
    let asked = Cell::new(0);
    let twice = || {
        asked.set(asked.get() + 1);
        asked.get() <= 2
    };
    assert_eq!(page_out.take(Pages(10), twice).unwrap().end, End::Interrupted);
    assert_eq!((asked.get(), page_out.clock.hand()), (3, 2));
}

#[test]
fn what_is_wanted_goes_and_comes_back_as_it_was() {
    if !has_swap() {
        return;
    }
    let pages = ram();
    let ram = pages.ram();
    for start in starts() {
        ram.write_obj(start ^ 0x5a5a, vm_memory::GuestAddress(start)).unwrap();
    }
    let mut page_out = page_out_of(&pages);
    let taken = page_out.take(Pages(700), || true).unwrap();
    assert_eq!((taken.end, taken.came_back), (End::Complete, Pages(0)));
    // Neighbours go with a page where the kernel keeps them as one.
    assert!((700..=700 + 511).contains(&taken.pages.0), "{taken:?}");
    let rest = page_out.take(Pages(1 << 20), || true).unwrap();
    assert_eq!(rest.end, End::NothingGoes);
    assert_eq!(taken.pages.0 + rest.pages.0, starts().count() as u64);
    for start in starts() {
        assert_eq!(ram.read_obj::<u64>(vm_memory::GuestAddress(start)).unwrap(), start ^ 0x5a5a);
    }
    let again = page_out.take(Pages(1), || true).unwrap();
    assert!(again.came_back.0 > 0, "{again:?}");
}

#[test]
fn the_hand_passes_over_what_is_not_plugged() {
    let pages = with_blocks();
    let blocks = pages.blocks().unwrap();
    let mut page_out = page_out_of(&pages);
    // All of it is the same scratch memory, which is nobody's to take.
    pages.all().write_obj(7_u8, vm_memory::GuestAddress(2 << 32)).unwrap();
    let nothing = Taken { pages: Pages(0), came_back: Pages(0), end: End::NothingGoes };
    assert_eq!(page_out.take(Pages(10), || true).unwrap(), nothing);
    assert_eq!(page_out.clock.len(), page_out.stretches[2].before + 8);
    let places: Vec<u64> = (0..page_out.clock.len()).map(|number| page_out.block(number).1).collect();
    assert!(places.is_sorted() && places.ends_with(&[10_240 - 4096, 10_752 - 4096]), "{places:?}");
    if !has_swap() {
        return;
    }
    blocks.plug(2).unwrap();
    for page in 0..1024 {
        let address = vm_memory::GuestAddress((2 << 32) + 2 * blocks.block().0 + page * PAGE_SIZE);
        pages.all().write_obj(page + 1, address).unwrap();
    }
    assert_eq!(page_out.take(Pages(1 << 20), || true).unwrap().pages, Pages(1024));
    blocks.unplug(2).unwrap();
    assert_eq!(page_out.take(Pages(10), || true).unwrap(), nothing);
}
