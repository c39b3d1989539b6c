//! The way out: both consoles write here, and nobody waits.
//!
//! What the host takes at once is written by the thread that has it. The rest is kept, in order, and
//! the control thread writes it when the host is ready. Nothing overtakes what is kept.
//!
//! A serial port writes byte by byte, and to wake the reader for each of them costs a third of what the
//! byte itself costs. So the first byte goes out at once, and those that follow closely are held for the
//! end of their line, but not for long. What is held is never behind what is kept: one of them is empty.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::Timespec;

use super::descriptor::{Descriptor, Written};

/// Bytes kept for a host that does not take them yet: a few screens, little beside a VM's memory.
pub(super) const PENDING_BYTES_MAX: usize = 16 << 10;
/// A guest that waited for room goes on when this little is left, so that it does not stop and go.
const PENDING_BYTES_LOW: usize = PENDING_BYTES_MAX / 2;
/// Bytes held for the end of their line at most.
const HELD_BYTES_MAX: usize = 256;
/// How long bytes are held at most, and how close to the last write they must come: too short to be seen.
pub(super) const HOLD: Duration = Duration::from_millis(1);

/// What gives way when the reader is too slow or absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// The guest: its consoles look busy, as a pipe would to a process. With no reader for ever,
    /// output is thrown away.
    GuestWaits,
    /// The oldest bytes: a reader that comes late or sleeps sees the newest.
    OldestGo,
}

/// Where the consoles' output goes.
pub(super) struct Output {
    when_full: WhenFull,
    state: Mutex<State>,
    is_full: AtomicBool,
    dropped_bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    sink: Option<Arc<Descriptor>>,
    pending: VecDeque<u8>,
    held: Vec<u8>,
    /// The control thread will look after what is held.
    is_timed: bool,
    last_write: Option<Instant>,
    has_complained: bool,
}

/// What [`Output::write`] did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// So many bytes are written, kept or given up. The rest must be offered again.
    pub count: usize,
    /// Bytes are kept or held now and were not before: the control thread must write them.
    pub must_flush: bool,
}

/// What [`Output::flush`] left.
pub(super) struct Flushed {
    /// The descriptor to wait for before flushing again.
    pub blocked_on: Option<Arc<Descriptor>>,
    /// [`Output::end_hold`] is due in [`HOLD`].
    pub is_timed: bool,
    /// Consoles that looked busy are not any more.
    pub has_room_again: bool,
}

impl Output {
    pub fn new(when_full: WhenFull, sink: Option<Descriptor>) -> Self {
        let state = State { sink: sink.map(Arc::new), ..State::default() };
        let (is_full, dropped_bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { when_full, state: Mutex::new(state), is_full, dropped_bytes }
    }

    /// Whether the guest should wait before it writes more.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Bytes that no reader will see although there is one.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes.load(Ordering::Relaxed)
    }

