//! A driver of the balloon, without a guest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use napa_memory::PageStates;
use napa_sys::reactor::{self, Handle};
use napa_units::{Bytes, PAGE_SIZE};
use napa_virtio::{Activation, Device};
use vm_memory::{Bytes as _, GuestAddress};

use crate::balloon::config::Feature;
use crate::balloon::{Balloon, BalloonDevice};
use crate::testing::{Bench, Driver, RINGS_BYTES, ram};

pub const MEBIBYTES: u64 = 16;
/// Where lists of pages are written.
pub const LISTS: u64 = 0x10_0000;
/// The first page that no ring and no list is in.
pub const FIRST_PAGE: u64 = 512;
pub const END_PAGE: u64 = MEBIBYTES * 256;
pub const INFLATE: usize = 0;
pub const DEFLATE: usize = 1;
pub const STATISTICS: usize = 2;
pub const HINTS: usize = 3;
pub const REPORTS: usize = 4;
const RINGS: u64 = 0x1000;
const SIZE: u16 = 64;
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Rig {
    pub bench: Bench,
    pub balloon: Arc<Balloon>,
    pub pages: Arc<PageStates>,
    pub queues: Vec<Driver>,
    device: BalloonDevice,
    handle: Handle,
    workers: Vec<reactor::WorkerId>,
    next_list: u64,
}

impl Rig {
    /// A driver that has accepted everything.
    pub fn new() -> Self {
        Self::with(Feature::ALL & !Feature::POISON, &[true; 5])
    }

    /// A driver that has accepted `features` and set up those queues that are `true`.
    pub fn with(features: u64, set_up: &[bool]) -> Self {
        let bench = Bench::new(&ram(MEBIBYTES));
        let balloon = Arc::new(Balloon::new(Bytes::mib(MEBIBYTES)).unwrap());
        let pages = bench.pages();
        let (handle, _detached) = reactor::spawn("balloon").unwrap();
        let device = BalloonDevice { balloon: Arc::clone(&balloon), features: Feature::ALL };
        let mut rig = Self {
            bench,
            balloon,
            pages,
            queues: Vec::new(),
            device,
            handle,
            workers: Vec::new(),
            next_list: LISTS,
        };
        rig.activate(features, set_up);
        rig
    }

    /// The driver takes the device.
    pub fn activate(&mut self, features: u64, set_up: &[bool]) {
        let mut queues = Vec::new();
        self.queues.clear();
        let rings = vec![0; set_up.len() * RINGS_BYTES as usize];
        self.bench.ram.write_slice(&rings, GuestAddress(RINGS)).unwrap();
        for (index, is_set_up) in set_up.iter().enumerate() {
            let (driver, queue) = self.bench.queue(RINGS + index as u64 * RINGS_BYTES, SIZE);
            self.queues.push(driver);
            queues.push(is_set_up.then_some(queue));
        }
        let placed = self.device.activate(Activation {
            memory: Arc::clone(&self.bench.ram),
            pages: Arc::clone(&self.pages),
            features,
            queues,
            config_interrupt: self.bench.config_interrupt.clone(),
            health: self.bench.health.clone(),
        });
        let added = placed.unwrap().into_iter().map(|(_, worker)| self.handle.add(worker).unwrap());
        self.workers = added.collect();
    }

    /// The driver resets the device.
    pub fn reset(&mut self) {
        let handle = &self.handle;
        let workers = self.workers.drain(..).filter_map(|id| handle.remove(id).unwrap()).collect();
        self.device.reset(workers);
    }

    pub fn write_config(&mut self, offset: u64, value: u32) {
        self.device.write_config(offset, &value.to_le_bytes());
    }

    pub fn read_config(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.device.read_config(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Makes a list of pages available. No doorbell.
    pub fn offer_list(&mut self, queue: usize, frames: &[u32]) -> u16 {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.to_le_bytes()).collect();
        if self.next_list + bytes.len() as u64 > FIRST_PAGE * PAGE_SIZE {
            self.next_list = LISTS;
        }
        self.bench.ram.write_slice(&bytes, GuestAddress(self.next_list)).unwrap();
        let head = self.queues[queue].add(&[(self.next_list, bytes.len() as u32, 0)]);
        self.next_list += bytes.len() as u64;
        head
    }

    /// Gives a list of pages to the device and waits until it comes back.
    pub fn list(&mut self, queue: usize, frames: &[u32]) {
        let head = self.offer_list(queue, frames);
        self.queues[queue].kick();
        assert_eq!(self.queues[queue].wait_used(), (head, 0));
    }

    pub fn mark(&self, page: u64, mark: u64) {
        self.bench.ram.write_obj(mark, GuestAddress(page * PAGE_SIZE)).unwrap();
    }

    pub fn mark_of(&self, page: u64) -> u64 {
        self.bench.ram.read_obj(GuestAddress(page * PAGE_SIZE)).unwrap()
    }

    /// Waits until something has become so.
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < until, "{what}: {:?}", self.balloon.report());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Makes sure that the thread that serves the device lives.
    pub fn assert_alive(&self) {
        self.handle.pause().expect("the thread lives");
        self.handle.resume();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.quit();
    }
}
