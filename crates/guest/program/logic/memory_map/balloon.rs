//! The part of the map that the host takes back: the balloon's pages, and free blocks to report.

use super::{FreeMemory, PAGE, Range, Span};

/// What the host can give back to its own system at once: a huge page.
pub const BLOCK: u64 = 2 << 20;

/// The balloon names pages by 32-bit numbers.
const NAMED_END: u64 = 1 << 44;

impl FreeMemory {
    /// Pages that the balloon holds.
    #[must_use]
    pub fn ballooned_pages(&self) -> u64 {
        self.spans.iter().map(|span| (span.ram_end - span.balloon) / PAGE).sum()
    }

    /// Moves up to `pages_max` pages of one [`BLOCK`], the highest that is free, into the balloon. None if none is free.
    pub fn inflate(&mut self, pages_max: u64) -> Option<Range> {
        let usable =
            |span: &&mut Span| span.ram_end <= NAMED_END && span.end - page_above(span.start) >= PAGE;
        let span = self.spans.iter_mut().rev().filter(|span| span.start < span.end).find(usable)?;
        let block_start = (span.end - 1) & !(BLOCK - 1);
        let wanted_start = span.end.saturating_sub(pages_max.saturating_mul(PAGE));
        let piece = Range { start: block_start.max(wanted_start).max(page_above(span.start)), end: span.end };
        assert_eq!(span.end, span.balloon, "nothing is inflated while pages come back");
        span.end = piece.start;
        span.balloon = piece.start;
        span.used_end = span.used_end.min(piece.start);
        (piece.bytes() > 0).then_some(piece)
    }

    /// Lets go of up to `pages_max` pages of one [`BLOCK`], the lowest that the balloon holds. They are free only after
    /// [`Self::deflated`].
    pub fn deflate(&mut self, pages_max: u64) -> Option<Range> {
        let span = self.spans.iter_mut().find(|span| span.balloon < span.ram_end)?;
        let block_end = (span.balloon + 1).next_multiple_of(BLOCK);
        let wanted_end = span.balloon.saturating_add(pages_max.saturating_mul(PAGE));
        let piece = Range { start: span.balloon, end: block_end.min(wanted_end).min(span.ram_end) };
        span.balloon = piece.end;
        (piece.bytes() > 0).then_some(piece)
    }

    /// The host knows of all pages that the balloon let go of: they are free, and hold anything.
    pub fn deflated(&mut self) {
        self.spans.iter_mut().for_each(|span| span.end = span.balloon);
    }

    /// The next free, whole [`BLOCK`] that was in use since the host last took it. It counts as told: the caller reports
    /// it, and lets nobody use it before the host is done.
    pub fn next_unreported(&mut self) -> Option<Range> {
        self.spans.iter_mut().find_map(|span| {
            let block = span.unreported()?;
            span.used_end = block.start;
            Some(block)
        })
    }

    /// Whether [`Self::next_unreported`] would give a block.
    #[must_use]
    pub fn has_unreported(&self) -> bool {
        self.spans.iter().any(|span| span.unreported().is_some())
    }

    /// The whole [`BLOCK`]s that are free, neighbours together.
    pub fn whole_blocks(&self) -> impl Iterator<Item = Range> {
        self.spans
            .iter()
            .map(|span| Range { start: span.start.next_multiple_of(BLOCK), end: span.end & !(BLOCK - 1) })
            .filter(|range| range.bytes() > 0)
    }
}

impl Span {
    /// The highest block that is free, whole, was in use, and is not reported.
    fn unreported(&self) -> Option<Range> {
        let end = self.used_end.next_multiple_of(BLOCK).min(self.end & !(BLOCK - 1));
        let is_free = self.used_end > self.start && end > self.start.next_multiple_of(BLOCK);
        is_free.then(|| Range { start: end - BLOCK, end })
    }
}

