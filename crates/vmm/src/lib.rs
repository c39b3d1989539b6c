//! One VM: assembled from its configuration, run to its end.
//!
//! Threads: the control thread (the caller's) with the run state, signals and the control socket;
//! one per vCPU; I/O threads once the guest uses a disk or a network card; one for the guest's memory once somebody
//! asks about it.
//!
//! ```text
//!            +---------- resume -----------+
//!            v                             |
//!  start -> Running -- pause --> Pausing -> Paused
//!            |  (vCPUs parked, then I/O drained)
//!            +-- stop --> Stopping -- power off, or the bound passes --> Ending
//!            +-- exit port, panic, triple fault, reset, kill ----------> Ending
//!  Ending (vCPUs end, the last one quietens the devices) -> Over, or after a reset -> Running
//! ```
//!
//! Invariants: the control thread never waits for a vCPU thread, because a vCPU thread may wait for it;
//! whatever ends the VM, the terminal, sockets, locks and taps are put back.

mod assemble;
mod control;
mod control_group;
mod error;
mod events;
mod memory;
mod opened;
mod power;
mod run;
mod sandbox;
mod status;
mod vcpus;

pub use error::RunError;
pub use run::run;
