//! A disk (VIRTIO 1.3 §5.2): requests in numbered slots, each with its own buffer.

use super::queue::{Buffer, Queue};
use super::{DeviceKind, Transport};
use crate::arena::{Arena, DeviceMemory};
use crate::clock;
use crate::failure::{CODE_DEVICE, Failure};
use crate::pci::Function;
use guest_logic::command_line::DEPTH_MAX;

/// Bytes of a sector, the unit of all addresses on a disk.
pub const SECTOR: u64 = 512;
const SLOTS_MAX: usize = DEPTH_MAX as usize;
const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_FLUSH: u64 = 1 << 9;
const QUEUE_SIZE_MAX: u16 = 512;
/// Header, data and status.
const CHAIN: u16 = 3;
const HEADER_BYTES: usize = 16;
const IDENTIFIER_BYTES: u32 = 20;
const STATUS_OK: u8 = 0;
const STATUS_PENDING: u8 = 0xff;

/// What a request does; the values are those of the request's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// Reads sectors into the slot's buffer.
    Read = 0,
    /// Writes sectors from the slot's buffer.
    Write = 1,
    /// Makes completed writes durable.
    Flush = 4,
    /// Reads the disk's serial number: a request that needs no disk.
    Identify = 8,
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What it does.
    pub operation: Operation,
    /// The first sector.
    pub sector: u64,
    /// Bytes to read or write: a multiple of [`SECTOR`], at most what a slot's buffer holds.
    pub bytes: u32,
}

impl Request {
    /// A flush.
    pub const FLUSH: Self = Self { operation: Operation::Flush, sector: 0, bytes: 0 };
}

/// A request that the disk has carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The slot, free again.
    pub slot: usize,
    /// What was asked for.
    pub request: Request,
    /// When it was put into the queue, in nanoseconds of the clock.
    pub start_ns: u64,
}

/// A disk that is ready. The transport comes first, so that the device is reset before its memory is given up.
pub struct Block<'a> {
    transport: Transport,
    queue: Queue<'a>,
    headers: DeviceMemory<'a>,
    statuses: DeviceMemory<'a>,
    data: DeviceMemory<'a>,
    slot_bytes: usize,
    slots: usize,
    under_way: [Option<(Request, u64)>; SLOTS_MAX],
    slot_of_token: &'a mut [u16],
    capacity: u64,
}

impl<'a> Block<'a> {
    /// Opens disk number `number`, counted in PCI order, with `slots` slots (1 to 128) of `slot_bytes` bytes each. Fewer
    /// slots if the disk's queue is shorter.
    pub fn open(
        functions: &[Function],
        number: u64,
        slots: usize,
        slot_bytes: usize,
        arena: &'a Arena,
    ) -> Result<Self, Failure> {
        let mut disks = functions.iter().filter(|function| DeviceKind::Block.is(function));
        let missing =
            || Failure::new(CODE_DEVICE, format_args!("there is no virtio-blk device number {number}"));
        let function =
            usize::try_from(number).ok().and_then(|number| disks.nth(number)).ok_or_else(missing)?;
        let transport = Transport::open(DeviceKind::Block, function, FEATURE_READ_ONLY | FEATURE_FLUSH)?;
        let queue = transport.queue(0, QUEUE_SIZE_MAX, arena)?;
        let slots = slots.clamp(1, usize::from(queue.chains_max(CHAIN)).clamp(1, SLOTS_MAX));
        let capacity =
            u64::from(transport.configuration_u32(0)) | u64::from(transport.configuration_u32(4)) << 32;
        let block = Self {
            queue,
            headers: arena.device_memory(HEADER_BYTES * slots, 16)?,
            statuses: arena.device_memory(slots, 64)?,
            data: arena.device_memory(slot_bytes * slots, 4096)?,
            slot_bytes,
            slots,
            under_way: [None; SLOTS_MAX],
            slot_of_token: arena.slice(usize::from(QUEUE_SIZE_MAX), 2)?,
            capacity,
            transport,
        };
        block.transport.start();
        Ok(block)
    }

    /// Its size in sectors.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How many requests can be under way.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Whether the disk refuses writes.
    pub fn read_only(&self) -> bool {
        self.transport.has(FEATURE_READ_ONLY)
    }

    /// Whether the disk has a cache that is worth flushing.
    pub fn flushes(&self) -> bool {
        self.transport.has(FEATURE_FLUSH)
    }

    /// The buffer of a slot without a request.
    pub fn buffer(&mut self, slot: usize) -> &mut [u8] {
        assert!(self.under_way[slot].is_none(), "the device owns the buffer");
        let start = slot * self.slot_bytes;
        &mut self.data.contents()[start..start + self.slot_bytes]
    }

    /// Puts a request into the queue; the disk begins at the next [`Self::notify`].
    pub fn start(&mut self, slot: usize, request: Request) {
        assert!(self.under_way[slot].is_none() && slot < self.slots, "a slot holds one request");
        assert!(request.bytes as usize <= self.slot_bytes, "a request fits its slot");
        let header = &mut self.headers.contents()[HEADER_BYTES * slot..][..HEADER_BYTES];
        header[..4].copy_from_slice(&(request.operation as u32).to_le_bytes());
        header[4..8].fill(0);
        header[8..].copy_from_slice(&request.sector.to_le_bytes());
        self.statuses.contents()[slot] = STATUS_PENDING;
        let bytes = if request.operation == Operation::Identify { IDENTIFIER_BYTES } else { request.bytes };
        let header = Buffer {
            address: self.headers.address() + (HEADER_BYTES * slot) as u64,
            bytes: HEADER_BYTES as u32,
            device_writes: false,
        };
        let data = Buffer {
            address: self.data.address() + (slot * self.slot_bytes) as u64,
            bytes,
            device_writes: matches!(request.operation, Operation::Read | Operation::Identify),
        };
        let status = Buffer { address: self.statuses.address() + slot as u64, bytes: 1, device_writes: true };
        let chain = [header, data, status];
        let token = match request.operation {
            Operation::Flush => self.queue.add(&[header, status]),
            _ => self.queue.add(&chain),
        };
        let token = token.expect("there are no more slots than chains fit");
        self.slot_of_token[usize::from(token)] = slot as u16;
        self.under_way[slot] = Some((request, clock::now()));
    }

    /// Rings the doorbell if the device wants that.
    pub fn notify(&mut self) {
        self.queue.notify();
    }

    /// The next request that is done; none if there is none yet. A request that the disk refused is a failure.
    pub fn take_done(&mut self) -> Result<Option<Done>, Failure> {
        let Some((token, _)) = self.queue.take_used() else { return Ok(None) };
        let slot = usize::from(self.slot_of_token[usize::from(token)]);
        let Some((request, start_ns)) = self.under_way[slot].take() else { return Ok(None) };
        match self.statuses.contents()[slot] {
            STATUS_OK => Ok(Some(Done { slot, request, start_ns })),
            status => {
                let (operation, sector) = (request.operation, request.sector);
                let reason =
                    format_args!("virtio-blk: {operation:?} of sector {sector} ended with status {status}");
                Err(Failure::new(CODE_DEVICE, reason))
            }
        }
    }

    /// Sleeps until a request is done, or any other interrupt came.
    pub fn sleep(&self) {
        self.queue.sleep();
    }
}
