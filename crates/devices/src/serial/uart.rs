//! Registers of a 16550A (TL16C550C data sheet, §"Principles of operation"), without a line.
//!
//! Time does not pass between two accesses: a byte is sent as soon as it is written, and what lies in
//! the receive FIFO below its trigger level counts as timed out.

/// Entries of the receive FIFO; one when FIFOs are off.
const FIFO_BYTES: usize = 16;
/// A driver that looks so often for input, and does nothing else between, wants some. Probing a port or
/// sending a byte takes fewer looks.
const LOOKS_MIN: u8 = 32;

mod register {
    pub const DATA: u8 = 0;
    pub const INTERRUPT_ENABLE: u8 = 1;
    pub const INTERRUPT_IDENTIFICATION_OR_FIFO_CONTROL: u8 = 2;
    pub const LINE_CONTROL: u8 = 3;
    pub const MODEM_CONTROL: u8 = 4;
    pub const LINE_STATUS: u8 = 5;
    pub const MODEM_STATUS: u8 = 6;
    pub const SCRATCH: u8 = 7;
}

mod enable {
    pub const RECEIVED: u8 = 1;
    pub const TRANSMITTER_EMPTY: u8 = 2;
    pub const LINE_STATUS: u8 = 4;
    pub const MODEM_STATUS: u8 = 8;
    pub const ALL: u8 = 0x0f;
}

mod identification {
    pub const NONE: u8 = 1;
    pub const MODEM_STATUS: u8 = 0;
    pub const TRANSMITTER_EMPTY: u8 = 2;
    pub const RECEIVED: u8 = 4;
    pub const LINE_STATUS: u8 = 6;
    pub const TIMEOUT: u8 = 0xc;
    pub const FIFOS_ENABLED: u8 = 0xc0;
}

mod fifo_control {
    pub const ENABLE: u8 = 1;
    pub const CLEAR_RECEIVE: u8 = 2;
    pub const TRIGGER_SHIFT: u8 = 6;
}

mod line_status {
    pub const RECEIVED: u8 = 1;
    pub const OVERRUN: u8 = 2;
    pub const HOLDING_EMPTY: u8 = 0x20;
    pub const TRANSMITTER_EMPTY: u8 = 0x40;
}

mod modem {
    pub const CONTROL_DTR: u8 = 1;
    pub const CONTROL_RTS: u8 = 2;
    pub const CONTROL_OUT1: u8 = 4;
    pub const CONTROL_OUT2: u8 = 8;
    pub const CONTROL_LOOPBACK: u8 = 0x10;
    pub const CONTROL_ALL: u8 = 0x1f;
    pub const CTS: u8 = 0x10;
    pub const DSR: u8 = 0x20;
    pub const RING: u8 = 0x40;
    pub const CARRIER: u8 = 0x80;
    /// What a terminal that is there and listens signals.
    pub const TERMINAL: u8 = CTS | DSR | CARRIER;
}

const DIVISOR_ACCESS: u8 = 0x80;
/// Divisor for 9600 baud, what firmware leaves behind.
const DIVISOR_RESET: [u8; 2] = [12, 0];

/// Whether the line takes another byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transmitter {
    Idle,
    Busy,
}

/// The state of the chip.
#[derive(Debug)]
pub(super) struct Uart {
    divisor: [u8; 2],
    interrupt_enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    modem_deltas: u8,
    scratch: u8,
    received: Fifo,
    has_overrun: bool,
    /// How often the driver has looked for input since it did something else.
    looks: u8,
    /// The transmitter ran empty and nobody has been told.
    is_empty_due: bool,
    /// The interrupt line, as last reported by [`take_edge`](Self::take_edge).
    line: bool,
}

impl Default for Uart {
    fn default() -> Self {
        Self {
            divisor: DIVISOR_RESET,
            interrupt_enable: 0,
            fifo_control: 0,
            // 8 bits, no parity, 1 stop bit.
            line_control: 3,
            modem_control: 0,
            modem_deltas: 0,
            scratch: 0,
            received: Fifo::default(),
            has_overrun: false,
            looks: 0,
            is_empty_due: false,
            line: false,
        }
    }
}

