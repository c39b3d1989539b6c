//! The same transfers without a VM: one thread, one io_uring, as many requests under way as the guest has.

#![allow(unsafe_code)] // The kernel is told addresses of buffers.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};

use super::load::{Load, Outcome};
use super::storage::Noise;

/// What direct I/O wants addresses to be multiples of, on any disk.
const ALIGNMENT: usize = 4096;

#[repr(align(4096))]
#[derive(Clone)]
struct Page([u8; ALIGNMENT]);

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
    /// Dropped before the buffers: the kernel has forgotten them by then, for nothing is under way.
    ring: IoUring,
    slots: Vec<Slot>,
}

struct Slot {
    buffer: Vec<Page>,
    started: Instant,
}

impl<'a> Loop<'a> {
    fn new(file: &'a File, load: Load, blocks: u64) -> io::Result<Self> {
        let mut noise = Noise(1);
        let pages = (load.block as usize).div_ceil(ALIGNMENT);
        let mut slot = || {
            let mut buffer = vec![Page([0; ALIGNMENT]); pages];
            buffer.iter_mut().for_each(|page| noise.fill(&mut page.0));
            Slot { buffer, started: Instant::now() }
        };
        let slots = (0..load.depth).map(|_| slot()).collect();
        let ring = IoUring::new(load.depth.next_power_of_two())?;
        Ok(Self { file, load, blocks, next_block: 0, noise, ring, slots })
    }

    fn run(mut self, duration: Duration) -> io::Result<Outcome> {
        let start = Instant::now();
        let mut latencies: Vec<u64> = Vec::new();
        let mut under_way = 0;
        for slot in 0..self.slots.len() {
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
                latencies.push(now.duration_since(self.slots[slot].started).as_nanos() as u64);
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
        let slot = &mut self.slots[index];
        slot.started = Instant::now();
        let address = slot.buffer.as_mut_ptr().cast::<u8>();
        let entry = match self.load.write {
            true => opcode::Write::new(fd, address, length).offset(offset).build(),
            false => opcode::Read::new(fd, address, length).offset(offset).build(),
        };
        let entry = entry.user_data(index as u64);
        // SAFETY: the buffer has `length` bytes, belongs to this slot alone, and lives until `run` has seen all
        // transfers end; an error before that drops the ring first, which waits for them.
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
