use std::io::Write;

use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::terminal::testing::Piped;

const DATA: u64 = 0;
const IER: u64 = 1;
const IIR_FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;

/// A port with its back end and the driver's end of its interrupt.
struct Bench {
    piped: Piped,
    serial: Arc<Serial>,
    interrupt: EventFd,
}

impl Bench {
    fn new() -> Self {
        let piped = Piped::new();
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let serial = Serial::new(&piped.backend, interrupt.try_clone().unwrap());
        Self { piped, serial, interrupt }
    }

    fn read(&self, register: u64) -> u8 {
        let mut data = [0];
        self.serial.read(register, &mut data);
        data[0]
    }

    fn write(&self, register: u64, value: u8) {
        self.serial.write(register, &[value]);
    }

    /// Edges since the last call.
    fn edges(&self) -> u64 {
        self.interrupt.read().unwrap_or(0)
    }

    /// Reads one received byte as soon as there is one.
    fn receive(&self) -> u8 {
        while self.read(LSR) & 1 == 0 {
            std::thread::yield_now();
        }
        self.read(DATA)
    }
}

#[test]
fn what_is_written_comes_out_in_order() {
    let mut bench = Bench::new();
    for byte in b"hello\r\n" {
        assert_eq!(bench.read(LSR), 0x60);
        bench.write(DATA, *byte);
    }
    assert_eq!(bench.piped.read(7), b"hello\r\n");
}

#[test]
fn a_driver_takes_it_for_a_16550a_with_a_terminal() {
    let bench = Bench::new();
    bench.write(IER, 0xff);
    assert_eq!(bench.read(IER), 0x0f, "no sleep mode, no DMA: not one of the chip's successors");
    bench.write(IER, 0);
    bench.write(MCR, 0x1a);
    assert_eq!(bench.read(MSR) & 0xf0, 0x90, "loopback connects RTS and OUT2");
    bench.write(MCR, 0x0b);
    assert_eq!(bench.read(MSR) & 0xf0, 0xb0);
    assert_eq!(bench.read(IIR_FCR), 0x01);
    bench.write(IIR_FCR, 0xe1);
    assert_eq!(bench.read(IIR_FCR), 0xc1, "FIFOs, but not those of 64 bytes");
    bench.write(LCR, 0x83);
    bench.write(DATA, 0x34);
    bench.write(IER, 0x12);
    assert_eq!((bench.read(DATA), bench.read(IER)), (0x34, 0x12), "the divisor");
    bench.write(LCR, 0x03);
    assert_eq!(bench.read(IER), 0);
}

#[test]
fn an_empty_transmitter_interrupts_each_time_it_is_asked() {
    let bench = Bench::new();
    for _ in 0..2 {
        bench.write(IER, 0x02);
        assert_eq!((bench.edges(), bench.read(IIR_FCR)), (1, 0x02));
        assert_eq!(bench.read(IIR_FCR), 0x01, "reading has cleared it");
        bench.write(IER, 0);
    }
    bench.write(IER, 0x02);
    bench.read(IIR_FCR);
    bench.edges();
    bench.write(DATA, b'x');
    assert_eq!((bench.edges(), bench.read(IIR_FCR)), (1, 0x02));
}

#[test]
fn loopback_keeps_bytes_inside_and_reports_an_overrun() {
    let mut bench = Bench::new();
    bench.write(IIR_FCR, 0x01);
    bench.write(MCR, 0x10);
    bench.write(IER, 0x04);
    (0..17).for_each(|byte| bench.write(DATA, byte));
    assert_eq!((bench.edges(), bench.read(IIR_FCR)), (1, 0xc6));
    assert_eq!(bench.read(LSR), 0x63);
    assert_eq!(bench.read(LSR), 0x61, "reading has cleared the overrun");
    (0..16).for_each(|byte| assert_eq!(bench.read(DATA), byte));
    assert_eq!(bench.read(LSR), 0x60);
    bench.write(MCR, 0);
    bench.write(DATA, b'!');
    assert_eq!(bench.piped.read(1), b"!", "nothing else has left the chip");
}

