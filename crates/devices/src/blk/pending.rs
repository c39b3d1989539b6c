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

#[cfg(test)]
mod tests {
    use napa_virtio::IoVec;

    use super::*;

    fn pending(head: u16) -> Pending {
        let mut outcome = Box::new([0_u8; 1]);
        let mut buffers = Buffers::default();
        buffers.writable.push(IoVec { iov_base: outcome.as_mut_ptr().cast(), iov_len: 1 });
        let status = buffers.take_status().unwrap();
        let left = Range { offset: 0, length: 0 };
        Pending { head, status, buffers, request: Request::Flush, step: Step::Sync, left, retries: 0 }
    }

    #[test]
    fn a_table_takes_up_to_its_limit_and_uses_tags_again() {
        let mut table = Table::new(2);
        let (first, second) = (table.insert(pending(10)), table.insert(pending(11)));
        assert!(table.is_full());
        assert_eq!((table.get(first).head, table.get(second).head), (10, 11));
        assert_eq!(table.remove(first).head, 10);
        assert!(!table.is_full());
        assert_eq!(table.insert(pending(12)), first);
        assert!(table.is_full());
        assert_eq!(table.get(first).head, 12);
    }

    #[test]
    fn vectors_are_used_again_but_large_ones_are_not_kept() {
        let mut table = Table::new(2);
        let piece = IoVec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        for (pieces, kept) in [(4, 4), (1000, VECTORS_KEPT)] {
            table.keep_buffers(Buffers { readable: vec![piece; pieces], writable: vec![] });
            let again = table.take_buffers();
            assert!(again.readable.is_empty());
            assert_eq!(again.readable.capacity(), kept);
        }
    }
}
