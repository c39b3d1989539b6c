//! Finding a device's registers, negotiating, and connecting queues (VIRTIO 1.3 §3.1, §4.1.4).

use super::queue::{CHAIN_MAX, Queue, Shape};
use super::{FEATURE_EVENT_IDX, FEATURE_INDIRECT, FEATURE_VERSION_1};
use crate::apic;
use crate::arena::Arena;
use crate::failure::{CODE_DEVICE, Failure};
use crate::interrupts::{DEVICE_VECTORS, VECTOR_DEVICES};
use crate::pci::{Capability, Function, VectorTable};
use crate::physical::Registers;
use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

/// The PCI vendor of virtio devices.
pub const VENDOR: u16 = 0x1af4;
const MODERN_DEVICE_BASE: u16 = 0x1040;
const VENDOR_CAPABILITY: u8 = 0x09;

const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_DEVICE: u8 = 4;

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFFSET: u64 = 0x1e;
const QUEUE_DESCRIPTORS: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;
const COMMON_BYTES: u64 = 0x38;

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NO_VECTOR: u16 = 0xffff;
/// Looks at a device that should have reset itself.
const RESET_LOOKS_MAX: u32 = 100_000;

/// The kinds of device this guest drives (VIRTIO 1.3 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum DeviceKind {
    /// Network card.
    Net = 1,
    /// Disk.
    Block = 2,
    /// Console.
    Console = 3,
    /// Entropy source.
    Entropy = 4,
    /// Memory balloon.
    Balloon = 5,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Net => "virtio-net",
            Self::Block => "virtio-blk",
            Self::Console => "virtio-console",
            Self::Entropy => "virtio-rng",
            Self::Balloon => "virtio-balloon",
        })
    }
}

impl DeviceKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Net, Self::Block, Self::Console, Self::Entropy, Self::Balloon];

    /// Whether `function` is a modern device of this kind.
    pub fn is(self, function: &Function) -> bool {
        function.vendor == VENDOR && function.device == MODERN_DEVICE_BASE + self as u16
    }
}

/// A device that was reset and negotiated. It is reset again when this is dropped, so that it lets go of all memory.
pub struct Transport {
    kind: DeviceKind,
    common: Registers,
    notify: Registers,
    notify_multiplier: u32,
    device: Option<Registers>,
    vectors: VectorTable,
    /// The entry of the vector table that queue 0 has.
    first_queue_entry: u16,
    features: u64,
}

static VECTORS_USED: AtomicU8 = AtomicU8::new(0);

impl Transport {
    /// Resets the device and accepts those of `wanted` that it offers, beside event indexes and indirect descriptors.
    pub fn open(kind: DeviceKind, function: &Function, wanted: u64) -> Result<Self, Failure> {
        let missing = |what: &str| Failure::new(CODE_DEVICE, format_args!("{kind} has no {what}"));
        function.enable();
        let (common, _) = find(function, TYPE_COMMON).ok_or_else(|| missing("common registers"))?;
        let (notify, place) = find(function, TYPE_NOTIFY).ok_or_else(|| missing("notify registers"))?;
        let vectors = VectorTable::enable(function).ok_or_else(|| missing("MSI-X"))?;
        let common = common.part(0, COMMON_BYTES).ok_or_else(|| missing("whole common registers"))?;
        let mut transport = Self {
            kind,
            common,
            notify,
            notify_multiplier: function.configuration.read_u32(place.offset + 16),
            device: find(function, TYPE_DEVICE).map(|(registers, _)| registers),
            vectors,
            first_queue_entry: 0,
            features: 0,
        };
        transport.negotiate(wanted)?;
        Ok(transport)
    }

    /// Opens the first device of this kind.
    pub fn open_first(kind: DeviceKind, functions: &[Function], wanted: u64) -> Result<Self, Failure> {
        let function = functions.iter().find(|function| kind.is(function));
        let missing = || Failure::new(CODE_DEVICE, format_args!("there is no {kind} device"));
        Self::open(kind, function.ok_or_else(missing)?, wanted)
    }

    fn fail(&self, what: &str) -> Failure {
        Failure::new(CODE_DEVICE, format_args!("{}: {what}", self.kind))
    }

    fn reset(&self) -> bool {
        self.common.write_u8(STATUS, 0);
        (0..RESET_LOOKS_MAX).any(|_| self.common.read_u8(STATUS) == 0)
    }

