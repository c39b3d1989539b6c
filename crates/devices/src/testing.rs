//! A driver without a guest: one virtqueue in ordinary memory, seen from both sides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use napa_memory::{GuestRam, PageStates, RamRegion, allocate};
use napa_units::{Bytes, GuestAddress as Start};
use napa_virtio::{Health, Interrupt, Queue, VectorTable};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue as Ring, QueueT};
use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

/// A descriptor links to the next one.
const NEXT: u16 = 1;
/// The device writes the piece.
pub const WRITE: u16 = 2;
/// Bit of the device status byte that says that the device needs a reset.
const NEEDS_RESET: u8 = 0x40;
/// Distance between descriptor table, available and used ring: room for 256 entries of 16 bytes.
const AREA_BYTES: u64 = 0x1000;
/// Bytes of memory that the rings of one queue take.
pub const RINGS_BYTES: u64 = 3 * AREA_BYTES;
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// RAM of `mebibytes` from address 0 on.
pub fn ram(mebibytes: u64) -> Arc<GuestRam> {
    Arc::new(allocate(&[RamRegion { start: Start(0), size: Bytes::mib(mebibytes) }]).unwrap())
}

/// What all queues of one device share.
pub struct Bench {
    pub ram: Arc<GuestRam>,
    pub config_interrupt: Interrupt,
    pub health: Health,
    status: Arc<AtomicU8>,
    config_vectors: Arc<VectorTable>,
}

impl Bench {
    pub fn new(ram: &Arc<GuestRam>) -> Self {
        let config_vectors = Arc::new(VectorTable::new(1).unwrap());
        let config_interrupt = Interrupt::new(Arc::clone(&config_vectors), Arc::new(AtomicU16::new(0)));
        let status = Arc::new(AtomicU8::new(0));
        let health = Health::new("test", Arc::clone(&status), config_interrupt.clone());
        Self { ram: Arc::clone(ram), config_interrupt, health, status, config_vectors }
    }

    /// The pages of the RAM, none of which was discarded.
    pub fn pages(&self) -> Arc<PageStates> {
        Arc::new(PageStates::new(Arc::clone(&self.ram)))
    }

    /// A queue of `size` entries (at most 256) with its rings at `address`, and the driver's side of it.
    pub fn queue(&self, address: u64, size: u16) -> (Driver, Queue) {
        let mut ring = Ring::new(size).unwrap();
        ring.try_set_desc_table_address(GuestAddress(address)).unwrap();
        ring.try_set_avail_ring_address(GuestAddress(address + AREA_BYTES)).unwrap();
        ring.try_set_used_ring_address(GuestAddress(address + 2 * AREA_BYTES)).unwrap();
        ring.set_ready(true);
        let vectors = Arc::new(VectorTable::new(1).unwrap());
        let interrupt = Interrupt::new(Arc::clone(&vectors), Arc::new(AtomicU16::new(0)));
        let doorbell = EventFd::new(0).unwrap();
        let driver = Driver {
            ram: Arc::clone(&self.ram),
            address,
            size,
            doorbell: doorbell.try_clone().unwrap(),
            vectors,
            next_descriptor: 0,
            available: 0,
            used: 0,
            offered: HashMap::new(),
            strays: Vec::new(),
        };
        (driver, Queue::new(ring, Arc::clone(&self.ram), doorbell, interrupt, self.health.clone()))
    }

    /// Whether the device has asked for a reset.
    pub fn needs_reset(&self) -> bool {
        self.status.load(Ordering::Acquire) & NEEDS_RESET != 0
    }