impl Uart {
    /// Reads `register` (0 to 7).
    pub fn read(&mut self, register: u8, transmitter: Transmitter) -> u8 {
        let divisor_access = self.line_control & DIVISOR_ACCESS != 0;
        match register {
            register::DATA | register::INTERRUPT_ENABLE if divisor_access => {
                self.divisor[usize::from(register)]
            }
            register::DATA => self.received.pop().unwrap_or(0),
            register::INTERRUPT_ENABLE => self.interrupt_enable,
            register::INTERRUPT_IDENTIFICATION_OR_FIFO_CONTROL => self.read_identification(),
            register::LINE_CONTROL => self.line_control,
            register::MODEM_CONTROL => self.modem_control,
            register::LINE_STATUS => self.read_line_status(transmitter),
            register::MODEM_STATUS => self.modem_lines() | std::mem::take(&mut self.modem_deltas),
            register::SCRATCH => self.scratch,
            _ => 0xff,
        }
    }

    /// Writes `register` (0 to 7). A byte for the line comes back; tell what became of it with
    /// [`transmitted`](Self::transmitted).
    pub fn write(&mut self, register: u8, value: u8, transmitter: Transmitter) -> Option<u8> {
        let divisor_access = self.line_control & DIVISOR_ACCESS != 0;
        self.looks = 0;
        match register {
            register::DATA | register::INTERRUPT_ENABLE if divisor_access => {
                self.divisor[usize::from(register)] = value;
            }
            register::DATA => return self.send(value),
            register::INTERRUPT_ENABLE => self.write_enable(value, transmitter),
            register::INTERRUPT_IDENTIFICATION_OR_FIFO_CONTROL => self.write_fifo_control(value),
            register::LINE_CONTROL => self.line_control = value,
            register::MODEM_CONTROL => self.write_modem_control(value),
            register::SCRATCH => self.scratch = value,
            // The status registers are for factory tests when written.
            _ => {}
        }
        None
    }

