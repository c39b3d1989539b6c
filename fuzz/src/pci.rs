//! Register accesses and driver-like sequences against every kind of device that needs nothing of the host.

use std::cell::RefCell;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use napa_api::VmConfig;
use napa_api::config::{CacheMode, ConsoleConfig, DiskConfig, DiskFormat, PmemConfig, VsockConfig};
use napa_devices::balloon::Balloon;
use napa_devices::mem::Hotplug;
use napa_devices::{ConsoleBackend, Context, catalog};
use napa_machine::layout::{ECAM_SIZE, ECAM_START, IO_APIC_PINS, RESET_PORT};
use napa_machine::{Buses, DeviceNeed, Needs, PciBus, Plan, plan};
use napa_sys::reactor;
use napa_units::Bytes;
use napa_virtio::pci::{BAR_SIZE, PciFunction, Transport, TransportParts};
use napa_virtio::{DeviceMemory, Platform, PluggableMemory, SharedDevice, Threads};
use tempfile::TempDir;

use crate::function::{Function, QUEUE_SIZE, RINGS_BYTES, Rings};
use crate::kvm::FakeKvm;
use crate::plugging::Plugging;
use crate::ram::{HIGH_END, HIGH_START, LOW_END, Ram};
use crate::words::{address, length, width};

/// Steps of one input at most: more find nothing new.
const STEPS_MAX: usize = 128;
/// Queues of one device that a driver here sets up at most.
const QUEUES_MAX: u64 = 4;
/// Where data lies, behind the rings of all devices.
const DATA: u64 = 0x8000;
const DISK_BYTES: usize = 1 << 16;
/// What can be plugged: four blocks.
const PLUGGABLE: Bytes = Bytes::mib(8);
/// RAM, as far as devices are told.
const RAM: Bytes = Bytes(LOW_END + HIGH_END - HIGH_START);

/// Plays a guest's accesses as the input says.
pub fn pci(input: &[u8]) {
    thread_local!(static HOST: RefCell<Option<Host>> = const { RefCell::new(None) });
    HOST.with(|host| {
        let mut host = host.borrow_mut();
        host.get_or_insert_with(Host::new).play(input);
    });
}

/// What outlives a machine: the devices and the threads that serve them.
struct Host {
    devices: Vec<SharedDevice>,
    plan: Plan,
    control: reactor::Handle,
    threads: Threads,
    disk: std::fs::File,
    balloon: Arc<Balloon>,
    hotplug: Arc<Hotplug>,
    _console: Arc<ConsoleBackend>,
    _folder: TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let config = config(&folder);
        std::fs::write(&config.disks[0].path, [0; DISK_BYTES]).expect("a disk can be made");
        std::fs::write(&config.pmems[0].path, [0; 1]).expect("an image can be made");
        let disk = std::fs::File::options().write(true).open(&config.disks[0].path).expect("it is there");
        let (control, _detached) = reactor::spawn("control").expect("a thread can be started");
        let (console, worker) =
            ConsoleBackend::open(&config.console, None, Box::new(|_| {})).expect("no console is no problem");
        control.add(worker).expect("the thread runs");
        let balloon = Arc::new(Balloon::new(RAM).expect("an eventfd is left"));
        let hotplug = Arc::new(Hotplug::new(PLUGGABLE));
        let context =
            Context { config: &config, console: &console, balloon: Some(&balloon), hotplug: Some(&hotplug) };
        let devices = catalog::open_all(&context).expect("they open");
        let devices: Vec<SharedDevice> =
            devices.into_iter().map(|device| Arc::new(Mutex::new(device))).collect();
        let needs = Needs {
            memory: Bytes::mib(2),
            cpus: 1,
            devices: devices.iter().map(need).collect(),
            address_bits: 46,
        };
        let plan = plan(&needs).expect("such a machine can be planned");
        for (device, place) in devices.iter().zip(&plan.pci) {
            if let Some(window) = place.memory {
                device.lock().expect("no thread has panicked").place_memory(window.region.start);
            }
        }
        let threads = Threads::new(control.clone(), 1);
        Self { devices, plan, control, threads, disk, balloon, hotplug, _console: console, _folder: folder }
    }

    fn play(&self, input: &[u8]) {
        // An input means the same whatever came before it.
        self.disk.write_all_at(&[0; DISK_BYTES], 0).expect("the disk can be written");
        let machine = Machine::new(self);
        let kvm = Arc::clone(&machine.kvm);
        // An input that ends early is an input all the same.
        let machine = machine.run(&mut Unstructured::new(input));
        machine.check_reset(self);
        drop(machine);
        assert!(kvm.doorbells().is_empty() && kvm.routes().is_empty(), "something is left connected");
    }
}

