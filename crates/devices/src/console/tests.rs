use std::io::Write;

use napa_sys::reactor::WorkerId;
use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::terminal::testing::{Piped, on};
use crate::testing::{Bench, Driver, RINGS_BYTES, WRITE, ram};

/// Where the rings of the two queues are, and where data is.
const RINGS: u64 = 0x1000;
const DATA: u64 = 0x10_0000;

/// A console whose workers share a thread with its back end's, as in a VM.
struct Rig {
    piped: Piped,
    bench: Bench,
    device: VirtioConsole,
    receive: Driver,
    transmit: Driver,
    workers: Vec<WorkerId>,
}

impl Rig {
    fn new() -> Self {
        let piped = Piped::new();
        let bench = Bench::new(&ram(4));
        let mut device = VirtioConsole::new(&piped.backend).unwrap();
        let (receive, receive_queue) = bench.queue(RINGS, QUEUE_SIZE);
        let (transmit, transmit_queue) = bench.queue(RINGS + RINGS_BYTES, QUEUE_SIZE);
        let placed = device.activate(Activation {
            memory: Arc::clone(&bench.ram),
            pages: bench.pages(),
            features: device.features(),
            queues: vec![Some(receive_queue), Some(transmit_queue)],
            config_interrupt: bench.config_interrupt.clone(),
            health: bench.health.clone(),
        });
        let workers =
            placed.unwrap().into_iter().map(|(_, worker)| piped.handle.add(worker).unwrap()).collect();
        Self { piped, bench, device, receive, transmit, workers }
    }

    /// Makes `bytes` available to the device and rings.
    fn send(&mut self, bytes: &[u8]) -> u16 {
        self.bench.ram.write_slice(bytes, GuestAddress(DATA)).unwrap();
        let head = self.transmit.add(&[(DATA, bytes.len() as u32, 0)]);
        self.transmit.kick();
        head
    }

    fn reset(&mut self) {
        let take = |worker| self.piped.handle.remove(worker).unwrap().unwrap();
        let workers = self.workers.drain(..).map(take).collect();
        self.device.reset(workers);
    }
}

#[test]
fn what_the_guest_sends_comes_out_and_its_buffers_come_back() {
    let mut rig = Rig::new();
    for text in [b"login: ".as_slice(), b"x", &[7; 10_000]] {
        let head = rig.send(text);
        assert_eq!(rig.piped.read(text.len()), text);
        assert_eq!(rig.transmit.wait_used(), (head, 0));
    }
    let head = rig.send(b"");
    assert_eq!(rig.transmit.wait_used(), (head, 0));
    assert!(!rig.bench.needs_reset());
}

#[test]
fn input_fills_the_buffers_that_the_guest_gives() {
    let mut rig = Rig::new();
    let head = rig.send(b"$ ");
    rig.transmit.wait_used();
    assert_eq!(rig.piped.read(2), b"$ ");
    let paste: Vec<u8> = (0..20_000).map(|index| (index % 251) as u8).collect();
    rig.piped.input.write_all(&paste).unwrap();
    let mut seen = Vec::new();
    while seen.len() < paste.len() {
        let given = rig.receive.add(&[(DATA, 100, WRITE), (DATA + 100, 28, WRITE)]);
        rig.receive.kick();
        let (used, count) = rig.receive.wait_used();
        assert_eq!(used, given, "after {head}");
        let mut bytes = vec![0; count as usize];
        rig.bench.ram.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
        seen.extend(bytes);
    }
    assert_eq!(seen, paste);
}

#[test]
fn a_stuck_reader_delays_the_guest_and_loses_nothing() {
    let mut rig = Rig::new();
    let bytes = vec![b'x'; 300_000];
    let head = rig.send(&bytes);
    let second = {
        let head = rig.transmit.add(&[(DATA, 3, 0)]);
        rig.transmit.kick();
        head
    };
    assert_eq!(rig.transmit.wait_used_for(std::time::Duration::from_millis(50)), None);
    assert_eq!(rig.piped.read(bytes.len()), bytes);
    assert_eq!((rig.transmit.wait_used(), rig.transmit.wait_used()), ((head, 0), (second, 0)));
    assert_eq!(rig.piped.read(3), b"xxx");
    assert_eq!(rig.piped.backend.dropped_bytes(), 0);
}

