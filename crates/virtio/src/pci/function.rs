//! The PCI function of a virtio device: dispatch of its registers, and the life of its workers.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napa_memory::{GuestRam, PageStates, is_writable};
use napa_sys::reactor::{Handle, WorkerId};
use napa_units::GuestAddress;
use virtio_queue::QueueT;
use vm_memory::GuestMemoryBackend as _;
use vmm_sys_util::eventfd::EventFd;

use super::common::{Common, Request};
use super::config_space::{
    ACCESS_DATA, ACCESS_LENGTH, ACCESS_OFFSET, BAR0, COMMAND, COMMAND_MEMORY, ConfigSpace, MSIX_CONTROL,
};
use super::msix::Msix;
use super::{BAR_SIZE, PciFunction, layout};
use crate::{
    Activation, DeviceMonitor, Health, Interrupt, Placed, Platform, Queue, SharedDevice, Threads, VectorTable,
};

/// What a transport needs besides its device.
pub struct TransportParts {
    /// All memory that the device may address.
    pub memory: Arc<GuestRam>,
    /// The pages of the guest's RAM.
    pub pages: Arc<PageStates>,
    /// Where workers run.
    pub threads: Threads,
    /// What the machine does for the function.
    pub platform: Arc<dyn Platform>,
    /// Guest address of BAR 0 at the start.
    pub bar: u32,
    /// Number of the first MSI-X vector among the machine's interrupts.
    pub first_interrupt: u32,
}

/// A virtio device on the PCI bus. Its registers are used by vCPU threads only.
pub struct Transport {
    state: Mutex<State>,
    /// Base of BAR 0; `NOT_DECODED` while memory decoding is off.
    window: AtomicU64,
    monitor: DeviceMonitor,
}

const NOT_DECODED: u64 = u64::MAX;

struct State {
    device: SharedDevice,
    config: ConfigSpace,
    common: Common,
    msix: Msix,
    doorbells: Vec<EventFd>,
    config_interrupt: Interrupt,
    health: Health,
    vectors: Arc<VectorTable>,
    parts: TransportParts,
    running: Vec<(Handle, WorkerId)>,
    /// Doorbells that the machine has connected: queue and address.
    connected: Vec<(usize, GuestAddress)>,
}

impl Transport {
    /// Vectors that a device with `queues` queues gets: one each, and one for configuration changes.
    pub const fn vectors(queues: usize) -> u16 {
        queues as u16 + 1
    }

    /// Puts `device` on the bus.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn new(device: SharedDevice, parts: TransportParts) -> io::Result<Self> {
        let shared = Arc::clone(&device);
        let device = lock(&shared);
        let sizes = device.queue_sizes();
        let vectors = Arc::new(VectorTable::new(Self::vectors(sizes.len()))?);
        let status = Arc::new(AtomicU8::new(0));
        let common = Common::new(device.features(), &sizes, vectors.count(), Arc::clone(&status));
        let config_interrupt = Interrupt::new(Arc::clone(&vectors), Arc::clone(&common.config_vector));
        let health = Health::new(device.name(), status, config_interrupt.clone());
        let doorbells = sizes.iter().map(|_| EventFd::new(0)).collect::<io::Result<_>>()?;
        let state = State {
            config: ConfigSpace::new(device.id(), vectors.count(), parts.bar),
            common,
            msix: Msix::new(Arc::clone(&vectors), parts.first_interrupt, Arc::clone(&parts.platform)),
            doorbells,
            config_interrupt,
            health,
            vectors,
            running: Vec::new(),
            connected: Vec::new(),
            device: Arc::clone(&shared),
            parts,
        };
        drop(device);
        let window = AtomicU64::new(state.window());
        let monitor = DeviceMonitor::new(Arc::clone(&state.common.status));
        Ok(Self { state: Mutex::new(state), window, monitor })
    }

    /// Shows whether the guest uses the device.
    pub fn monitor(&self) -> DeviceMonitor {
        self.monitor.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PciFunction for Transport {
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        let mut state = self.lock();
        match state.access(offset) {
            Some((bar_offset, length)) if length <= data.len() => {
                state.read_bar(bar_offset, &mut data[..length])
            }
            _ => state.config.read(offset, data),
        }
    }

    fn write_config(&self, offset: u16, data: &[u8]) {
        let mut state = self.lock();
        if let Some((bar_offset, length)) = state.access(offset) {
            return state.write_bar(bar_offset, &data[..length.min(data.len())]);
        }
        let control = state.config.word(MSIX_CONTROL);
        state.config.write(offset, data);
        if state.config.word(MSIX_CONTROL) != control {
            let control = state.config.word(MSIX_CONTROL);
            state.update_msix(|msix| msix.set_control(control));
        }
        let window = state.window();
        if self.window.swap(window, Ordering::AcqRel) != window {
            state.move_doorbells();
        }
    }

    fn window(&self) -> Option<(u64, u64)> {
        let base = self.window.load(Ordering::Acquire);
        (base != NOT_DECODED).then_some((base, BAR_SIZE))
    }

    fn read_bar(&self, offset: u64, data: &mut [u8]) {
        self.lock().read_bar(offset, data);
    }

    fn write_bar(&self, offset: u64, data: &[u8]) {
        self.lock().write_bar(offset, data);
    }

    fn reset(&self) {
        self.lock().reset();
    }
}

