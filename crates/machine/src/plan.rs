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
    /// Size of the memory that it brings along; a multiple of the page size, not zero.
    pub memory: Option<Bytes>,
    /// KVM memory slots for that; 0 without memory.
    pub memory_slots: u32,
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
    /// Bits of a guest-physical address on this host.
    pub address_bits: u32,
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
    /// The memory that the device brings along.
    pub memory: Option<DeviceWindow>,
}

/// Where the memory of a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceWindow {
    /// What the guest sees.
    pub region: RamRegion,
    /// The first of its KVM memory slots.
    pub memory_slot: u32,
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
    /// The memory of a device does not fit behind the guest's RAM.
    #[error("{name} needs {size} of guest addresses behind {ram} of memory, and on this host a guest's addresses end at {end}: give the VM less of either", end = Bytes(address_end(*.bits)))]
    DeviceMemory {
        /// Name of the device.
        name: String,
        /// Size of its memory.
        size: Bytes,
        /// Size of guest memory.
        ram: Bytes,
        /// Bits of a guest-physical address.
        bits: u32,
    },
}

/// Plans a machine.
///
/// # Errors
/// The needs cannot be met on any host.
pub fn plan(needs: &Needs) -> Result<Plan, PlanError> {
    if needs.cpus == 0 || needs.cpus > CPUS_MAX {
        return Err(PlanError::Cpus(needs.cpus));
    }
    let ram = plan_ram(needs.memory)?;
    let mut pci = plan_pci(&needs.devices)?;
    plan_device_memory(needs, &ram, &mut pci)?;
    Ok(Plan { ram, cpus: needs.cpus, pci })
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
        PciSlot { name: device.name.clone(), slot: index as u8 + 1, bar, first_interrupt, memory: None }
    };
    Ok(devices.iter().enumerate().map(place).collect())
}

/// Puts the memory of the devices behind RAM, one after the other.
fn plan_device_memory(needs: &Needs, ram: &[RamRegion], pci: &mut [PciSlot]) -> Result<(), PlanError> {
    let end_of = |region: &RamRegion| region.start.0 + region.size.0;
    let mut end = ram.iter().map(end_of).fold(layout::RAM_ABOVE_4G, u64::max);
    let mut memory_slot = ram.len() as u32;
    for (device, place) in needs.devices.iter().zip(pci) {
        let Some(size) = device.memory else { continue };
        // Past the end, not at it: no range of addresses leads from one kind of memory to another.
        let start = (end + 1).next_multiple_of(layout::DEVICE_MEMORY_ALIGNMENT);
        match start.checked_add(size.0) {
            Some(window_end) if window_end <= address_end(needs.address_bits) => end = window_end,
            _ => {
                let (name, ram, bits) = (device.name.clone(), needs.memory, needs.address_bits);
                return Err(PlanError::DeviceMemory { name, size, ram, bits });
            }
        }
        let region = RamRegion { start: GuestAddress(start), size };
        place.memory = Some(DeviceWindow { region, memory_slot });
        memory_slot += device.memory_slots;
    }
    Ok(())
}

/// The end of addresses of so many bits.
fn address_end(bits: u32) -> u64 {
    1_u64.checked_shl(bits).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn needs(memory: Bytes, cpus: u32, vectors: &[u16]) -> Needs {
        let devices = vectors.iter().enumerate();
        let devices = devices.map(|(index, vectors)| DeviceNeed {
            name: format!("d{index}"),
            vectors: *vectors,
            memory: None,
            memory_slots: 0,
        });
        Needs { memory, cpus, devices: devices.collect(), address_bits: 46 }
    }

    /// A machine whose devices bring along so many bytes of memory; zero: none.
    fn with_device_memory(ram: Bytes, sizes: &[u64]) -> Needs {
        let mut needs = needs(ram, 1, &vec![1; sizes.len()]);
        for (device, size) in needs.devices.iter_mut().zip(sizes) {
            device.memory = (*size != 0).then_some(Bytes(*size));
            device.memory_slots = (*size != 0).into();
        }
        needs
    }

    #[test]
    fn memory_of_devices_lies_behind_ram() {
        let windows = |needs: &Needs| -> Vec<Option<(u64, u64, u32)>> {
            let window = |slot: PciSlot| {
                slot.memory.map(|window| (window.region.start.0, window.region.size.0, window.memory_slot))
            };
            plan(needs).unwrap().pci.into_iter().map(window).collect()
        };
        let (mib, gib) = (1 << 20, 1 << 30);
        assert_eq!(
            windows(&with_device_memory(Bytes::mib(128), &[0, 2 * mib, 2 * gib, 2 * mib])),
            [None, Some((6 * gib, 2 * mib, 1)), Some((8 * gib, 2 * gib, 2)), Some((12 * gib, 2 * mib, 3))]
        );
        assert_eq!(windows(&with_device_memory(Bytes::gib(5), &[mib])), [Some((8 * gib, mib, 2))]);
    }

    #[test]
    fn memory_in_blocks_has_a_slot_for_each() {
        let mut needs = with_device_memory(Bytes::mib(128), &[1 << 30, 1 << 21, 1 << 21]);
        needs.devices[0].memory_slots = 512;
        let slots = plan(&needs).unwrap().pci.into_iter().map(|place| place.memory.unwrap().memory_slot);
        assert_eq!(slots.collect::<Vec<_>>(), [1, 513, 514]);
    }

    #[test]
    fn memory_of_a_device_has_to_be_addressable() {
        let mut needs = with_device_memory(Bytes::mib(128), &[1 << 30]);
        needs.address_bits = 36;
        assert!(plan(&needs).is_ok());
        for (bits, size) in [(32, 1 << 30), (36, 63 << 30), (64, u64::MAX - 4095)] {
            needs.address_bits = bits;
            needs.devices[0].memory = Some(Bytes(size));
            let error = plan(&needs).unwrap_err();
            assert!(matches!(error, PlanError::DeviceMemory { .. }), "{bits} {size}: {error}");
        }
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