fn page_above(address: u64) -> u64 {
    address.next_multiple_of(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RAM: [Range; 2] =
        [Range { start: 0x10_0000, end: 0x10f_f000 }, Range { start: 1 << 32, end: (1 << 32) + 0x80_0000 }];

    fn memory() -> FreeMemory {
        FreeMemory::above(0x12_3456, &RAM)
    }

    fn inflate(memory: &mut FreeMemory, pages: u64) -> Vec<Range> {
        let mut pieces = Vec::new();
        let mut missing = pages;
        while let Some(piece) = memory.inflate(missing).filter(|_| missing > 0) {
            missing -= piece.bytes() / PAGE;
            pieces.push(piece);
        }
        pieces
    }

    #[test]
    fn the_balloon_takes_whole_aligned_blocks_from_the_top() {
        let mut memory = memory();
        let pieces = inflate(&mut memory, 2048 + 255 + 512);
        let (blocks, rest) = pieces.split_at(4);
        assert!(blocks.iter().all(|piece| piece.bytes() == BLOCK && piece.start % BLOCK == 0));
        assert_eq!(rest[0], Range { start: 0x100_0000, end: 0x10f_f000 }, "the edge of the other range");
        assert_eq!(rest[1], Range { start: 0xe0_0000, end: 0x100_0000 });
        assert_eq!(memory.ballooned_pages(), 2048 + 255 + 512);
    }

    #[test]
    fn pages_that_come_back_are_free_when_the_host_knows() {
        let mut memory = memory();
        let before = memory.free();
        inflate(&mut memory, u64::MAX);
        assert_eq!(memory.free(), 0);
        let pages = memory.ballooned_pages();
        assert_eq!(memory.deflate(3).unwrap().bytes(), 3 * PAGE);
        assert_eq!((memory.free(), memory.ballooned_pages()), (0, pages - 3));
        memory.deflated();
        assert_eq!(memory.free(), 3 * PAGE);
        while memory.deflate(u64::MAX).is_some() {}
        memory.deflated();
        assert_eq!((memory.free(), memory.ballooned_pages()), (before, 0));
    }

    #[test]
    fn what_a_workload_used_is_reported_once_in_whole_blocks() {
        let mut memory = memory();
        assert_eq!(memory.next_unreported(), None, "nobody used anything");
        let mark = memory.mark();
        memory.take_pages(1536).unwrap();
        assert_eq!(memory.next_unreported(), None, "it is in use");
        memory.release(&mark);
        assert!(memory.has_unreported());
        let blocks: Vec<Range> = std::iter::from_fn(|| memory.next_unreported()).collect();
        let starts: Vec<u64> = blocks.iter().map(|block| block.start).collect();
        assert_eq!(starts, [0x60_0000, 0x40_0000, 0x20_0000]);
        assert!(!memory.has_unreported());
        assert_eq!(memory.next_unreported(), None);
    }

    #[test]
    fn the_balloon_makes_a_report_needless() {
        let mut memory = memory();
        let mark = memory.mark();
        memory.take_pages(1536).unwrap();
        memory.release(&mark);
        inflate(&mut memory, u64::MAX);
        while memory.deflate(u64::MAX).is_some() {}
        memory.deflated();
        assert_eq!(memory.next_unreported(), None);
    }

    /// Something that happens to the map.
    #[derive(Debug, Clone)]
    enum Event {
        Take(u64, u32),
        Release,
        Inflate(u64),
        Deflate(u64),
        Report,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1_u64..0x40_0000, 0_u32..22).prop_map(|(bytes, shift)| Event::Take(bytes, shift)),
            Just(Event::Release),
            (1_u64..3000).prop_map(Event::Inflate),
            (1_u64..3000).prop_map(Event::Deflate),
            Just(Event::Report),
        ]
    }

    proptest! {
        #[test]
        fn no_page_is_in_two_places_and_none_is_lost(events in prop::collection::vec(event(), 1..60)) {
            let mut memory = memory();
            let (mark, all) = (memory.mark(), memory.free());
            let (mut used, mut balloon): (Vec<Range>, Vec<Range>) = (Vec::new(), Vec::new());
            let apart = |one: &Range, other: &Range| one.end <= other.start || other.end <= one.start;
            for event in events {
                match event {
                    Event::Take(bytes, shift) => used.extend(memory.take(bytes, 1 << shift)),
                    Event::Release => {
                        memory.release(&mark);
                        used.clear();
                    }
                    Event::Inflate(pages) => balloon.extend(inflate(&mut memory, pages)),
                    Event::Deflate(pages) => {
                        if let Some(back) = memory.deflate(pages) {
                            prop_assert!(back.bytes() <= pages * PAGE);
                            memory.deflated();
                            // Blocks come back as they went or in pieces: count pages, not pieces.
                            balloon = balloon.into_iter().flat_map(|piece| without(piece, back)).collect();
                        }
                    }
                    Event::Report => {
                        while let Some(block) = memory.next_unreported() {
                            prop_assert!(block.start % BLOCK == 0 && block.bytes() == BLOCK);
                            prop_assert!(used.iter().chain(&balloon).all(|other| apart(&block, other)));
                        }
                    }
                }
                let held: u64 = balloon.iter().map(Range::bytes).sum();
                prop_assert_eq!(held, memory.ballooned_pages() * PAGE);
                prop_assert!(used.iter().all(|one| balloon.iter().all(|other| apart(one, other))));
                let whole: u64 = memory.whole_blocks().map(|range| range.bytes()).sum();
                prop_assert!(whole <= memory.free());
                prop_assert!(used.iter().map(Range::bytes).sum::<u64>() + held + memory.free() <= all);
            }
            memory.release(&mark);
            prop_assert_eq!(memory.free() + memory.ballooned_pages() * PAGE, all);
        }
    }

    fn without(piece: Range, back: Range) -> Vec<Range> {
        let low = Range { start: piece.start, end: piece.end.min(back.start) };
        let high = Range { start: piece.start.max(back.end), end: piece.end };
        if piece.end <= back.start || back.end <= piece.start {
            return vec![piece];
        }
        [low, high].into_iter().filter(|range| range.bytes() > 0).collect()
    }
}
