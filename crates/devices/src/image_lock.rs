//! One writer or many readers: a lock on the image that ends with the process.
//!
//! The lock covers the whole file, so it also meets programs that lock parts of an image.
#![allow(unsafe_code)] // No safe wrapper knows locks that belong to an open file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long a lock that somebody has is waited for. The kernel lets go of what an io_uring held a little after
/// the process is gone, and a VM that was killed may be started again at once.
const RELEASE_BOUND: Duration = Duration::from_millis(500);
/// How often it is tried.
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// Why an image could not be locked.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody else has it; the process, where the kernel can tell.
    Held(Option<i32>),
    /// The file system cannot lock.
    Host(io::Error),
}

/// Locks `image` until it is closed: for reading only, or against everybody else.
pub(crate) fn lock(image: &File, is_readonly: bool) -> Result<(), LockError> {
    let kind = if is_readonly { libc::F_RDLCK } else { libc::F_WRLCK };
    // Unlike classic record locks, these belong to the open file: two disks of one process exclude
    // each other, and closing another descriptor of the same file releases nothing.
    let until = Instant::now() + RELEASE_BOUND;
    loop {
        match control(image, libc::F_OFD_SETLK, kind) {
            Ok(_) => return Ok(()),
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                return Err(LockError::Host(error));
            }
            Err(_) if Instant::now() < until => std::thread::sleep(RELEASE_POLL),
            Err(_) => return Err(LockError::Held(holder(image, kind))),
        }
    }
}

/// The process that stands in the way. Locks of open files have no owner that the kernel names.
fn holder(image: &File, kind: i32) -> Option<i32> {
    control(image, libc::F_OFD_GETLK, kind).ok().map(|found| found.l_pid).filter(|pid| *pid > 0)
}

fn control(image: &File, command: i32, kind: i32) -> io::Result<libc::flock> {
    let mut lock =
        libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: the descriptor is open, and the kernel reads and writes one `flock` while the call lasts.
    match unsafe { libc::fcntl(image.as_raw_fd(), command, &raw mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(lock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_ends_soon_is_waited_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (one, other) = (open(), open());
        lock(&one, false).unwrap();
        let ends = std::thread::spawn(move || {
            std::thread::sleep(RELEASE_BOUND / 10);
            drop(one);
        });
        lock(&other, false).unwrap();
        ends.join().unwrap();
    }

    #[test]
    fn there_is_one_writer_or_many_readers() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let check = |first: bool, second: bool, is_free: bool| {
            let (one, other) = (open(), open());
            lock(&one, first).unwrap();
            assert_eq!(lock(&other, second).is_ok(), is_free, "read-only {first}, then {second}");
            drop(one);
            lock(&other, second).expect("closing the file releases it");
        };
        check(true, true, true);
        check(true, false, false);
        check(false, true, false);
        check(false, false, false);
    }

    #[test]
    fn the_owner_of_a_classic_lock_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let whole = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::fcntl_lock(&file, whole).unwrap();
        let other = File::open(file.path()).unwrap();
        let Err(LockError::Held(holder)) = lock(&other, true) else { panic!("the image is locked") };
        assert_eq!(holder, Some(std::process::id() as i32));
    }
}
