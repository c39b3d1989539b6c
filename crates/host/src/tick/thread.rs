//! The thread that ticks.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use napa_api::host::HostReport;
use rustix::event::{EventfdFlags, eventfd};

use super::{PERIOD, Subject, Tick};

/// A tick that runs on a thread of its own until this is dropped.
#[derive(Debug)]
pub struct Ticker {
    bell: Arc<OwnedFd>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread. Before each tick it asks for the VMs that run, and after it tells what was seen and done; both
    /// are called on the thread, and should not keep it.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub fn start(
        mut tick: Tick,
        mut subjects: impl FnMut() -> Vec<Subject> + Send + 'static,
        mut tell: impl FnMut(HostReport) + Send + 'static,
    ) -> io::Result<Self> {
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let ends = Arc::new(AtomicBool::new(false));
        let (heard, is_over) = (Arc::clone(&bell), Arc::clone(&ends));
        let run = move || {
            while !is_over.load(Ordering::Acquire) {
                let began = Instant::now();
                if let Some(report) = tick.once(&subjects()) {
                    tell(report);
                }
                tick.attend(began + PERIOD, heard.as_fd());
                // Whatever rang: it is read, so that it can ring again.
                let _ = rustix::io::read(&*heard, &mut [0; 8]);
            }
        };
        let thread = std::thread::Builder::new().name("tick".into()).spawn(run)?;
        Ok(Self { bell, ends, thread: Some(thread) })
    }

    /// Has the next tick come at once: a VM has started or ended.
    pub fn hurry(&self) {
        // A bell that cannot be rung rings already.
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        self.hurry();
        if let Some(thread) = self.thread.take() {
            // A panic has said so on standard error.
            let _ = thread.join();
        }
    }
}
