use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use napa_virtio::Device;

use super::guest::{CID, Guest, pattern, ports_of};
use crate::vsock::muxer::PEERS_MAX;
use crate::vsock::request::{Operation, Packet, Ports, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

const BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// A guest's connection to a service of the host.
fn dial(guest: &mut Guest, guest_port: u32, host_port: u32) -> (UnixStream, Ports) {
    let service = UnixListener::bind(guest.port_path(host_port)).unwrap();
    let ports = Ports { host: host_port, guest: guest_port };
    guest.send(&guest.packet(ports, Operation::Request), &[]);
    guest.expect(ports, Operation::Response);
    (service.accept().unwrap().0, ports)
}

fn read(stream: &mut UnixStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn is_at_end(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0) | Err(_))
}

/// Data pass in both directions, in small and in large pieces.
fn check_echo(guest: &mut Guest, stream: &mut UnixStream, ports: Ports) {
    for length in [1, 100, 4000, 60_000] {
        let data = pattern(length);
        stream.write_all(&data).unwrap();
        assert_eq!(guest.receive_data(ports, length), data);
        guest.forwarded = guest.forwarded.wrapping_add(length as u32);
        guest.send_data(ports, &data);
        assert_eq!(read(stream, length), data);
    }
}

#[test]
fn a_client_of_the_host_talks_to_the_guest() {
    let mut guest = Guest::start(64, 4096);
    let (mut client, ports) = guest.accept(1234);
    assert_eq!(ports.guest, 1234);
    check_echo(&mut guest, &mut client, ports);
}

#[test]
fn the_guest_talks_to_a_service_of_the_host() {
    let mut guest = Guest::start(64, 4096);
    let (mut service, ports) = dial(&mut guest, 5000, 80);
    check_echo(&mut guest, &mut service, ports);
}

#[test]
fn what_a_client_sends_with_its_line_reaches_the_guest() {
    let mut guest = Guest::start(64, 4096);
    let mut client = UnixStream::connect(guest.path()).unwrap();
    client.write_all(b"CONNECT 9\nearly").unwrap();
    let ports = ports_of(&guest.next().0);
    guest.send(&guest.packet(ports, Operation::Response), &[]);
    assert_eq!(guest.receive_data(ports, 5), b"early");
}

#[test]
fn clients_that_ask_for_nothing_are_turned_away() {
    let mut guest = Guest::start(16, 4096);
    for wrong in ["HELLO\n", "CONNECT\n", "CONNECT 99999999999\n", &"x".repeat(50)] {
        let mut client = UnixStream::connect(guest.path()).unwrap();
        client.write_all(wrong.as_bytes()).unwrap();
        assert!(is_at_end(&mut client), "{wrong:?}");
    }
    assert!(guest.next_soon().is_none(), "the guest hears nothing of them");
}

#[test]
fn a_guest_that_refuses_ends_the_client() {
    let mut guest = Guest::start(16, 4096);
    let (mut client, ports) = guest.request(7);
    guest.send(&guest.packet(ports, Operation::Reset), &[]);
    assert!(is_at_end(&mut client));
    assert!(guest.next_soon().is_none(), "a reset is not answered");
}

#[test]
fn what_belongs_to_nothing_is_reset() {
    let mut guest = Guest::start(64, 4096);
    let ports = Ports { host: 80, guest: 5000 };
    for operation in [
        Operation::Request,
        Operation::Response,
        Operation::Data,
        Operation::Shutdown,
        Operation::CreditUpdate,
        Operation::CreditRequest,
        Operation::Unknown(0),
        Operation::Unknown(99),
    ] {
        guest.send(&guest.packet(ports, operation), &[]);
        guest.expect(ports, Operation::Reset);
    }
    guest.send(&guest.packet(ports, Operation::Reset), &[]);
    let elsewhere = Packet { destination_cid: 77, ..guest.packet(ports, Operation::Request) };
    guest.send(&elsewhere, &[]);
    let pretended = Packet { source_cid: u64::from(CID) + 1, ..guest.packet(ports, Operation::Request) };
    guest.send(&pretended, &[]);
    assert!(guest.next_soon().is_none());

    let (_service, ports) = dial(&mut guest, 5001, 81);
    let datagram = Packet { kind: 3, ..guest.packet(ports, Operation::Data) };
    guest.send(&datagram, &[]);
    let reset = guest.expect(ports, Operation::Reset);
    assert_eq!(reset.kind, 3, "the answer is of the kind that was not understood");
}

