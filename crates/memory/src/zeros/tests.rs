//! Pages of zeros go, whatever else happens to them meanwhile.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use napa_units::{Bytes, Gfn, GuestAddress};
use vm_memory::{Bytes as _, GuestMemoryBackend, GuestMemoryRegion};

use super::*;
use crate::{Backing, Blocks, GuestRam, RamRegion, allocate, host_address, prefer_huge_pages};

const SIZE: u64 = 16 << 20;
const ALL: Pages = Pages(SIZE / PAGE_SIZE);
/// Longer than anything here takes on a busy machine.
const BOUND: Duration = Duration::from_secs(120);

/// `None`, with a word about it: this machine cannot do it.
fn opened() -> Option<ZeroPages> {
    match ZeroPages::open(&Root::system()) {
        Ok(zeros) => Some(zeros),
        Err(error) => {
            println!("skipped: no pages can be moved: {error}");
            None
        }
    }
}

fn states() -> PageStates {
    let half = Bytes(SIZE / 2);
    let low = RamRegion { start: GuestAddress(0), size: half };
    PageStates::new(Arc::new(
        allocate(&[low, RamRegion { start: GuestAddress(1 << 32), size: half }]).unwrap(),
    ))
}

fn address(page: u64) -> vm_memory::GuestAddress {
    let address = page * PAGE_SIZE;
    vm_memory::GuestAddress(if address < SIZE / 2 { address } else { (1 << 32) + address - SIZE / 2 })
}

fn last_byte(page: u64) -> vm_memory::GuestAddress {
    vm_memory::GuestAddress(address(page).0 + PAGE_SIZE - 1)
}

fn there(zeros: &ZeroPages, ram: &GuestRam) -> Vec<bool> {
    let mut pages = Vec::new();
    for region in ram.iter() {
        let mut each = |run: Run| pages.extend(vec![run.seen != Seen::Absent; run.pages as usize]);
        let count = region.len() / PAGE_SIZE;
        zeros.pagemap.look(host_address(region), count, SwapAreas::Alike, &mut each).unwrap();
    }
    pages
}

fn pass(zeros: &mut ZeroPages, states: &PageStates) -> Pages {
    let (progress, result) =
        zeros.give_back(states, Pages(0), Instant::now() + BOUND, Splitting::WhereItPays);
    result.unwrap();
    assert_eq!(progress.at, ALL);
    progress.given_back
}

#[test]
fn pages_of_zeros_go_and_all_others_stay() {
    let Some(mut zeros) = opened() else { return };
    for is_huge in [false, true] {
        let states = states();
        let ram = states.ram();
        if is_huge {
            prefer_huge_pages(ram);
        }
        for page in 0..ALL.0 {
            // Zero but for the last byte; zeros; nothing at all.
            match page % 3 {
                0 => ram.write_obj(7_u8, last_byte(page)).unwrap(),
                1 => ram.write_obj(0_u8, address(page)).unwrap(),
                _ => {}
            }
        }
        let before = there(&zeros, ram).iter().filter(|there| **there).count() as u64;
        let given_back = pass(&mut zeros, &states);
        for (page, there) in there(&zeros, ram).into_iter().enumerate() {
            assert_eq!(there, page % 3 == 0, "page {page}, huge {is_huge}");
            let expected = if page % 3 == 0 { 7 } else { 0 };
            let last = ram.read_obj::<u8>(last_byte(page as u64)).unwrap();
            assert_eq!(last, expected, "page {page}, huge {is_huge}");
        }
        assert_eq!(given_back.0, before - ALL.0.div_ceil(3), "huge {is_huge}");
    }
}

#[test]
fn a_huge_page_is_not_split_for_a_few_pages() {
    let Some(mut zeros) = opened() else { return };
    let states = states();
    let ram = states.ram();
    for page in 0..ALL.0 {
        ram.write_obj(u64::from(page % 16 != 0), address(page)).unwrap();
    }
    assert!(pass(&mut zeros, &states).0 < 2 * WORTH_SPLITTING as u64, "only in parts of blocks at the ends");
}

