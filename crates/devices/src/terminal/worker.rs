//! The control thread's part of a console: reads input, takes connections, writes what was kept.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use napa_sys::reactor::{Io, Worker};
use napa_sys::socket::Listener;

use super::descriptor::{Descriptor, Read};
use super::keys::{Action, HELP, Keys};
use super::output::HOLD;
use super::{ConsoleBackend, ConsoleCommand, raw};

/// The back end wants attention.
const WAKE: u32 = 0;
/// Input has come.
const READABLE: u32 = 1;
/// The reader of our output takes more.
const WRITABLE: u32 = 2;
/// A client wants to connect.
const CONNECTION: u32 = 3;
/// Output was held long enough.
const HELD: u32 = 4;

/// Input kept for a guest that does not take it; more stays with whoever sends it. Large, because the
/// keys that leave a stuck guest are behind it.
const PENDING_BYTES_MAX: usize = 16 << 10;
/// Input taken in one turn.
const READ_BYTES_MAX: usize = 512;

/// Where input comes from.
pub(super) enum Source {
    /// There is none, or there is no more.
    Nothing,
    /// A person.
    Terminal(Arc<Descriptor>, Keys),
    /// A file, a pipe, or a client of the socket.
    Stream(Arc<Descriptor>),
    /// Whoever connects.
    Listener(Listener),
}

impl Source {
    pub fn terminal(descriptor: Descriptor) -> Self {
        Self::Terminal(Arc::new(descriptor), Keys::default())
    }

    pub fn stream(descriptor: Descriptor) -> Self {
        Self::Stream(Arc::new(descriptor))
    }
}

/// Serves a [`ConsoleBackend`].
pub(super) struct ConsoleWorker {
    backend: Arc<ConsoleBackend>,
    source: Source,
    listener: Option<Listener>,
    pending: VecDeque<u8>,
    commands: Box<dyn Fn(ConsoleCommand) + Send>,
}

impl ConsoleWorker {
    pub fn new(
        backend: Arc<ConsoleBackend>,
        source: Source,
        commands: Box<dyn Fn(ConsoleCommand) + Send>,
    ) -> Self {
        let (source, listener) = match source {
            Source::Listener(listener) => (Source::Nothing, Some(listener)),
            other => (other, None),
        };
        Self { backend, source, listener, pending: VecDeque::new(), commands }
    }

    fn flush(&self, io: &mut Io<'_>) {
        let flushed = self.backend.output.flush();
        if let Some(descriptor) = flushed.blocked_on {
            io.wait_writable(WRITABLE, &descriptor);
        }
        if flushed.is_timed {
            io.wait_timeout(HELD, HOLD);
        }
        if flushed.has_room_again {
            self.backend.for_each_console(|console| console.output_room());
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; READ_BYTES_MAX];
        let room = PENDING_BYTES_MAX.saturating_sub(self.pending.len()).min(READ_BYTES_MAX);
        let Some(descriptor) = self.readable() else { return };
        if room == 0 {
            return;
        }
        match descriptor.read(&mut buffer[..room]) {
            Read::Bytes(count) => self.take(&buffer[..count]),
            Read::Nothing => {}
            Read::End => {
                self.source = Source::Nothing;
                // A client that closed only its sending side still gets output.
                if self.listener.is_some() && descriptor.is_hung_up() {
                    self.backend.output.connect(None);
                }
            }
        }
    }

    /// Where to read from now, if anywhere.
    fn readable(&self) -> Option<Arc<Descriptor>> {
        match &self.source {
            // Reading from the background would stop the process.
            Source::Terminal(descriptor, _) => {
                let is_attached = self.backend.is_attached.load(Ordering::Acquire);
                (is_attached && raw::is_ours(descriptor.as_ref())).then(|| Arc::clone(descriptor))
            }
            Source::Stream(descriptor) => Some(Arc::clone(descriptor)),
            Source::Nothing | Source::Listener(_) => None,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let Source::Terminal(_, keys) = &mut self.source else {
            self.pending.extend(bytes);
            return;
        };
        for byte in bytes {
            let action = keys.press(*byte);
            match action {
                Action::Command(command) => (self.commands)(command),
                Action::Help => self.backend.say(HELP),
                Action::Leave => self.backend.say("napa: keys go to the guest"),
                Action::Nothing | Action::Send(_) | Action::SendEscaped(_) => {}
            }
            if let Some((bytes, count)) = action.guest_bytes() {
                self.pending.extend(&bytes[..count]);
            }
        }
    }

    fn deliver(&mut self) {
        while !self.pending.is_empty() {
            let taken = self.backend.give_input(self.pending.as_slices().0);
            self.pending.drain(..taken);
            // Room that came between the offer and the note is seen by a second offer; later room wakes us.
            if taken == 0 && self.backend.wants_input_room.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        // Out of descriptors: the client waits until some are free and the next one comes.
        let Ok(Some(client)) = listener.accept() else { return };
        if matches!(self.source, Source::Stream(_)) && self.backend.output.is_connected() {
            // Told to a person; a client that does not read it is no loss.
            let _ = rustix::io::write(&client, b"napa: this console has another client\r\n");
            return;
        }
        // Without descriptors left the client sees its connection close.
        if let Ok((sink, source)) = both_ways(client) {
            self.backend.output.connect(Some(sink));
            self.source = Source::stream(source);
        }
    }
}

impl Worker for ConsoleWorker {
    fn start(&mut self, io: &mut Io<'_>) {
        io.wait_event(WAKE, &self.backend.wake);
        self.turn_end(io);
    }

    fn ready(&mut self, token: u32, io: &mut Io<'_>) {
        match token {
            WAKE => io.wait_event(WAKE, &self.backend.wake),
            READABLE => self.read(),
            CONNECTION => self.accept(),
            HELD => self.backend.output.end_hold(),
            _ => {}
        }
    }

    fn turn_end(&mut self, io: &mut Io<'_>) {
        self.flush(io);
        self.deliver();
        if self.pending.len() < PENDING_BYTES_MAX
            && let Some(descriptor) = self.readable()
        {
            io.wait_readable(READABLE, &descriptor);
        }
        if let Some(listener) = &self.listener {
            io.wait_readable(CONNECTION, listener);
        }
    }
}

fn both_ways(client: UnixStream) -> std::io::Result<(Descriptor, Descriptor)> {
    let source = client.try_clone()?;
    Ok((Descriptor::own(client.into()), Descriptor::own(source.into())))
}
