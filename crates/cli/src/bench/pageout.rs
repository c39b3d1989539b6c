//! Takes the memory of a guest from outside: the same for every VMM.

#![allow(unsafe_code)] // No safe wrapper knows advice to another process.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use napa_units::Bytes;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::guests::guest_ram;

/// Bytes that one call is asked for, so that a VM is not kept from its memory for long.
const PIECE: Bytes = Bytes::mib(32);

/// Has the kernel put all of a guest's memory into swap.
///
/// # Errors
/// The process is gone, or the user may not (it takes root).
pub fn page_out(pid: u32, memory: Bytes) -> io::Result<()> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    for range in guest_ram(&smaps, memory) {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + PIECE.0);
            advise(&process, start, end - start)?;
            start = end;
        }
    }
    Ok(())
}

/// `process_madvise(2)` with `MADV_PAGEOUT`.
fn advise(process: &OwnedFd, start: u64, bytes: u64) -> io::Result<()> {
    let range = libc::iovec { iov_base: start as *mut libc::c_void, iov_len: bytes as usize };
    let no_flags: libc::c_uint = 0;
    // SAFETY: the call reads one vector, which lives across it; the addresses in it are those of the other process,
    // whose memory keeps its contents.
    let advised = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            &raw const range,
            1_usize,
            libc::MADV_PAGEOUT,
            no_flags,
        )
    };
    if advised < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
