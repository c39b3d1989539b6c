//! The memory of a request, as vectors that the host's system calls take.
#![allow(unsafe_code)] // An I/O vector is handed to the kernel, thus to any thread.

use napa_memory::{GuestRam, is_writable};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion, VolatileSlice};

use crate::{Chain, Queue};

/// Descriptors of one request at most, whatever the size of the ring: the kernel takes 1024 vectors in one call.
const VECTORS_MAX: usize = 1024;

/// One piece of guest memory in this process. Same layout as `struct iovec`.
pub type IoVec = libc::iovec;

/// Why a request's memory cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuffersError {
    /// A descriptor names memory that the guest does not have.
    #[error("a request names memory the guest does not have: {1} bytes at {0:#x}")]
    Outside(u64, u32),
    /// A descriptor wants memory written that the guest cannot write either.
    #[error("a request wants {1} bytes at {0:#x} written, where memory is read-only")]
    ReadOnly(u64, u32),
    /// The chain does not end, or has more pieces than any request needs.
    #[error("a request has more than {VECTORS_MAX} pieces")]
    TooMany,
    /// A readable descriptor follows a writable one (VIRTIO 1.3 §2.7.4.2).
    #[error("a request has a readable piece after a writable one")]
    Order,
    /// The chain is empty or its links are broken.
    #[error("a request has no descriptors, or links to one that does not exist")]
    Broken,
}

/// The readable and the writable memory of one request. Kept and filled again for the next one.
#[derive(Default)]
pub struct Buffers {
    /// What the device reads, in order.
    pub readable: Vec<IoVec>,
    /// What the device writes, in order.
    pub writable: Vec<IoVec>,
}

// SAFETY: the pointers are addresses of guest RAM, which is shared memory by nature: any thread may
// hand them to the kernel, and whoever holds a request also holds the RAM's `Arc`.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Takes the memory of `chain` in place of what was here before.
    ///
    /// # Errors
    /// The chain makes no sense; the device should be marked as failed.
    pub fn fill(&mut self, chain: &mut Chain, memory: &GuestRam) -> Result<(), BuffersError> {
        self.readable.clear();
        self.writable.clear();
        let mut saw_last = false;
        for descriptor in chain.by_ref() {
            saw_last = !descriptor.has_next();
            if self.readable.len() + self.writable.len() == VECTORS_MAX {
                return Err(BuffersError::TooMany);
            }
            let piece = piece(memory, &descriptor)?;
            if descriptor.is_write_only() {
                self.writable.push(piece);
            } else if self.writable.is_empty() {
                self.readable.push(piece);
            } else {
                return Err(BuffersError::Order);
            }
        }
        // The iterator ends silently at a link it cannot follow.
        if saw_last { Ok(()) } else { Err(BuffersError::Broken) }
    }

    /// Takes the first `N` readable bytes: the header that stands in front of the data. `None`: there
    /// are fewer.
    pub fn take_header<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.readable_bytes() < N as u64 {
            return None;
        }
        let mut header = [0; N];
        let mut filled = 0;
        while filled < N {
            let count = volatile(self.readable.first()?).copy_to(&mut header[filled..]);
            skip_front(&mut self.readable, count);
            filled += count;
        }
        Some(header)
    }

    /// Takes the last writable byte. `None`: the request has none.
    pub fn take_status(&mut self) -> Option<StatusByte> {
        while self.writable.last().is_some_and(|last| last.iov_len == 0) {
            self.writable.pop();
        }
        let last = self.writable.last_mut()?;
        last.iov_len -= 1;
        let iov_base = last.iov_base.cast::<u8>().wrapping_add(last.iov_len).cast();
        if last.iov_len == 0 {
            self.writable.pop();
        }
        Some(StatusByte(IoVec { iov_base, iov_len: 1 }))
    }

    /// Copies `data` to the front of the writable memory and returns how many bytes fitted.
    pub fn write(&self, data: &[u8]) -> usize {
        let mut done = 0;
        for piece in &self.writable {
            let count = piece.iov_len.min(data.len() - done);
            volatile(piece).copy_from(&data[done..done + count]);
            done += count;
        }
        done
    }

    /// Copies `data` to the writable memory from its byte `offset` on; what does not fit is left out.
    pub fn write_at(&self, offset: usize, data: &[u8]) {
        let (mut skip, mut rest) = (offset, data);
        for piece in &self.writable {
            let start = skip.min(piece.iov_len);
            skip -= start;
            let (now, later) = rest.split_at(rest.len().min(piece.iov_len - start));
            let target = IoVec {
                iov_base: piece.iov_base.cast::<u8>().wrapping_add(start).cast(),
                iov_len: now.len(),
            };
            volatile(&target).copy_from(now);
            rest = later;
        }
    }

    /// Copies readable memory to `data` and returns how many bytes there were.
    pub fn read(&self, data: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in &self.readable {
            done += volatile(piece).copy_to(&mut data[done..]);
        }
        done
    }

    /// Forgets the first `count` readable bytes, or all there are: they have been dealt with.
    pub fn skip_readable(&mut self, count: u64) {
        skip(&mut self.readable, count);
    }

    /// Forgets the first `count` writable bytes, or all there are: they have been dealt with.
    pub fn skip_writable(&mut self, count: u64) {
        skip(&mut self.writable, count);
    }

    /// Forgets what comes after the first `count` readable bytes.
    pub fn truncate_readable(&mut self, count: u64) {
        truncate(&mut self.readable, count);
    }

    /// Forgets what comes after the first `count` writable bytes.
    pub fn truncate_writable(&mut self, count: u64) {
        truncate(&mut self.writable, count);
    }

    /// Bytes that the device may read.
    pub fn readable_bytes(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes that the device may write.
    pub fn writable_bytes(&self) -> u64 {
        total(&self.writable)
    }
}

