//! `napa inspect`: everything that a VM says about itself, and where its memory is.

mod damon;
mod memory;
mod mglru;
mod picture;
mod working_set;

use std::process::ExitCode;

use napa_api::control::{Command, MemoryCommand, MemoryReport, Status};
use serde::Serialize;

use crate::client;
use crate::command::{InspectArgs, Method};
use crate::error::Error;
use crate::host;
use crate::output::{self, Style};
use crate::share;

/// A VM whole.
#[derive(Serialize)]
struct Inspection {
    status: Status,
    memory: MemoryReport,
}

/// Shows a VM, its memory alone, or how much of that it uses.
pub fn inspect(arguments: &InspectArgs) -> Result<ExitCode, Error> {
    if let Some((_, detail)) = client::of_host(&arguments.target)?
        && !detail.summary.state.is_alive()
    {
        return host::inspect_resting(&detail, arguments.format.json);
    }
    if let Some(seconds) = arguments.working_set {
        return match arguments.method {
            None => best(arguments, seconds),
            Some(Method::Mglru) => mglru::show(arguments, seconds),
            Some(Method::Sampling) => working_set::show(arguments, seconds),
            Some(Method::Damon) => damon::show(arguments, seconds),
        };
    }
    let mut memory: MemoryReport = client::ask(&arguments.target, Command::Memory(MemoryCommand::Report))?;
    if memory.sharing.is_on {
        memory.sharing.strangers = share::strangers();
    }
    let style = Style::for_output();
    match (arguments.memory, arguments.format.json) {
        (true, true) => output::print_json(&memory),
        (true, false) => output::print(memory::describe(&memory, style).as_bytes()),
        (false, is_json) => {
            let status = client::ask(&arguments.target, Command::Status)?;
            if is_json {
                output::print_json(&Inspection { status, memory })
            } else {
                let text = format!("{}\n{}", client::describe(&status), memory::describe(&memory, style));
                output::print(text.as_bytes())
            }
        }
    }
}

/// By the best method that disturbs nobody: generations cost the guest nothing and show all of its memory; a sample
/// works everywhere. DAMON is one for the whole host, and only taken when asked for.
fn best(arguments: &InspectArgs, seconds: u32) -> Result<ExitCode, Error> {
    match mglru::is_there(&arguments.target)? {
        true => mglru::show(arguments, seconds),
        false => working_set::show(arguments, seconds),
    }
}
