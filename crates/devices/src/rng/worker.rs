//! The request queue: buffers to be filled with random bytes.

use std::time::Duration;

use napa_sys::reactor::{Io, Worker};
use napa_virtio::{Buffers, Chain, Queue};
use rustix::rand::{GetRandomFlags, getrandom};

/// The driver has given buffers.
const KICK: u32 = 0;
/// The turn was over before the requests were.
const MORE: u32 = 1;

/// Bytes made for one request, and in one turn of the control thread, which has others to serve. A
/// driver that wants more asks again (VIRTIO 1.3 §5.4.6.1: at least one byte is given).
const TURN_BYTES_MAX: usize = 64 << 10;
/// What a request counts at least: looking at it takes time too.
const REQUEST_COST_BYTES: usize = 64;
/// Bytes made at once; the kernel gives so many without being interrupted.
const PIECE_BYTES: usize = 256;

pub(super) struct RngWorker {
    queue: Queue,
    buffers: Buffers,
}

impl RngWorker {
    pub fn new(queue: Queue) -> Self {
        Self { queue, buffers: Buffers::default() }
    }

    fn serve(&mut self, io: &mut Io<'_>) {
        let mut budget = TURN_BYTES_MAX;
        self.queue.disable_doorbell();
        loop {
            if budget == 0 {
                return io.wait_timeout(MORE, Duration::ZERO);
            }
            match self.queue.pop() {
                Some(chain) => budget = budget.saturating_sub(self.fill(chain, budget)),
                None if self.queue.enable_doorbell() => {}
                None => return self.queue.wait(KICK, io),
            }
        }
    }

    /// Gives a request at most `budget` random bytes; returns what it cost.
    fn fill(&mut self, mut chain: Chain, budget: usize) -> usize {
        let head = chain.head_index();
        if let Err(error) = self.buffers.fill(&mut chain, self.queue.memory()) {
            self.queue.fail(error);
            return REQUEST_COST_BYTES;
        }
        if self.buffers.writable_bytes() == 0 {
            self.queue.fail("a request for random bytes has no room for them");
            return REQUEST_COST_BYTES;
        }
        let mut written = 0;
        while written < budget {
            let count = self.fill_front((budget - written).min(PIECE_BYTES));
            if count == 0 {
                break;
            }
            written += count;
        }
        self.queue.push(head, written as u32);
        written.max(REQUEST_COST_BYTES)
    }

    /// Fills at most `limit` bytes at the front of the request; zero when it is full.
    fn fill_front(&mut self, limit: usize) -> usize {
        let mut bytes = [0; PIECE_BYTES];
        let bytes = &mut bytes[..limit];
        match getrandom(&mut *bytes, GetRandomFlags::empty()) {
            // The kernel's generator is ready before any process that could start a VM, and reads of this
            // size are whole.
            Ok(count) => {
                let written = self.buffers.write(&bytes[..count]);
                self.buffers.skip_writable(written as u64);
                written
            }
            Err(error) => {
                self.queue.fail(format_args!("the host gives no random bytes: {error}"));
                0
            }
        }
    }
}

impl Worker for RngWorker {
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
