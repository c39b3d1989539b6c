//! The serial port COM1: a 16550A whose line is the console.
//!
//! It carries a guest's first words, needs no driver that a kernel could lack, and is slow: each byte
//! is an exit. The registers are in [`uart`]; here are the lock, the interrupt and the console.

mod uart;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napa_virtio::BusDevice;
use vmm_sys_util::eventfd::EventFd;

use self::uart::{Transmitter, Uart};
use crate::ConsoleBackend;
use crate::terminal::{Console, ConsoleKind};

/// Ports of COM1.
pub const PORTS: Range<u16> = 0x3f8..0x400;
/// Interrupt line of COM1, edge-triggered.
pub const INTERRUPT_LINE: u32 = 4;

/// The 16550A at COM1.
pub struct Serial {
    uart: Mutex<Uart>,
    interrupt: EventFd,
    backend: Arc<ConsoleBackend>,
}

impl Serial {
    /// A port after power-on, in place of an earlier one on `backend`. Each write to `interrupt` is an
    /// edge on [`INTERRUPT_LINE`].
    pub fn new(backend: &Arc<ConsoleBackend>, interrupt: EventFd) -> Arc<Self> {
        let serial = Self { uart: Mutex::default(), interrupt, backend: Arc::clone(backend) };
        let serial = Arc::new(serial);
        let console: Arc<dyn Console> = serial.clone();
        backend.connect(ConsoleKind::Serial, Arc::downgrade(&console));
        serial
    }

    fn transmitter(&self) -> Transmitter {
        if self.backend.is_output_full() { Transmitter::Busy } else { Transmitter::Idle }
    }

    fn read_register(&self, register: u8) -> u8 {
        let mut uart = self.uart();
        let before = InputState::of(&uart);
        let value = uart.read(register, self.transmitter());
        self.interrupt_if_due(&mut uart);
        self.tell_input(before, uart);
        value
    }

    fn write_register(&self, register: u8, value: u8) {
        let mut uart = self.uart();
        let before = InputState::of(&uart);
        if let Some(byte) = uart.write(register, value, self.transmitter()) {
            // The lock is held so that two vCPUs' bytes leave in the order in which they were accepted.
            self.backend.write_or_drop(ConsoleKind::Serial, &[byte]);
            uart.transmitted(self.transmitter());
        }
        self.interrupt_if_due(&mut uart);
        self.tell_input(before, uart);
    }

    /// Tells the back end if input that it holds may find its way now.
    fn tell_input(&self, before: InputState, uart: MutexGuard<'_, Uart>) {
        let now = InputState::of(&uart);
        drop(uart);
        if now.listens != before.listens || (before.waits && !now.waits) {
            self.backend.input_room();
        }
    }

    fn interrupt_if_due(&self, uart: &mut Uart) {
        if uart.take_edge() {
            // A full counter means that an edge is pending already.
            let _ = self.interrupt.write(1);
        }
    }

    fn uart(&self) -> MutexGuard<'_, Uart> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the back end wants to know of the port.
struct InputState {
    listens: bool,
    waits: bool,
}

impl InputState {
    fn of(uart: &Uart) -> Self {
        Self { listens: uart.listens(), waits: uart.has_received() }
    }
}

/// Accesses wider than a byte reach the following ports, as on an 8-bit bus.
impl BusDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (port, value) in (offset..).zip(data) {
            *value = if port < PORTS.len() as u64 { self.read_register(port as u8) } else { 0xff };
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        for (port, value) in (offset..PORTS.len() as u64).zip(data) {
            self.write_register(port as u8, *value);
        }
    }
}

impl Console for Serial {
    fn listens(&self) -> bool {
        self.uart().listens()
    }

    fn input(&self, bytes: &[u8]) -> usize {
        let mut uart = self.uart();
        let count = uart.receive(bytes);
        self.interrupt_if_due(&mut uart);
        count
    }

    fn output_room(&self) {
        let mut uart = self.uart();
        uart.transmitted(self.transmitter());
        self.interrupt_if_due(&mut uart);
    }

    fn resized(&self, _columns: u16, _rows: u16) {
        // A serial line does not tell its size.
    }
}

#[cfg(test)]
mod tests;
