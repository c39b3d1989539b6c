//! `phases`: holds more memory and less, step by step, and works on a part of it. What it lets go is checked and is free
//! again for the balloon; what it keeps from step to step stays as it is and is checked at the end.
//!
//! Memory is held in layers, one for each amount that any step holds, so that a step drops or adds whole layers:
//!
//! ```text
//!  steps  8M  64M  16M        layers  [ 8M | 16M - 8M | 64M - 16M ]
//! ```

use super::field::{After, Contents, Field, Ledger, PAGE};
use super::{Ending, idle};
use crate::arena::Arena;
use crate::crew::{Phase, Stopping, Worker, run_last_phase, run_phase};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::{seed, stop};
use core::sync::atomic::{AtomicU64, Ordering};
use guest_logic::command_line::{Duration, Phases, Step};
use guest_logic::random::Random;

const NAME: &str = "phases";
const NS_PER_MS: u64 = 1_000_000;

/// Does the steps in order. A stop ends them early; all that is held is checked then too.
pub fn run(machine: &Machine, arena: &Arena, phases: &Phases) -> Result<Ending, Failure> {
    let arguments = &machine.arguments;
    let contents =
        Contents::Mixed { common: arguments.seed, own: seed::unique(), percent: arguments.common_percent };
    let mut course = Course { machine, phases, contents, done: 0, stopped: false };
    course.hold(arena, None)?;
    Ok(if course.stopped { Ending::Stopped } else { Ending::Completed })
}

/// How far the guest is.
struct Course<'a> {
    machine: &'a Machine,
    phases: &'a Phases,
    contents: Contents,
    done: usize,
    stopped: bool,
}

/// Pages that are held, above those of other layers.
struct Layer<'a> {
    field: Field<'a>,
    /// Pages of the layers below.
    first: u64,
    below: Option<&'a Layer<'a>>,
}

impl Layer<'_> {
    /// Pages of this layer and those below.
    fn end(&self) -> u64 {
        self.first + self.field.pages.pages()
    }

    /// Visits a page, counted from that of the lowest layer.
    fn visit(&self, page: u64, after: After) {
        let mut layer = self;
        while page < layer.first {
            layer = layer.below.expect("the lowest layer starts at page 0");
        }
        layer.field.visit(page - layer.first, after);
    }
}

impl Course<'_> {
    fn next(&self) -> Option<Step> {
        if self.stopped { None } else { self.phases.steps().get(self.done).copied() }
    }

    /// Does the steps that hold `layer` and no less. What they hold above it is taken from `arena`.
    fn hold(&mut self, arena: &Arena, layer: Option<&Layer>) -> Result<(), Failure> {
        let held = layer.map_or(0, Layer::end) * PAGE;
        while let Some(step) = self.next() {
            match step.held {
                less if less < held => break,
                more if more > held => self.hold_more(arena, layer, held)?,
                _ => {
                    self.done += 1;
                    self.work(arena, layer.expect("a step holds something"), step)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a layer for as long as steps hold it, and checks it before it is free again.
    fn hold_more(&mut self, arena: &Arena, below: Option<&Layer>, held: u64) -> Result<(), Failure> {
        let machine = self.machine;
        let level = self.phases.level_above(held).expect("the next step holds more");
        let count = (level - held) / PAGE;
        let arena = arena.inner();
        let ledger = Ledger::new(&arena, count)?;
        let pages = arena.pages(count)?;
        let field = Field { pages: &pages, ledger: &ledger, contents: self.contents };
        let layer = Layer { field, first: held / PAGE, below };
        let fill = |worker: &Worker| layer.field.fill(worker);
        if run_phase(machine, &arena, (NAME, "fill"), Duration::OnePass, &fill)? == Ending::Stopped {
            self.stopped = true;
            return Ok(());
        }
        self.hold(&arena, Some(&layer))?;
        run_last_phase(machine, &arena, (NAME, "check"), &|worker| {
            layer.field.visit_all(worker, After::Leave);
        })?;
        ledger.verdict()
    }

    fn work(&mut self, arena: &Arena, layer: &Layer, step: Step) -> Result<(), Failure> {
        if step.hot == 0 {
            idle::sleep(step.duration);
            self.stopped |= stop::requested();
            return Ok(());
        }
        let arguments = &self.machine.arguments;
        let phase = Phase::new(self.machine, arena, (NAME, "work"), step.duration, Stopping::Heeded)?;
        let bursts = AtomicU64::new(0);
        while !phase.is_over() {
            phase.run(&|worker| {
                let seed = arguments.seed ^ bursts.load(Ordering::Relaxed).rotate_left(32);
                burst(worker, layer, step.hot / PAGE, arguments.burst_pages, arguments.writes_percent, seed);
            });
            bursts.fetch_add(1, Ordering::Relaxed);
            if !phase.is_over() {
                phase.count_cycle();
                phase.pause(arguments.pause_ms.saturating_mul(NS_PER_MS));
            }
        }
        self.stopped |= phase.finish() == Ending::Stopped;
        Ok(())
    }
}

/// Visits the worker's share of `visits` pages, at random places of its share of the first `hot` pages.
fn burst(worker: &Worker, layer: &Layer, hot: u64, visits: u64, writes_percent: u64, seed: u64) {
    let (first, end) = worker.share(hot);
    let (first_visit, end_visit) = worker.share(visits);
    if first == end {
        return;
    }
    let mut random = Random::new(seed ^ ((worker.index() as u64 + 1) << 48));
    for _ in first_visit..end_visit {
        let page = first + random.below(end - first);
        let after = if random.percent(writes_percent) { After::Rewrite } else { After::Leave };
        if !worker.operation(|| layer.visit(page, after)) {
            return;
        }
    }
}
