use std::sync::atomic::{AtomicU8, AtomicU16};

use napa_memory::{RamRegion, allocate};
use napa_units::{Bytes, GuestAddress as Start};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;

use super::*;
use crate::VectorTable;

const SIZE: u16 = 8;
const WRITE: u16 = 2;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;

struct Bench {
    ram: Arc<GuestRam>,
    queue: Queue,
    vectors: Arc<VectorTable>,
}

impl Bench {
    /// A queue on which the driver has put `requests` requests.
    fn new(requests: u16, event_index: bool) -> Self {
        let region = RamRegion { start: Start(0), size: Bytes::mib(1) };
        let ram = Arc::new(allocate(&[region]).unwrap());
        for index in 0..requests {
            let request = Descriptor::new(0x8_0000 + u64::from(index) * 64, 64, WRITE, 0);
            let at = |base: u64, size: u64| GuestAddress(base + u64::from(index) * size);
            ram.write_obj(RawDescriptor::from(request), at(DESCRIPTORS, 16)).unwrap();
            ram.write_obj(index, at(AVAILABLE + RING_HEADER_BYTES, AVAILABLE_ENTRY_BYTES)).unwrap();
        }
        ram.write_obj(requests, GuestAddress(AVAILABLE + 2)).unwrap();
        let mut ring = Ring::new(SIZE).unwrap();
        ring.try_set_desc_table_address(GuestAddress(DESCRIPTORS)).unwrap();
        ring.try_set_avail_ring_address(GuestAddress(AVAILABLE)).unwrap();
        ring.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        ring.set_event_idx(event_index);
        ring.set_ready(true);
        let vectors = Arc::new(VectorTable::new(1).unwrap());
        let interrupt = Interrupt::new(Arc::clone(&vectors), Arc::new(AtomicU16::new(0)));
        let health = Health::new("test", Arc::new(AtomicU8::new(0)), interrupt.clone());
        let queue = Queue::new(ring, Arc::clone(&ram), EventFd::new(0).unwrap(), interrupt, health);
        Self { ram, queue, vectors }
    }

    fn interrupted(&self) -> bool {
        self.vectors.event(0).unwrap().read().is_ok()
    }

    fn used_index(&self) -> u16 {
        self.ram.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    fn used_entry(&self, entry: u64) -> (u32, u32) {
        let address = USED + 4 + (entry % u64::from(SIZE)) * 8;
        let [head, written] = self.ram.read_obj(GuestAddress(address)).unwrap();
        (head, written)
    }

    fn set_used_event(&self, value: u16) {
        self.ram.write_obj(value, GuestAddress(AVAILABLE + 4 + u64::from(SIZE) * 2)).unwrap();
    }
}

#[test]
fn requests_pushed_together_are_all_there_in_order_and_wrap_around() {
    let mut bench = Bench::new(0, false);
    for round in 0..5_u16 {
        let first = round * 3;
        let requests = [0, 1, 2].map(|index| ((first + index) % SIZE, u32::from(first + index)));
        bench.queue.push_together(&requests);
        assert_eq!(bench.used_index(), first + 3);
        for index in first..first + 3 {
            assert_eq!(bench.used_entry(u64::from(index)), (u32::from(index % SIZE), u32::from(index)));
        }
    }
    bench.queue.push_together(&[]);
    assert_eq!(bench.used_index(), 15);
}

#[test]
fn the_driver_is_interrupted_only_for_what_was_pushed() {
    let mut bench = Bench::new(2, false);
    bench.queue.notify();
    assert!(!bench.interrupted(), "nothing was pushed");
    bench.queue.push(0, 0);
    bench.queue.notify();
    assert!(bench.interrupted());
    bench.queue.notify();
    assert!(!bench.interrupted(), "it was told before");
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    let mut bench = Bench::new(1, false);
    bench.ram.write_obj(NO_INTERRUPT, GuestAddress(AVAILABLE)).unwrap();
    bench.queue.push(0, 0);
    bench.queue.notify();
    assert!(!bench.interrupted());
}

#[test]
fn with_event_index_the_driver_is_interrupted_when_its_event_is_passed() {
    let check = |event: u16, before: u16, together: u16, expected: bool| {
        let mut bench = Bench::new(0, true);
        bench.set_used_event(u16::MAX / 2);
        (0..before).for_each(|head| bench.queue.push(head, 0));
        bench.queue.notify();
        assert!(!bench.interrupted());
        bench.set_used_event(event);
        bench.queue.push_together(&(0..together).map(|head| (head, 0)).collect::<Vec<_>>());
        bench.queue.notify();
        assert_eq!(bench.interrupted(), expected, "event {event}, {before} before, {together} together");
    };
    check(0, 0, 1, true);
    check(1, 0, 1, false);
    check(0, 0, 3, true);
    check(1, 0, 3, true);
    check(2, 0, 3, true);
    check(3, 0, 3, false);
    check(0, 1, 3, false);
    check(1, 1, 3, true);
}

#[test]
fn a_request_that_was_put_back_is_popped_again() {
    let mut bench = Bench::new(2, true);
    assert_eq!(bench.queue.pop().unwrap().head_index(), 0);
    bench.queue.put_back();
    assert_eq!(bench.queue.pop().unwrap().head_index(), 0);
    assert_eq!(bench.queue.pop().unwrap().head_index(), 1);
    assert!(bench.queue.pop().is_none());
}
