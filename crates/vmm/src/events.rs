//! What other threads tell the control thread.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use napa_api::Exit;
use napa_api::control::Reply;
use napa_devices::ConsoleCommand;
use vmm_sys_util::eventfd::EventFd;

use crate::memory::{JobId, Looked};

/// Something that the control thread has to know.
#[derive(Debug)]
pub enum Event {
    /// The guest, or a fault, ended the VM.
    Ended(Exit),
    /// The last vCPU that had to stop has stopped.
    Parked,
    /// All vCPUs have ended and the devices are quiet.
    Over,
    /// Somebody at the terminal asked for something.
    Console(ConsoleCommand),
    /// A job about the guest's memory is done.
    Done(JobId, Reply),
    /// The VM has looked for pages of zeros by itself. `None`: it could not, or its machine ended meanwhile.
    Looked(Option<Looked>),
}

/// A queue of events with a bell. Any thread posts, the control thread takes.
#[derive(Clone)]
pub struct Events {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<VecDeque<Event>>,
    bell: EventFd,
}

impl Events {
    /// # Errors
    /// The process is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { shared: Arc::new(Shared { queue: Mutex::default(), bell: EventFd::new(0)? }) })
    }

    pub fn post(&self, event: Event) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
        // The counter of an eventfd overflows after 2^64 events.
        let _ = self.shared.bell.write(1);
    }

    pub fn take(&self) -> VecDeque<Event> {
        std::mem::take(&mut *self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn bell(&self) -> &EventFd {
        &self.shared.bell
    }
}
