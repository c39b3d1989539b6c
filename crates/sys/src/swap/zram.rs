//! Compressed memory as a swap area (Documentation/admin-guide/blockdev/zram.rst).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use napa_units::Bytes;
use rustix::fs::{Dev, FileType, Mode};

use super::file::check_size;
use super::header;
use super::{SwapError, ZRAM_PRIORITY, switch_off, switch_on, uuid};
use crate::host::Root;

/// Compressors from the one that is preferred on: the fastest first, because a guest waits for it.
const COMPRESSORS: [&str; 4] = ["lz4", "lzo-rle", "lzo", "zstd"];
/// How long the host may take to make a device's file.
const NODE_BOUND: Duration = Duration::from_secs(5);
const NODE_STEP: Duration = Duration::from_millis(20);
const CONTROL: &str = "sys/class/zram-control";

/// A device that is taken away when dropped unless it was kept.
#[derive(Debug)]
pub struct Zram {
    root: Root,
    number: u32,
    is_on: bool,
    is_kept: bool,
}

impl Zram {
    /// Makes a device for this much uncompressed memory and swaps to it.
    ///
    /// # Errors
    /// There is no zram, or no right to it; nothing is left behind.
    pub fn make(root: &Root, size: Bytes) -> Result<Self, SwapError> {
        check_size("--zram-size", size)?;
        let add = root.path(&format!("{CONTROL}/hot_add"));
        let number = fs::read_to_string(&add).map_err(|error| no_zram(&add, error))?;
        let number = number.trim().parse().map_err(|_| no_zram(&add, io::ErrorKind::InvalidData.into()))?;
        let mut zram = Self { root: root.clone(), number, is_on: false, is_kept: false };
        zram.set_up(size)?;
        Ok(zram)
    }

    /// Leaves it on.
    pub fn keep(mut self) {
        self.is_kept = true;
    }

    fn set_up(&mut self, size: Bytes) -> Result<(), SwapError> {
        let compressor = self.compressor();
        if let Some(compressor) = compressor {
            self.set("comp_algorithm", compressor)?;
        }
        self.set("disksize", &size.0.to_string())?;
        let node = self.node()?;
        let written = uuid().and_then(|uuid| {
            let device = OpenOptions::new().write(true).open(&node)?;
            device.write_all_at(&header::header(size, uuid), 0)?;
            device.sync_all()
        });
        written.map_err(|source| refused("write", &node, source))?;
        switch_on(&node, ZRAM_PRIORITY)?;
        self.is_on = true;
        Ok(())
    }

    /// `None`: none of those known here; the kernel's own choice stays.
    fn compressor(&self) -> Option<&'static str> {
        let offered = fs::read_to_string(self.attribute("comp_algorithm")).unwrap_or_default();
        let has = |name: &&str| offered.split_whitespace().any(|word| word.trim_matches(['[', ']']) == *name);
        COMPRESSORS.into_iter().find(has)
    }

    fn set(&self, name: &str, value: &str) -> Result<(), SwapError> {
        let path = self.attribute(name);
        let write = || OpenOptions::new().write(true).open(&path)?.write_all(value.as_bytes());
        write().map_err(|source| refused("write", &path, source))
    }

    fn attribute(&self, name: &str) -> PathBuf {
        self.root.path(&format!("sys/block/zram{}/{name}", self.number))
    }

    /// The device's file. A host without a device manager has none before it is made.
    fn node(&self) -> Result<PathBuf, SwapError> {
        let node = self.root.path(&format!("dev/zram{}", self.number));
        let deadline = Instant::now() + NODE_BOUND;
        while !node.exists() && Instant::now() < deadline {
            std::thread::sleep(NODE_STEP);
        }
        if !node.exists() {
            make_node(&node, &self.attribute("dev")).map_err(|source| refused("make", &node, source))?;
        }
        Ok(node)
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // It was made a moment ago: whatever is in it fits back.
        if self.is_on {
            let _ = switch_off(&self.root.path(&format!("dev/zram{}", self.number)));
        }
        let _ = take_away(&self.root, self.number);
    }
}

/// The number of a zram device by its path.
pub fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix("zram")?.parse().ok().filter(|_| path.starts_with("/dev"))
}

/// Takes a device away that is not swapped to.
pub fn take_away(root: &Root, number: u32) -> Result<(), SwapError> {
    let path = root.path(&format!("{CONTROL}/hot_remove"));
    let remove = || OpenOptions::new().write(true).open(&path)?.write_all(number.to_string().as_bytes());
    remove().map_err(|source| refused("take zram away by", &path, source))?;
    // A device manager has done so already.
    let _ = fs::remove_file(root.path(&format!("dev/zram{number}")));
    Ok(())
}

fn make_node(node: &Path, numbers: &Path) -> io::Result<()> {
    let text = fs::read_to_string(numbers)?;
    let device = text
        .trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)));
    let (major, minor) = device.ok_or(io::ErrorKind::InvalidData)?;
    let device: Dev = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(rustix::fs::CWD, node, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device)?;
    Ok(())
}

fn no_zram(path: &Path, error: io::Error) -> SwapError {
    match error.kind() {
        io::ErrorKind::NotFound => SwapError::Input(
            "--compressed zram: the kernel has no zram: sudo modprobe zram, or use --compressed zswap or off"
                .into(),
        ),
        _ => refused("read", path, error),
    }
}

fn refused(what: &'static str, path: &Path, source: io::Error) -> SwapError {
    let mend = match source.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root, outside of a container",
        _ => "",
    };
    SwapError::Refused { what, path: path.to_owned(), source, mend }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Fixture;

    #[test]
    fn the_fastest_compressor_that_is_offered_is_chosen() {
        for (offered, expected) in [
            ("[lzo-rle] lzo lz4 \n", Some("lz4")),
            ("lzo [lzo-rle] zstd\n", Some("lzo-rle")),
            ("[zstd]\n", Some("zstd")),
            ("[842]\n", None),
        ] {
            let host = Fixture::new(&[("sys/block/zram7/comp_algorithm", offered)]);
            let zram = Zram { root: host.root(), number: 7, is_on: false, is_kept: true };
            assert_eq!(zram.compressor(), expected);
        }
    }

    #[test]
    fn a_host_without_zram_is_told_the_command() {
        let error = Zram::make(&Fixture::new(&[]).root(), Bytes::mib(1)).unwrap_err().to_string();
        assert!(error.contains("sudo modprobe zram"), "{error}");
    }

    #[test]
    fn devices_are_known_by_their_paths() {
        assert_eq!(number(Path::new("/dev/zram12")), Some(12));
        for other in ["/dev/vda", "/home/zram1", "/dev/zramx", "/dev/zram"] {
            assert_eq!(number(Path::new(other)), None, "{other}");
        }
    }
}
