use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use napa_memory::{GuestRam, PageStates, RamRegion, allocate, map_image};
use napa_sys::reactor::{self, Io, Worker};
use napa_units::{Bytes, GuestAddress};
use proptest::prelude::*;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::Bytes as _;
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::{Activation, Device, DeviceError, MsiMessage, Placed, Placement, Platform, Queue, Threads};

const BAR: u32 = 0xc000_0000;
const RAM: u64 = 1 << 20;

/// Notes what the machine was asked for.
#[derive(Default)]
struct Record {
    routes: Mutex<Vec<(u32, Option<MsiMessage>)>>,
    doorbells: Mutex<Vec<u64>>,
}

impl Platform for Record {
    fn route(&self, interrupt: u32, _: &EventFd, message: Option<MsiMessage>) -> io::Result<()> {
        self.routes.lock().unwrap().push((interrupt, message));
        Ok(())
    }

    fn connect_doorbell(&self, address: GuestAddress, _: &EventFd) -> io::Result<()> {
        let mut doorbells = self.doorbells.lock().unwrap();
        if doorbells.contains(&address.0) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        doorbells.push(address.0);
        Ok(())
    }

    fn disconnect_doorbell(&self, address: GuestAddress, _: &EventFd) {
        self.doorbells.lock().unwrap().retain(|connected| *connected != address.0);
    }
}

/// Gives every request back at once, with its length.
struct Echo {
    is_reset: Arc<AtomicBool>,
}

struct EchoWorker(Queue);

