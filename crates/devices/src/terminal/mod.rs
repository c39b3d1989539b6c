//! What both consoles of a VM lead to: the terminal, standard input and output, a file, or a socket.
//!
//! ```text
//!  serial ---+                     +---> stdout | file | socket
//!            +--> ConsoleBackend --+
//!  virtio ---+      (output)                control thread
//!     ^                                          |
//!     +------ input (one of the two) <-----------+--- stdin | socket
//! ```
//!
//! *Output* of either console is written by the thread that has it, the first byte at once and single
//! bytes that follow closely a line at a time, within a millisecond; what the host does not take yet is kept (a bounded number of bytes) and written by the control thread. When that is full,
//! the guest waits for standard output as a process would (its serial port looks busy, its
//! virtio-console leaves buffers unused), while a socket loses its oldest bytes, counted. A guest that
//! writes to a busy serial port loses what it writes. Output for a reader that is gone for ever is
//! dropped and the VM goes on. What is written while no client is connected to the socket is kept for
//! the next one, the newest bytes of it.
//!
//! *Input* goes to the console that wrote last, so that a prompt gets its answer. If that console's
//! driver does not listen and the other's does and has written too, the other gets it: a kernel's
//! message on the serial line does not take the keyboard away from a login on virtio-console. What the
//! guest does not take yet waits; nothing is lost.
//!
//! Nothing here blocks, and no thread waits for another while it holds a lock.

mod descriptor;
mod ends;
mod keys;
mod log;
mod output;
mod raw;
mod worker;

pub use self::raw::leave_at_once as restore_terminal;

use std::io::{stdin, stdout};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use napa_api::config::ConsoleConfig;
use napa_sys::reactor::Worker;
use vmm_sys_util::eventfd::EventFd;

pub use self::keys::ConsoleCommand;

use self::ends::Ends;
use self::log::Log;
use self::output::Output;
use self::worker::ConsoleWorker;
use crate::OpenError;

/// How long the end of a VM waits for a reader that has not taken all output yet.
const LAST_OUTPUT_WAIT: Duration = Duration::from_secs(1);

/// The two consoles of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleKind {
    /// The 16550 at COM1.
    Serial = 0,
    /// virtio-console.
    Virtio = 1,
}

/// A console as its back end sees it. Called on the control thread.
pub(crate) trait Console: Send + Sync {
    /// Whether the guest's driver asked for input.
    fn listens(&self) -> bool;

    /// Takes as much of `bytes` as there is room for; returns how many that is. When there is room
    /// again, the console calls [`ConsoleBackend::input_room`].
    fn input(&self, bytes: &[u8]) -> usize;

    /// There is room for output again after there was none.
    fn output_room(&self);

    /// The terminal has so many columns and rows now.
    fn resized(&self, columns: u16, rows: u16);
}

/// What both consoles share.
pub struct ConsoleBackend {
    output: Output,
    log: Option<Log>,
    consoles: Mutex<[Option<Weak<dyn Console>>; 2]>,
    /// The console that wrote last.
    last_writer: AtomicU8,
    /// A bit per console that has ever written.
    writers: AtomicU8,
    /// The control thread holds input that no console took.
    wants_input_room: AtomicBool,
    /// Makes the control thread look at everything.
    wake: EventFd,
    /// Standard input, where it is a terminal.
    terminal: Option<OwnedFd>,
    /// Whether the guest's output is shown to the person at that terminal.
    is_shown: bool,
    /// Columns in the upper, rows in the lower half.
    size: AtomicU32,
    is_attached: AtomicBool,
}

impl ConsoleBackend {
    /// Opens what `config` names, and a file to which all output is added as well. The worker belongs on the control thread; it calls `commands` there
    /// when a person at the terminal asks something of the VM, so `commands` must not wait for that thread.
    ///
    /// # Errors
    /// The file or the socket cannot be had; nothing is left behind.
    pub fn open(
        config: &ConsoleConfig,
        log: Option<&Path>,
        commands: Box<dyn Fn(ConsoleCommand) + Send>,
    ) -> Result<(Arc<Self>, Box<dyn Worker>), OpenError> {
        let log = log.map(Log::open).transpose()?;
        let ends = match config {
            ConsoleConfig::Stdio => Ends::stdio(&stdin(), &stdout())?,
            ConsoleConfig::File(path) => Ends::file(path)?,
            ConsoleConfig::Socket(path) => Ends::socket(path)?,
            ConsoleConfig::Off => Ends::none(),
        };
        Self::with_ends(ends, log, commands)
    }

