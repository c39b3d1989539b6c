//! The buffers that the driver has posted for frames to come.

use std::collections::VecDeque;

use napa_virtio::{Buffers, BuffersError, Queue};

use super::request::{FLAGS_OFFSET, HEADER_BYTES, NUM_BUFFERS_OFFSET};
use super::tap::READ_VECTORS_MAX;

/// Why a posted buffer cannot take a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostedError {
    /// Its descriptors make no sense.
    #[error(transparent)]
    Memory(#[from] BuffersError),
    /// It is there to be read.
    #[error("a buffer for received frames has a part that the device cannot write")]
    Readable,
    /// Not even the header fits (VIRTIO 1.3 §5.1.6.3.1).
    #[error("a buffer for received frames has {0} bytes, less than a header")]
    Short(u64),
}

/// How frames are laid into buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One buffer takes one frame.
    Single,
    /// A frame goes on in the next buffer (`VIRTIO_NET_F_MRG_RXBUF`).
    Mergeable,
}

/// Buffers that were popped and hold no frame yet, oldest first.
pub struct Posted {
    layout: Layout,
    buffers: VecDeque<Posting>,
    /// The memory of all buffers in order.
    room: Buffers,
    /// Bytes of all buffers.
    bytes: u64,
    /// The memory of the buffer that is being popped.
    popped: Buffers,
}

struct Posting {
    head: u16,
    vectors: usize,
    bytes: u64,
}

impl Posted {
    /// No buffers yet.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            buffers: VecDeque::new(),
            room: Buffers::default(),
            bytes: 0,
            popped: Buffers::default(),
        }
    }

    /// Pops buffers until a frame of `bytes` fits, as far as there are any.
    ///
    /// # Errors
    /// A buffer makes no sense; the device should be marked as failed.
    pub fn fill(&mut self, queue: &mut Queue, bytes: u64) -> Result<(), PostedError> {
        while self.frame_room().bytes < bytes && !self.is_full(queue) {
            let Some(mut chain) = queue.pop() else { break };
            self.popped.fill(&mut chain, queue.memory())?;
            if !self.popped.readable.is_empty() {
                return Err(PostedError::Readable);
            }
            let (vectors, bytes) = (self.popped.writable.len(), self.popped.writable_bytes());
            if bytes < HEADER_BYTES as u64 {
                return Err(PostedError::Short(bytes));
            }
            self.room.writable.append(&mut self.popped.writable);
            self.bytes += bytes;
            self.buffers.push_back(Posting { head: chain.head_index(), vectors, bytes });
        }
        Ok(())
    }

    /// Whether more buffers would be of no use: for a frame that still does not fit, none ever will.
    pub fn is_full(&self, queue: &Queue) -> bool {
        match self.layout {
            Layout::Single => !self.buffers.is_empty(),
            Layout::Mergeable => {
                self.buffers.len() >= usize::from(queue.size())
                    || self.room.writable.len() >= READ_VECTORS_MAX
            }
        }
    }

    /// The memory that the next frame may take.
    pub fn frame_room(&self) -> FrameRoom {
        let vectors = match (self.layout, self.buffers.front()) {
            (_, None) => 0,
            (Layout::Single, Some(first)) => first.vectors,
            (Layout::Mergeable, Some(_)) => self.room.writable.len(),
        };
        if vectors == self.room.writable.len() && vectors <= READ_VECTORS_MAX {
            return FrameRoom { vectors, bytes: self.bytes };
        }
        let vectors = vectors.min(READ_VECTORS_MAX);
        let bytes = self.room.writable[..vectors].iter().map(|vector| vector.iov_len as u64).sum();
        FrameRoom { vectors, bytes }
    }

    /// The memory itself, to be read into from its front.
    pub fn memory(&mut self) -> &mut Buffers {
        &mut self.room
    }

    /// A frame of `bytes`, header included, now stands at the front, where it fits: completes its header and
    /// puts the buffers that it covers into `used`, as `(head, written)`.
    pub fn take(&mut self, bytes: u64, flags: HeaderFlags, used: &mut Vec<(u16, u32)>) {
        used.clear();
        let (mut rest, mut vectors) = (bytes, 0);
        while rest > 0
            && let Some(buffer) = self.buffers.pop_front()
        {
            let written = rest.min(buffer.bytes);
            rest -= written;
            vectors += buffer.vectors;
            self.bytes -= buffer.bytes;
            used.push((buffer.head, written as u32));
        }
        assert!(rest == 0, "a frame was laid past the buffers that hold it");
        self.room.write_at(NUM_BUFFERS_OFFSET, &(used.len() as u16).to_le_bytes());
        if flags == HeaderFlags::Clear {
            self.room.write_at(FLAGS_OFFSET, &[0]);
        }
        self.room.writable.drain(..vectors);
    }
}

/// What becomes of the flags that the host put into a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFlags {
    /// The driver knows them (`VIRTIO_NET_F_GUEST_CSUM`).
    Keep,
    /// They must be zero (VIRTIO 1.3 §5.1.6.4.1).
    Clear,
}

/// How much memory there is for one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRoom {
    /// Pieces of memory.
    pub vectors: usize,
    /// Bytes in them.
    pub bytes: u64,
}
