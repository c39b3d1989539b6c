//! What a VM holds of the host: opened once, before the sandbox closes, and kept over the guest's reboots.

use std::sync::{Arc, Mutex};

use napa_api::VmConfig;
use napa_api::config::BalloonConfig;
use napa_devices::balloon::Balloon;
use napa_devices::mem::Hotplug;
use napa_devices::{ConsoleBackend, ConsoleCommand, Context, catalog};
use napa_machine::boot::{BootError, ImageFile};
use napa_machine::{BuildError, DeviceNeed, Hypervisor, Needs, Plan, plan};
use napa_memory::Sensors;
use napa_sys::cgroup::GroupFiles;
use napa_sys::host::{KvmModule, Root};
use napa_sys::reactor::Worker;
use napa_units::Bytes;
use napa_virtio::pci::Transport;
use napa_virtio::{DeviceMemory, SharedDevice};

use crate::error::RunError;
use crate::memory::{Means, Sharing, SharingOwner};

/// Files, devices and consoles of a VM.
pub struct Opened {
    pub config: Arc<VmConfig>,
    pub hypervisor: Hypervisor,
    /// `None`: the embedded guest.
    pub kernel: Option<ImageFile>,
    pub initrd: Option<ImageFile>,
    /// Whether this host's KVM runs kernel code at full privilege; the embedded guest does not ask.
    pub runs_ring_0: bool,
    pub console: Arc<ConsoleBackend>,
    pub balloon: Option<Arc<Balloon>>,
    pub hotplug: Option<Arc<Hotplug>>,
    pub devices: Vec<Plugged>,
    /// What the guest's memory is looked at by.
    pub sensors: Arc<Sensors>,
    /// How memory is taken from the guest.
    pub means: Means,
    /// Made once: a guest finds its devices in the same places after a reboot.
    pub plan: Plan,
    /// Whether the guest's pages may be merged with others.
    pub sharing: SharingOwner,
}

/// A device that will be plugged in.
pub struct Plugged {
    /// Virtio device id.
    pub id: u16,
    pub device: SharedDevice,
    /// The memory that it brings along.
    pub memory: Option<DeviceMemory>,
}

impl Opened {
    /// Opens everything that `config` names, in an order that leaves nothing behind if a later part fails.
    /// The worker belongs on the control thread.
    pub fn open(
        config: &VmConfig,
        group: GroupFiles,
        on_command: Box<dyn Fn(ConsoleCommand) + Send>,
    ) -> Result<(Self, Box<dyn Worker>), RunError> {
        refuse_impossible_memory(config)?;
        let image =
            |what, path: &Option<_>| path.as_deref().map(|path| ImageFile::open(what, path)).transpose();
        let boot_error = |error: BootError| RunError::from(BuildError::from(error));
        let kernel = image("kernel", &config.kernel).map_err(boot_error)?;
        let initrd = image("initrd", &config.initrd).map_err(boot_error)?;
        let has_hardware = KvmModule::read(&Root::system()) != Some(KvmModule::Pvm);
        let runs_ring_0 = kernel.is_none() || has_hardware;
        let hypervisor = Hypervisor::open()?;
        let sensors = Sensors::open(&Root::system(), group.clone())
            .map_err(|error| RunError::host("cannot open /proc/self/pagemap", error))?;
        let sensors = Arc::new(sensors);
        let means = Means { group, is_kernel_reclaim_sound: has_hardware };
        let (console, worker) =
            ConsoleBackend::open(&config.console, config.console_log.as_deref(), on_command)?;
        let balloon = balloon(config)?;
        let hotplug = config.hotplug_memory.map(|size| Arc::new(Hotplug::new(size)));
        let mut needs = Needs {
            memory: config.memory,
            cpus: config.cpus,
            devices: Vec::new(),
            address_bits: hypervisor.address_bits(),
        };
        let mut opened_devices = Vec::new();
        let context =
            Context { config, console: &console, balloon: balloon.as_ref(), hotplug: hotplug.as_ref() };
        for device in catalog::open_all(&context)? {
            let vectors = Transport::vectors(device.queue_sizes().len());
            let (name, memory) = (device.name().to_owned(), device.memory());
            let memory_slots = memory.as_ref().map_or(0, DeviceMemory::slots);
            let size = memory.as_ref().map(DeviceMemory::size);
            needs.devices.push(DeviceNeed { name, vectors, memory: size, memory_slots });
            opened_devices.push((device, memory));
        }
        let plan = plan(&needs)?;
        let sharing = Sharing::open(config)?;
        let devices = opened_devices.into_iter().zip(&plan.pci).map(|((mut device, memory), place)| {
            if let Some(window) = place.memory {
                device.place_memory(window.region.start);
            }
            Plugged { id: device.id(), device: Arc::new(Mutex::new(device)), memory }
        });
        let devices = devices.collect();
        let config = Arc::new(config.clone());
        let opened = Self {
            config,
            hypervisor,
            kernel,
            initrd,
            runs_ring_0,
            console,
            balloon,
            hotplug,
            devices,
            sensors,
            means,
            plan,
            sharing,
        };
        Ok((opened, worker))
    }
}

fn balloon(config: &VmConfig) -> Result<Option<Arc<Balloon>>, RunError> {
    if config.balloon == BalloonConfig::Off {
        return Ok(None);
    }
    let balloon = Balloon::new(config.memory);
    let balloon = balloon.map_err(|error| RunError::host("cannot make an eventfd for the balloon", error))?;
    Ok(Some(Arc::new(balloon)))
}

/// A VM whose memory the host could not hold with all its swap would be killed, or kill others.
fn refuse_impossible_memory(config: &VmConfig) -> Result<(), RunError> {
    let host = rustix::system::sysinfo();
    let unit = u64::from(host.mem_unit);
    let (memory, swap) = (Bytes(host.totalram * unit), Bytes(host.totalswap * unit));
    let hotplug = config.hotplug_memory.unwrap_or_default();
    if config.memory.0.saturating_add(hotplug.0) <= memory.0.saturating_add(swap.0) {
        return Ok(());
    }
    let and_hotplug = match hotplug {
        Bytes(0) => "is".to_owned(),
        hotplug => format!("and --hotplug-memory {hotplug} are"),
    };
    let mib = |size: Bytes| size.0 >> 20;
    Err(RunError::BadInput(format!(
        "--memory {} {and_hotplug} more than this host has: {} MiB of memory and {} MiB of swap; give the VM less, or the host \
         more swap",
        config.memory,
        mib(memory),
        mib(swap),
    )))
}
