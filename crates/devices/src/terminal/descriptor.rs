//! File descriptors of the host that napa reads and writes without ever waiting in them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// Longest write to a shared description that says it is writable: a pipe then has a free page, and a
/// stream socket half its buffer.
const SHARED_WRITE_BYTES_MAX: usize = 4096;
/// A terminal promises no more than one byte.
const SHARED_TERMINAL_WRITE_BYTES_MAX: usize = 1;

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A descriptor whose reads and writes return at once.
#[derive(Debug)]
pub(super) struct Descriptor {
    fd: OwnedFd,
    /// `Some`: the open file description is shared with other processes, so it cannot be made
    /// non-blocking; writes ask first and are at most this long.
    shared_write_max: Option<usize>,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// So many bytes were taken; fewer than offered: the rest has to wait.
    Taken(usize),
    /// Nobody will ever read what is written here.
    Gone,
    /// The write failed, and the next one may not.
    Failed(Errno),
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

impl Descriptor {
    /// A descriptor that napa opened itself, with `O_NONBLOCK`.
    pub fn own(fd: OwnedFd) -> Self {
        Self { fd, shared_write_max: None }
    }

    /// A descriptor for what `fd`, inherited from another process, refers to.
    pub fn inherited(fd: BorrowedFd<'_>, access: OFlags) -> rustix::io::Result<Self> {
        let file_type = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
        let is_terminal = rustix::termios::isatty(fd);
        // Terminals and pipes can be opened a second time, with flags of our own. A second description
        // of a file would have its own position.
        if (is_terminal || file_type == FileType::Fifo)
            && let Ok(own) = open_again(fd, access)
        {
            return Ok(Self::own(own));
        }
        let write_max = if is_terminal { SHARED_TERMINAL_WRITE_BYTES_MAX } else { SHARED_WRITE_BYTES_MAX };
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 0)?;
        Ok(Self { fd, shared_write_max: Some(write_max) })
    }

    /// Writes as much of `bytes` as is taken without waiting.
    pub fn write(&self, bytes: &[u8]) -> Written {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.write_once(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::BADF) => return Written::Gone,
                Err(error) => return Written::Failed(error),
            }
        }
        Written::Taken(taken)
    }

    /// Reads what is there. A shared description must have been found readable before.
    pub fn read(&self, buffer: &mut [u8]) -> Read {
        match rustix::io::read(&self.fd, buffer) {
            Ok(0) => Read::End,
            Ok(count) => Read::Bytes(count),
            Err(Errno::INTR | Errno::AGAIN) => Read::Nothing,
            Err(_) => Read::End,
        }
    }

    /// Waits until a write would be taken, or until `limit` has passed (`false`).
    pub fn wait_writable(&self, limit: &Timespec) -> bool {
        let mut polled = [PollFd::new(&self.fd, PollFlags::OUT)];
        poll(&mut polled, Some(limit)).is_ok_and(|ready| ready > 0)
    }

    /// Whether the other end of a socket is closed in both directions.
    pub fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.fd, PollFlags::empty())];
        poll(&mut polled, Some(&NOW)).is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }

    fn write_once(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        let Some(limit) = self.shared_write_max else { return rustix::io::write(&self.fd, bytes) };
        if !self.wait_writable(&NOW) {
            return Err(Errno::AGAIN);
        }
        rustix::io::write(&self.fd, &bytes[..bytes.len().min(limit)])
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_again(fd: BorrowedFd<'_>, access: OFlags) -> rustix::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_takes_a_part_and_does_not_block() {
        let (reader, writer) = std::io::pipe().unwrap();
        let descriptor = Descriptor::inherited(writer.as_fd(), OFlags::WRONLY).unwrap();
        let Written::Taken(taken) = descriptor.write(&vec![1; 1 << 20]) else { panic!("the pipe is open") };
        assert!(taken > 0 && taken < 1 << 20, "{taken}");
        let inherited = rustix::fs::fcntl_getfl(&writer).unwrap();
        assert!(!inherited.contains(OFlags::NONBLOCK), "other users of the pipe see no change");
        drop((reader, writer));
        assert_eq!(descriptor.write(b"x"), Written::Gone);
    }

    #[test]
    fn a_shared_description_is_asked_before_it_is_written() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let fd = rustix::io::fcntl_dupfd_cloexec(&writer, 0).unwrap();
        let descriptor = Descriptor { fd, shared_write_max: Some(SHARED_WRITE_BYTES_MAX) };
        let Written::Taken(taken) = descriptor.write(&vec![1; 1 << 20]) else { panic!("the pipe is open") };
        assert!(taken < 1 << 20, "{taken}");
        reader.read_exact(&mut vec![0; taken]).unwrap();
        assert_eq!(descriptor.write(b"again"), Written::Taken(5));
    }

    #[test]
    fn reading_tells_nothing_yet_from_nothing_any_more() {
        let (reader, writer) = std::io::pipe().unwrap();
        let descriptor = Descriptor::inherited(reader.as_fd(), OFlags::RDONLY).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(descriptor.read(&mut buffer), Read::Nothing);
        rustix::io::write(&writer, b"abc").unwrap();
        assert_eq!(descriptor.read(&mut buffer), Read::Bytes(3));
        drop(writer);
        assert_eq!(descriptor.read(&mut buffer), Read::End);
    }

    #[test]
    fn a_full_device_is_a_failure_that_may_pass() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let descriptor = Descriptor::inherited(full.as_fd(), OFlags::WRONLY).unwrap();
        assert_eq!(descriptor.write(b"x"), Written::Failed(Errno::NOSPC));
    }
}
