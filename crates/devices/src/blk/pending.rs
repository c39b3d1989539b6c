//! The requests that a queue has under way, by the tag that their operations carry.

use napa_virtio::{Buffers, StatusByte};

use super::operation::Step;
use super::request::{Range, Request};

/// Vectors that a spare keeps room for: a request of 128 KiB in pages. Larger ones give the rest back.
const VECTORS_KEPT: usize = 32;

/// One request under way.
pub(super) struct Pending {
    /// Head of its descriptor chain.
    pub head: u16,
    /// Where its outcome goes.
    pub status: StatusByte,
    /// Its data: what is still to be transferred.
    pub buffers: Buffers,
    /// What was asked.
    pub request: Request,
    /// What is being done for it.
    pub step: Step,
    /// What is still to be done of its range.
    pub left: Range,
    /// How often the kernel may still say "try again".
    pub retries: u8,
}

/// A table of requests. Grows with the most that were ever under way at once, up to its limit.
pub(super) struct Table {
    entries: Vec<Option<Pending>>,
    free: Vec<u16>,
    spares: Vec<Buffers>,
    limit: u16,
}

impl Table {
    /// An empty table for up to `limit` requests.
    pub fn new(limit: u16) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), spares: Vec::new(), limit }
    }

    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.free.is_empty() && self.entries.len() == usize::from(self.limit)
    }

    /// Vectors for the next request, with the memory of an earlier one.
    pub fn take_buffers(&mut self) -> Buffers {
        self.spares.pop().unwrap_or_default()
    }

    /// Gives the vectors of a request that ended back.
    pub fn keep_buffers(&mut self, mut buffers: Buffers) {
        for vectors in [&mut buffers.readable, &mut buffers.writable] {
            vectors.clear();
            vectors.shrink_to(VECTORS_KEPT);
        }
        self.spares.push(buffers);
    }

    /// Enters a request and gives its tag. The table must not be full.
    pub fn insert(&mut self, pending: Pending) -> u16 {
        assert!(!self.is_full(), "the table of requests is full");
        let Some(tag) = self.free.pop() else {
            self.entries.push(Some(pending));
            return (self.entries.len() - 1) as u16;
        };
        self.entries[usize::from(tag)] = Some(pending);
        tag
    }

    /// The request with this tag.
    pub fn get(&mut self, tag: u16) -> &mut Pending {
        self.entries[usize::from(tag)].as_mut().expect("only operations of live requests complete")
    }

    /// Takes the request with this tag out.
    pub fn remove(&mut self, tag: u16) -> Pending {
        let pending = self.entries[usize::from(tag)].take().expect("a request ends once");
        self.free.push(tag);
        pending
    }
}
