//! The messages between the lab and the agent inside a host.
//!
//! A frame is a job number (u32), a kind (u8), a payload length (u32), all little endian, and the payload.
//! Both ends check every field: a frame that is too long or of an unknown kind ends the connection.
//!
//! ```text
//! lab → agent   Hello Start Stdin StdinEnd Resize Signal
//! agent → lab   Hello Stdout Stderr Exit Failed
//! ```

use serde::{Deserialize, Serialize};

/// The most bytes of payload in a frame. The emulated port moves bytes slowly, so that frames of different
/// jobs take turns at a fine grain.
pub const PAYLOAD_MAX: usize = 32 * 1024;

const HEADER_LENGTH: usize = 9;

/// The command of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLine {
    /// Program and arguments; the program is looked up in the agent's `PATH`.
    pub words: Vec<String>,
    /// Variables on top of the agent's own.
    pub environment: Vec<(String, String)>,
    /// The size of the terminal to run it on; `None` runs it on pipes.
    pub terminal: Option<TerminalSize>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

/// What the lab tells the agent first, and what comes back without the entropy when it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Nanoseconds since 1970: a restored host has lost the time.
    pub time_ns: u64,
    /// Restored hosts would otherwise all draw the same random numbers.
    pub entropy: Vec<u8>,
}

/// What a frame says about its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The connection is there.
    Hello(Hello),
    /// Start this command as the job.
    Start(CommandLine),
    /// Bytes for its standard input.
    Stdin(Vec<u8>),
    /// Its standard input ends.
    StdinEnd,
    /// Its terminal has another size.
    Resize(TerminalSize),
    /// Send this signal to its process group.
    Signal(i32),
    /// Bytes from its standard output.
    Stdout(Vec<u8>),
    /// Bytes from its standard error.
    Stderr(Vec<u8>),
    /// It ended, with this code, or 128 + the signal that ended it.
    Exit(i32),
    /// It could not be started, for this reason.
    Failed(String),
}

/// A message and the job it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The job's number, chosen by the lab.
    pub job: u32,
    /// What is said.
    pub message: Message,
}

/// A frame that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The length is over [`PAYLOAD_MAX`].
    #[error("a frame of {0} bytes was announced, the limit is {PAYLOAD_MAX}")]
    TooLong(usize),
    /// Another version of the agent, or bytes that are no frame.
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The payload does not have the form that its kind demands.
    #[error("a frame of kind {0} with a malformed payload")]
    Malformed(u8),
}

impl Frame {
    /// The frame as bytes.
    ///
    /// # Panics
    /// The payload is over [`PAYLOAD_MAX`]: the sender splits what may be longer.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload) = match &self.message {
            Message::Hello(hello) => (0, json(hello)),
            Message::Start(command) => (1, json(command)),
            Message::Stdin(bytes) => (2, bytes.clone()),
            Message::StdinEnd => (3, Vec::new()),
            Message::Resize(size) => (4, json(size)),
            Message::Signal(signal) => (5, signal.to_le_bytes().to_vec()),
            Message::Stdout(bytes) => (6, bytes.clone()),
            Message::Stderr(bytes) => (7, bytes.clone()),
            Message::Exit(code) => (8, code.to_le_bytes().to_vec()),
            Message::Failed(reason) => (9, reason.as_bytes().to_vec()),
        };
        assert!(payload.len() <= PAYLOAD_MAX, "a payload of {} bytes was not split", payload.len());
        let mut bytes = Vec::with_capacity(HEADER_LENGTH + payload.len());
        bytes.extend(self.job.to_le_bytes());
        bytes.push(kind);
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.extend(payload);
        bytes
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the protocol's types have string keys only")
}

