//! From the tap to the guest.
//!
//! ```text
//!              frame                    frame
//!   waiting ---------> reading <-----------------+
//!   for a frame <----- | no frame                |
//!                      | no buffer -> waiting for buffers (doorbell)
//!                      | not taking part -> waiting to take part (wake)
//! ```
//!
//! A frame is read straight into the guest's buffers where the longest possible frame fits into those that
//! are there. Else it is read aside and copied once there is room: the tap itself cannot be asked how long
//! its next frame is.

use std::io::ErrorKind;
use std::sync::Arc;

use napa_sys::reactor::{Io, Worker};
use napa_virtio::Queue;

use super::features::{frame_bytes_max, tap_offloads};
use super::link::Link;
use super::posted::{HeaderFlags, Layout, Posted};
use super::request::{FRAME_BYTES_MAX, HEADER_BYTES};
use super::tap::{Tap, TapQueue, is_detached};

const KICK: u32 = 0;
const FRAME: u32 = 1;
const WAKE: u32 = 2;
/// Frames of one turn at most, so that other workers of the thread get theirs.
const FRAMES_PER_TURN: usize = 256;
/// Room for a frame that is read aside: one byte more than any has, so that a cut one is noticed.
const ASIDE_BYTES: usize = FRAME_BYTES_MAX as usize + HEADER_BYTES + 1;

/// Serves a receive queue.
pub struct Receive {
    queue: Queue,
    tap: Arc<Tap>,
    index: usize,
    link: Link,
    posted: Posted,
    flags: HeaderFlags,
    frame_bytes_max: u64,
    /// Memory for frames that are read aside; empty until the first one.
    aside: Vec<u8>,
    /// Bytes of the frame that waits aside.
    waiting: Option<usize>,
    used: Vec<(u16, u32)>,
}

/// How an attempt to receive a frame ended.
enum Step {
    /// A frame was delivered or dropped.
    Done,
    NoFrame,
    NoRoom,
    /// The tap was removed from the host.
    Gone,
    /// The device waits for a reset.
    Failed,
}

impl Receive {
    /// Serves `queue` from queue `index` of `tap` for a driver that accepted `features`.
    pub fn new(queue: Queue, tap: Arc<Tap>, index: usize, link: Link, features: u64) -> Self {
        use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF};
        let has = |bit| super::features::has(features, bit);
        let layout = if has(VIRTIO_NET_F_MRG_RXBUF) { Layout::Mergeable } else { Layout::Single };
        let flags = if has(VIRTIO_NET_F_GUEST_CSUM) { HeaderFlags::Keep } else { HeaderFlags::Clear };
        let frame_bytes_max = frame_bytes_max(tap_offloads(features), tap.mtu());
        Self {
            queue,
            tap,
            index,
            link,
            posted: Posted::new(layout),
            flags,
            frame_bytes_max,
            aside: Vec::new(),
            waiting: None,
            used: Vec::new(),
        }
    }

    fn receive(&mut self, io: &mut Io<'_>) {
        let tap = Arc::clone(&self.tap);
        let Some(_part) = tap.queue(self.index).take_part() else {
            self.waiting = None;
            return;
        };
        self.queue.disable_doorbell();
        for _ in 0..FRAMES_PER_TURN {
            match self.step() {
                Step::Done => {}
                Step::NoFrame => break,
                Step::NoRoom if self.queue.enable_doorbell() => self.queue.disable_doorbell(),
                Step::NoRoom => return self.queue.wait(KICK, io),
                Step::Gone | Step::Failed => return,
            }
        }
        io.wait_readable(FRAME, self.source());
    }

    fn step(&mut self) -> Step {
        let wanted = self.waiting.map_or(self.frame_bytes_max, |bytes| bytes as u64);
        if let Err(problem) = self.posted.fill(&mut self.queue, wanted) {
            self.queue.fail(problem);
        }
        if self.queue.has_failed() {
            return Step::Failed;
        }
        if let Some(bytes) = self.waiting {
            return self.place(bytes);
        }
        match self.posted.frame_room().bytes {
            0 => Step::NoRoom,
            bytes if bytes < self.frame_bytes_max => self.read_aside(),
            _ => self.read_in_place(),
        }
    }

    fn read_in_place(&mut self) -> Step {
        let vectors = self.posted.frame_room().vectors;
        match self.tap.queue(self.index).read(self.posted.memory(), vectors) {
            Ok(Some(bytes)) => self.deliver(bytes as u64),
            Ok(None) => Step::Done,
            Err(error) => self.refused(&error),
        }
    }

    fn read_aside(&mut self) -> Step {
        self.aside.resize(ASIDE_BYTES, 0);
        match self.tap.queue(self.index).read_bytes(&mut self.aside) {
            Ok(ASIDE_BYTES) => Step::Done,
            Ok(bytes) => self.place(bytes),
            Err(error) => self.refused(&error),
        }
    }

    /// Copies the frame that was read aside to the guest. It waits while there may be more room, and is
    /// dropped when there never will be.
    fn place(&mut self, bytes: usize) -> Step {
        self.waiting = None;
        if self.posted.frame_room().bytes >= bytes as u64 {
            self.posted.memory().write(&self.aside[..bytes]);
            return self.deliver(bytes as u64);
        }
        if self.posted.is_full(&self.queue) {
            return Step::Done;
        }
        self.waiting = Some(bytes);
        Step::NoRoom
    }

    fn deliver(&mut self, bytes: u64) -> Step {
        self.posted.take(bytes, self.flags, &mut self.used);
        self.queue.push_together(&self.used);
        Step::Done
    }

    fn refused(&self, error: &std::io::Error) -> Step {
        match error {
            error if error.kind() == ErrorKind::WouldBlock => Step::NoFrame,
            error if is_detached(error) => {
                // The queue takes part, so this is not about the queue.
                self.link.lose();
                Step::Gone
            }
            // The kernel could not hand this frame over and has dropped it.
            _ => Step::Done,
        }
    }

    fn source(&self) -> &TapQueue {
        self.tap.queue(self.index)
    }
}

impl Worker for Receive {
    fn start(&mut self, io: &mut Io<'_>) {
        if self.tap.queue_count() > 1 {
            io.wait_event(WAKE, self.source().wake());
        }
        self.receive(io);
    }

    fn ready(&mut self, token: u32, io: &mut Io<'_>) {
        if token == WAKE {
            io.wait_event(WAKE, self.source().wake());
        }
        self.receive(io);
    }

    fn turn_end(&mut self, _: &mut Io<'_>) {
        self.queue.notify();
    }
}
