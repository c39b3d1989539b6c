//! Which device answers an access that left the guest.

use std::ops::Range;
use std::sync::Arc;

use napa_virtio::BusDevice;

use crate::layout::{ECAM_SIZE, ECAM_START};
use crate::pci::PciBus;

/// The I/O ports and the memory-mapped registers of a machine. Fixed once the machine runs.
pub struct Buses {
    ports: Vec<(Range<u16>, Arc<dyn BusDevice>)>,
    pci: Arc<PciBus>,
}

impl Buses {
    /// Ports and the PCI bus. Port ranges must not overlap: they are ours, not the guest's.
    pub fn new(mut ports: Vec<(Range<u16>, Arc<dyn BusDevice>)>, pci: Arc<PciBus>) -> Self {
        ports.sort_by_key(|(range, _)| range.start);
        let overlap = ports.windows(2).any(|pair| pair[0].0.end > pair[1].0.start);
        assert!(!overlap, "two devices claim the same port");
        Self { ports, pci }
    }

    /// The guest reads from a port. Where nobody answers, all bits are one.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        match self.port(port) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes to a port.
    pub fn port_write(&self, port: u16, data: &[u8]) {
        if let Some((offset, device)) = self.port(port) {
            device.write(offset, data);
        }
    }

    /// The guest reads memory that is no RAM.
    pub fn memory_read(&self, address: u64, data: &mut [u8]) {
        match ecam(address) {
            Some(offset) => self.pci.read_ecam(offset, data),
            None => self.pci.read_window(address, data),
        }
    }

    /// The guest writes memory that is no RAM.
    pub fn memory_write(&self, address: u64, data: &[u8]) {
        match ecam(address) {
            Some(offset) => self.pci.write_ecam(offset, data),
            None => self.pci.write_window(address, data),
        }
    }

    fn port(&self, port: u16) -> Option<(u64, &dyn BusDevice)> {
        let after = self.ports.partition_point(|(range, _)| range.start <= port);
        let (range, device) = self.ports.get(after.checked_sub(1)?)?;
        range.contains(&port).then(|| (u64::from(port - range.start), device.as_ref()))
    }
}

fn ecam(address: u64) -> Option<u64> {
    address.checked_sub(ECAM_START).filter(|offset| *offset < ECAM_SIZE)
}
