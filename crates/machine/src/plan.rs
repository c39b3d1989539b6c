//! The plan of a machine: pure arithmetic, no KVM.

use napa_memory::RamRegion;
use napa_units::{Bytes, GuestAddress, PAGE_SIZE};
use napa_virtio::pci::BAR_SIZE;

use crate::layout;

/// PCI slots for devices: slot 0 is the host bridge.
const SLOTS_MAX: usize = 31;
/// Interrupt routes that KVM keeps for one VM.
const ROUTES_MAX: u32 = 4096;
/// vCPUs of one VM: the interrupt controller's 8-bit ids and napa's tests end here.
const CPUS_MAX: u32 = 64;
/// Below this no kernel has room for its first steps.
const MEMORY_MIN: Bytes = Bytes::mib(2);

/// What a virtio device needs of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNeed {
    /// Name of the device.
    pub name: String,
    /// MSI-X vectors.
    pub vectors: u16,
}

/// What the machine has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Size of guest memory.
    pub memory: Bytes,
    /// Number of vCPUs.
    pub cpus: u32,
    /// Virtio devices in the order of their slots.
    pub devices: Vec<DeviceNeed>,
}

/// Where one PCI device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciSlot {
    /// Name of the device.
    pub name: String,
    /// Device number on bus 0, 1 to 31.
    pub slot: u8,
    /// Address of BAR 0.
    pub bar: u32,
    /// Number of its first message-signalled interrupt.
    pub first_interrupt: u32,
}

/// Every address, slot and interrupt of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// RAM; each region is one KVM memory slot with the region's index.
    pub ram: Vec<RamRegion>,
    /// Number of vCPUs; their APIC ids are 0 to `cpus - 1`.
    pub cpus: u32,
    /// Devices on PCI bus 0.
    pub pci: Vec<PciSlot>,
}

/// Why there is no such machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Memory is too small or not whole pages.
    #[error("--memory {0} cannot be used: give at least {MEMORY_MIN}, in whole pages of 4K")]
    Memory(Bytes),
    /// Memory is larger than guest-physical addresses reach.
    #[error("--memory {0} is more than a guest can address: give at most 4096G")]
    MemoryRange(Bytes),
    /// No vCPUs, or too many.
    #[error("--cpus {0} cannot be used: a VM has 1 to {CPUS_MAX} vCPUs")]
    Cpus(u32),
    /// More devices than slots.
    #[error("{0} devices are too many: the PCI bus has {SLOTS_MAX} slots")]
    Slots(usize),
    /// More interrupt vectors than KVM routes.
    #[error("the devices need {0} interrupts and KVM routes {ROUTES_MAX}: give them fewer queues")]
    Interrupts(u32),
}

/// Plans a machine.
///
/// # Errors
/// The needs cannot be met on any host.
pub fn plan(needs: &Needs) -> Result<Plan, PlanError> {
    if needs.cpus == 0 || needs.cpus > CPUS_MAX {
        return Err(PlanError::Cpus(needs.cpus));
    }
    Ok(Plan { ram: plan_ram(needs.memory)?, cpus: needs.cpus, pci: plan_pci(&needs.devices)? })
}

fn plan_ram(memory: Bytes) -> Result<Vec<RamRegion>, PlanError> {
    if memory < MEMORY_MIN || !memory.0.is_multiple_of(PAGE_SIZE) {
        return Err(PlanError::Memory(memory));
    }
    if memory > Bytes::gib(4096) {
        return Err(PlanError::MemoryRange(memory));
    }
    let below = memory.0.min(layout::PCI_WINDOW_START);
    let regions = [(0, below), (layout::RAM_ABOVE_4G, memory.0 - below)];
    let used = regions.into_iter().filter(|(_, size)| *size != 0);
    Ok(used.map(|(start, size)| RamRegion { start: GuestAddress(start), size: Bytes(size) }).collect())
}

