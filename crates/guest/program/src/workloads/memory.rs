//! `touch`, `sweep`, `verify`, `zipf`: every page holds a pattern of its number and generation, and every visit checks
//! all of it.
//!
//! Three phases: `fill` writes generation 1 everywhere, `visit` does what the workload is about, `check` looks at all
//! pages once more. Each processor owns a share of the pages, so no page is visited by two.

#![allow(unsafe_code, reason = "visits pages by their addresses")]

use super::Ending;
use crate::arena::Arena;
use crate::crew::{Worker, run_phase};
use crate::failure::{CODE_CORRUPT, Failure};
use crate::machine::Machine;
use crate::print_line;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest_logic::command_line::{Duration, Memory, Order};
use guest_logic::memory_map::PageSet;
use guest_logic::pattern::{self, Page};
use guest_logic::random::Random;
use guest_logic::zipf::{Zipf, scatter};

const PAGE: u64 = 4096;
/// `CORRUPT` lines at most: each costs the host an exit per few bytes.
const LINES_MAX: u64 = 16;

/// The pages and what they should hold.
struct Field<'a> {
    pages: PageSet,
    generations: &'a [AtomicU32],
    seed: u64,
    corrupt: AtomicU64,
}

/// What a visit does after the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Leave,
    Rewrite,
}

pub fn run(machine: &Machine, arena: &Arena, work: Memory) -> Result<Ending, Failure> {
    let pages = work.size.div_ceil(PAGE);
    let generations = arena.slice::<AtomicU32>(pages as usize, 64)?;
    let field = Field {
        pages: arena.pages(pages)?,
        generations,
        seed: machine.arguments.seed,
        corrupt: AtomicU64::new(0),
    };
    let ending = phases(machine, arena, &field, work)?;
    match field.corrupt.load(Ordering::Relaxed) {
        0 => Ok(ending),
        count => Err(Failure::new(
            CODE_CORRUPT,
            format_args!("{count} visits found a page that is not as written"),
        )),
    }
}

fn phases(machine: &Machine, arena: &Arena, field: &Field, work: Memory) -> Result<Ending, Failure> {
    let name = match work.order {
        Order::Touch => "touch",
        Order::Sweep => "sweep",
        Order::Random => "verify",
        Order::Zipf { .. } => "zipf",
    };
    let phase = |phase, duration, work: &(dyn Fn(&Worker) + Sync)| {
        run_phase(machine, arena, (name, phase), duration, work)
    };
    let mut ending = phase("fill", Duration::OnePass, &|worker| fill(worker, field))?;
    if ending == Ending::Completed {
        let writes = machine.arguments.writes_percent;
        ending = phase("visit", work.duration, &|worker| visit(worker, field, work, writes))?;
    }
    // One pass in order has seen every page already.
    let seen = work.duration == Duration::OnePass && matches!(work.order, Order::Touch | Order::Sweep);
    if ending == Ending::Completed && !seen {
        ending = phase("check", Duration::OnePass, &|worker| {
            in_order(worker, field, Duration::OnePass, After::Leave);
        })?;
    }
    Ok(ending)
}

fn fill(worker: &Worker, field: &Field) {
    let (first, end) = worker.share(field.pages.pages());
    for page in first..end {
        if !worker.operation(|| field.write(page)) {
            return;
        }
    }
}

fn visit(worker: &Worker, field: &Field, work: Memory, writes_percent: u64) {
    let (first, end) = worker.share(field.pages.pages());
    let count = end - first;
    let mut random = Random::new(field.seed ^ (worker.index() as u64).rotate_left(32));
    match work.order {
        Order::Touch => in_order(worker, field, work.duration, After::Leave),
        Order::Sweep => in_order(worker, field, work.duration, After::Rewrite),
        Order::Random => {
            let pick = |random: &mut Random| first + random.below(count);
            at_random(worker, field, work.duration, count, writes_percent, &mut random, pick);
        }
        Order::Zipf { theta } => {
            let zipf = Zipf::new(count, theta);
            let pick = |random: &mut Random| first + scatter(zipf.sample(random), count);
            at_random(worker, field, work.duration, count, writes_percent, &mut random, pick);
        }
    }
}

fn in_order(worker: &Worker, field: &Field, duration: Duration, after: After) {
    let (first, end) = worker.share(field.pages.pages());
    if first == end {
        return;
    }
    loop {
        for page in first..end {
            if !worker.operation(|| field.visit(page, after)) {
                return;
            }
        }
        if duration == Duration::OnePass {
            return;
        }
    }
}

fn at_random(
    worker: &Worker,
    field: &Field,
    duration: Duration,
    count: u64,
    writes_percent: u64,
    random: &mut Random,
    pick: impl Fn(&mut Random) -> u64,
) {
    let mut visits = 0;
    while count > 0 && (duration != Duration::OnePass || visits < count) {
        let page = pick(random);
        let after = if random.percent(writes_percent) { After::Rewrite } else { After::Leave };
        if !worker.operation(|| field.visit(page, after)) {
            return;
        }
        visits += 1;
    }
}

impl Field<'_> {
    /// The contents of `page`. The processor that owns the page's share is the only caller for it.
    #[allow(clippy::mut_from_ref, reason = "each page belongs to one processor")]
    fn contents(&self, page: u64) -> &mut Page {
        let address = self.pages.address(page).expect("shares end at the number of pages");
        // The optimiser must not know what was written here before: memory itself is under test.
        let contents = core::hint::black_box(address as *mut Page);
        // SAFETY: a mapped page that the arena handed to this workload alone; no other processor visits it, and no
        // reference to it outlives a visit.
        unsafe { &mut *contents }
    }

    /// Writes the next generation.
    fn write(&self, page: u64) {
        let generation = self.generations[page as usize].load(Ordering::Relaxed).wrapping_add(1);
        self.generations[page as usize].store(generation, Ordering::Relaxed);
        pattern::fill(self.contents(page), pattern::first_word(self.seed, page, generation));
    }

    /// Checks what is there, then goes on as told. A page that is wrong is reported and written anew.
    fn visit(&self, page: u64, after: After) {
        let generation = self.generations[page as usize].load(Ordering::Relaxed);
        let checked = pattern::check(self.contents(page), pattern::first_word(self.seed, page, generation));
        if let Err(mismatch) = checked {
            if self.corrupt.fetch_add(1, Ordering::Relaxed) < LINES_MAX {
                let address = (&raw const self.contents(page)[mismatch.word]) as u64;
                print_line!(
                    "CORRUPT address={address:#x} expected={:#x} found={:#x} page={page} generation={generation}",
                    mismatch.expected,
                    mismatch.found
                );
            }
            self.write(page);
        } else if after == After::Rewrite {
            self.write(page);
        }
    }
}
