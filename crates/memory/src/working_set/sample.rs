//! Pages that were taken away to see whether they come back.
#![allow(unsafe_code)] // Pages are put into swap by address.

use std::io;
use std::time::{Duration, Instant};

use napa_sys::own_memory::{Pagemap, Run, Seen, SwapAreas};
use napa_units::{Bytes, PAGE_SIZE, Pages};

use super::Estimate;
use crate::ledger::{Random, Sensors};
use crate::{PageStates, Watch};

/// Pages that are taken at most: the estimate is then hardly off by more than a tenth of the guest's memory, and the
/// guest waits for a hundred pages at worst.
pub const TAKEN_MAX: u64 = 100;

/// A huge page has so many pages.
const HUGE_PAGES: u64 = Bytes::mib(2).0 / PAGE_SIZE;

/// Pages that are in swap because they were taken.
#[derive(Debug)]
pub struct Sample {
    /// Their indices, in order.
    taken: Vec<u64>,
    /// Those of them that lay in a huge page, which the kernel has split to take them.
    split: Vec<u64>,
    /// Pages that the guest had in memory.
    resident: Pages,
    /// Pages that it had in swap before any were taken.
    swapped: Pages,
    started: Instant,
}

/// Why no sample can be taken.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// There is nowhere to put pages.
    #[error(
        "pages cannot be taken away to see which come back: the host has no free swap; give it some, see 'napa doctor'"
    )]
    NoSwap,
    /// The guest has nothing in memory.
    #[error("the guest has no page in memory")]
    NothingResident,
    /// None of the chosen pages went away.
    #[error(
        "the kernel put none of {0} pages into swap: all are merged, locked or under I/O; try again later"
    )]
    NothingTaken(u64),
    /// The kernel does not show the guest's pages.
    #[error("the kernel does not show the guest's pages (/proc/self/pagemap): {0}")]
    Unseen(#[source] io::Error),
}

impl Sample {
    /// Takes pages away from a guest; `seed` chooses them.
    ///
    /// # Errors
    /// See [`SampleError`]; some pages may have gone to swap nevertheless, and come back when they are used.
    pub fn take(watch: &Watch, sensors: &Sensors, seed: u64) -> Result<Self, SampleError> {
        let has_room = sensors.swap_areas().iter().any(|area| area.used < area.size);
        if !has_room {
            return Err(SampleError::NoSwap);
        }
        let pages = watch.pages();
        let ledger = watch.look(sensors, seed).map_err(SampleError::Unseen)?.ledger;
        let (resident, swapped) = (ledger.present(), ledger.swapped());
        let mut random = Random(seed);
        let mut ranks: Vec<u64> = match resident.0 {
            0 => return Err(SampleError::NothingResident),
            1..=TAKEN_MAX => (0..resident.0).collect(),
            _ => (0..TAKEN_MAX).map(|_| random.below(resident.0)).collect(),
        };
        ranks.sort_unstable();
        ranks.dedup();
        let mut chosen = present_at(pages, &sensors.pagemap, &ranks).map_err(SampleError::Unseen)?;
        let was_huge = |index: &u64| address_of(pages, *index).is_some_and(|at| sensors.pagemap.is_huge(at));
        let mut split: Vec<u64> = chosen.iter().copied().filter(was_huge).collect();
        shuffle(&mut chosen, &mut random);
        let try_each = |index: &u64| Ok((*index, take_page(pages, &sensors.pagemap, *index)?));
        let tries: io::Result<Vec<_>> = chosen.iter().map(try_each).collect();
        let taken = taken(&tries.map_err(SampleError::Unseen)?);
        if taken.is_empty() {
            return Err(SampleError::NothingTaken(chosen.len() as u64));
        }
        split.retain(|index| taken.contains(index));
        Ok(Self { taken, split, resident, swapped, started: Instant::now() })
    }

    /// How many pages were taken.
    pub fn taken(&self) -> u64 {
        self.taken.len() as u64
    }

    /// Pages that the guest had in memory before.
    pub fn resident(&self) -> Pages {
        self.resident
    }

    /// Pages that the guest had in swap before.
    pub fn swapped(&self) -> Pages {
        self.swapped
    }

