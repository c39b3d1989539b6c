//! One connection between a port of the guest and a Unix socket of the host.
//!
//! ```text
//!               RESPONSE                    both sides done
//!   requested -----------> established ----------------------> reset
//!       |                       |
//!       +---- RST, error -------+----> gone
//! ```
//!
//! Each direction ends by itself: the guest's with SHUTDOWN, the client's with the end of its stream.

use std::collections::VecDeque;
use std::io::{Result, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use napa_virtio::Buffers;

use super::credit::Credit;
use super::request::{Operation, Packet, Ports, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use super::stream::{self, is_transient};

/// A connection and what it owes both sides.
pub struct Connection {
    cid: u64,
    ports: Ports,
    stream: UnixStream,
    phase: Phase,
    credit: Credit,
    /// Bytes from the guest that the client did not take yet; at most what the credit allows.
    backlog: VecDeque<u8>,
    /// The guest may still send.
    guest_sends: bool,
    /// The guest still takes data.
    guest_receives: bool,
    /// The client may still send.
    client_sends: bool,
    /// The client may have sent something: its socket was not found empty since it was last ready.
    has_input: bool,
    /// `REQUEST` or `RESPONSE`, until the guest has it.
    opening: Option<Operation>,
    owes_update: bool,
    /// The guest was asked for credit and has not given any yet.
    asked_for_credit: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Requested,
    Established,
}

/// What becomes of a connection after it was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on.
    Keep,
    /// It is over, and the guest has to be told.
    Reset,
    /// It is over, and the guest knows.
    Forget,
}

/// What a connection has for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A packet, the data of which is in place.
    Packet(Packet),
    /// The last packet of this connection.
    Last(Packet),
    /// The connection is broken.
    Reset,
    Nothing,
}

impl Connection {
    /// A connection that a client of the host asked for.
    pub fn to_guest(cid: u64, ports: Ports, stream: UnixStream) -> Self {
        Self::new(cid, ports, stream, Phase::Requested, Operation::Request)
    }

    /// A connection that the guest asked for by `request`, to a socket that took it.
    pub fn from_guest(cid: u64, request: &Packet, stream: UnixStream) -> Self {
        let mut new = Self::new(cid, request.ports(), stream, Phase::Established, Operation::Response);
        new.credit.learn(request);
        new
    }

    fn new(cid: u64, ports: Ports, stream: UnixStream, phase: Phase, opening: Operation) -> Self {
        Self {
            cid,
            ports,
            stream,
            phase,
            credit: Credit::default(),
            backlog: VecDeque::new(),
            guest_sends: true,
            guest_receives: true,
            client_sends: true,
            has_input: false,
            opening: Some(opening),
            owes_update: false,
            asked_for_credit: false,
        }
    }

    /// The ends of the connection.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// The client's socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether to wait until the client has sent something.
    pub fn waits_for_input(&self) -> bool {
        self.wants_input() && !self.has_input
    }

