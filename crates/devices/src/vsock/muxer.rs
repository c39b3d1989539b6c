//! All connections of one guest, and the packets that they owe it.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use napa_sys::reactor::Io;
use napa_virtio::Buffers;

use super::connection::{After, Connection, Next};
use super::greeting::{Greeting, Progress};
use super::request::{HOST_CID, Operation, Packet, Ports, STREAM};
use super::stream::{connect_now, is_transient};

/// Clients and connections of one guest at most: each holds a descriptor, and up to
/// [`BUFFER_BYTES`](super::credit::BUFFER_BYTES).
pub const PEERS_MAX: usize = 256;
/// Refusals that may wait for the guest; more packets are not taken from it until it has read some.
const RESETS_MAX: usize = 256;
/// First port of the host's ends: clients have none, so they get numbers that no service uses.
const FIRST_HOST_PORT: u32 = 1 << 30;
/// When to look for clients again after the host had no descriptor for one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

/// Tokens of the muxer begin here; those below are the worker's.
pub const FIRST_TOKEN: u32 = 16;
const CLIENT: u32 = FIRST_TOKEN;
const CLIENT_AGAIN: u32 = FIRST_TOKEN + 1;
const FIRST_PEER: u32 = FIRST_TOKEN + 2;
/// Numbers of peers: each has two tokens.
const PEER_NUMBERS: u32 = (u32::MAX - FIRST_PEER) / 2;

/// Names a peer within its muxer; numbers come again only after all others.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct PeerId(u32);

impl PeerId {
    fn readable(self) -> u32 {
        FIRST_PEER + self.0 * 2
    }

    fn writable(self) -> u32 {
        self.readable() + 1
    }
}

enum Peer {
    Greeting(Greeting),
    Connection(Connection),
}

/// The connections of the guest with context id `cid`.
pub struct Muxer {
    cid: u64,
    /// Where clients come in; `PATH_PORT` is where the guest's own connections go.
    listener: UnixListener,
    path: PathBuf,
    peers: HashMap<PeerId, Peer>,
    by_ports: HashMap<Ports, PeerId>,
    /// Connections that may have packets for the guest, each once; the first one's turn is next.
    line: VecDeque<PeerId>,
    resets: VecDeque<Packet>,
    next_peer: u32,
    next_host_port: u32,
}

impl Muxer {
    /// Serves clients of `listener`, which is bound to `path` and does not block.
    pub fn new(cid: u32, listener: UnixListener, path: &Path) -> Self {
        Self {
            cid: u64::from(cid),
            listener,
            path: path.to_owned(),
            peers: HashMap::new(),
            by_ports: HashMap::new(),
            line: VecDeque::new(),
            resets: VecDeque::new(),
            next_peer: 0,
            next_host_port: FIRST_HOST_PORT,
        }
    }

    /// Registers the first events.
    pub fn start(&mut self, io: &mut Io<'_>) {
        self.accept(io);
    }

    /// An event of the muxer has come.
    pub fn ready(&mut self, token: u32, io: &mut Io<'_>) {
        if token < FIRST_PEER {
            return self.accept(io);
        }
        let id = PeerId((token - FIRST_PEER) / 2);
        match self.peers.get_mut(&id) {
            Some(Peer::Greeting(_)) => self.greet(id, io),
            Some(Peer::Connection(connection)) => {
                let after = if token == id.writable() {
                    connection.drain()
                } else {
                    connection.input_came();
                    After::Keep
                };
                self.settle(id, after, io);
            }
            // The event was on its way when the peer left.
            None => {}
        }
    }

    /// Whether packets from the guest have to wait until it has read some.
    pub fn is_backed_up(&self) -> bool {
        self.resets.len() >= RESETS_MAX
    }

    /// Whether there may be packets for the guest.
    pub fn has_packets(&self) -> bool {
        !self.resets.is_empty() || !self.line.is_empty()
    }

    /// Deals with a packet from the guest; its data are the readable pieces of `data`.
    pub fn receive(&mut self, packet: &Packet, data: &mut Buffers, io: &mut Io<'_>) {
        // Nobody else has an address here (VIRTIO 1.3 §5.10.6.2).
        if packet.source_cid != self.cid || packet.destination_cid != HOST_CID {
            return;
        }
        let id = self.by_ports.get(&packet.ports()).copied().filter(|_| packet.kind == STREAM);
        match id.and_then(|id| Some((id, self.peers.get_mut(&id)?))) {
            Some((id, Peer::Connection(connection))) => {
                let after = connection.receive(packet, data);
                self.settle(id, after, io);
            }
            _ if packet.operation == Operation::Request && packet.kind == STREAM => {
                self.connect(packet, io);
            }
            _ if packet.operation == Operation::Reset => {}
            _ => self.refuse(packet),
        }
    }