    /// How long ago they were taken.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// How many of them have come back.
    ///
    /// # Errors
    /// The kernel does not show the guest's pages.
    pub fn returned(&self, watch: &Watch, sensors: &Sensors) -> Result<u64, SampleError> {
        let mut returned = 0;
        for index in &self.taken {
            let seen = seen_at(watch.pages(), &sensors.pagemap, *index).map_err(SampleError::Unseen)?;
            returned += u64::from(matches!(seen, Seen::Present | Seen::PresentOrZeros | Seen::Zeros));
        }
        Ok(returned)
    }

    /// Has the kernel join the huge pages again that it split for this sample, unless more has become of them since:
    /// memory that was discarded or put into swap stays away.
    ///
    /// # Errors
    /// The kernel does not show the guest's pages.
    pub fn join(&self, watch: &Watch, sensors: &Sensors) -> Result<(), SampleError> {
        let (pages, pagemap) = (watch.pages(), &sensors.pagemap);
        for index in &self.split {
            let Some(first) = block_of(pages, *index) else { continue };
            let block = first..first + HUGE_PAGES;
            let own = self.taken.iter().filter(|taken| block.contains(taken)).count() as u64;
            let (mut present, mut swapped) = (0, 0);
            for (start, count) in pages.host_ranges(block) {
                let mut each = |run: Run| match run.seen {
                    Seen::Present | Seen::PresentOrZeros => present += run.pages,
                    Seen::Swapped(_) => swapped += run.pages,
                    Seen::Absent | Seen::Zeros => {}
                };
                pagemap.look(start, count.0, SwapAreas::Alike, &mut each).map_err(SampleError::Unseen)?;
            }
            if present + swapped == HUGE_PAGES && swapped <= own {
                join(pages, first);
            }
        }
        Ok(())
    }

    /// What follows if so many have come back.
    pub fn estimate(&self, returned: u64) -> Estimate {
        Estimate::of(self.resident, self.taken(), returned).expect("a sample has at least one page")
    }
}

/// The pages in memory that have these ranks among all that are: ascending indices. What left memory meanwhile makes
/// them fewer.
fn present_at(pages: &PageStates, pagemap: &Pagemap, ranks: &[u64]) -> io::Result<Vec<u64>> {
    let mut wanted = ranks.iter().copied().peekable();
    let mut chosen = Vec::with_capacity(ranks.len());
    let mut before = 0;
    for piece in pages.pieces(0..pages.end()) {
        let mut index = piece.index;
        let mut each = |run: Run| {
            if matches!(run.seen, Seen::Present | Seen::PresentOrZeros) {
                while let Some(rank) = wanted.next_if(|rank| *rank < before + run.pages) {
                    chosen.push(index + rank - before);
                }
                before += run.pages;
            }
            index += run.pages;
        };
        pagemap.look(piece.start, piece.count.0, SwapAreas::Alike, &mut each)?;
    }
    Ok(chosen)
}

/// Puts them into an order that says nothing about them.
fn shuffle(indices: &mut [u64], random: &mut Random) {
    for last in (1..indices.len()).rev() {
        indices.swap(last, random.below(last as u64 + 1) as usize);
    }
}

/// What has become of a page directly after it was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Try {
    /// It is in swap.
    Gone,
    /// It is in memory: the guest has had it back at once, or it never went, for want of swap.
    There,
    /// It never went: merged with others, or a part of a huge page that could not be split.
    Refused,
}

fn take_page(pages: &PageStates, pagemap: &Pagemap, index: u64) -> io::Result<Try> {
    page_out(pages, index);
    match (seen_at(pages, pagemap, index)?, address_of(pages, index)) {
        (Seen::Swapped(_), _) => Ok(Try::Gone),
        (Seen::Present, Some(at)) if pagemap.is_own(at)? && !pagemap.is_huge(at) => Ok(Try::There),
        _ => Ok(Try::Refused),
    }
}

/// The pages that were taken. One that is there counts as taken, and has returned already, if a later one went: swap had
/// room for it, so the guest uses it without a pause. Without these the busiest pages would be missing.
fn taken(tries: &[(u64, Try)]) -> Vec<u64> {
    let had_room = tries.iter().rposition(|(_, outcome)| *outcome == Try::Gone).map_or(0, |last| last + 1);
    let counts = |(index, outcome): &(u64, Try)| (*outcome != Try::Refused).then_some(*index);
    let mut taken: Vec<u64> = tries[..had_room].iter().filter_map(counts).collect();
    taken.sort_unstable();
    taken
}

