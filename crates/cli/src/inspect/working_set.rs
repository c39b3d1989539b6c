//! `napa inspect --working-set`: how much memory a VM uses, by taking some of it away.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use napa_api::control::{Command, GroupInterval, MemoryCommand, SampleReport, State, Status, WorkingSet};
use serde::Serialize;

use crate::client;
use crate::command::{InspectArgs, Target};
use crate::error::Error;
use crate::figures;
use crate::output::{self, Table};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// What was found, and how.
#[derive(Serialize)]
pub struct Said<'a, T> {
    pub method: &'static str,
    #[serde(flatten)]
    pub found: &'a T,
}

/// Takes a sample over so many seconds, and shows what it says.
pub fn show(arguments: &InspectArgs, seconds: u32) -> Result<ExitCode, Error> {
    let working_set = sample(&arguments.target, Duration::from_secs(seconds.into()))?;
    if arguments.format.json {
        output::print_json(&Said { method: "sampling", found: &working_set })
    } else {
        output::print(describe(&working_set).as_bytes())
    }
}

fn sample(target: &Target, interval: Duration) -> Result<WorkingSet, Error> {
    refuse_paused(target)?;
    let sample: SampleReport = client::ask(target, Command::Memory(MemoryCommand::Sample))?;
    wait(&format!("{} pages were taken; waiting for those that are used", sample.taken), interval);
    client::ask(target, Command::Memory(MemoryCommand::WorkingSet))
}

/// A VM that does not run uses nothing.
pub fn refuse_paused(target: &Target) -> Result<(), Error> {
    let status: Status = client::ask(target, Command::Status)?;
    if status.state == State::Paused {
        return Err(Error::bad_input(format!(
            "{0} is paused and uses no memory; let it run first: napa resume {0}",
            status.name
        )));
    }
    Ok(())
}

/// Waits with a line of progress on a terminal, and a plain line otherwise.
pub fn wait(what: &str, interval: Duration) {
    let mut error = io::stderr().lock();
    if !error.is_terminal() {
        // Whoever has closed standard error misses nothing that counts.
        let _ = writeln!(error, "napa: {what} for {} s", interval.as_secs());
        return thread::sleep(interval);
    }
    let until = Instant::now() + interval;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let _ = write!(error, "\r\x1b[K{what}: {:.0} s left", left.as_secs_f64().ceil());
        let _ = error.flush();
        if left.is_zero() {
            break;
        }
        thread::sleep(left.min(PROGRESS_INTERVAL));
    }
    let _ = write!(error, "\r\x1b[K");
}

fn describe(found: &WorkingSet) -> String {
    let seconds = found.interval_ms as f64 / 1000.0;
    let mut table = Table::new();
    table.row([
        "working set",
        &format!("{} of {} in memory", figures::size(found.working_set), figures::size(found.resident)),
    ]);
    let interval =
        format!("{} to {}, with 95 % confidence", figures::size(found.low), figures::size(found.high));
    table.row(["this sample", &format!("{} ({interval})", figures::size(found.estimate))]);
    if let Some(group) = &found.group {
        table.row(["from swap", &came_back(group)]);
        if let Some(waited) = waited(group, found.interval_ms) {
            table.row(["pressure", &waited]);
        }
    }
    let averages = [found.average_fast, found.average_slow].map(figures::size);
    table.row(["averages", &format!("{} over 10 s, {} over 5 min", averages[0], averages[1])]);
    if let Some(used) = found.used_by_guest {
        table.row(["guest says", &format!("{} in use", figures::size(used))]);
    }
    let by = format!("sampling: {} of {} pages came back within {seconds:.1} s", found.returned, found.taken);
    table.row(["by", &by]);
    format!("{}:\n{}", found.name, table.finish())
}

fn came_back(group: &GroupInterval) -> String {
    let [refaulted, a_second, beyond] =
        [group.refaulted, group.refaulted_per_second, group.beyond_memory].map(figures::size);
    format!("{refaulted} came back to the group ({a_second}/s); {beyond} of the working set was there before")
}

/// `None`: the kernel does not measure it.
fn waited(group: &GroupInterval, interval_ms: u64) -> Option<String> {
    let percent = |stalled_us: u64| stalled_us as f64 / 10.0 / interval_ms.max(1) as f64;
    let (some, full) = (percent(group.stalled_some_us?), percent(group.stalled_full_us?));
    Some(format!("some thread waited for memory {some:.1} % of the time, all {full:.1} %"))
}

#[cfg(test)]
mod tests {
    use napa_units::Bytes;

    use super::*;

    #[test]
    fn an_estimate_comes_with_its_interval_and_its_reasons() {
        let found = WorkingSet {
            name: "web".into(),
            working_set: Bytes::mib(200),
            estimate: Bytes::mib(100),
            low: Bytes::mib(90),
            high: Bytes::mib(120),
            group: Some(GroupInterval {
                refaulted: Bytes::mib(60),
                refaulted_per_second: Bytes::mib(2),
                beyond_memory: Bytes::mib(50),
                stalled_some_us: Some(450_180),
                stalled_full_us: Some(0),
            }),
            average_fast: Bytes::mib(110),
            average_slow: Bytes::mib(200),
            used_by_guest: Some(Bytes::mib(300)),
            resident: Bytes::mib(1024),
            taken: 99,
            returned: 10,
            interval_ms: 30_012,
        };
        let expected = "\
web:
working set  200 MiB of 1.0 GiB in memory
this sample  100 MiB (90 MiB to 120 MiB, with 95 % confidence)
from swap    60 MiB came back to the group (2,048 KiB/s); 50 MiB of the working set was there before
pressure     some thread waited for memory 1.5 % of the time, all 0.0 %
averages     110 MiB over 10 s, 200 MiB over 5 min
guest says   300 MiB in use
by           sampling: 10 of 99 pages came back within 30.0 s
";
        assert_eq!(describe(&found), expected);
    }
}
