//! A disk with its workers on a real reactor, and a driver that is the test.

mod hostile;
mod integrity;
mod opening;
mod requests;
mod steps;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use napa_api::config::{CacheMode, DiskConfig, DiskFormat};
use napa_memory::GuestRam;
use napa_sys::reactor::{self, Handle, WorkerId};
use napa_virtio::{Activation, Device};
use tempfile::TempDir;
use vm_memory::{Bytes as _, GuestAddress};

use super::request::{HEADER_BYTES, Status};
use super::*;
use crate::testing::{self, Bench, Driver, RINGS_BYTES, WRITE};

/// Guest RAM of a rig, in MiB.
const RAM_MIB: u64 = 8;
/// Where the rings of a rig's queues are.
const RINGS: u64 = 0x1000;
/// Where headers and outcomes are; 64 bytes for each of up to 256 requests.
const HEADERS: u64 = 0x10_0000;
/// Where data is.
const DATA: u64 = 0x20_0000;
/// A status that no device writes.
const UNTOUCHED: u8 = 0xee;
/// All features a disk may offer.
const ALL: u64 = u64::MAX;

/// An image of `bytes` zeros in a folder of its own.
fn image(bytes: u64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    (folder, path)
}

fn config(path: &Path, cache: CacheMode) -> DiskConfig {
    DiskConfig {
        path: path.to_owned(),
        readonly: false,
        format: DiskFormat::Raw,
        cache,
        queues: None,
        serial: None,
    }
}

fn block(config: &DiskConfig) -> Block {
    Block::open("disk0".into(), config, 1).unwrap()
}

/// One request as a test sees it.
struct Ask<'a> {
    kind: u32,
    sector: u64,
    /// Data as `(address, length)`; which way it goes follows from the type.
    data: &'a [(u64, u32)],
}

/// A running disk.
struct Rig {
    bench: Bench,
    drivers: Vec<Driver>,
    block: Block,
    reactor: Handle,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    workers: Vec<WorkerId>,
    /// Request slots used so far.
    slots: u64,
}

impl Rig {
    fn new(config: &DiskConfig, features: u64) -> Self {
        let mut block = block(config);
        let bench = Bench::new(&testing::ram(RAM_MIB));
        let count = block.queue_sizes().len() as u64;
        let (drivers, queues): (Vec<_>, Vec<_>) =
            (0..count).map(|index| bench.queue(RINGS + index * RINGS_BYTES, QUEUE_SIZE)).unzip();
        let placed = block
            .activate(Activation {
                memory: Arc::clone(&bench.ram),
                pages: bench.pages(),
                features: features & block.features(),
                queues: queues.into_iter().map(Some).collect(),
                config_interrupt: bench.config_interrupt.clone(),
                health: bench.health.clone(),
            })
            .unwrap();
        let (reactor, thread) = reactor::spawn("test").unwrap();
        let workers = placed.into_iter().map(|(_, worker)| reactor.add(worker).unwrap()).collect();
        Self { bench, drivers, block, reactor, thread: Some(thread), workers, slots: 0 }
    }

    fn ram(&self) -> &GuestRam {
        &self.bench.ram
    }

    /// Makes a request available on the first queue and returns its head and the address of its status.
    fn start(&mut self, ask: &Ask<'_>) -> (u16, GuestAddress) {
        let header = HEADERS + (self.slots % 256) * 64;
        self.slots += 1;
        let status = GuestAddress(header + 32);
        let bytes = [u64::from(ask.kind).to_le_bytes(), ask.sector.to_le_bytes()].concat();
        self.ram().write_slice(&bytes, GuestAddress(header)).unwrap();
        self.ram().write_obj(UNTOUCHED, status).unwrap();
        let flags =
            if matches!(ask.kind, abi::VIRTIO_BLK_T_IN | abi::VIRTIO_BLK_T_GET_ID) { WRITE } else { 0 };
        let mut pieces = vec![(header, HEADER_BYTES as u32, 0)];
        pieces.extend(ask.data.iter().map(|(address, length)| (*address, *length, flags)));
        pieces.push((status.0, 1, WRITE));
        (self.drivers[0].add(&pieces), status)
    }

    /// Carries out one request and returns its outcome and the bytes written.
    fn ask(&mut self, kind: u32, sector: u64, data: &[(u64, u32)]) -> (u8, u32) {
        let (head, status) = self.start(&Ask { kind, sector, data });
        self.drivers[0].kick();
        let (used, written) = self.drivers[0].wait_used();
        assert_eq!(used, head);
        (self.ram().read_obj(status).unwrap(), written)
    }

    /// The same for a discard or write-zeroes request over one range.
    fn ask_range(&mut self, kind: u32, sector: u64, sectors: u32, flags: u32) -> (u8, u32) {
        let mut segment = sector.to_le_bytes().to_vec();
        segment.extend(sectors.to_le_bytes());
        segment.extend(flags.to_le_bytes());
        self.ram().write_slice(&segment, GuestAddress(DATA)).unwrap();
        self.ask(kind, 0, &[(DATA, segment.len() as u32)])
    }

    fn fill(&self, address: u64, bytes: &[u8]) {
        self.ram().write_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn look(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.ram().read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for worker in self.workers.drain(..) {
            let _ = self.reactor.remove(worker);
        }
        self.reactor.quit();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok_and(|result| result.is_ok()));
        }
    }
}

/// Bytes of the image.
fn contents(path: &Path, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

/// Bytes that differ from place to place.
fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|index| (index as u8).wrapping_mul(31).wrapping_add((index >> 8) as u8) ^ seed).collect()
}