fn seen_at(pages: &PageStates, pagemap: &Pagemap, index: u64) -> io::Result<Seen> {
    let mut seen = Seen::Absent;
    for (start, count) in pages.host_ranges(index..index + 1) {
        pagemap.look(start, count.0, SwapAreas::Alike, &mut |run| seen = run.seen)?;
    }
    Ok(seen)
}

fn address_of(pages: &PageStates, index: u64) -> Option<u64> {
    pages.host_ranges(index..index + 1).first().map(|(start, _)| *start)
}

/// The first page of the huge page that this page lies in. `None`: not all of that is the guest's, in one piece.
fn block_of(pages: &PageStates, index: u64) -> Option<u64> {
    let before = address_of(pages, index)? / PAGE_SIZE % HUGE_PAGES;
    let first = index.checked_sub(before)?;
    let pieces = pages.host_ranges(first..first + HUGE_PAGES);
    (pieces.len() == 1 && pieces[0].1 == Pages(HUGE_PAGES)).then_some(first)
}

/// `MADV_COLLAPSE` of asm-generic/mman-common.h (Linux 6.1).
const MADV_COLLAPSE: libc::c_int = 25;

fn join(pages: &PageStates, first: u64) {
    for (start, count) in pages.host_ranges(first..first + HUGE_PAGES) {
        let bytes = count.bytes().0 as usize;
        // SAFETY: the range lies in RAM, which `pages` keeps mapped; what it holds is moved, and stays the same. A
        // kernel that cannot do it leaves small pages.
        let _refused = unsafe { libc::madvise(start as *mut libc::c_void, bytes, MADV_COLLAPSE) };
    }
}

