//! Whose turn it is: a clock hand over blocks of memory, with a second chance for those that are in use.

use super::Census;

/// Blocks in a circle, and a hand that points at one of them.
#[derive(Debug)]
pub struct Clock {
    /// Empty until the hand moves: most VMs are never asked for memory in this way.
    blocks: Vec<Block>,
    count: usize,
    hand: usize,
}

/// What is remembered of a block.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Pages in swap when the hand left it.
    swapped: u64,
    /// It had its second chance.
    was_spared: bool,
}

/// What happens to the block at the hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing of it is in memory.
    Pass,
    /// Pages came back to it since the hand was here: it stays this time.
    Spare,
    /// It goes.
    Take,
}

impl Clock {
    /// A clock of so many blocks, at least one.
    pub fn new(blocks: usize) -> Self {
        assert!(blocks > 0, "a guest has memory");
        Self { blocks: Vec::new(), count: blocks, hand: 0 }
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The block whose turn it is.
    pub fn hand(&self) -> usize {
        self.hand
    }

    /// What happens to the block at the hand, and how many of its pages came back from swap since the last time.
    pub fn judge(&mut self, found: Census) -> (Turn, u64) {
        self.blocks.resize(self.count, Block::default());
        let block = &mut self.blocks[self.hand];
        let came_back = block.swapped.saturating_sub(found.swapped);
        let turn = match found.resident {
            0 => Turn::Pass,
            _ if came_back > 0 && !block.was_spared => Turn::Spare,
            _ => Turn::Take,
        };
        *block = Block { swapped: found.swapped, was_spared: turn == Turn::Spare };
        (turn, came_back)
    }

    /// So many pages of the block at the hand are in swap now.
    pub fn record(&mut self, swapped: u64) {
        // A block that nobody has judged has nothing to remember.
        if let Some(block) = self.blocks.get_mut(self.hand) {
            block.swapped = swapped;
        }
    }

    /// What is at the hand is gone: the guest does not have it, and what comes there next is new.
    pub fn forget(&mut self) {
        if let Some(block) = self.blocks.get_mut(self.hand) {
            *block = Block::default();
        }
    }

    /// Moves the hand to the next block.
    pub fn advance(&mut self) {
        self.hand = (self.hand + 1) % self.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(resident: u64, swapped: u64) -> Census {
        Census { resident, swapped }
    }

    /// One visit: what the hand finds, and what becomes of it if it is taken whole.
    fn visit(clock: &mut Clock, census: Census) -> (Turn, u64) {
        let judged = clock.judge(census);
        if judged.0 == Turn::Take {
            clock.record(census.swapped + census.resident);
        }
        clock.advance();
        judged
    }

    #[test]
    fn a_block_whose_pages_came_back_is_spared_once() {
        let mut clock = Clock::new(1);
        assert_eq!(visit(&mut clock, found(512, 0)), (Turn::Take, 0));
        assert_eq!(visit(&mut clock, found(0, 512)), (Turn::Pass, 0));
        assert_eq!(visit(&mut clock, found(12, 500)), (Turn::Spare, 12));
        // Whatever came back meanwhile: a guest that uses everything has to give something too.
        assert_eq!(visit(&mut clock, found(20, 492)), (Turn::Take, 8));
        assert_eq!(visit(&mut clock, found(5, 507)), (Turn::Spare, 5));
        assert_eq!(visit(&mut clock, found(5, 507)), (Turn::Take, 0));
    }

    #[test]
    fn pages_that_were_never_in_swap_have_not_come_back() {
        let mut clock = Clock::new(1);
        assert_eq!(visit(&mut clock, found(100, 0)), (Turn::Take, 0));
        // The guest touched memory that it had not used before.
        assert_eq!(visit(&mut clock, found(300, 100)), (Turn::Take, 0));
    }

    #[test]
    fn the_hand_goes_round_and_remembers_each_block() {
        let mut clock = Clock::new(3);
        let taken: Vec<usize> = (0..3)
            .map(|_| {
                let hand = clock.hand();
                visit(&mut clock, found(512, 0));
                hand
            })
            .collect();
        assert_eq!((taken, clock.hand(), clock.len()), (vec![0, 1, 2], 0, 3));
        assert_eq!(visit(&mut clock, found(512, 0)), (Turn::Spare, 512));
        assert_eq!(visit(&mut clock, found(0, 512)), (Turn::Pass, 0));
        assert_eq!(visit(&mut clock, found(512, 0)), (Turn::Spare, 512));
        assert_eq!(visit(&mut clock, found(512, 0)), (Turn::Take, 0));
    }
}
