//! The daemon of one machine: it supervises VMs and decides about the host's memory.
//!
//! VMs are processes of their own. If the daemon ends, they run on; when it starts again, it finds and adopts them.

pub mod calls;
pub mod client;
mod clock;
pub mod control;
pub mod daemon;
#[cfg(test)]
mod fixture;
pub mod guests;
pub mod mechanisms;
mod promises;
pub mod record;
pub mod sensors;
pub mod server;
pub mod state;
pub mod supervisor;
pub mod tick;

use std::fmt;
use std::io::Write;

/// Writes a line to standard error, which is the daemon's log.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(std::io::stderr(), "napa host: {line}");
}
