//! `net-ping`: ICMP echo requests, the next one after the answer to the last or after a second.

use super::{Ending, interface, now, sleep};
use crate::arena::Arena;
use crate::clock;
use crate::failure::{CODE_CORRUPT, CODE_DEVICE, Failure};
use crate::machine::Machine;
use crate::pci::Function;
use crate::report::Reporter;
use crate::timer;
use crate::virtio::net::Net;
use guest_logic::histogram::Histogram;
use guest_logic::random::Random;
use smoltcp::iface::{SocketSet, SocketStorage};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress, Ipv4Address};

const IDENTIFIER: u16 = 0x6e70;
const PAYLOAD: usize = 56;
const PACKETS: usize = 4;
const WAIT_NS: u64 = 1_000_000_000;

/// What became of the last request.
enum Answer {
    None,
    Whole,
    Damaged,
}

pub fn run(
    machine: &Machine,
    arena: &Arena,
    functions: &[Function],
    address: [u8; 4],
    count: u64,
) -> Result<Ending, Failure> {
    let mut net = Net::open(functions, arena)?;
    let mut interface = interface(machine, &mut net)?;
    let mut storage = [SocketStorage::EMPTY];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let (mut metadata_in, mut metadata_out) =
        ([icmp::PacketMetadata::EMPTY; PACKETS], [icmp::PacketMetadata::EMPTY; PACKETS]);
    let handle = sockets.add(icmp::Socket::new(
        icmp::PacketBuffer::new(&mut metadata_in[..], arena.slice::<u8>(4096, 64)?),
        icmp::PacketBuffer::new(&mut metadata_out[..], arena.slice::<u8>(4096, 64)?),
    ));
    let histogram = &arena.slice::<Histogram>(1, 64)?[..];
    let mut reporter = Reporter::new(arena, "net-ping", "ping", &machine.arguments, histogram)?;
    let [a, b, c, d] = address;
    let (mut lost, mut damaged, mut ending) = (0_u64, 0_u64, Ending::Completed);
    for number in 0..count {
        let payload = payload(machine.arguments.seed ^ number);
        let start = clock::now();
        send(sockets.get_mut(handle), Ipv4Address::new(a, b, c, d).into(), number as u16, &payload);
        let answer = loop {
            interface.poll(now(), &mut net, &mut sockets);
            net.notify();
            match take_answer(sockets.get_mut(handle), number as u16, &payload) {
                Answer::None if clock::now().saturating_sub(start) < WAIT_NS => {}
                answer => break answer,
            }
            sleep(&mut net, &mut interface, &sockets, Some(start.saturating_add(WAIT_NS)));
        };
        let end = clock::now();
        match answer {
            Answer::None => lost += 1,
            Answer::Whole => histogram[0].record(end.saturating_sub(start)),
            Answer::Damaged => damaged += 1,
        }
        if reporter.tick(end) {
            ending = Ending::Stopped;
            break;
        }
    }
    timer::stop();
    reporter.finish();
    match (damaged, lost) {
        (0, 0) => Ok(ending),
        (0, lost) => {
            Err(Failure::new(CODE_DEVICE, format_args!("{lost} of {count} echo requests had no answer")))
        }
        _ => Err(Failure::new(CODE_CORRUPT, format_args!("{damaged} echo answers were not what was sent"))),
    }
}

fn payload(seed: u64) -> [u8; PAYLOAD] {
    let mut random = Random::new(seed);
    core::array::from_fn(|_| random.next_u64() as u8)
}

fn send(socket: &mut icmp::Socket, to: IpAddress, sequence: u16, payload: &[u8]) {
    if !socket.is_open() {
        socket.bind(icmp::Endpoint::Ident(IDENTIFIER)).expect("an unbound socket can be bound");
    }
    let request = Icmpv4Repr::EchoRequest { ident: IDENTIFIER, seq_no: sequence, data: payload };
    // A buffer that is full of requests which nobody takes away means no answer either: it is counted as lost.
    if let Ok(bytes) = socket.send(request.buffer_len(), to) {
        request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
    }
}

/// Takes answers until one has this number.
fn take_answer(socket: &mut icmp::Socket, sequence: u16, sent: &[u8]) -> Answer {
    while let Ok((bytes, _)) = socket.recv() {
        let Ok(packet) = Icmpv4Packet::new_checked(bytes) else { continue };
        let answer = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default());
        if let Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) = answer
            && seq_no == sequence
        {
            return if data == sent { Answer::Whole } else { Answer::Damaged };
        }
    }
    Answer::None
}
