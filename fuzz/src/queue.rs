//! Descriptor tables, rings and notifications against the queue that every device uses.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use arbitrary::{Result, Unstructured};
use napa_virtio::{Buffers, Chain, Health, Interrupt, Queue, VectorTable};
use virtio_queue::{Queue as Ring, QueueT};
use vmm_sys_util::eventfd::EventFd;

use crate::ram::Ram;
use crate::words::{address, length};

/// Steps of one input at most: more find nothing new.
const STEPS_MAX: usize = 128;
/// Pieces of one request at most, as the kernel takes them in one call.
const PIECES_MAX: usize = 1024;
/// Bytes of a request's memory that are looked at.
const LOOK_BYTES: usize = 4096;
/// A driver that is ready.
const DRIVER_OK: u8 = 0xf;
const NEEDS_RESET: u8 = 0x40;

/// Builds a queue where the input says and does with it what a device does.
pub fn queue(input: &[u8]) {
    // An input that ends early is an input all the same.
    let _ = run(&mut Unstructured::new(input));
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let Some(mut bench) = Bench::new(input)? else { return Ok(()) };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        bench.step(input)?;
    }
    Ok(())
}

/// Where the rings are, and how long.
struct Places {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
}

struct Bench {
    ram: Ram,
    queue: Queue,
    places: Places,
    status: Arc<AtomicU8>,
    buffers: Buffers,
    /// The last step popped a request that may be put back.
    has_popped: bool,
}

impl Bench {
    /// `None`: the transport would refuse such a queue.
    fn new(input: &mut Unstructured<'_>) -> Result<Option<Self>> {
        let places = Places {
            size: 1 << input.int_in_range(0..=8_u8)?,
            descriptors: address(input)?,
            available: address(input)?,
            used: address(input)?,
        };
        let ram = Ram::new();
        let Ok(ring) = ring(&places, input.arbitrary()?) else { return Ok(None) };
        if !ring.is_valid(ram.memory().as_ref()) {
            return Ok(None);
        }
        let vectors = Arc::new(VectorTable::new(1).expect("a process has an eventfd left"));
        let interrupt = Interrupt::new(vectors, Arc::new(AtomicU16::new(0)));
        let status = Arc::new(AtomicU8::new(DRIVER_OK));
        let health = Health::new("queue", Arc::clone(&status), interrupt.clone());
        let doorbell = EventFd::new(0).expect("a process has an eventfd left");
        let queue = Queue::new(ring, Arc::clone(ram.memory()), doorbell, interrupt, health);
        Ok(Some(Self { ram, queue, places, status, buffers: Buffers::default(), has_popped: false }))
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let has_popped = std::mem::take(&mut self.has_popped);
        match input.int_in_range(0..=15_u8)? {
            0..=2 => self.write_descriptor(input)?,
            3 => self.ram.store(address(input)?, &input.arbitrary::<[u8; 8]>()?),
            4 => self.ram.store(self.places.available, &input.arbitrary::<[u8; 2]>()?),
            5 => self.ram.store(self.places.available + 2, &input.arbitrary::<[u8; 2]>()?),
            6..=8 => self.offer(input)?,
            9 if has_popped => self.queue.put_back(),
            9..=11 => self.pop(input)?,
            12 => self.push(input.arbitrary()?, input.arbitrary()?),
            13 => {
                push_together(&mut self.queue, input)?;
                self.check_used_ring("push_together");
            }
            14 => {
                self.queue.notify();
                self.check_used_ring("notify");
            }
            _ => {
                doorbell(&mut self.queue, input)?;
                self.check_used_ring("the doorbell's switch");
            }
        }
        Ok(())
    }

