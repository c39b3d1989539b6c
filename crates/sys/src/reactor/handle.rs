//! How other threads reach a reactor.
#![allow(unsafe_code)] // The mailbox's doorbell is an entry on the ring.

use std::io::Result;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use vmm_sys_util::eventfd::EventFd;

use super::io::{UserData, push};
use super::{Reactor, Worker};
use crate::lost_memory;

/// Names a worker within its reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId {
    pub(super) slot: u16,
    pub(super) generation: u16,
}

/// The reactor's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the I/O thread has ended")]
pub struct ReactorError;

/// Reaches a reactor from any thread but its own: its calls wait for that thread.
#[derive(Clone)]
pub struct Handle {
    mailbox: Arc<Mailbox>,
}

/// Starts a reactor on a thread of its own.
///
/// # Errors
/// The thread or the ring could not be made.
pub fn spawn(name: &str) -> Result<(Handle, thread::JoinHandle<Result<()>>)> {
    let mailbox = Arc::new(Mailbox::new()?);
    let handle = Handle::new(Arc::clone(&mailbox));
    let (started, start) = channel();
    // The ring serves one thread only, so that thread makes it.
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        lost_memory::protect_thread();
        let mut reactor = match Reactor::with_mailbox(mailbox) {
            Ok(reactor) => reactor,
            Err(error) => {
                let _ = started.send(Err(error));
                return Ok(());
            }
        };
        let _ = started.send(Ok(()));
        reactor.run()
    })?;
    start.recv().map_err(|_| std::io::Error::other(ReactorError))??;
    Ok((handle, thread))
}

impl Handle {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox }
    }

    /// Hands a worker to the reactor; returns once it has started.
    ///
    /// # Errors
    /// The reactor has ended.
    pub fn add(&self, worker: Box<dyn Worker>) -> std::result::Result<WorkerId, ReactorError> {
        match self.ask(|reply| Order::Add(worker, reply))? {
            Answer::Added(id) => Ok(id),
            _ => Err(ReactorError),
        }
    }

    /// Takes a worker back once the kernel has finished with it. `None`: it had left before.
    ///
    /// # Errors
    /// The reactor has ended.
    pub fn remove(&self, id: WorkerId) -> std::result::Result<Option<Box<dyn Worker>>, ReactorError> {
        match self.ask(|reply| Order::Remove(id, reply))? {
            Answer::Removed(worker) => Ok(Some(worker)),
            _ => Ok(None),
        }
    }

    /// Stops delivering events and returns when no operation is under way.
    ///
    /// # Errors
    /// The reactor has ended.
    pub fn pause(&self) -> std::result::Result<(), ReactorError> {
        self.ask(Order::Pause).map(|_| ())
    }

    /// Delivers events again, those that came during the pause first.
    pub fn resume(&self) {
        self.mailbox.post(Order::Resume);
    }

    /// Ends the reactor after its current turn.
    pub fn quit(&self) {
        self.mailbox.post(Order::Quit);
    }

    fn ask(&self, order: impl FnOnce(Reply) -> Order) -> std::result::Result<Answer, ReactorError> {
        let (reply, answer) = Reply::new();
        self.mailbox.post(order(reply));
        answer.recv().map_err(|_| ReactorError)
    }
}

pub(super) enum Order {
    Add(Box<dyn Worker>, Reply),
    Remove(WorkerId, Reply),
    Pause(Reply),
    Resume,
    Quit,
}

enum Answer {
    Added(WorkerId),
    Removed(Box<dyn Worker>),
    Gone,
    Done,
}

/// The way back to the thread that waits. Dropped unanswered, it tells that the reactor has ended.
pub(super) struct Reply(Sender<Answer>);

impl Reply {
    fn new() -> (Self, Receiver<Answer>) {
        let (sender, receiver) = channel();
        (Self(sender), receiver)
    }

    // The asking thread may have died with its process half torn down: an answer to nobody is no error.
    pub fn worker(self, id: WorkerId) {
        let _ = self.0.send(Answer::Added(id));
    }

    pub fn removed(self, worker: Box<dyn Worker>) {
        let _ = self.0.send(Answer::Removed(worker));
    }

    pub fn gone(self) {
        let _ = self.0.send(Answer::Gone);
    }

    pub fn done(self) {
        let _ = self.0.send(Answer::Done);
    }
}

/// Orders for a reactor, with the doorbell that wakes it. `None` inside: the reactor has ended.
pub(super) struct Mailbox {
    orders: Mutex<Option<Vec<Order>>>,
    doorbell: EventFd,
    sink: AtomicU64,
}

impl Mailbox {
    pub fn new() -> Result<Self> {
        Ok(Self { orders: Mutex::new(Some(Vec::new())), doorbell: EventFd::new(0)?, sink: AtomicU64::new(0) })
    }

    /// Lets the next order complete an entry on the ring.
    pub fn watch(&self, ring: &mut IoUring) {
        let read = opcode::Read::new(Fd(self.doorbell.as_raw_fd()), self.sink.as_ptr().cast(), 8);
        push(ring, &read.build().user_data(UserData::mailbox().raw()));
    }

    pub fn take(&self) -> Vec<Order> {
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn post(&self, order: Order) {
        if let Some(orders) = self.lock().as_mut() {
            orders.push(order);
        }
        // The counter of an eventfd overflows after 2^64 orders.
        let _ = self.doorbell.write(1);
    }

    pub fn close(&self) {
        // Dropping the orders tells those who wait.
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Order>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
