use std::io;
use std::sync::Mutex;
use std::time::Duration;

use napa_api::control::DeviceState;
use napa_sys::reactor::{self, Handle};
use napa_units::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress as Address};

use super::request::{REQUEST_BYTES, RESPONSE_BYTES};
use super::*;
use crate::testing::{Bench, Driver, WRITE, ram};

const RINGS: u64 = 0x1000;
const REQUEST: u64 = 0x10_0000;
const RESPONSE: u64 = 0x10_1000;
const START: u64 = 6 << 30;
const BLOCK: u64 = 2 << 20;
const COUNT: u64 = 32;

const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;

const DONE: u16 = 0;
const DENIED: u16 = 1;
const BUSY: u16 = 2;
const ERROR: u16 = 3;

/// Blocks of a machine that there is not, some of which the host refuses to change.
#[derive(Default)]
struct Blocks {
    plugged: Mutex<[bool; COUNT as usize]>,
    stuck: Mutex<Option<u64>>,
}

impl Blocks {
    fn set(&self, block: u64, is_plugged: bool) -> io::Result<()> {
        if *self.stuck.lock().unwrap() == Some(block) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.plugged.lock().unwrap()[block as usize] = is_plugged;
        Ok(())
    }

    fn numbers(&self) -> Vec<u64> {
        (0..COUNT).filter(|block| self.is_plugged(*block)).collect()
    }
}

impl PluggableMemory for Blocks {
    fn is_plugged(&self, block: u64) -> bool {
        self.plugged.lock().unwrap()[block as usize]
    }

    fn plugged(&self) -> Bytes {
        Bytes(self.numbers().len() as u64 * BLOCK)
    }

    fn plug(&self, block: u64) -> io::Result<()> {
        self.set(block, true)
    }

    fn unplug(&self, block: u64) -> io::Result<()> {
        self.set(block, false)
    }
}

fn device() -> MemDevice {
    let hotplug = Arc::new(Hotplug::new(Bytes(COUNT * BLOCK)));
    let scratch = Arc::new(tempfile::tempfile().unwrap());
    let (size, block) = (hotplug.size(), hotplug.block());
    let memory = DeviceMemory::Blocks { size, block, scratch, backing: Backing::Ordinary };
    let mut device = MemDevice { hotplug, memory };
    device.place_memory(GuestAddress(START));
    device
}

struct Rig {
    bench: Bench,
    driver: Driver,
    handle: Handle,
    device: MemDevice,
    blocks: Arc<Blocks>,
}

impl Rig {
    /// A driver that was asked to have so many blocks.
    fn new(requested: u64) -> Self {
        let bench = Bench::new(&ram(4));
        let (driver, queue) = bench.queue(RINGS, QUEUE_SIZE);
        let mut device = device();
        let blocks = Arc::new(Blocks::default());
        let weak: Weak<Blocks> = Arc::downgrade(&blocks);
        device.adopt_blocks(weak);
        device.hotplug.request(Bytes(requested * BLOCK)).unwrap();
        let placed = device.activate(Activation {
            memory: Arc::clone(&bench.ram),
            pages: bench.pages(),
            features: UNPLUGGED_INACCESSIBLE,
            queues: vec![Some(queue)],
            config_interrupt: bench.config_interrupt.clone(),
            health: bench.health.clone(),
        });
        let (handle, _detached) = reactor::spawn("mem").unwrap();
        for (_, worker) in placed.unwrap() {
            handle.add(worker).unwrap();
        }
        Self { bench, driver, handle, device, blocks }
    }

    /// Asks for something of `count` blocks from `first` on. Returns the kind of the response and the state in it.
    fn ask(&mut self, kind: u16, first: u64, count: u16) -> (u16, u16) {
        let mut request = [0; REQUEST_BYTES];
        request[..2].copy_from_slice(&kind.to_le_bytes());
        request[8..16].copy_from_slice(&(START + first * BLOCK).to_le_bytes());
        request[16..18].copy_from_slice(&count.to_le_bytes());
        self.bench.ram.write_slice(&request, Address(REQUEST)).unwrap();
        self.bench.ram.write_obj([0xff_u8; 16], Address(RESPONSE)).unwrap();
        let head =
            self.driver.add(&[(REQUEST, REQUEST_BYTES as u32, 0), (RESPONSE, RESPONSE_BYTES as u32, WRITE)]);
        self.driver.kick();
        assert_eq!(self.driver.wait_used(), (head, RESPONSE_BYTES as u32));
        let response: [u8; 12] = self.bench.ram.read_obj(Address(RESPONSE)).unwrap();
        assert_eq!(response[10..], [0xff; 2]);
        let word = |at: usize| u16::from_le_bytes([response[at], response[at + 1]]);
        (word(0), word(8))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.quit();
    }
}

fn config(device: &MemDevice) -> [u64; 8] {
    std::array::from_fn(|field| {
        let mut data = [0xff; 8];
        device.read_config(field as u64 * 8, &mut data);
        u64::from_le_bytes(data)
    })
}

#[test]
fn the_configuration_follows_what_is_asked_and_plugged() {
    let mut rig = Rig::new(4);
    let size = COUNT * BLOCK;
    assert_eq!(config(&rig.device), [BLOCK, 0, START, size, size, 0, 4 * BLOCK, 0]);
    assert_eq!(rig.ask(PLUG, 0, 3), (DONE, 0));
    assert_eq!(config(&rig.device)[5..7], [3 * BLOCK, 4 * BLOCK]);
    let report = rig.device.hotplug.report();
    assert_eq!((report.plugged, report.driver), (Bytes(3 * BLOCK), DeviceState::Active));
    rig.device.reset(Vec::new());
    let report = rig.device.hotplug.report();
    assert_eq!((report.plugged, report.driver), (Bytes(3 * BLOCK), DeviceState::Idle));
    // The next machine has nothing plugged, and is asked for as much.
    rig.blocks = Arc::default();
    assert_eq!(config(&rig.device)[5..7], [0, 4 * BLOCK]);
}