impl Host {
    /// What the host asks of a balloon or of memory that can be plugged, whatever the guest has made of them.
    fn ask_for_memory(&self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=3_u8)? {
            0 => drop(self.balloon.set_target(Bytes(u64::from(input.arbitrary::<u8>()?) << 12), RAM)),
            3 => drop(self.hotplug.request(Bytes::mib(input.int_in_range(0..=10_u64)?))),
            1 => self.balloon.refresh_statistics(Duration::from_micros(100)),
            _ => drop(self.balloon.hint(Duration::from_micros(100))),
        }
        let report = self.balloon.report();
        assert!(report.held.0 <= RAM.0 + PLUGGABLE.0 && report.target <= RAM, "{report:?}");
        let report = self.hotplug.report();
        assert!(report.plugged <= PLUGGABLE && report.requested <= PLUGGABLE, "{report:?}");
        Ok(())
    }
}

fn config(folder: &TempDir) -> VmConfig {
    let disk = DiskConfig {
        path: folder.path().join("disk"),
        readonly: false,
        format: DiskFormat::Raw,
        cache: CacheMode::Writeback,
        queues: Some(2),
        serial: Some("fuzz".into()),
    };
    VmConfig {
        console: ConsoleConfig::Off,
        disks: vec![disk],
        pmems: vec![PmemConfig { path: folder.path().join("image") }],
        vsock: Some(VsockConfig { cid: 3, path: folder.path().join("vsock") }),
        ..VmConfig::default()
    }
}

struct Machine<'a> {
    host: &'a Host,
    ram: Ram,
    kvm: Arc<FakeKvm>,
    /// Devices know it only as long as it is there.
    _plugging: Arc<Plugging>,
    pci: Arc<PciBus>,
    buses: Buses,
    /// Index of the available ring of each queue, by device and queue.
    available: Vec<[u16; QUEUES_MAX as usize]>,
}

impl<'a> Machine<'a> {
    fn new(host: &'a Host) -> Self {
        let ram = Ram::new();
        let plugging = plugging(host, &ram);
        let vectors: u32 = host.devices.iter().map(|device| u32::from(need(device).vectors)).sum();
        let kvm = Arc::new(FakeKvm::new(IO_APIC_PINS..IO_APIC_PINS + vectors));
        let pci = Arc::new(PciBus::new(Box::new(|| {})));
        let function = |(device, place): (&SharedDevice, &napa_machine::PciSlot)| {
            let parts = TransportParts {
                memory: Arc::clone(plugging.pages().all()),
                pages: Arc::clone(plugging.pages()),
                threads: host.threads.clone(),
                platform: Arc::clone(&kvm) as Arc<dyn Platform>,
                bar: place.bar,
                first_interrupt: place.first_interrupt,
            };
            let transport = Transport::new(Arc::clone(device), parts).expect("eventfds are left");
            (place.slot, Arc::new(transport) as Arc<dyn PciFunction>)
        };
        pci.populate(host.devices.iter().zip(&host.plan.pci).map(function).collect());
        let buses = Buses::new(vec![(PciBus::PORTS, Arc::clone(&pci) as _)], Arc::clone(&pci));
        let available = vec![[0; QUEUES_MAX as usize]; host.devices.len()];
        Self { host, ram, kvm, _plugging: plugging, pci, buses, available }
    }

    fn run(mut self, input: &mut Unstructured<'_>) -> Self {
        for _ in 0..STEPS_MAX {
            if input.is_empty() || self.step(input).is_err() {
                break;
            }
        }
        self
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let device = input.choose_index(self.host.devices.len())?;
        let mut function = Function::new(&self.buses, &self.host.plan.pci[device]);
        match input.int_in_range(0..=21_u8)? {
            0 => self.access_ports(input)?,
            1 => self.access_config(device, input)?,
            2 => self.access_memory(input)?,
            3..=5 => access_common(&function, input)?,
            6 => access_bar(&function, input)?,
            7 => function.move_to(base(device, input)?),
            8 => function.set_config(0x04, &[input.arbitrary::<u8>()? & 7, 0]),
            9 => function.set_interrupt(u64::from(input.int_in_range(0..=4_u8)?), input)?,
            10 => function.negotiate(input.arbitrary()?),
            11 => function.set_queue(u64::from(input.int_in_range(0..=4_u8)?), any_rings(input)?),
            12..=13 => self.start(device, input)?,
            14..=17 => self.request(device, input)?,
            18 => self.reset(device),
            19 => self.settle(),
            20 => self.host.ask_for_memory(input)?,
            _ => self.kvm.refuse(u32::from(input.int_in_range(2..=6_u8)?)),
        }
        Ok(())
    }

