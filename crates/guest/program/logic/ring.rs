//! What a driver must know about its queue and no device may change: free descriptors, chains under way, and when an
//! index passed another.

/// The descriptors of one queue.
#[derive(Debug)]
pub struct Descriptors<'a> {
    /// For each free descriptor the next free one; within a chain, the next of the chain.
    next: &'a mut [u16],
    /// For each first descriptor of a chain under way the length of the chain; 0 for all others.
    lengths: &'a mut [u16],
    first_free: u16,
    free: u16,
}

impl<'a> Descriptors<'a> {
    /// All of them free. Both slices have one element for each descriptor, at most 32,768.
    pub fn new(next: &'a mut [u16], lengths: &'a mut [u16]) -> Self {
        assert_eq!(next.len(), lengths.len(), "one element for each descriptor");
        for (descriptor, link) in next.iter_mut().enumerate() {
            *link = descriptor as u16 + 1;
        }
        lengths.fill(0);
        let free = next.len() as u16;
        Self { next, lengths, first_free: 0, free }
    }

    /// Takes a chain of `length` descriptors; gives the first. None if so many are not free.
    pub fn take(&mut self, length: u16) -> Option<u16> {
        if length == 0 || length > self.free {
            return None;
        }
        let head = self.first_free;
        for _ in 0..length {
            self.first_free = self.next[usize::from(self.first_free)];
        }
        self.lengths[usize::from(head)] = length;
        self.free -= length;
        Some(head)
    }

    /// The descriptor after `descriptor` in its chain.
    #[must_use]
    pub fn after(&self, descriptor: u16) -> u16 {
        self.next[usize::from(descriptor)]
    }

    /// Frees the chain that starts at `head`. False if none does: a device gave back what it never got.
    pub fn give_back(&mut self, head: u32) -> bool {
        let Some(length) =
            self.lengths.get_mut(head as usize).map(core::mem::take).filter(|&length| length > 0)
        else {
            return false;
        };
        let head = head as u16;
        let last = (1..length).fold(head, |descriptor, _| self.next[usize::from(descriptor)]);
        self.next[usize::from(last)] = self.first_free;
        self.first_free = head;
        self.free += length;
        true
    }
}

/// Whether an index that moved from `old` to `new` passed `event` (VIRTIO 1.3 §2.7.7.1).
#[must_use]
pub fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_event_between_two_indexes_is_passed() {
        for (event, new, old, expected) in [
            (0, 1, 0, true),
            (1, 1, 0, false),
            (0, 1, 1, false),
            (5, 10, 3, true),
            (2, 10, 3, false),
            (10, 10, 3, false),
            (65535, 2, 65534, true),
            (65533, 2, 65534, false),
        ] {
            assert_eq!(passes(event, new, old), expected, "{event} {new} {old}");
        }
    }

    proptest! {
        #[test]
        fn no_descriptor_is_in_two_chains_and_none_is_lost(
            steps in prop::collection::vec((any::<bool>(), 1_u16..5, 0_u32..40), 1..200)
        ) {
            let (mut next, mut lengths) = ([0; 16], [0; 16]);
            let mut descriptors = Descriptors::new(&mut next, &mut lengths);
            let mut chains: Vec<Vec<u16>> = Vec::new();
            for (take, length, token) in steps {
                if take {
                    let room = 16 - chains.iter().map(Vec::len).sum::<usize>();
                    let head = descriptors.take(length);
                    prop_assert_eq!(head.is_some(), usize::from(length) <= room);
                    let Some(head) = head else { continue };
                    let mut chain = vec![head];
                    (1..length).for_each(|_| chain.push(descriptors.after(*chain.last().unwrap())));
                    prop_assert!(chain.iter().all(|d| *d < 16 && chains.iter().all(|other| !other.contains(d))));
                    chains.push(chain);
                } else {
                    let known = chains.iter().position(|chain| u32::from(chain[0]) == token);
                    prop_assert_eq!(descriptors.give_back(token), known.is_some());
                    known.map(|place| chains.swap_remove(place));
                }
            }
        }
    }
}
