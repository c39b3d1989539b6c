//! Tests on stock Debian hosts. On a machine where the lab cannot be built they count as ignored.

mod disk;
mod guest;
mod hosts;
mod kernels;
mod network;
mod power;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use napa_lab::{Lab, with_one_retry_for_lost_hosts};

/// Each host keeps a core busy.
const HOSTS_AT_ONCE_MAX: usize = 2;

/// A test's name and what it does.
type Test = (&'static str, fn(&Lab) -> anyhow::Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let threads = arguments.test_threads.unwrap_or(HOSTS_AT_ONCE_MAX);
    arguments.test_threads = Some(threads.min(HOSTS_AT_ONCE_MAX));
    let tests = [hosts::TESTS, kernels::TESTS, disk::TESTS, network::TESTS, power::TESTS].concat();
    let lab = if arguments.list { None } else { lab() };
    let lab = lab.map(Arc::new);
    let trials = tests.into_iter().map(|test| trial(test, lab.clone())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The lab, unless it cannot be built.
fn lab() -> Option<Lab> {
    let lab = Lab::open().and_then(|lab| lab.build().map(|()| lab));
    lab.inspect_err(|error| println!("lab: skipped: the lab cannot be built: {error:#}")).ok()
}

fn trial((name, test): Test, lab: Option<Arc<Lab>>) -> Trial {
    let is_ignored = lab.is_none();
    let run = move || {
        let lab = lab.ok_or("there is no lab: the reason stands above")?;
        with_one_retry_for_lost_hosts(|| test(&lab)).map_err(|error| Failed::from(format!("{error:#}")))
    };
    Trial::test(name, run).with_ignored_flag(is_ignored)
}
