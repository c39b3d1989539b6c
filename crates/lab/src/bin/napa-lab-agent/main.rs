//! The agent inside a lab host: starts commands that arrive over a virtio serial port, and sends back
//! what they print and how they end.
//!
//! As process 1 it starts itself once more and only collects orphans. The second process serves the port:
//! one thread reads frames, each job has a thread per output and one that waits for its end.

mod job;
mod port;
mod terminal;

use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::{WaitOptions, wait};

fn main() -> Result<()> {
    if std::process::id() == 1 { collect_orphans() } else { port::serve() }
}

/// Ends, and with it the host, when the serving process ends.
fn collect_orphans() -> Result<()> {
    let server = Command::new("/proc/self/exe").spawn().context("start the serving process")?;
    loop {
        let ended = wait(WaitOptions::empty()).context("wait for a child")?;
        if ended.is_some_and(|(pid, _)| pid.as_raw_nonzero().get().unsigned_abs() == server.id()) {
            anyhow::bail!("the serving process ended");
        }
    }
}