    /// Configuration mechanism 1, with odd widths and registers too.
    fn access_ports(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let mut data = input.arbitrary::<[u8; 4]>()?;
        let size = width(input)?.min(4);
        let port = 0xcf8 + u16::from(input.int_in_range(0..=8_u8)?);
        match input.arbitrary()? {
            true if port != RESET_PORT => self.buses.port_write(port, &data[..size]),
            _ => self.buses.port_read(port, &mut data[..size]),
        }
        // Then an access that selects a function.
        let slot = u32::from(input.int_in_range(0..=7_u8)?);
        let selected = 0x8000_0000 | slot << 11 | u32::from(input.arbitrary::<u8>()? & 0xfc);
        self.buses.port_write(0xcf8, &selected.to_le_bytes());
        match input.arbitrary()? {
            true => self.buses.port_write(0xcfc, &data[..size]),
            false => self.buses.port_read(0xcfc, &mut data[..size]),
        }
        Ok(())
    }

    fn access_config(&self, device: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let mut data = input.arbitrary::<[u8; 8]>()?;
        let size = width(input)?;
        let offset = match input.int_in_range(0..=3_u8)? {
            0..=2 => (device as u64 + 1) << 15 | u64::from(input.arbitrary::<u8>()?),
            _ => input.int_in_range(0..=ECAM_SIZE)?,
        };
        match input.arbitrary()? {
            true => self.buses.memory_write(ECAM_START + offset, &data[..size]),
            false => self.buses.memory_read(ECAM_START + offset, &mut data[..size]),
        }
        Ok(())
    }

    fn access_memory(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let mut data = input.arbitrary::<[u8; 8]>()?;
        let (at, size) = (input.arbitrary()?, width(input)?);
        match input.arbitrary()? {
            true => self.buses.memory_write(at, &data[..size]),
            false => self.buses.memory_read(at, &mut data[..size]),
        }
        Ok(())
    }

    /// All that a good driver does until its device is ready.
    fn start(&mut self, device: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let place = &self.host.plan.pci[device];
        let mut function = Function::new(&self.buses, place);
        function.move_to(place.bar);
        function.negotiate(input.arbitrary()?);
        for queue in 0..function.queues().min(QUEUES_MAX) {
            let rings = rings(device, queue);
            self.ram.store(rings.descriptors, &[0; RINGS_BYTES as usize]);
            self.available[device][queue as usize] = 0;
            function.set_queue(queue, rings);
        }
        function.set_ready();
        Ok(())
    }

    /// One request on one queue, good or bad, and its doorbell.
    fn request(&mut self, device: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let queue = u64::from(input.int_in_range(0..=QUEUES_MAX as u8 - 1)?);
        let rings = rings(device, queue);
        let pieces = u64::from(input.int_in_range(1..=4_u8)?);
        for index in 0..pieces {
            let at = if input.ratio(3, 4)? { DATA + 0x800 * index } else { address(input)? };
            let link = if index + 1 < pieces { 1 } else { 0 };
            let flags = u16::from(input.arbitrary::<bool>()?) << 1 | link;
            let descriptor = [
                &at.to_le_bytes()[..],
                &length(input)?.to_le_bytes(),
                &flags.to_le_bytes(),
                &(index as u16 + 1).to_le_bytes(),
            ];
            self.ram.store(rings.descriptors + 16 * index, &descriptor.concat());
        }
        self.ram.store(DATA, &header(input)?);
        let available = &mut self.available[device][queue as usize];
        let entry = rings.available + 4 + 2 * u64::from(*available % QUEUE_SIZE);
        *available = available.wrapping_add(1);
        self.ram.store(entry, &[0, 0]);
        self.ram.store(rings.available + 2, &available.to_le_bytes());
        Function::new(&self.buses, &self.host.plan.pci[device]).notify(queue);
        Ok(())
    }

    /// A driver's reset: the status reads zero, and no doorbell of the device is left.
    fn reset(&self, device: usize) {
        let place = &self.host.plan.pci[device];
        let others = self.host.plan.pci.iter().filter(|other| other.slot != place.slot);
        // Where windows overlap, it is the other function that answers.
        let others: Vec<u64> = others
            .map(|other| Function::new(&self.buses, other))
            .map(|other| u64::from(other.config(0x10)))
            .collect();
        let mut function = Function::new(&self.buses, place);
        function.move_to(free_base(&others));
        function.reset();
        assert_eq!(function.status(), 0, "a reset always works");
        let window = u64::from(function.config(0x10));
        let left = self.kvm.doorbells();
        assert!(!left.iter().any(|at| (window..window + BAR_SIZE).contains(at)), "{left:x?}");
    }

