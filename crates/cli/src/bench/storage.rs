//! What disks are measured on: a file, a device in memory, or what the user names.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use napa_sys::host::{Memory, Root};
use napa_units::Bytes;

use super::subject::Disk;

/// Size of what is made here: large enough that no cache of a disk holds it whole.
const SIZE: Bytes = Bytes::mib(512);
/// The host keeps at least this much memory for itself.
const MEMORY_LEFT: Bytes = Bytes::gib(1);
const CONTROL: &str = "/sys/class/zram-control";
/// How long the device's node may take to appear.
const NODE_LOOKS: u32 = 200;
const NODE_LOOK_EVERY: Duration = Duration::from_millis(10);
const PIECE_BYTES: usize = 1 << 20;

/// Somewhere to read and write.
#[derive(Debug)]
pub struct Storage {
    /// What it is, for people.
    pub name: String,
    /// The file or device.
    pub path: PathBuf,
    /// Its contents may be lost.
    pub may_write: bool,
    /// No disk bounds what can be reached.
    pub in_memory: bool,
    /// Goes with this.
    _device: Option<Zram>,
}

impl Storage {
    /// What the user named. It is read only, unless the user gave it away.
    pub fn named(path: &Path, may_write: bool) -> Self {
        let name = path.display().to_string();
        Self { name, path: path.to_owned(), may_write, in_memory: false, _device: None }
    }

    /// A file in `folder`, full of what does not compress.
    ///
    /// # Errors
    /// There is no room, or its file system has no direct I/O.
    pub fn file(folder: &Path) -> io::Result<Self> {
        let path = folder.join("disk.raw");
        fill(&File::create(&path)?)?;
        let direct = libc::O_DIRECT;
        OpenOptions::new().read(true).custom_flags(direct).open(&path)?;
        Ok(Self { name: "file".into(), path, may_write: true, in_memory: false, _device: None })
    }

    /// A block device in memory, full of what does not compress.
    ///
    /// # Errors
    /// The user may not, or the host has no such device or too little memory.
    pub fn in_memory() -> io::Result<Self> {
        let available = Memory::read(&Root::system()).map_or(Bytes(0), |memory| memory.available);
        if available.0 < SIZE.0 + MEMORY_LEFT.0 {
            return Err(io::Error::other("too little memory is available"));
        }
        let device = Zram::make(SIZE)?;
        let path = device.path();
        fill(&OpenOptions::new().write(true).custom_flags(libc::O_EXCL).open(&path)?)?;
        Ok(Self { name: "memory".into(), path, may_write: true, in_memory: true, _device: Some(device) })
    }
}

impl Storage {
    /// It as the disk of a machine.
    pub fn disk(&self) -> Disk<'_> {
        Disk { path: &self.path, readonly: !self.may_write }
    }
}

/// Writes [`SIZE`] bytes and waits until they are stored.
fn fill(mut file: &File) -> io::Result<()> {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut piece = vec![0; PIECE_BYTES];
    for _ in 0..SIZE.0 / PIECE_BYTES as u64 {
        noise.fill(&mut piece);
        file.write_all(&piece)?;
    }
    file.sync_all()
}

/// Bytes that do not compress (Marsaglia, "Xorshift RNGs", 2003).
pub struct Noise(pub u64);

impl Noise {
    /// The next number; never zero.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Fills whole words of `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes());
        }
    }
}

/// A compressed RAM disk of the kernel (admin-guide/blockdev/zram). Dropping it gives its memory back.
#[derive(Debug)]
struct Zram {
    number: u32,
}

impl Zram {
    fn make(size: Bytes) -> io::Result<Self> {
        let number = fs::read_to_string(format!("{CONTROL}/hot_add"))?;
        let number = number.trim().parse().map_err(io::Error::other)?;
        let device = Self { number };
        fs::write(format!("/sys/block/zram{number}/disksize"), size.0.to_string())?;
        for _ in 0..NODE_LOOKS {
            if device.path().exists() {
                return Ok(device);
            }
            thread::sleep(NODE_LOOK_EVERY);
        }
        Err(io::Error::other("its node in /dev does not appear"))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/zram{}", self.number))
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        // The kernel refuses while somebody has the device open; a VM that was killed is gone soon.
        for _ in 0..NODE_LOOKS {
            if fs::write(format!("{CONTROL}/hot_remove"), self.number.to_string()).is_ok() {
                return;
            }
            thread::sleep(NODE_LOOK_EVERY);
        }
        let path = self.path();
        let path = path.display();
        crate::output::warn(format_args!(
            "{path} is still in use and keeps its memory; when it is not: echo {} > {CONTROL}/hot_remove",
            self.number
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_does_not_repeat_soon() {
        let mut noise = Noise(1);
        let mut numbers: Vec<u64> = (0..1000).map(|_| noise.next()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 1000);
        let mut bytes = [0; 20];
        noise.fill(&mut bytes);
        assert_eq!(bytes[16..], [0; 4]);
        assert_ne!(bytes[..8], bytes[8..16]);
    }
}
