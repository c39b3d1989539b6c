//! `net-echo`: answers ARP and ICMP echo, sends back what UDP and TCP port 7 receive, swallows what TCP port 9 receives
//! (RFC 862, RFC 863), until a stop is requested.

use super::{Ending, interface, now, sleep};
use crate::arena::Arena;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::pci::Function;
use crate::virtio::net::Net;
use crate::{print_line, stop, timer};
use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::{tcp, udp};

const PORT_ECHO: u16 = 7;
const PORT_DISCARD: u16 = 9;
/// Connections at a time, to each of the two ports.
const CONNECTIONS: usize = 4;
const SOCKETS: usize = 2 * CONNECTIONS + 1;
const TCP_BUFFER: usize = 65_536;
const UDP_BUFFER: usize = 65_536;
const DATAGRAMS: usize = 64;
const COPY: usize = 2048;

pub fn run(machine: &Machine, arena: &Arena, functions: &[Function]) -> Result<Ending, Failure> {
    let mut net = Net::open(functions, arena)?;
    let mut interface = interface(machine, &mut net)?;
    let mut storage = [const { SocketStorage::EMPTY }; SOCKETS];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let (mut metadata_in, mut metadata_out) =
        ([udp::PacketMetadata::EMPTY; DATAGRAMS], [udp::PacketMetadata::EMPTY; DATAGRAMS]);
    let datagrams = sockets.add(udp::Socket::new(
        udp::PacketBuffer::new(&mut metadata_in[..], arena.slice::<u8>(UDP_BUFFER, 64)?),
        udp::PacketBuffer::new(&mut metadata_out[..], arena.slice::<u8>(UDP_BUFFER, 64)?),
    ));
    let mut connections = [(datagrams, PORT_ECHO); 2 * CONNECTIONS];
    for (index, connection) in connections.iter_mut().enumerate() {
        let port = if index % 2 == 0 { PORT_ECHO } else { PORT_DISCARD };
        *connection = (sockets.add(connection_socket(arena)?), port);
    }
    while !stop::announced() {
        interface.poll(now(), &mut net, &mut sockets);
        echo_datagrams(sockets.get_mut::<udp::Socket>(datagrams));
        for &(handle, port) in &connections {
            serve(&mut sockets, handle, port);
        }
        interface.poll_egress(now(), &mut net, &mut sockets);
        net.notify();
        sleep(&mut net, &mut interface, &sockets, None);
    }
    timer::stop();
    let (received, sent) = net.traffic();
    print_line!(
        "REPORT workload=net-echo part=total frames_in={} bytes_in={} frames_out={} bytes_out={}",
        received.frames,
        received.bytes,
        sent.frames,
        sent.bytes
    );
    Ok(Ending::Stopped)
}

fn connection_socket<'a>(arena: &'a Arena) -> Result<tcp::Socket<'a>, Failure> {
    let input = tcp::SocketBuffer::new(arena.slice::<u8>(TCP_BUFFER, 64)?);
    let output = tcp::SocketBuffer::new(arena.slice::<u8>(TCP_BUFFER, 64)?);
    Ok(tcp::Socket::new(input, output))
}

fn echo_datagrams(socket: &mut udp::Socket) {
    if !socket.is_open() {
        socket.bind(PORT_ECHO).expect("a port above 0 can be bound to a closed socket");
    }
    let mut copy = [0; COPY];
    while socket.can_send() {
        // A datagram that does not fit the copy, or the way back, is dropped as the network might have.
        match socket.recv_slice(&mut copy) {
            Ok((bytes, sender)) => {
                let _ = socket.send_slice(&copy[..bytes], sender.endpoint);
            }
            Err(udp::RecvError::Truncated) => {}
            Err(udp::RecvError::Exhausted) => break,
        }
    }
}

fn serve(sockets: &mut SocketSet, handle: SocketHandle, port: u16) {
    let socket = sockets.get_mut::<tcp::Socket>(handle);
    if !socket.is_open() {
        socket.listen(port).expect("a port above 0 can be listened to by a closed socket");
    }
    match port {
        PORT_ECHO => echo_stream(socket),
        _ => while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {},
    }
    // The peer has said all it wanted to, and got its answer.
    if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
        socket.close();
    }
}

fn echo_stream(socket: &mut tcp::Socket) {
    let mut copy = [0; COPY];
    while socket.can_recv() && socket.can_send() {
        let room = (socket.send_capacity() - socket.send_queue()).min(COPY);
        let Ok(bytes) = socket.recv_slice(&mut copy[..room]) else { return };
        if room == 0 || socket.send_slice(&copy[..bytes]).is_err() {
            return;
        }
    }
}
