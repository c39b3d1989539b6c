//! Pages that the guest has given up and that wait for their neighbours.
//!
//! Memory backed by a huge page comes back to the host when all of it is discarded at once; page by page, the host
//! would have to split the huge page first. So pages are gathered by aligned blocks of 2 MiB. A block is taken out when
//! it is complete, when nothing was added to it for a while, or when there are too many blocks.

use std::collections::HashMap;

use super::page_set::Run;

/// Pages of a block: those of a huge page.
pub(super) const BLOCK_PAGES: u64 = 512;
/// Blocks that are gathered at a time: 8 GiB of guest memory in pieces, and 400 KiB here.
const BLOCKS_MAX: usize = 4096;
const WORDS: usize = (BLOCK_PAGES / 64) as usize;

/// The blocks that are not complete.
#[derive(Default)]
pub(super) struct Pending {
    blocks: HashMap<u64, Block>,
    /// Blocks that wait no longer, in the order of their addresses from the end.
    released: Vec<u64>,
    /// Counts the times that somebody looked for blocks that wait in vain.
    round: u32,
    /// Blocks looked at to find those that wait no longer, since the start.
    #[cfg(test)]
    looks: usize,
}

#[derive(Default)]
struct Block {
    pages: [u64; WORDS],
    /// The round in which a page was added last.
    round: u32,
}

impl Pending {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Adds pages; calls `complete` with each block that has become complete, in the order of their addresses.
    pub fn insert(&mut self, run: Run, mut complete: impl FnMut(Run)) {
        for (number, part) in blocks(run) {
            if part.count == BLOCK_PAGES {
                self.blocks.remove(&number);
                complete(part);
                continue;
            }
            let block = self.blocks.entry(number).or_default();
            block.round = self.round;
            words(part).for_each(|(word, mask)| block.pages[word] |= mask);
            if block.pages == [u64::MAX; WORDS] {
                self.blocks.remove(&number);
                complete(Run { first: number * BLOCK_PAGES, count: BLOCK_PAGES });
            }
        }
        // While blocks are being taken, more of them would find the same ones again.
        if self.blocks.len() > BLOCKS_MAX && self.released.is_empty() {
            self.release(|_| true);
        }
    }

    /// Removes pages.
    pub fn remove(&mut self, run: Run) {
        for (number, part) in blocks(run) {
            if let Some(block) = self.blocks.get_mut(&number) {
                words(part).for_each(|(word, mask)| block.pages[word] &= !mask);
                if block.pages == [0; WORDS] {
                    self.blocks.remove(&number);
                }
            }
        }
    }

    /// Releases the blocks to which nothing was added since the last call.
    pub fn release_idle(&mut self) {
        let round = self.round;
        self.release(|block| block.round != round);
        self.round = self.round.wrapping_add(1);
    }

    /// Takes a block that was released and calls `give` with its runs, in the order of their addresses. `false`: there
    /// is none.
    pub fn take_released(&mut self, mut give: impl FnMut(Run)) -> bool {
        let Some(number) = self.released.pop() else { return false };
        // A block that has become complete or empty since is not there any more.
        if let Some(block) = self.blocks.remove(&number) {
            let is_in = |page: &u64| block.pages[(page / 64) as usize] >> (page % 64) & 1 != 0;
            let mut page = 0;
            while page < BLOCK_PAGES {
                let count = (page..BLOCK_PAGES).take_while(is_in).count() as u64;
                if count > 0 {
                    give(Run { first: number * BLOCK_PAGES + page, count });
                }
                page += count + 1;
            }
        }
        true
    }

    fn release(&mut self, which: impl Fn(&Block) -> bool) {
        #[cfg(test)]
        {
            self.looks += self.blocks.len();
        }
        self.released.clear();
        self.released.extend(self.blocks.iter().filter(|(_, block)| which(block)).map(|(number, _)| *number));
        self.released.sort_unstable_by(|one, other| other.cmp(one));
    }
}

/// The parts of `run` by block.
fn blocks(run: Run) -> impl Iterator<Item = (u64, Run)> {
    let numbers = run.first / BLOCK_PAGES..run.end().div_ceil(BLOCK_PAGES);
    numbers.filter_map(move |number| {
        Some((number, run.common(Run { first: number * BLOCK_PAGES, count: BLOCK_PAGES })?))
    })
}

