//! `touch`, `sweep`, `verify`, `zipf`: every page holds a pattern of its number and generation, and every visit checks
//! all of it.
//!
//! Three phases: `fill` writes generation 1 everywhere, `visit` does what the workload is about, `check` looks at all
//! pages once more. Each processor owns a share of the pages, so no page is visited by two.

use super::Ending;
use super::field::{After, Contents, Field, Ledger, PAGE};
use crate::arena::Arena;
use crate::crew::{Worker, run_phase};
use crate::failure::Failure;
use crate::machine::Machine;
use guest_logic::command_line::{Duration, Memory, Order};
use guest_logic::random::Random;
use guest_logic::zipf::{Zipf, scatter};

pub fn run(machine: &Machine, arena: &Arena, work: Memory) -> Result<Ending, Failure> {
    let pages = work.size.div_ceil(PAGE);
    let ledger = Ledger::new(arena, pages)?;
    let pages = arena.pages(pages)?;
    let contents = Contents::Pattern(machine.arguments.seed);
    let field = Field { pages: &pages, ledger: &ledger, contents };
    let ending = phases(machine, arena, &field, work)?;
    ledger.verdict()?;
    Ok(ending)
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
    let mut ending = phase("fill", Duration::OnePass, &|worker| field.fill(worker))?;
    if ending == Ending::Completed {
        let writes = machine.arguments.writes_percent;
        ending = phase("visit", work.duration, &|worker| {
            visit(worker, field, work, writes, machine.arguments.seed)
        })?;
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

fn visit(worker: &Worker, field: &Field, work: Memory, writes_percent: u64, seed: u64) {
    let (first, end) = worker.share(field.pages.pages());
    let count = end - first;
    let mut random = Random::new(seed ^ (worker.index() as u64).rotate_left(32));
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
    while field.visit_all(worker, after) && duration != Duration::OnePass {}
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