fn page_out(pages: &PageStates, index: u64) {
    for (start, _) in pages.host_ranges(index..index + 1) {
        // SAFETY: the page lies in RAM, which `pages` keeps mapped; what it holds is kept, in swap.
        let _refused =
            unsafe { libc::madvise(start as *mut libc::c_void, PAGE_SIZE as usize, libc::MADV_PAGEOUT) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use napa_sys::cgroup::GroupFiles;
    use napa_sys::host::Root;
    use napa_units::GuestAddress;
    use vm_memory::Bytes as _;

    use super::*;
    use crate::{RamRegion, allocate};

    fn guest() -> (Watch, Sensors) {
        let low = RamRegion { start: GuestAddress(0), size: Bytes::mib(1) };
        let high = RamRegion { start: GuestAddress(1 << 32), size: Bytes::mib(3) };
        let ram = Arc::new(allocate(&[low, high]).unwrap());
        (
            Watch::new(Arc::new(PageStates::new(ram))),
            Sensors::open(&Root::system(), GroupFiles::default()).unwrap(),
        )
    }

    fn write(watch: &Watch, page: u64) {
        watch.pages().ram().write_obj(page, vm_memory::GuestAddress(page * PAGE_SIZE)).unwrap();
    }

    #[test]
    fn pages_in_memory_are_found_by_their_ranks() {
        let (watch, sensors) = guest();
        let first_high = (1 << 32) / PAGE_SIZE;
        for page in [3, 4, 5, 200, first_high, first_high + 767] {
            write(&watch, page);
        }
        let find = |ranks: &[u64]| present_at(watch.pages(), &sensors.pagemap, ranks).unwrap();
        assert_eq!(find(&[0, 1, 2, 3, 4, 5]), [3, 4, 5, 200, 256, 1023]);
        assert_eq!(find(&[1, 4, 6]), [4, 256]);
        assert!(find(&[]).is_empty());
        let seen = |index| seen_at(watch.pages(), &sensors.pagemap, index).unwrap();
        assert_eq!([2, 3, 1023].map(seen), [Seen::Absent, Seen::Present, Seen::Present]);
    }

    #[test]
    fn pages_that_are_used_come_back_from_swap() {
        let (watch, sensors) = guest();
        for page in 0..250 {
            write(&watch, page);
        }
        let sample = match Sample::take(&watch, &sensors, 7) {
            Err(SampleError::NoSwap) => return println!("skipped: this machine has no swap"),
            sample => sample.unwrap(),
        };
        assert!(sample.taken() <= TAKEN_MAX && sample.resident() <= Pages(250), "{sample:?}");
        // The kernel may have refused some, which look as if they were back.
        let is_there = |page: &u64| seen_at(watch.pages(), &sensors.pagemap, *page).unwrap() == Seen::Present;
        let there: Vec<u64> = sample.taken.iter().copied().filter(is_there).collect();
        // The guest uses two of three pages.
        let used = |page: &u64| !page.is_multiple_of(3);
        for page in (0..250).filter(used) {
            let held: u64 = watch.pages().ram().read_obj(vm_memory::GuestAddress(page * PAGE_SIZE)).unwrap();
            assert_eq!(held, page);
        }
        let is_back = |page: &&u64| used(page) || there.contains(page);
        let expected = sample.taken.iter().filter(is_back).count() as u64;
        let returned = sample.returned(&watch, &sensors).unwrap();
        assert_eq!(returned, expected);
        let estimate = sample.estimate(returned);
        assert!(estimate.low <= Pages(167) && Pages(167) <= estimate.high, "{estimate:?} of {sample:?}");
    }

    #[test]
    fn pages_that_are_back_at_once_count_as_long_as_swap_has_room() {
        use Try::{Gone, Refused, There};
        for (tries, expected) in [
            (&[There, Gone, Refused, There, Gone, There][..], &[0, 1, 3, 4][..]),
            (&[Gone, There, There], &[0]),
            (&[There, Refused, Gone], &[0, 2]),
            (&[There, Refused, There], &[]),
            (&[], &[]),
        ] {
            let tries: Vec<_> = (0..).zip(tries.iter().copied()).collect();
            assert_eq!(taken(&tries), expected, "{tries:?}");
        }
        let mut order: Vec<u64> = (0..100).collect();
        shuffle(&mut order, &mut Random(1));
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn pages_that_are_used_without_a_pause_are_in_the_sample() {
        let (watch, sensors) = guest();
        (0..100).for_each(|page| write(&watch, page));
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    (0..50).for_each(|page| write(&watch, page));
                }
            });
            let outcome = Sample::take(&watch, &sensors, 7);
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            outcome
        });
        let sample = match outcome {
            Err(SampleError::NoSwap) => return println!("skipped: this machine has no swap"),
            sample => sample.unwrap(),
        };
        // Behind the last page that went are, with fifty pages that go, hardly more than a few.
        let busy = sample.taken.iter().filter(|page| **page < 50).count();
        assert!(busy >= 35, "{busy} of 50: {sample:?}");
    }

    #[test]
    fn huge_pages_that_were_split_are_joined_again() {
        let ram = allocate(&[RamRegion { start: GuestAddress(0), size: Bytes::mib(16) }]).unwrap();
        crate::prefer_huge_pages(&ram);
        let watch = Watch::new(Arc::new(PageStates::new(Arc::new(ram))));
        let sensors = Sensors::open(&Root::system(), GroupFiles::default()).unwrap();
        (0..4096).for_each(|page| write(&watch, page));
        let is_huge = |index: u64| sensors.pagemap.is_huge(address_of(watch.pages(), index).unwrap());
        let huge = || (0..4096).filter(|index| is_huge(*index)).count();
        let before = huge();
        if before == 0 {
            return println!("skipped: this kernel gives no huge pages, or does not show them");
        }
        let sample = match Sample::take(&watch, &sensors, 7) {
            Err(SampleError::NoSwap) => return println!("skipped: this machine has no swap"),
            sample => sample.unwrap(),
        };
        assert!(huge() < before && !sample.split.is_empty(), "{sample:?}");
        // A block that the guest gave up a part of meanwhile stays as it is.
        let given_up = sample.split[0] ^ 1;
        watch.pages().discard(napa_units::Gfn(given_up), Pages(1)).unwrap();
        sample.join(&watch, &sensors).unwrap();
        assert!(huge() >= before - 512 && !is_huge(given_up), "{} of {before}", huge());
        for page in (0..4096).filter(|page| *page != given_up) {
            let held: u64 = watch.pages().ram().read_obj(vm_memory::GuestAddress(page * PAGE_SIZE)).unwrap();
            assert_eq!(held, page);
        }
    }
}
