//! Requests as the driver makes them.

use napa_memory::GuestRam;
use napa_virtio::{Buffers, BuffersError, Chain, Queue};
use vm_memory::{Address, Bytes, GuestMemoryBackend};

use super::page_set::Run;

/// Bytes of a frame number in a request.
const FRAME_BYTES: usize = 4;
/// Frame numbers that are taken from a request at a time.
const FRAMES_MAX: usize = 1024;
/// Pieces of a request that names pages by its own memory.
const PIECES_MAX: usize = 1024;
/// Bytes of a command in a hint.
const COMMAND_BYTES: usize = 4;

/// Why a request makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Memory(#[from] BuffersError),
    #[error("a list of pages has a part that the device would have to write")]
    Writable,
    #[error("a list of pages has {0} bytes, which is no whole number of frame numbers")]
    OddList(u64),
    #[error("a report of free pages has a part that is not for the device to write")]
    Readable,
    #[error("a command about hints has {0} bytes, not {COMMAND_BYTES}")]
    OddCommand(u64),
}

/// A list of frame numbers (VIRTIO 1.3 §5.5.6), read piece by piece: it may be long.
#[derive(Default)]
pub(super) struct FrameList {
    buffers: Buffers,
    /// The request that is read.
    head: Option<u16>,
    bytes: Vec<u8>,
}

impl FrameList {
    /// Whether there is a list to be read, or can be had from `queue`.
    pub fn open(&mut self, queue: &mut Queue) -> bool {
        if self.head.is_some() {
            return true;
        }
        let Some(mut chain) = queue.pop() else { return false };
        match self.take(&mut chain, queue.memory()) {
            Ok(()) => self.head = Some(chain.head_index()),
            Err(error) => queue.fail(error),
        }
        self.head.is_some()
    }

    /// Reads the next frame numbers in place of what is in `frames`.
    pub fn read(&mut self, frames: &mut Vec<u32>) {
        self.bytes.resize(FRAMES_MAX * FRAME_BYTES, 0);
        let count = self.buffers.read(&mut self.bytes);
        self.buffers.skip_readable(count as u64);
        let numbers = self.bytes[..count].chunks_exact(FRAME_BYTES);
        frames.clear();
        frames.extend(
            numbers.map(|bytes| u32::from_le_bytes(bytes.try_into().expect("a number has four bytes"))),
        );
    }

    /// Whether all of it was read.
    pub fn is_read(&self) -> bool {
        self.buffers.readable.is_empty()
    }

    /// Gives it back.
    pub fn close(&mut self, queue: &mut Queue) {
        if let Some(head) = self.head.take() {
            queue.push(head, 0);
        }
    }

    fn take(&mut self, chain: &mut Chain, memory: &GuestRam) -> Result<(), RequestError> {
        self.buffers.fill(chain, memory)?;
        self.buffers.readable.retain(|piece| piece.iov_len > 0);
        let bytes = self.buffers.readable_bytes();
        match bytes % FRAME_BYTES as u64 {
            _ if !self.buffers.writable.is_empty() => Err(RequestError::Writable),
            0 => Ok(()),
            _ => Err(RequestError::OddList(bytes)),
        }
    }
}

/// Pages that a request names by the memory it consists of, and the command in front of them.
#[derive(Default)]
pub(super) struct NamedPages {
    /// The pages that lie in the request's memory as a whole. It is all the guest's, perhaps in several regions.
    pub runs: Vec<Run>,
    command: [u8; COMMAND_BYTES],
    command_bytes: u64,
}

impl NamedPages {
    /// Takes the pages of `chain` in place of what was here before.
    pub fn fill(&mut self, chain: &mut Chain, memory: &GuestRam) -> Result<(), RequestError> {
        self.runs.clear();
        self.command_bytes = 0;
        let (mut pieces, mut saw_last) = (0, false);
        for descriptor in chain.by_ref() {
            saw_last = !descriptor.has_next();
            pieces += 1;
            if pieces > PIECES_MAX {
                return Err(BuffersError::TooMany.into());
            }
            let (address, bytes) = (descriptor.addr(), descriptor.len());
            let outside = BuffersError::Outside(address.raw_value(), bytes);
            if !memory.check_range(address, bytes as usize) {
                return Err(outside.into());
            }
            if descriptor.is_write_only() {
                self.runs.push(Run::within(address.raw_value(), bytes.into()));
                continue;
            }
            if !self.runs.is_empty() {
                return Err(BuffersError::Order.into());
            }
            let start = (self.command_bytes as usize).min(COMMAND_BYTES);
            let end = (start + bytes as usize).min(COMMAND_BYTES);
            memory.read_slice(&mut self.command[start..end], address).map_err(|_| outside)?;
            self.command_bytes += u64::from(bytes);
        }
        if saw_last { Ok(()) } else { Err(BuffersError::Broken.into()) }
    }

    /// Makes sure that there is no command.
    pub fn no_command(&self) -> Result<(), RequestError> {
        if self.command_bytes == 0 { Ok(()) } else { Err(RequestError::Readable) }
    }

    /// The command, if there is one.
    pub fn command(&self) -> Result<Option<u32>, RequestError> {
        match self.command_bytes {
            0 => Ok(None),
            bytes if bytes == COMMAND_BYTES as u64 => Ok(Some(u32::from_le_bytes(self.command))),
            bytes => Err(RequestError::OddCommand(bytes)),
        }
    }
}
