//! A split virtqueue (VIRTIO 1.3 §2.7) with event indexes and indirect descriptors where the device takes them.
//!
//! The rings are shared with the device as atomics. What the driver must be able to trust (`guest_logic::ring`)
//! is kept apart from them.

#![allow(unsafe_code, reason = "declares that descriptors may be zeroed")]

use crate::arena::{Arena, Zeroed};
use crate::failure::Failure;
use crate::physical::Registers;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use guest_logic::ring::{Descriptors, passes};

const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
const INDIRECT: u16 = 4;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u32 = 1;
/// Buffers of one chain at most, where a queue is not told otherwise.
pub const CHAIN_MAX: u16 = 4;

/// A piece of a request.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub bytes: u32,
    /// Whether the device writes it; otherwise it reads.
    pub device_writes: bool,
}

#[derive(Debug)]
#[repr(C, align(16))]
struct Descriptor {
    address: AtomicU64,
    bytes: AtomicU32,
    flags: AtomicU16,
    next: AtomicU16,
}

// SAFETY: plain numbers.
unsafe impl Zeroed for Descriptor {}

/// What a queue is made like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its index.
    pub index: u16,
    /// Descriptors, a power of two.
    pub size: u16,
    /// Buffers of one chain at most.
    pub chain_max: u16,
    /// Whether event indexes were negotiated.
    pub event_index: bool,
    /// Whether indirect descriptors were.
    pub indirect: bool,
}

/// One queue of one device.
pub struct Queue<'a> {
    index: u16,
    size: u16,
    doorbell: Registers,
    event_index: bool,
    descriptors: &'a [Descriptor],
    /// `chain_max` for each descriptor; empty where the device does not take indirect descriptors.
    indirect: &'a [Descriptor],
    /// Buffers of one chain at most.
    chain_max: u16,
    /// Flags, index, `size` entries, the used index that is to interrupt.
    available: &'a [AtomicU16],
    /// Flags and index, `size` pairs of identifier and length, the available index that is to be notified.
    used: &'a [AtomicU32],
    free: Descriptors<'a>,
    available_index: u16,
    notified_index: u16,
    used_index: u16,
}

// SAFETY: plain numbers.
unsafe impl Zeroed for AtomicU16 {}

impl<'a> Queue<'a> {
    /// A queue of this shape, with its memory from `arena`.
    pub fn new(shape: Shape, doorbell: Registers, arena: &'a Arena) -> Result<Self, Failure> {
        let Shape { index, size, chain_max, event_index, indirect } = shape;
        let count = usize::from(size);
        let tables = if indirect { usize::from(chain_max) * count } else { 0 };
        let free = Descriptors::new(arena.slice(count, 2)?, arena.slice(count, 2)?);
        let queue = Self {
            index,
            size,
            doorbell,
            event_index,
            descriptors: arena.slice(count, 16)?,
            indirect: arena.slice(tables, 16)?,
            chain_max,
            available: arena.slice(count + 3, 64)?,
            used: arena.slice(2 * count + 2, 64)?,
            free,
            available_index: 0,
            notified_index: 0,
            used_index: 0,
        };
        queue.silence();
        Ok(queue)
    }

    /// Addresses of the descriptors, the available ring and the used ring.
    pub fn addresses(&self) -> [u64; 3] {
        [self.descriptors.as_ptr() as u64, self.available.as_ptr() as u64, self.used.as_ptr() as u64]
    }

    /// How many chains of `buffers` buffers fit at once.
    pub fn chains_max(&self, buffers: u16) -> u16 {
        if self.indirect.is_empty() { self.size / buffers } else { self.size }
    }

