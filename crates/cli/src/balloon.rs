//! `napa balloon`: asks a guest for memory, and shows how its balloon is.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use napa_api::control::{BalloonReport, BalloonStatistics, Command, DeviceState, HintReport, MemoryCommand};
use napa_units::{Bytes, PAGE_SIZE, Pages};

use crate::client::ask;
use crate::command::{JsonArgs, Target};
use crate::error::Error;
use crate::figures;
use crate::following::{Follower, Outcome, Sight};
use crate::output::{self, Table};

/// A guest that comes no nearer to the target for so long has stopped: Linux tries again every fifth of a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// The words of the verb.
#[derive(Args)]
pub struct BalloonArgs {
    #[command(flatten)]
    pub target: Target,
    /// What the guest shall give up: a number and one of K, M, G, T; 0 gives all back [default: show the balloon]
    #[arg(value_name = "SIZE")]
    pub size: Option<Bytes>,
    /// Do not wait until the guest has followed
    #[arg(long, requires = "size")]
    pub no_wait: bool,
    /// Ask the guest which of its memory is free, and take none of it
    #[arg(long, conflicts_with = "size")]
    pub hint: bool,
    #[command(flatten)]
    pub format: JsonArgs,
}

/// Does what the words say.
pub fn balloon(arguments: &BalloonArgs) -> Result<ExitCode, Error> {
    match arguments.size {
        Some(size) => resize(arguments, size),
        None if arguments.hint => hint(arguments),
        None => show(arguments),
    }
}

fn show(arguments: &BalloonArgs) -> Result<ExitCode, Error> {
    let report: BalloonReport = ask(&arguments.target, Command::Memory(MemoryCommand::BalloonStatistics))?;
    match arguments.format.json {
        true => output::print_json(&report),
        false => output::print(describe(&report).as_bytes()),
    }
}

fn hint(arguments: &BalloonArgs) -> Result<ExitCode, Error> {
    let report: HintReport = ask(&arguments.target, Command::Memory(MemoryCommand::BalloonHint))?;
    if arguments.format.json {
        return output::print_json(&report);
    }
    let end = if report.is_complete { "" } else { " so far: it took too long to name the rest" };
    let (hinted, size) = (figures::size(report.hinted), report.size);
    output::print(format!("{}: the guest calls {hinted} of {size} free{end}\n", name(arguments)).as_bytes())
}

fn resize(arguments: &BalloonArgs, size: Bytes) -> Result<ExitCode, Error> {
    if !size.0.is_multiple_of(PAGE_SIZE) {
        let next = Pages::covering(size).bytes();
        return Err(Error::bad_input(format!(
            "SIZE {size} is not a whole number of 4 KiB pages: the next one is {next}"
        )));
    }
    let look = |target| ask(&arguments.target, Command::Memory(MemoryCommand::Balloon { target }));
    let report: BalloonReport = look(Some(size))?;
    let name = name(arguments);
    if arguments.no_wait {
        return finish(arguments, &report, &format!("{name}: the guest was asked to give up {size}"));
    }
    let follower = Follower {
        name: &name,
        patience: PATIENCE,
        look: &|| look(None),
        sight: &|report: &BalloonReport| Sight {
            target: report.target,
            at: report.held,
            driver: report.driver,
        },
        far: &|report| {
            format!("{} in the balloon, on the way to {}", figures::size(report.held), report.target)
        },
    };
    let (outcome, report) = follower.follow(size, report)?;
    let Some(problem) = problem(outcome, &report) else {
        let held = match size {
            Bytes(0) => "the guest has all its memory back".to_owned(),
            size => format!("the guest has given up {size}"),
        };
        return finish(arguments, &report, &format!("{name}: {held}"));
    };
    if arguments.format.json {
        output::print_json(&report)?;
    }
    Err(Error::failure(format!("{name}: {problem}")))
}

fn finish(arguments: &BalloonArgs, report: &BalloonReport, line: &str) -> Result<ExitCode, Error> {
    if arguments.format.json {
        return output::print_json(report);
    }
    let note = match report.driver {
        DeviceState::Active => "",
        DeviceState::Idle => "; no driver in it has taken the balloon, the target stands for when one does",
        DeviceState::NeedsReset => "; its balloon driver does nothing until it resets the device",
    };
    output::print(format!("{line}{note}\n").as_bytes())
}

fn name(arguments: &BalloonArgs) -> String {
    arguments.target.vm.display().to_string()
}

