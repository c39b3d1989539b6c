//! `napa inspect --working-set --method mglru`: how much memory a VM uses, by the generations that the kernel sorts the
//! pages of the VM's control group into.
//!
//! The VM takes no part but for the number of its process and what its guest says; the kernel is asked from here, by root.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use napa_api::control::{Command, MappingReport, MemoryCommand};
use napa_sys::host::Root;
use napa_sys::mglru::{Accessed, Mglru, MglruError};
use napa_units::Bytes;
use serde::Serialize;

use super::working_set::{Said, refuse_paused, wait};
use crate::client;
use crate::command::{InspectArgs, Target};
use crate::error::Error;
use crate::figures;
use crate::output::{self, Table};

/// What was accessed, and what follows.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Aged {
    name: String,
    /// The memory that counts as used: what was accessed, but not more than the guest has and says it uses.
    working_set: Bytes,
    /// What was accessed, the VM's own process included.
    accessed: Bytes,
    /// What the VM's group has in memory.
    in_memory: Bytes,
    /// What the guest says it uses. `None`: it says nothing.
    used_by_guest: Option<Bytes>,
    /// Guest memory.
    size: Bytes,
    interval_ms: u64,
}

/// Whether this user can have a VM's pages aged.
pub fn is_there(target: &Target) -> Result<bool, Error> {
    let root = Root::system();
    // A host without them is not worth a question.
    if Mglru::offered(&root).is_err() {
        return Ok(false);
    }
    let mapping: MappingReport = client::ask(target, Command::Memory(MemoryCommand::Mapping))?;
    Ok(Mglru::of(&root, mapping.pid).is_ok())
}

/// Has pages aged twice with so many seconds in between, and shows what that says.
pub fn show(arguments: &InspectArgs, seconds: u32) -> Result<ExitCode, Error> {
    refuse_paused(&arguments.target)?;
    let mapping: MappingReport = client::ask(&arguments.target, Command::Memory(MemoryCommand::Mapping))?;
    let generations = Mglru::of(&Root::system(), mapping.pid).map_err(refusal)?;
    let begun = generations.begin().map_err(refusal)?;
    let start = Instant::now();
    wait(&format!("waiting for what {} accesses", mapping.name), Duration::from_secs(seconds.into()));
    let accessed = generations.end(&begun).map_err(refusal)?;
    let aged = conclude(mapping, accessed, start.elapsed());
    if arguments.format.json {
        output::print_json(&Said { method: "mglru", found: &aged })
    } else {
        output::print(describe(&aged).as_bytes())
    }
}

fn conclude(mapping: MappingReport, found: Accessed, time: Duration) -> Aged {
    let bound = mapping.used_by_guest.unwrap_or(mapping.size).min(mapping.size);
    Aged {
        name: mapping.name,
        working_set: found.accessed.min(bound),
        accessed: found.accessed,
        in_memory: found.in_memory,
        used_by_guest: mapping.used_by_guest,
        size: mapping.size,
        interval_ms: time.as_millis() as u64,
    }
}

/// Whoever cannot have generations can still have a sample.
fn refusal(error: MglruError) -> Error {
    match error {
        MglruError::Overtaken | MglruError::NoProcess(_) => Error::failure(error),
        _ => Error::bad_input(format!("{error}; --method sampling does without")),
    }
}

fn describe(found: &Aged) -> String {
    let mut table = Table::new();
    let [used, accessed, in_memory, size] =
        [found.working_set, found.accessed, found.in_memory, found.size].map(figures::size);
    table.row(["working set", &format!("{used} of {size} of guest memory")]);
    table.row(["accessed", &format!("{accessed} of {in_memory} in memory, napa's own included")]);
    if let Some(used) = found.used_by_guest {
        table.row(["guest says", &format!("{} in use", figures::size(used))]);
    }
    let seconds = found.interval_ms as f64 / 1000.0;
    table.row(["by", &format!("mglru: the kernel's generations of pages, over {seconds:.1} s")]);
    format!("{}:\n{}", found.name, table.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aged(used_by_guest: Option<Bytes>, accessed: u64) -> Aged {
        let size = Bytes::mib(256);
        let mapping = MappingReport { name: "web".into(), pid: 7, ranges: vec![], size, used_by_guest };
        let found = Accessed { accessed: Bytes::mib(accessed), in_memory: Bytes::mib(258) };
        conclude(mapping, found, Duration::from_millis(5040))
    }

    #[test]
    fn what_was_accessed_comes_with_its_reasons() {
        let expected = "\
web:
working set  60 MiB of 256 MiB of guest memory
accessed     64 MiB of 258 MiB in memory, napa's own included
guest says   60 MiB in use
by           mglru: the kernel's generations of pages, over 5.0 s
";
        assert_eq!(describe(&aged(Some(Bytes::mib(60)), 64)), expected);
    }

    #[test]
    fn it_is_neither_more_than_was_accessed_nor_more_than_the_guest_has() {
        assert_eq!(aged(None, 64).working_set, Bytes::mib(64));
        assert_eq!(aged(Some(Bytes::mib(100)), 64).working_set, Bytes::mib(64));
        assert_eq!(aged(None, 258).working_set, Bytes::mib(256));
    }
}
