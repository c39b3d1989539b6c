//! The threads that serve devices.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use napa_sys::reactor::{self, Handle, ReactorError};

use crate::Placement;

/// I/O threads of one VM at most: past this, more threads mean more switches, not more I/O.
const IO_THREADS_MAX: usize = 4;

/// The control thread and the I/O threads of a VM. An I/O thread starts when the first queue needs it.
#[derive(Clone)]
pub struct Threads {
    control: Handle,
    io: Arc<Mutex<IoThreads>>,
}

struct IoThreads {
    running: Vec<Option<Handle>>,
    is_paused: bool,
}

impl Drop for IoThreads {
    fn drop(&mut self) {
        self.running.iter().flatten().for_each(Handle::quit);
    }
}

impl Threads {
    /// Threads of a VM with `cpus` vCPUs, whose control thread is reached by `control`.
    pub fn new(control: Handle, cpus: u32) -> Self {
        let limit = (cpus as usize).clamp(1, IO_THREADS_MAX);
        Self { control, io: Arc::new(Mutex::new(IoThreads { running: vec![None; limit], is_paused: false })) }
    }

    /// The thread for `placement`.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn get(&self, placement: Placement) -> io::Result<Handle> {
        let Placement::Io(queue) = placement else { return Ok(self.control.clone()) };
        let mut io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        let index = queue % io.running.len();
        if let Some(handle) = &io.running[index] {
            return Ok(handle.clone());
        }
        let (handle, _detached) = reactor::spawn(&format!("io{index}"))?;
        if io.is_paused {
            handle.pause().map_err(io::Error::other)?;
        }
        io.running[index] = Some(handle.clone());
        Ok(handle)
    }

    /// Returns when no I/O of a device is under way; nothing starts until [`resume`](Self::resume).
    /// The control thread goes on: call this from there, with all vCPUs stopped.
    ///
    /// # Errors
    /// An I/O thread has ended.
    pub fn pause(&self) -> Result<(), ReactorError> {
        let mut io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        io.is_paused = true;
        io.running.iter().flatten().try_for_each(Handle::pause)
    }

    /// Lets the I/O threads go on.
    pub fn resume(&self) {
        let mut io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        io.is_paused = false;
        io.running.iter().flatten().for_each(Handle::resume);
    }
}
