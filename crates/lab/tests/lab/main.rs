//! Tests on stock Debian hosts. On a machine that lacks what the lab needs they count as ignored, and a line
//! says what.

mod balloon;
mod daemon;
mod disk;
mod guest;
mod hosts;
mod hotplug;
mod kernels;
mod network;
mod pmem;
mod power;
mod reclaim;
mod sharing;
mod swap_failure;
mod vsock;
mod working_set;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use napa_lab::{Lab, Unavailable, with_one_retry_for_lost_hosts};

/// Each host keeps a core busy.
const HOSTS_AT_ONCE_MAX: usize = 2;

/// A test's name and what it does.
type Test = (&'static str, fn(&Lab) -> anyhow::Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let threads = arguments.test_threads.unwrap_or(HOSTS_AT_ONCE_MAX);
    arguments.test_threads = Some(threads.min(HOSTS_AT_ONCE_MAX));
    let tests = [
        daemon::TESTS,
        hosts::TESTS,
        hotplug::TESTS,
        kernels::TESTS,
        disk::TESTS,
        network::TESTS,
        pmem::TESTS,
        power::TESTS,
        reclaim::TESTS,
        sharing::TESTS,
        swap_failure::TESTS,
        vsock::TESTS,
        balloon::TESTS,
        working_set::TESTS,
    ]
    .concat();
    let lab = match if arguments.list { Ok(None) } else { lab() } {
        Ok(lab) => lab.map(Arc::new),
        Err(error) => {
            eprintln!("lab: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trials = tests.into_iter().map(|test| trial(test, lab.clone())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The lab, or nothing on a machine that lacks what it needs.
fn lab() -> anyhow::Result<Option<Lab>> {
    // Programs that do not build are a failure on every machine.
    napa_lab::agent()?;
    napa_lab::napa()?;
    match Lab::open().and_then(|lab| lab.build().map(|()| lab)) {
        Ok(lab) => Ok(Some(lab)),
        Err(error) if Unavailable::behind(&error).is_some() => {
            println!("lab: skipped: {error:#}");
            Ok(None)
        }
        Err(error) => Err(error.context("build the lab")),
    }
}

fn trial((name, test): Test, lab: Option<Arc<Lab>>) -> Trial {
    let is_ignored = lab.is_none();
    let run = move || {
        let lab = lab.ok_or("there is no lab: the reason stands above")?;
        with_one_retry_for_lost_hosts(|| test(&lab)).map_err(|error| Failed::from(format!("{error:#}")))
    };
    Trial::test(name, run).with_ignored_flag(is_ignored)
}