#[test]
fn an_emergency_write_needs_no_driver() {
    let mut piped = Piped::new();
    let mut device = VirtioConsole::new(&piped.backend).unwrap();
    device.write_config(8, &u32::from(b'!').to_le_bytes());
    device.write_config(8, b"?");
    device.write_config(0, b"no");
    device.write_config(9, b"no");
    device.write_config(8, &[]);
    device.write_config(8, b".");
    assert_eq!(piped.read(3), b"!?.");
}

#[test]
fn the_configuration_tells_the_size_of_the_terminal() {
    let (input, _person) = std::io::pipe().unwrap();
    let (_reader, output) = std::io::pipe().unwrap();
    let (backend, _worker, _commands) = on(&input, &output);
    let device = VirtioConsole::new(&backend).unwrap();
    let mut space = [0xff; 16];
    device.read_config(0, &mut space);
    assert_eq!(space, [0; 16], "a pipe has no size");
    assert_eq!(config_space(80, 24)[..4], [80, 0, 24, 0]);
}

#[test]
fn a_resize_interrupts_a_driver_that_runs() {
    let mut rig = Rig::new();
    let port = Arc::clone(&rig.device.port);
    let console: &dyn crate::terminal::Console = port.as_ref();
    console.resized(100, 30);
    rig.bench.wait_config_interrupt();
    rig.reset();
    console.resized(100, 31);
    assert!(!console.listens());
}

#[test]
fn a_reset_forgets_input_and_the_next_driver_gets_what_comes_then() {
    let mut rig = Rig::new();
    rig.send(b"$ ");
    rig.transmit.wait_used();
    rig.piped.input.write_all(b"early").unwrap();
    while !rig.device.port.has_input() {
        std::thread::yield_now();
    }
    rig.reset();
    assert!(!rig.device.port.has_input());
}

#[test]
fn a_receive_buffer_without_room_needs_a_reset() {
    let mut rig = Rig::new();
    rig.send(b"$ ");
    rig.transmit.wait_used();
    rig.receive.add(&[(DATA, 8, 0)]);
    rig.receive.kick();
    rig.piped.input.write_all(b"x").unwrap();
    while !rig.bench.needs_reset() {
        std::thread::yield_now();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_rings_harm_nobody(
        descriptors in vec((prop_oneof![4 => DATA..DATA + 0x1000, 1 => any::<u64>()], prop_oneof![4 => 0..200_u32, 1 => any::<u32>()], 0..8_u16, 0..40_u16), 32),
        heads in vec(prop_oneof![8 => 0..32_u16, 1 => any::<u16>()], 1..48),
    ) {
        let mut rig = Rig::new();
        for (index, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
            let descriptor = Descriptor::new(address, length, flags, next);
            rig.transmit.store(index as u16, descriptor);
            rig.receive.store(index as u16, descriptor);
        }
        let mut output = rig.piped.output.try_clone().unwrap();
        let _reading = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        heads.iter().for_each(|head| { rig.transmit.offer(*head); rig.receive.offer(*head); });
        rig.transmit.kick();
        rig.receive.kick();
        rig.piped.input.write_all(b"input").unwrap();
        let patience = std::time::Duration::from_millis(2);
        let mut owed = heads.clone();
        while let Some((head, _)) = rig.transmit.wait_used_for(patience) {
            let place = owed.iter().position(|owed| *owed == head);
            prop_assert!(place.is_some(), "head {} came back and was not given", head);
            owed.swap_remove(place.unwrap());
        }
        while let Some((head, written)) = rig.receive.used() {
            prop_assert!(heads.contains(&head) && written <= 5);
        }
        // The thread lives: it gives the workers back.
        rig.reset();
    }
}