    /// Waits until nothing is under way, as a pause of the VM does.
    fn settle(&self) {
        self.host.threads.pause().expect("the threads run");
        self.host.control.pause().expect("the thread runs");
        self.host.control.resume();
        self.host.threads.resume();
    }

    /// After the end of a machine nothing of it is left.
    fn check_reset(&self, host: &Host) {
        (0..host.devices.len()).for_each(|device| self.reset(device));
        self.pci.reset();
        assert!(self.kvm.doorbells().is_empty(), "doorbells are left");
        let balloon = host.balloon.report();
        assert_eq!((balloon.held, balloon.actual), (Bytes(0), Bytes(0)), "a reset empties the balloon");
        host.balloon.set_target(Bytes(0), RAM).expect("all memory can be given back");
        host.hotplug.request(Bytes(0)).expect("nothing can always be asked for");
    }
}

/// Gives the device whose memory can be plugged the blocks of a machine that begins.
fn plugging(host: &Host, ram: &Ram) -> Arc<Plugging> {
    let mut with_blocks = host.devices.iter().zip(&host.plan.pci).filter_map(|(device, place)| {
        let memory = device.lock().expect("no thread has panicked").memory();
        let memory = memory.filter(|memory| matches!(memory, DeviceMemory::Blocks { .. }))?;
        Some((device, Plugging::new(&memory, place.memory?.region.start, ram)))
    });
    let (device, plugging) = with_blocks.next().expect("one of the devices has blocks");
    let plugging = Arc::new(plugging);
    let blocks: Weak<dyn PluggableMemory> = Arc::downgrade(&plugging) as _;
    device.lock().expect("no thread has panicked").adopt_blocks(blocks);
    plugging
}

fn need(device: &SharedDevice) -> DeviceNeed {
    let device = device.lock().expect("no thread has panicked");
    let vectors = Transport::vectors(device.queue_sizes().len());
    let memory = device.memory().map(|memory| memory.size());
    DeviceNeed { name: device.name().to_owned(), vectors, memory_slots: memory.is_some().into(), memory }
}

/// The four bytes of type, and the rest of what requests to a disk and packets of a socket begin with.
fn header(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if input.arbitrary()? {
        return Ok(input.arbitrary::<[u8; 44]>()?.to_vec());
    }
    let (kind, sector) = (u32::from(input.arbitrary::<u8>()? & 15), u64::from(input.arbitrary::<u8>()?));
    Ok([&u64::from(kind).to_le_bytes()[..], &sector.to_le_bytes()].concat())
}

fn rings(device: usize, queue: u64) -> Rings {
    Rings::at(0x1000 + (device as u64 * QUEUES_MAX + queue) * RINGS_BYTES)
}

fn any_rings(input: &mut Unstructured<'_>) -> Result<Rings> {
    Ok(Rings { descriptors: address(input)?, available: address(input)?, used: address(input)? })
}

/// Where a guest may want to have a window: its own place, that of another, RAM, or anywhere.
fn base(device: usize, input: &mut Unstructured<'_>) -> Result<u32> {
    let other = input.int_in_range(0..=7_u8)?;
    Ok(match input.int_in_range(0..=3_u8)? {
        0 => 0xc000_0000 + device as u32 * BAR_SIZE as u32,
        1 => 0xc000_0000 + u32::from(other) * BAR_SIZE as u32,
        2 => *input.choose(&[0, 0x8000, ECAM_START as u32, 0xfee0_0000, u32::MAX])?,
        _ => input.arbitrary()?,
    })
}

fn free_base(taken: &[u64]) -> u32 {
    let mut free = (0xd000_0000..0xe000_0000_u64).step_by(BAR_SIZE as usize);
    free.find(|base| !taken.contains(base)).expect("there are more places than functions") as u32
}

/// The common configuration, where most of a transport's decisions are.
fn access_common(function: &Function<'_>, input: &mut Unstructured<'_>) -> Result<()> {
    let offset = u64::from(input.int_in_range(0..=0x40_u8)?);
    let size = width(input)?;
    match input.int_in_range(0..=3_u8)? {
        0 => drop(function.read(offset, size)),
        1 => function.write(offset, size, u64::from(input.int_in_range(0..=15_u8)?)),
        2 => function.write(offset, size, address(input)?),
        _ => function.write(offset, size, input.arbitrary()?),
    }
    Ok(())
}

fn access_bar(function: &Function<'_>, input: &mut Unstructured<'_>) -> Result<()> {
    let page = u64::from(input.int_in_range(0..=8_u8)?) * 0x1000;
    let offset = page + u64::from(input.int_in_range(0..=0x80_u16)?);
    let size = width(input)?;
    match input.arbitrary()? {
        true => function.write(offset, size, input.arbitrary()?),
        false => drop(function.read(offset, size)),
    }
    Ok(())
}
