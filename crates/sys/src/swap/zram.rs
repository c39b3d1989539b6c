//! Compressed memory as a swap area (Documentation/admin-guide/blockdev/zram.rst).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use napa_units::Bytes;
use rustix::fs::{Dev, FileType, Mode};

use super::file::check_size;
use super::header;
use super::{SwapError, ZRAM_PRIORITY, switch_off, switch_on, uuid};
use crate::host::{Root, Swap};

/// Compressors from the one that is preferred on: the fastest first, because a guest waits for it.
const COMPRESSORS: [&str; 4] = ["lz4", "lzo-rle", "lzo", "zstd"];
/// How long the host may take to make a device's file.
const NODE_BOUND: Duration = Duration::from_secs(5);
/// How long somebody else, such as a device manager that looks at what has changed, may have a device open before it is
/// given up to take it away.
const BUSY_BOUND: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(20);
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
            std::thread::sleep(STEP);
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
    while_busy(Instant::now() + BUSY_BOUND, remove)
        .map_err(|source| refused("take zram away by", &path, source))?;
    // A device manager has done so already.
    let _ = fs::remove_file(root.path(&format!("dev/zram{number}")));
    Ok(())
}

/// Tries again as long as somebody has it open.
fn while_busy(deadline: Instant, mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(STEP);
            }
            other => return other,
        }
    }
}

/// A device of napa's that is not swapped to: it was switched off by hand, or could not be taken away.
#[derive(Debug)]
pub struct UnusedZram {
    /// Its file.
    pub path: PathBuf,
    /// What it could hold.
    pub size: Bytes,
    number: u32,
}

impl UnusedZram {
    /// All of them, in the order of their names; none for a user who may not look.
    pub fn find(root: &Root) -> Vec<Self> {
        let used = Swap::read(root);
        let unused = |name: String| {
            let number = name.strip_prefix("zram")?.parse().ok()?;
            let path = Path::new("/dev").join(&name);
            let size = root.text(&format!("sys/block/{name}/disksize"))?.parse().map(Bytes).ok()?;
            let file = File::open(root.path(&format!("dev/{name}"))).ok()?;
            let is_used = used.iter().any(|area| Path::new(&area.path) == path);
            (!is_used && header::is_ours(&file).ok()?).then_some(Self { path, size, number })
        };
        root.names("sys/block").into_iter().filter_map(unused).collect()
    }

    /// Takes it away.
    ///
    /// # Errors
    /// Somebody has it open, or there is no right to it.
    pub fn remove(&self, root: &Root) -> Result<(), SwapError> {
        take_away(root, self.number)
    }
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
        io::ErrorKind::ResourceBusy => "; somebody has the device open: napa swap remove tries again",
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
    fn a_busy_device_is_tried_again_until_time_is_up() {
        let mut answers = [io::ErrorKind::ResourceBusy; 2].into_iter();
        let attempt = || answers.next().map_or(Ok(()), |kind| Err(kind.into()));
        while_busy(Instant::now() + BUSY_BOUND, attempt).unwrap();
        let busy = while_busy(Instant::now(), || Err(io::ErrorKind::ResourceBusy.into()));
        assert_eq!(busy.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        let mut attempts = 0;
        let gone = while_busy(Instant::now() + BUSY_BOUND, || {
            attempts += 1;
            Err(io::ErrorKind::NotFound.into())
        });
        assert_eq!((gone.unwrap_err().kind(), attempts), (io::ErrorKind::NotFound, 1));
    }

    #[test]
    fn devices_of_napas_that_are_switched_off_are_found() {
        let swaps = "Filename Type Size Used Priority\n/dev/zram1 partition 1020 0 100\n";
        let sizes = ["sys/block/zram0/disksize", "sys/block/zram1/disksize", "sys/block/zram2/disksize"];
        let host = Fixture::new(&[
            ("proc/swaps", swaps),
            (sizes[0], "1048576\n"),
            (sizes[1], "1048576\n"),
            (sizes[2], "1048576\n"),
            ("sys/block/vda/size", "1\n"),
            ("dev/zram2", "somebody else's"),
        ]);
        for name in ["dev/zram0", "dev/zram1"] {
            fs::write(host.root().path(name), header::header(Bytes::mib(1), [7; 16])).unwrap();
        }
        let found = UnusedZram::find(&host.root());
        let found: Vec<_> = found.iter().map(|zram| (zram.path.to_str().unwrap(), zram.size)).collect();
        assert_eq!(found, [("/dev/zram0", Bytes::mib(1))]);
    }

    #[test]
    fn devices_are_known_by_their_paths() {
        assert_eq!(number(Path::new("/dev/zram12")), Some(12));
        for other in ["/dev/vda", "/srv/zram1", "/dev/zramx", "/dev/zram"] {
            assert_eq!(number(Path::new(other)), None, "{other}");
        }
    }
}
