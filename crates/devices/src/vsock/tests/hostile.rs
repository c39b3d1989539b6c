//! Guests that send whatever they like.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vm_memory::{Bytes as _, GuestAddress};

use super::guest::{CID, Guest, RAM_MIB, RECEIVE_RINGS, TRANSMIT_RINGS};
use crate::testing::WRITE;
use crate::vsock::request::{HOST_CID, Operation, Packet, Ports};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    /// The guest sends a packet that is plausible in places.
    Packet(Packet, usize),
    /// The guest makes a request of any shape.
    Request(bool, Vec<(u64, u32, u16)>),
    /// The guest writes into its rings.
    Scribble(bool, u64, Vec<u8>),
    Post(u16),
    /// A client comes, says something and perhaps stays.
    Client(Vec<u8>, bool),
}

fn packet() -> impl Strategy<Value = Packet> {
    // The first clients of the host get these ports.
    let port = prop_oneof![4 => Just(1 << 30), 2 => Just((1 << 30) + 1), 4 => Just(7), 1 => any::<u32>()];
    let cid = prop_oneof![9 => Just((u64::from(CID), HOST_CID)), 1 => any::<(u64, u64)>()];
    let kind = prop_oneof![9 => Just(1), 1 => any::<u16>()];
    let operation = prop_oneof![9 => 0..9_u16, 1 => any::<u16>()].prop_map(Operation::from);
    let number = prop_oneof![Just(0), Just(1), 0..70_000_u32, any::<u32>()];
    (cid, port.clone(), port, kind, operation, (number.clone(), 0..4_u32, number.clone(), number)).prop_map(
        |(cids, destination_port, source_port, kind, operation, (length, flags, buffer_bytes, forwarded))| {
            Packet {
                source_cid: cids.0,
                destination_cid: cids.1,
                source_port,
                destination_port,
                length,
                kind,
                operation,
                flags,
                buffer_bytes,
                forwarded,
            }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let address = prop_oneof![0..(RAM_MIB << 20) + 0x1000, any::<u64>()];
    let piece = (address, prop_oneof![0..70_000_u32, any::<u32>()], prop_oneof![Just(0), Just(WRITE)]);
    let bytes = prop::collection::vec(any::<u8>(), 1..40);
    let said = prop_oneof![3 => Just(b"CONNECT 7\nhello".to_vec()), 1 => bytes.clone()];
    prop_oneof![
        12 => (packet(), 0..70_000_usize).prop_map(|(packet, bytes)| {
            // Most lengths are honest; the others end the game at once.
            let honest = Packet { length: bytes as u32, ..packet };
            Event::Packet(if packet.length % 8 == 1 { packet } else { honest }, bytes)
        }),
        1 => (any::<bool>(), prop::collection::vec(piece, 1..6)).prop_map(|(to, pieces)| Event::Request(to, pieces)),
        1 => (any::<bool>(), 0..0x3000_u64, bytes).prop_map(|(of, at, bytes)| Event::Scribble(of, at, bytes)),
        4 => (0..20_u16).prop_map(Event::Post),
        4 => (said, any::<bool>()).prop_map(|(said, stays)| Event::Client(said, stays)),
    ]
}

#[test]
fn no_guest_stops_the_device() {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&prop::collection::vec(event(), 1..60), |events| {
        let mut guest = Guest::start(8, 4096);
        let _service = UnixListener::bind(guest.port_path(7)).unwrap();
        let (mut clients, mut scribbled) = (Vec::new(), false);
        for event in events {
            match event {
                Event::Packet(packet, bytes) => guest.put(&packet, &vec![0x5a; bytes]),
                Event::Request(true, pieces) => {
                    guest.transmit.add(&pieces);
                }
                Event::Request(false, pieces) => {
                    guest.receive.add(&pieces);
                }
                Event::Scribble(of_transmit, at, bytes) => {
                    let rings = if of_transmit { TRANSMIT_RINGS } else { RECEIVE_RINGS };
                    guest.bench.ram.write_slice(&bytes, GuestAddress(rings + at)).unwrap();
                    scribbled = true;
                }
                Event::Post(count) => guest.post(count, 4096),
                Event::Client(said, stays) => {
                    let mut client = UnixStream::connect(guest.path()).unwrap();
                    // The device may have turned it away before it has said all.
                    let _ = client.write_all(&said);
                    clients.extend(stays.then_some(client));
                }
            }
        }
        guest.transmit.kick();
        guest.receive.kick();
        // The worker still leaves when asked to, and with it go all connections.
        guest.stop();
        if !scribbled {
            for driver in [&mut guest.receive, &mut guest.transmit] {
                while driver.used().is_some() {}
                prop_assert!(driver.strays.is_empty(), "{:?}", driver.strays);
            }
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn requests_that_make_no_sense_mark_the_device() {
    let ports = Ports { host: 80, guest: 1 };
    let check = |make: &dyn Fn(&mut Guest)| {
        let mut guest = Guest::start(0, 4096);
        make(&mut guest);
        guest.transmit.kick();
        guest.receive.kick();
        guest.bench.wait_needs_reset();
        guest.stop();
    };
    check(&|guest| {
        guest.transmit.add(&[(0x50_0000, 43, 0)]);
    });
    check(&|guest| {
        guest.transmit.add(&[(0x50_0000, 44, 0), (0x50_0000, 44, WRITE)]);
    });
    check(&|guest| {
        guest.transmit.add(&[((RAM_MIB << 20) - 4, 44, 0)]);
    });
    check(&|guest| guest.put(&Packet { length: 11, ..guest.packet(ports, Operation::Data) }, &[0; 10]));
    let with_answer_due = |guest: &mut Guest, pieces: &[(u64, u32, u16)]| {
        guest.receive.add(pieces);
        guest.put(&guest.packet(ports, Operation::Data), &[]);
    };
    check(&|guest| with_answer_due(guest, &[(0x50_0000, 43, WRITE)]));
    check(&|guest| with_answer_due(guest, &[(0x50_0000, 44, 0)]));
    check(&|guest| with_answer_due(guest, &[((RAM_MIB << 20) - 4, 44, WRITE)]));
}