impl Device for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn id(&self) -> u16 {
        4
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![16, 16]
    }

    fn features(&self) -> u64 {
        1
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        crate::read_config_bytes(b"config", offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Placed>, DeviceError> {
        let queues = activation.queues.into_iter().flatten();
        Ok(queues.map(|queue| (Placement::Control, Box::new(EchoWorker(queue)) as Box<dyn Worker>)).collect())
    }

    fn reset(&mut self, workers: Vec<Box<dyn Worker>>) {
        self.is_reset.store(!workers.is_empty(), Ordering::Release);
    }
}

impl Worker for EchoWorker {
    fn start(&mut self, io: &mut Io<'_>) {
        self.0.wait(0, io);
    }

    fn ready(&mut self, token: u32, io: &mut Io<'_>) {
        while let Some(chain) = self.0.pop() {
            self.0.push(chain.head_index(), 5);
        }
        self.0.notify();
        self.0.wait(token, io);
    }
}

/// An image of the host behind RAM.
const IMAGE: u64 = 1 << 32;
const IMAGE_BYTES: u64 = 0x2000;

struct Bench {
    function: Transport,
    record: Arc<Record>,
    ram: Arc<GuestRam>,
    is_reset: Arc<AtomicBool>,
    control: reactor::Handle,
}

impl Bench {
    fn new() -> Self {
        let ram = Arc::new(allocate(&[RamRegion { start: GuestAddress(0), size: Bytes(RAM) }]).unwrap());
        let (control, _detached) = reactor::spawn("test").unwrap();
        let record = Arc::new(Record::default());
        let is_reset = Arc::default();
        let file = tempfile::tempfile().unwrap();
        file.set_len(IMAGE_BYTES).unwrap();
        let image = RamRegion { start: GuestAddress(IMAGE), size: Bytes(IMAGE_BYTES) };
        let image = Arc::new(map_image(&file, image).unwrap());
        let parts = TransportParts {
            memory: Arc::new(ram.insert_region(image).unwrap()),
            pages: Arc::new(PageStates::new(Arc::clone(&ram))),
            threads: Threads::new(control.clone(), 1),
            platform: Arc::clone(&record) as Arc<dyn Platform>,
            bar: BAR,
            first_interrupt: 24,
        };
        let device: Box<dyn Device> = Box::new(Echo { is_reset: Arc::clone(&is_reset) });
        let function = Transport::new(Arc::new(Mutex::new(device)), parts).unwrap();
        Self { function, record, ram, is_reset, control }
    }

    fn read(&self, offset: u64, size: usize) -> u64 {
        let mut data = [0; 8];
        self.function.read_bar(offset, &mut data[..size]);
        u64::from_le_bytes(data)
    }

    fn write(&self, offset: u64, size: usize, value: u64) {
        self.function.write_bar(offset, &value.to_le_bytes()[..size]);
    }

    fn config(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.function.read_config(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn set_config(&self, offset: u16, value: u32) {
        self.function.write_config(offset, &value.to_le_bytes());
    }

    fn status(&self) -> u64 {
        self.read(0x14, 1)
    }

    /// Goes as far as FEATURES_OK with these features.
    fn negotiate(&self, features: u64) {
        for status in [0, 1, 3] {
            self.write(0x14, 1, status);
        }
        for half in 0..2 {
            self.write(0x08, 4, half);
            self.write(0x0c, 4, features >> (32 * half));
        }
        self.write(0x14, 1, 0xb);
    }

    fn set_queue(&self, index: u64, descriptors: u64, available: u64, used: u64) {
        self.write(0x16, 2, index);
        self.write(0x18, 2, 16);
        self.write(0x1a, 2, index + 1);
        for (offset, value) in [(0x20, descriptors), (0x28, available), (0x30, used)] {
            self.write(offset, 8, value);
        }
        self.write(0x1c, 2, 1);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.function.write_bar(0x14, &[0]);
        self.control.quit();
    }
}

const VERSION_1: u64 = 1 << 32;

#[test]
fn a_driver_finds_capabilities_and_bar_size() {
    let bench = Bench::new();
    assert_eq!(bench.config(0), 0x1044_1af4);
    let mut next = bench.config(0x34) as u16 & 0xff;
    let mut kinds = Vec::new();
    while next != 0 {
        let capability = bench.config(next);
        kinds.push((capability & 0xff, capability >> 24));
        next = (capability >> 8) as u16 & 0xff;
    }
    assert_eq!(kinds[0].0, 0x11, "MSI-X comes first");
    assert_eq!(kinds[1..], [(9, 1), (9, 2), (9, 3), (9, 4), (9, 5)]);
    bench.set_config(0x10, u32::MAX);
    assert_eq!(bench.config(0x10), !(BAR_SIZE as u32 - 1));
    assert_eq!(bench.function.window(), None, "sizing leaves no window");
    bench.set_config(0x10, 0xd000_0000);
    assert_eq!(bench.function.window(), Some((0xd000_0000, BAR_SIZE)));
}

#[test]
fn features_that_were_not_offered_are_not_agreed_to() {
    let bench = Bench::new();
    for (features, agreed) in [(VERSION_1, true), (VERSION_1 | 1, true), (1, false), (VERSION_1 | 2, false)] {
        bench.negotiate(features);
        assert_eq!(bench.status() & 8 != 0, agreed, "{features:#x}");
    }
}

#[test]
fn a_request_goes_round_and_a_reset_takes_the_workers_back() {
    let bench = Bench::new();
    let mock = MockSplitQueue::create(bench.ram.as_ref(), vm_memory::GuestAddress(0x1000), 16);
    bench.negotiate(VERSION_1);
    bench.set_queue(0, mock.desc_table_addr().0, mock.avail_addr().0, mock.used_addr().0);
    bench.write(0x14, 1, 0xf);
    assert_eq!(bench.status(), 0xf);
    assert_eq!(*bench.record.doorbells.lock().unwrap(), [u64::from(BAR) + 0x3000]);

    mock.add_desc_chains(&[RawDescriptor::from(Descriptor::new(0x8000, 16, 2, 0))], 0).unwrap();
    bench.write(0x3000, 2, 0);
    let used = vm_memory::GuestAddress(mock.used_addr().0 + 2);
    while bench.ram.read_obj::<u16>(used).unwrap() != 1 {
        std::thread::yield_now();
    }

    // Moved windows take their doorbells along.
    bench.set_config(0x10, 0xd000_0000);
    assert_eq!(*bench.record.doorbells.lock().unwrap(), [0xd000_3000]);

    bench.write(0x14, 1, 0);
    assert_eq!(bench.status(), 0);
    assert!(bench.is_reset.load(Ordering::Acquire));
    assert!(bench.record.doorbells.lock().unwrap().is_empty());
}

#[test]
fn rings_outside_memory_need_a_reset() {
    let bench = Bench::new();
    bench.negotiate(VERSION_1);
    bench.set_queue(0, RAM, RAM, RAM);
    bench.write(0x14, 1, 0xf);
    assert_eq!(bench.status() & 0x40, 0x40);
    bench.write(0x14, 1, 0);
    assert_eq!(bench.status(), 0, "the guest can try again");
}

#[test]
fn a_used_ring_in_memory_that_cannot_be_written_needs_a_reset() {
    let bench = Bench::new();
    for (descriptors, available, used, is_taken) in
        [(0x1000, 0x2000, IMAGE, false), (IMAGE, IMAGE + 0x1000, 0x1000, true)]
    {
        bench.negotiate(VERSION_1);
        bench.set_queue(0, descriptors, available, used);
        bench.write(0x14, 1, 0xf);
        assert_eq!(bench.status() & 0x40 == 0, is_taken, "used ring at {used:#x}");
        bench.write(0x14, 1, 0);
    }
}

#[test]
fn a_broken_available_ring_needs_a_reset() {
    let bench = Bench::new();
    let mock = MockSplitQueue::create(bench.ram.as_ref(), vm_memory::GuestAddress(0x1000), 16);
    bench.negotiate(VERSION_1);
    bench.set_queue(0, mock.desc_table_addr().0, mock.avail_addr().0, mock.used_addr().0);
    bench.write(0x14, 1, 0xf);
    bench.ram.write_obj(17_u16, vm_memory::GuestAddress(mock.avail_addr().0 + 2)).unwrap();
    bench.write(0x3000, 2, 0);
    while bench.status() & 0x40 == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn doorbells_that_were_connected_before_one_was_refused_go_with_the_reset() {
    let bench = Bench::new();
    let taken = u64::from(BAR) + 0x3004;
    bench.record.doorbells.lock().unwrap().push(taken);
    let mock = MockSplitQueue::create(bench.ram.as_ref(), vm_memory::GuestAddress(0x1000), 16);
    bench.negotiate(VERSION_1);
    for index in 0..2 {
        bench.set_queue(index, mock.desc_table_addr().0, mock.avail_addr().0, mock.used_addr().0);
    }
    bench.write(0x14, 1, 0xf);
    assert_eq!(bench.status() & 0x40, 0x40);
    bench.write(0x14, 1, 0);
    assert_eq!(*bench.record.doorbells.lock().unwrap(), [taken]);
}

#[test]
fn a_vector_is_routed_when_unmasked_and_held_back_when_masked() {
    let bench = Bench::new();
    let routes = || std::mem::take(&mut *bench.record.routes.lock().unwrap());
    bench.set_config(0x40, 0x8000_0000);
    for (offset, value) in [(0x4010, 0xfee0_0000), (0x4014, 0), (0x4018, 0x41)] {
        bench.write(offset, 4, value);
    }
    assert!(routes().is_empty(), "a masked vector has no route");
    bench.write(0x401c, 4, 0);
    let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
    assert_eq!(routes(), [(25, Some(message))]);
    bench.set_config(0x40, 0xc000_0000);
    assert_eq!(routes(), [(25, None)]);
    bench.set_config(0x40, 0x8000_0000);
    assert_eq!(routes(), [(25, Some(message))]);
}

#[test]
fn configuration_space_reaches_the_bar() {
    let bench = Bench::new();
    bench.set_config(0xa0, 0x2000);
    bench.set_config(0xa4, 4);
    assert_eq!(bench.config(0xa8).to_le_bytes(), *b"conf");
}

#[derive(Clone, Debug)]
enum Access {
    ReadConfig(u16, usize),
    WriteConfig(u16, usize, u32),
    ReadBar(u64, usize),
    WriteBar(u64, usize, u64),
}

fn access() -> impl Strategy<Value = Access> {
    let size = || prop_oneof![Just(1_usize), Just(2), Just(4)];
    let bar_size = || prop_oneof![Just(1_usize), Just(2), Just(4), Just(8)];
    let register = prop_oneof![3 => 0..0x40_u64, 1 => 0..BAR_SIZE];
    let value = prop_oneof![0..16_u64, 0..RAM, any::<u64>()];
    prop_oneof![
        (0..0x1000_u16, size()).prop_map(|(offset, size)| Access::ReadConfig(offset, size)),
        (0..0x100_u16, size(), any::<u32>())
            .prop_map(|(offset, size, value)| Access::WriteConfig(offset, size, value)),
        (0..BAR_SIZE, bar_size()).prop_map(|(offset, size)| Access::ReadBar(offset, size)),
        (register, bar_size(), value).prop_map(|(offset, size, value)| Access::WriteBar(offset, size, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_register_access_harms_the_host(accesses in proptest::collection::vec(access(), 1..200)) {
        let bench = Bench::new();
        for access in accesses {
            match access {
                Access::ReadConfig(offset, size) => bench.function.read_config(offset, &mut [0; 4][..size]),
                Access::WriteConfig(offset, size, value) => {
                    bench.function.write_config(offset, &value.to_le_bytes()[..size]);
                }
                Access::ReadBar(offset, size) => bench.function.read_bar(offset, &mut [0; 8][..size]),
                Access::WriteBar(offset, size, value) => bench.write(offset, size, value),
            }
        }
        bench.write(0x14, 1, 0);
        prop_assert_eq!(bench.status(), 0, "a reset always works");
    }
}
