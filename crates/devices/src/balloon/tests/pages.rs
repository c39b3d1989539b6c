//! Pages that are given up, taken back and reported.

use napa_units::{Bytes, PAGE_SIZE};
use proptest::prelude::*;

use super::rig::*;
use crate::balloon::config::Feature;
use crate::testing::WRITE;

fn frames(pages: std::ops::Range<u64>) -> Vec<u32> {
    pages.map(|page| page as u32).collect()
}

#[test]
fn a_huge_page_in_several_lists_is_discarded_at_once() {
    let mut rig = Rig::new();
    (1024..1536).for_each(|page| rig.mark(page, 7));
    let mut pages = frames(1024..1536);
    pages.reverse();
    for part in pages.chunks(200) {
        rig.offer_list(INFLATE, part);
    }
    rig.queues[INFLATE].kick();
    rig.wait_until("the block is discarded", |rig| rig.balloon.report().discarded == Bytes::mib(2));
    let report = rig.balloon.report();
    assert_eq!((report.discards, report.held), (1, Bytes::mib(2)));
    assert!((1024..1536).all(|page| rig.mark_of(page) == 0 && rig.pages.is_discarded(page)));
}

#[test]
fn a_part_of_a_huge_page_is_discarded_after_a_while() {
    let mut rig = Rig::new();
    (600..610).for_each(|page| rig.mark(page, 7));
    rig.list(INFLATE, &[601, 603, 602, 601, 608]);
    rig.wait_until("the pages are discarded", |rig| rig.balloon.report().discarded == Bytes::kib(16));
    assert_eq!(rig.balloon.report().discards, 2);
    let kept: Vec<u64> = (600..610).filter(|page| rig.mark_of(*page) == 7).collect();
    assert_eq!(kept, [600, 604, 605, 606, 607, 609]);
    assert_eq!(rig.balloon.report().held, Bytes::kib(16));
}

#[test]
fn pages_that_are_taken_back_are_not_discarded() {
    let mut rig = Rig::new();
    (600..610).for_each(|page| rig.mark(page, 7));
    // One doorbell for both: the device looks at the pages given up first.
    rig.offer_list(INFLATE, &frames(600..610));
    rig.offer_list(DEFLATE, &frames(603..606));
    rig.queues[DEFLATE].kick();
    rig.wait_until("the rest is discarded", |rig| rig.balloon.report().discarded == Bytes::kib(28));
    let kept: Vec<u64> = (600..610).filter(|page| rig.mark_of(*page) == 7).collect();
    assert_eq!(kept, [603, 604, 605]);
    assert_eq!(rig.balloon.report().held, Bytes::kib(28));
}

#[test]
fn a_driver_that_does_not_tell_has_its_answer_after_the_pages_are_gone() {
    let mut rig = Rig::with(0, &[true, true, false, false, false]);
    (600..1000).for_each(|page| rig.mark(page, 7));
    rig.list(INFLATE, &frames(600..1000));
    assert!((600..1000).all(|page| rig.mark_of(page) == 0));
    assert_eq!(rig.balloon.report().discards, 1);
}

#[test]
fn a_report_comes_back_after_its_pages_are_gone() {
    let mut rig = Rig::new();
    (FIRST_PAGE..END_PAGE).for_each(|page| rig.mark(page, 7));
    let address = |page: u64| page * PAGE_SIZE;
    let blocks = [(address(1024), 4 << 20, WRITE), (address(3000) + 8, 3 * 4096, WRITE)];
    let head = rig.queues[REPORTS].add(&blocks);
    rig.queues[REPORTS].kick();
    assert_eq!(rig.queues[REPORTS].wait_used(), (head, 0));
    let gone = |page| (1024..2048).contains(&page) || (3001..3003).contains(&page);
    for page in FIRST_PAGE..END_PAGE {
        assert_eq!(rig.mark_of(page) == 0, gone(page), "page {page}");
    }
    let report = rig.balloon.report();
    let expected = Bytes((1024 + 2) * PAGE_SIZE);
    assert_eq!((report.reported, report.discarded, report.held), (expected, expected, Bytes(0)));
    assert!(report.reporting);
}

#[test]
fn free_pages_that_must_keep_a_pattern_are_kept() {
    for (poison, kept) in [(0xaaaa_aaaa, true), (0, false)] {
        let mut rig = Rig::with(Feature::ALL, &[true; 5]);
        rig.write_config(12, poison);
        rig.mark(1024, 7);
        let head = rig.queues[REPORTS].add(&[(1024 * PAGE_SIZE, 4096, WRITE)]);
        rig.queues[REPORTS].kick();
        assert_eq!(rig.queues[REPORTS].wait_used(), (head, 0));
        assert_eq!((rig.mark_of(1024) == 7, rig.balloon.report().reporting), (kept, !kept));
    }
}

#[test]
fn pages_that_the_guest_does_not_have_are_ignored() {
    let mut rig = Rig::new();
    let end = END_PAGE as u32;
    rig.mark(END_PAGE - 1, 7);
    rig.list(INFLATE, &[end - 1, end, end + 1, u32::MAX, u32::MAX]);
    rig.list(DEFLATE, &[end + 5]);
    rig.wait_until("its own page is gone", |rig| rig.mark_of(END_PAGE - 1) == 0);
    let report = rig.balloon.report();
    assert_eq!((report.held, report.foreign_pages), (Bytes::kib(4), 4));
    assert!(!rig.bench.needs_reset());
}

