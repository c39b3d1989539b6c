//! What a worker may ask of the ring.
#![allow(unsafe_code)] // Entries name memory and file descriptors that the kernel uses later.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};

use super::WorkerId;
use super::slots::Account;

/// Where reads of eventfds land. Nobody looks at the value: that the read ended is the news.
static COUNTER_SINK: AtomicU64 = AtomicU64::new(0);

/// The ring as one worker sees it.
pub struct Io<'a> {
    ring: &'a mut IoUring,
    id: WorkerId,
    account: &'a mut Account,
}

impl<'a> Io<'a> {
    pub(super) fn new(ring: &'a mut IoUring, id: WorkerId, account: &'a mut Account) -> Self {
        Self { ring, id, account }
    }

    /// Calls `ready(token)` once `event` (a blocking eventfd) was written to, and resets its counter.
    /// The descriptor must stay open until the worker has left the reactor.
    pub fn wait_event(&mut self, token: u32, event: &impl AsRawFd) {
        let read = opcode::Read::new(Fd(event.as_raw_fd()), COUNTER_SINK.as_ptr().cast(), 8);
        self.arm(token, &read.build());
    }

    /// Calls `ready(token)` once `fd` can be read without blocking (or has failed).
    pub fn wait_readable(&mut self, token: u32, fd: &impl AsFd) {
        self.wait_poll(token, fd.as_fd().as_raw_fd(), libc::POLLIN as u32);
    }

    /// Calls `ready(token)` once `fd` can be written without blocking (or has failed).
    pub fn wait_writable(&mut self, token: u32, fd: &impl AsFd) {
        self.wait_poll(token, fd.as_fd().as_raw_fd(), libc::POLLOUT as u32);
    }

    /// Calls `ready(token)` after `delay`.
    pub fn wait_timeout(&mut self, token: u32, delay: Duration) {
        let timespec = self.account.timespec(token, delay);
        let timeout = opcode::Timeout::new(timespec).build();
        self.arm(token, &timeout);
    }

    /// Forgets the event registered with `token`, if it has not come yet. `ready(token)` may still
    /// be called once for an event that was on its way.
    pub fn forget(&mut self, token: u32) {
        if self.account.armed.contains(&token) {
            push(self.ring, &cancel(UserData::event(self.id, token)));
        }
    }

    /// Queues an operation; `complete(tag, result)` follows. It is submitted at the end of the turn.
    ///
    /// # Safety
    /// All memory and descriptors that `entry` names must stay valid until the completion was
    /// delivered. A worker is not dropped before that, so what it owns and does not move qualifies.
    pub unsafe fn submit(&mut self, entry: squeue::Entry, tag: u32) {
        self.account.operations += 1;
        push(self.ring, &entry.user_data(UserData::operation(self.id, tag).raw()));
    }

    fn wait_poll(&mut self, token: u32, fd: RawFd, events: u32) {
        self.arm(token, &opcode::PollAdd::new(Fd(fd), events).build());
    }

    fn arm(&mut self, token: u32, entry: &squeue::Entry) {
        // Arming twice would deliver twice; the first registration serves.
        if self.account.arm(token) {
            push(self.ring, &entry.clone().user_data(UserData::event(self.id, token).raw()));
        }
    }
}

/// Puts an entry on the ring, making room by submitting when it is full.
pub(super) fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    loop {
        // SAFETY: the callers answer for the entry's memory: `submit` by its contract; events read into a
        // static, poll descriptors, or use a timespec that the worker's account keeps.
        let pushed = unsafe { ring.submission().push(entry) };
        if pushed.is_ok() {
            return;
        }
        // A full ring with a kernel that takes nothing means that completions wait to be seen; EBUSY then
        // passes as soon as the kernel flushed its overflow list into the ring, which submit does.
        let _ = ring.submit();
    }
}

/// An entry that cancels the event with this user data; its own completion is nobody's.
pub(super) fn cancel(target: UserData) -> squeue::Entry {
    opcode::AsyncCancel::new(target.raw()).build().user_data(UserData::nobody().raw())
}

/// What a completion carries: worker slot, its generation, kind, and the worker's own number.
///
/// ```text
/// 63     48 47 46        32 31             0
/// [ slot  ] [O] [generation] [ tag or token ]
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct UserData(u64);

const OPERATION: u64 = 1 << 47;
const MAILBOX: u64 = u64::MAX;
const NOBODY: u64 = u64::MAX - 1;

impl UserData {
    pub fn event(id: WorkerId, token: u32) -> Self {
        Self((u64::from(id.slot) << 48) | (u64::from(id.generation & 0x7fff) << 32) | u64::from(token))
    }

    pub fn operation(id: WorkerId, tag: u32) -> Self {
        Self(Self::event(id, tag).0 | OPERATION)
    }

    pub const fn mailbox() -> Self {
        Self(MAILBOX)
    }

    pub const fn nobody() -> Self {
        Self(NOBODY)
    }

    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub const fn raw(self) -> u64 {
        self.0
    }

    pub const fn is_mailbox(self) -> bool {
        self.0 == MAILBOX
    }

    pub const fn is_operation(self) -> bool {
        self.0 & OPERATION != 0
    }

    pub const fn tag(self) -> u32 {
        self.0 as u32
    }

    /// The worker meant, or `None` for a completion that is nobody's.
    pub fn worker(self) -> Option<WorkerId> {
        if self.0 >= NOBODY {
            return None;
        }
        Some(WorkerId { slot: (self.0 >> 48) as u16, generation: ((self.0 >> 32) & 0x7fff) as u16 })
    }
}