    /// The next packet for the guest; its data are read into the writable pieces of `room`.
    pub fn next_packet(&mut self, room: &mut Buffers, io: &mut Io<'_>) -> Option<Packet> {
        loop {
            if let Some(reset) = self.resets.pop_front() {
                return Some(reset);
            }
            let id = self.line.pop_front()?;
            let Some(Peer::Connection(connection)) = self.peers.get_mut(&id) else { continue };
            let (packet, after) = match connection.next_packet(room) {
                Next::Packet(packet) => (Some(packet), After::Keep),
                Next::Last(packet) => (Some(packet), After::Forget),
                Next::Reset => (None, After::Reset),
                Next::Nothing => (None, After::Keep),
            };
            self.settle(id, after, io);
            if packet.is_some() {
                return packet;
            }
        }
    }

    /// Takes clients as long as there is room. At the limit the next one waits until another peer leaves.
    fn accept(&mut self, io: &mut Io<'_>) {
        for _ in 0..PEERS_MAX {
            if self.peers.len() >= PEERS_MAX {
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    let id = self.insert(Peer::Greeting(Greeting::new(stream)));
                    self.greet(id, io);
                }
                Ok(_) => {}
                Err(error) if is_transient(&error) => break,
                Err(_) => return io.wait_timeout(CLIENT_AGAIN, ACCEPT_AGAIN),
            }
        }
        io.wait_readable(CLIENT, &self.listener);
    }

    fn greet(&mut self, id: PeerId, io: &mut Io<'_>) {
        let Some(Peer::Greeting(greeting)) = self.peers.get_mut(&id) else { return };
        match greeting.read() {
            Progress::Unfinished => io.wait_readable(id.readable(), greeting.stream()),
            Progress::Wrong => self.remove(id, io),
            Progress::Port(guest) => {
                let ports = Ports { host: self.free_host_port(guest), guest };
                let Some(Peer::Greeting(greeting)) = self.peers.remove(&id) else { return };
                let connection = Connection::to_guest(self.cid, ports, greeting.into_stream());
                self.peers.insert(id, Peer::Connection(connection));
                self.by_ports.insert(ports, id);
                self.settle(id, After::Keep, io);
            }
        }
    }

    /// The guest asks for a connection to a port of the host.
    fn connect(&mut self, request: &Packet, io: &mut Io<'_>) {
        if self.peers.len() >= PEERS_MAX {
            return self.refuse(request);
        }
        let mut path = OsString::from(&self.path);
        path.push(format!("_{}", request.destination_port));
        let Ok(stream) = connect_now(Path::new(&path)) else { return self.refuse(request) };
        let connection = Connection::from_guest(self.cid, request, stream);
        let id = self.insert(Peer::Connection(connection));
        self.by_ports.insert(request.ports(), id);
        self.settle(id, After::Keep, io);
    }

    fn refuse(&mut self, packet: &Packet) {
        let reset = Packet::to_guest(self.cid, packet.ports(), Operation::Reset);
        self.resets.push_back(Packet { kind: packet.kind, ..reset });
    }

    /// Sees to what a connection waits for, or ends it.
    fn settle(&mut self, id: PeerId, after: After, io: &mut Io<'_>) {
        let Some(Peer::Connection(connection)) = self.peers.get(&id) else { return };
        match after {
            After::Keep => {
                if connection.waits_for_input() {
                    io.wait_readable(id.readable(), connection.stream());
                }
                if connection.waits_for_output() {
                    io.wait_writable(id.writable(), connection.stream());
                }
                if connection.has_packets() && !self.line.contains(&id) {
                    self.line.push_back(id);
                }
            }
            After::Reset => {
                let reset = Packet::to_guest(self.cid, connection.ports(), Operation::Reset);
                self.resets.push_back(reset);
                self.remove(id, io);
            }
            After::Forget => self.remove(id, io),
        }
    }

    fn insert(&mut self, peer: Peer) -> PeerId {
        // Fewer peers than numbers: one is free.
        while self.peers.contains_key(&PeerId(self.next_peer)) {
            self.next_peer = (self.next_peer + 1) % PEER_NUMBERS;
        }
        let id = PeerId(self.next_peer);
        self.next_peer = (self.next_peer + 1) % PEER_NUMBERS;
        self.peers.insert(id, peer);
        id
    }

    fn remove(&mut self, id: PeerId, io: &mut Io<'_>) {
        let was_full = self.peers.len() >= PEERS_MAX;
        if let Some(Peer::Connection(connection)) = self.peers.remove(&id) {
            self.by_ports.remove(&connection.ports());
        }
        self.line.retain(|other| *other != id);
        io.forget(id.readable());
        io.forget(id.writable());
        if was_full {
            io.wait_readable(CLIENT, &self.listener);
        }
    }

    fn free_host_port(&mut self, guest: u32) -> u32 {
        // Fewer connections than ports: one is free.
        loop {
            let host = self.next_host_port;
            self.next_host_port = host.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            if !self.by_ports.contains_key(&Ports { host, guest }) {
                return host;
            }
        }
    }
}
