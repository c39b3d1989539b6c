//! The request queue: flushes, of which nothing is ever left to do.

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
/// The flush is done (VIRTIO 1.3 §5.19.6).
const OK: u32 = 0;
/// The flush failed.
const FAILED: u32 = u32::MAX;

pub(super) struct FlushWorker {
    queue: Queue,
    buffers: Buffers,
}

impl FlushWorker {
    pub fn new(queue: Queue) -> Self {
        Self { queue, buffers: Buffers::default() }
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

    /// What the guest wrote was dropped when it wrote it, so all of it is as safe as it will ever be.
    fn answer(&mut self, mut chain: Chain) {
        let head = chain.head_index();
        if let Err(error) = self.buffers.fill(&mut chain, self.queue.memory()) {
            return self.queue.fail(error);
        }
        let Some(kind) = self.buffers.take_header() else {
            return self.queue.fail("a request is too short to say what it wants");
        };
        let outcome = if u32::from_le_bytes(kind) == FLUSH { OK } else { FAILED };
        let written = self.buffers.write(&outcome.to_le_bytes());
        if written < size_of_val(&outcome) {
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