    fn write_descriptor(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let index = u64::from(input.int_in_range(0..=self.places.size - 1)?);
        let flags: u16 = match input.int_in_range(0..=7_u8)? {
            choice @ 0..=5 => u16::from(choice),
            _ => input.arbitrary()?,
        };
        let (at, count) = (address(input)?, length(input)?);
        let next: u16 = input.int_in_range(0..=self.places.size)?;
        let bytes = [&at.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        self.ram.store(self.places.descriptors + 16 * index, &bytes.concat());
        Ok(())
    }

    /// Makes a head available, as a driver does.
    fn offer(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let head: u16 = input.int_in_range(0..=self.places.size)?;
        let index = self.ram.load_half(self.places.available + 2);
        let entry = self.places.available + 4 + 2 * u64::from(index % self.places.size);
        self.ram.store(entry, &head.to_le_bytes());
        self.ram.store(self.places.available + 2, &index.wrapping_add(1).to_le_bytes());
        Ok(())
    }

    fn pop(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let popped = self.queue.pop();
        self.ram.check_changes("pop", &[]);
        let Some(chain) = popped else { return Ok(()) };
        assert_eq!(self.status.load(Ordering::Acquire) & NEEDS_RESET, 0, "a failed queue gives no requests");
        self.has_popped = true;
        self.use_request(chain, input)
    }

    /// Takes a request apart as devices do, and holds each step against plain bytes.
    fn use_request(&mut self, mut chain: Chain, input: &mut Unstructured<'_>) -> Result<()> {
        let head = chain.head_index();
        let mut buffers = std::mem::take(&mut self.buffers);
        if let Err(problem) = buffers.fill(&mut chain, self.ram.memory()) {
            self.queue.fail(problem);
            assert!(self.queue.has_failed() && self.queue.pop().is_none());
            return Ok(());
        }
        assert!(buffers.readable.len() + buffers.writable.len() <= PIECES_MAX);
        let readable = buffers.readable.iter().map(|piece| self.ram.guest_range(piece));
        assert!(readable.map(|range| range.end - range.start).sum::<u64>() == buffers.readable_bytes());
        let writable = buffers.writable.iter().map(|piece| self.ram.guest_range(piece)).collect::<Vec<_>>();
        take_header(&mut buffers);
        self.take_status(&mut buffers, &writable, input.arbitrary()?);
        self.move_data(&mut buffers, &writable, input)?;
        self.buffers = buffers;
        if input.arbitrary()? {
            self.has_popped = false;
            self.push(head, input.arbitrary()?);
        }
        Ok(())
    }

    fn take_status(&mut self, buffers: &mut Buffers, writable: &[Range<u64>], outcome: u8) {
        let bytes = buffers.writable_bytes();
        let Some(status) = buffers.take_status() else { return assert_eq!(bytes, 0) };
        assert_eq!(buffers.writable_bytes(), bytes - 1);
        status.write(&self.queue, outcome);
        let last = writable.iter().rev().find(|range| !range.is_empty()).expect("the outcome has a byte");
        self.ram.check_changes("the outcome", std::slice::from_ref(&(last.end - 1..last.end)));
        assert_eq!(self.ram.load(last.end - 1, 1), [outcome]);
    }

    /// Writes, cuts and reads what is left of a request.
    fn move_data(
        &mut self,
        buffers: &mut Buffers,
        writable: &[Range<u64>],
        input: &mut Unstructured<'_>,
    ) -> Result<()> {
        let count = u64::from(length(input)?);
        match input.int_in_range(0..=5_u8)? {
            0 => buffers.skip_readable(count),
            1 => buffers.skip_writable(count),
            2 => buffers.truncate_readable(count),
            3 => buffers.truncate_writable(count),
            4 => buffers.write_at(count as usize, &[0xa5; 700]),
            _ => assert_eq!(buffers.write(&[0x5a; 700]) as u64, buffers.writable_bytes().min(700)),
        }
        self.ram.check_changes("data", writable);
        assert!(look(buffers).len() as u64 == buffers.readable_bytes().min(LOOK_BYTES as u64));
        Ok(())
    }

    fn push(&mut self, head: u16, written: u32) {
        self.queue.push(head, written);
        self.check_used_ring("push");
    }

    /// Panics if anything but the used ring has changed.
    fn check_used_ring(&mut self, what: &str) {
        // Flags, index, entries, and the index from which the device wants doorbells.
        let end = self.places.used + 4 + 8 * u64::from(self.places.size) + 2;
        self.ram.check_changes(what, std::slice::from_ref(&(self.places.used..end)));
    }
}

fn ring(places: &Places, has_event_index: bool) -> std::result::Result<Ring, virtio_queue::Error> {
    let mut ring = Ring::new(places.size)?;
    ring.try_set_desc_table_address(vm_memory::GuestAddress(places.descriptors))?;
    ring.try_set_avail_ring_address(vm_memory::GuestAddress(places.available))?;
    ring.try_set_used_ring_address(vm_memory::GuestAddress(places.used))?;
    ring.set_event_idx(has_event_index);
    ring.set_ready(true);
    Ok(ring)
}

/// The readable bytes, as far as they are looked at.
fn look(buffers: &Buffers) -> Vec<u8> {
    let mut bytes = vec![0; LOOK_BYTES];
    let count = buffers.read(&mut bytes);
    bytes.truncate(count);
    bytes
}

fn take_header(buffers: &mut Buffers) {
    let before = look(buffers);
    match buffers.take_header::<16>() {
        Some(header) => {
            assert_eq!(header, before[..16], "the header is what comes first");
            assert!(look(buffers).starts_with(&before[16..]), "the rest follows it");
        }
        None => assert!(before.len() < 16),
    }
}

fn push_together(queue: &mut Queue, input: &mut Unstructured<'_>) -> Result<()> {
    let mut requests = Vec::new();
    for _ in 0..input.int_in_range(0..=5_u8)? {
        requests.push((input.arbitrary()?, input.arbitrary()?));
    }
    queue.push_together(&requests);
    Ok(())
}

fn doorbell(queue: &mut Queue, input: &mut Unstructured<'_>) -> Result<()> {
    match input.arbitrary()? {
        true => drop(queue.enable_doorbell()),
        false => queue.disable_doorbell(),
    }
    Ok(())
}
