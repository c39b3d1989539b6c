//! Workloads over the disk: what they share is the pump that keeps requests under way.

pub mod latency;
pub mod transfer;
pub mod verify;

use super::Ending;
use crate::arena::Arena;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::report::Reporter;
use crate::virtio::block::{Block, Done, Request};
use crate::{background, clock, timer};
use guest_logic::command_line::{DEPTH_MAX, Duration};
use guest_logic::histogram::Histogram;
use heapless::Vec;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Which requests a workload makes.
pub trait Work {
    /// The next request, for the slot with this buffer. None if there is none before another one is done; if nothing is
    /// under way then, the work is finished.
    fn next(&mut self, slot: usize, buffer: &mut [u8]) -> Option<Request>;

    /// Looks at what a request did.
    fn done(&mut self, done: &Done, buffer: &mut [u8]) -> Result<(), Failure>;
}

/// Keeps as many requests under way as the disk has slots, until the work is finished, the time is over, or a stop is
/// requested; then waits for those under way. `name` is the workload and its phase.
pub fn pump(
    machine: &Machine,
    arena: &Arena,
    block: &mut Block,
    work: &mut dyn Work,
    name: (&'static str, &'static str),
    duration: Duration,
) -> Result<Ending, Failure> {
    let histogram = &arena.slice::<Histogram>(1, 64)?[..];
    let mut reporter = Reporter::new(arena, name.0, name.1, &machine.arguments, histogram)?;
    let deadline_ns = match duration {
        Duration::Seconds(seconds) => {
            reporter.start_ns().saturating_add(seconds.saturating_mul(NS_PER_SECOND))
        }
        Duration::OnePass | Duration::UntilStopped => u64::MAX,
    };
    let mut idle: Vec<usize, { DEPTH_MAX as usize }> = (0..block.slots()).collect();
    let (mut stopped, mut next_tick_ns) = (false, 0);
    loop {
        background::look(clock::now());
        let now = clock::now();
        if now >= next_tick_ns {
            stopped |= next_tick_ns != 0 && reporter.tick(now);
            next_tick_ns = reporter.next_ns();
            // Reports and stop requests must not wait for a disk that hangs.
            timer::once(next_tick_ns.saturating_sub(now));
        }
        if !stopped && now < deadline_ns {
            submit(block, work, &mut idle);
        }
        if idle.len() == block.slots() {
            break;
        }
        if !collect(block, work, &mut idle, histogram)? {
            if machine.arguments.poll { core::hint::spin_loop() } else { block.sleep() }
        }
    }
    timer::stop();
    reporter.finish();
    Ok(if stopped { Ending::Stopped } else { Ending::Completed })
}

/// Gives work to idle slots.
fn submit(block: &mut Block, work: &mut dyn Work, idle: &mut Vec<usize, { DEPTH_MAX as usize }>) {
    while let Some(&slot) = idle.last() {
        let Some(request) = work.next(slot, block.buffer(slot)) else { break };
        block.start(slot, request);
        idle.pop();
    }
    block.notify();
}

/// Takes what is done. False if nothing was.
fn collect(
    block: &mut Block,
    work: &mut dyn Work,
    idle: &mut Vec<usize, { DEPTH_MAX as usize }>,
    histogram: &[Histogram],
) -> Result<bool, Failure> {
    let mut any = false;
    let now = clock::now();
    while let Some(done) = block.take_done()? {
        histogram[0].record(now.saturating_sub(done.start_ns));
        work.done(&done, block.buffer(done.slot))?;
        idle.push(done.slot).expect("a slot is idle once");
        any = true;
    }
    Ok(any)
}
