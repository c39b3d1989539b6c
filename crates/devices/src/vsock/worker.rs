//! Serves the queues of the socket device.

use std::time::Duration;

use napa_sys::reactor::{Io, Worker};
use napa_virtio::{Buffers, BuffersError, Queue};

use super::muxer::{FIRST_TOKEN, Muxer};
use super::request::{HEADER_BYTES, Packet};

const RECEIVE_KICK: u32 = 0;
const TRANSMIT_KICK: u32 = 1;
const NEXT_TURN: u32 = 2;
/// Packets of one turn and direction at most, so that other workers of the thread get theirs.
const PACKETS_PER_TURN: usize = 256;

/// Why a packet from the guest, or a buffer for one, makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum PacketError {
    #[error(transparent)]
    Memory(#[from] BuffersError),
    #[error("a packet from the guest has a part that the device cannot read")]
    Writable,
    #[error("a packet from the guest is shorter than its header")]
    Short,
    #[error("a packet from the guest has {actual} bytes of data and says {said}")]
    Length { said: u32, actual: u64 },
    #[error("a buffer for packets has a part that the device cannot write")]
    Readable,
    #[error("a buffer for packets has {0} bytes, less than a header")]
    NoRoom(u64),
}

/// Serves both directions: a packet of one is often owed to one of the other.
pub struct Sockets {
    receive: Queue,
    transmit: Queue,
    muxer: Muxer,
    /// The request that is dealt with.
    request: Buffers,
    /// Its memory behind the header.
    data: Buffers,
}

/// How far one direction got in a turn.
#[derive(PartialEq, Eq)]
enum Turn {
    /// There is nothing more to do now.
    Idle,
    /// There is more than fits into one turn.
    More,
    /// The device waits for a reset.
    Failed,
}

impl Sockets {
    /// Serves the guest's `receive` and `transmit` queues.
    pub fn new(receive: Queue, transmit: Queue, muxer: Muxer) -> Self {
        Self { receive, transmit, muxer, request: Buffers::default(), data: Buffers::default() }
    }

    fn serve(&mut self, io: &mut Io<'_>) {
        let first = self.take_packets(io);
        let second = self.give_packets(io);
        if first == Turn::Failed || second == Turn::Failed {
            return;
        }
        // Packets that were held back may be taken now that the guest has read some.
        if first == Turn::More && !self.muxer.is_backed_up() || second == Turn::More {
            io.wait_timeout(NEXT_TURN, Duration::ZERO);
        }
    }

    /// Takes packets from the guest.
    fn take_packets(&mut self, io: &mut Io<'_>) -> Turn {
        self.transmit.disable_doorbell();
        for _ in 0..PACKETS_PER_TURN {
            if self.muxer.is_backed_up() {
                return Turn::More;
            }
            let Some(mut chain) = self.transmit.pop() else {
                if self.transmit.has_failed() {
                    return Turn::Failed;
                }
                if self.transmit.enable_doorbell() {
                    self.transmit.disable_doorbell();
                    continue;
                }
                self.transmit.wait(TRANSMIT_KICK, io);
                return Turn::Idle;
            };
            let packet = self.data.fill(&mut chain, self.transmit.memory());
            match packet.map_err(PacketError::from).and_then(|()| take_header(&mut self.data)) {
                Ok(packet) => self.muxer.receive(&packet, &mut self.data, io),
                Err(problem) => {
                    self.transmit.fail(problem);
                    return Turn::Failed;
                }
            }
            self.transmit.push(chain.head_index(), 0);
        }
        Turn::More
    }

    /// Gives packets to the guest.
    fn give_packets(&mut self, io: &mut Io<'_>) -> Turn {
        self.receive.disable_doorbell();
        for _ in 0..PACKETS_PER_TURN {
            if !self.muxer.has_packets() {
                return Turn::Idle;
            }
            let Some(mut chain) = self.receive.pop() else {
                if self.receive.has_failed() {
                    return Turn::Failed;
                }
                if self.receive.enable_doorbell() {
                    self.receive.disable_doorbell();
                    continue;
                }
                self.receive.wait(RECEIVE_KICK, io);
                return Turn::Idle;
            };
            let room = self.request.fill(&mut chain, self.receive.memory());
            if let Err(problem) = room.map_err(PacketError::from).and_then(|()| check_room(&self.request)) {
                self.receive.fail(problem);
                return Turn::Failed;
            }
            self.data.readable.clear();
            self.data.writable.clone_from(&self.request.writable);
            self.data.skip_writable(HEADER_BYTES as u64);
            let Some(packet) = self.muxer.next_packet(&mut self.data, io) else {
                self.receive.put_back();
                return Turn::Idle;
            };
            self.request.write(&packet.bytes());
            self.receive.push(chain.head_index(), HEADER_BYTES as u32 + packet.length);
        }
        Turn::More
    }
}

/// Takes the header off a packet from the guest and cuts the data to the length that it names.
fn take_header(data: &mut Buffers) -> Result<Packet, PacketError> {
    if !data.writable.is_empty() {
        return Err(PacketError::Writable);
    }
    let packet = Packet::parse(&data.take_header().ok_or(PacketError::Short)?);
    let actual = data.readable_bytes();
    if u64::from(packet.length) > actual {
        return Err(PacketError::Length { said: packet.length, actual });
    }
    data.truncate_readable(u64::from(packet.length));
    Ok(packet)
}

fn check_room(request: &Buffers) -> Result<(), PacketError> {
    match request.writable_bytes() {
        _ if !request.readable.is_empty() => Err(PacketError::Readable),
        bytes if bytes < HEADER_BYTES as u64 => Err(PacketError::NoRoom(bytes)),
        _ => Ok(()),
    }
}

impl Worker for Sockets {
    fn start(&mut self, io: &mut Io<'_>) {
        self.muxer.start(io);
        self.serve(io);
    }

    fn ready(&mut self, token: u32, io: &mut Io<'_>) {
        if token >= FIRST_TOKEN {
            self.muxer.ready(token, io);
        }
        self.serve(io);
    }

    fn turn_end(&mut self, _: &mut Io<'_>) {
        self.receive.notify();
        self.transmit.notify();
    }
}
