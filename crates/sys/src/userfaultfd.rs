//! Faults of this process's memory, handled by itself (userfaultfd(2)).
#![allow(unsafe_code)] // Ranges of memory are named by their addresses.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What the kernel calls these requests by (linux/userfaultfd.h); the sandbox lets them through.
pub const IOCTL_TYPE: u64 = 0xaa00;

const NEW: u64 = 0xaa00;
const API: u64 = 0xc018_aa3f;
const REGISTER: u64 = 0xc020_aa00;
const UNREGISTER: u64 = 0x8010_aa01;
const COPY: u64 = 0xc028_aa03;
const MOVE: u64 = 0xc028_aa05;
const API_VERSION: u64 = 0xaa;
const FEATURE_MOVE: u64 = 1 << 16;
const MODE_MISSING: u64 = 1;

/// A userfaultfd that also takes the faults of the kernel (KVM, io_uring) and can move pages (Linux 6.8).
///
/// Whoever touches a page that is not there, in a range that is registered, waits until it is, or until the range is
/// not registered any more. When this is dropped, no range is.
#[derive(Debug)]
pub struct Userfaultfd(OwnedFd);

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    bytes: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Transfer {
    to: u64,
    from: u64,
    bytes: u64,
    mode: u64,
    /// What was done, in bytes, or a negative error.
    done: i64,
}

impl Userfaultfd {
    /// Opens one.
    ///
    /// # Errors
    /// This process may not handle the kernel's faults, or the kernel cannot move pages.
    pub fn open() -> io::Result<Self> {
        let fd = Self(open()?);
        let mut api = Api { api: API_VERSION, features: FEATURE_MOVE, ioctls: 0 };
        // SAFETY: the argument is a whole `struct uffdio_api`.
        unsafe { fd.control(API, &raw mut api) }.map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => {
                io::Error::new(io::ErrorKind::Unsupported, "it takes Linux 6.8 to move pages")
            }
            _ => error,
        })?;
        Ok(fd)
    }

    /// Makes everybody wait who touches a page of this range that is not there.
    ///
    /// # Safety
    /// The range is one of memory that the caller may make others wait for, and [`unregister`](Self::unregister)
    /// follows without a touch of an absent page by the thread that would call it.
    ///
    /// # Errors
    /// It is no private anonymous memory, or somebody else handles its faults.
    pub unsafe fn register(&self, start: u64, bytes: u64) -> io::Result<()> {
        let mut register = Register { range: Range { start, bytes }, mode: MODE_MISSING, ioctls: 0 };
        // SAFETY: the argument is a whole `struct uffdio_register`; what it does to the range the caller answers for.
        unsafe { self.control(REGISTER, &raw mut register) }
    }

    /// Ends that, and lets all go on who wait.
    ///
    /// # Errors
    /// The range is not mapped.
    pub fn unregister(&self, start: u64, bytes: u64) -> io::Result<()> {
        let mut range = Range { start, bytes };
        // SAFETY: the argument is a whole `struct uffdio_range`; memory keeps what it holds.
        unsafe { self.control(UNREGISTER, &raw mut range) }
    }

    /// Moves pages within registered memory. Returns how many bytes were moved, from the start on, at least one page.
    ///
    /// # Errors
    /// The first page cannot be moved: it is pinned or shared (`EBUSY`), not there (`ENOENT`), or in use for a moment
    /// (`EAGAIN`).
    ///
    /// # Safety
    /// Both ranges are the caller's to change: pages vanish from the one and appear in the other.
    pub unsafe fn move_pages(&self, to: u64, from: u64, bytes: u64) -> io::Result<u64> {
        let mut transfer = Transfer { to, from, bytes, mode: 0, done: 0 };
        // SAFETY: the argument is a whole `struct uffdio_move`; for the ranges the caller answers.
        unsafe { self.transfer(MOVE, &mut transfer) }
    }

    /// Fills absent pages of registered memory with a copy. Returns how many bytes.
    ///
    /// # Errors
    /// A page is there already, or there is no memory.
    ///
    /// # Safety
    /// Both ranges are the caller's: the one to read, the other to fill.
    pub unsafe fn copy(&self, to: u64, from: u64, bytes: u64) -> io::Result<u64> {
        let mut transfer = Transfer { to, from, bytes, mode: 0, done: 0 };
        // SAFETY: the argument is a whole `struct uffdio_copy`; for the ranges the caller answers.
        unsafe { self.transfer(COPY, &mut transfer) }
    }

    /// # Safety
    /// As [`control`](Self::control).
    unsafe fn transfer(&self, request: u64, transfer: &mut Transfer) -> io::Result<u64> {
        // SAFETY: the caller says so.
        let result = unsafe { self.control(request, &raw mut *transfer) };
        match u64::try_from(transfer.done) {
            // A part was done, whatever stopped the rest.
            Ok(done) if done > 0 => Ok(done),
            Ok(_) => result.and(Err(io::ErrorKind::WouldBlock.into())),
            Err(_) => Err(io::Error::from_raw_os_error(-transfer.done as i32)),
        }
    }

    /// # Safety
    /// `argument` points to what the request takes, and nobody else uses that meanwhile.
    unsafe fn control<T>(&self, request: u64, argument: *mut T) -> io::Result<()> {
        // SAFETY: the descriptor is open; the caller answers for the argument.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// By the device node, which needs no privilege where its mode allows it, or by the system call.
fn open() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let fd = match File::options().read(true).write(true).open("/dev/userfaultfd") {
        // SAFETY: the request takes flags, no address, and gives a new descriptor.
        Ok(node) => unsafe { libc::ioctl(node.as_raw_fd(), NEW, flags) },
        // SAFETY: the call takes flags and gives a new descriptor.
        Err(_) => unsafe { libc::syscall(libc::SYS_userfaultfd, flags) as RawFd },
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor, to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