#[test]
fn a_reset_empties_the_balloon_and_keeps_the_target() {
    let mut rig = Rig::new();
    rig.balloon.set_target(Bytes::mib(4), Bytes::mib(16)).unwrap();
    rig.list(INFLATE, &frames(1024..2048));
    rig.write_config(4, 1024);
    let report = rig.balloon.report();
    assert_eq!((report.held, report.actual), (Bytes::mib(4), Bytes::mib(4)));
    rig.mark(3000, 7);
    rig.list(INFLATE, &[3000]);
    rig.reset();
    let report = rig.balloon.report();
    assert_eq!((report.held, report.actual, report.target), (Bytes(0), Bytes(0), Bytes::mib(4)));
    rig.activate(Feature::MUST_TELL_HOST, &[true, true]);
    assert_eq!(rig.read_config(0), 1024);
    rig.list(INFLATE, &[2000]);
    rig.wait_until("the new driver is served", |rig| rig.balloon.report().held == Bytes::kib(4));
}

#[test]
fn a_balloon_that_the_guest_may_take_from_is_in_what_it_counts_as_used() {
    for (features, expected) in
        [(Feature::DEFLATE_ON_OOM, Bytes::kib(12)), (Feature::MUST_TELL_HOST, Bytes(0))]
    {
        let mut rig = Rig::with(features, &[true, true]);
        assert_eq!(rig.balloon.counted_as_used(), Bytes(0));
        rig.list(INFLATE, &[2000, 2001, 2002]);
        rig.wait_until("three pages are held", |rig| rig.balloon.report().held == Bytes::kib(12));
        assert_eq!(rig.balloon.counted_as_used(), expected);
        rig.reset();
        assert_eq!(rig.balloon.counted_as_used(), Bytes(0));
    }
}

/// What a driver does next.
#[derive(Clone, Debug)]
enum Step {
    GiveUp(Vec<u32>),
    TakeBack(Vec<u32>),
    Report(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let page = FIRST_PAGE as u32..END_PAGE as u32;
    let scattered = proptest::collection::vec(page.clone(), 1..100);
    let contiguous = (page, 1..800_u32)
        .prop_map(|(first, count)| (first..(first + count).min(END_PAGE as u32)).collect::<Vec<_>>());
    let list = || prop_oneof![scattered.clone(), contiguous.clone()];
    prop_oneof![
        3 => list().prop_map(Step::GiveUp),
        3 => list().prop_map(Step::TakeBack),
        1 => (FIRST_PAGE..END_PAGE, 1..600_u64).prop_map(|(first, count)| Step::Report(first, count)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The driver keeps the rules: it uses a page again only after it was told that it has it, and then writes to it.
    #[test]
    fn a_guest_loses_what_it_gave_up_and_nothing_else(
        steps in proptest::collection::vec(step(), 1..24),
        tells in any::<bool>(),
    ) {
        let features = Feature::ALL & !Feature::POISON;
        let features = if tells { features } else { features & !Feature::MUST_TELL_HOST };
        let mut rig = Rig::with(features, &[true; 5]);
        let mut marks: Vec<u64> = vec![7; END_PAGE as usize];
        let mut held = vec![false; END_PAGE as usize];
        (FIRST_PAGE..END_PAGE).for_each(|page| rig.mark(page, 7));
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::GiveUp(frames) => {
                    let mut frames = frames;
                    frames.retain(|frame| !std::mem::replace(&mut held[*frame as usize], true));
                    frames.iter().for_each(|frame| marks[*frame as usize] = 0);
                    rig.list(INFLATE, &frames);
                }
                Step::TakeBack(mut frames) => {
                    frames.retain(|frame| std::mem::replace(&mut held[*frame as usize], false));
                    rig.list(DEFLATE, &frames);
                    for frame in frames {
                        marks[frame as usize] = 100 + number as u64;
                        rig.mark(frame.into(), marks[frame as usize]);
                    }
                }
                Step::Report(first, count) => {
                    let is_free = |page: &u64| *page < END_PAGE && !held[*page as usize];
                    let count = (first..first + count).take_while(is_free).count() as u64;
                    let head = rig.queues[REPORTS].add(&[(first * PAGE_SIZE, (count * PAGE_SIZE) as u32, WRITE)]);
                    rig.queues[REPORTS].kick();
                    prop_assert_eq!(rig.queues[REPORTS].wait_used(), (head, 0));
                    marks[first as usize..(first + count) as usize].fill(0);
                }
            }
            let pages = held.iter().filter(|held| **held).count() as u64;
            prop_assert_eq!(rig.balloon.report().held, Bytes(pages * PAGE_SIZE));
        }
        let is_right = |rig: &Rig, page: u64| rig.mark_of(page) == marks[page as usize];
        rig.wait_until("pages given up are gone", |rig| {
            (FIRST_PAGE..END_PAGE).all(|page| !held[page as usize] || is_right(rig, page))
        });
        for page in FIRST_PAGE..END_PAGE {
            prop_assert!(is_right(&rig, page), "page {}", page);
        }
        prop_assert_eq!(rig.balloon.report().foreign_pages, 0);
    }
}
