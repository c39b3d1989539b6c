//! The operations on the image that carry out a request, one after the other.
//!
//! ```text
//!  read, write    Transfer ... (goes on behind what a short one did)
//!                 Bounced ...  (the same, by way of an aligned buffer)
//!  flush          Sync
//!  discard        Allocate(Punch)                           | nothing: it is only a hint
//!  write zeroes   Allocate(Punch), Allocate(Zero)           -> Sync if writes must last
//!                 Zeros ... (where the file system has neither)
//! ```

use std::io;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};
use napa_virtio::{Buffers, IoVec};

use super::bounce::Bounce;
use super::disk::Disk;
use super::pending::Pending;
use super::request::Request;

/// Zeros that are written where they cannot be allocated; aligned for direct I/O.
#[repr(align(4096))]
struct Zeros([u8; 1 << 16]);

static ZEROS: Zeros = Zeros([0; 1 << 16]);

/// What is being done for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Data moves between the image and the guest's memory.
    Transfer,
    /// Data moves between the image and the buffer of [`Bounce`].
    Bounced,
    /// The file system changes what backs the range.
    Allocate(Allocation),
    /// Zeros are written to the range.
    Zeros,
    /// What was written is made to last.
    Sync,
}

/// What `fallocate` can do to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allocation {
    /// Nothing backs the range any more; it reads as zeros.
    Punch,
    /// Space backs the range, and it reads as zeros.
    Zero,
}

impl Allocation {
    /// Tells the kinds apart in a set.
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    fn mode(self) -> i32 {
        libc::FALLOC_FL_KEEP_SIZE
            | match self {
                Self::Punch => libc::FALLOC_FL_PUNCH_HOLE,
                Self::Zero => libc::FALLOC_FL_ZERO_RANGE,
            }
    }
}

/// Whether a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next operation is to be submitted.
    Submit,
    /// All is done.
    Done,
}

/// Why a request that made sense was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Kernel(#[from] io::Error),
    #[error("the image ends there: it has become shorter")]
    EndOfImage,
}

/// What a request starts with. `None`: there is nothing to do for it.
pub(super) fn first(request: &Request, buffers: &Buffers, disk: &Disk) -> Option<Step> {
    match request {
        Request::Read(range) if range.length > 0 => Some(transfer(&buffers.writable, disk)),
        Request::Write(range) if range.length > 0 => Some(transfer(&buffers.readable, disk)),
        Request::Flush => Some(Step::Sync),
        Request::Discard(range) if range.length > 0 && disk.has(Allocation::Punch) => {
            Some(Step::Allocate(Allocation::Punch))
        }
        Request::WriteZeroes { range, may_unmap } if range.length > 0 => Some(zeroing(*may_unmap, disk)),
        _ => None,
    }
}

fn transfer(vectors: &[IoVec], disk: &Disk) -> Step {
    let admits = |vector: &IoVec| {
        disk.image
            .alignment
            .is_none_or(|rule| rule.admits(vector.iov_base.addr() as u64, vector.iov_len as u64))
    };
    if vectors.iter().all(admits) { Step::Transfer } else { Step::Bounced }
}

fn zeroing(may_unmap: bool, disk: &Disk) -> Step {
    if may_unmap && disk.has(Allocation::Punch) {
        Step::Allocate(Allocation::Punch)
    } else if disk.has(Allocation::Zero) {
        Step::Allocate(Allocation::Zero)
    } else {
        Step::Zeros
    }
}

/// The operation for the current step. It names the request's vectors, its bounce buffer and the image.
pub(super) fn entry(pending: &mut Pending, disk: &Disk, bounce: &mut Bounce) -> squeue::Entry {
    let file = Fd(disk.image.descriptor());
    let left = pending.left;
    let lasting = if disk.is_write_through() { libc::RWF_DSYNC } else { 0 };
    let is_read = matches!(pending.request, Request::Read(_));
    match pending.step {
        Step::Transfer if is_read => match pending.buffers.writable.as_slice() {
            [only] => {
                opcode::Read::new(file, only.iov_base.cast(), only.iov_len as u32).offset(left.offset).build()
            }
            many => opcode::Readv::new(file, many.as_ptr(), many.len() as u32).offset(left.offset).build(),
        },
        Step::Transfer => match pending.buffers.readable.as_slice() {
            [only] => opcode::Write::new(file, only.iov_base.cast(), only.iov_len as u32)
                .offset(left.offset)
                .rw_flags(lasting)
                .build(),
            many => opcode::Writev::new(file, many.as_ptr(), many.len() as u32)
                .offset(left.offset)
                .rw_flags(lasting)
                .build(),
        },
        Step::Bounced => {
            let bytes = bounce.bytes_mut(left.length);
            let length = bytes.len() as u32;
            if is_read {
                return opcode::Read::new(file, bytes.as_mut_ptr(), length).offset(left.offset).build();
            }
            pending.buffers.read(bytes);
            opcode::Write::new(file, bytes.as_ptr(), length).offset(left.offset).rw_flags(lasting).build()
        }
        Step::Allocate(allocation) => {
            opcode::Fallocate::new(file, left.length).offset(left.offset).mode(allocation.mode()).build()
        }
        Step::Zeros => {
            let length = left.length.min(ZEROS.0.len() as u64) as u32;
            opcode::Write::new(file, ZEROS.0.as_ptr(), length).offset(left.offset).rw_flags(lasting).build()
        }
        Step::Sync => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
    }
}

/// Takes the kernel's result of the current step.
///
/// # Errors
/// The request cannot be carried out.
pub(super) fn after(
    pending: &mut Pending,
    result: i32,
    disk: &Disk,
    bounce: &mut Bounce,
) -> Result<Next, Failure> {
    if matches!(-result, libc::EINTR | libc::EAGAIN) && pending.retries > 0 {
        pending.retries -= 1;
        return Ok(Next::Submit);
    }
    match pending.step {
        Step::Transfer | Step::Bounced | Step::Zeros => transferred(pending, done(result)?, bounce),
        Step::Allocate(allocation) => allocated(pending, allocation, result, disk),
        Step::Sync => done(result).map(|_| Next::Done),
    }
}

fn done(result: i32) -> Result<u64, Failure> {
    u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result).into())
}

fn transferred(pending: &mut Pending, count: u64, bounce: &mut Bounce) -> Result<Next, Failure> {
    if count == 0 {
        return Err(Failure::EndOfImage);
    }
    pending.left = pending.left.after(count);
    let is_read = matches!(pending.request, Request::Read(_));
    if is_read && pending.step == Step::Bounced {
        pending.buffers.write(bounce.bytes_mut(count));
    }
    if pending.left.length == 0 {
        return Ok(Next::Done);
    }
    match is_read {
        true => pending.buffers.skip_writable(count),
        false => pending.buffers.skip_readable(count),
    }
    Ok(Next::Submit)
}

fn allocated(
    pending: &mut Pending,
    allocation: Allocation,
    result: i32,
    disk: &Disk,
) -> Result<Next, Failure> {
    let is_lacking = matches!(-result, libc::EOPNOTSUPP | libc::ENOSYS);
    if is_lacking {
        disk.note_lack(allocation);
    } else {
        done(result)?;
    }
    pending.step = match pending.request {
        Request::WriteZeroes { may_unmap, .. } if is_lacking => zeroing(may_unmap, disk),
        Request::WriteZeroes { .. } if disk.is_write_through() => Step::Sync,
        _ => return Ok(Next::Done),
    };
    Ok(Next::Submit)
}