#[test]
fn blocks_are_plugged_and_unplugged_in_turns() {
    let mut rig = Rig::new(COUNT);
    assert_eq!(rig.ask(PLUG, 1, 30), (DONE, 0));
    assert_eq!(rig.blocks.numbers(), (1..31).collect::<Vec<_>>());
    assert_eq!(rig.ask(STATE, 0, 2), (DONE, 2));
    assert_eq!(rig.ask(UNPLUG, 2, 20), (DONE, 0));
    assert_eq!(rig.blocks.numbers(), [1].into_iter().chain(22..31).collect::<Vec<_>>());
    assert_eq!(rig.ask(UNPLUG_ALL, 99, 0), (DONE, 0));
    assert!(rig.blocks.numbers().is_empty());
    assert_eq!(rig.ask(STATE, 0, COUNT as u16), (DONE, 1));
}

#[test]
fn more_than_was_asked_for_is_denied_and_nonsense_an_error() {
    let mut rig = Rig::new(2);
    assert_eq!(rig.ask(PLUG, 0, 3), (DENIED, 0));
    assert_eq!(rig.ask(PLUG, COUNT, 1), (ERROR, 0));
    assert_eq!(rig.ask(UNPLUG, 0, 1), (ERROR, 0));
    assert_eq!(rig.ask(77, 0, 1), (ERROR, 0));
    assert!(rig.blocks.numbers().is_empty());
}

#[test]
fn what_the_host_refuses_changes_nothing() {
    let mut rig = Rig::new(COUNT);
    *rig.blocks.stuck.lock().unwrap() = Some(12);
    assert_eq!(rig.ask(PLUG, 0, 20), (BUSY, 0));
    assert!(rig.blocks.numbers().is_empty());
    *rig.blocks.stuck.lock().unwrap() = None;
    assert_eq!(rig.ask(PLUG, 0, 20), (DONE, 0));
    *rig.blocks.stuck.lock().unwrap() = Some(12);
    assert_eq!(rig.ask(UNPLUG, 0, 20), (BUSY, 0));
    assert_eq!(rig.blocks.numbers(), (0..20).collect::<Vec<_>>());
    assert_eq!(rig.ask(UNPLUG_ALL, 0, 0), (BUSY, 0));
    *rig.blocks.stuck.lock().unwrap() = None;
    assert_eq!(rig.ask(UNPLUG_ALL, 0, 0), (DONE, 0));
    assert!(rig.blocks.numbers().is_empty());
}

#[test]
fn only_what_there_is_can_be_asked_for_in_whole_blocks() {
    let device = device();
    let too_large = device.hotplug.request(Bytes((COUNT + 1) * BLOCK)).unwrap_err().to_string();
    assert!(too_large.contains("--hotplug-memory 64M"), "{too_large}");
    let odd = device.hotplug.request(Bytes(BLOCK + 1)).unwrap_err().to_string();
    assert!(odd.contains("the next one is 4M"), "{odd}");
    assert_eq!(device.hotplug.report().requested, Bytes(0));
}

#[test]
fn a_driver_that_would_read_unplugged_memory_is_refused() {
    let bench = Bench::new(&ram(4));
    let refused = device().activate(Activation {
        memory: Arc::clone(&bench.ram),
        pages: bench.pages(),
        features: 0,
        queues: vec![Some(bench.queue(RINGS, QUEUE_SIZE).1)],
        config_interrupt: bench.config_interrupt.clone(),
        health: bench.health.clone(),
    });
    let error = refused.err().expect("it is refused").to_string();
    assert!(error.starts_with("mem0: the guest's driver does not know"), "{error}");
}

#[test]
fn half_a_request_needs_a_reset() {
    for pieces in [
        &[(REQUEST, REQUEST_BYTES as u32 - 1, 0), (RESPONSE, RESPONSE_BYTES as u32, WRITE)][..],
        &[(REQUEST, REQUEST_BYTES as u32, 0), (RESPONSE, RESPONSE_BYTES as u32 - 1, WRITE)],
        &[(RESPONSE, RESPONSE_BYTES as u32, WRITE)],
    ] {
        let mut rig = Rig::new(0);
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
        requests in vec((0..5_u16, 0..40_u64, 0..40_u16), 40),
        heads in vec(prop_oneof![8 => 0..16_u16, 1 => any::<u16>()], 1..24),
        requested in 0..COUNT,
    ) {
        let mut rig = Rig::new(requested);
        for (index, (kind, first, count)) in (0..).zip(requests) {
            let words = [u64::from(kind), START + first * BLOCK, count.into()];
            rig.bench.ram.write_obj(words, Address(REQUEST + 96 * index)).unwrap();
        }
        for (index, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
            rig.driver.store(index as u16, Descriptor::new(address, length, flags, next));
        }
        heads.iter().for_each(|head| rig.driver.offer(*head));
        rig.driver.kick();
        let mut owed = heads.clone();
        while let Some((head, written)) = rig.driver.wait_used_for(Duration::from_millis(2)) {
            let place = owed.iter().position(|owed| *owed == head);
            prop_assert!(place.is_some() && written == RESPONSE_BYTES as u32);
            owed.swap_remove(place.unwrap());
        }
        rig.handle.pause().expect("the thread lives");
        prop_assert!(rig.blocks.plugged() <= Bytes(requested * BLOCK));
    }
}
