//! A file to which what a guest writes is added as well.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::OpenError;

/// How long the file becomes, in bytes. Whoever makes it shorter makes room.
const LENGTH_MAX: u64 = 4 << 20;
/// How much is written before the file's length is looked at again, in bytes.
const LOOK_EVERY: u64 = 64 << 10;

/// A file that a guest cannot fill the disk with.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// What may be written before the length is looked at.
    room: AtomicU64,
}

impl Log {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file = opened.map_err(|error| {
            OpenError::Input(format!(
                "cannot open the console log {}: {error}; name a file that you may write, in a folder that exists",
                path.display()
            ))
        })?;
        Ok(Self { file, room: AtomicU64::new(0) })
    }

    /// Adds to the file, unless it is full. What cannot be written is not there; the console has it.
    pub fn add(&self, bytes: &[u8]) {
        let size = bytes.len() as u64;
        if self.room.load(Ordering::Relaxed) < size {
            let length = self.file.metadata().map_or(LENGTH_MAX, |metadata| metadata.len());
            let room = LENGTH_MAX.saturating_sub(length).min(LOOK_EVERY.max(size));
            self.room.store(room, Ordering::Relaxed);
            if room < size {
                return;
            }
        }
        // Two consoles that write at once may both take the last room: the bound is missed by what they write.
        self.room.fetch_sub(size.min(self.room.load(Ordering::Relaxed)), Ordering::Relaxed);
        let _ = (&self.file).write_all(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_a_bound_and_goes_on_when_it_is_made_shorter() {
        let path = std::env::temp_dir().join(format!("napa-console-log-{}", std::process::id()));
        let log = Log::open(&path).unwrap();
        let length = || path.metadata().unwrap().len();
        for _ in 0..2 {
            (0..200).for_each(|_| log.add(&[b'x'; 40_000]));
            assert!(length() <= LENGTH_MAX && length() > LENGTH_MAX - 80_000, "{}", length());
            File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        }
        log.add(b"late\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"late\n");
        std::fs::remove_file(path).unwrap();
        assert!(Log::open(Path::new("/no/such/folder/log")).is_err());
    }
}
