//! The request queue: flushes, each of which fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use napa_sys::reactor::{Io, Worker};
use napa_virtio::{Buffers, Chain, Queue};

/// The driver has made requests.
const KICK: u32 = 0;
/// The turn was over before the requests were.
const MORE: u32 = 1;

/// Requests answered in one turn of the control thread, which has others to serve.
const TURN_REQUESTS_MAX: usize = 256;

/// `VIRTIO_PMEM_REQ_TYPE_FLUSH`: the only request there is (VIRTIO 1.3 §5.19.6).
const FLUSH: u32 = 0;
/// The request failed; only 0 is success (VIRTIO 1.3 §5.19.6). Linux passes it on as an error of I/O.
const FAILED: u32 = 1;

pub(super) struct FlushWorker {
    name: String,
    queue: Queue,
    buffers: Buffers,
    /// Whether somebody was told of a flush, over all drivers and reboots.
    is_told: Arc<AtomicBool>,
}

impl FlushWorker {
    pub fn new(name: String, queue: Queue, is_told: Arc<AtomicBool>) -> Self {
        Self { name, queue, buffers: Buffers::default(), is_told }
    }

    fn serve(&mut self, io: &mut Io<'_>) {
        let mut left = TURN_REQUESTS_MAX;
        self.queue.disable_doorbell();
        loop {
            if left == 0 {
                return io.wait_timeout(MORE, Duration::ZERO);
            }
            match self.queue.pop() {
                Some(chain) => self.answer(chain),
                None if self.queue.enable_doorbell() => {}
                None => return self.queue.wait(KICK, io),
            }
            left -= 1;
        }
    }

    /// What the guest wrote was dropped when it wrote it, so a flush cannot keep its promise. Only a guest that has the
    /// image mounted for writing asks for one.
    fn answer(&mut self, mut chain: Chain) {
        let head = chain.head_index();
        if let Err(error) = self.buffers.fill(&mut chain, self.queue.memory()) {
            return self.queue.fail(error);
        }
        let Some(kind) = self.buffers.take_header() else {
            return self.queue.fail("a request is too short to say what it wants");
        };
        if u32::from_le_bytes(kind) == FLUSH && !self.is_told.swap(true, Ordering::Relaxed) {
            eprintln!(
                "napa: {}: the guest wants what it wrote to be kept, but the image is read-only and nothing of it was \
                 taken; mount it read-only in the guest",
                self.name
            );
        }
        let written = self.buffers.write(&FAILED.to_le_bytes());
        if written < size_of_val(&FAILED) {
            return self.queue.fail("a request has no room for its outcome");
        }
        self.queue.push(head, written as u32);
    }
}

impl Worker for FlushWorker {
    fn start(&mut self, io: &mut Io<'_>) {
        self.serve(io);
    }

    fn ready(&mut self, _token: u32, io: &mut Io<'_>) {
        self.serve(io);
    }

    fn turn_end(&mut self, _: &mut Io<'_>) {
        self.queue.notify();
    }
}