#[test]
fn a_paste_arrives_whole_whatever_the_size_of_the_fifo() {
    for fifo_control in [0x00, 0x01, 0xc1] {
        let mut bench = Bench::new();
        bench.write(IIR_FCR, fifo_control);
        let paste: Vec<u8> = (0..5000).map(|index| (index % 253) as u8).collect();
        bench.piped.input.write_all(&paste).unwrap();
        let received: Vec<u8> = (0..paste.len()).map(|_| bench.receive()).collect();
        assert_eq!(received, paste, "FIFO control {fifo_control:#x}");
    }
}

#[test]
fn what_is_typed_before_the_driver_listens_is_not_lost() {
    let mut bench = Bench::new();
    bench.piped.input.write_all(b"early").unwrap();
    bench.write(DATA, b'>');
    assert_eq!(bench.piped.read(1), b">");
    let console: &dyn Console = bench.serial.as_ref();
    assert_eq!(console.input(b"x"), 0);
    // A driver that probes: interrupts can be enabled.
    bench.write(IER, 0x0f);
    assert_eq!((bench.read(IER), console.input(b"x")), (0x0f, 0));
    bench.write(IER, 0);
    // A driver that sets the port up: clears FIFOs and registers, listens, switches the FIFOs on.
    bench.write(IIR_FCR, 0x07);
    bench.write(IIR_FCR, 0x00);
    for register in [LSR, DATA, IIR_FCR, MSR] {
        bench.read(register);
    }
    bench.write(IER, 0x05);
    bench.write(IIR_FCR, 0x01);
    bench.write(IIR_FCR, 0x81);
    assert_eq!([(); 5].map(|()| bench.receive()), *b"early");
}

#[test]
fn input_interrupts_once_until_it_is_read() {
    let bench = Bench::new();
    bench.write(IIR_FCR, 0x81);
    bench.write(IER, 0x01);
    let console: &dyn Console = bench.serial.as_ref();
    assert_eq!(console.input(b"a"), 1);
    assert_eq!((bench.edges(), bench.read(IIR_FCR)), (1, 0xcc), "below the trigger level: a timeout");
    assert_eq!(console.input(b"0123456789abcdefgh"), 15);
    assert_eq!((bench.edges(), bench.read(IIR_FCR)), (0, 0xc4));
    assert_eq!(console.input(b"x"), 0, "a full FIFO takes nothing");
    (0..16).for_each(|_| assert_ne!(bench.read(DATA), 0));
    assert_eq!(bench.read(IIR_FCR), 0xc1);
    assert_eq!(console.input(b"x"), 1);
    assert_eq!(bench.edges(), 1);
}

#[test]
fn a_stuck_reader_makes_the_port_busy_and_it_tells_when_there_is_room() {
    let mut bench = Bench::new();
    let mut written = 0;
    while bench.read(LSR) & 0x20 != 0 {
        bench.write(DATA, (written % 251) as u8);
        written += 1;
        assert!(written < 1 << 20, "the port never looked busy");
    }
    bench.write(IER, 0x02);
    assert_eq!((bench.edges(), bench.read(IIR_FCR)), (0, 0x01), "nothing to tell yet");
    let seen = bench.piped.read(written);
    assert!(seen.iter().enumerate().all(|(index, byte)| *byte == (index % 251) as u8));
    while bench.read(LSR) & 0x20 == 0 {
        std::thread::yield_now();
    }
    while bench.edges() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(bench.read(IIR_FCR), 0x02);
    assert_eq!(bench.piped.backend.dropped_bytes(), 0);
}

#[test]
fn a_wide_access_reaches_the_following_registers() {
    let mut bench = Bench::new();
    bench.serial.write(7, &[0x5a, b'?']);
    let mut data = [0; 2];
    bench.serial.read(7, &mut data);
    assert_eq!(data, [0x5a, 0xff]);
    bench.serial.write(u64::MAX, &[1, 2]);
    bench.write(DATA, b'.');
    assert_eq!(bench.piped.read(1), b".");
}
