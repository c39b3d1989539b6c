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
const WAKE: u64 = 0x8010_aa02;
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
    /// The kernel wakes them before it takes the lock of the mapping, under which a fault of a thread begins to wait
    /// (Linux 6.6 and newer): one that comes in between would sleep for good. Once the range is let go nobody can begin
    /// to wait any more, so it is woken again.
    ///
    /// # Errors
    /// The range is not mapped.
    pub fn unregister(&self, start: u64, bytes: u64) -> io::Result<()> {
        let mut range = Range { start, bytes };
        // SAFETY: the argument is a whole `struct uffdio_range`; memory keeps what it holds.
        let let_go = unsafe { self.control(UNREGISTER, &raw mut range) };
        // SAFETY: as above; who waits in vain looks again, and waits again.
        let woken = unsafe { self.control(WAKE, &raw mut range) };
        let_go.and(woken)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;

    const BYTES: u64 = 16 << 12;
    const ROUNDS: u64 = 30_000;
    /// Longer than a round takes on the busiest machine.
    const STUCK: Duration = Duration::from_secs(60);

    fn map() -> u64 {
        let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), BYTES as usize, rights, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        start as u64
    }

    /// Touches a page of each round as soon as the round begins, and says so.
    fn touch(start: u64, round: &AtomicU64, touched: &std::sync::mpsc::Sender<u64>) {
        for number in 1..=ROUNDS {
            while round.load(Ordering::Acquire) < number {
                std::hint::spin_loop();
                thread::yield_now();
            }
            // SAFETY: the mapping is never removed.
            unsafe { (start as *mut u8).write_volatile(1) };
            let _nobody_waits_any_more = touched.send(number);
        }
    }

    #[test]
    fn whoever_touches_a_page_while_its_range_is_let_go_goes_on() {
        let faults = match Userfaultfd::open() {
            Ok(faults) => faults,
            Err(error) => return println!("skipped: no faults can be handled: {error}"),
        };
        let start = map();
        static ROUND: AtomicU64 = AtomicU64::new(0);
        let (sender, touched) = channel();
        // Not a scope: a thread that is stuck must not keep the test from failing.
        thread::spawn(move || touch(start, &ROUND, &sender));
        for number in 1..=ROUNDS {
            // SAFETY: only the thread above uses the page, and it waits for the round.
            unsafe { libc::madvise(start as *mut libc::c_void, BYTES as usize, libc::MADV_DONTNEED) };
            // SAFETY: the thread above may wait, and this one touches no page.
            unsafe { faults.register(start, BYTES) }.unwrap();
            ROUND.store(number, Ordering::Release);
            // The touch comes at another moment of this each time.
            (0..number % 97 * 8).for_each(|_| std::hint::spin_loop());
            faults.unregister(start, BYTES).unwrap();
            match touched.recv_timeout(STUCK) {
                Ok(found) => assert_eq!(found, number),
                Err(RecvTimeoutError::Timeout) => panic!("round {number}: the thread sleeps for good"),
                Err(RecvTimeoutError::Disconnected) => panic!("the thread has ended in round {number}"),
            }
        }
    }
}
