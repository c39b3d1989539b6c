use std::sync::Arc;
use std::time::Duration;

use napa_sys::reactor::{self, Handle};
use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress as Address};

use super::*;
use crate::testing::{Bench, Driver, WRITE, ram};

const RINGS: u64 = 0x1000;
const REQUEST: u64 = 0x10_0000;
const OUTCOME: u64 = 0x10_1000;

fn device(bytes: u64) -> Pmem {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    Pmem::open("pmem0".into(), &PmemConfig { path: file.path().into() }).unwrap()
}

struct Rig {
    bench: Bench,
    driver: Driver,
    handle: Handle,
}

impl Rig {
    fn new() -> Self {
        let bench = Bench::new(&ram(4));
        let (driver, queue) = bench.queue(RINGS, QUEUE_SIZE);
        let placed = device(1).activate(Activation {
            memory: Arc::clone(&bench.ram),
            pages: bench.pages(),
            features: 0,
            queues: vec![Some(queue)],
            config_interrupt: bench.config_interrupt.clone(),
            health: bench.health.clone(),
        });
        let (handle, _detached) = reactor::spawn("pmem").unwrap();
        for (_, worker) in placed.unwrap() {
            handle.add(worker).unwrap();
        }
        Self { bench, driver, handle }
    }

    fn ask(&mut self, kind: u32) -> u32 {
        self.bench.ram.write_obj(kind.to_le_bytes(), Address(REQUEST)).unwrap();
        self.bench.ram.write_obj([7_u8; 8], Address(OUTCOME)).unwrap();
        let head = self.driver.add(&[(REQUEST, 4, 0), (OUTCOME, 4, WRITE)]);
        self.driver.kick();
        assert_eq!(self.driver.wait_used(), (head, 4));
        let after: [u8; 4] = self.bench.ram.read_obj(Address(OUTCOME + 4)).unwrap();
        assert_eq!(after, [7; 4]);
        u32::from_le_bytes(self.bench.ram.read_obj(Address(OUTCOME)).unwrap())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.quit();
    }
}

#[test]
fn the_configuration_says_where_the_image_is() {
    let mut device = device(5_000_000);
    device.place_memory(GuestAddress(6 << 30));
    let read = |offset| {
        let mut data = [0xff; 8];
        device.read_config(offset, &mut data);
        u64::from_le_bytes(data)
    };
    assert_eq!([0, 8, 16].map(read), [6 << 30, 6 << 20, 0]);
    assert_eq!(device.memory().map(|memory| memory.size()), Some(Bytes::mib(6)));
}

#[test]
fn a_flush_fails_like_all_else_since_nothing_is_kept() {
    let mut rig = Rig::new();
    for kind in [0, 0, 1, u32::MAX] {
        assert_eq!(rig.ask(kind), 1);
    }
}

#[test]
fn many_flushes_are_answered_in_turns() {
    let mut rig = Rig::new();
    for _ in 0..20 {
        let heads: Vec<u16> =
            (0..32).map(|_| rig.driver.add(&[(REQUEST, 4, 0), (OUTCOME, 4, WRITE)])).collect();
        rig.driver.kick();
        heads.iter().for_each(|head| assert_eq!(rig.driver.wait_used(), (*head, 4)));
    }
}

#[test]
fn half_a_request_needs_a_reset() {
    for pieces in [
        &[(REQUEST, 3, 0), (OUTCOME, 4, WRITE)][..],
        &[(REQUEST, 4, 0), (OUTCOME, 3, WRITE)],
        &[(OUTCOME, 4, WRITE)],
    ] {
        let mut rig = Rig::new();
        rig.driver.add(pieces);
        rig.driver.kick();
        rig.bench.wait_needs_reset();
        assert_eq!(rig.driver.used(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_rings_harm_nobody(
        descriptors in vec((prop_oneof![4 => REQUEST..REQUEST + 0x1000, 1 => any::<u64>()], prop_oneof![4 => 0..200_u32, 1 => any::<u32>()], 0..8_u16, 0..20_u16), 16),
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
            prop_assert!(place.is_some() && written == 4);
            owed.swap_remove(place.unwrap());
        }
        rig.handle.pause().expect("the thread lives");
    }
}
