//! A virtqueue that a worker serves (VIRTIO 1.3 §2.7).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use napa_memory::GuestRam;
use napa_sys::reactor::Io;
use virtio_queue::{DescriptorChain, Queue as Ring, QueueOwnedT, QueueT};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError};
use vmm_sys_util::eventfd::EventFd;

use crate::{Health, Interrupt};

/// A request of the guest: descriptors, head first.
pub type Chain = DescriptorChain<Arc<GuestRam>>;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (VIRTIO 1.3 §2.7.6).
const NO_INTERRUPT: u16 = 1;
/// Bytes in front of the entries of either ring: flags and index.
const RING_HEADER_BYTES: u64 = 4;
/// Bytes of an entry of the available ring.
const AVAILABLE_ENTRY_BYTES: u64 = 2;
/// Bytes of an entry of the used ring.
const USED_ENTRY_BYTES: u64 = 8;

/// One virtqueue with its doorbell and its interrupt. Errors in the ring mark the device as failed.
pub struct Queue {
    ring: Ring,
    memory: Arc<GuestRam>,
    doorbell: EventFd,
    interrupt: Interrupt,
    health: Health,
    /// Requests pushed since the driver was last notified.
    pushed: u16,
}

impl Queue {
    /// A queue over `ring`, which the transport has checked.
    pub fn new(
        ring: Ring,
        memory: Arc<GuestRam>,
        doorbell: EventFd,
        interrupt: Interrupt,
        health: Health,
    ) -> Self {
        Self { ring, memory, doorbell, interrupt, health, pushed: 0 }
    }

    /// Entries in the ring.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// The guest's RAM.
    pub fn memory(&self) -> &Arc<GuestRam> {
        &self.memory
    }

    /// Lets the reactor call `ready(token)` at the next doorbell.
    pub fn wait(&self, token: u32, io: &mut Io<'_>) {
        if !self.health.has_failed() {
            io.wait_event(token, &self.doorbell);
        }
    }

    /// The next request, or `None` when there is none or the device has failed.
    pub fn pop(&mut self) -> Option<Chain> {
        if self.health.has_failed() {
            return None;
        }
        match self.ring.iter(Arc::clone(&self.memory)) {
            Ok(mut requests) => requests.next(),
            Err(error) => {
                self.health.fail(format_args!("the available ring is broken: {error}"));
                None
            }
        }
    }

    /// Puts the request that was popped last back, to be popped again.
    pub fn put_back(&mut self) {
        self.ring.go_to_previous_position();
    }

    /// Gives a request back to the driver, with the number of bytes written to it.
    pub fn push(&mut self, head: u16, written: u32) {
        match self.ring.add_used(self.memory.as_ref(), head, written) {
            Ok(()) => self.pushed = self.pushed.saturating_add(1),
            Err(error) => {
                self.health.fail(format_args!("the used ring cannot take request {head}: {error}"));
            }
        }
    }

    /// Gives several requests back, as `(head, written)`: the driver sees either none or all of them, which
    /// is what a frame spread over several buffers needs (VIRTIO 1.3 §5.1.6.4).
    pub fn push_together(&mut self, requests: &[(u16, u32)]) {
        let Some(((head, written), before)) = requests.split_last() else { return };
        let next = self.ring.next_used();
        for (index, (head, written)) in before.iter().enumerate() {
            let entry = next.wrapping_add(index as u16) % self.ring.size();
            let address = self.ring.used_ring() + RING_HEADER_BYTES + u64::from(entry) * USED_ENTRY_BYTES;
            let used = [u32::from(*head).to_le(), written.to_le()];
            if let Err(error) = self.memory.write_obj(used, GuestAddress(address)) {
                self.health.fail(format_args!("the used ring cannot be written: {error}"));
                return;
            }
        }
        // Only the last one moves the index that the driver looks at.
        self.ring.set_next_used(next.wrapping_add(before.len() as u16));
        self.pushed = self.pushed.saturating_add(before.len() as u16);
        self.push(*head, *written);
    }

    /// Interrupts the driver if something was pushed since the last call and it asked to be told.
    pub fn notify(&mut self) {
        let pushed = std::mem::take(&mut self.pushed);
        if pushed == 0 {
            return;
        }
        match self.wants_interrupt(pushed) {
            Ok(true) => self.interrupt.signal(),
            Ok(false) => {}
            Err(error) => self.health.fail(format_args!("the available ring is broken: {error}")),
        }
    }

    /// Whether the driver asked to be told about one of the last `pushed` requests (VIRTIO 1.3 §2.7.7.2).
    fn wants_interrupt(&self, pushed: u16) -> Result<bool, GuestMemoryError> {
        // The used ring must be seen before the driver's wish is read: it writes its wish, then looks.
        fence(Ordering::SeqCst);
        let available = self.ring.avail_ring();
        if !self.ring.event_idx_enabled() {
            let flags: u16 = self.memory.load(GuestAddress(available), Ordering::Relaxed)?;
            return Ok(u16::from_le(flags) & NO_INTERRUPT == 0);
        }
        let entries = u64::from(self.ring.size()) * AVAILABLE_ENTRY_BYTES;
        let used_event = GuestAddress(available + RING_HEADER_BYTES + entries);
        let used_event: u16 = self.memory.load(used_event, Ordering::Relaxed)?;
        let behind = self.ring.next_used().wrapping_sub(u16::from_le(used_event)).wrapping_sub(1);
        Ok(behind < pushed)
    }

    /// Asks the driver for no doorbells while the worker looks at the ring anyway.
    pub fn disable_doorbell(&mut self) {
        if let Err(error) = self.ring.disable_notification(self.memory.as_ref()) {
            self.health.fail(format_args!("the used ring cannot be written: {error}"));
        }
    }

    /// Asks for doorbells again. `true`: requests came in meanwhile, so look once more.
    pub fn enable_doorbell(&mut self) -> bool {
        match self.ring.enable_notification(self.memory.as_ref()) {
            Ok(more) => more && !self.health.has_failed(),
            Err(error) => {
                self.health.fail(format_args!("the used ring cannot be written: {error}"));
                false
            }
        }
    }

    /// Marks the device as needing a reset: a request made no sense.
    pub fn fail(&self, reason: impl std::fmt::Display) {
        self.health.fail(reason);
    }

    /// Whether the device waits for a reset.
    pub fn has_failed(&self) -> bool {
        self.health.has_failed()
    }
}

#[cfg(test)]
mod tests;