/// The words of a block that `part` touches, and which bits of them.
fn words(part: Run) -> impl Iterator<Item = (usize, u64)> {
    let start = part.first % BLOCK_PAGES;
    let end = start + part.count;
    (start / 64..end.div_ceil(64)).map(move |word| {
        let (low, high) = (start.max(word * 64), end.min(word * 64 + 64));
        (word as usize, (u64::MAX >> (64 - (high - low))) << (low % 64))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn run(first: u64, count: u64) -> Run {
        Run { first, count }
    }

    #[test]
    fn a_block_waits_until_it_is_complete() {
        let (mut pending, mut complete) = (Pending::default(), Vec::new());
        pending.insert(run(512, 511), |block| complete.push(block));
        pending.insert(run(1500, 600), |block| complete.push(block));
        assert_eq!(complete, [run(1536, 512)]);
        pending.insert(run(1023, 1), |block| complete.push(block));
        assert_eq!(complete[1..], [run(512, 512)]);
        pending.remove(run(1500, 36));
        assert!(!pending.is_empty(), "the end of the second run waits");
    }

    #[test]
    fn a_block_to_which_nothing_is_added_is_released() {
        let mut pending = Pending::default();
        let none = |_| panic!("nothing is complete");
        pending.insert(run(10, 3), none);
        pending.insert(run(600, 1), none);
        pending.release_idle();
        assert!(!pending.take_released(none), "they are young");
        pending.insert(run(14, 1), none);
        pending.release_idle();
        let mut given = Vec::new();
        while pending.take_released(|run| given.push(run)) {}
        assert_eq!(given, [run(600, 1)]);
        pending.release_idle();
        while pending.take_released(|run| given.push(run)) {}
        assert_eq!(given[1..], [run(10, 3), run(14, 1)]);
        assert!(pending.is_empty());
    }

    #[test]
    fn too_many_blocks_are_released() {
        let (mut pending, mut given) = (Pending::default(), 0);
        for block in 0..3 * BLOCKS_MAX as u64 {
            pending.insert(run(block * BLOCK_PAGES + 1, 2), |_| panic!("nothing is complete"));
            while pending.take_released(|_| given += 1) {}
            assert!(pending.blocks.len() <= BLOCKS_MAX);
        }
        assert!(given >= 2 * BLOCKS_MAX, "{given}");
    }

    #[test]
    fn pages_of_too_many_blocks_cost_no_more_each_than_those_of_few() {
        let mut pending = Pending::default();
        let insert = |pending: &mut Pending, block: u64| {
            pending.insert(run(block * BLOCK_PAGES, 1), |_| panic!("nothing is complete"));
        };
        let most = 5 * BLOCKS_MAX;
        // As a driver's lists of pages, each of which is taken in as a whole.
        for list in 0..most as u64 / 1024 {
            (list * 1024..(list + 1) * 1024).for_each(|block| insert(&mut pending, block));
            while pending.take_released(|_| {}) {}
        }
        assert!((1..=2 * most).contains(&pending.looks), "{} blocks looked at", pending.looks);
        // Nobody takes any meanwhile.
        let before = pending.looks;
        (0..most as u64).for_each(|block| insert(&mut pending, block));
        assert!(pending.looks - before <= 2 * BLOCKS_MAX, "{} blocks looked at", pending.looks - before);
        while pending.take_released(|_| {}) {}
        insert(&mut pending, 0);
        while pending.take_released(|_| {}) {}
        assert!(pending.is_empty());
    }

    proptest! {
        #[test]
        fn every_page_comes_out_once_unless_it_is_taken_out(
            steps in proptest::collection::vec((0..8_u8, 0..2048_u64, 1..700_u64), 1..40)
        ) {
            let (mut pending, mut model) = (Pending::default(), BTreeSet::new());
            let mut given = Vec::new();
            for (step, first, count) in steps {
                match step {
                    0..4 => {
                        model.extend(first..first + count);
                        pending.insert(run(first, count), |run| given.push(run));
                    }
                    4..6 => {
                        (first..first + count).for_each(|page| _ = model.remove(&page));
                        pending.remove(run(first, count));
                    }
                    _ => {
                        pending.release_idle();
                        while pending.take_released(|run| given.push(run)) {}
                    }
                }
                for run in given.drain(..) {
                    for page in run.first..run.end() {
                        prop_assert!(model.remove(&page), "{}", page);
                    }
                }
            }
            for _ in 0..2 {
                pending.release_idle();
                while pending.take_released(|run| given.push(run)) {}
            }
            let rest: BTreeSet<u64> = given.iter().flat_map(|run| run.first..run.end()).collect();
            prop_assert_eq!(rest, model);
            prop_assert!(pending.is_empty());
        }
    }
}
