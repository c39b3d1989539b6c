//! `napa plug`: gives a guest more memory while it runs, and takes it back.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use napa_api::control::{Command, DeviceState, MemoryCommand, PlugReport};
use napa_units::Bytes;

use crate::client::ask;
use crate::command::{JsonArgs, Target};
use crate::error::Error;
use crate::figures;
use crate::following::{Follower, Outcome, Sight};
use crate::output::{self, Table};

/// A guest that comes no nearer for so long has stopped: Linux has to free a whole block of its own, 128 MiB, before any of
/// it is unplugged.
const PATIENCE: Duration = Duration::from_secs(15);

/// The words of the verb.
#[derive(Args)]
pub struct PlugArgs {
    #[command(flatten)]
    pub target: Target,
    /// What the guest shall have besides its --memory: a number and one of K, M, G, T; 0 takes all back [default: show it]
    #[arg(value_name = "SIZE")]
    pub size: Option<Bytes>,
    /// Do not wait until the guest has followed
    #[arg(long, requires = "size")]
    pub no_wait: bool,
    #[command(flatten)]
    pub format: JsonArgs,
}

/// Does what the words say.
pub fn plug(arguments: &PlugArgs) -> Result<ExitCode, Error> {
    let look = |size| ask(&arguments.target, Command::Memory(MemoryCommand::Plug { size }));
    let report: PlugReport = look(arguments.size)?;
    let name = arguments.target.vm.display().to_string();
    let Some(size) = arguments.size else {
        return finish(arguments, &report, &describe(&report));
    };
    if arguments.no_wait {
        let note = driver_note(report.driver);
        return finish(
            arguments,
            &report,
            &format!("{name}: the guest was asked to have {size} plugged{note}\n"),
        );
    }
    let follower = Follower {
        name: &name,
        patience: PATIENCE,
        look: &|| look(None),
        sight: &|report: &PlugReport| Sight {
            target: report.requested,
            at: report.plugged,
            driver: report.driver,
        },
        far: &|report| {
            format!("{} plugged, on the way to {}", figures::size(report.plugged), report.requested)
        },
    };
    let (outcome, report) = follower.follow(size, report)?;
    let Some(problem) = problem(outcome, &report) else {
        return finish(
            arguments,
            &report,
            &format!("{name}: {size} plugged{}\n", driver_note(report.driver)),
        );
    };
    if arguments.format.json {
        output::print_json(&report)?;
    }
    Err(Error::failure(format!("{name}: {problem}")))
}

fn finish(arguments: &PlugArgs, report: &PlugReport, text: &str) -> Result<ExitCode, Error> {
    match arguments.format.json {
        true => output::print_json(report),
        false => output::print(text.as_bytes()),
    }
}

fn driver_note(driver: DeviceState) -> &'static str {
    match driver {
        DeviceState::Active => "",
        DeviceState::Idle => "; no driver in it has taken the device, the target stands for when one does",
        DeviceState::NeedsReset => "; its driver does nothing until it resets the device",
    }
}

/// What a user is told when the target was not reached.
fn problem(outcome: Outcome, report: &PlugReport) -> Option<String> {
    let (plugged, requested) = (figures::size(report.plugged), report.requested);
    match outcome {
        Outcome::Waiting | Outcome::Reached => None,
        Outcome::Overtaken => Some(format!("somebody else has asked for {requested} meanwhile")),
        Outcome::Stopped if report.plugged > requested => Some(format!(
            "{plugged} are still plugged, and the guest has unplugged nothing for {} s: it uses the rest, or cannot move what is \
             there; the target of {requested} stands, and the guest tries again by itself",
            PATIENCE.as_secs(),
        )),
        Outcome::Stopped => Some(format!(
            "{plugged} of {requested} are plugged, and the guest has plugged nothing for {} s; the target stands",
            PATIENCE.as_secs(),
        )),
        Outcome::NoDriver => Some(format!(
            "no driver in the guest has taken the device: load its module virtio_mem; the target of {requested} stands for when \
             one does"
        )),
        Outcome::NeedsReset => Some(format!(
            "the guest's driver has broken the rules, or cannot leave unplugged memory alone, and does nothing until it resets \
             the device; the target of {requested} stands"
        )),
    }
}

fn describe(report: &PlugReport) -> String {
    let mut table = Table::new();
    for (name, size) in [
        ("can be plugged", report.size),
        ("in blocks of", report.block),
        ("asked for", report.requested),
        ("plugged", report.plugged),
    ] {
        table.row([name, &figures::size(size)]);
    }
    let driver = match report.driver {
        DeviceState::Active => "active",
        DeviceState::Idle => "none",
        DeviceState::NeedsReset => "broken: it has to reset the device",
    };
    table.row(["driver", driver]);
    table.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(plugged: Bytes, requested: Bytes) -> PlugReport {
        let (size, block) = (Bytes::gib(1), Bytes::mib(2));
        PlugReport { size, block, requested, plugged, driver: DeviceState::Active }
    }

    #[test]
    fn a_guest_that_stopped_short_is_told_apart_from_one_that_keeps_more() {
        let stopped = |plugged, requested| {
            problem(Outcome::Stopped, &report(Bytes::mib(plugged), Bytes::mib(requested))).unwrap()
        };
        assert!(stopped(10, 100).starts_with("10 MiB of 100M are plugged"), "{}", stopped(10, 100));
        assert!(stopped(128, 0).starts_with("128 MiB are still plugged"), "{}", stopped(128, 0));
        assert_eq!(problem(Outcome::Reached, &report(Bytes(0), Bytes(0))), None);
    }

    #[test]
    fn the_state_is_a_table() {
        let expected = "\
can be plugged  1.0 GiB
in blocks of    2,048 KiB
asked for       256 MiB
plugged         128 MiB
driver          active
";
        assert_eq!(describe(&report(Bytes::mib(128), Bytes::mib(256))), expected);
    }
}
