//! A real disk behind its transport: every request comes back with what the specification says, or the
//! device asks for a reset; nothing else changes, neither in memory nor on the disk.

mod chain;
mod disk;
mod model;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use napa_machine::layout::IO_APIC_PINS;
use napa_machine::{Buses, PciBus, PciSlot};
use napa_virtio::pci::{PciFunction, Transport, TransportParts};

use self::chain::{Chain, DATA};
use self::disk::{Disk, Host, SERIAL};
use self::model::{Effect, Expected, Model};
use crate::function::{Function, QUEUE_SIZE, RINGS_BYTES, Rings};
use crate::kvm::FakeKvm;
use crate::ram::Ram;

/// Steps of one input at most: more find nothing new.
const STEPS_MAX: usize = 48;
const QUEUES: u64 = 2;
const RINGS: u64 = 0x1000;
/// Where chains have their own descriptor tables.
const TABLES: u64 = 0x2000;
const NEEDS_RESET: u8 = 0x40;
const DEVICE_CONFIG: u64 = 0x2000;
const BLOCK_SIZE: u64 = DEVICE_CONFIG + 20;
const WRITEBACK: u64 = DEVICE_CONFIG + 32;
/// How long a request may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// Memory that the requests of one batch have each.
const BATCH_BYTES: u64 = 0x1800;
const PLACE: PciSlot =
    PciSlot { name: String::new(), slot: 1, bar: 0xc000_0000, first_interrupt: IO_APIC_PINS, memory: None };

/// Plays a driver as the input says.
pub fn blk(input: &[u8]) {
    thread_local!(static HOST: RefCell<Option<Host>> = const { RefCell::new(None) });
    HOST.with(|host| {
        let mut host = host.borrow_mut();
        // An input that ends early is an input all the same.
        let _ = play(host.get_or_insert_with(Host::new), &mut Unstructured::new(input));
    });
}

fn play(host: &Host, input: &mut Unstructured<'_>) -> Result<()> {
    // Direct I/O takes its time: one input in eight.
    let disk = &host.disks[if input.int_in_range(0..=7_u8)? == 0 { host.disks.len() - 1 } else { 0 }];
    let mut session = Session::new(host, disk);
    session.start(input.arbitrary()?);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        session.step(input)?;
    }
    session.end();
    Ok(())
}

struct Session<'a> {
    disk: &'a Disk,
    ram: Ram,
    buses: Buses,
    model: Model,
    queues: [Ring; QUEUES as usize],
}

/// The driver's side of a queue.
#[derive(Clone, Copy)]
struct Ring {
    places: Rings,
    available: u16,
    used: u16,
}

impl<'a> Session<'a> {
    fn new(host: &'a Host, disk: &'a Disk) -> Self {
        let ram = Ram::new();
        let parts = TransportParts {
            memory: Arc::clone(ram.pages().ram()),
            pages: ram.pages(),
            threads: host.threads.clone(),
            platform: Arc::new(FakeKvm::new(IO_APIC_PINS..IO_APIC_PINS + 3)),
            bar: PLACE.bar,
            first_interrupt: PLACE.first_interrupt,
        };
        let transport = Transport::new(Arc::clone(&disk.device), parts).expect("eventfds are left");
        let pci = Arc::new(PciBus::new(Box::new(|| {})));
        pci.populate(vec![(PLACE.slot, Arc::new(transport) as Arc<dyn PciFunction>)]);
        let mut serial = [0; 20];
        serial[..SERIAL.len()].copy_from_slice(SERIAL.as_bytes());
        let queues = [0, 1].map(|index| Ring {
            places: Rings::at(RINGS + index * RINGS_BYTES),
            available: 0,
            used: 0,
        });
        let buses = Buses::new(Vec::new(), pci);
        let model = Model { bytes: disk.refill(), block: 512, serial };
        Self { disk, ram, buses, model, queues }
    }

