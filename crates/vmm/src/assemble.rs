//! From what was opened to a machine that runs: RAM, buses, kernel, vCPU threads. Done again at each reboot.

use std::sync::{Arc, PoisonError, Weak};

use napa_api::Exit;
use napa_devices::ports::{self, PortContext};
use napa_devices::{ExitSink, StopRequest};
use napa_machine::boot::{KernelImage, Source};
use napa_machine::{Buses, Machine, PciBus, Plugging, layout};
use napa_memory::{PageStates, Watch, prefer_huge_pages};
use napa_sys::lost_memory;
use napa_virtio::pci::{PciFunction, Transport, TransportParts};
use napa_virtio::{BusDevice, DeviceMemory, DeviceMonitor, Platform, PluggableMemory, Threads};

use crate::error::RunError;
use crate::events::{Event, Events};
use crate::memory::{Reclaimer, Samples, Subject};
use crate::opened::Opened;
use crate::power::{PowerButton, SleepRegisters};
use crate::vcpus::Vcpus;

/// A machine whose vCPUs run.
pub struct Assembly {
    // In this order: the vCPUs end before what they use goes.
    pub vcpus: Vcpus,
    pub power: PowerButton,
    pub stop_request: StopRequest,
    /// What is asked about its memory is asked of this.
    pub subject: Arc<Subject>,
    /// Ends with the machine: devices that outlive it have no hold of its memory.
    _plugging: Option<Arc<Plugging>>,
    /// One per device, in the order of their slots.
    pub monitors: Vec<DeviceMonitor>,
}

/// Builds the machine and starts its vCPUs.
pub fn assemble(opened: &Opened, events: &Events, threads: &Threads) -> Result<Assembly, RunError> {
    let device_memory: Vec<_> = opened.devices.iter().map(|plugged| plugged.memory.clone()).collect();
    let machine = Machine::build(&opened.hypervisor, opened.plan.clone(), &device_memory)?;
    if opened.config.huge_pages {
        prefer_huge_pages(machine.ram());
    }
    lost_memory::name_places(machine.places());
    let sink: ExitSink = {
        let events = events.clone();
        Arc::new(move |exit| events.post(Event::Ended(exit)))
    };
    let pci = pci_bus(&sink);
    let monitors = populate(&pci, opened, &machine, threads)?;
    let stop_request = StopRequest::default();
    let buses = Arc::new(buses(&machine, opened, &sink, &stop_request, Arc::clone(&pci))?);
    let power = PowerButton::new(machine.routes())
        .map_err(|error| RunError::host("cannot wire the power button", error))?;
    let subject = Arc::new(subject(opened, machine.pages()));
    opened.sharing.0.adopt(&subject.pages);
    let plugging = machine.plugging().cloned();
    let vcpus = load(opened, machine, &buses)?;
    let last_out = {
        let events = events.clone();
        move || {
            // On a vCPU's thread, because this waits for the control thread among others.
            pci.reset();
            events.post(Event::Over);
        }
    };
    let vcpus = Vcpus::start(vcpus, events, Box::new(last_out))
        .map_err(|error| RunError::host("cannot start a vCPU's thread", error))?;
    Ok(Assembly { vcpus, power, stop_request, subject, _plugging: plugging, monitors })
}

fn subject(opened: &Opened, pages: &Arc<PageStates>) -> Subject {
    Subject {
        config: Arc::clone(&opened.config),
        pages: Arc::clone(pages),
        watch: Watch::new(Arc::clone(pages)),
        sensors: Arc::clone(&opened.sensors),
        balloon: opened.balloon.clone(),
        hotplug: opened.hotplug.clone(),
        reclaimer: Reclaimer::new(Arc::clone(pages), Arc::clone(&opened.sensors), &opened.means),
        group: opened.means.group.clone(),
        sharing: Arc::clone(&opened.sharing.0),
        samples: Samples::default(),
    }
}

fn pci_bus(sink: &ExitSink) -> Arc<PciBus> {
    let sink = Arc::clone(sink);
    Arc::new(PciBus::new(Box::new(move || sink(Exit::Reboot))))
}

fn populate(
    pci: &PciBus,
    opened: &Opened,
    machine: &Machine<'_>,
    threads: &Threads,
) -> Result<Vec<DeviceMonitor>, RunError> {
    let mut functions: Vec<(u8, Arc<dyn PciFunction>)> = Vec::new();
    let mut monitors = Vec::new();
    for (plugged, place) in opened.devices.iter().zip(&opened.plan.pci) {
        if let (Some(DeviceMemory::Blocks { .. }), Some(plugging)) = (&plugged.memory, machine.plugging()) {
            let blocks: Weak<dyn PluggableMemory> = Arc::downgrade(plugging) as _;
            plugged.device.lock().unwrap_or_else(PoisonError::into_inner).adopt_blocks(blocks);
        }
        let parts = TransportParts {
            memory: Arc::clone(machine.memory()),
            pages: Arc::clone(machine.pages()),
            threads: threads.clone(),
            platform: Arc::clone(machine.routes()) as Arc<dyn Platform>,
            bar: place.bar,
            first_interrupt: place.first_interrupt,
        };
        let function = Transport::new(Arc::clone(&plugged.device), parts)
            .map_err(|error| RunError::host(&format!("cannot put {} on the PCI bus", place.name), error))?;
        monitors.push(function.monitor());
        functions.push((place.slot, Arc::new(function)));
    }
    pci.populate(functions);
    Ok(monitors)
}

fn buses(
    machine: &Machine<'_>,
    opened: &Opened,
    sink: &ExitSink,
    stop_request: &StopRequest,
    pci: Arc<PciBus>,
) -> Result<Buses, RunError> {
    let devices = ports::open_all(&PortContext { console: &opened.console, exit: sink, stop_request })?;
    machine
        .routes()
        .connect_line(layout::SERIAL_LINE, &devices.serial_interrupt)
        .map_err(|error| RunError::host("cannot wire the serial port", error))?;
    let mut all = devices.ports;
    let sleep: Arc<dyn BusDevice> = Arc::new(SleepRegisters::new(Arc::clone(sink)));
    all.push((layout::SLEEP_CONTROL_PORT..layout::SLEEP_STATUS_PORT + 1, sleep));
    all.push((PciBus::PORTS, Arc::clone(&pci) as Arc<dyn BusDevice>));
    Ok(Buses::new(all, pci))
}

fn load(
    opened: &Opened,
    machine: Machine<'_>,
    buses: &Arc<Buses>,
) -> Result<Vec<napa_machine::Vcpu>, RunError> {
    let kernel = match &opened.kernel {
        Some(file) => KernelImage::File(file),
        None => KernelImage::Embedded(napa_guest::IMAGE),
    };
    let cmdline = opened.config.effective_cmdline();
    let runs_ring_0 = || opened.runs_ring_0;
    let source =
        Source { kernel, initrd: opened.initrd.as_ref(), cmdline: &cmdline, runs_ring_0: &runs_ring_0 };
    Ok(machine.load(&source, buses)?)
}
