//! `churn`: takes memory, fills it, checks it, frees it, and does so again. What comes back may hold anything; what is
//! written must stay.

use super::Ending;
use super::field::{After, Contents, Field, Ledger, PAGE};
use crate::arena::Arena;
use crate::crew::{Phase, Stopping};
use crate::failure::Failure;
use crate::machine::Machine;
use guest_logic::command_line::Duration;

const NS_PER_MS: u64 = 1_000_000;

pub fn run(machine: &Machine, arena: &Arena, size: u64, duration: Duration) -> Result<Ending, Failure> {
    let count = size.div_ceil(PAGE);
    let ledger = Ledger::new(arena, count)?;
    let phase = Phase::new(machine, arena, ("churn", "cycle"), duration, Stopping::Heeded)?;
    loop {
        cycle(machine, arena, count, &ledger, &phase)?;
        if phase.is_over() {
            break;
        }
        phase.count_cycle();
        // Also after the last one: the host sees the memory free.
        phase.pause(machine.arguments.pause_ms.saturating_mul(NS_PER_MS));
        if duration == Duration::OnePass {
            break;
        }
    }
    let ending = phase.finish();
    ledger.verdict()?;
    Ok(ending)
}

fn cycle(
    machine: &Machine,
    arena: &Arena,
    count: u64,
    ledger: &Ledger,
    phase: &Phase,
) -> Result<(), Failure> {
    let arena = arena.inner();
    let pages = arena.pages(count)?;
    let field = Field { pages: &pages, ledger, contents: Contents::Pattern(machine.arguments.seed) };
    phase.run(&|worker| field.fill(worker));
    // What was cut short is not filled.
    if !phase.is_over() {
        phase.run(&|worker| {
            field.visit_all(worker, After::Leave);
        });
    }
    Ok(())
}