/// Puts frames together from bytes as they arrive.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets a frame that is not complete: the connection it came from is gone.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The next complete frame, if there is one.
    ///
    /// # Errors
    /// The bytes are no frame; nothing after them can be understood.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let Some(header) = self.bytes.first_chunk::<HEADER_LENGTH>() else { return Ok(None) };
        let [j0, j1, j2, j3, kind, l0, l1, l2, l3] = *header;
        let job = u32::from_le_bytes([j0, j1, j2, j3]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > PAYLOAD_MAX {
            return Err(ProtocolError::TooLong(length));
        }
        let end = HEADER_LENGTH + length;
        let Some(payload) = self.bytes.get(HEADER_LENGTH..end) else { return Ok(None) };
        let message = decode(kind, payload)?;
        self.bytes.drain(..end);
        Ok(Some(Frame { job, message }))
    }
}

fn decode(kind: u8, payload: &[u8]) -> Result<Message, ProtocolError> {
    let malformed = || ProtocolError::Malformed(kind);
    let number = || payload.try_into().map(i32::from_le_bytes).map_err(|_| malformed());
    Ok(match kind {
        0 => Message::Hello(serde_json::from_slice(payload).map_err(|_| malformed())?),
        1 => Message::Start(serde_json::from_slice(payload).map_err(|_| malformed())?),
        2 => Message::Stdin(payload.to_vec()),
        3 if payload.is_empty() => Message::StdinEnd,
        4 => Message::Resize(serde_json::from_slice(payload).map_err(|_| malformed())?),
        5 => Message::Signal(number()?),
        6 => Message::Stdout(payload.to_vec()),
        7 => Message::Stderr(payload.to_vec()),
        8 => Message::Exit(number()?),
        9 => Message::Failed(String::from_utf8(payload.to_vec()).map_err(|_| malformed())?),
        3 => return Err(malformed()),
        _ => return Err(ProtocolError::UnknownKind(kind)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..2000);
        let size = (any::<u16>(), any::<u16>()).prop_map(|(rows, columns)| TerminalSize { rows, columns });
        let command = (prop::collection::vec(".*", 0..4), prop::option::of(size.clone())).prop_map(
            |(words, terminal)| CommandLine {
                words,
                environment: vec![("A".into(), "b=c".into())],
                terminal,
            },
        );
        let hello = (any::<u64>(), prop::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(time_ns, entropy)| Hello { time_ns, entropy });
        prop_oneof![
            hello.prop_map(Message::Hello),
            command.prop_map(Message::Start),
            bytes().prop_map(Message::Stdin),
            Just(Message::StdinEnd),
            size.prop_map(Message::Resize),
            any::<i32>().prop_map(Message::Signal),
            bytes().prop_map(Message::Stdout),
            bytes().prop_map(Message::Stderr),
            any::<i32>().prop_map(Message::Exit),
            ".*".prop_map(Message::Failed),
        ]
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_however_the_bytes_are_cut(
            messages in prop::collection::vec((any::<u32>(), message()), 0..12),
            piece in 1..500_usize,
        ) {
            let frames: Vec<Frame> = messages.into_iter().map(|(job, message)| Frame { job, message }).collect();
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            let mut decoder = Decoder::default();
            let mut decoded = Vec::new();
            for piece in bytes.chunks(piece) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    decoded.push(frame);
                }
            }
            prop_assert_eq!(decoded, frames);
        }

        #[test]
        fn foreign_bytes_end_in_an_error_or_in_waiting(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_arrives() {
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next_frame(), Err(ProtocolError::TooLong(0xffff_ffff)));
    }

    #[test]
    fn unknown_kinds_and_malformed_payloads_are_refused() {
        for (bytes, error) in [
            ([1, 0, 0, 0, 77, 0, 0, 0, 0].as_slice(), ProtocolError::UnknownKind(77)),
            (&[1, 0, 0, 0, 3, 1, 0, 0, 0, 9], ProtocolError::Malformed(3)),
            (&[1, 0, 0, 0, 8, 1, 0, 0, 0, 9], ProtocolError::Malformed(8)),
            (&[1, 0, 0, 0, 1, 1, 0, 0, 0, b'{'], ProtocolError::Malformed(1)),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert_eq!(decoder.next_frame(), Err(error));
        }
    }
}
