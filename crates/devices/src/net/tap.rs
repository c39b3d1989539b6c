//! An attached tap device: the host's end of the network card.
#![allow(unsafe_code)] // Taps are controlled by ioctls, and frames move between the tap and guest RAM by address.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use napa_virtio::{Buffers, IoVec};
use vmm_sys_util::eventfd::EventFd;

use super::interface::{Interface, control};
use super::request::HEADER_BYTES;

/// Vectors that one call takes at most (`UIO_MAXIOV`).
const VECTORS_MAX: usize = 1024;
/// Vectors of guest memory that [`TapQueue::read`] takes at most: one more catches frames that are too long.
pub const READ_VECTORS_MAX: usize = VECTORS_MAX - 1;

/// A tap device with all its queues, attached to this process. It vanishes with the last of its descriptors
/// unless somebody made it persistent.
pub struct Tap {
    queues: Vec<TapQueue>,
    /// Offloads that the kernel knows, as `TUN_F_*`.
    offloads: u32,
    /// Largest packet without its Ethernet header, in bytes.
    mtu: u16,
}

impl Tap {
    /// A tap of queues that are all attached.
    pub(super) fn new(queues: Vec<TapQueue>, offloads: u32, mtu: u16) -> Self {
        Self { queues, offloads, mtu }
    }

    /// Queue `index`, below [`queue_count`](Self::queue_count).
    pub fn queue(&self, index: usize) -> &TapQueue {
        &self.queues[index]
    }

    /// Number of queues.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Offloads that the kernel knows, as `TUN_F_*`.
    pub fn offloads(&self) -> u32 {
        self.offloads
    }

    /// MTU of the interface when it was opened, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Sets what the reader of the tap takes: partial checksums and large frames, as `TUN_F_*`.
    ///
    /// # Errors
    /// The kernel refused the set.
    pub fn set_offloads(&self, flags: u32) -> Result<()> {
        set_offloads(&self.queues[0].file, flags)
    }

    /// Lets the host send to the first `count` queues only. Those that take part anew are woken; when this
    /// returns, the others are not read any more.
    ///
    /// # Errors
    /// The kernel refused to attach or detach a queue.
    pub fn activate(&self, count: usize) -> Result<()> {
        self.queues.iter().enumerate().try_for_each(|(index, queue)| queue.set_attached(index < count))
    }
}

/// One queue of a tap. Reading and writing never block.
pub struct TapQueue {
    file: File,
    wake: EventFd,
    is_attached: Mutex<bool>,
}

impl TapQueue {
    /// A queue over a descriptor of `/dev/net/tun` that is attached to an interface.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub(super) fn new(file: File) -> Result<Self> {
        Ok(Self { file, wake: EventFd::new(0)?, is_attached: Mutex::new(true) })
    }

    /// Keeps the queue taking part while the guard lives. `None`: it does not take part now.
    pub fn take_part(&self) -> Option<MutexGuard<'_, bool>> {
        Some(self.lock()).filter(|is_attached| **is_attached)
    }

    /// Whether the interface was removed: reading and writing then give the error of a detached queue.
    pub fn is_gone(&self) -> bool {
        let is_attached = self.lock();
        *is_attached && self.interface_is_gone()
    }

    /// Written to when this queue begins or ceases to take part.
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Reads a frame with its header into the first `vectors` (at most [`READ_VECTORS_MAX`]) writable pieces
    /// of `room`. `None`: the frame did not fit and is lost.
    ///
    /// # Errors
    /// `WouldBlock`: there is none now. `EBADFD`: the queue is detached or the interface gone.
    pub fn read(&self, room: &mut Buffers, vectors: usize) -> Result<Option<usize>> {
        let mut overflow = 0_u8;
        let fits: usize = room.writable[..vectors].iter().map(|vector| vector.iov_len).sum();
        let behind = IoVec { iov_base: (&raw mut overflow).cast(), iov_len: 1 };
        room.writable.insert(vectors, behind);
        // SAFETY: `Buffers` holds pieces of guest RAM that its owner keeps mapped, `overflow` outlives the call,
        // and the count is that of the vectors before and including it.
        let count = unsafe { libc::readv(self.file.as_raw_fd(), room.writable.as_ptr(), vectors as i32 + 1) };
        room.writable.remove(vectors);
        let count = usize::try_from(count).map_err(|_| Error::last_os_error())?;
        Ok((count <= fits).then_some(count))
    }

    /// Reads a frame with its header into `room`; what does not fit is cut off.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_bytes(&self, room: &mut [u8]) -> Result<usize> {
        (&self.file).read(room)
    }

    /// Writes a frame: `header`, then the readable pieces of `data`.
    ///
    /// # Errors
    /// `WouldBlock`: try again once the tap is writable. Any other: the host did not take the frame.
    pub fn write(&self, header: &[u8; HEADER_BYTES], data: &mut Buffers) -> Result<()> {
        if data.readable.len() == VECTORS_MAX {
            return Err(ErrorKind::InvalidInput.into());
        }
        let before = IoVec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: HEADER_BYTES };
        data.readable.insert(0, before);
        // SAFETY: `Buffers` holds pieces of guest RAM that its owner keeps mapped, `header` outlives the call,
        // and writev only reads what the vectors name.
        let count = unsafe {
            libc::writev(self.file.as_raw_fd(), data.readable.as_ptr(), data.readable.len() as i32)
        };
        data.readable.remove(0);
        if count < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    fn set_attached(&self, wanted: bool) -> Result<()> {
        let mut is_attached = self.lock();
        if *is_attached == wanted {
            return Ok(());
        }
        let mut request = Interface::empty();
        request.set_flags(if wanted { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE });
        control(&self.file, libc::TUNSETQUEUE, &mut request)?;
        *is_attached = wanted;
        // The counter only wakes; it cannot overflow in the life of a guest.
        let _ = self.wake.write(1);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interface_is_gone(&self) -> bool {
        let mut request = Interface::empty();
        let answer = control(&self.file, libc::TUNGETIFF, &mut request);
        answer.is_err_and(|error| is_detached(&error))
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The descriptor is attached to no interface: its queue is detached, or the interface was removed.
pub fn is_detached(error: &Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

/// Asks the kernel to hand over frames with what `flags` (`TUN_F_*`) name still undone.
pub(super) fn set_offloads(file: &File, flags: u32) -> Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Sets the size of the header in front of every frame, in bytes.
pub(super) fn set_header_bytes(file: &File, bytes: i32) -> Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one `int`, which `bytes` is for the length of the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
