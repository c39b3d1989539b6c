//! An entropy source (VIRTIO 1.3 §5.4).

use super::queue::{Buffer, Queue};
use super::{DeviceKind, Transport};
use crate::arena::{Arena, DeviceMemory};
use crate::failure::{CODE_DEVICE, Failure};
use crate::pci::Function;

/// Bytes of one request.
pub const PIECE: usize = 4096;

/// A source that is ready.
pub struct Entropy<'a> {
    transport: Transport,
    queue: Queue<'a>,
    memory: DeviceMemory<'a>,
}

impl<'a> Entropy<'a> {
    /// Opens the first entropy source.
    pub fn open(functions: &[Function], arena: &'a Arena) -> Result<Self, Failure> {
        let transport = Transport::open_first(DeviceKind::Entropy, functions, 0)?;
        let queue = transport.queue(0, 8, arena)?;
        let entropy = Self { queue, memory: arena.device_memory(PIECE, 4096)?, transport };
        entropy.transport.start();
        Ok(entropy)
    }

    /// Asks for `bytes` bytes (1 to [`PIECE`]) and sleeps until some came; the device may give fewer.
    pub fn read(&mut self, bytes: usize) -> Result<&[u8], Failure> {
        assert!((1..=PIECE).contains(&bytes), "a request fits the buffer");
        let buffer = Buffer { address: self.memory.address(), bytes: bytes as u32, device_writes: true };
        self.queue.add(&[buffer]).expect("one request at a time fits");
        self.queue.notify();
        loop {
            if let Some((_, written)) = self.queue.take_used() {
                let written = written as usize;
                if !(1..=bytes).contains(&written) {
                    let reason = format_args!("virtio-rng: gave {written} bytes for {bytes}");
                    return Err(Failure::new(CODE_DEVICE, reason));
                }
                return Ok(&self.memory.contents()[..written]);
            }
            self.queue.sleep();
        }
    }
}
