//! `napa features`: what this host's KVM offers, and what a guest would get of it.
//!
//! `offer` asks KVM, `capabilities` and `paravirt` know what the answers mean, `report` shows them.

mod capabilities;
mod offer;
mod paravirt;
mod report;

use std::process::ExitCode;

use napa_sys::host::Root;

use crate::command::JsonArgs;
use crate::error::Error;
use crate::output;

pub use offer::{KvmError, Offer};

/// Shows what KVM offers.
pub fn features(arguments: &JsonArgs) -> Result<ExitCode, Error> {
    let offer = Offer::ask().map_err(Error::failure)?;
    let report = report::Report::new(&offer, &Root::system());
    match arguments.json {
        true => output::print_json(&report),
        false => output::print(report.table().as_bytes()),
    }
}
