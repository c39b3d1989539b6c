use std::io::{Read, Write};
use std::thread;

use super::guest::{Guest, pattern};
use crate::vsock::credit::BUFFER_BYTES;
use crate::vsock::request::{Operation, Ports};

#[test]
fn the_host_sends_no_more_than_the_guest_has_room_for() {
    const ROOM: u32 = 1000;
    const LENGTH: usize = 300_000;
    let mut guest = Guest::start(64, 512);
    guest.buffer_bytes = ROOM;
    let (client, ports) = guest.accept(1);
    let writer = thread::spawn({
        let mut client = client.try_clone().unwrap();
        move || client.write_all(&pattern(LENGTH)).unwrap()
    });
    let (mut all, mut asked) = (Vec::new(), 0);
    while all.len() < LENGTH {
        let (packet, data) = guest.next();
        all.extend(data);
        let held = all.len() as u32 - guest.forwarded;
        assert!(held <= ROOM, "{held} bytes where {ROOM} fit");
        match packet.operation {
            Operation::Data => {}
            Operation::CreditRequest => {
                asked += 1;
                guest.forwarded = all.len() as u32;
                guest.send(&guest.packet(ports, Operation::CreditUpdate), &[]);
            }
            other => panic!("{other:?}"),
        }
    }
    writer.join().unwrap();
    assert_eq!(all, pattern(LENGTH));
    assert!(asked >= LENGTH as u32 / ROOM - 1, "asked {asked} times");
}

#[test]
fn a_guest_that_sends_past_its_credit_is_reset() {
    let mut guest = Guest::start(64, 4096);
    let (_client, ports) = guest.accept(1);
    // The client reads nothing: its socket fills, then the host's buffer, then it is enough.
    let piece = pattern(60_000);
    for _ in 0..64 {
        guest.send_data(ports, &piece);
        while let Some((packet, _)) = guest.next_now() {
            match packet.operation {
                Operation::CreditUpdate => {}
                Operation::Reset => return,
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("the host took any number of bytes");
}

#[test]
fn the_guest_learns_when_a_slow_client_has_made_room() {
    const LENGTH: usize = 3 << 20;
    let mut guest = Guest::start(64, 4096);
    let (mut client, ports) = guest.accept(1);
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        all
    });
    let data = pattern(LENGTH);
    let (mut sent, mut forwarded) = (0, 0);
    while sent < LENGTH {
        let room = BUFFER_BYTES as usize - (sent - forwarded as usize);
        let count = room.min(50_000).min(LENGTH - sent);
        if count > 0 {
            guest.send_data(ports, &data[sent..sent + count]);
            sent += count;
        } else {
            let update = guest.expect(ports, Operation::CreditUpdate);
            assert_eq!(update.buffer_bytes, BUFFER_BYTES);
            forwarded = update.forwarded;
        }
    }
    guest.send(&guest.packet(ports, Operation::CreditRequest), &[]);
    guest.send_flags(ports, 3);
    assert_eq!(reader.join().unwrap(), data);
    while guest.next().0.operation != Operation::Reset {}
}

#[test]
fn a_guest_without_buffers_gets_everything_later() {
    const REFUSALS: u32 = 600;
    let mut guest = Guest::start(1, 4096);
    let first = Ports { host: 80, guest: 0 };
    guest.send(&guest.packet(first, Operation::Data), &[]);
    // The only buffer is taken and not given back.
    guest.receive.wait_used();
    let (mut put, mut taken) = (0, 0);
    while put < REFUSALS {
        let ports = Ports { host: 80, guest: put + 1 };
        guest.put(&guest.packet(ports, Operation::Data), &[]);
        put += 1;
        while put - taken > 200
            && guest.transmit.wait_used_for(std::time::Duration::from_millis(50)).is_some()
        {
            taken += 1;
        }
        if put - taken > 200 {
            break;
        }
    }
    assert!(put < REFUSALS, "the host holds any number of refusals");
    guest.post(100, 4096);
    for port in 1..=put {
        guest.expect(Ports { host: 80, guest: port }, Operation::Reset);
    }
    while taken < put {
        guest.transmit.wait_used();
        taken += 1;
    }
}
