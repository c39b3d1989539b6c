//! `idle`: halts. Without `tick=` no timer is set, so that nothing but the host wakes the guest.

use super::Ending;
use crate::machine::Machine;
use crate::{background, clock, interrupts, print_line, stop, timer};
use guest_logic::command_line::Duration;

const NS_PER_SECOND: u64 = 1_000_000_000;

pub fn run(machine: &Machine) -> Ending {
    match machine.arguments.tick_seconds {
        0 => interrupts::sleep_until(stop::announced),
        seconds => tick(seconds.saturating_mul(NS_PER_SECOND)),
    }
    Ending::Stopped
}

fn tick(period_ns: u64) {
    let mut next = clock::now().saturating_add(period_ns);
    let mut ticks = 0_u64;
    loop {
        let now = clock::now();
        if now >= next {
            ticks += 1;
            print_line!("TICK {ticks} clock_ns={now} clock_steps_back={}", clock::steps_back());
            next = next.saturating_add(period_ns).max(now);
            if stop::ask() {
                break;
            }
        }
        if stop::announced() {
            break;
        }
        timer::once(next.saturating_sub(clock::now()));
        background::halt();
    }
    timer::stop();
}

/// Halts for this time, or until a stop is asked for. Without a number of seconds, no timer is set: nothing but the host
/// wakes the guest.
pub fn sleep(duration: Duration) {
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
