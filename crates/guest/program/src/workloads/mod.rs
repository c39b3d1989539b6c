//! What the guest can be told to do, one file each, and the loop that does it.

mod ending;
mod idle;
mod memory;
mod spin;

use crate::arena::Arena;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::{power, services};
use guest_logic::command_line::Workload;
use guest_logic::memory_map::FreeMemory;

/// How a workload ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It did all it was told.
    Completed,
    /// The host asked for a stop.
    Stopped,
    /// It asks for this exit code.
    Exit(u8),
}

/// Runs what the command line names, one after the other, until one fails, the host asks for a stop, or all are done.
/// Gives the exit code.
pub fn run_all(machine: &Machine, free: &mut FreeMemory) -> u8 {
    for workload in &machine.arguments.workloads {
        match run(machine, free, workload) {
            Ok(Ending::Completed) => {}
            Ok(Ending::Stopped) => return 0,
            Ok(Ending::Exit(code)) => return code,
            Err(failure) => return failure.report(),
        }
    }
    0
}

fn run(machine: &Machine, free: &mut FreeMemory, workload: &Workload) -> Result<Ending, Failure> {
    let arena = Arena::new(free);
    match *workload {
        Workload::Idle => Ok(idle::run(machine)),
        Workload::Memory(work) => memory::run(machine, &arena, work),
        Workload::Spin { duration } => Ok(spin::run(machine, &arena, duration)?),
        Workload::Exit { code } => Ok(Ending::Exit(code)),
        Workload::Panic => panic!("asked for by the command line"),
        Workload::TripleFault => services::triple_fault(),
        Workload::Reboot => power::reboot(&machine.platform),
        Workload::PowerOff => ending::power_off(machine),
        _ => Ok(Ending::Completed),
    }
}
