//! A virtqueue that a worker serves (VIRTIO 1.3 §2.7).

use std::sync::Arc;

use napa_memory::GuestRam;
use napa_sys::reactor::Io;
use virtio_queue::{DescriptorChain, Queue as Ring, QueueOwnedT, QueueT};
use vmm_sys_util::eventfd::EventFd;

use crate::{Health, Interrupt};

/// A request of the guest: descriptors, head first.
pub type Chain = DescriptorChain<Arc<GuestRam>>;

/// One virtqueue with its doorbell and its interrupt. Errors in the ring mark the device as failed.
pub struct Queue {
    ring: Ring,
    memory: Arc<GuestRam>,
    doorbell: EventFd,
    interrupt: Interrupt,
    health: Health,
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
        Self { ring, memory, doorbell, interrupt, health }
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
        if let Err(error) = self.ring.add_used(self.memory.as_ref(), head, written) {
            self.health.fail(format_args!("the used ring cannot take request {head}: {error}"));
        }
    }

    /// Interrupts the driver if it asked to be told about what was pushed since the last call.
    pub fn notify(&mut self) {
        match self.ring.needs_notification(self.memory.as_ref()) {
            Ok(true) => self.interrupt.signal(),
            Ok(false) => {}
            Err(error) => self.health.fail(format_args!("the available ring is broken: {error}")),
        }
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
