//! What the back end and the workers of a virtio-console share.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napa_virtio::Interrupt;
use vmm_sys_util::eventfd::EventFd;

use crate::ConsoleBackend;
use crate::terminal::{Console, ConsoleKind};

/// Input taken from the back end for a guest that has given no buffer yet. What is more waits there.
pub(super) const INPUT_BYTES_MAX: usize = 4096;

/// A virtio-console as its back end sees it.
pub(super) struct Port {
    backend: Arc<ConsoleBackend>,
    input: Mutex<VecDeque<u8>>,
    /// Input has come.
    pub input_bell: EventFd,
    /// There is room for output again.
    pub output_bell: EventFd,
    /// The driver has given its receive queue.
    is_ready: AtomicBool,
    /// `Some` for a driver that wants to know the terminal's size. Held for moments only, and never while
    /// a vCPU waits for another thread.
    size_interrupt: Mutex<Option<Interrupt>>,
}

impl Port {
    /// A port on `backend`, in place of an earlier one.
    pub fn connect(backend: &Arc<ConsoleBackend>) -> io::Result<Arc<Self>> {
        let port = Arc::new(Self {
            backend: Arc::clone(backend),
            input: Mutex::default(),
            input_bell: EventFd::new(0)?,
            output_bell: EventFd::new(0)?,
            is_ready: AtomicBool::new(false),
            size_interrupt: Mutex::default(),
        });
        let console: Arc<dyn Console> = port.clone();
        backend.connect(ConsoleKind::Virtio, Arc::downgrade(&console));
        Ok(port)
    }

    /// Resizes interrupt the driver from now on.
    pub fn tell_size_by(&self, interrupt: Interrupt) {
        *self.size_interrupt() = Some(interrupt);
    }

    /// The driver takes input from now on.
    pub fn set_ready(&self) {
        self.is_ready.store(true, Ordering::SeqCst);
        self.backend.input_room();
    }

    /// The driver is gone, and what it did not take is nobody's.
    pub fn reset(&self) {
        self.is_ready.store(false, Ordering::SeqCst);
        *self.size_interrupt() = None;
        self.input().clear();
        self.backend.input_room();
    }

    /// Whether input waits for a buffer.
    pub fn has_input(&self) -> bool {
        !self.input().is_empty()
    }

    /// Hands waiting input to `take`, which says how much of it was taken; the rest keeps waiting.
    pub fn take_input(&self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let mut input = self.input();
        let taken = take(input.make_contiguous());
        input.drain(..taken);
        let is_empty = input.is_empty();
        drop(input);
        if is_empty {
            self.backend.input_room();
        }
        taken
    }

    /// Writes output; returns how much was taken. [`output_bell`](Self::output_bell) rings for the rest.
    pub fn write(&self, bytes: &[u8]) -> usize {
        self.backend.write(ConsoleKind::Virtio, bytes)
    }

    fn input(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn size_interrupt(&self) -> MutexGuard<'_, Option<Interrupt>> {
        self.size_interrupt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console for Port {
    fn listens(&self) -> bool {
        self.is_ready.load(Ordering::SeqCst)
    }

    fn input(&self, bytes: &[u8]) -> usize {
        if !self.listens() {
            return 0;
        }
        let mut input = self.input();
        let count = bytes.len().min(INPUT_BYTES_MAX - input.len());
        input.extend(&bytes[..count]);
        if count > 0 {
            // The counter would overflow after 2^64 calls that the worker did not see.
            let _ = self.input_bell.write(1);
        }
        count
    }

    fn output_room(&self) {
        let _ = self.output_bell.write(1);
    }

    fn resized(&self, _columns: u16, _rows: u16) {
        if let Some(interrupt) = self.size_interrupt().as_ref() {
            interrupt.signal();
        }
    }
}