fn total(vectors: &[IoVec]) -> u64 {
    vectors.iter().map(|vector| vector.iov_len as u64).sum()
}

fn piece(memory: &GuestRam, descriptor: &Descriptor) -> Result<IoVec, BuffersError> {
    let (address, length) = (descriptor.addr(), descriptor.len());
    let outside = || BuffersError::Outside(address.raw_value(), length);
    let region = memory.find_region(address).ok_or_else(outside)?;
    if descriptor.is_write_only() && !is_writable(region) {
        return Err(BuffersError::ReadOnly(address.raw_value(), length));
    }
    let offset = region.to_region_addr(address).ok_or_else(outside)?;
    let slice = region.get_slice(offset, length as usize).map_err(|_| outside())?;
    Ok(IoVec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() })
}

fn volatile(piece: &IoVec) -> VolatileSlice<'static> {
    // SAFETY: a piece covers mapped guest RAM; `Buffers` lives in a worker that holds the RAM's `Arc`.
    unsafe { VolatileSlice::new(piece.iov_base.cast(), piece.iov_len) }
}

fn skip_front(vectors: &mut Vec<IoVec>, count: usize) {
    let first = &mut vectors[0];
    first.iov_base = first.iov_base.cast::<u8>().wrapping_add(count).cast();
    first.iov_len -= count;
    if first.iov_len == 0 {
        vectors.remove(0);
    }
}

/// Drops `count` bytes from the front. What is dropped whole is dropped at once: there may be many pieces.
fn skip(vectors: &mut Vec<IoVec>, count: u64) {
    let mut left = count;
    let whole = vectors
        .iter()
        .take_while(|vector| {
            let is_whole = vector.iov_len as u64 <= left;
            left -= if is_whole { vector.iov_len as u64 } else { 0 };
            is_whole
        })
        .count();
    vectors.drain(..whole);
    if left > 0 && !vectors.is_empty() {
        skip_front(vectors, left as usize);
    }
}

/// Drops what comes after the first `count` bytes.
fn truncate(vectors: &mut Vec<IoVec>, count: u64) {
    let mut left = count;
    vectors.retain_mut(|vector| {
        vector.iov_len = vector.iov_len.min(usize::try_from(left).unwrap_or(usize::MAX));
        left -= vector.iov_len as u64;
        vector.iov_len > 0
    });
}

/// The last byte of a request that the device writes, where block and other devices put the outcome.
#[derive(Clone, Copy)]
pub struct StatusByte(IoVec);

// SAFETY: as for `Buffers`: an address of guest RAM, used only together with its queue.
unsafe impl Send for StatusByte {}

impl StatusByte {
    /// Writes the outcome. The queue that the request came from shows that the RAM is still there.
    pub fn write(self, _queue: &Queue, outcome: u8) {
        volatile(&self.0).copy_from(&[outcome]);
    }
}

#[cfg(test)]
mod tests;
