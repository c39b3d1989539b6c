//! From the guest to the tap.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use napa_sys::reactor::{Io, Worker};
use napa_virtio::{Buffers, Queue};

use super::link::Link;
use super::request::{HEADER_BYTES, check_header};
use super::tap::{Tap, is_detached};

const KICK: u32 = 0;
const WRITABLE: u32 = 1;
const NEXT_TURN: u32 = 2;
/// Frames of one turn at most, so that other workers of the thread get theirs.
const FRAMES_PER_TURN: usize = 256;

/// Serves a transmit queue.
pub struct Transmit {
    queue: Queue,
    tap: Arc<Tap>,
    index: usize,
    link: Link,
    features: u64,
    frame: Buffers,
}

/// How an attempt to send a frame ended.
enum Step {
    /// A frame was sent or dropped.
    Done,
    NoFrame,
    /// The tap takes none now.
    Blocked,
    /// The device waits for a reset.
    Failed,
}

impl Transmit {
    /// Serves `queue` by queue `index` of `tap` for a driver that accepted `features`.
    pub fn new(queue: Queue, tap: Arc<Tap>, index: usize, link: Link, features: u64) -> Self {
        Self { queue, tap, index, link, features, frame: Buffers::default() }
    }

    fn transmit(&mut self, io: &mut Io<'_>) {
        self.queue.disable_doorbell();
        for _ in 0..FRAMES_PER_TURN {
            match self.step() {
                Step::Done => {}
                Step::NoFrame if self.queue.enable_doorbell() => self.queue.disable_doorbell(),
                Step::NoFrame => return self.queue.wait(KICK, io),
                Step::Blocked => return io.wait_writable(WRITABLE, self.tap.queue(self.index)),
                Step::Failed => return,
            }
        }
        io.wait_timeout(NEXT_TURN, Duration::ZERO);
    }

    fn step(&mut self) -> Step {
        let Some(mut chain) = self.queue.pop() else {
            return if self.queue.has_failed() { Step::Failed } else { Step::NoFrame };
        };
        if let Err(problem) = self.frame.fill(&mut chain, self.queue.memory()) {
            return self.fail(problem);
        }
        if !self.frame.writable.is_empty() {
            return self.fail("a frame to send has a part that the device cannot read");
        }
        let Some(header) = self.frame.take_header() else {
            return self.fail("a frame to send is shorter than its header");
        };
        if self.send(&header) == Sent::Blocked {
            self.queue.put_back();
            return Step::Blocked;
        }
        self.queue.push(chain.head_index(), 0);
        Step::Done
    }

    fn send(&mut self, header: &[u8; HEADER_BYTES]) -> Sent {
        let Ok(header) = check_header(header, self.frame.readable_bytes(), self.features) else {
            return Sent::OrDropped;
        };
        let tap = self.tap.queue(self.index);
        match tap.write(&header, &mut self.frame) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Blocked,
            Err(error) if is_detached(&error) && tap.is_gone() => {
                self.link.lose();
                Sent::OrDropped
            }
            // Ethernet promises nothing: what the host does not take is lost.
            Ok(()) | Err(_) => Sent::OrDropped,
        }
    }

    fn fail(&self, problem: impl std::fmt::Display) -> Step {
        self.queue.fail(problem);
        Step::Failed
    }
}

#[derive(PartialEq, Eq)]
enum Sent {
    OrDropped,
    Blocked,
}

impl Worker for Transmit {
    fn start(&mut self, io: &mut Io<'_>) {
        self.transmit(io);
    }

    fn ready(&mut self, _: u32, io: &mut Io<'_>) {
        self.transmit(io);
    }

    fn turn_end(&mut self, _: &mut Io<'_>) {
        self.queue.notify();
    }
}
