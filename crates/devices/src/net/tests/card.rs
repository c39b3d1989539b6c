//! A card with a driver that a test plays.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use napa_api::VmConfig;
use napa_api::config::NetConfig;
use napa_sys::reactor::{self, Handle, WorkerId};
use napa_virtio::{Activation, Device, Feature, Placement};
use vm_memory::{Bytes as _, GuestAddress};

use super::frame::Frame;
use crate::net::Net;
use crate::net::request::HEADER_BYTES;
use crate::testing::{Bench, Driver, WRITE, ram};

pub const RAM_MIB: u64 = 32;
/// Memory of one queue: rings, then data.
pub const QUEUE_BYTES: u64 = 4 << 20;
const DATA_OFFSET: u64 = 0x1_0000;
const SIZE: u16 = 256;
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn config(tap: &str, queues: Option<u16>) -> VmConfig {
    let net = NetConfig { tap: tap.to_owned(), mac: None, queues, mtu: None };
    VmConfig { nets: vec![net], ..VmConfig::default() }
}

pub struct Card {
    pub device: Net,
    pub bench: Bench,
    pub queues: Vec<Driver>,
    reactors: Vec<(Handle, JoinHandle<std::io::Result<()>>)>,
    workers: Vec<(usize, WorkerId)>,
    /// Buffers that the device has, by queue and head.
    posted: HashMap<(usize, u16), (u64, u32)>,
    sent: u64,
}

impl Card {
    /// A card whose driver accepts `features` of what it offers.
    pub fn start(config: &VmConfig, features: u64) -> Self {
        Self::activate(Self::open(config), features)
    }

    pub fn open(config: &VmConfig) -> Net {
        Net::open(config, 0).unwrap()
    }

    /// A driver takes `device` over.
    pub fn activate(mut device: Net, features: u64) -> Self {
        let bench = Bench::new(&ram(RAM_MIB));
        let (drivers, queues): (Vec<_>, Vec<_>) = (0..device.queue_sizes().len())
            .map(|index| bench.queue(index as u64 * QUEUE_BYTES, SIZE))
            .map(|(driver, queue)| (driver, Some(queue)))
            .unzip();
        let features = device.features() & features | Feature::VERSION_1;
        let placed = device.activate(Activation {
            memory: Arc::clone(&bench.ram),
            pages: bench.pages(),
            features,
            queues,
            config_interrupt: bench.config_interrupt.clone(),
            health: bench.health.clone(),
        });
        let reactors = ["io", "control"].map(|name| reactor::spawn(name).unwrap()).into_iter().collect();
        let mut card = Self {
            device,
            bench,
            queues: drivers,
            reactors,
            workers: Vec::new(),
            posted: HashMap::new(),
            sent: 0,
        };
        for (placement, worker) in placed.unwrap() {
            let reactor = usize::from(placement == Placement::Control);
            card.workers.push((reactor, card.reactors[reactor].0.add(worker).unwrap()));
        }
        card
    }

    /// Gives receive queue `queue` `count` buffers of `bytes` bytes.
    pub fn post(&mut self, queue: usize, count: u16, bytes: u32) {
        for _ in 0..count {
            self.post_one(queue, bytes);
        }
        self.queues[queue].kick();
    }

    /// Gives receive queue `queue` buffers until it has `count`.
    pub fn top_up(&mut self, queue: usize, count: usize, bytes: u32) {
        let posted = self.posted.keys().filter(|(of, _)| *of == queue).count();
        self.post(queue, count.saturating_sub(posted) as u16, bytes);
    }

    fn post_one(&mut self, queue: usize, bytes: u32) {
        let free = (0..u64::from(SIZE))
            .map(|slot| queue as u64 * QUEUE_BYTES + DATA_OFFSET + slot * 0x2000)
            .find(|address| !self.posted.iter().any(|((of, _), (at, _))| *of == queue && at == address))
            .expect("a test posts at most as many buffers as there are entries");
        let head = self.queues[queue].add(&[(free, bytes, WRITE)]);
        self.posted.insert((queue, head), (free, bytes));
    }

