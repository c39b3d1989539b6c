//! What KVM does for a PCI function, strict about what it is asked.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use napa_units::GuestAddress;
use napa_virtio::{MsiMessage, Platform};
use vmm_sys_util::eventfd::EventFd;

/// Doorbells and routes by the rules of KVM: an address has one doorbell, and only what is connected can be
/// disconnected.
pub struct FakeKvm {
    interrupts: Range<u32>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    doorbells: BTreeMap<u64, RawFd>,
    routes: BTreeMap<u32, MsiMessage>,
    /// Which of the next requests is refused, counted down to one.
    refused: u32,
}

impl FakeKvm {
    /// A machine in which the functions have these interrupts.
    pub fn new(interrupts: Range<u32>) -> Self {
        Self { interrupts, state: Mutex::default() }
    }

    /// Lets the request that is `count` requests away fail, as if KVM were out of resources.
    pub fn refuse(&self, count: u32) {
        self.lock().refused = count;
    }

    /// Addresses of doorbells that are connected.
    pub fn doorbells(&self) -> Vec<u64> {
        self.lock().doorbells.keys().copied().collect()
    }

    /// Interrupts that have a route.
    pub fn routes(&self) -> Vec<u32> {
        self.lock().routes.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_refused(&mut self) -> bool {
        self.refused = self.refused.saturating_sub(1);
        self.refused == 1
    }
}

impl Platform for FakeKvm {
    fn route(&self, interrupt: u32, _: &EventFd, message: Option<MsiMessage>) -> io::Result<()> {
        assert!(self.interrupts.contains(&interrupt), "interrupt {interrupt} belongs to no function");
        let mut state = self.lock();
        match message {
            Some(_) if state.is_refused() => return Err(io::Error::other("no route is left")),
            Some(message) => drop(state.routes.insert(interrupt, message)),
            None => assert!(state.routes.remove(&interrupt).is_some(), "interrupt {interrupt} has no route"),
        }
        Ok(())
    }

    fn connect_doorbell(&self, address: GuestAddress, event: &EventFd) -> io::Result<()> {
        let mut state = self.lock();
        if state.is_refused() || state.doorbells.contains_key(&address.0) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.doorbells.insert(address.0, event.as_raw_fd());
        Ok(())
    }

    fn disconnect_doorbell(&self, address: GuestAddress, event: &EventFd) {
        let removed = self.lock().doorbells.remove(&address.0);
        assert_eq!(removed, Some(event.as_raw_fd()), "{address} has another doorbell");
    }
}
