//! The receive queue: buffers of the driver that wait for input.

use std::sync::Arc;

use napa_sys::reactor::{Io, Worker};
use napa_virtio::{Buffers, Chain, Queue};

use super::port::Port;

/// The driver has given buffers.
const KICK: u32 = 0;
/// The back end has given input.
const INPUT: u32 = 1;

pub(super) struct Receive {
    queue: Queue,
    port: Arc<Port>,
    buffers: Buffers,
}

impl Receive {
    pub fn new(queue: Queue, port: Arc<Port>) -> Self {
        Self { queue, port, buffers: Buffers::default() }
    }

    /// Fills buffers while there is input. Doorbells are wanted only by input that has no buffer.
    fn serve(&mut self, io: &mut Io<'_>) {
        self.queue.disable_doorbell();
        while self.port.has_input() {
            match self.queue.pop() {
                Some(chain) => self.fill(chain),
                None if self.queue.enable_doorbell() => {}
                None => return self.queue.wait(KICK, io),
            }
        }
    }

    fn fill(&mut self, mut chain: Chain) {
        let head = chain.head_index();
        if let Err(error) = self.buffers.fill(&mut chain, self.queue.memory()) {
            return self.queue.fail(error);
        }
        if self.buffers.writable_bytes() == 0 {
            return self.queue.fail("a receive buffer has no room");
        }
        let written = self.port.take_input(|input| self.buffers.write(input));
        self.queue.push(head, written as u32);
    }
}

impl Worker for Receive {
    fn start(&mut self, io: &mut Io<'_>) {
        io.wait_event(INPUT, &self.port.input_bell);
        self.port.set_ready();
        self.serve(io);
    }

    fn ready(&mut self, token: u32, io: &mut Io<'_>) {
        if token == INPUT {
            io.wait_event(INPUT, &self.port.input_bell);
        }
        self.serve(io);
    }

    fn turn_end(&mut self, _: &mut Io<'_>) {
        self.queue.notify();
    }
}
