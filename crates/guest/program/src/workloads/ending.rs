//! `poweroff`: off by ACPI S5.

use super::Ending;
use crate::clock;
use crate::failure::{CODE_DEVICE, Failure};
use crate::machine::Machine;
use crate::power;

/// How long the machine may take to disappear.
const WAIT_NS: u64 = 2_000_000_000;

pub fn power_off(machine: &Machine) -> Result<Ending, Failure> {
    power::power_off(&machine.platform);
    let start = clock::now();
    while clock::now().saturating_sub(start) < WAIT_NS {
        core::hint::spin_loop();
    }
    let reason = if machine.platform.sleep.is_some() { "had no effect" } else { "is not described by ACPI" };
    Err(Failure::new(CODE_DEVICE, format_args!("power-off by S5 {reason}")))
}