fn plan_pci(devices: &[DeviceNeed]) -> Result<Vec<PciSlot>, PlanError> {
    if devices.len() > SLOTS_MAX {
        return Err(PlanError::Slots(devices.len()));
    }
    let interrupts =
        layout::IO_APIC_PINS + devices.iter().map(|device| u32::from(device.vectors)).sum::<u32>();
    // The I/O APIC's pins have routes too.
    if interrupts > ROUTES_MAX {
        return Err(PlanError::Interrupts(interrupts));
    }
    let mut next_interrupt = layout::IO_APIC_PINS;
    let place = |(index, device): (usize, &DeviceNeed)| {
        let first_interrupt = next_interrupt;
        next_interrupt += u32::from(device.vectors);
        let bar = (layout::PCI_WINDOW_START + index as u64 * BAR_SIZE) as u32;
        PciSlot { name: device.name.clone(), slot: index as u8 + 1, bar, first_interrupt }
    };
    Ok(devices.iter().enumerate().map(place).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn needs(memory: Bytes, cpus: u32, vectors: &[u16]) -> Needs {
        let devices = vectors.iter().enumerate();
        let devices =
            devices.map(|(index, vectors)| DeviceNeed { name: format!("d{index}"), vectors: *vectors });
        Needs { memory, cpus, devices: devices.collect() }
    }

    #[test]
    fn ram_leaves_the_hole_below_four_gib() {
        let ram = |size| plan(&needs(size, 1, &[])).unwrap().ram;
        let region = |start, size| RamRegion { start: GuestAddress(start), size };
        assert_eq!(ram(Bytes::mib(128)), [region(0, Bytes::mib(128))]);
        assert_eq!(ram(Bytes::gib(3)), [region(0, Bytes::gib(3))]);
        assert_eq!(ram(Bytes::gib(5)), [region(0, Bytes::gib(3)), region(1 << 32, Bytes::gib(2))]);
    }

    #[test]
    fn machines_that_cannot_be_are_refused() {
        let check = |needs: Needs, expected| assert_eq!(plan(&needs), Err(expected));
        check(needs(Bytes(0), 1, &[]), PlanError::Memory(Bytes(0)));
        check(needs(Bytes((4 << 20) + 1), 1, &[]), PlanError::Memory(Bytes((4 << 20) + 1)));
        check(needs(Bytes::gib(5000), 1, &[]), PlanError::MemoryRange(Bytes::gib(5000)));
        check(needs(Bytes::mib(64), 0, &[]), PlanError::Cpus(0));
        check(needs(Bytes::mib(64), 65, &[]), PlanError::Cpus(65));
        check(needs(Bytes::mib(64), 1, &[2; 32]), PlanError::Slots(32));
        check(needs(Bytes::mib(64), 1, &[2000, 2000, 200]), PlanError::Interrupts(4224));
    }

    proptest! {
        #[test]
        fn nothing_overlaps(mib in 2..100_000_u64, vectors in proptest::collection::vec(1..65_u16, 0..31)) {
            let plan = plan(&needs(Bytes::mib(mib), 2, &vectors)).unwrap();
            prop_assert_eq!(plan.ram.iter().map(|region| region.size.0).sum::<u64>(), mib << 20);
            for region in &plan.ram {
                let end = region.start.0 + region.size.0;
                prop_assert!(end <= layout::PCI_WINDOW_START || region.start.0 >= layout::RAM_ABOVE_4G);
            }
            let mut next_interrupt = layout::IO_APIC_PINS;
            for (slot, vectors) in plan.pci.iter().zip(&vectors) {
                prop_assert_eq!(slot.first_interrupt, next_interrupt);
                next_interrupt += u32::from(*vectors);
                prop_assert!(u64::from(slot.bar).is_multiple_of(BAR_SIZE));
                prop_assert!(u64::from(slot.bar) + BAR_SIZE <= layout::PCI_WINDOW_END);
            }
        }
    }
}