#[test]
fn operations_that_do_not_fit_the_connection_end_it() {
    let mut guest = Guest::start(64, 4096);
    for (index, operation) in
        [Operation::Request, Operation::Response, Operation::Unknown(9)].into_iter().enumerate()
    {
        let (mut service, ports) = dial(&mut guest, 5000, 100 + index as u32);
        guest.send(&guest.packet(ports, operation), &[]);
        guest.expect(ports, Operation::Reset);
        assert!(is_at_end(&mut service));
    }
    let (mut client, ports) = guest.request(7);
    guest.send_data(ports, b"too early");
    guest.expect(ports, Operation::Reset);
    assert!(is_at_end(&mut client));
}

#[test]
fn a_client_that_ends_its_stream_still_hears_the_guest() {
    let mut guest = Guest::start(64, 4096);
    let (mut client, ports) = guest.accept(1);
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.receive_data(ports, 10), b"last words");
    assert_eq!(guest.expect(ports, Operation::Shutdown).flags, SHUTDOWN_SEND);
    guest.send_data(ports, b"answer");
    assert_eq!(read(&mut client, 6), b"answer");
    guest.send_flags(ports, BOTH);
    guest.expect(ports, Operation::Reset);
    assert!(is_at_end(&mut client));
}

#[test]
fn a_guest_that_ends_its_stream_still_hears_the_client() {
    let mut guest = Guest::start(64, 4096);
    let (mut client, ports) = guest.accept(1);
    guest.send_data(ports, b"last words");
    guest.send_flags(ports, SHUTDOWN_SEND);
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last words");
    client.write_all(b"answer").unwrap();
    assert_eq!(guest.receive_data(ports, 6), b"answer");
    drop(client);
    assert_eq!(guest.expect(ports, Operation::Shutdown).flags, BOTH);
}

#[test]
fn a_client_that_goes_away_ends_both_directions() {
    let mut guest = Guest::start(64, 4096);
    let (client, ports) = guest.accept(1);
    drop(client);
    assert_eq!(guest.expect(ports, Operation::Shutdown).flags, BOTH);
    guest.send_data(ports, b"into the void");
    guest.expect(ports, Operation::Reset);
}

#[test]
fn a_guest_that_receives_no_more_stops_the_client() {
    let mut guest = Guest::start(64, 4096);
    let (mut client, ports) = guest.accept(1);
    guest.send_flags(ports, SHUTDOWN_RECEIVE);
    assert!(client.write_all(b"unheard").is_err());
    guest.send_data(ports, b"still talking");
    assert_eq!(read(&mut client, 13), b"still talking");
    guest.send_flags(ports, SHUTDOWN_SEND);
    guest.expect(ports, Operation::Reset);
}

#[test]
fn many_connections_live_side_by_side_and_the_next_client_waits_for_room() {
    let mut guest = Guest::start(120, 4096);
    let mut open: Vec<_> = (0..PEERS_MAX as u32).map(|port| guest.accept(port)).collect();
    for (index, (client, _)) in open.iter_mut().enumerate() {
        client.write_all(&index.to_le_bytes()).unwrap();
    }
    for _ in 0..open.len() {
        let (packet, data) = guest.next();
        let index = usize::from_le_bytes(data.try_into().unwrap());
        assert_eq!(ports_of(&packet), open[index].1);
    }
    let mut waiting = UnixStream::connect(guest.path()).unwrap();
    waiting.write_all(b"CONNECT 9999\n").unwrap();
    let refused = Ports { host: 80, guest: 5000 };
    let _service = UnixListener::bind(guest.port_path(80)).unwrap();
    guest.send(&guest.packet(refused, Operation::Request), &[]);
    guest.expect(refused, Operation::Reset);
    assert!(guest.next_soon().is_none(), "there is no room");
    let (client, ports) = open.pop().unwrap();
    drop(client);
    guest.expect(ports, Operation::Shutdown);
    let (packet, _) = guest.next();
    assert_eq!((packet.operation, packet.destination_port), (Operation::Request, 9999));
}

#[test]
fn a_reset_of_the_device_ends_all_connections() {
    let mut guest = Guest::start(64, 4096);
    let (mut client, _) = guest.accept(1);
    let mut greeting = UnixStream::connect(guest.path()).unwrap();
    greeting.write_all(b"CONN").unwrap();
    guest.stop();
    assert!(is_at_end(&mut client) && is_at_end(&mut greeting));
    let mut cid = [0; 8];
    guest.device.read_config(0, &mut cid);
    assert_eq!(u64::from_le_bytes(cid), u64::from(CID));
    assert_eq!((guest.device.id(), guest.device.queue_sizes().len()), (19, 3));
}