#[test]
fn a_huge_page_goes_whole_or_stays_where_none_may_be_split() {
    let Some(mut zeros) = opened() else { return };
    let states = with_blocks();
    // A block of zeros, one with a single page that is not, and one of small pages: not all of it is there.
    for page in 0..512 {
        states.all().write_obj(0_u8, in_block(1, page)).unwrap();
        states.all().write_obj(u8::from(page == 9), in_block(3, page)).unwrap();
        if page < 300 {
            states.all().write_obj(0_u8, in_block(5, page)).unwrap();
        }
    }
    let until = Instant::now() + BOUND;
    let (progress, result) = zeros.give_back(&states, Pages(0), until, Splitting::Never);
    result.unwrap();
    assert_eq!(progress.given_back, Pages(512 + 300));
    assert_eq!(states.all().read_obj::<u8>(in_block(3, 9)).unwrap(), 1);
}

#[test]
fn a_look_goes_on_where_it_stopped() {
    let Some(mut zeros) = opened() else { return };
    let states = states();
    let ram = states.ram();
    let now = Instant::now();
    assert_eq!(
        zeros.give_back(&states, Pages(5), now, Splitting::WhereItPays).0,
        Progress { at: Pages(5), given_back: Pages(0) }
    );
    for page in 0..ALL.0 {
        ram.write_obj(0_u8, address(page)).unwrap();
    }
    let (progress, _) = zeros.give_back(&states, Pages(ALL.0 - 7), now + BOUND, Splitting::WhereItPays);
    assert_eq!(progress, Progress { at: ALL, given_back: Pages(7) });
}

#[test]
fn a_page_that_was_used_after_it_was_discarded_is_not_discarded_any_more() {
    let Some(mut zeros) = opened() else { return };
    let states = states();
    // The region above 4 GiB begins with page 2048 of all. Discarded; three are used again, one not for zeros.
    states.discard(Gfn(1 << 20), Pages(8)).unwrap();
    for (page, value) in [(2049, 0_u8), (2050, 0), (2051, 7)] {
        states.ram().write_obj(value, address(page)).unwrap();
    }
    assert_eq!(pass(&mut zeros, &states), Pages(2));
    let marks: Vec<u64> = (0..ALL.0).filter(|index| states.is_discarded(*index)).collect();
    assert_eq!(marks, [2048, 2051, 2052, 2053, 2054, 2055]);
}

/// A transfer of a disk that has begun holds the page itself, wherever it is mapped.
#[test]
fn a_page_that_is_pinned_stays() {
    let Some(mut zeros) = opened() else { return };
    let states = states();
    let ram = states.ram();
    for page in 0..1024 {
        ram.write_obj(0_u8, address(page)).unwrap();
    }
    let region = ram.iter().next().unwrap();
    let start = host_address(region) + 600 * PAGE_SIZE;
    let buffer = libc::iovec { iov_base: start as *mut _, iov_len: PAGE_SIZE as usize };
    let mut ring = io_uring::IoUring::new(2).unwrap();
    // SAFETY: the page belongs to `ram`, which outlives the ring.
    unsafe { ring.submitter().register_buffers(&[buffer]).unwrap() };
    assert!(pass(&mut zeros, &states).0 >= 512);
    let found = there(&zeros, ram);
    assert!(found[600] && !found[599] && !found[601]);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[0x55; PAGE_SIZE as usize]).unwrap();
    let read = io_uring::opcode::ReadFixed::new(
        io_uring::types::Fd(file.as_raw_fd()),
        start as *mut u8,
        PAGE_SIZE as u32,
        0,
    )
    .build();
    // SAFETY: the buffer is the registered one.
    unsafe { ring.submission().push(&read).unwrap() };
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().next().unwrap().result(), PAGE_SIZE as i32);
    assert_eq!(
        ram.read_obj::<u8>(address(600)).unwrap(),
        0x55,
        "the page that was written to is the one mapped"
    );
}

