//! What the guest can be told to do, one file each, and the loop that does it.

mod block;
mod churn;
mod console_echo;
mod ending;
mod field;
mod hello;
mod hold;
mod idle;
mod memory;
mod net;
mod phases;
mod rng;
mod spin;

use crate::arena::{Arena, Memory};
use crate::background;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::pci::{self, FUNCTIONS_MAX, Function};
use crate::{power, services};
use guest_logic::command_line::Workload;
use heapless::Vec;

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
pub fn run_all(machine: &Machine, memory: &'static Memory) -> u8 {
    let mut functions = None;
    if machine.arguments.balloon
        && let Err(failure) = start_balloon(machine, memory, &mut functions)
    {
        return failure.report();
    }
    for workload in &machine.arguments.workloads {
        match run(machine, memory, &mut functions, workload) {
            Ok(Ending::Completed) => {}
            Ok(Ending::Stopped) => return 0,
            Ok(Ending::Exit(code)) => return code,
            Err(failure) => return failure.report(),
        }
    }
    0
}

/// The functions of the PCI bus, once a workload needed them: looking for them takes many exits.
type Functions = Option<Vec<Function, FUNCTIONS_MAX>>;

/// Looks for them if nobody did yet.
fn find(machine: &Machine, memory: &Memory, functions: &mut Functions) -> Result<(), Failure> {
    if functions.is_none() {
        *functions = Some(pci::discover(&machine.platform, &mut memory.permanent())?);
    }
    Ok(())
}

fn start_balloon(
    machine: &Machine,
    memory: &'static Memory,
    functions: &mut Functions,
) -> Result<(), Failure> {
    find(machine, memory, functions)?;
    background::start(memory, functions.as_deref().unwrap_or_default(), &machine.arguments)
}

fn run(
    machine: &Machine,
    memory: &Memory,
    functions: &mut Functions,
    workload: &Workload,
) -> Result<Ending, Failure> {
    if needs_devices(workload) {
        find(machine, memory, functions)?;
    }
    let functions = functions.as_deref().unwrap_or_default();
    let arena = Arena::new(memory);
    match *workload {
        Workload::Hello => Ok(hello::run(functions)),
        Workload::Idle | Workload::Balloon => Ok(idle::run(machine)),
        Workload::Churn { size, duration } => churn::run(machine, &arena, size, duration),
        Workload::Hold { size, content, duration } => hold::run(machine, &arena, size, content, duration),
        Workload::Phases(ref work) => phases::run(machine, &arena, work),
        Workload::Memory(work) => memory::run(machine, &arena, work),
        Workload::Block(work) => block::transfer::run(machine, &arena, functions, work),
        Workload::BlockVerify { size, duration } => {
            block::verify::run(machine, &arena, functions, size, duration)
        }
        Workload::BlockLatency { duration } => block::latency::run(machine, &arena, functions, duration),
        Workload::Spin { duration } => Ok(spin::run(machine, &arena, duration)?),
        Workload::Exit { code } => Ok(Ending::Exit(code)),
        Workload::Panic => panic!("asked for by the command line"),
        Workload::TripleFault => services::triple_fault(),
        Workload::Reboot => power::reboot(&machine.platform),
        Workload::PowerOff => ending::power_off(machine),
        Workload::NetEcho => net::echo::run(machine, &arena, functions),
        Workload::NetPing { address, count } => net::ping::run(machine, &arena, functions, address, count),
        Workload::ConsoleEcho => console_echo::run(&arena, functions),
        Workload::Rng { size } => rng::run(machine, &arena, functions, size),
    }
}

fn needs_devices(workload: &Workload) -> bool {
    matches!(
        workload,
        Workload::Hello
            | Workload::Block(_)
            | Workload::BlockVerify { .. }
            | Workload::BlockLatency { .. }
            | Workload::NetEcho
            | Workload::NetPing { .. }
            | Workload::ConsoleEcho
            | Workload::Rng { .. }
    )
}