impl State {
    fn window(&self) -> u64 {
        let decodes = self.config.word(COMMAND) & COMMAND_MEMORY != 0;
        let base = self.config.long(BAR0) & !(BAR_SIZE as u32 - 1);
        // A base of zero is a BAR without an address; so is one that sizing has left at the top.
        if decodes && base != 0 && base != !(BAR_SIZE as u32 - 1) { u64::from(base) } else { NOT_DECODED }
    }

    /// What the access capability points at, if `offset` is its data field (VIRTIO 1.3 §4.1.4.9).
    fn access(&self, offset: u16) -> Option<(u64, usize)> {
        let length = self.config.long(ACCESS_LENGTH);
        let is_access = usize::from(offset) == ACCESS_DATA && matches!(length, 1 | 2 | 4);
        is_access.then(|| (u64::from(self.config.long(ACCESS_OFFSET)), length as usize))
    }

    fn read_bar(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset {
            _ if offset < layout::COMMON_LENGTH => self.read_common(offset, data),
            _ if within(offset, layout::DEVICE, layout::DEVICE_LENGTH) => {
                lock(&self.device).read_config(offset - layout::DEVICE, data);
            }
            _ if within(offset, layout::MSIX_TABLE, layout::MSIX_TABLE_LENGTH) => {
                self.msix.read_table(offset - layout::MSIX_TABLE, data);
            }
            _ if within(offset, layout::MSIX_PENDING, layout::MSIX_PENDING_LENGTH) => {
                self.msix.read_pending(offset - layout::MSIX_PENDING, data);
            }
            // The ISR byte stays zero: interrupts are message-signalled.
            _ => {}
        }
    }

    fn write_bar(&mut self, offset: u64, data: &[u8]) {
        match offset {
            _ if offset < layout::COMMON_LENGTH => self.write_common(offset, data),
            _ if within(offset, layout::DEVICE, layout::DEVICE_LENGTH) => {
                lock(&self.device).write_config(offset - layout::DEVICE, data);
            }
            _ if within(offset, layout::NOTIFY, layout::NOTIFY_LENGTH) => {
                self.ring_doorbell(offset - layout::NOTIFY)
            }
            _ if within(offset, layout::MSIX_TABLE, layout::MSIX_TABLE_LENGTH) => {
                self.update_msix(|msix| msix.write_table(offset - layout::MSIX_TABLE, data));
            }
            _ => {}
        }
    }

    fn read_common(&self, offset: u64, data: &mut [u8]) {
        let value = self.common.read(offset, self.config_interrupt.count()).to_le_bytes();
        let count = data.len().min(value.len());
        data[..count].copy_from_slice(&value[..count]);
    }

    fn write_common(&mut self, offset: u64, data: &[u8]) {
        // Fields are 4 bytes at most to a driver that keeps to VIRTIO 1.3 §4.1.3.1; 64-bit writes are halves.
        for (index, part) in data.chunks(4).enumerate() {
            let mut value = [0; 8];
            value[..part.len()].copy_from_slice(part);
            match self.common.write(offset + 4 * index as u64, u64::from_le_bytes(value)) {
                Request::Nothing => {}
                Request::Activate => self.activate(),
                Request::Reset => self.reset(),
            }
        }
    }

    /// A doorbell that left the kernel, because it is not connected or was written in an odd way.
    fn ring_doorbell(&self, offset: u64) {
        if let Some(doorbell) = self.doorbells.get((offset / layout::NOTIFY_MULTIPLIER) as usize) {
            // The counter of an eventfd overflows after 2^64 writes, and blocks only then.
            let _ = doorbell.write(1);
        }
    }