    fn with_ends(
        ends: Ends,
        log: Option<Log>,
        commands: Box<dyn Fn(ConsoleCommand) + Send>,
    ) -> Result<(Arc<Self>, Box<dyn Worker>), OpenError> {
        let wake = EventFd::new(0).map_err(host_error("cannot make an eventfd for the console"))?;
        let backend = Arc::new(Self {
            output: ends.output,
            log,
            consoles: Mutex::new([None, None]),
            last_writer: AtomicU8::new(ConsoleKind::Serial as u8),
            writers: AtomicU8::new(0),
            wants_input_room: AtomicBool::new(false),
            wake,
            terminal: ends.terminal,
            is_shown: ends.is_shown,
            size: AtomicU32::new(0),
            is_attached: AtomicBool::new(false),
        });
        backend.resized();
        let worker = ConsoleWorker::new(Arc::clone(&backend), ends.source, commands);
        Ok((backend, Box::new(worker)))
    }

    /// Takes the terminal, if standard input is one: every key goes to the guest from now on. A process
    /// in the background leaves it alone until [`continued`](Self::continued) finds it in the foreground.
    ///
    /// # Errors
    /// The terminal refused raw mode.
    pub fn attach(&self) -> Result<(), OpenError> {
        self.is_attached.store(true, Ordering::Release);
        if let Some(terminal) = &self.terminal
            && raw::is_ours(terminal)
        {
            raw::enter(terminal)
                .map_err(|error| host_error("cannot put the terminal into raw mode")(error.into()))?;
        }
        self.wake();
        Ok(())
    }

    /// Gives the terminal back as it was found.
    pub fn detach(&self) {
        if self.is_attached.swap(false, Ordering::AcqRel) && self.terminal.is_some() {
            raw::leave();
        }
    }

    /// Writes what is still to be written (a stuck reader gets a second) and gives the terminal back.
    /// Output after this may be lost. The socket vanishes with the worker.
    pub fn close(&self) {
        self.output.drain(LAST_OUTPUT_WAIT);
        self.detach();
    }

    /// For SIGWINCH: reads the terminal's size again and tells the guest if it changed.
    pub fn resized(&self) {
        let Some(terminal) = &self.terminal else { return };
        let (columns, rows) = raw::size(terminal);
        let size = u32::from(columns) << 16 | u32::from(rows);
        if self.size.swap(size, Ordering::AcqRel) != size {
            self.for_each_console(|console| console.resized(columns, rows));
        }
    }

    /// For SIGCONT: takes the terminal again, as after [`attach`](Self::attach).
    ///
    /// # Errors
    /// The terminal refused raw mode.
    pub fn continued(&self) -> Result<(), OpenError> {
        if !self.is_attached.load(Ordering::Acquire) {
            return Ok(());
        }
        // The shell has put its own settings on the terminal meanwhile.
        if self.terminal.as_ref().is_some_and(raw::is_ours) {
            raw::leave();
        }
        self.attach()
    }

    /// Columns and rows of the terminal; zero where there is none or it does not know.
    pub fn size(&self) -> (u16, u16) {
        let size = self.size.load(Ordering::Acquire);
        ((size >> 16) as u16, size as u16)
    }

    /// Tells the person at the terminal something, between the guest's output. Nothing if there is nobody.
    pub fn say(&self, line: &str) {
        match self.terminal {
            Some(_) if self.is_shown => self.write_all(format!("\r\n{line}\r\n").as_bytes()),
            Some(_) => eprintln!("{line}"),
            None => {}
        }
    }

    /// Bytes of the guest that a reader will never see.
    pub fn dropped_bytes(&self) -> u64 {
        self.output.dropped_bytes()
    }