#[test]
fn nothing_that_is_written_meanwhile_is_lost() {
    let Some(mut zeros) = opened() else { return };
    let states = states();
    let ram = states.ram();
    prefer_huge_pages(ram);
    let stop = AtomicBool::new(false);
    // Each writer has pages of its own, and writes zeros as often as anything else.
    let stop = &stop;
    let write = move |writer: u64| {
        let mut expected = vec![0_u64; ALL.0 as usize / 2];
        let mut random = writer + 1;
        let mut writes = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let slot = (random >> 33) % (ALL.0 / 2);
            let at = address(slot * 2 + writer);
            assert_eq!(
                ram.read_obj::<u64>(at).unwrap(),
                expected[slot as usize],
                "writer {writer}, slot {slot}"
            );
            let value = if random >> 60 & 1 == 0 { 0 } else { random };
            ram.write_obj(value, at).unwrap();
            expected[slot as usize] = value;
            writes += 1;
        }
        for (slot, expected) in expected.iter().enumerate() {
            assert_eq!(ram.read_obj::<u64>(address(slot as u64 * 2 + writer)).unwrap(), *expected);
        }
        writes
    };
    thread::scope(|scope| {
        let writers = [0, 1].map(|writer| scope.spawn(move || write(writer)));
        let until = Instant::now() + Duration::from_secs(3);
        let (mut passes, mut given_back) = (0, 0);
        while Instant::now() < until {
            given_back += pass(&mut zeros, &states).0;
            passes += 1;
        }
        stop.store(true, Ordering::Relaxed);
        let writes: u64 = writers.map(|writer| writer.join().unwrap()).iter().sum();
        println!("{passes} passes gave {given_back} pages back during {writes} writes");
        assert!(given_back > 0 && writes > 0);
    });
}

/// A guest of 2 MiB with eight blocks of 2 MiB besides, of which the odd ones are plugged.
fn with_blocks() -> PageStates {
    let scratch = tempfile::tempfile().unwrap();
    scratch.set_len(BLOCK).unwrap();
    let region = RamRegion { start: GuestAddress(1 << 32), size: Bytes(8 * BLOCK) };
    let blocks = Blocks::new(region, Bytes(BLOCK), Arc::new(scratch), Backing::Ordinary).unwrap();
    (0..8).filter(|block| block % 2 == 1).for_each(|block| blocks.plug(block).unwrap());
    let ram = allocate(&[RamRegion { start: GuestAddress(0), size: Bytes(BLOCK) }]).unwrap();
    PageStates::with_blocks(Arc::new(ram), Arc::new(blocks)).unwrap()
}

fn in_block(block: u64, page: u64) -> vm_memory::GuestAddress {
    vm_memory::GuestAddress((1 << 32) + block * BLOCK + page * PAGE_SIZE)
}

#[test]
fn of_what_can_be_plugged_only_what_is_plugged_is_given_back() {
    let Some(mut zeros) = opened() else { return };
    let states = with_blocks();
    for block in 0..8 {
        for page in 0..100 {
            states.all().write_obj(0_u8, in_block(block, page)).unwrap();
        }
    }
    states.all().write_obj(7_u8, in_block(3, 5)).unwrap();
    let (progress, result) =
        zeros.give_back(&states, Pages(0), Instant::now() + BOUND, Splitting::WhereItPays);
    result.unwrap();
    assert_eq!(progress, Progress { at: Pages(states.end()), given_back: Pages(399) });
    assert_eq!(states.all().read_obj::<u8>(in_block(3, 5)).unwrap(), 7);
}

#[test]
fn blocks_that_are_unplugged_meanwhile_keep_nobody_waiting_and_lose_nothing_else() {
    let Some(mut zeros) = opened() else { return };
    let states = with_blocks();
    let (blocks, all) = (states.blocks().unwrap(), states.all());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // One writes to a block that stays, and to those that come and go; what is there is anybody's guess.
        scope.spawn(|| {
            let mut value = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                value += 1;
                for page in 0..512 {
                    all.write_obj(value, in_block(1, page)).unwrap();
                    all.write_obj(0_u64, in_block(3 + value % 5, page)).unwrap();
                    assert_eq!(all.read_obj::<u64>(in_block(1, page)).unwrap(), value);
                }
            }
        });
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let block = 3 + round % 5;
                blocks.plug(block).unwrap();
                states.forget_block(block);
                blocks.unplug(block).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(3);
        let mut passes = 0;
        while Instant::now() < until {
            let (progress, result) =
                zeros.give_back(&states, Pages(0), Instant::now() + BOUND, Splitting::WhereItPays);
            result.unwrap();
            assert_eq!(progress.at, Pages(states.end()));
            passes += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(passes > 0);
    });
    for block in 3..8 {
        blocks.unplug(block).unwrap();
    }
    assert_eq!(states.count(), Pages(2 * 512));
}
