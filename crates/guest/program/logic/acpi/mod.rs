//! What the guest reads from ACPI: processors, interrupt routing, configuration space, and how to end or restart
//! (ACPI 6.5 §5.2). No AML is run; two constants are found by their bytes.

mod base_address;
mod fixed;
mod madt;
mod sleep_type;
mod tables;

pub use fixed::{Register, ResetRegister, SleepRegister};
pub use madt::{InterruptOverride, IoApic, PROCESSORS_MAX};

use crate::start_info::PhysicalMemory;
use heapless::Vec;

/// The extended configuration space of one PCI segment (PCI Firmware 3.3 §4.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigurationSpace {
    /// Address of bus `first_bus`.
    pub address: u64,
    /// The first bus it covers.
    pub first_bus: u8,
}

/// What the tables say. Everything may be absent: a table that is missing or damaged says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// APIC identifiers of the processors that can be started, the boot processor among them.
    pub processors: Vec<u32, PROCESSORS_MAX>,
    /// The I/O APIC of interrupt 0.
    pub io_apic: Option<IoApic>,
    /// How interrupt 9 is wired, if not as usual.
    pub interrupt_9: Option<InterruptOverride>,
    /// Memory-mapped configuration space of segment 0.
    pub configuration_space: Option<ConfigurationSpace>,
    /// How to restart the machine.
    pub reset: Option<ResetRegister>,
    /// How to switch it off.
    pub sleep: Option<SleepRegister>,
    /// The I/O ports of the power management control block, if there is one.
    pub pm1_control_port: Option<u16>,
}

/// Reads the tables below the root pointer at `rsdp`, or below the one found in the BIOS area if `rsdp` is 0.
#[must_use]
pub fn read(memory: &impl PhysicalMemory, rsdp: u64) -> Platform {
    let mut platform = Platform::default();
    let Some(root) = tables::root(memory, rsdp) else { return platform };
    if let Some(madt) = root.find(memory, *b"APIC") {
        madt::read(madt, &mut platform);
    }
    if let Some(mcfg) = root.find(memory, *b"MCFG") {
        platform.configuration_space = configuration_space(mcfg);
    }
    if let Some(fadt) = root.find(memory, *b"FACP") {
        fixed::read(memory, fadt, &mut platform);
    }
    platform
}

fn configuration_space(mcfg: &[u8]) -> Option<ConfigurationSpace> {
    const HEADER: usize = 44;
    let entry = mcfg.get(HEADER..)?.chunks_exact(16).find(|entry| entry[8..10] == [0, 0])?;
    let address = crate::start_info::u64_at(entry, 0);
    (address != 0).then_some(ConfigurationSpace { address, first_bus: entry[10] })
}

#[cfg(test)]
mod tests;
