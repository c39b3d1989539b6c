//! From a configuration to a VM that runs: devices, plan, machine, buses, threads.
//!
//! What can fail for a user's mistake comes first, and nothing runs before all of it has succeeded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use napa_api::{Exit, VmConfig};
use napa_devices::ports::PortContext;
use napa_devices::{ConsoleBackend, Context, ExitSink, StopRequest, catalog, ports};
use napa_machine::boot::{KernelImage, Source};
use napa_machine::{Buses, DeviceNeed, Machine, Needs, PciBus, Plan, layout, plan};
use napa_sys::host::{KvmModule, Root};
use napa_sys::reactor::{Handle, Reactor};
use napa_sys::signal::SignalFd;
use napa_sys::socket::{BindError, Listener};
use napa_virtio::pci::{PciFunction, Transport, TransportParts};
use napa_virtio::{BusDevice, Device, Platform, Threads};

use crate::control::{Control, Ended, Lifecycle, Sources};
use crate::error::RunError;
use crate::events::{Event, Events};
use crate::power::{PowerButton, SleepRegisters};
use crate::status::{Identity, Listed, kind};
use crate::vcpus::Vcpus;

/// A VM that runs. Its lifecycle belongs to the control thread's reactor.
pub struct Running {
    ended: Ended,
    console: Arc<ConsoleBackend>,
    /// Keeps the functions on the bus, and so the guest's RAM, until all threads have ended.
    buses: Arc<Buses>,
}

impl Running {
    /// Called when the reactor with the lifecycle, and so all vCPU threads, are gone.
    pub fn finish(self) -> Option<Exit> {
        drop(self.buses);
        self.console.close();
        self.ended.get()
    }
}

/// Builds the VM and starts its vCPUs.
pub fn assemble(
    config: &VmConfig,
    signals: SignalFd,
    reactor: &mut Reactor,
    handle: &Handle,
) -> Result<Running, RunError> {
    let events = Events::new().map_err(|error| RunError::host("cannot make an eventfd", error))?;
    let listener = config.api_socket.as_deref().map(Listener::bind).transpose().map_err(bind_error)?;
    let (console, console_worker) = ConsoleBackend::open(&config.console, {
        let events = events.clone();
        Box::new(move |command| events.post(Event::Console(command)))
    })?;
    let devices = catalog::open_all(&Context { config, console: &console })?;
    let machine = Machine::build(plan(&needs(config, &devices))?)?;

    let sink: ExitSink = {
        let events = events.clone();
        Arc::new(move |exit| events.post(Event::Ended(exit)))
    };
    let stop_request = StopRequest::default();
    let threads = Threads::new(handle.clone(), config.cpus);
    let pci = pci_bus(&sink);
    let listed = populate(&pci, devices, &machine, &threads)?;
    let buses = Arc::new(buses(&machine, &console, &sink, &stop_request, pci)?);
    let power = PowerButton::new(machine.routes())
        .map_err(|error| RunError::host("cannot wire the power button", error))?;
    let vcpus = load(config, machine, &buses)?;

    reactor.add(console_worker);
    console.attach()?;
    let identity = Identity {
        name: config.name_or_default().to_owned(),
        vcpus: config.cpus,
        memory: config.memory,
        started: Instant::now(),
        devices: listed,
    };
    let vcpus = Vcpus::start(vcpus, &events)
        .map_err(|error| RunError::host("cannot start a vCPU's thread", error))?;
    let ended = Ended::default();
    let bound = Duration::from_secs(config.stop_timeout_s.into());
    let lifecycle = Lifecycle::new(vcpus, threads, power, stop_request, identity, bound, ended.clone());
    let resized = Arc::clone(&console);
    let sources = Sources { events, signals, listener, console: resized, reactor: handle.clone() };
    reactor.add(Box::new(Control::new(sources, lifecycle)));
    Ok(Running { ended, console, buses })
}

fn bind_error(error: BindError) -> RunError {
    RunError::BadInput(format!("--api-socket {error}"))
}

fn needs(config: &VmConfig, devices: &[Box<dyn Device>]) -> Needs {
    let need = |device: &Box<dyn Device>| DeviceNeed {
        name: device.name().to_owned(),
        vectors: Transport::vectors(device.queue_sizes().len()),
    };
    Needs { memory: config.memory, cpus: config.cpus, devices: devices.iter().map(need).collect() }
}

fn pci_bus(sink: &ExitSink) -> Arc<PciBus> {
    let sink = Arc::clone(sink);
    Arc::new(PciBus::new(Box::new(move || sink(Exit::Reboot))))
}

fn populate(
    pci: &PciBus,
    devices: Vec<Box<dyn Device>>,
    machine: &Machine,
    threads: &Threads,
) -> Result<Vec<Listed>, RunError> {
    let mut functions: Vec<(u8, Arc<dyn PciFunction>)> = Vec::new();
    let mut listed = Vec::new();
    let plan: &Plan = machine.plan();
    for (device, place) in devices.into_iter().zip(&plan.pci) {
        let parts = TransportParts {
            memory: Arc::clone(machine.ram()),
            threads: threads.clone(),
            platform: Arc::clone(machine.routes()) as Arc<dyn Platform>,
            bar: place.bar,
            first_interrupt: place.first_interrupt,
        };
        let kind = kind(device.id());
        let function = Transport::new(device, parts)
            .map_err(|error| RunError::host(&format!("cannot put {} on the PCI bus", place.name), error))?;
        listed.push(Listed { name: place.name.clone(), kind, slot: place.slot, monitor: function.monitor() });
        functions.push((place.slot, Arc::new(function)));
    }
    pci.populate(functions);
    Ok(listed)
}

fn buses(
    machine: &Machine,
    console: &Arc<ConsoleBackend>,
    sink: &ExitSink,
    stop_request: &StopRequest,
    pci: Arc<PciBus>,
) -> Result<Buses, RunError> {
    let opened = ports::open_all(&PortContext { console, exit: sink, stop_request })?;
    machine
        .routes()
        .connect_line(layout::SERIAL_LINE, &opened.serial_interrupt)
        .map_err(|error| RunError::host("cannot wire the serial port", error))?;
    let mut all = opened.ports;
    let sleep: Arc<dyn BusDevice> = Arc::new(SleepRegisters::new(Arc::clone(sink)));
    all.push((layout::SLEEP_CONTROL_PORT..layout::SLEEP_STATUS_PORT + 1, sleep));
    all.push((PciBus::PORTS, Arc::clone(&pci) as Arc<dyn BusDevice>));
    Ok(Buses::new(all, pci))
}

fn load(
    config: &VmConfig,
    machine: Machine,
    buses: &Arc<Buses>,
) -> Result<Vec<napa_machine::Vcpu>, RunError> {
    let kernel = match &config.kernel {
        Some(path) => KernelImage::File(path),
        None => KernelImage::Embedded(napa_guest::IMAGE),
    };
    let cmdline = config.effective_cmdline();
    let runs_ring_0 = || KvmModule::read(&Root::system()) != Some(KvmModule::Pvm);
    let source =
        Source { kernel, initrd: config.initrd.as_deref(), cmdline: &cmdline, runs_ring_0: &runs_ring_0 };
    Ok(machine.load(&source, buses)?)
}