    /// Puts a request of one buffer or more, at most a chain's, into the ring and gives its token, which is below the queue's size.
    /// None if the queue is full. The device sees it after [`Self::notify`].
    pub fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        assert!((1..=usize::from(self.chain_max)).contains(&buffers.len()), "a request fits a chain");
        let head = if self.indirect.is_empty() || buffers.len() == 1 {
            self.add_direct(buffers)?
        } else {
            self.add_indirect(buffers)?
        };
        let slot = usize::from(self.available_index & (self.size - 1));
        self.available[2 + slot].store(head, Ordering::Relaxed);
        self.available_index = self.available_index.wrapping_add(1);
        Some(head)
    }

    fn add_direct(&mut self, buffers: &[Buffer]) -> Option<u16> {
        let head = self.free.take(buffers.len() as u16)?;
        let mut descriptor = head;
        for (place, buffer) in buffers.iter().enumerate() {
            let next = self.free.after(descriptor);
            self.descriptors[usize::from(descriptor)].set(buffer, more(place, buffers), next);
            descriptor = next;
        }
        Some(head)
    }

    fn add_indirect(&mut self, buffers: &[Buffer]) -> Option<u16> {
        let head = self.free.take(1)?;
        let length = usize::from(self.chain_max);
        let table = &self.indirect[length * usize::from(head)..][..length];
        for (place, buffer) in buffers.iter().enumerate() {
            table[place].set(buffer, more(place, buffers), place as u16 + 1);
        }
        let bytes = (buffers.len() * size_of::<Descriptor>()) as u32;
        let whole = Buffer { address: table.as_ptr() as u64, bytes, device_writes: false };
        self.descriptors[usize::from(head)].set(&whole, INDIRECT, 0);
        Some(head)
    }

    /// Shows the device what was added, and rings the doorbell if it wants that.
    pub fn notify(&mut self) {
        if self.available_index == self.notified_index {
            return;
        }
        self.available[1].store(self.available_index, Ordering::Release);
        // The device's wish must be read after it can see the new index, or both might wait for the other.
        fence(Ordering::SeqCst);
        let wanted = if self.event_index {
            let event = self.used[1 + 2 * usize::from(self.size)].load(Ordering::Relaxed) as u16;
            passes(event, self.available_index, self.notified_index)
        } else {
            self.used[0].load(Ordering::Relaxed) & NO_NOTIFY == 0
        };
        self.notified_index = self.available_index;
        if wanted {
            self.doorbell.write_u16(0, self.index);
        }
    }

    /// Requests that the device is done with and that were not taken yet.
    fn unseen(&self) -> u16 {
        ((self.used[0].load(Ordering::Acquire) >> 16) as u16).wrapping_sub(self.used_index)
    }

    /// The next request that the device is done with: its token, and how many bytes the device says it wrote. A token
    /// that was never given out is passed over.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        while self.unseen() != 0 {
            let slot = 1 + 2 * usize::from(self.used_index & (self.size - 1));
            let token = self.used[slot].load(Ordering::Relaxed);
            let bytes = self.used[slot + 1].load(Ordering::Relaxed);
            self.used_index = self.used_index.wrapping_add(1);
            if self.free.give_back(token) {
                return Some((token as u16, bytes));
            }
        }
        None
    }

    /// Asks for an interrupt at the next used request. True if there is one already: do not sleep then.
    pub fn arm(&self) -> bool {
        self.arm_for(1)
    }

    /// Asks for an interrupt when `count` more requests are used, or at the next one where the device cannot count. True
    /// if they are already.
    pub fn arm_for(&self, count: u16) -> bool {
        let count = if self.event_index { count.max(1) } else { 1 };
        if self.event_index {
            let event = self.used_index.wrapping_add(count - 1);
            self.available[2 + usize::from(self.size)].store(event, Ordering::Relaxed);
        } else {
            self.available[0].store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        self.unseen() >= count
    }

    /// Asks for no interrupts until the next [`Self::arm`]. With event indexes that is the state after each interrupt.
    pub fn silence(&self) {
        if self.event_index {
            let past = self.used_index.wrapping_sub(1);
            self.available[2 + usize::from(self.size)].store(past, Ordering::Relaxed);
        } else {
            self.available[0].store(NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    /// Sleeps until the device is done with a request, or any other interrupt came.
    pub fn sleep(&self) {
        if !self.arm() {
            crate::background::halt();
        }
        self.silence();
    }
}

impl Descriptor {
    fn set(&self, buffer: &Buffer, flags: u16, next: u16) {
        let flags = if buffer.device_writes { flags | DEVICE_WRITES } else { flags };
        self.address.store(buffer.address, Ordering::Relaxed);
        self.bytes.store(buffer.bytes, Ordering::Relaxed);
        self.flags.store(flags, Ordering::Relaxed);
        self.next.store(next, Ordering::Relaxed);
    }
}

/// The flag of buffer `place`: whether the chain goes on after it.
fn more(place: usize, buffers: &[Buffer]) -> u16 {
    if place + 1 < buffers.len() { NEXT } else { 0 }
}
