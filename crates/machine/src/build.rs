//! Building what was planned.
#![allow(unsafe_code)] // KVM is told addresses of this process.

use std::io;
use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY, Msrs, kvm_msr_entry, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use napa_memory::{
    Blocks, BlocksError, GuestRam, ImageMapError, PageStates, RamError, allocate, host_address, is_writable,
    map_image,
};
use napa_sys::lost_memory::{Content, Place};
use napa_virtio::DeviceMemory;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

use crate::boot::{self, BootError};
use crate::buses::Buses;
use crate::plan::Plan;
use crate::plugging::Plugging;
use crate::routes::{Routes, into_io};
use crate::vcpu::{Keeps, Vcpu};
use crate::{acpi, cpuid, layout};

const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// Memory is cached unless something says otherwise: ranges enabled, default write-back.
const MTRR_ENABLED_WRITE_BACK: u64 = 0x806;
/// The only version of the KVM interface there has been since Linux 2.6.22 (KVM API §4.1).
const KVM_API_VERSION: i32 = 12;

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no KVM, or no right to use it.
    #[error("/dev/kvm cannot be opened: {source}; {mend}")]
    Open {
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        mend: &'static str,
    },
    /// The KVM there is does not speak the interface of the last twenty years.
    #[error("/dev/kvm speaks API version {0}, napa needs {KVM_API_VERSION}")]
    Version(i32),
    /// Guest memory could not be had.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The memory of a device could not be had.
    #[error("{device}: {source}")]
    Image {
        /// Name of the device.
        device: String,
        /// What was attempted.
        #[source]
        source: ImageMapError,
    },
    /// Memory that can be plugged could not be had.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// KVM has too few memory slots.
    #[error(
        "the VM needs {needed} memory slots, and KVM has {available} of them here: give it less --hotplug-memory"
    )]
    Slots {
        /// Slots that the VM needs.
        needed: u32,
        /// Slots that there are.
        available: usize,
    },
    /// KVM refused something.
    #[error("KVM refused {0}: {1}")]
    Kvm(&'static str, #[source] io::Error),
    /// Tables could not be written to guest memory.
    #[error("cannot write the ACPI tables to guest memory: {0}")]
    Acpi(#[from] vm_memory::GuestMemoryError),
    /// The kernel could not be loaded.
    #[error(transparent)]
    Boot(#[from] BootError),
}

/// KVM on this host, open. It stays open, so that a reboot needs no device file.
pub struct Hypervisor {
    kvm: Kvm,
    /// What KVM can tell a guest of its CPUs. Asked for once: it takes longer than anything else that is asked of KVM.
    supported: CpuId,
}

impl Hypervisor {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// There is no KVM, or no right to use it, or it does not give its CPUID table.
    pub fn open() -> Result<Self, BuildError> {
        let kvm = open_kvm()?;
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(refused("its CPUID table"))?;
        Ok(Self { kvm, supported })
    }

    /// Bits of a guest-physical address.
    pub fn address_bits(&self) -> u32 {
        cpuid::address_bits(&self.supported)
    }
}

/// A virtual machine that does not run yet.
pub struct Machine<'a> {
    supported: &'a CpuId,
    vm: Arc<VmFd>,
    plan: Plan,
    memory: Arc<GuestRam>,
    pages: Arc<PageStates>,
    plugging: Option<Arc<Plugging>>,
    routes: Arc<Routes>,
    vcpus: Vec<VcpuFd>,
}

impl<'a> Machine<'a> {
    /// Builds what `plan` says: RAM, memory slots, interrupt controller, vCPUs, ACPI tables. `device_memory` is what
    /// the planned windows hold, by device.
    ///
    /// # Errors
    /// KVM refused something, or the host lacks memory.
    pub fn build(
        hypervisor: &'a Hypervisor,
        plan: Plan,
        device_memory: &[Option<DeviceMemory>],
    ) -> Result<Self, BuildError> {
        let vm = Arc::new(hypervisor.kvm.create_vm().map_err(refused("a virtual machine"))?);
        let ram = Arc::new(allocate(&plan.ram)?);
        // The interrupt controller comes after the memory: the other order waits for every CPU of the host.
        (0..).zip(ram.iter()).try_for_each(|(slot, region)| set_memory_slot(&vm, slot, region))?;
        let added = add_device_memory(&hypervisor.kvm, &vm, &ram, &plan, device_memory)?;
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(refused("the identity map"))?;
        vm.set_tss_address(layout::KVM_TSS).map_err(refused("the task state segment"))?;
        vm.create_irq_chip().map_err(refused("an interrupt controller"))?;
        let routes =
            Routes::new(Arc::clone(&vm)).map_err(|error| BuildError::Kvm("interrupt routes", error))?;
        let vcpus = (0..plan.cpus).map(|id| vm.create_vcpu(id.into())).collect::<Result<Vec<_>, _>>();
        let vcpus = vcpus.map_err(refused("a vCPU"))?;
        let pages = Arc::new(match &added.blocks {
            Some((blocks, _)) => PageStates::with_blocks(ram, Arc::clone(blocks))?,
            None => PageStates::new(ram),
        });
        let plugging = added.blocks.map(|(blocks, first_slot)| {
            Arc::new(Plugging::new(Arc::clone(&vm), Arc::clone(&pages), blocks, first_slot))
        });
        let supported = &hypervisor.supported;
        let (memory, routes) = (Arc::new(added.all), Arc::new(routes));
        Ok(Self { supported, vm, plan, memory, pages, plugging, routes, vcpus })
    }

    /// What was built.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The guest's RAM.
    pub fn ram(&self) -> &Arc<GuestRam> {
        self.pages.ram()
    }

    /// All memory that devices may address: RAM, and what devices bring along.
    pub fn memory(&self) -> &Arc<GuestRam> {
        &self.memory
    }

    /// Where that memory is in this process, and what is behind it.
    pub fn places(&self) -> Vec<Place> {
        let place = |region: &GuestRegionMmap<()>| {
            let start = host_address(region);
            let content = if is_writable(region) { Content::Ram } else { Content::Image };
            Place { addresses: start..start + region.len(), guest_start: region.start_addr().0, content }
        };
        self.memory.iter().map(place).collect()
    }

    /// What has become of the pages of the guest's RAM.
    pub fn pages(&self) -> &Arc<PageStates> {
        &self.pages
    }

    /// The blocks of memory that can be plugged, if there are any.
    pub fn plugging(&self) -> Option<&Arc<Plugging>> {
        self.plugging.as_ref()
    }

    /// Interrupt routes and doorbells.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Loads a kernel and gives the vCPUs their first state; `buses` answer what leaves the guest.
    ///
    /// # Errors
    /// The kernel cannot be booted, or KVM refused a vCPU's state.
    pub fn load(self, source: &boot::Source<'_>, buses: &Arc<Buses>) -> Result<Vec<Vcpu>, BuildError> {
        let root_pointer = acpi::write(self.ram(), self.plan.cpus)?;
        let entry = boot::load(self.ram(), &self.plan, source, root_pointer)?;
        for (id, vcpu) in (0..).zip(&self.vcpus) {
            self.set_first_state(vcpu, id)?;
        }
        let boot_vcpu = &self.vcpus[0];
        let mut sregs = boot_vcpu.get_sregs().map_err(refused("to show system registers"))?;
        let registers = boot::prepare(self.ram(), entry, &mut sregs)?;
        boot_vcpu.set_sregs(&sregs).map_err(refused("the boot vCPU's system registers"))?;
        boot_vcpu.set_regs(&registers).map_err(refused("the boot vCPU's registers"))?;
        let keeps = Arc::new(Keeps { _vm: self.vm, memory: self.memory });
        let vcpus = (0..).zip(self.vcpus);
        Ok(vcpus.map(|(id, fd)| Vcpu::new(fd, id, Arc::clone(buses), Arc::clone(&keeps))).collect())
    }

    fn set_first_state(&self, vcpu: &VcpuFd, id: u32) -> Result<(), BuildError> {
        // A host whose TSC has no fixed frequency says zero or refuses; the guest then measures it.
        let tsc_khz = vcpu.get_tsc_khz().ok().filter(|khz| *khz != 0);
        let cpuid = cpuid::for_vcpu(self.supported, id, self.plan.cpus, tsc_khz);
        vcpu.set_cpuid2(&cpuid).map_err(refused("CPUID values"))?;
        let mtrr = kvm_msr_entry {
            index: MSR_MTRR_DEFAULT_TYPE,
            data: MTRR_ENABLED_WRITE_BACK,
            ..Default::default()
        };
        let msrs = Msrs::from_entries(&[mtrr]).expect("one entry is fewer than the limit");
        // A KVM without memory type ranges counts zero MSRs written; its guests do without them.
        vcpu.set_msrs(&msrs).map_err(refused("model-specific registers"))?;
        Ok(())
    }
}

fn open_kvm() -> Result<Kvm, BuildError> {
    let kvm = Kvm::new().map_err(|error| {
        let mend = match error.errno() {
            libc::ENOENT => {
                "load the module kvm_intel or kvm_amd, and switch virtualisation on in the firmware"
            }
            libc::EACCES | libc::EPERM => {
                "add yourself to the group kvm: sudo usermod -aG kvm $USER, then log in again"
            }
            _ => "napa doctor tells more",
        };
        BuildError::Open { source: into_io(error), mend }
    })?;
    match kvm.get_api_version() {
        KVM_API_VERSION => Ok(kvm),
        other => Err(BuildError::Version(other)),
    }
}

/// What devices bring along.
struct Added {
    /// RAM, and what they bring along: all that devices may address.
    all: GuestRam,
    /// What can be plugged, and the first of its memory slots.
    blocks: Option<(Arc<Blocks>, u32)>,
}

/// Maps what the devices bring along, and gives KVM what the guest has of it from the start.
fn add_device_memory(
    kvm: &Kvm,
    vm: &VmFd,
    ram: &GuestRam,
    plan: &Plan,
    device_memory: &[Option<DeviceMemory>],
) -> Result<Added, BuildError> {
    let mut added = Added { all: ram.clone(), blocks: None };
    for (place, memory) in plan.pci.iter().zip(device_memory) {
        let (Some(window), Some(memory)) = (place.memory, memory) else { continue };
        let mapped = match memory {
            DeviceMemory::Image { file, .. } => {
                let mapped = map_image(file, window.region)
                    .map_err(|source| BuildError::Image { device: place.name.clone(), source })?;
                set_memory_slot(vm, window.memory_slot, &mapped)?;
                Arc::new(mapped)
            }
            DeviceMemory::Blocks { block, scratch, backing, .. } => {
                let needed = window.memory_slot + memory.slots();
                let available = kvm.get_nr_memslots();
                if needed as usize > available {
                    return Err(BuildError::Slots { needed, available });
                }
                let blocks = Blocks::new(window.region, *block, Arc::clone(scratch), *backing)?;
                let mapped = Arc::clone(blocks.region());
                added.blocks = Some((Arc::new(blocks), window.memory_slot));
                mapped
            }
        };
        let all = added.all.insert_region(mapped);
        added.all = all.map_err(|error| RamError::Layout(error.to_string()))?;
    }
    Ok(added)
}

/// Gives KVM a region. What devices may not write the guest may not write either: KVM hands such accesses to us, and
/// nobody answers at these addresses.
fn set_memory_slot(vm: &VmFd, slot: u32, region: &GuestRegionMmap<()>) -> Result<(), BuildError> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: if is_writable(region) { 0 } else { KVM_MEM_READONLY },
        guest_phys_addr: region.start_addr().0,
        memory_size: region.len(),
        userspace_addr: host_address(region),
    };
    // SAFETY: the region is mapped for as long as the machine's memory lives, and each vCPU, without which nothing
    // reaches the slot, holds that.
    unsafe { vm.set_user_memory_region(region) }.map_err(refused("a memory slot"))
}

fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> BuildError {
    move |error| BuildError::Kvm(what, into_io(error))
}
