//! The clients of the control socket: lines in, lines out, never blocking.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use napa_api::control::{Lines, Request, Response};
use napa_sys::reactor::Io;

use super::Refusal;

/// Clients at a time; a further one is turned away.
const CONNECTIONS_MAX: usize = 64;
/// Bytes that wait for a client that does not read; past this it is cut off.
const UNSENT_MAX: usize = 1 << 20;
/// Reads from one client before others have their turn.
const READS_MAX: usize = 16;
/// Tokens from here on belong to connections: two each, reading and writing.
pub const FIRST_TOKEN: u32 = 16;

/// The connections, by their place in a table.
#[derive(Default)]
pub struct Connections {
    places: Vec<Option<Connection>>,
    next_number: u64,
}

/// Names a connection for good: the place of one that has closed is used again, its number is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    place: usize,
    number: u64,
}

struct Connection {
    number: u64,
    stream: UnixStream,
    lines: Lines,
    unsent: Vec<u8>,
}

impl Connections {
    /// Takes a new client.
    pub fn add(&mut self, stream: UnixStream, io: &mut Io<'_>) {
        let place = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        if place == CONNECTIONS_MAX {
            return;
        }
        io.wait_readable(read_token(place), &stream);
        let number = self.next_number;
        self.next_number += 1;
        let connection = Connection { number, stream, lines: Lines::default(), unsent: Vec::new() };
        if place == self.places.len() {
            self.places.push(None);
        }
        self.places[place] = Some(connection);
    }

    /// The connection of `token` can be read or written: returns the requests that came, and whose they are.
    pub fn ready(
        &mut self,
        token: u32,
        io: &mut Io<'_>,
    ) -> Option<(ConnectionId, Vec<Result<Request, Refusal>>)> {
        let place = ((token - FIRST_TOKEN) / 2) as usize;
        let mut requests = Vec::new();
        let connection = self.places.get_mut(place)?.as_mut()?;
        let id = ConnectionId { place, number: connection.number };
        let is_open = if token == read_token(place) {
            let is_open = connection.receive(&mut requests);
            io.wait_readable(token, &connection.stream);
            is_open
        } else {
            connection.flush(place, io)
        };
        if !is_open {
            self.close(place, io);
        }
        Some((id, requests))
    }

    /// Sends a response. A client that is gone gets none.
    pub fn send(&mut self, id: ConnectionId, response: &Response, io: &mut Io<'_>) {
        let place = id.place;
        let connection = self.places.get_mut(place).and_then(Option::as_mut);
        let Some(connection) = connection.filter(|connection| connection.number == id.number) else { return };
        connection.unsent.extend(response.encode());
        if connection.unsent.len() > UNSENT_MAX || !connection.flush(place, io) {
            self.close(place, io);
        }
    }

    fn close(&mut self, place: usize, io: &mut Io<'_>) {
        io.forget(read_token(place));
        io.forget(write_token(place));
        self.places[place] = None;
    }
}

impl Connection {
    /// Reads what is there. `false`: the client has closed.
    fn receive(&mut self, requests: &mut Vec<Result<Request, Refusal>>) -> bool {
        let mut buffer = [0; 4096];
        for _ in 0..READS_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.lines.feed(&buffer[..count], |line| match line {
                    Ok(line) => match Request::decode(line) {
                        Ok(request) => requests.push(Ok(request)),
                        Err(refusal) => requests.extend(refusal.map(Err)),
                    },
                    Err(too_long) => requests.push(Err(too_long.into())),
                }),
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            }
        }
        true
    }

    /// Writes what can be written. `false`: the client has closed.
    fn flush(&mut self, place: usize, io: &mut Io<'_>) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    io.wait_writable(write_token(place), &self.stream);
                    return true;
                }
                Err(error) => return error.kind() == ErrorKind::Interrupted,
            }
        }
        true
    }
}

const fn read_token(place: usize) -> u32 {
    FIRST_TOKEN + 2 * place as u32
}

const fn write_token(place: usize) -> u32 {
    read_token(place) + 1
}