    /// Gives this back end its serial port or its virtio-console, in place of an earlier one.
    pub(crate) fn connect(&self, kind: ConsoleKind, console: Weak<dyn Console>) {
        self.consoles()[kind as usize] = Some(console);
    }

    /// Writes what a console has; returns how many bytes that disposed of. Fewer than offered: the
    /// console calls again after [`Console::output_room`].
    pub(crate) fn write(&self, kind: ConsoleKind, bytes: &[u8]) -> usize {
        self.note_writer(kind);
        let written = self.write_some(bytes);
        self.note_in_log(&bytes[..written]);
        written
    }

    /// Writes what a console has and cannot keep; what does not fit is dropped and counted. It may be held
    /// for a moment if more is likely to follow.
    pub(crate) fn write_or_drop(&self, kind: ConsoleKind, bytes: &[u8]) {
        self.note_writer(kind);
        let accepted = self.output.write_soon(bytes);
        self.note_dropped(bytes.len() - accepted.count);
        self.note_in_log(bytes);
        self.wake_if(accepted.must_flush);
    }

    /// Whether a console should look busy to the guest.
    pub(crate) fn is_output_full(&self) -> bool {
        self.output.is_full()
    }

    /// A console has room for input, or its driver began or ceased to listen.
    pub(crate) fn input_room(&self) {
        if self.wants_input_room.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    fn write_all(&self, bytes: &[u8]) {
        let written = self.write_some(bytes);
        self.note_dropped(bytes.len() - written);
    }

    fn write_some(&self, bytes: &[u8]) -> usize {
        let accepted = self.output.write(bytes);
        self.wake_if(accepted.must_flush);
        accepted.count
    }

    fn note_in_log(&self, bytes: &[u8]) {
        if let Some(log) = &self.log {
            log.add(bytes);
        }
    }

    fn note_dropped(&self, count: usize) {
        if count > 0 {
            self.output.note_dropped(count);
        }
    }

    fn wake_if(&self, is_needed: bool) {
        if is_needed {
            self.wake();
        }
    }

    fn note_writer(&self, kind: ConsoleKind) {
        let kind = kind as u8;
        if self.writers.load(Ordering::Relaxed) & (1 << kind) == 0 {
            self.writers.fetch_or(1 << kind, Ordering::SeqCst);
        }
        // A load first: consoles write byte by byte, and nearly always the same one.
        if self.last_writer.load(Ordering::Relaxed) != kind {
            self.last_writer.store(kind, Ordering::SeqCst);
            self.input_room();
        }
    }

    /// Offers input to the console that it is for; returns how much of it was taken.
    fn give_input(&self, bytes: &[u8]) -> usize {
        self.input_target().map_or(0, |console| console.input(bytes))
    }

    fn input_target(&self) -> Option<Arc<dyn Console>> {
        let last = usize::from(self.last_writer.load(Ordering::SeqCst));
        let other = 1 - last;
        let other_wrote = self.writers.load(Ordering::SeqCst) & (1 << other) != 0;
        let [last, other] = [self.console(last), self.console(other)];
        let other_only = other_wrote
            && !last.as_ref().is_some_and(|console| console.listens())
            && other.as_ref().is_some_and(|console| console.listens());
        if other_only { other } else { last }
    }

    fn console(&self, index: usize) -> Option<Arc<dyn Console>> {
        self.consoles()[index].as_ref()?.upgrade()
    }

    fn for_each_console(&self, call: impl Fn(&dyn Console)) {
        // The lock is not held during the call: a console takes locks of its own.
        for index in 0..2 {
            if let Some(console) = self.console(index) {
                call(console.as_ref());
            }
        }
    }

    fn consoles(&self) -> MutexGuard<'_, [Option<Weak<dyn Console>>; 2]> {
        self.consoles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // The counter would overflow after 2^64 calls that the control thread did not see.
        let _ = self.wake.write(1);
    }
}

impl Drop for ConsoleBackend {
    fn drop(&mut self) {
        self.close();
    }
}

fn host_error(what: &str) -> impl Fn(std::io::Error) -> OpenError {
    let what = what.to_owned();
    move |source| OpenError::Host { what: what.clone(), source }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
