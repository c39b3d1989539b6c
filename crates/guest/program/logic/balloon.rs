//! What the balloon driver does next, and how it describes the guest's memory to the host (VIRTIO 1.3 §5.5).

/// Which way pages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the host.
    Inflate,
    /// Back to the guest.
    Deflate,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Move at most so many pages in this direction.
    Move(Direction, u64),
    /// Nothing before requests that are under way have come back.
    Wait,
    /// Nothing before the host wants another size or memory becomes free.
    Rest,
}

/// The way from the size that the balloon has to the size that the host wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Course {
    /// The host's wish, in pages.
    target: u64,
    /// Requests under way, all in one direction.
    under_way: Option<(Direction, u32)>,
    /// The guest ran out of memory and took pages back. Until the host says something new it gives no more, or both
    /// would go on for ever.
    gave_up: bool,
}

impl Course {
    /// The host's wish, in pages.
    #[must_use]
    pub fn target(&self) -> u64 {
        self.target
    }

    /// Requests under way.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.under_way.map_or(0, |(_, requests)| requests)
    }

    /// The host wants this size.
    pub fn aim(&mut self, target: u64) {
        self.gave_up &= self.target == target;
        self.target = target;
    }

    /// The guest needs pages that the balloon holds.
    pub fn give_up(&mut self) {
        self.gave_up = true;
    }

    /// What to do while the balloon holds `held` pages, those on their way to it included, and `free` more could go.
    #[must_use]
    pub fn next(&self, held: u64, free: u64) -> Step {
        let wanted = if held < self.target && !self.gave_up && free > 0 {
            Some((Direction::Inflate, (self.target - held).min(free)))
        } else if held > self.target {
            Some((Direction::Deflate, held - self.target))
        } else {
            None
        };
        match (wanted, self.under_way) {
            (Some((direction, pages)), None) => Step::Move(direction, pages),
            (Some((direction, pages)), Some((current, _))) if direction == current => {
                Step::Move(direction, pages)
            }
            (_, Some(_)) => Step::Wait,
            (None, None) => Step::Rest,
        }
    }

    /// A request was made.
    pub fn sent(&mut self, direction: Direction) {
        let requests = self.under_way.map_or(0, |(current, requests)| {
            assert_eq!(current, direction, "all requests under way go in one direction");
            requests
        });
        self.under_way = Some((direction, requests + 1));
    }

    /// A request came back. If it was the last one, says which way they went.
    pub fn came_back(&mut self) -> Option<Direction> {
        let (direction, requests) = self.under_way?;
        self.under_way = (requests > 1).then_some((direction, requests - 1));
        self.under_way.is_none().then_some(direction)
    }
}

/// What the guest says about its memory. It has no swap and no disk cache, and maps all memory before it starts: these
/// figures are 0 because it knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes that nobody uses.
    pub free: u64,
    /// Bytes of RAM.
    pub total: u64,
    /// Bytes that a workload could still take.
    pub available: u64,
    /// How often a workload had to wait for pages of the balloon.
    pub stalls: u64,
    /// How often a workload got no memory at all.
    pub refusals: u64,
}

const STATISTICS: usize = 10;
const STATISTIC_BYTES: usize = 10;
/// Bytes of [`Statistics::encode`].
pub const STATISTICS_BYTES: usize = STATISTICS * STATISTIC_BYTES;