    /// The next frame of a receive queue, or `None` if there is none for `patience`. What a bridge says of its own
    /// accord is passed over, and its buffers are posted again.
    pub fn receive_for(&mut self, queue: usize, patience: Duration) -> Option<Frame> {
        let until = Instant::now() + patience;
        loop {
            let (frame, sizes) = self.receive_any(queue, until.saturating_duration_since(Instant::now()))?;
            if !frame.is_igmp() {
                return Some(frame);
            }
            sizes.into_iter().for_each(|bytes| self.post(queue, 1, bytes));
        }
    }

    /// The next frame, and the sizes of the buffers that it came in.
    fn receive_any(&mut self, queue: usize, patience: Duration) -> Option<(Frame, Vec<u32>)> {
        let first = self.queues[queue].wait_used_for(patience)?;
        let (mut all, size) = self.take_buffer(queue, first);
        let mut sizes = vec![size];
        let mut frame = Frame { header: all[..HEADER_BYTES].try_into().unwrap(), bytes: Vec::new() };
        for _ in 1..frame.num_buffers() {
            let next = self.queues[queue].used().expect("a frame's buffers come back together");
            let (part, size) = self.take_buffer(queue, next);
            all.extend(part);
            sizes.push(size);
        }
        frame.bytes = all.split_off(HEADER_BYTES);
        Some((frame, sizes))
    }

    /// The next frame of EtherType `ethertype`; the host's own chatter is passed over.
    pub fn receive(&mut self, queue: usize, ethertype: u16) -> Frame {
        let until = Instant::now() + PATIENCE;
        while let Some(frame) = self.receive_for(queue, until.saturating_duration_since(Instant::now())) {
            if frame.ethertype() == ethertype {
                return frame;
            }
        }
        panic!("no frame of type {ethertype:#06x} came");
    }

    fn take_buffer(&mut self, queue: usize, (head, written): (u16, u32)) -> (Vec<u8>, u32) {
        let (address, bytes) = self.posted.remove(&(queue, head)).expect("only posted buffers come back");
        assert!(written <= bytes, "more was written than there is room for");
        let mut data = vec![0; written as usize];
        self.bench.ram.read_slice(&mut data, GuestAddress(address)).unwrap();
        (data, bytes)
    }

    /// Sends a frame whose header and data are in pieces of their own, and waits until it was taken.
    pub fn send(&mut self, queue: usize, frame: &Frame) {
        let address = queue as u64 * QUEUE_BYTES + DATA_OFFSET + self.sent % 16 * 0x2_0000;
        self.sent += 1;
        let bytes = [&frame.header[..], &frame.bytes].concat();
        self.bench.ram.write_slice(&bytes, GuestAddress(address)).unwrap();
        let cut = HEADER_BYTES + frame.bytes.len() / 2;
        let pieces = [(0, HEADER_BYTES), (HEADER_BYTES, cut), (cut, bytes.len())];
        let pieces = pieces.map(|(from, to)| (address + from as u64, (to - from) as u32, 0));
        let head = self.queues[queue].add(&pieces);
        self.queues[queue].kick();
        assert_eq!(self.queues[queue].wait_used(), (head, 0));
    }

    /// Sends a control command and returns its outcome.
    pub fn command(&mut self, queue: usize, bytes: &[u8]) -> u8 {
        let address = queue as u64 * QUEUE_BYTES + DATA_OFFSET;
        self.bench.ram.write_slice(bytes, GuestAddress(address)).unwrap();
        self.bench.ram.write_obj(0xaa_u8, GuestAddress(address + 0x100)).unwrap();
        self.queues[queue].add(&[(address, bytes.len() as u32, 0), (address + 0x100, 1, WRITE)]);
        self.queues[queue].kick();
        self.queues[queue].wait_used();
        self.bench.ram.read_obj(GuestAddress(address + 0x100)).unwrap()
    }

    /// Takes the workers back, as a reset of the driver does.
    pub fn stop(&mut self) {
        let workers = std::mem::take(&mut self.workers);
        let take = |(reactor, id): (usize, WorkerId)| self.reactors[reactor].0.remove(id).unwrap().unwrap();
        self.device.reset(workers.into_iter().map(take).collect());
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        for (handle, thread) in self.reactors.drain(..) {
            handle.quit();
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("a reactor panicked").unwrap();
            }
        }
    }
}
