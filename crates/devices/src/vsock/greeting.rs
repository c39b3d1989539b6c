//! A client of the host that has not yet said which port it wants.

use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::request::{LINE_BYTES_MAX, parse_connect};

/// A client before its `CONNECT PORT` line is complete.
pub struct Greeting {
    stream: UnixStream,
    line: Vec<u8>,
}

/// How reading the line went.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// The client wants this port.
    Port(u32),
    /// The line is not complete yet.
    Unfinished,
    /// The client went away, or said something else.
    Wrong,
}

impl Greeting {
    /// A client that has said nothing yet.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, line: Vec::new() }
    }

    /// Reads what there is of the line and nothing behind it: that is for the guest.
    pub fn read(&mut self) -> Progress {
        let mut bytes = [0; LINE_BYTES_MAX];
        let room = LINE_BYTES_MAX - self.line.len();
        let seen = match recv(&self.stream, &mut bytes[..room], RecvFlags::PEEK) {
            Ok((_, seen @ 1..)) => &bytes[..seen],
            Err(Errno::AGAIN | Errno::INTR) => return Progress::Unfinished,
            Ok(_) | Err(_) => return Progress::Wrong,
        };
        let end = seen.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(seen.len(), |end| end + 1);
        self.line.extend(&seen[..end.unwrap_or(take)]);
        // What was seen is there, so it can be taken.
        if recv(&self.stream, &mut bytes[..take], RecvFlags::empty()).is_err() {
            return Progress::Wrong;
        }
        match end {
            Some(_) => parse_connect(&self.line).map_or(Progress::Wrong, Progress::Port),
            None if self.line.len() == LINE_BYTES_MAX => Progress::Wrong,
            None => Progress::Unfinished,
        }
    }

    /// The client's connection.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The client's connection, from the line's end on.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_line_may_come_in_pieces_and_what_follows_is_left() {
        let (mut client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let mut greeting = Greeting::new(server);
        assert_eq!(greeting.read(), Progress::Unfinished);
        client.write_all(b"CONN").unwrap();
        assert_eq!(greeting.read(), Progress::Unfinished);
        client.write_all(b"ECT 77\nfor the guest").unwrap();
        assert_eq!(greeting.read(), Progress::Port(77));
        drop(client);
        let mut rest = String::new();
        greeting.into_stream().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "for the guest");
    }

    #[test]
    fn anything_else_is_wrong() {
        for text in [&b"\n"[..], b"CONNECT x\n", b"", &[b'C'; 100], b"CONNECT 12345678901234567890123456\n"] {
            let (mut client, server) = UnixStream::pair().unwrap();
            server.set_nonblocking(true).unwrap();
            client.write_all(text).unwrap();
            drop(client);
            let mut greeting = Greeting::new(server);
            let mut progress = greeting.read();
            while progress == Progress::Unfinished {
                progress = greeting.read();
            }
            assert_eq!(progress, Progress::Wrong, "{text:?}");
        }
    }
}