    fn function(&self) -> Function<'_> {
        Function::new(&self.buses, &PLACE)
    }

    /// From reset to ready.
    fn start(&mut self, features: u64) {
        self.function().negotiate(features);
        if self.disk.is_direct {
            self.model.block = self.function().read(BLOCK_SIZE, 4);
        }
        for index in 0..self.queues.len() {
            let places = self.queues[index].places;
            self.ram.store(places.descriptors, &[0; RINGS_BYTES as usize]);
            self.queues[index] = Ring { places, available: 0, used: 0 };
            self.function().set_queue(index as u64, places);
        }
        self.function().set_ready();
        assert_eq!(self.function().status(), 0xf, "a good driver's device is ready");
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let queue = input.choose_index(self.queues.len())?;
        match input.int_in_range(0..=15_u8)? {
            0 => self.function().write(WRITEBACK, 1, input.int_in_range(0..=2_u64)?),
            1..=2 => self.batch(queue, input)?,
            3 => self.nonsense(queue, input)?,
            4 => self.request(queue, &Chain::endless(DATA), true, input)?,
            5 => {
                self.function().reset();
                self.start(input.arbitrary()?);
            }
            _ => {
                let chain = Chain::generate(DATA, input)?;
                let is_indirect = input.ratio(1, 3)? || chain.pieces.len() > usize::from(QUEUE_SIZE);
                self.request(queue, &chain, is_indirect, input)?;
            }
        }
        Ok(())
    }

    /// One request, held against the model.
    fn request(
        &mut self,
        queue: usize,
        chain: &Chain,
        is_indirect: bool,
        input: &mut Unstructured<'_>,
    ) -> Result<()> {
        if chain.pieces.is_empty() {
            return Ok(());
        }
        self.prepare(queue, chain, 0, is_indirect.then_some(TABLES));
        if chain.is_ambiguous(&(RINGS..TABLES)) {
            return self.let_happen(queue, chain.writable().collect(), input);
        }
        let expected = self.model.expect(chain, &self.ram);
        self.offer(queue, 0);
        self.function().notify(queue as u64);
        let came = self.wait(queue, 1);
        let mut allowed = vec![self.used_ring(queue)];
        match expected {
            Expected::NeedsReset => {
                assert!(!came, "what makes no sense is not answered: {chain:?}");
                self.ram.check_changes("a malformed request", &allowed);
                self.check_disk(&Effect::None);
                self.restart(input)?;
            }
            Expected::Done { outcome: (at, status), written, data, effect } => {
                assert!(came, "the device wants a reset after {chain:?}");
                assert_eq!(self.used_entry(queue), (0, written), "{chain:?}");
                assert_eq!(self.ram.load(at, 1), [status], "{chain:?}");
                allowed.push(at..at + 1);
                for (address, bytes) in data {
                    assert!(self.ram.load(address, bytes.len()) == bytes, "wrong data: {chain:?}");
                    allowed.push(address..address + bytes.len() as u64);
                }
                self.ram.check_changes("a request", &allowed);
                self.check_disk(&effect);
            }
        }
        Ok(())
    }

    /// Several requests under way at once, each with its own memory: all come back.
    fn batch(&mut self, queue: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let mut writable = Vec::new();
        let mut count = 0;
        for index in 0..input.int_in_range(2..=5_u16)? {
            let base = DATA + u64::from(index) * BATCH_BYTES;
            let chain = Chain::generate(base, input)?;
            if chain.pieces.is_empty() || chain.is_ambiguous(&(RINGS..TABLES)) {
                continue;
            }
            self.prepare(queue, &chain, index, Some(TABLES + u64::from(index) * 0x400));
            self.offer(queue, index);
            writable.extend(chain.writable());
            count += 1;
        }
        self.function().notify(queue as u64);
        if input.ratio(1, 4)? {
            return self.let_happen(queue, writable, input);
        }
        let came = self.wait(queue, count);
        writable.push(self.used_ring(queue));
        if !came {
            return self.let_happen(queue, writable, input);
        }
        self.ram.check_changes("a batch", &writable);
        self.model.bytes = self.disk.content();
        Ok(())
    }

    /// Anything in the descriptor table, and any heads.
    fn nonsense(&mut self, queue: usize, input: &mut Unstructured<'_>) -> Result<()> {
        for _ in 0..input.int_in_range(1..=4_u8)? {
            let index = u64::from(input.int_in_range(0..=QUEUE_SIZE - 1)?);
            let flags = u16::from(input.int_in_range(0..=7_u8)?);
            let (at, length) = (crate::words::address(input)?, crate::words::length(input)?);
            let next = input.int_in_range(0..=QUEUE_SIZE)?;
            let descriptor =
                [&at.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
            self.ram.store(self.queues[queue].places.descriptors + 16 * index, &descriptor.concat());
        }
        for _ in 0..input.int_in_range(1..=3_u8)? {
            self.offer(queue, input.int_in_range(0..=QUEUE_SIZE)?);
        }
        if input.ratio(1, 8)? {
            let index = input.arbitrary::<[u8; 2]>()?;
            self.ram.store(self.queues[queue].places.available + 2, &index);
        }
        self.function().notify(queue as u64);
        // Such a driver gave the device all of its memory.
        let all = 0..u64::MAX;
        self.let_happen(queue, vec![all], input)
    }

    /// Resets the device under its work: afterwards it does nothing any more.
    fn let_happen(
        &mut self,
        queue: usize,
        mut allowed: Vec<Range<u64>>,
        input: &mut Unstructured<'_>,
    ) -> Result<()> {
        self.function().notify(queue as u64);
        for _ in 0..input.int_in_range(0..=20_u8)? {
            std::thread::yield_now();
        }
        self.function().reset();
        allowed.push(RINGS..TABLES);
        self.ram.check_changes("what was under way", &allowed);
        self.model.bytes = self.disk.content();
        self.start(input.arbitrary()?);
        Ok(())
    }

    fn restart(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        assert_ne!(self.function().status() & NEEDS_RESET, 0);
        self.function().reset();
        assert_eq!(self.function().status(), 0, "a reset always works");
        self.start(input.arbitrary()?);
        Ok(())
    }

    fn end(mut self) {
        self.function().reset();
        self.ram.check_changes("the end", std::slice::from_ref(&(RINGS..TABLES)));
        assert!(self.disk.content() == self.model.bytes, "the disk changed by itself");
    }

    /// Writes a request to memory: at `index` of the table, or in a table of its own.
    fn prepare(&mut self, queue: usize, chain: &Chain, index: u16, table: Option<u64>) {
        for (address, bytes) in &chain.content {
            self.ram.store(*address, bytes);
        }
        let first = self.queues[queue].places.descriptors + 16 * u64::from(index);
        match table {
            Some(table) => {
                self.ram.store(table, &chain.descriptors(0));
                self.ram.store(first, &chain.indirect(table));
            }
            None => self.ram.store(first, &chain.descriptors(index)),
        }
    }

    fn offer(&mut self, queue: usize, head: u16) {
        let ring = &mut self.queues[queue];
        let entry = ring.places.available + 4 + 2 * u64::from(ring.available % QUEUE_SIZE);
        ring.available = ring.available.wrapping_add(1);
        let (index, available) = (ring.places.available + 2, ring.available);
        self.ram.store(entry, &head.to_le_bytes());
        self.ram.store(index, &available.to_le_bytes());
    }

    /// Waits for `count` requests. `false`: the device wants a reset.
    fn wait(&mut self, queue: usize, count: u16) -> bool {
        let ring = self.queues[queue];
        let until = Instant::now() + PATIENCE;
        let wanted = ring.used.wrapping_add(count);
        while self.ram.load_half(ring.places.used + 2) != wanted {
            if self.function().status() & NEEDS_RESET != 0 {
                return false;
            }
            assert!(Instant::now() < until, "a request was lost");
            std::thread::yield_now();
        }
        self.queues[queue].used = wanted;
        true
    }

    /// The newest entry of the used ring: head and bytes written.
    fn used_entry(&self, queue: usize) -> (u32, u32) {
        let ring = self.queues[queue];
        let entry = ring.places.used + 4 + 8 * u64::from(ring.used.wrapping_sub(1) % QUEUE_SIZE);
        let number = |at| u32::from_le_bytes([0, 1, 2, 3].map(|index| self.ram.load(at + index, 1)[0]));
        (number(entry), number(entry + 4))
    }

    fn used_ring(&self, queue: usize) -> Range<u64> {
        let start = self.queues[queue].places.used;
        start..start + 4 + 8 * u64::from(QUEUE_SIZE) + 2
    }

    fn check_disk(&mut self, effect: &Effect) {
        let now = self.disk.content();
        match effect {
            Effect::None => {}
            Effect::Write(start, bytes) => {
                self.model.bytes[*start..*start + bytes.len()].copy_from_slice(bytes)
            }
            Effect::Zeros(range, is_hint) => {
                let is_unchanged = now[range.clone()] == self.model.bytes[range.clone()];
                if !(*is_hint && is_unchanged) {
                    self.model.bytes[range.clone()].fill(0);
                }
            }
        }
        assert!(now == self.model.bytes, "the disk is not as it must be after {effect:?}");
    }
}
