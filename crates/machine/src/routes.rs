//! Interrupt routes and doorbells: the part of KVM that virtio functions use.
#![allow(unsafe_code)] // Routing entries are a C union.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting, kvm_irq_routing_entry,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use napa_units::GuestAddress;
use napa_virtio::{MsiMessage, Platform};
use vmm_sys_util::eventfd::EventFd;

use crate::layout::IO_APIC_PINS;

/// The routes of one VM. KVM takes all of them at once, so they are kept here.
pub struct Routes {
    vm: Arc<VmFd>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: BTreeMap<u32, MsiMessage>,
    /// Interrupts whose eventfd KVM listens to.
    attached: Vec<u32>,
}

impl Routes {
    /// Routes the pins of the I/O APIC; there is no other interrupt yet.
    ///
    /// # Errors
    /// KVM refused the routes.
    pub fn new(vm: Arc<VmFd>) -> io::Result<Self> {
        let routes = Self { vm, state: Mutex::default() };
        routes.commit(&routes.lock())?;
        Ok(routes)
    }

    /// Raises pin `line` of the I/O APIC, as an edge, whenever `event` is written to.
    ///
    /// # Errors
    /// KVM refused the eventfd.
    pub fn connect_line(&self, line: u32, event: &EventFd) -> io::Result<()> {
        assert!(line < IO_APIC_PINS, "the I/O APIC has {IO_APIC_PINS} pins");
        self.vm.register_irqfd(event, line).map_err(into_io)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, state: &State) -> io::Result<()> {
        // No pins of the old interrupt controller: an unprogrammed one would interrupt with vectors
        // that belong to exceptions.
        let pins = (0..IO_APIC_PINS).map(pin_entry);
        let messages = state.messages.iter().map(|(interrupt, message)| message_entry(*interrupt, *message));
        let entries: Vec<_> = pins.chain(messages).collect();
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|error| io::Error::other(format!("{} interrupt routes: {error:?}", entries.len())))?;
        self.vm.set_gsi_routing(&table).map_err(into_io)
    }
}

impl Platform for Routes {
    fn route(&self, interrupt: u32, event: &EventFd, message: Option<MsiMessage>) -> io::Result<()> {
        let mut state = self.lock();
        let is_attached = state.attached.contains(&interrupt);
        let Some(message) = message else {
            if is_attached {
                self.vm.unregister_irqfd(event, interrupt).map_err(into_io)?;
                state.attached.retain(|attached| *attached != interrupt);
            }
            return Ok(());
        };
        let before = state.messages.insert(interrupt, message);
        if before != Some(message)
            && let Err(error) = self.commit(&state)
        {
            // What KVM does not take must not be among what it is told next.
            match before {
                Some(before) => state.messages.insert(interrupt, before),
                None => state.messages.remove(&interrupt),
            };
            return Err(error);
        }
        if !is_attached {
            // KVM delivers at once what was written to the eventfd before.
            self.vm.register_irqfd(event, interrupt).map_err(into_io)?;
            state.attached.push(interrupt);
        }
        Ok(())
    }

    fn connect_doorbell(&self, address: GuestAddress, event: &EventFd) -> io::Result<()> {
        self.vm.register_ioevent(event, &IoEventAddress::Mmio(address.0), NoDatamatch).map_err(into_io)
    }

    fn disconnect_doorbell(&self, address: GuestAddress, event: &EventFd) {
        // It fails only for a doorbell that is not connected.
        let _ = self.vm.unregister_ioevent(event, &IoEventAddress::Mmio(address.0), NoDatamatch);
    }
}

fn pin_entry(pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi: pin, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
    entry.u.irqchip.pin = pin;
    entry
}

fn message_entry(interrupt: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry =
        kvm_irq_routing_entry { gsi: interrupt, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = message.address as u32;
    entry.u.msi.address_hi = (message.address >> 32) as u32;
    entry.u.msi.data = message.data;
    entry
}

pub(crate) fn into_io(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}
