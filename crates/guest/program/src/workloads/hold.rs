//! `hold`: fills memory, halts until it is stopped or the time is over, and looks then whether all is as it was.

use super::Ending;
use super::field::{After, Contents, Field, Ledger, PAGE};
use crate::arena::Arena;
use crate::crew::{run_last_phase, run_phase};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::{background, clock, seed, stop, timer};
use guest_logic::command_line::{Content, Duration};

const NS_PER_SECOND: u64 = 1_000_000_000;

pub fn run(
    machine: &Machine,
    arena: &Arena,
    size: u64,
    content: Content,
    duration: Duration,
) -> Result<Ending, Failure> {
    let count = size.div_ceil(PAGE);
    let ledger = Ledger::new(arena, count)?;
    let pages = &arena.pages(count)?;
    let contents = match content {
        Content::Identical => Contents::Pattern(machine.arguments.seed),
        Content::Random => Contents::Pattern(seed::unique()),
        Content::Zero => Contents::Zero,
    };
    let field = Field { pages, ledger: &ledger, contents };
    let filled =
        run_phase(machine, arena, ("hold", "fill"), Duration::OnePass, &|worker| field.fill(worker))?;
    if filled == Ending::Stopped {
        return Ok(Ending::Stopped);
    }
    sleep(duration);
    if machine.arguments.rewrite {
        let own = Field { pages, ledger: &ledger, contents: Contents::Pattern(seed::unique()) };
        run_last_phase(machine, arena, ("hold", "rewrite"), &|worker| {
            let (first, end) = worker.share(count);
            for page in first..end {
                worker.operation(|| {
                    field.visit(page, After::Leave);
                    own.write(page);
                });
            }
        })?;
        check(machine, arena, &own)?;
    } else {
        check(machine, arena, &field)?;
    }
    ledger.verdict()?;
    Ok(if stop::requested() { Ending::Stopped } else { Ending::Completed })
}

fn check(machine: &Machine, arena: &Arena, field: &Field) -> Result<(), Failure> {
    run_last_phase(machine, arena, ("hold", "check"), &|worker| {
        field.visit_all(worker, After::Leave);
    })
}

/// Without a number of seconds, no timer is set: nothing but the host wakes the guest.
fn sleep(duration: Duration) {
    let end = match duration {
        Duration::Seconds(seconds) => {
            Some(clock::now().saturating_add(seconds.saturating_mul(NS_PER_SECOND)))
        }
        Duration::OnePass | Duration::UntilStopped => None,
    };
    while !stop::announced() {
        if let Some(end) = end {
            match end.saturating_sub(clock::now()) {
                0 => break,
                ns => timer::once(ns),
            }
        }
        background::halt();
    }
    timer::stop();
}
