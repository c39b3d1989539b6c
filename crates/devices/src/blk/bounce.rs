//! Detour for guest memory that direct I/O does not take: one buffer a queue, used in turn.
//!
//! Drivers of Linux and the embedded guest align their memory; others are served correctly, not fast.

use std::collections::VecDeque;

use super::aligned::AlignedBuffer;

/// Bytes moved at once. Below the size at which an allocation becomes a mapping of its own.
const BYTES_MAX: u64 = 1 << 16;

/// The buffer, whose turn it is, and who waits. There is no memory while nobody needs it.
#[derive(Default)]
pub(super) struct Bounce {
    buffer: Option<AlignedBuffer>,
    waiting: VecDeque<u16>,
}

impl Bounce {
    /// Asks for the buffer, to move `length` bytes. `false`: its turn comes by [`release`](Self::release).
    pub fn claim(&mut self, tag: u16, length: u64) -> bool {
        if self.buffer.is_some() {
            self.waiting.push_back(tag);
            return false;
        }
        self.buffer = Some(AlignedBuffer::new(length.min(BYTES_MAX) as usize));
        true
    }

    /// Gives the buffer and its memory back, and says who is next to claim it.
    pub fn release(&mut self) -> Option<u16> {
        self.buffer = None;
        self.waiting.pop_front()
    }

    /// The first `length` bytes of the buffer, or all that it has, for the request whose turn it is.
    pub fn bytes_mut(&mut self, length: u64) -> &mut [u8] {
        let bytes = self.buffer.as_mut().expect("a bounced request has claimed the buffer").bytes_mut();
        let count = length.min(bytes.len() as u64) as usize;
        &mut bytes[..count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_take_turns_in_order() {
        let mut bounce = Bounce::default();
        assert!(bounce.claim(1, 512));
        assert!(!bounce.claim(2, 1 << 20));
        assert!(!bounce.claim(3, 512));
        assert_eq!(bounce.bytes_mut(4096).len(), 512);
        assert_eq!(bounce.release(), Some(2));
        assert!(bounce.claim(2, 1 << 20));
        assert_eq!(bounce.bytes_mut(1 << 20).len() as u64, BYTES_MAX);
        assert_eq!(bounce.release(), Some(3));
        assert!(bounce.claim(3, 512));
        assert_eq!(bounce.release(), None);
        assert!(bounce.buffer.is_none(), "nobody needs the memory any more");
    }
}
