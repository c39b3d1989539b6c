//! Stock guests give memory back: when they are asked for it, and when they free it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use napa_lab::{Host, HostKernel, Lab};
use serde_json::Value;

use crate::Test;
use crate::guest::{self, GUEST_WAIT};

pub const TESTS: &[Test] = &[
    ("a_stock_guest_follows_its_balloon_target", a_stock_guest_follows_its_balloon_target),
    ("what_a_stock_guest_frees_comes_back_by_itself", what_a_stock_guest_frees_comes_back_by_itself),
];

const MIB: u64 = 1 << 20;
const LOOK: &[&str] = &["napa", "balloon", "vm", "--json"];

fn a_stock_guest_follows_its_balloon_target(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let job = guest::start(&host, "echo ready; read go", &["--name", "vm"], "ready")?;
    let before = wait_for_balloon(&host, "a driver", |report| report["driver"] == "active")?;
    let free_before = statistic(&before, "free")?;
    let total = statistic(&before, "total")?;
    ensure!((160 * MIB..256 * MIB).contains(&total), "the guest says it has {total} bytes: {before}");
    for name in ["available", "caches", "minor_faults", "oom_kills", "allocation_stalls", "scanned_directly"]
    {
        statistic(&before, name)?;
    }
    host.shell("napa balloon vm 96M --no-wait")?;
    let during = wait_for_balloon(&host, "the target", |report| report["held"] == 96 * MIB)?;
    let free = statistic(&during, "free")?;
    ensure!(
        free + 64 * MIB < free_before,
        "{free} of {free_before} bytes are free with 96 MiB in the balloon"
    );
    ensure!(during["foreign_pages"] == 0 && during["driver"] == "active", "{during}");
    // The driver says so after it has done so.
    wait_for_balloon(&host, "the guest's own word", |report| report["actual"] == 96 * MIB)?;
    let hint: Value = json(&host, &["napa", "balloon", "vm", "--hint", "--json"])?;
    ensure!(hint["hinted"].as_u64().is_some_and(|hinted| hinted > 0), "the guest gives no hints: {hint}");
    host.shell("napa balloon vm 0 --no-wait")?;
    let after = wait_for_balloon(&host, "an empty balloon", |report| report["held"] == 0)?;
    ensure!(statistic(&after, "free")? + 32 * MIB > free_before, "{after}, before: {before}");
    end(&host, job)
}

fn what_a_stock_guest_frees_comes_back_by_itself(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let script = "echo ready; read go; dd if=/dev/zero of=/tmp/burst bs=1M count=100; echo is filled; read go; \
                  rm /tmp/burst; echo is freed; read go";
    let mut job = guest::start(&host, script, &["--name", "vm"], "ready")?;
    wait_for_balloon(&host, "a driver that reports", |report| report["reporting"] == true)?;
    let before = resident(&host)?;
    job.write(b"\n")?;
    job.wait_for("is filled", GUEST_WAIT)?;
    let filled = resident(&host)?;
    ensure!(filled > before + 80 * MIB, "{before} bytes before the burst, {filled} after it");
    job.write(b"\n")?;
    job.wait_for("is freed", GUEST_WAIT)?;
    let until = Instant::now() + GUEST_WAIT;
    loop {
        let after = resident(&host)?;
        if after <= before + before / 10 {
            println!("before {} MiB, filled {} MiB, after {} MiB", before / MIB, filled / MIB, after / MIB);
            break;
        }
        let report = json(&host, LOOK)?;
        ensure!(Instant::now() < until, "{before} bytes before, {filled} filled, {after} after: {report}");
        std::thread::sleep(Duration::from_secs(1));
    }
    end(&host, job)
}

fn end(host: &Host, job: napa_lab::Job) -> Result<()> {
    host.shell("napa kill vm")?;
    let output = job.wait(GUEST_WAIT)?;
    ensure!(output.status == 83, "napa ended with {}: {}", output.status, output.error_text());
    Ok(())
}

/// Anonymous memory of the VM's process.
fn resident(host: &Host) -> Result<u64> {
    let line = host.shell("grep RssAnon /proc/$(pidof napa)/status")?;
    let kibibytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("no size in {line:?}"))? << 10)
}

fn json(host: &Host, words: &[&str]) -> Result<Value> {
    let output = host.run(words)?;
    ensure!(output.status == 0, "{words:?}: {}", output.error_text());
    serde_json::from_str(&output.text()).with_context(|| format!("{words:?} said {:?}", output.text()))
}

fn statistic(report: &Value, name: &str) -> Result<u64> {
    report["statistics"][name].as_u64().with_context(|| format!("the guest does not say {name:?}: {report}"))
}

fn wait_for_balloon(host: &Host, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    let until = Instant::now() + GUEST_WAIT;
    while Instant::now() < until {
        let report = json(host, LOOK)?;
        if is_so(&report) {
            return Ok(report);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    bail!("{what} does not come: {}", json(host, LOOK)?)
}