impl Statistics {
    /// As the device reads it: pairs of a 16-bit tag and a 64-bit value, packed, little-endian (VIRTIO 1.3 §5.5.6.4).
    #[must_use]
    pub fn encode(&self) -> [u8; STATISTICS_BYTES] {
        const SWAP_IN: u16 = 0;
        const SWAP_OUT: u16 = 1;
        const MAJOR_FAULTS: u16 = 2;
        const MINOR_FAULTS: u16 = 3;
        const FREE: u16 = 4;
        const TOTAL: u16 = 5;
        const AVAILABLE: u16 = 6;
        const CACHES: u16 = 7;
        const OUT_OF_MEMORY: u16 = 10;
        const ALLOCATION_STALLS: u16 = 11;
        let pairs: [(u16, u64); STATISTICS] = [
            (SWAP_IN, 0),
            (SWAP_OUT, 0),
            (MAJOR_FAULTS, 0),
            (MINOR_FAULTS, 0),
            (FREE, self.free),
            (TOTAL, self.total),
            (AVAILABLE, self.available),
            (CACHES, 0),
            (OUT_OF_MEMORY, self.refusals),
            (ALLOCATION_STALLS, self.stalls),
        ];
        let mut bytes = [0; STATISTICS_BYTES];
        for (slot, (tag, value)) in bytes.chunks_exact_mut(STATISTIC_BYTES).zip(pairs) {
            slot[..2].copy_from_slice(&tag.to_le_bytes());
            slot[2..].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn course(target: u64, under_way: Option<(Direction, u32)>) -> Course {
        Course { target, under_way, gave_up: false }
    }

    #[test]
    fn the_balloon_goes_where_the_host_wants_it() {
        use Direction::{Deflate, Inflate};
        for (target, held, free, under_way, expected) in [
            (100, 0, 500, None, Step::Move(Inflate, 100)),
            (100, 40, 500, Some((Inflate, 3)), Step::Move(Inflate, 60)),
            (100, 0, 30, None, Step::Move(Inflate, 30)),
            (100, 30, 0, None, Step::Rest),
            (100, 30, 0, Some((Inflate, 1)), Step::Wait),
            (100, 100, 500, Some((Inflate, 1)), Step::Wait),
            (100, 100, 500, None, Step::Rest),
            (0, 100, 500, None, Step::Move(Deflate, 100)),
            (0, 100, 500, Some((Inflate, 1)), Step::Wait),
            (100, 50, 500, Some((Deflate, 1)), Step::Wait),
        ] {
            assert_eq!(course(target, under_way).next(held, free), expected, "{target} {held} {free}");
        }
    }

    #[test]
    fn pages_taken_back_in_need_stay_until_the_host_says_something_new() {
        let mut course = course(100, None);
        course.give_up();
        assert_eq!(course.next(50, 500), Step::Rest);
        course.aim(100);
        assert_eq!(course.next(50, 500), Step::Rest);
        course.aim(90);
        assert_eq!(course.next(50, 500), Step::Move(Direction::Inflate, 40));
    }

    #[test]
    fn statistics_are_packed_pairs() {
        let statistics = Statistics { free: 1, total: 0x0203, available: 3, stalls: 4, refusals: 5 };
        let bytes = statistics.encode();
        assert_eq!(bytes.len(), 100);
        assert_eq!(bytes[40..50], [4, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[50..60], [5, 0, 3, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[90..], [11, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        /// A host that changes its mind, answers late and in any order, and a guest whose free memory comes and goes.
        #[test]
        fn every_wish_is_met_or_all_is_given_and_then_it_rests(
            wishes in prop::collection::vec((0_u64..2000, 0_u64..2000, 0_usize..8), 1..20)
        ) {
            let mut course = Course::default();
            let (mut held, mut all) = (0_u64, 0_u64);
            for (target, memory, early) in wishes {
                course.aim(target);
                all = memory.max(held);
                for _ in 0..early {
                    step(&mut course, &mut held, all);
                }
            }
            for _ in 0..100_000 {
                if course.next(held, all - held) == Step::Rest {
                    break;
                }
                step(&mut course, &mut held, all);
            }
            prop_assert_eq!(course.next(held, all - held), Step::Rest);
            prop_assert_eq!(course.under_way(), 0);
            prop_assert_eq!(held, course.target().min(all));
        }
    }

    /// Makes one request of at most 64 pages, or takes one back.
    fn step(course: &mut Course, held: &mut u64, all: u64) {
        match course.next(*held, all - *held) {
            Step::Move(direction, pages) if course.under_way() < 4 => {
                let pages = pages.min(64);
                *held = if direction == Direction::Inflate { *held + pages } else { *held - pages };
                course.sent(direction);
            }
            Step::Rest => {}
            Step::Move(..) | Step::Wait => {
                assert!(course.under_way() > 0, "it waits for something");
                course.came_back();
            }
        }
    }
}
