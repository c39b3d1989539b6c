//! `hold`: fills memory, halts until it is stopped or the time is over, and looks then whether all is as it was.

use super::field::{After, Contents, Field, Ledger, PAGE};
use super::{Ending, idle};
use crate::arena::Arena;
use crate::crew::{run_last_phase, run_phase};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::{seed, stop};
use guest_logic::command_line::{Content, Duration};

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
    idle::sleep(duration);
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
