//! `napa inspect --working-set --method damon`: how much memory a VM uses, by the kernel's own watch over accesses.
//!
//! The VM takes no part: it is asked for the addresses of guest memory, and DAMON is set from here, by root.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use napa_api::control::{Command, MappingReport, MemoryCommand};
use napa_memory::Estimate;
use napa_sys::damon::{Accesses, Damon, DamonError};
use napa_sys::host::Root;
use napa_sys::signal::SignalFd;
use napa_units::{Bytes, Pages};
use serde::Serialize;

use super::working_set::{Said, refuse_paused};
use crate::client;
use crate::command::InspectArgs;
use crate::error::Error;
use crate::figures;
use crate::output::{self, Table};

/// What was accessed, and what follows.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Watched {
    name: String,
    /// The memory that counts as used: the estimate, but not more than the guest says it uses.
    working_set: Bytes,
    estimate: Bytes,
    /// The true value is hardly below this (95 % confidence).
    low: Bytes,
    /// The true value is hardly above this.
    high: Bytes,
    /// What the guest says it uses. `None`: it says nothing.
    used_by_guest: Option<Bytes>,
    /// Guest memory, all of which was watched.
    size: Bytes,
    /// Pages that were watched, one of each region.
    watched: u64,
    /// Those of them that were accessed.
    accessed: u64,
    interval_ms: u64,
}

/// Has accesses watched for so many seconds, and shows what that says.
pub fn show(arguments: &InspectArgs, seconds: u32) -> Result<ExitCode, Error> {
    refuse_paused(&arguments.target)?;
    let mapping: MappingReport = client::ask(&arguments.target, Command::Memory(MemoryCommand::Mapping))?;
    // A signal has to wait until DAMON is put back.
    let signals = SignalFd::new(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
        .map_err(|error| Error::failure(format!("cannot collect signals: {error}")))?;
    let watched = watch(mapping, Duration::from_secs(seconds.into()))?;
    if signals.next().is_some() {
        return Err(Error::failure("interrupted; DAMON is as it was before"));
    }
    if arguments.format.json {
        output::print_json(&Said { method: "damon", found: &watched })
    } else {
        output::print(describe(&watched).as_bytes())
    }
}

fn watch(mapping: MappingReport, time: Duration) -> Result<Watched, Error> {
    let mut damon = Damon::claim(&Root::system()).map_err(refusal)?;
    let ranges: Vec<_> = mapping.ranges.iter().map(|range| range.start..range.end).collect();
    output::warn(format_args!(
        "DAMON watches {} for {} s, which cannot be cut short",
        mapping.name,
        time.as_secs()
    ));
    let start = Instant::now();
    let accesses = damon.watch(mapping.pid, &ranges, time).map_err(refusal)?;
    Ok(conclude(mapping, accesses, start.elapsed()))
}

fn conclude(mapping: MappingReport, accesses: Accesses, time: Duration) -> Watched {
    let pages = Pages::covering(accesses.watched);
    let by_regions = Estimate::of(pages, accesses.regions, accesses.accessed_regions);
    let bytes = |of: fn(Estimate) -> Pages| by_regions.map_or(Bytes(0), |estimate| of(estimate).bytes());
    let estimate = accesses.accessed;
    Watched {
        working_set: estimate.min(mapping.used_by_guest.unwrap_or(estimate)),
        estimate,
        // Regions are of about the same size, so the interval is that of their count.
        low: bytes(|estimate| estimate.low).min(estimate),
        high: bytes(|estimate| estimate.high).max(estimate),
        name: mapping.name,
        used_by_guest: mapping.used_by_guest,
        size: mapping.size,
        watched: accesses.regions,
        accessed: accesses.accessed_regions,
        interval_ms: time.as_millis() as u64,
    }
}

/// Whoever cannot have DAMON can still have a sample.
fn refusal(error: DamonError) -> Error {
    let text = format!("{error}; --method sampling does without DAMON");
    match error {
        DamonError::Stopped(_) | DamonError::Incomplete { .. } => Error::failure(error),
        _ => Error::bad_input(text),
    }
}

fn describe(found: &Watched) -> String {
    let mut table = Table::new();
    let [used, size, low, high] = [found.working_set, found.size, found.low, found.high].map(figures::size);
    table.row(["working set", &format!("{used} of {size} of guest memory")]);
    let estimate = figures::size(found.estimate);
    table.row(["accessed", &format!("{estimate} ({low} to {high}, with 95 % confidence)")]);
    if let Some(used) = found.used_by_guest {
        table.row(["guest says", &format!("{} in use", figures::size(used))]);
    }
    let seconds = found.interval_ms as f64 / 1000.0;
    let by =
        format!("DAMON: {} of {} pages were accessed within {seconds:.1} s", found.accessed, found.watched);
    table.row(["by", &by]);
    format!("{}:\n{}", found.name, table.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(used_by_guest: Option<Bytes>) -> Watched {
        let size = Bytes::mib(256);
        let mapping = MappingReport { name: "web".into(), pid: 7, ranges: vec![], size, used_by_guest };
        let accesses =
            Accesses { watched: size, accessed: Bytes::mib(64), regions: 1000, accessed_regions: 250 };
        conclude(mapping, accesses, Duration::from_millis(5040))
    }

    #[test]
    fn what_was_accessed_comes_with_its_interval_and_its_reasons() {
        let expected = "\
web:
working set  60 MiB of 256 MiB of guest memory
accessed     64 MiB (57 MiB to 71 MiB, with 95 % confidence)
guest says   60 MiB in use
by           DAMON: 250 of 1000 pages were accessed within 5.0 s
";
        assert_eq!(describe(&watched(Some(Bytes::mib(60)))), expected);
    }

    #[test]
    fn a_guest_cannot_make_it_more_than_was_accessed() {
        assert_eq!(watched(None).working_set, Bytes::mib(64));
        assert_eq!(watched(Some(Bytes::mib(100))).working_set, Bytes::mib(64));
    }
}
