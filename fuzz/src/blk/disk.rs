//! Disks that outlive an input, with their images in reach.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use napa_api::VmConfig;
use napa_api::config::{CacheMode, ConsoleConfig, DiskConfig, DiskFormat};
use napa_devices::{ConsoleBackend, Context, catalog};
use napa_sys::reactor;
use napa_virtio::{SharedDevice, Threads};
use tempfile::TempDir;

/// Size of every disk here.
pub const DISK_BYTES: usize = 64 * 512;
/// Its serial number.
pub const SERIAL: &str = "fuzzed";
/// Virtio device id of a disk.
const BLOCK: u16 = 2;

/// A disk and its image.
pub struct Disk {
    /// The device.
    pub device: SharedDevice,
    /// Whether the host's page cache is out of the way.
    pub is_direct: bool,
    image: File,
}

impl Disk {
    /// All of the image.
    pub fn content(&self) -> Vec<u8> {
        let length = self.image.metadata().expect("an open file has a size").len();
        assert_eq!(length, DISK_BYTES as u64, "the size of the image has changed");
        let mut bytes = vec![0; DISK_BYTES];
        self.image.read_exact_at(&mut bytes, 0).expect("the image can be read");
        bytes
    }

    /// Puts the same bytes on the image whatever was there.
    pub fn refill(&self) -> Vec<u8> {
        let bytes: Vec<u8> = (0..DISK_BYTES).map(|at| (at / 512) as u8 ^ (at % 251) as u8).collect();
        if self.content() != bytes {
            self.image.write_all_at(&bytes, 0).expect("the image can be written");
        }
        bytes
    }
}

/// The disks and the threads that serve them.
pub struct Host {
    /// One through the page cache, and one directly where the file system can.
    pub disks: Vec<Disk>,
    /// Threads of the machine.
    pub threads: Threads,
    _folder: TempDir,
}

impl Host {
    /// Disks in a folder of their own.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let cached = open(folder.path(), CacheMode::Writeback).expect("any file system has a page cache");
        let direct = open(folder.path(), CacheMode::None);
        let (control, _detached) = reactor::spawn("control").expect("a thread can be started");
        let disks = std::iter::once(cached).chain(direct).collect();
        Self { disks, threads: Threads::new(control, 1), _folder: folder }
    }
}

fn open(folder: &Path, cache: CacheMode) -> Option<Disk> {
    let path = folder.join(format!("{cache:?}"));
    std::fs::write(&path, [0; DISK_BYTES]).expect("an image can be made");
    let image = File::options().read(true).write(true).open(&path).expect("it is there");
    let disk = DiskConfig {
        path,
        readonly: false,
        format: DiskFormat::Raw,
        cache,
        queues: Some(2),
        serial: Some(SERIAL.into()),
    };
    let config =
        VmConfig { console: ConsoleConfig::Off, rng: false, disks: vec![disk], ..VmConfig::default() };
    let (console, _worker) =
        ConsoleBackend::open(&config.console, None, Box::new(|_| {})).expect("no console is no problem");
    let devices =
        catalog::open_all(&Context { config: &config, console: &console, balloon: None, hotplug: None })
            .ok()?;
    let device = devices.into_iter().find(|device| device.id() == BLOCK)?;
    Some(Disk { device: Arc::new(Mutex::new(device)), is_direct: cache == CacheMode::None, image })
}
