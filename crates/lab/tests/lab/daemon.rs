//! The daemon of a host that has control groups, pressure and swap: a stock Debian.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use napa_lab::{Host, HostKernel, Job, Lab};
use serde_json::Value;

use crate::Test;
use crate::guest::GUEST_WAIT;

pub const TESTS: &[Test] =
    &[("a_daemon_keeps_vms_within_a_budget_and_outlives_its_end", a_daemon_keeps_vms_within_a_budget)];

const NAMES: [&str; 2] = ["one", "two"];
/// What the VMs may hold together; each fills 64 MiB.
const BUDGET: u64 = 96 << 20;
/// What their processes hold beside guest memory, and what is on its way.
const SLACK: u64 = 12 << 20;

fn a_daemon_keeps_vms_within_a_budget(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    host.shell("mkswap /dev/lab/scratch && swapon /dev/lab/scratch")?;
    let daemon = start(&host)?;
    for name in NAMES {
        let words = ["--memory", "96M", "--cmdline", "workload=hold:64M,random report=0", "--start"];
        napa(&host, &[&["create", name][..], &words].concat())?;
        host.shell(&format!("[ -d /sys/fs/cgroup/napa/{name} ]")).context("the VM has no group")?;
    }
    // 128 MiB are filled: what does not fit goes to swap, and nobody ends.
    wait("that the VMs are in their budget", || {
        let (held, swapped) = (sum(&host, "memory.current")?, sum(&host, "memory.swap.current")?);
        Ok((held <= BUDGET + SLACK && swapped >= 16 << 20).then_some((held, swapped)))
    })
    .map(|(held, swapped)| println!("{} MiB held, {} MiB in swap", held >> 20, swapped >> 20))?;

    daemon.signal(9)?;
    daemon.wait(GUEST_WAIT)?;
    let daemon = start(&host)?;
    ensure!(states(&host)? == ["running", "running"], "{:?}", states(&host)?);
    wait("a look at both VMs", || {
        let report: Value = serde_json::from_str(&napa(&host, &["top", "--json"])?)?;
        Ok(report["vms"].as_array().is_some_and(|vms| vms.len() == 2).then_some(()))
    })?;
    for name in NAMES {
        // It looks at all of its pages, many of which come from swap.
        napa(&host, &["stop", name, "--timeout", "120"])?;
        host.shell(&format!("[ ! -e /sys/fs/cgroup/napa/{name} ]")).context("the group outlived its VM")?;
    }
    let list = list(&host)?;
    for vm in list.as_array().context("no list")? {
        ensure!(vm["state"] == "stopped" && vm["exit"]["code"] == 0, "{vm}");
    }
    daemon.signal(15)?;
    let ended = daemon.wait(GUEST_WAIT)?;
    ensure!(ended.status == 0, "the daemon ended with {}: {}", ended.status, ended.error_text());
    Ok(())
}

fn start(host: &Host) -> Result<Job> {
    let budget = format!("{}M", BUDGET >> 20);
    let daemon = host.spawn(&["napa", "host", "--state", "/tmp/state", "--budget", &budget])?;
    wait("an answer of the daemon", || {
        let output = host.run_within(&["napa", "ls"], GUEST_WAIT)?;
        Ok((output.status == 0).then_some(()))
    })?;
    Ok(daemon)
}

/// Runs a verb that succeeds; gives what it says.
fn napa(host: &Host, words: &[&str]) -> Result<String> {
    let output = host.run_within(&[&["napa"][..], words].concat(), GUEST_WAIT)?;
    ensure!(output.status == 0, "napa {words:?} ended with {}: {}", output.status, output.error_text());
    Ok(output.text())
}

fn list(host: &Host) -> Result<Value> {
    Ok(serde_json::from_str(&napa(host, &["ls", "--json"])?)?)
}

fn states(host: &Host) -> Result<Vec<String>> {
    let list = list(host)?;
    let vms = list.as_array().context("no list")?;
    Ok(vms.iter().map(|vm| vm["state"].as_str().unwrap_or_default().to_owned()).collect())
}

/// The sum of a file over the VMs' groups, in bytes.
fn sum(host: &Host, file: &str) -> Result<u64> {
    let files = NAMES.map(|name| format!("/sys/fs/cgroup/napa/{name}/{file}")).join(" ");
    let text = host.shell(&format!("cat {files}"))?;
    text.lines()
        .map(|line| line.trim().parse::<u64>().with_context(|| format!("{file} holds {text:?}")))
        .sum()
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(start.elapsed() < GUEST_WAIT, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(500));
    }
}
