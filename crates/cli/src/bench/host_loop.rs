//! The same transfers without a VM: one thread, one io_uring, as many requests under way as the guest has.

#![allow(unsafe_code)] // The kernel is told addresses of buffers.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::load::{Load, Outcome};
use super::storage::Noise;

/// Guest RAM is made of huge pages where it can be, so these buffers are too: small pages would split large
/// transfers.
const HUGE_PAGE: usize = 2 << 20;

/// Runs `load` on the file or device at `path` for `duration`.
///
/// # Errors
/// It cannot be opened, is too small, or a transfer fails.
pub fn run(path: &Path, load: Load, duration: Duration) -> io::Result<Outcome> {
    let options = &mut OpenOptions::new();
    options.read(true).write(load.write).custom_flags(libc::O_DIRECT);
    let mut file = options.open(path)?;
    let blocks = file.seek(SeekFrom::End(0))? / u64::from(load.block);
    if blocks == 0 {
        return Err(io::Error::other("it is smaller than one block"));
    }
    Loop::new(&file, load, blocks)?.run(duration)
}

struct Loop<'a> {
    file: &'a File,
    load: Load,
    blocks: u64,
    next_block: u64,
    noise: Noise,
    /// Dropped before the buffers: the kernel has forgotten them by then.
    ring: IoUring,
    buffers: Buffers,
    /// When the transfer of each slot was started.
    started: Vec<Instant>,
}

impl<'a> Loop<'a> {
    fn new(file: &'a File, load: Load, blocks: u64) -> io::Result<Self> {
        let mut noise = Noise(1);
        let mut buffers = Buffers::map(load.block as usize * load.depth as usize)?;
        noise.fill(buffers.bytes());
        let started = vec![Instant::now(); load.depth as usize];
        let ring = IoUring::new(load.depth.next_power_of_two())?;
        Ok(Self { file, load, blocks, next_block: 0, noise, ring, buffers, started })
    }

    fn run(mut self, duration: Duration) -> io::Result<Outcome> {
        let start = Instant::now();
        let mut latencies: Vec<u64> = Vec::new();
        let mut under_way = 0;
        for slot in 0..self.started.len() {
            self.push(slot);
            under_way += 1;
        }
        let mut failure = None;
        while under_way > 0 {
            self.ring.submit_and_wait(1)?;
            let done: Vec<(usize, i32)> =
                self.ring.completion().map(|entry| (entry.user_data() as usize, entry.result())).collect();
            let now = Instant::now();
            let goes_on = now.duration_since(start) < duration;
            for (slot, result) in done {
                under_way -= 1;
                latencies.push(now.duration_since(self.started[slot]).as_nanos() as u64);
                failure = failure.or(self.failure(result));
                if goes_on && failure.is_none() {
                    self.push(slot);
                    under_way += 1;
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(Outcome::of(latencies, start.elapsed())),
        }
    }

    /// Queues the next transfer of a slot.
    fn push(&mut self, index: usize) {
        let offset = self.next_offset();
        let (fd, length) = (types::Fd(self.file.as_raw_fd()), self.load.block);
        self.started[index] = Instant::now();
        let place = index * length as usize;
        let address = self.buffers.bytes()[place..place + length as usize].as_mut_ptr();
        let entry = match self.load.write {
            true => opcode::Write::new(fd, address, length).offset(offset).build(),
            false => opcode::Read::new(fd, address, length).offset(offset).build(),
        };
        let entry = entry.user_data(index as u64);
        // SAFETY: the buffer has `length` bytes, belongs to this slot alone, is looked at by nobody meanwhile, and
        // lives until `run` has seen all transfers end; an error before that drops the ring first, which waits.
        unsafe { self.ring.submission().push(&entry) }.expect("the ring has an entry for each slot");
    }

    fn next_offset(&mut self) -> u64 {
        let block = match self.load.sequential {
            true => {
                self.next_block = (self.next_block + 1) % self.blocks;
                self.next_block
            }
            false => self.noise.next() % self.blocks,
        };
        block * u64::from(self.load.block)
    }

    fn failure(&self, result: i32) -> Option<io::Error> {
        match u32::try_from(result) {
            Ok(count) if count == self.load.block => None,
            Ok(_) => Some(io::Error::other("a transfer was cut short")),
            Err(_) => Some(io::Error::from_raw_os_error(-result)),
        }
    }
}

/// Memory for all slots, in huge pages where the kernel has them.
struct Buffers {
    mapping: NonNull<u8>,
    mapped_bytes: usize,
    /// Where the first huge page starts.
    offset: usize,
    length: usize,
}

impl Buffers {
    fn map(length: usize) -> io::Result<Self> {
        let mapped_bytes = length.next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe { mmap_anonymous(null_mut(), mapped_bytes, access, MapFlags::PRIVATE) }?;
        let mapping = NonNull::new(address.cast::<u8>()).expect("the kernel maps nothing at zero by itself");
        let offset = mapping.addr().get().next_multiple_of(HUGE_PAGE) - mapping.addr().get();
        // SAFETY: the range is the mapping made above, and the advice changes none of its contents. A kernel
        // without huge pages refuses; small ones do as well.
        let _ = unsafe { madvise(address, mapped_bytes, Advice::LinuxHugepage) };
        Ok(Self { mapping, mapped_bytes, offset, length })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `offset` is less than a huge page, one more than `length` needs was mapped.
        let start = unsafe { self.mapping.add(self.offset) };
        // SAFETY: the range is mapped until drop, initialised by the kernel, and borrowed from here alone.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.length) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's own, and no slice of it outlives the object.
        let _ = unsafe { munmap(self.mapping.as_ptr().cast(), self.mapped_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { write: false, sequential: false, block: 4096, depth: 4 };

    #[test]
    fn transfers_are_counted_and_timed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        for (write, sequential) in [(false, false), (false, true), (true, false)] {
            let load = Load { write, sequential, ..LOAD };
            let outcome = match run(&path, load, Duration::from_millis(20)) {
                Ok(outcome) => outcome,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    println!("skipped: {} has no direct I/O", folder.path().display());
                    return;
                }
                Err(error) => panic!("{error}"),
            };
            assert!(outcome.per_second > 0.0 && outcome.p50_ns > 0.0, "{outcome:?}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        }
        assert_ne!(std::fs::read(&path).unwrap(), vec![7; 1 << 20]);
    }

    #[test]
    fn what_cannot_be_measured_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small");
        assert!(run(&path, LOAD, Duration::ZERO).is_err());
        std::fs::write(&path, [0; 100]).unwrap();
        assert!(run(&path, LOAD, Duration::ZERO).is_err());
    }
}