    fn negotiate(&mut self, wanted: u64) -> Result<(), Failure> {
        if !self.reset() {
            return Err(self.fail("does not reset"));
        }
        self.common.write_u8(STATUS, ACKNOWLEDGE | DRIVER);
        let offered = self.offered_features();
        self.features = offered & (wanted | FEATURE_EVENT_IDX | FEATURE_INDIRECT | FEATURE_VERSION_1);
        if self.features & FEATURE_VERSION_1 == 0 {
            return Err(self.fail("does not speak VIRTIO 1"));
        }
        for (select, shift) in [(0, 0), (1, 32)] {
            self.common.write_u32(DRIVER_FEATURE_SELECT, select);
            self.common.write_u32(DRIVER_FEATURE, (self.features >> shift) as u32);
        }
        self.common.write_u8(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        if self.common.read_u8(STATUS) & FEATURES_OK == 0 {
            return Err(self.fail("refuses the features it offered"));
        }
        self.common.write_u16(CONFIG_VECTOR, NO_VECTOR);
        Ok(())
    }

    fn offered_features(&self) -> u64 {
        let half = |select: u32| {
            self.common.write_u32(DEVICE_FEATURE_SELECT, select);
            u64::from(self.common.read_u32(DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    /// Whether all of `features` were accepted.
    pub fn has(&self, features: u64) -> bool {
        self.features & features == features
    }

    /// Connects queue `index` with at most `size_max` descriptors; its memory is taken from `arena`. Its interrupts go
    /// to the processor that calls.
    pub fn queue<'a>(&self, index: u16, size_max: u16, arena: &'a Arena) -> Result<Queue<'a>, Failure> {
        self.queue_for(index, size_max, CHAIN_MAX, arena)
    }

    /// The same for chains of at most `chain_max` buffers.
    pub fn queue_for<'a>(
        &self,
        index: u16,
        size_max: u16,
        chain_max: u16,
        arena: &'a Arena,
    ) -> Result<Queue<'a>, Failure> {
        self.common.write_u16(QUEUE_SELECT, index);
        let offered = self.common.read_u16(QUEUE_SIZE);
        if offered == 0 {
            return Err(Failure::new(CODE_DEVICE, format_args!("{} has no queue {index}", self.kind)));
        }
        let size = largest_power_of_two(offered.min(size_max));
        let place = u64::from(self.common.read_u16(QUEUE_NOTIFY_OFFSET)) * u64::from(self.notify_multiplier);
        let doorbell =
            self.notify.part(place, 2).ok_or_else(|| self.fail("has a doorbell outside its registers"))?;
        let (event_index, indirect) = (self.has(FEATURE_EVENT_IDX), self.has(FEATURE_INDIRECT));
        let shape = Shape { index, size, chain_max, event_index, indirect };
        let queue = Queue::new(shape, doorbell, arena)?;
        let addresses = queue.addresses();
        self.common.write_u16(QUEUE_SIZE, size);
        for (register, address) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(addresses)
        {
            self.common.write_u32(register, address as u32);
            self.common.write_u32(register + 4, (address >> 32) as u32);
        }
        self.connect_queue(index)?;
        self.common.write_u16(QUEUE_ENABLE, 1);
        Ok(queue)
    }

    /// The queue that is selected gets the vector of its number; those for which there is none share the last.
    fn connect_queue(&self, index: u16) -> Result<(), Failure> {
        let entry = self.first_queue_entry.saturating_add(index).min(self.vectors.entries() - 1);
        self.set_vector(entry)?;
        self.connect(QUEUE_VECTOR, entry)
    }

    /// Lets the device interrupt when its own registers change, and gives the vector. To be called before there are
    /// queues: what comes for them should come with other vectors.
    pub fn watch_configuration(&mut self) -> Result<u8, Failure> {
        let vector = self.set_vector(0)?;
        self.connect(CONFIG_VECTOR, 0)?;
        self.first_queue_entry = 1;
        Ok(vector)
    }

    fn set_vector(&self, entry: u16) -> Result<u8, Failure> {
        // Vectors are reused from the first on after the last: they wake the processor, whichever queue they are for.
        let vector = VECTOR_DEVICES + VECTORS_USED.fetch_add(1, Ordering::Relaxed) % DEVICE_VECTORS;
        if !self.vectors.set(entry, apic::id(), vector) {
            return Err(self.fail("has too few MSI-X vectors"));
        }
        Ok(vector)
    }

    fn connect(&self, register: u64, entry: u16) -> Result<(), Failure> {
        self.common.write_u16(register, entry);
        if self.common.read_u16(register) != entry {
            return Err(self.fail("refuses an MSI-X vector"));
        }
        Ok(())
    }

    /// Tells the device that its queues are ready.
    pub fn start(&self) {
        self.common.write_u8(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// A byte of the device's own registers; 0 beyond their end.
    pub fn configuration_u8(&self, offset: u64) -> u8 {
        self.device.and_then(|device| device.part(offset, 1)).map_or(0, |register| register.read_u8(0))
    }

    /// A double word of the device's own registers; 0 beyond their end.
    pub fn configuration_u32(&self, offset: u64) -> u32 {
        self.device.and_then(|device| device.part(offset, 4)).map_or(0, |register| register.read_u32(0))
    }

    /// Writes a double word of the device's own registers, where there is one.
    pub fn set_configuration_u32(&self, offset: u64, value: u32) {
        if let Some(register) = self.device.and_then(|device| device.part(offset, 4)) {
            register.write_u32(0, value);
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        assert!(self.reset(), "{} does not reset and may still write to memory", self.kind);
    }
}

fn largest_power_of_two(size: u16) -> u16 {
    1 << size.max(1).ilog2()
}

/// The registers of the capability of this type, and the capability.
fn find(function: &Function, kind: u8) -> Option<(Registers, Capability)> {
    let configuration = function.configuration;
    let vendors = function.capabilities.iter().filter(|found| found.identifier == VENDOR_CAPABILITY);
    let capability = vendors.into_iter().find(|found| configuration.read_u8(found.offset + 3) == kind)?;
    let bar = configuration.read_u8(capability.offset + 4);
    let offset = configuration.read_u32(capability.offset + 8);
    let bytes = configuration.read_u32(capability.offset + 12);
    Some((function.registers(bar, offset, bytes)?, *capability))
}