    fn activate(&mut self) {
        if let Err(problem) = self.try_activate() {
            self.health.fail(problem);
        }
    }

    fn try_activate(&mut self) -> Result<(), String> {
        let features = self.common.accepted();
        let queues =
            (0..self.doorbells.len()).map(|index| self.queue(index, features)).collect::<Result<_, _>>()?;
        let activation = Activation {
            memory: Arc::clone(&self.parts.memory),
            pages: Arc::clone(&self.parts.pages),
            features,
            queues,
            config_interrupt: self.config_interrupt.clone(),
            health: self.health.clone(),
        };
        let placed = lock(&self.device).activate(activation).map_err(|error| error.to_string())?;
        self.connect_doorbells()?;
        placed.into_iter().try_for_each(|worker| self.place(worker))
    }

    fn queue(&self, index: usize, features: u64) -> Result<Option<Queue>, String> {
        let setup = &self.common.queues[index];
        if !setup.enabled {
            return Ok(None);
        }
        let broken = |problem: &dyn std::fmt::Display| format!("queue {index} cannot be used: {problem}");
        let ring = setup.ring(features).map_err(|error| broken(&error))?;
        let memory = &self.parts.memory;
        if !ring.is_valid(memory.as_ref()) {
            return Err(broken(&"its rings are not in the guest's memory"));
        }
        // A valid ring lies in one region: there are gaps between regions.
        if memory
            .find_region(vm_memory::GuestAddress(ring.used_ring()))
            .is_none_or(|region| !is_writable(region))
        {
            return Err(broken(&"its used ring is in memory that cannot be written"));
        }
        let doorbell = self.doorbells[index].try_clone().map_err(|error| broken(&error))?;
        let interrupt = Interrupt::new(Arc::clone(&self.vectors), Arc::clone(&setup.vector));
        Ok(Some(Queue::new(ring, Arc::clone(memory), doorbell, interrupt, self.health.clone())))
    }

    fn place(&mut self, (placement, worker): Placed) -> Result<(), String> {
        let thread =
            self.parts.threads.get(placement).map_err(|error| format!("no thread to serve it: {error}"))?;
        let id = thread.add(worker).map_err(|error| error.to_string())?;
        self.running.push((thread, id));
        Ok(())
    }

    /// Takes the workers back, then clears the registers: status reads zero only when all is quiet.
    fn reset(&mut self) {
        let mut workers = Vec::new();
        for (thread, id) in self.running.drain(..) {
            // A thread that has ended took its workers along.
            workers.extend(thread.remove(id).ok().flatten());
        }
        self.disconnect_doorbells();
        lock(&self.device).reset(workers);
        self.common.reset();
    }

    fn connect_doorbells(&mut self) -> Result<(), String> {
        let base = self.window();
        if base == NOT_DECODED {
            return Ok(());
        }
        for (index, doorbell) in self.doorbells.iter().enumerate() {
            if self.common.queues[index].enabled {
                let address = doorbell_address(base, index);
                self.parts
                    .platform
                    .connect_doorbell(address, doorbell)
                    .map_err(|error| format!("the doorbell of queue {index} cannot be connected: {error}"))?;
                self.connected.push((index, address));
            }
        }
        Ok(())
    }

    fn disconnect_doorbells(&mut self) {
        for (index, address) in self.connected.drain(..) {
            self.parts.platform.disconnect_doorbell(address, &self.doorbells[index]);
        }
    }

    /// The guest has moved BAR 0, or switched its decoding on or off.
    fn move_doorbells(&mut self) {
        if self.running.is_empty() {
            return;
        }
        self.disconnect_doorbells();
        if let Err(problem) = self.connect_doorbells() {
            self.health.fail(problem);
        }
    }

    fn update_msix(&mut self, change: impl FnOnce(&mut Msix) -> io::Result<()>) {
        if let Err(error) = change(&mut self.msix) {
            self.health.fail(format_args!("an interrupt cannot be routed: {error}"));
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.reset();
        self.msix.disconnect();
    }
}

fn doorbell_address(base: u64, index: usize) -> GuestAddress {
    GuestAddress(base + layout::NOTIFY + index as u64 * layout::NOTIFY_MULTIPLIER)
}

const fn within(offset: u64, start: u64, length: u64) -> bool {
    offset >= start && offset - start < length
}