    /// Waits until the device asks for a reset.
    pub fn wait_needs_reset(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.needs_reset() {
            assert!(Instant::now() < until, "the device did not ask for a reset");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for an interrupt of the configuration space.
    pub fn wait_config_interrupt(&self) {
        let event = self.config_vectors.event(0).unwrap();
        assert!(wait_readable(event, PATIENCE), "no configuration interrupt came");
        event.read().unwrap();
    }
}

/// The driver's side of a queue. Descriptors are used in turn: one that is taken again before its request
/// came back is the test's own mischief.
pub struct Driver {
    ram: Arc<GuestRam>,
    address: u64,
    size: u16,
    doorbell: EventFd,
    vectors: Arc<VectorTable>,
    next_descriptor: u16,
    available: u16,
    used: u16,
    /// How often each head is with the device.
    offered: HashMap<u16, u32>,
    /// Heads that came back without being with the device.
    pub strays: Vec<u16>,
}

impl Driver {
    /// Makes a request of `(address, length, flags)` available and returns its head. No doorbell.
    pub fn add(&mut self, pieces: &[(u64, u32, u16)]) -> u16 {
        let head = self.next_descriptor;
        for (index, (address, length, flags)) in pieces.iter().enumerate() {
            let following = (self.next_descriptor + 1) % self.size;
            let link = if index + 1 < pieces.len() { NEXT } else { 0 };
            self.store(self.next_descriptor, Descriptor::new(*address, *length, flags | link, following));
            self.next_descriptor = following;
        }
        self.offer(head);
        head
    }

    /// Writes one descriptor as it is.
    pub fn store(&self, index: u16, descriptor: Descriptor) {
        let address = GuestAddress(self.address + u64::from(index % self.size) * 16);
        self.ram.write_obj(RawDescriptor::from(descriptor), address).unwrap();
    }

    /// Makes a head available, whatever its descriptors are.
    pub fn offer(&mut self, head: u16) {
        let ring = self.address + AREA_BYTES;
        let entry = GuestAddress(ring + 4 + u64::from(self.available % self.size) * 2);
        self.ram.write_obj(head, entry).unwrap();
        *self.offered.entry(head).or_default() += 1;
        self.available = self.available.wrapping_add(1);
        self.ram.store(self.available, GuestAddress(ring + 2), Ordering::Release).unwrap();
    }

    /// Rings the doorbell.
    pub fn kick(&self) {
        self.doorbell.write(1).unwrap();
    }

    /// The next request that came back, as `(head, written)`.
    pub fn used(&mut self) -> Option<(u16, u32)> {
        let ring = self.address + 2 * AREA_BYTES;
        let index: u16 = self.ram.load(GuestAddress(ring + 2), Ordering::Acquire).unwrap();
        if index == self.used {
            return None;
        }
        let entry = GuestAddress(ring + 4 + u64::from(self.used % self.size) * 8);
        let [head, written]: [u32; 2] = self.ram.read_obj(entry).unwrap();
        self.used = self.used.wrapping_add(1);
        match self.offered.get_mut(&(head as u16)) {
            Some(count @ 1..) => *count -= 1,
            _ => self.strays.push(head as u16),
        }
        Some((head as u16, written))
    }

    /// Waits until a request comes back, by interrupt.
    pub fn wait_used(&mut self) -> (u16, u32) {
        self.wait_used_for(PATIENCE).expect("no request came back")
    }

    /// Waits at most `patience` for a request to come back.
    pub fn wait_used_for(&mut self, patience: Duration) -> Option<(u16, u32)> {
        loop {
            if let Some(used) = self.used() {
                return Some(used);
            }
            let vectors = Arc::clone(&self.vectors);
            let event = vectors.event(0).unwrap();
            if !wait_readable(event, patience) {
                return self.used();
            }
            event.read().unwrap();
        }
    }
}

fn wait_readable(event: &EventFd, patience: Duration) -> bool {
    #[allow(unsafe_code)] // The crate's eventfd does not implement AsFd.
    // SAFETY: `event` is borrowed, so the descriptor stays open during this call.
    let event = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let patience = rustix::time::Timespec::try_from(patience).unwrap();
    let mut waiting = [PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN)];
    poll(&mut waiting, Some(&patience)).unwrap() == 1
}
