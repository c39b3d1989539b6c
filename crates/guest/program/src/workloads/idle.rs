//! `idle`: halts. Without `tick=` no timer is set, so that nothing but the host wakes the guest.

use super::Ending;
use crate::machine::Machine;
use crate::{background, clock, interrupts, print_line, stop, timer};

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
