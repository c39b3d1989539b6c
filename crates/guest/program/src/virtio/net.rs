//! A network card without offloads (VIRTIO 1.3 §5.1), as smoltcp uses it.

use super::queue::{Buffer, Queue};
use super::{DeviceKind, Transport};
use crate::arena::{Arena, DeviceMemory};
use crate::background;
use crate::failure::Failure;
use crate::pci::Function;
use heapless::Vec;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

const FEATURE_MAC: u64 = 1 << 5;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const BUFFERS: usize = 128;
const BUFFER: usize = 2048;
/// `virtio_net_hdr_v1`; all zero where nothing is left to the device.
const HEADER: usize = 12;
/// Ethernet header and payload.
const FRAME_MAX: usize = 1514;
/// Locally administered, where the device has no address of its own.
const DEFAULT_MAC: [u8; 6] = [0x02, 0x6e, 0x61, 0x70, 0x61, 0x01];

/// Frames that went through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// How many.
    pub frames: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes: u64,
}

/// One direction: a queue and its buffers.
struct Lane<'a> {
    queue: Queue<'a>,
    memory: DeviceMemory<'a>,
    buffer_of_token: [u16; BUFFERS],
    traffic: Traffic,
}

/// A card that is ready.
pub struct Net<'a> {
    transport: Transport,
    receiver: Lane<'a>,
    sender: Lane<'a>,
    /// Buffers of the sender that the device does not have.
    free: Vec<u16, BUFFERS>,
}

impl<'a> Lane<'a> {
    fn new(transport: &Transport, index: u16, arena: &'a Arena) -> Result<Self, Failure> {
        let queue = transport.queue(index, BUFFERS as u16, arena)?;
        let memory = arena.device_memory(BUFFERS * BUFFER, 4096)?;
        Ok(Self { queue, memory, buffer_of_token: [0; BUFFERS], traffic: Traffic::default() })
    }

    fn give(&mut self, buffer: u16, bytes: usize, device_writes: bool) {
        let address = self.memory.address() + (usize::from(buffer) * BUFFER) as u64;
        let buffers = [Buffer { address, bytes: bytes as u32, device_writes }];
        let token = self.queue.add(&buffers).expect("there are no more buffers than descriptors");
        self.buffer_of_token[usize::from(token)] = buffer;
    }

    fn take(&mut self) -> Option<(u16, usize)> {
        let (token, bytes) = self.queue.take_used()?;
        Some((self.buffer_of_token[usize::from(token)], bytes as usize))
    }

    fn contents(&mut self, buffer: u16) -> &mut [u8] {
        &mut self.memory.contents()[usize::from(buffer) * BUFFER..][..BUFFER]
    }

    fn count(&mut self, bytes: usize) {
        self.traffic.frames += 1;
        self.traffic.bytes += bytes as u64;
    }
}

impl<'a> Net<'a> {
    /// Opens the first network card.
    pub fn open(functions: &[Function], arena: &'a Arena) -> Result<Self, Failure> {
        let transport = Transport::open_first(DeviceKind::Net, functions, FEATURE_MAC)?;
        let mut net = Self {
            receiver: Lane::new(&transport, RECEIVE, arena)?,
            sender: Lane::new(&transport, TRANSMIT, arena)?,
            free: Vec::new(),
            transport,
        };
        net.transport.start();
        for buffer in 0..net.sender.queue.chains_max(1) {
            net.free.push(buffer).expect("queues have at most 128 descriptors");
        }
        (0..net.receiver.queue.chains_max(1)).for_each(|buffer| net.receiver.give(buffer, BUFFER, true));
        net.receiver.queue.notify();
        Ok(net)
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> [u8; 6] {
        if !self.transport.has(FEATURE_MAC) {
            return DEFAULT_MAC;
        }
        core::array::from_fn(|index| self.transport.configuration_u8(index as u64))
    }

    /// What was received and what was sent.
    pub fn traffic(&self) -> (Traffic, Traffic) {
        (self.receiver.traffic, self.sender.traffic)
    }

    /// Shows the device the buffers that were given to it since the last call.
    pub fn notify(&mut self) {
        self.sender.queue.notify();
        self.receiver.queue.notify();
    }

    /// Sleeps until a frame came, a buffer came free where none was, or any other interrupt came.
    pub fn sleep(&mut self) {
        self.reclaim();
        let frame_waits = self.receiver.queue.arm();
        let buffer_waits = self.free.is_empty() && self.sender.queue.arm();
        if !frame_waits && !buffer_waits {
            background::halt();
        }
        self.receiver.queue.silence();
        self.sender.queue.silence();
    }

    fn reclaim(&mut self) {
        while let Some((buffer, _)) = self.sender.take() {
            self.free.push(buffer).expect("a buffer is free once");
        }
    }
}

/// A frame that came.
pub struct Received<'b, 'a> {
    receiver: &'b mut Lane<'a>,
    buffer: u16,
    bytes: usize,
}

/// Room for a frame to be sent.
pub struct Room<'b, 'a> {
    sender: &'b mut Lane<'a>,
    free: &'b mut Vec<u16, BUFFERS>,
}

impl<'a> Device for Net<'a> {
    type RxToken<'b>
        = Received<'b, 'a>
    where
        Self: 'b;
    type TxToken<'b>
        = Room<'b, 'a>
    where
        Self: 'b;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_, 'a>, Room<'_, 'a>)> {
        self.reclaim();
        if self.free.is_empty() {
            return None;
        }
        let (buffer, bytes) = self.receiver.take()?;
        // A device that claims more than the buffer holds, or less than a header, gave nothing.
        let bytes = bytes.min(BUFFER).saturating_sub(HEADER);
        self.receiver.count(bytes);
        let received = Received { receiver: &mut self.receiver, buffer, bytes };
        Some((received, Room { sender: &mut self.sender, free: &mut self.free }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_, 'a>> {
        self.reclaim();
        (!self.free.is_empty()).then_some(Room { sender: &mut self.sender, free: &mut self.free })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        capabilities
    }
}

impl RxToken for Received<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, consume: F) -> R {
        let result = consume(&self.receiver.contents(self.buffer)[HEADER..HEADER + self.bytes]);
        self.receiver.give(self.buffer, BUFFER, true);
        result
    }
}

impl TxToken for Room<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, fill: F) -> R {
        let buffer = self.free.pop().expect("a token is given while there is a free buffer");
        let bytes = bytes.min(BUFFER - HEADER);
        let contents = self.sender.contents(buffer);
        contents[..HEADER].fill(0);
        let result = fill(&mut contents[HEADER..HEADER + bytes]);
        self.sender.give(buffer, HEADER + bytes, false);
        self.sender.count(bytes);
        result
    }
}