/// What a user is told when the target was not reached.
fn problem(outcome: Outcome, report: &BalloonReport) -> Option<String> {
    let target = report.target;
    let back = "take it back with 'napa balloon VM 0'";
    match outcome {
        Outcome::Waiting | Outcome::Reached => None,
        Outcome::Overtaken => {
            Some(format!("somebody else has asked the guest to give up {target} meanwhile"))
        }
        Outcome::Stopped => Some(format!(
            "the guest has given up {} of {target} and has not moved for {} s; the target stands: {back}",
            figures::size(report.held),
            PATIENCE.as_secs(),
        )),
        Outcome::NoDriver => Some(format!(
            "no driver in the guest has taken the balloon; the target of {target} stands for when one does: {back}"
        )),
        Outcome::NeedsReset => Some(format!(
            "the guest's balloon driver has broken the rules and does nothing until it resets the device; the target of {target} stands: {back}"
        )),
    }
}

fn describe(report: &BalloonReport) -> String {
    let mut table = Table::new();
    let mut size = |name: &str, size: Bytes| table.row([name, &figures::size(size)]);
    size("memory", report.size);
    size("target", report.target);
    size("given up", report.held);
    size("given up, as the guest says", report.actual);
    size("reported free so far", report.reported);
    size("given back to the host so far", report.discarded);
    table.row(["calls for that", &figures::count(report.discards)]);
    let driver = match (report.driver, report.reporting) {
        (DeviceState::Active, true) => "active, reports what it frees",
        (DeviceState::Active, false) => "active, reports nothing",
        (DeviceState::Idle, _) => "none",
        (DeviceState::NeedsReset, _) => "broken: it has to reset the device",
    };
    table.row(["driver", driver]);
    if report.foreign_pages > 0 {
        table.row(["pages that it does not have", &figures::count(report.foreign_pages)]);
    }
    let mut text = table.finish();
    if let Some(statistics) = &report.statistics {
        let age = Duration::from_millis(statistics.age_ms).as_secs_f64();
        write!(text, "\nas the guest said {age:.1} s ago\n{}", describe_statistics(statistics))
            .expect("writing to a String cannot fail");
    }
    text
}

fn describe_statistics(statistics: &BalloonStatistics) -> String {
    let mut table = Table::new();
    for (name, size) in [
        ("total", statistics.total),
        ("free", statistics.free),
        ("available", statistics.available),
        ("caches", statistics.caches),
        ("swapped in", statistics.swap_in),
        ("swapped out", statistics.swap_out),
    ] {
        if let Some(size) = size {
            table.row([name, &figures::size(size)]);
        }
    }
    for (name, count) in [
        ("major faults", statistics.major_faults),
        ("minor faults", statistics.minor_faults),
        ("huge pages allocated", statistics.huge_pages_allocated),
        ("huge pages refused", statistics.huge_pages_refused),
        ("programs killed for memory", statistics.oom_kills),
        ("allocations that waited", statistics.allocation_stalls),
        ("pages scanned in the background", statistics.scanned_in_background),
        ("pages scanned directly", statistics.scanned_directly),
        ("pages reclaimed in the background", statistics.reclaimed_in_background),
        ("pages reclaimed directly", statistics.reclaimed_directly),
    ] {
        if let Some(count) = count {
            table.row([name, &figures::count(count)]);
        }
    }
    table.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(held: Bytes, target: Bytes, driver: DeviceState) -> BalloonReport {
        BalloonReport {
            size: Bytes::mib(512),
            target,
            actual: held,
            held,
            driver,
            reporting: true,
            reported: Bytes(0),
            discarded: held,
            discards: 3,
            foreign_pages: 0,
            statistics: None,
        }
    }

    #[test]
    fn what_a_guest_did_not_say_is_not_shown() {
        let statistics = BalloonStatistics {
            age_ms: 1500,
            total: Some(Bytes::mib(480)),
            oom_kills: Some(1),
            ..BalloonStatistics::default()
        };
        let report = BalloonReport {
            statistics: Some(statistics),
            ..report(Bytes::mib(4), Bytes::mib(4), DeviceState::Active)
        };
        let text = describe(&report);
        let (_, said) = text.split_once("as the guest said 1.5 s ago\n").unwrap();
        let lines: Vec<&str> = said.lines().map(|line| line.split("  ").next().unwrap()).collect();
        assert_eq!(lines, ["total", "programs killed for memory"], "{text}");
    }
}