    /// Takes bytes from the line as far as there is room; returns how many. A driver that does not listen
    /// yet would throw them away when it sets the port up, so they wait outside.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let is_connected = self.listens() && !self.is_loopback();
        let room = if is_connected { self.capacity().saturating_sub(self.received.len()) } else { 0 };
        let count = bytes.len().min(room);
        bytes[..count].iter().for_each(|byte| self.received.push(*byte));
        count
    }

    /// The line has taken what was sent, or takes bytes again.
    pub fn transmitted(&mut self, transmitter: Transmitter) {
        self.is_empty_due = transmitter == Transmitter::Idle;
    }

    /// Whether the driver asked to be told of received bytes, or looks for them by itself.
    pub fn listens(&self) -> bool {
        // All interrupts at once, with the PC's gate for them shut, is how a driver probes for the chip.
        let is_probing =
            self.interrupt_enable == enable::ALL && self.modem_control & modem::CONTROL_OUT2 == 0;
        let is_asked = self.interrupt_enable & enable::RECEIVED != 0 && !is_probing;
        is_asked || self.looks >= LOOKS_MIN
    }

    /// Whether received bytes wait for the driver.
    pub fn has_received(&self) -> bool {
        self.received.len() > 0
    }

    /// Whether the interrupt line has risen since the last call.
    pub fn take_edge(&mut self) -> bool {
        let line = self.pending() != identification::NONE;
        let has_risen = line && !self.line;
        self.line = line;
        has_risen
    }

    /// The most urgent interrupt, by the data sheet's priorities.
    fn pending(&self) -> u8 {
        let is_enabled = |bit| self.interrupt_enable & bit != 0;
        if is_enabled(enable::LINE_STATUS) && self.has_overrun {
            identification::LINE_STATUS
        } else if is_enabled(enable::RECEIVED) && self.has_received() {
            let is_below_trigger = self.has_fifos() && self.received.len() < self.trigger_level();
            if is_below_trigger { identification::TIMEOUT } else { identification::RECEIVED }
        } else if is_enabled(enable::TRANSMITTER_EMPTY) && self.is_empty_due {
            identification::TRANSMITTER_EMPTY
        } else if is_enabled(enable::MODEM_STATUS) && self.modem_deltas != 0 {
            identification::MODEM_STATUS
        } else {
            identification::NONE
        }
    }

    fn read_identification(&mut self) -> u8 {
        let pending = self.pending();
        if pending == identification::TRANSMITTER_EMPTY {
            self.is_empty_due = false;
        }
        if self.has_fifos() { pending | identification::FIFOS_ENABLED } else { pending }
    }

    fn read_line_status(&mut self, transmitter: Transmitter) -> u8 {
        let mut status = 0;
        if self.has_received() {
            status |= line_status::RECEIVED;
        }
        if std::mem::take(&mut self.has_overrun) {
            status |= line_status::OVERRUN;
        }
        if transmitter == Transmitter::Idle || self.is_loopback() {
            status |= line_status::HOLDING_EMPTY | line_status::TRANSMITTER_EMPTY;
            // While the transmitter is busy the driver may be looking at that.
            self.looks = self.looks.saturating_add(1);
        }
        status
    }

    fn send(&mut self, byte: u8) -> Option<u8> {
        if !self.is_loopback() {
            return Some(byte);
        }
        if self.received.len() < self.capacity() {
            self.received.push(byte);
        } else {
            self.has_overrun = true;
        }
        self.transmitted(Transmitter::Idle);
        None
    }

    fn write_enable(&mut self, value: u8, transmitter: Transmitter) {
        let newly_enabled = value & !self.interrupt_enable;
        self.interrupt_enable = value & enable::ALL;
        // Enabling the interrupt while the transmitter is empty raises it (data sheet, IER bit 1); drivers
        // start to send that way.
        if newly_enabled & enable::TRANSMITTER_EMPTY != 0 && transmitter == Transmitter::Idle {
            self.is_empty_due = true;
        }
    }

    fn write_fifo_control(&mut self, value: u8) {
        // The chip clears its FIFOs when they are switched, too. Drivers switch them on when they listen
        // already, and a byte that came in between would be lost.
        if value & fifo_control::CLEAR_RECEIVE != 0 {
            self.received = Fifo::default();
        }
        // Without its enable bit no other bit of the register is taken.
        self.fifo_control = if value & fifo_control::ENABLE != 0 { value } else { 0 };
    }

    fn write_modem_control(&mut self, value: u8) {
        let before = self.modem_lines();
        self.modem_control = value & modem::CONTROL_ALL;
        let changed = before ^ self.modem_lines();
        // The ring indicator is reported at the end of a ring only (MSR bit 2).
        let reported = changed & !(modem::RING & !before);
        self.modem_deltas |= reported >> 4;
    }

    /// The upper half of the modem status register.
    fn modem_lines(&self) -> u8 {
        if !self.is_loopback() {
            return modem::TERMINAL;
        }
        let wires = [
            (modem::CONTROL_RTS, modem::CTS),
            (modem::CONTROL_DTR, modem::DSR),
            (modem::CONTROL_OUT1, modem::RING),
            (modem::CONTROL_OUT2, modem::CARRIER),
        ];
        let connected = wires.iter().filter(|(control, _)| self.modem_control & control != 0);
        connected.fold(0, |lines, (_, line)| lines | line)
    }

    fn is_loopback(&self) -> bool {
        self.modem_control & modem::CONTROL_LOOPBACK != 0
    }

    fn has_fifos(&self) -> bool {
        self.fifo_control & fifo_control::ENABLE != 0
    }

    fn capacity(&self) -> usize {
        if self.has_fifos() { FIFO_BYTES } else { 1 }
    }

    fn trigger_level(&self) -> usize {
        [1, 4, 8, 14][usize::from(self.fifo_control >> fifo_control::TRIGGER_SHIFT)]
    }
}

/// At most [`FIFO_BYTES`] bytes, first in, first out.
#[derive(Debug, Default)]
struct Fifo {
    bytes: [u8; FIFO_BYTES],
    first: usize,
    count: usize,
}

impl Fifo {
    fn len(&self) -> usize {
        self.count
    }

    /// The caller has looked for room.
    fn push(&mut self, byte: u8) {
        assert!(self.count < FIFO_BYTES, "the caller looks for room first");
        self.bytes[(self.first + self.count) % FIFO_BYTES] = byte;
        self.count += 1;
    }

    fn pop(&mut self) -> Option<u8> {
        self.count = self.count.checked_sub(1)?;
        let byte = self.bytes[self.first];
        self.first = (self.first + 1) % FIFO_BYTES;
        Some(byte)
    }
}
