//! A back end whose both ends a test holds.

use std::io::{PipeReader, PipeWriter, Read, pipe};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use napa_sys::reactor::{self, Handle, Worker};

use super::{ConsoleBackend, ConsoleCommand, Ends};

/// A back end on standard input and output that are really these.
pub fn on(
    input: &impl AsFd,
    output: &impl AsFd,
) -> (Arc<ConsoleBackend>, Box<dyn Worker>, Receiver<ConsoleCommand>) {
    let (sender, commands) = channel();
    let send = Box::new(move |command| sender.send(command).unwrap());
    let (backend, worker) =
        ConsoleBackend::with_ends(Ends::stdio(input, output).unwrap(), None, send).unwrap();
    (backend, worker, commands)
}

/// A back end between two pipes, with its worker on a thread of its own.
pub struct Piped {
    pub backend: Arc<ConsoleBackend>,
    pub input: PipeWriter,
    pub output: PipeReader,
    pub handle: Handle,
}

impl Piped {
    pub fn new() -> Self {
        let (input_reader, input) = pipe().unwrap();
        let (output, output_writer) = pipe().unwrap();
        let (backend, worker, _commands) = on(&input_reader, &output_writer);
        let (handle, _detached) = reactor::spawn("console").unwrap();
        handle.add(worker).unwrap();
        Self { backend, input, output, handle }
    }

    /// Waits for the next `count` bytes of output.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.output.read_exact(&mut bytes).unwrap();
        bytes
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.handle.quit();
    }
}
