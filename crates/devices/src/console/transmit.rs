//! The transmit queue: what the guest writes.

use std::sync::Arc;
use std::time::Duration;

use napa_sys::reactor::{Io, Worker};
use napa_virtio::{Buffers, Queue};

use super::port::Port;

/// The driver has given output.
const KICK: u32 = 0;
/// The back end has room again.
const ROOM: u32 = 1;
/// The turn was over before the output was.
const MORE: u32 = 2;

/// Bytes written in one turn of the control thread, which has others to serve.
const TURN_BYTES_MAX: usize = 64 << 10;
/// What a request counts at least: looking at it takes time too.
const REQUEST_COST_BYTES: usize = 64;
/// Bytes copied at once.
const PIECE_BYTES: usize = 4096;

pub(super) struct Transmit {
    queue: Queue,
    port: Arc<Port>,
    /// What is left of the request [`current`](Self::current).
    buffers: Buffers,
    /// Head of the request being written.
    current: Option<u16>,
}

/// Why writing a request stopped.
enum Stopped {
    Done,
    NoRoom,
    TurnOver,
}

impl Transmit {
    pub fn new(queue: Queue, port: Arc<Port>) -> Self {
        Self { queue, port, buffers: Buffers::default(), current: None }
    }

    fn serve(&mut self, io: &mut Io<'_>) {
        let mut budget = TURN_BYTES_MAX;
        self.queue.disable_doorbell();
        loop {
            let Some(head) = self.current.or_else(|| self.next()) else {
                if self.queue.enable_doorbell() {
                    continue;
                }
                return self.queue.wait(KICK, io);
            };
            self.current = Some(head);
            match self.write(&mut budget) {
                Stopped::Done => self.queue.push(head, 0),
                Stopped::NoRoom => return,
                Stopped::TurnOver => return io.wait_timeout(MORE, Duration::ZERO),
            }
            self.current = None;
        }
    }

    /// The head of the next request, with its memory in `buffers`.
    fn next(&mut self) -> Option<u16> {
        let mut chain = self.queue.pop()?;
        match self.buffers.fill(&mut chain, self.queue.memory()) {
            Ok(()) => Some(chain.head_index()),
            Err(error) => {
                self.queue.fail(error);
                None
            }
        }
    }

    /// Writes the current request as far as budget and room reach.
    fn write(&mut self, budget: &mut usize) -> Stopped {
        let mut piece = [0; PIECE_BYTES];
        loop {
            if *budget == 0 {
                return Stopped::TurnOver;
            }
            let count = self.buffers.read(&mut piece);
            *budget = budget.saturating_sub(count.max(REQUEST_COST_BYTES));
            if count == 0 {
                return Stopped::Done;
            }
            let written = self.port.write(&piece[..count]);
            self.buffers.skip_readable(written as u64);
            if written < count {
                return Stopped::NoRoom;
            }
        }
    }
}

impl Worker for Transmit {
    fn start(&mut self, io: &mut Io<'_>) {
        io.wait_event(ROOM, &self.port.output_bell);
        self.serve(io);
    }

    fn ready(&mut self, token: u32, io: &mut Io<'_>) {
        if token == ROOM {
            io.wait_event(ROOM, &self.port.output_bell);
        }
        self.serve(io);
    }

    fn turn_end(&mut self, _: &mut Io<'_>) {
        self.queue.notify();
    }
}