    /// Notes that `count` bytes were thrown away.
    pub fn note_dropped(&self, count: usize) {
        self.dropped_bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Writes `bytes`, or keeps them for later.
    pub fn write(&self, bytes: &[u8]) -> Accepted {
        self.write_now(&mut self.lock(), bytes)
    }

    /// The same, but `bytes` may be held for a moment if more is likely to follow.
    pub fn write_soon(&self, bytes: &[u8]) -> Accepted {
        let mut state = self.lock();
        if !state.may_hold(bytes) {
            return self.write_now(&mut state, bytes);
        }
        state.held.extend_from_slice(bytes);
        Accepted { count: bytes.len(), must_flush: !std::mem::replace(&mut state.is_timed, true) }
    }

    /// Writes what is held. The timer goes on while there is something each time.
    pub fn end_hold(&self) {
        let mut state = self.lock();
        state.is_timed = !state.held.is_empty();
        self.write_now(&mut state, &[]);
    }

    fn write_now(&self, state: &mut State, bytes: &[u8]) -> Accepted {
        let joined = match std::mem::take(&mut state.held) {
            held if held.is_empty() => Cow::Borrowed(bytes),
            held => Cow::Owned([&held, bytes].concat()),
        };
        let held = joined.len() - bytes.len();
        let had_pending = !state.pending.is_empty();
        let sent = if had_pending { 0 } else { self.send(state, &joined) };
        let kept = self.keep(state, &joined[sent..]);
        self.note_level(state);
        let must_flush = !had_pending && !state.pending.is_empty() && state.sink.is_some();
        let count =
            (sent + kept).checked_sub(held).expect("where bytes were held, nothing is kept and all fits");
        Accepted { count, must_flush }
    }

    /// Writes what is kept, as far as the host takes it.
    pub fn flush(&self) -> Flushed {
        let mut state = self.lock();
        while state.sink.is_some() && !state.pending.is_empty() {
            let piece: Vec<u8> = state.pending.as_slices().0.to_vec();
            let sent = self.send(&mut state, &piece);
            state.pending.drain(..sent);
            if sent < piece.len() {
                break;
            }
        }
        if state.sink.is_none() && self.when_full == WhenFull::GuestWaits {
            state.pending.clear();
        }
        let was_full = self.is_full();
        self.note_level(&state);
        Flushed {
            blocked_on: state.sink.clone().filter(|_| !state.pending.is_empty()),
            is_timed: state.is_timed,
            has_room_again: was_full && !self.is_full(),
        }
    }

    /// Writes what is kept and waits for the reader, but no longer than `limit`.
    pub fn drain(&self, limit: Duration) {
        self.end_hold();
        let end = Instant::now() + limit;
        while let Some(sink) = self.flush().blocked_on {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            if left.is_zero() || !sink.wait_writable(&timeout) {
                return;
            }
        }
    }

    /// Replaces the reader.
    pub fn connect(&self, sink: Option<Descriptor>) {
        self.lock().sink = sink.map(Arc::new);
    }

    /// Whether there is a reader, as far as anybody knows.
    pub fn is_connected(&self) -> bool {
        self.lock().sink.is_some()
    }

    /// Hands over what the host takes; returns how many of `bytes` are dealt with.
    fn send(&self, state: &mut State, bytes: &[u8]) -> usize {
        let Some(sink) = state.sink.as_ref() else { return 0 };
        state.last_write = Some(Instant::now());
        match sink.write(bytes) {
            Written::Taken(count) => count,
            Written::Gone => {
                state.sink = None;
                0
            }
            Written::Failed(error) => {
                if !std::mem::replace(&mut state.has_complained, true) {
                    eprintln!(
                        "napa: console output cannot be written and is dropped until it can: {}",
                        std::io::Error::from(error)
                    );
                }
                self.note_dropped(bytes.len());
                bytes.len()
            }
        }
    }

    /// Keeps what was not sent; returns how many of `bytes` are dealt with.
    fn keep(&self, state: &mut State, bytes: &[u8]) -> usize {
        match self.when_full {
            // Nobody reads and nobody will.
            WhenFull::GuestWaits if state.sink.is_none() => bytes.len(),
            WhenFull::GuestWaits => {
                let count = bytes.len().min(PENDING_BYTES_MAX - state.pending.len());
                state.pending.extend(&bytes[..count]);
                count
            }
            WhenFull::OldestGo => {
                let newest = &bytes[bytes.len().saturating_sub(PENDING_BYTES_MAX)..];
                let excess = (state.pending.len() + newest.len()).saturating_sub(PENDING_BYTES_MAX);
                state.pending.drain(..excess);
                state.pending.extend(newest);
                if state.sink.is_some() {
                    self.note_dropped(excess + bytes.len() - newest.len());
                }
                bytes.len()
            }
        }
    }

    fn note_level(&self, state: &State) {
        let level = state.pending.len();
        if self.when_full == WhenFull::GuestWaits && level >= PENDING_BYTES_MAX {
            self.is_full.store(true, Ordering::Release);
        } else if level <= PENDING_BYTES_LOW {
            self.is_full.store(false, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn may_hold(&self, bytes: &[u8]) -> bool {
        self.sink.is_some()
            && self.pending.is_empty()
            && self.held.len() + bytes.len() <= HELD_BYTES_MAX
            && !bytes.contains(&b'\n')
            && self.last_write.is_some_and(|last| last.elapsed() < HOLD)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read, pipe};
    use std::os::fd::AsFd;

    use rustix::fs::OFlags;

    use super::*;

    fn piped(when_full: WhenFull) -> (Output, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        let sink = Descriptor::inherited(writer.as_fd(), OFlags::WRONLY).unwrap();
        (Output::new(when_full, Some(sink)), reader)
    }

    /// Distinct bytes, so that a gap or a swap shows.
    fn pattern(count: usize) -> Vec<u8> {
        (0..count).map(|index| (index % 251) as u8).collect()
    }

    /// Writes `bytes` in small pieces until the output takes no more; returns what was accepted.
    fn fill<'a>(output: &Output, bytes: &'a [u8]) -> &'a [u8] {
        let mut accepted = 0;
        for piece in bytes.chunks(100) {
            let count = output.write(piece).count;
            accepted += count;
            if count < piece.len() {
                break;
            }
        }
        &bytes[..accepted]
    }

    #[test]
    fn a_slow_reader_gets_every_accepted_byte_in_order() {
        let (output, mut reader) = piped(WhenFull::GuestWaits);
        let bytes = pattern(1 << 18);
        let accepted = fill(&output, &bytes);
        assert!(accepted.len() < bytes.len() && output.is_full());
        let mut seen = Vec::new();
        let mut became_roomy = 0;
        while seen.len() < accepted.len() {
            let mut piece = vec![0; 30_000];
            let count = reader.read(&mut piece).unwrap();
            seen.extend_from_slice(&piece[..count]);
            became_roomy += usize::from(output.flush().has_room_again);
        }
        assert_eq!(seen, accepted);
        assert_eq!((became_roomy, output.is_full(), output.dropped_bytes()), (1, false, 0));
    }

    #[test]
    fn a_byte_is_never_held_for_long_and_nothing_overtakes_it() {
        let (output, mut reader) = piped(WhenFull::GuestWaits);
        let mut read = |count| {
            let mut bytes = vec![0; count];
            reader.read_exact(&mut bytes).unwrap();
            bytes
        };
        output.write_soon(b"a");
        assert_eq!(read(1), b"a", "the first byte goes out at once");
        // A slow machine may need several bytes before one comes soon enough after the last to be held.
        let hold = |byte: u8| {
            while output.lock().held.is_empty() {
                output.write_soon(&[byte]);
            }
        };
        let held_after = |output: &Output| output.lock().held.clone();
        hold(b'b');
        assert!(output.flush().is_timed && held_after(&output) == b"b");
        output.write(b"c");
        assert!(held_after(&output).is_empty());
        hold(b'b');
        output.write_soon(b"\n");
        assert!(held_after(&output).is_empty(), "a line has ended");
        hold(b'b');
        output.end_hold();
        assert!(output.flush().is_timed, "there was something to write, so there may be more");
        output.end_hold();
        assert!(!output.flush().is_timed && held_after(&output).is_empty());
        drop(output);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let mut letters: Vec<char> = rest.chars().collect();
        letters.dedup();
        assert_eq!(letters, ['b', 'c', 'b', '\n', 'b']);
    }

    #[test]
    fn nothing_is_kept_for_a_reader_that_has_gone_for_ever() {
        let (output, reader) = piped(WhenFull::GuestWaits);
        let bytes = pattern(1 << 18);
        fill(&output, &bytes);
        drop(reader);
        assert!(output.flush().has_room_again);
        assert_eq!(output.write(&bytes), Accepted { count: bytes.len(), must_flush: false });
        assert!(!output.is_full() && output.flush().blocked_on.is_none());
    }

    #[test]
    fn a_late_reader_gets_the_newest_output() {
        let output = Output::new(WhenFull::OldestGo, None);
        let bytes = pattern(3 * PENDING_BYTES_MAX + 7);
        assert_eq!(fill(&output, &bytes), bytes);
        let (mut reader, writer) = pipe().unwrap();
        output.connect(Some(Descriptor::inherited(writer.as_fd(), OFlags::WRONLY).unwrap()));
        drop(writer);
        output.drain(Duration::from_secs(60));
        output.connect(None);
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, bytes[bytes.len() - PENDING_BYTES_MAX..]);
        assert_eq!(output.dropped_bytes(), 0, "nobody was there to miss it");
    }

    #[test]
    fn what_a_sleeping_reader_misses_is_counted() {
        let (output, mut reader) = piped(WhenFull::OldestGo);
        let bytes = pattern(1 << 18);
        assert_eq!(fill(&output, &bytes), bytes);
        assert!(!output.is_full(), "the guest never waits for a socket");
        let mut seen = 0;
        while output.flush().blocked_on.is_some() {
            seen += reader.read(&mut [0; 4096]).unwrap();
        }
        output.connect(None);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(seen as u64 + rest.len() as u64 + output.dropped_bytes(), bytes.len() as u64);
        assert!(bytes.ends_with(&rest[rest.len() - PENDING_BYTES_MAX..]));
    }
}
