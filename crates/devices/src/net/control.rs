//! The control queue (VIRTIO 1.3 §5.1.6.5): how many queue pairs the driver uses.

use std::sync::Arc;
use std::time::Duration;

use napa_sys::reactor::{Io, Worker};
use napa_virtio::{Buffers, Queue};
use virtio_bindings::virtio_net::{VIRTIO_NET_ERR, VIRTIO_NET_OK};

use super::request::Command;
use super::tap::Tap;

const KICK: u32 = 0;
const NEXT_TURN: u32 = 1;
/// Commands of one turn at most: each may cost a round through the host's network lock.
const COMMANDS_PER_TURN: usize = 16;

/// Serves the control queue.
pub struct Control {
    queue: Queue,
    tap: Arc<Tap>,
    /// Most pairs that the driver may ask for.
    pairs_max: u16,
    command: Buffers,
}

/// How an attempt to serve a command ended.
enum Step {
    /// A command was performed or refused.
    Done,
    NoCommand,
    /// The device waits for a reset.
    Failed,
}

impl Control {
    /// Serves `queue` for a driver that may use up to `pairs_max` queue pairs of `tap`.
    pub fn new(queue: Queue, tap: Arc<Tap>, pairs_max: u16) -> Self {
        Self { queue, tap, pairs_max, command: Buffers::default() }
    }

    fn serve(&mut self, io: &mut Io<'_>) {
        self.queue.disable_doorbell();
        for _ in 0..COMMANDS_PER_TURN {
            match self.step() {
                Step::Done => {}
                Step::NoCommand if self.queue.enable_doorbell() => self.queue.disable_doorbell(),
                Step::NoCommand => return self.queue.wait(KICK, io),
                Step::Failed => return,
            }
        }
        io.wait_timeout(NEXT_TURN, Duration::ZERO);
    }

    fn step(&mut self) -> Step {
        let Some(mut chain) = self.queue.pop() else {
            return if self.queue.has_failed() { Step::Failed } else { Step::NoCommand };
        };
        if let Err(problem) = self.command.fill(&mut chain, self.queue.memory()) {
            self.queue.fail(problem);
            return Step::Failed;
        }
        let Some(status) = self.command.take_status() else {
            self.queue.fail("a control command has no room for its outcome");
            return Step::Failed;
        };
        let outcome = if self.perform() { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
        status.write(&self.queue, outcome as u8);
        self.queue.push(chain.head_index(), 1);
        Step::Done
    }

    fn perform(&self) -> bool {
        // One byte more shows that a command is longer than any that is known.
        let mut bytes = [0; Command::BYTES_MAX + 1];
        let length = self.command.read(&mut bytes);
        match Command::parse(&bytes[..length]) {
            Command::QueuePairs(pairs) if (1..=self.pairs_max).contains(&pairs) => {
                self.tap.activate(usize::from(pairs)).is_ok()
            }
            Command::QueuePairs(_) | Command::Unknown => false,
        }
    }
}

impl Worker for Control {
    fn start(&mut self, io: &mut Io<'_>) {
        self.serve(io);
    }

    fn ready(&mut self, _: u32, io: &mut Io<'_>) {
        self.serve(io);
    }

    fn turn_end(&mut self, _: &mut Io<'_>) {
        self.queue.notify();
    }
}
