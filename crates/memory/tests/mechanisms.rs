//! Everything that takes memory from a guest, in random order, while memory is plugged and unplugged and the guest
//! writes: at every moment each page is in exactly one state, and whatever was not given up holds what was written.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use napa_memory::{
    Backing, Blocks, PageOut, PageStates, RamRegion, Sensors, Splitting, Watch, ZeroPages, allocate,
    make_mergeable, take_apart,
};
use napa_sys::cgroup::GroupFiles;
use napa_sys::host::Root;
use napa_units::{Bytes, Gfn, GuestAddress, PAGE_SIZE, Pages};
use proptest::prelude::*;
use vm_memory::Bytes as _;

const RAM: u64 = 4 << 20;
const BLOCK: u64 = 2 << 20;
const BLOCKS: u64 = 4;
const PLUGGABLE: u64 = 1 << 32;
/// Longer than any step takes on a busy machine.
const BOUND: Duration = Duration::from_secs(120);

/// What happens next; numbers are brought into their ranges.
#[derive(Clone, Copy, Debug)]
enum Step {
    Plug(u64),
    Unplug(u64),
    Write { page: u64, count: u64, value: u64 },
    Discard { page: u64, count: u64 },
    GiveZerosBack,
    PageOut(u64),
    Merge,
    TakeApart,
}

fn step() -> impl Strategy<Value = Step> {
    let (page, count) = (0..3 * 1024_u64, 1..400_u64);
    prop_oneof![
        2 => (0..BLOCKS).prop_map(Step::Plug),
        1 => (0..BLOCKS).prop_map(Step::Unplug),
        4 => (page.clone(), count.clone(), 0..3_u64)
            .prop_map(|(page, count, value)| Step::Write { page, count, value }),
        1 => (page, count).prop_map(|(page, count)| Step::Discard { page, count }),
        2 => Just(Step::GiveZerosBack),
        2 => (1..2000_u64).prop_map(Step::PageOut),
        1 => Just(Step::Merge),
        1 => Just(Step::TakeApart),
    ]
}

/// A guest, and what its pages should hold: `None` for those that it does not have.
struct Guest {
    states: Arc<PageStates>,
    model: Vec<Option<u64>>,
}

impl Guest {
    fn new() -> Self {
        let scratch = tempfile::tempfile().unwrap();
        scratch.set_len(BLOCK).unwrap();
        let region = RamRegion { start: GuestAddress(PLUGGABLE), size: Bytes(BLOCKS * BLOCK) };
        let blocks = Blocks::new(region, Bytes(BLOCK), Arc::new(scratch), Backing::HugePages).unwrap();
        let ram = allocate(&[RamRegion { start: GuestAddress(0), size: Bytes(RAM) }]).unwrap();
        let states = Arc::new(PageStates::with_blocks(Arc::new(ram), Arc::new(blocks)).unwrap());
        let mut model = vec![None; states.end() as usize];
        model[..(RAM / PAGE_SIZE) as usize].fill(Some(0));
        Self { states, model }
    }

    fn frame(index: u64) -> u64 {
        let pages = RAM / PAGE_SIZE;
        if index < pages { index } else { PLUGGABLE / PAGE_SIZE + index - pages }
    }

    fn block(&mut self, block: u64) -> &mut [Option<u64>] {
        let first = ((RAM + block * BLOCK) / PAGE_SIZE) as usize;
        &mut self.model[first..first + (BLOCK / PAGE_SIZE) as usize]
    }

    fn value(&self, index: u64) -> u64 {
        self.states.all().read_obj(vm_memory::GuestAddress(Self::frame(index) * PAGE_SIZE)).unwrap()
    }

    fn plug(&mut self, block: u64) {
        if !self.states.blocks().unwrap().is_plugged(block) {
            self.states.forget_block(block);
            self.states.blocks().unwrap().plug(block).unwrap();
            self.block(block).fill(Some(0));
        }
    }

    fn unplug(&mut self, block: u64) {
        self.states.blocks().unwrap().unplug(block).unwrap();
        self.states.forget_block(block);
        self.block(block).fill(None);
    }

    fn write(&mut self, index: u64, value: u64) {
        if self.model[index as usize].is_some() {
            let address = vm_memory::GuestAddress(Self::frame(index) * PAGE_SIZE);
            self.states.all().write_obj(value, address).unwrap();
            self.model[index as usize] = Some(value);
        }
    }

    fn discard(&mut self, index: u64) {
        if self.model[index as usize].is_some() {
            self.states.discard(Gfn(Self::frame(index)), Pages(1)).unwrap();
            self.model[index as usize] = Some(0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn each_page_is_in_one_state_and_holds_what_was_written(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let mut guest = Guest::new();
        let sensors = Arc::new(Sensors::open(&Root::system(), GroupFiles::default()).unwrap());
        let watch = Watch::new(Arc::clone(&guest.states));
        let mut page_out = PageOut::new(Arc::clone(&guest.states), Arc::clone(&sensors));
        // A machine that cannot move pages still has the other mechanisms.
        let mut zeros = ZeroPages::open(&Root::system()).ok();
        for step in steps {
            let until = Instant::now() + BOUND;
            match step {
                Step::Plug(block) => guest.plug(block),
                Step::Unplug(block) => guest.unplug(block),
                Step::Write { page, count, value } => {
                    (page..(page + count).min(guest.states.end())).for_each(|index| guest.write(index, value));
                }
                Step::Discard { page, count } => {
                    (page..(page + count).min(guest.states.end())).for_each(|index| guest.discard(index));
                }
                Step::GiveZerosBack => {
                    if let Some(zeros) = &mut zeros {
                        let (progress, result) = zeros.give_back(&guest.states, Pages(0), until, Splitting::WhereItPays);
                        result.unwrap();
                        prop_assert_eq!(progress.at, Pages(guest.states.end()));
                    }
                }
                Step::PageOut(pages) => {
                    page_out.take(Pages(pages), || Instant::now() < until).unwrap();
                }
                // Whether the kernel has KSM or not, memory holds what it held.
                Step::Merge => drop(make_mergeable(&guest.states)),
                Step::TakeApart => {
                    let (at, result) = take_apart(&guest.states, Pages(0), until);
                    prop_assert!(result.is_err() || at == Pages(guest.states.end()));
                }
            }
            let ledger = watch.look(&sensors, 7).unwrap().ledger;
            let has = guest.model.iter().flatten().count() as u64;
            prop_assert_eq!((ledger.size(), guest.states.count()), (Pages(has), Pages(has)), "after {:?}", step);
        }
        for (index, expected) in (0..).zip(guest.model.clone()) {
            if let Some(expected) = expected {
                prop_assert_eq!(guest.value(index), expected, "page {}", index);
            }
        }
    }
}
