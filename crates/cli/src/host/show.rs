//! A VM of the host that does not run, for `napa inspect` and `napa status`.

use std::process::ExitCode;

use napa_api::host::VmDetail;

use crate::error::Error;
use crate::output::{self, Table};

/// Shows a VM that has no process to ask.
pub fn inspect_resting(detail: &VmDetail, is_json: bool) -> Result<ExitCode, Error> {
    if is_json {
        return output::print_json(detail);
    }
    let summary = &detail.summary;
    let mut table = Table::new();
    table.row(["name", &summary.name]);
    table.row(["state", summary.state.name()]);
    table.row(["vCPUs", &summary.cpus.to_string()]);
    table.row(["memory", &summary.memory.to_string()]);
    table.row(["reservation", &detail.reservation.to_string()]);
    table.row(["shares", &detail.shares.to_string()]);
    table.row(["restart", summary.restart.name()]);
    table.row(["log", &detail.log.display().to_string()]);
    if let Some(exit) = &summary.exit {
        table.row(["ended", &exit.reason]);
    }
    output::print(table.finish().as_bytes())
}