    /// Whether to wait until the client takes something.
    pub fn waits_for_output(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Whether there may be a packet for the guest.
    pub fn has_packets(&self) -> bool {
        let may_send = self.credit.available() > 0 || !self.asked_for_credit;
        self.opening.is_some() || self.owes_update || (self.wants_input() && self.has_input && may_send)
    }

    fn wants_input(&self) -> bool {
        self.phase == Phase::Established && self.guest_receives && self.client_sends
    }

    /// Deals with a packet from the guest; its data are the readable pieces of `data`.
    pub fn receive(&mut self, packet: &Packet, data: &mut Buffers) -> After {
        self.credit.learn(packet);
        self.asked_for_credit &= self.credit.available() == 0;
        match (packet.operation, self.phase) {
            (Operation::Response, Phase::Requested) => self.establish(),
            (Operation::Data, Phase::Established) if self.guest_sends => self.take(data),
            (Operation::CreditUpdate, _) => After::Keep,
            (Operation::CreditRequest, _) => {
                self.owes_update = true;
                After::Keep
            }
            (Operation::Shutdown, _) => self.shut_down(packet.flags),
            (Operation::Reset, _) => After::Forget,
            _ => After::Reset,
        }
    }

    fn establish(&mut self) -> After {
        self.phase = Phase::Established;
        // Nothing was written to this socket before, so a line fits or the client is gone.
        match (&self.stream).write_all(format!("OK {}\n", self.ports.host).as_bytes()) {
            Ok(()) => After::Keep,
            Err(_) => After::Reset,
        }
    }

    fn take(&mut self, data: &mut Buffers) -> After {
        let bytes = u32::try_from(data.readable_bytes()).unwrap_or(u32::MAX);
        if self.credit.receive(bytes).is_err() {
            return After::Reset;
        }
        if self.backlog.is_empty() && bytes > 0 {
            match stream::write(&self.stream, data) {
                Ok(count) => {
                    data.skip_readable(count as u64);
                    self.forward(count);
                }
                Err(error) if is_transient(&error) => {}
                Err(_) => return After::Reset,
            }
        }
        let mut rest = vec![0; data.readable_bytes() as usize];
        data.read(&mut rest);
        self.backlog.extend(rest);
        After::Keep
    }

    fn forward(&mut self, bytes: usize) {
        self.credit.forward(bytes as u32);
        self.owes_update |= self.credit.has_news();
    }

    fn shut_down(&mut self, flags: u32) -> After {
        if flags & SHUTDOWN_RECEIVE != 0 {
            self.guest_receives = false;
            // An error means that the client is gone, which the next call on the socket tells.
            let _ = self.stream.shutdown(Shutdown::Read);
        }
        if flags & SHUTDOWN_SEND != 0 {
            self.guest_sends = false;
        }
        self.settle()
    }

    /// The client takes data again.
    pub fn drain(&mut self) -> After {
        match self.write_backlog() {
            Ok(()) => self.settle(),
            Err(_) => After::Reset,
        }
    }

    fn write_backlog(&mut self) -> Result<()> {
        while !self.backlog.is_empty() {
            match (&self.stream).write(self.backlog.as_slices().0) {
                Ok(count) => {
                    self.backlog.drain(..count);
                    self.forward(count);
                }
                Err(error) if is_transient(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        // Bursts are rare; their memory is not kept.
        self.backlog = VecDeque::new();
        Ok(())
    }

    /// Ends what the guest has ended, once the client has everything.
    fn settle(&mut self) -> After {
        if self.guest_sends || !self.backlog.is_empty() {
            return After::Keep;
        }
        if !self.guest_receives || !self.client_sends {
            return After::Reset;
        }
        // An error means that the client is gone, which the next call on the socket tells.
        let _ = self.stream.shutdown(Shutdown::Write);
        After::Keep
    }

    /// The client has sent something, or its end.
    pub fn input_came(&mut self) {
        self.has_input = true;
    }

    /// The next packet for the guest. Data are read into the writable pieces of `room`.
    pub fn next_packet(&mut self, room: &mut Buffers) -> Next {
        let operation = if let Some(opening) = self.opening.take() {
            opening
        } else if self.owes_update {
            Operation::CreditUpdate
        } else if !self.wants_input() || !self.has_input {
            return Next::Nothing;
        } else if self.credit.available() > 0 {
            return self.read(room);
        } else if self.asked_for_credit {
            return Next::Nothing;
        } else {
            self.asked_for_credit = true;
            Operation::CreditRequest
        };
        Next::Packet(self.packet(operation))
    }

    fn read(&mut self, room: &mut Buffers) -> Next {
        room.truncate_writable(u64::from(self.credit.available()));
        match stream::read(&self.stream, room) {
            // A buffer with room for the header alone would look like the end of the stream.
            Ok(0) if room.writable_bytes() == 0 => Next::Reset,
            Ok(0) => self.input_ended(),
            Ok(count) => {
                self.credit.send(count as u32);
                Next::Packet(Packet { length: count as u32, ..self.packet(Operation::Data) })
            }
            Err(error) if is_transient(&error) => {
                self.has_input = false;
                Next::Nothing
            }
            Err(_) => Next::Reset,
        }
    }

    fn input_ended(&mut self) -> Next {
        self.client_sends = false;
        let mut packet = self.packet(Operation::Shutdown);
        packet.flags = SHUTDOWN_SEND;
        if stream::is_closed(&self.stream) || self.settle() == After::Reset {
            packet.flags |= SHUTDOWN_RECEIVE;
            return Next::Last(packet);
        }
        Next::Packet(packet)
    }

    fn packet(&mut self, operation: Operation) -> Packet {
        let mut packet = Packet::to_guest(self.cid, self.ports, operation);
        self.credit.tell(&mut packet);
        self.owes_update = false;
        packet
    }
}
