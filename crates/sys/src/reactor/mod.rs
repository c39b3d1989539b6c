//! One thread, one io_uring, many workers.
//!
//! A [`Reactor`] is the loop of a thread that serves devices. It sleeps in a single system call that
//! submits what the workers queued and waits for completions; doorbells (eventfds), readiness and
//! disk I/O all arrive as completions of the same ring. A [`Worker`] is one device queue or one
//! control channel. Workers never block and never share state through the reactor.
//!
//! ```text
//!            add / remove / pause / resume (Handle)
//!                         |
//!   doorbell --+      +---v---+  ready(token)       +--------+
//!   tap -------+----> |  ring | ------------------> | worker |
//!   disk ------+      +-------+  complete(tag, res) +--------+
//! ```
//!
//! Invariants: a worker leaves the reactor only when the kernel holds none of its memory; a paused
//! reactor has nothing under way; an event that arrived during a pause is delivered after it.

mod handle;
mod io;
mod slots;

pub use handle::{Handle, ReactorError, WorkerId, spawn};
pub use io::Io;

use std::io::Result;
use std::sync::Arc;

use io_uring::IoUring;

use self::handle::{Mailbox, Order};
use self::io::UserData;
use self::slots::Slots;

/// Entries of the submission ring: one full virtqueue of requests fits; more is submitted early.
const SUBMISSION_ENTRIES: u32 = 256;
/// Entries of the completion ring; the kernel keeps what does not fit and hands it over later.
const COMPLETION_ENTRIES: u32 = 1024;

/// Something that a reactor's thread serves.
pub trait Worker: Send {
    /// Called once on the reactor's thread: registers the first events.
    fn start(&mut self, io: &mut Io<'_>);

    /// An event registered with `token` has come. It must be registered again to come again.
    fn ready(&mut self, token: u32, io: &mut Io<'_>);

    /// An operation submitted with `tag` is complete; `result` is the kernel's (negative: errno).
    fn complete(&mut self, tag: u32, result: i32, io: &mut Io<'_>) {
        let _ = (tag, result, io);
    }

    /// All completions of one turn were delivered: the place to notify the guest once.
    fn turn_end(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }
}

/// The loop of one thread.
pub struct Reactor {
    ring: IoUring,
    slots: Slots,
    mailbox: Arc<Mailbox>,
    /// Completions of the current turn: a few more than fit once are taken in the next one.
    batch: Vec<(UserData, i32)>,
    paused: Option<handle::Reply>,
    is_paused: bool,
    is_quitting: bool,
}

impl Reactor {
    /// A reactor on the calling thread, and the handle by which others reach it.
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it (`kernel.io_uring_disabled`), or lacks memory.
    pub fn new() -> Result<(Self, Handle)> {
        let mailbox = Arc::new(Mailbox::new()?);
        let handle = Handle::new(Arc::clone(&mailbox));
        Ok((Self::with_mailbox(mailbox)?, handle))
    }

    fn with_mailbox(mailbox: Arc<Mailbox>) -> Result<Self> {
        Ok(Self {
            ring: new_ring()?,
            slots: Slots::default(),
            mailbox,
            batch: Vec::new(),
            paused: None,
            is_paused: false,
            is_quitting: false,
        })
    }

    /// Adds a worker from the reactor's own thread.
    pub fn add(&mut self, worker: Box<dyn Worker>) -> WorkerId {
        let id = self.slots.insert(worker);
        self.with_worker(id, |worker, io| worker.start(io));
        id
    }

    /// Serves workers until [`Handle::quit`].
    ///
    /// # Errors
    /// The kernel refused to wait on the ring; nothing can be served any more.
    pub fn run(&mut self) -> Result<()> {
        self.mailbox.watch(&mut self.ring);
        // The kernel may still use the memory of what is under way, so even a quitting reactor waits for it.
        while !(self.is_quitting && self.slots.operations_under_way() == 0) {
            self.ring_wait()?;
            self.turn();
        }
        Ok(())
    }

    fn ring_wait(&mut self) -> Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            // EBUSY: completions must be taken before more can be submitted.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Delivers what has completed.
    fn turn(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.extend(
            self.ring.completion().map(|entry| (UserData::from_raw(entry.user_data()), entry.result())),
        );
        let mut touched = slots::Touched::default();
        for (data, result) in batch.drain(..) {
            if data.is_mailbox() {
                self.take_orders();
            } else if let Some(id) = self.slots.finished(data)
                && self.deliver(id, data, result)
            {
                touched.insert(id);
            }
        }
        for id in touched.iter() {
            self.with_worker(id, |worker, io| worker.turn_end(io));
        }
        self.settle();
        self.batch = batch;
    }

    /// Calls the worker. `false`: the event has to wait.
    fn deliver(&mut self, id: WorkerId, data: UserData, result: i32) -> bool {
        if data.is_operation() {
            self.with_worker(id, |worker, io| worker.complete(data.tag(), result, io));
            return true;
        }
        if self.is_paused || self.slots.is_leaving(id) {
            self.slots.defer(id, data.tag());
            return false;
        }
        self.with_worker(id, |worker, io| worker.ready(data.tag(), io));
        true
    }

    fn take_orders(&mut self) {
        self.mailbox.watch(&mut self.ring);
        for order in self.mailbox.take() {
            match order {
                Order::Add(worker, reply) => {
                    let id = self.add(worker);
                    reply.worker(id);
                }
                Order::Remove(id, reply) => {
                    self.slots.leave(id, reply);
                    self.cancel_events(id);
                }
                Order::Pause(reply) => {
                    self.is_paused = true;
                    self.paused = Some(reply);
                }
                Order::Resume => self.resume(),
                Order::Quit => self.is_quitting = true,
            }
        }
    }

    fn resume(&mut self) {
        self.is_paused = false;
        for (id, token) in self.slots.take_deferred() {
            self.with_worker(id, |worker, io| worker.ready(token, io));
            self.with_worker(id, |worker, io| worker.turn_end(io));
        }
    }

    /// Answers those who wait for a drained worker or a quiet reactor.
    fn settle(&mut self) {
        self.slots.release_drained();
        if self.slots.operations_under_way() == 0
            && let Some(reply) = self.paused.take()
        {
            reply.done();
        }
    }

    fn cancel_events(&mut self, id: WorkerId) {
        for token in self.slots.armed(id) {
            io::push(&mut self.ring, &io::cancel(UserData::event(id, token)));
        }
    }

    fn with_worker(&mut self, id: WorkerId, call: impl FnOnce(&mut dyn Worker, &mut Io<'_>)) {
        if let Some((worker, account)) = self.slots.get(id) {
            call(worker, &mut Io::new(&mut self.ring, id, account));
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // Those who still wait for an answer learn that none will come.
        self.mailbox.close();
    }
}

/// A ring for a single thread where the kernel knows of that (Linux 6.1), a plain one where it does not.
fn new_ring() -> Result<IoUring> {
    let single = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(COMPLETION_ENTRIES)
        .dontfork()
        .build(SUBMISSION_ENTRIES);
    match single {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().setup_cqsize(COMPLETION_ENTRIES).dontfork().build(SUBMISSION_ENTRIES)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
