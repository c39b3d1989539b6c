//! Memory that pages are moved to.
#![allow(unsafe_code)] // Memory is mapped by address.

use std::io;
use std::ptr;

use super::BLOCK;

/// One block, aligned like a huge page. It is empty but while pages are looked at.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Where the mapping begins, which is larger than the block by the most that alignment takes.
    mapping: u64,
}

impl Scratch {
    pub fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let mapping = unsafe { libc::mmap(ptr::null_mut(), 2 * BLOCK as usize, rights, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { mapping: mapping as u64 })
    }

    /// The address of the block.
    pub fn start(&self) -> u64 {
        self.mapping.next_multiple_of(BLOCK)
    }

    /// Drops all pages that are there.
    pub fn clear(&self) -> io::Result<()> {
        let start = self.start() as *mut libc::c_void;
        // SAFETY: the block lies in our mapping, and nobody needs what it holds.
        match unsafe { libc::madvise(start, BLOCK as usize, libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: the mapping is that of `new`, and nothing refers to it any more.
        unsafe { libc::munmap(self.mapping as *mut libc::c_void, 2 * BLOCK as usize) };
    }
}
