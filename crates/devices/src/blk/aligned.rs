//! Memory at an address that direct I/O accepts.

/// Largest alignment that any kernel asks of memory for direct I/O: a page.
const ALIGNMENT_BYTES: usize = 4096;

/// Zeroed memory that starts at a page boundary.
pub(super) struct AlignedBuffer {
    storage: Box<[u8]>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// `length` bytes of zeros.
    pub fn new(length: usize) -> Self {
        let storage = vec![0; length + ALIGNMENT_BYTES].into_boxed_slice();
        let start = storage.as_ptr().addr().wrapping_neg() % ALIGNMENT_BYTES;
        Self { storage, start, length }
    }

    /// The memory.
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }

    /// The memory, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_at_a_page_and_has_its_length() {
        for length in [0, 1, 512, 4096, 65536] {
            let mut buffer = AlignedBuffer::new(length);
            assert_eq!(buffer.bytes_mut().as_ptr().addr() % ALIGNMENT_BYTES, 0);
            assert_eq!(buffer.bytes(), vec![0; length]);
        }
    }
}
