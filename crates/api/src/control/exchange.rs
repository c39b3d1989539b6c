//! One request and its response, over a stream that may have neither room nor bytes at the moment.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;

use super::{Command, Id, Lines, Request, Response, RpcError};

/// A request under way. Whoever owns the stream decides how long it may take.
#[derive(Debug)]
pub struct Exchange {
    request: Vec<u8>,
    /// Bytes of the request that are on their way.
    sent: usize,
    lines: Lines,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The stream broke, or the VM ended.
    #[error("the VM's answer cannot be read: {0}")]
    Broken(#[from] io::Error),
    /// What came is no response, or not what the method answers.
    #[error("the VM's answer cannot be read: {0}")]
    Nonsense(#[from] serde_json::Error),
    /// The VM refused.
    #[error(transparent)]
    Refused(#[from] RpcError),
}

/// What has come of a request so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// The stream has no room for the rest of the request.
    Sending,
    /// The answer is not whole yet.
    Waiting,
    /// The answer.
    Answered(T),
}

impl Exchange {
    /// A request that was not sent yet.
    pub fn new(command: Command) -> Self {
        let request = Request { id: Some(Id::Number(1.into())), command }.encode();
        Self { request, sent: 0, lines: Lines::default() }
    }

    /// Goes on as far as the stream lets it. A stream that blocks is waited for, until its own timeout is over.
    ///
    /// # Errors
    /// There will be no answer.
    pub fn advance<T: DeserializeOwned>(
        &mut self,
        mut stream: impl Read + Write,
    ) -> Result<Progress<T>, ExchangeError> {
        while self.sent < self.request.len() {
            match stream.write(&self.request[self.sent..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Sending),
                Err(error) => return Err(error.into()),
            }
        }
        let (mut buffer, mut answer) = ([0; 4096], None);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("the VM ended before it answered").into()),
                Ok(count) => self.lines.feed(&buffer[..count], |line| {
                    answer.get_or_insert_with(|| line.map(<[u8]>::to_vec).map_err(io::Error::other));
                }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Waiting),
                Err(error) => return Err(error.into()),
            }
            if let Some(line) = answer.take() {
                let response = Response::decode(&line?)?;
                return Ok(Progress::Answered(serde_json::from_value(response.outcome?)?));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use serde_json::json;

    use super::super::{LINE_BYTES_MAX, code, reply};
    use super::*;

    /// Takes and gives bytes piece by piece; an empty piece is a stream that has none at the moment.
    struct Stream {
        room: VecDeque<usize>,
        written: Vec<u8>,
        pieces: VecDeque<Vec<u8>>,
    }

    impl Read for Stream {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.pieces.pop_front() {
                None => Ok(0),
                Some(piece) if piece.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
                Some(piece) => {
                    let count = piece.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&piece[..count]);
                    if count < piece.len() {
                        self.pieces.push_front(piece[count..].to_vec());
                    }
                    Ok(count)
                }
            }
        }
    }

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.room.pop_front() {
                None => Err(io::ErrorKind::WouldBlock.into()),
                Some(room) => {
                    let count = room.min(bytes.len());
                    self.written.extend(&bytes[..count]);
                    Ok(count)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stream(room: &[usize], pieces: &[&[u8]]) -> Stream {
        let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
        Stream { room: room.iter().copied().collect(), written: Vec::new(), pieces }
    }

    #[test]
    fn an_exchange_goes_on_where_the_stream_stopped_it() {
        let answer = Response { id: Id::Number(1.into()), outcome: reply(Ok(json!(42))) }.encode();
        let (first, second) = answer.split_at(9);
        let mut stream = stream(&[7], &[first, b"", second]);
        let mut exchange = Exchange::new(Command::Status);
        assert_eq!(exchange.advance::<u64>(&mut stream).unwrap(), Progress::Sending);
        stream.room.push_back(1000);
        assert_eq!(exchange.advance::<u64>(&mut stream).unwrap(), Progress::Waiting);
        assert_eq!(exchange.advance::<u64>(&mut stream).unwrap(), Progress::Answered(42));
        assert_eq!(Request::decode(&stream.written).unwrap().command, Command::Status);
    }

    #[test]
    fn refusals_nonsense_and_an_end_are_told_apart() {
        let error = |pieces: &[&[u8]]| {
            let mut stream = stream(&[1000], pieces);
            Exchange::new(Command::Status).advance::<u64>(&mut stream).unwrap_err()
        };
        let refusal = Response { id: Id::Null, outcome: Err(RpcError::new(code::WRONG_STATE, "it ends")) };
        assert!(matches!(error(&[&refusal.encode()]), ExchangeError::Refused(_)));
        assert!(matches!(error(&[b"nonsense\n"]), ExchangeError::Nonsense(_)));
        let wrong = Response { id: Id::Number(1.into()), outcome: reply(Ok(json!("text"))) }.encode();
        assert!(matches!(error(&[&wrong]), ExchangeError::Nonsense(_)));
        assert!(matches!(error(&[b"half a li"]), ExchangeError::Broken(_)));
        assert!(matches!(error(&[&[b'x'; LINE_BYTES_MAX + 1], b"\n"]), ExchangeError::Broken(_)));
    }
}
