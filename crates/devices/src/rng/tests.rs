use std::sync::Arc;
use std::time::Duration;

use napa_sys::reactor::{self, Handle};
use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::testing::{Bench, Driver, WRITE, ram};

const RINGS: u64 = 0x1000;
const DATA: u64 = 0x10_0000;
const TURN_BYTES: u32 = 64 << 10;

struct Rig {
    bench: Bench,
    driver: Driver,
    handle: Handle,
}

impl Rig {
    fn new() -> Self {
        let bench = Bench::new(&ram(4));
        let (driver, queue) = bench.queue(RINGS, QUEUE_SIZE);
        let placed = Rng.activate(Activation {
            memory: Arc::clone(&bench.ram),
            pages: bench.pages(),
            features: 0,
            queues: vec![Some(queue)],
            config_interrupt: bench.config_interrupt.clone(),
            health: bench.health.clone(),
        });
        let (handle, _detached) = reactor::spawn("rng").unwrap();
        for (_, worker) in placed.unwrap() {
            handle.add(worker).unwrap();
        }
        Self { bench, driver, handle }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.quit();
    }
}

#[test]
fn a_request_is_filled_with_bytes_that_differ() {
    let mut rig = Rig::new();
    let head = rig.driver.add(&[(DATA, 100, WRITE), (DATA + 100, 0, WRITE), (DATA + 200, 1000, WRITE)]);
    rig.driver.kick();
    assert_eq!(rig.driver.wait_used(), (head, 1100));
    let piece = |address| rig.bench.ram.read_obj::<[u8; 32]>(GuestAddress(address)).unwrap();
    let pieces = [piece(DATA), piece(DATA + 68), piece(DATA + 200), piece(DATA + 1168)];
    for (index, one) in pieces.iter().enumerate() {
        assert!(pieces[index + 1..].iter().all(|other| one != other), "{pieces:?}");
    }
    assert_eq!(piece(DATA + 1200), [0; 32], "nothing past the end");
    assert_eq!(piece(DATA + 100), [0; 32], "nothing in between");
}

#[test]
fn a_large_request_gets_a_part_and_all_requests_get_something() {
    let mut rig = Rig::new();
    let heads: Vec<u16> = (0..8).map(|_| rig.driver.add(&[(DATA, 1 << 20, WRITE)])).collect();
    rig.driver.kick();
    for head in heads {
        let (used, written) = rig.driver.wait_used();
        assert_eq!(used, head);
        assert_eq!(written, TURN_BYTES);
    }
    let small: Vec<u16> = (0..8).map(|_| rig.driver.add(&[(DATA, 40_000, WRITE)])).collect();
    rig.driver.kick();
    for head in small {
        let (used, written) = rig.driver.wait_used();
        assert!(used == head && (1..=40_000).contains(&written), "{written}");
    }
}

#[test]
fn a_request_that_cannot_be_written_needs_a_reset() {
    for piece in [(DATA, 8, 0), (u64::MAX, 8, WRITE), (DATA, 0, WRITE)] {
        let mut rig = Rig::new();
        rig.driver.add(&[piece]);
        rig.driver.kick();
        while !rig.bench.needs_reset() {
            std::thread::yield_now();
        }
        assert_eq!(rig.driver.used(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_rings_harm_nobody(
        descriptors in vec((prop_oneof![4 => DATA..DATA + 0x1000, 1 => any::<u64>()], prop_oneof![4 => 0..200_u32, 1 => any::<u32>()], 0..8_u16, 0..20_u16), 16),
        heads in vec(prop_oneof![8 => 0..16_u16, 1 => any::<u16>()], 1..24),
    ) {
        let mut rig = Rig::new();
        for (index, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
            rig.driver.store(index as u16, Descriptor::new(address, length, flags, next));
        }
        heads.iter().for_each(|head| rig.driver.offer(*head));
        rig.driver.kick();
        let mut owed = heads.clone();
        while let Some((head, written)) = rig.driver.wait_used_for(Duration::from_millis(2)) {
            let place = owed.iter().position(|owed| *owed == head);
            prop_assert!(place.is_some() && written <= TURN_BYTES);
            owed.swap_remove(place.unwrap());
        }
        rig.handle.pause().expect("the thread lives");
    }
}
