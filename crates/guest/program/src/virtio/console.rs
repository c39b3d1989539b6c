//! A console with one port (VIRTIO 1.3 §5.3).

use super::queue::{Buffer, Queue};
use super::{DeviceKind, Transport};
use crate::arena::{Arena, DeviceMemory};
use crate::failure::Failure;
use crate::pci::Function;

/// Bytes of one buffer.
pub const BUFFER: usize = 256;
const BUFFERS: usize = 16;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// A console that is ready.
pub struct Console<'a> {
    transport: Transport,
    receive: Queue<'a>,
    transmit: Queue<'a>,
    input: DeviceMemory<'a>,
    output: DeviceMemory<'a>,
    buffer_of_token: &'a mut [u16],
}

impl<'a> Console<'a> {
    /// Opens the first console.
    pub fn open(functions: &[Function], arena: &'a Arena) -> Result<Self, Failure> {
        let transport = Transport::open_first(DeviceKind::Console, functions, 0)?;
        let mut console = Self {
            receive: transport.queue(RECEIVE, BUFFERS as u16, arena)?,
            transmit: transport.queue(TRANSMIT, BUFFERS as u16, arena)?,
            input: arena.device_memory(BUFFERS * BUFFER, 4096)?,
            output: arena.device_memory(BUFFER, 4096)?,
            buffer_of_token: arena.slice(BUFFERS, 2)?,
            transport,
        };
        let buffers = usize::from(console.receive.chains_max(1)).min(BUFFERS);
        console.transport.start();
        (0..buffers).for_each(|buffer| console.offer(buffer));
        console.receive.notify();
        Ok(console)
    }

    fn offer(&mut self, buffer: usize) {
        let address = self.input.address() + (buffer * BUFFER) as u64;
        let buffers = [Buffer { address, bytes: BUFFER as u32, device_writes: true }];
        let token = self.receive.add(&buffers).expect("there are no more buffers than descriptors");
        self.buffer_of_token[usize::from(token)] = buffer as u16;
    }

    /// Copies what came into `text`, at most one buffer. 0 if nothing came.
    pub fn read(&mut self, text: &mut [u8; BUFFER]) -> usize {
        let Some((token, written)) = self.receive.take_used() else { return 0 };
        let buffer = usize::from(self.buffer_of_token[usize::from(token)]);
        let bytes = (written as usize).min(BUFFER);
        text[..bytes].copy_from_slice(&self.input.contents()[buffer * BUFFER..][..bytes]);
        self.offer(buffer);
        self.receive.notify();
        bytes
    }

    /// Sends `text`, at most one buffer, and sleeps until the device has taken it, or `give_up` holds after an interrupt.
    pub fn write(&mut self, text: &[u8], mut give_up: impl FnMut() -> bool) {
        let bytes = text.len().min(BUFFER);
        self.output.contents()[..bytes].copy_from_slice(&text[..bytes]);
        let buffer = Buffer { address: self.output.address(), bytes: bytes as u32, device_writes: false };
        self.transmit.add(&[buffer]).expect("one text at a time fits");
        self.transmit.notify();
        while self.transmit.take_used().is_none() && !give_up() {
            self.transmit.sleep();
        }
    }

    /// Sleeps until something came, or any other interrupt.
    pub fn sleep(&self) {
        self.receive.sleep();
    }
}
