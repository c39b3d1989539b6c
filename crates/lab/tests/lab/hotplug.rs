//! A stock guest gets more memory while it runs, uses it, and gives it back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use napa_lab::{Host, HostKernel, Job, Lab};
use serde_json::Value;

use crate::Test;
use crate::guest::{self, GUEST_WAIT};

pub const TESTS: &[Test] = &[
    ("a_stock_guest_plugs_and_unplugs_memory", a_stock_guest_plugs_and_unplugs_memory),
    ("a_guest_that_reboots_has_its_plugged_memory_again", a_guest_that_reboots_has_its_plugged_memory_again),
];

const MIB: u64 = 1 << 20;

fn a_stock_guest_plugs_and_unplugs_memory(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let fill = "mkdir /tmp/m; mount -t tmpfs -o size=300M m /tmp/m; head -c 10000000 /dev/urandom > /tmp/m/0; \
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do cp /tmp/m/0 /tmp/m/$i; done; \
        echo sums $(sha256sum /tmp/m/* | cut -c1-64 | sort -u | wc -l)";
    let total = "echo total $(grep MemTotal /proc/meminfo)";
    let script = format!(
        "echo online_movable > /sys/devices/system/memory/auto_online_blocks; modprobe virtio_mem; {total}; echo ready; \
         read go; {total}; {fill}; echo is filled; read go; umount /tmp/m; echo is freed; read go; {total}; echo is over; read go"
    );
    let flags = ["--name", "vm", "--hotplug-memory", "512M", "--balloon", "no-reporting"];
    let mut job = guest::start(&host, &script, &flags, "ready")?;
    wait_for(&host, "a driver", |report| report["driver"] == "active")?;

    // More than there is, and what is no block.
    for (size, what) in [("1G", "--hotplug-memory 512M"), ("3M", "the next one is 4M")] {
        let refused = host.run_within(&["napa", "plug", "vm", size], GUEST_WAIT)?;
        ensure!(refused.status != 0 && refused.error_text().contains(what), "{}", refused.error_text());
    }
    let before = resident(&host)?;
    host.shell("napa plug vm 256M --no-wait")?;
    wait_for(&host, "256 MiB", |report| report["plugged"] == 256 * MIB)?;
    let report = memory(&host)?;
    ensure!(report["size"] == 512 * MIB && sum(&report["ledger"]) == report["size"].as_u64(), "{report}");
    step(&mut job, "is filled")?;
    let filled = resident(&host)?;
    ensure!(filled > before + 180 * MIB, "{before} bytes before, {filled} with 250 MB more in files");
    step(&mut job, "is freed")?;

    let taken = host.run_within(&["napa", "plug", "vm", "0"], GUEST_WAIT)?;
    if taken.status != 0 {
        // A slow guest may stop for longer than the verb waits; it goes on by itself.
        println!("napa plug vm 0: {}", taken.error_text());
    }
    wait_for(&host, "nothing plugged", |report| report["plugged"] == 0)?;
    let report = memory(&host)?;
    ensure!(report["size"] == 256 * MIB && sum(&report["ledger"]) == report["size"].as_u64(), "{report}");
    let after = resident(&host)?;
    ensure!(after + 120 * MIB < filled, "{filled} bytes when it was full, {after} unplugged");
    step(&mut job, "is over")?;

    let said = job.stdout_after(Duration::ZERO)?;
    ensure!(said.contains("sums 1\r") || said.contains("sums 1\n"), "not all files are the same: {said}");
    let totals = totals(&said)?;
    let [first, more, last] = totals[..] else { anyhow::bail!("no three totals in {said}") };
    ensure!(more > first + 240 * 1024 && last < more - 240 * 1024, "the guest had {totals:?} KiB");
    println!(
        "MemTotal {first}, {more}, {last} KiB; resident {} MiB, {} MiB full, {} MiB unplugged",
        before / MIB,
        filled / MIB,
        after / MIB
    );
    host.shell("napa kill vm")?;
    let output = job.wait(GUEST_WAIT)?;
    ensure!(output.status == 83, "napa ended with {}: {}", output.status, output.error_text());
    Ok(())
}

/// A system reset unplugs everything (VIRTIO 1.3 §5.15.5); what was asked for stands, and the driver plugs it anew.
fn a_guest_that_reboots_has_its_plugged_memory_again(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let total = "echo total $(grep MemTotal /proc/meminfo)";
    let script = format!(
        "echo online_movable > /sys/devices/system/memory/auto_online_blocks; {total}; echo booted; read go; \
         modprobe virtio_mem; echo ready; read go; {total}; echo seen; read go; reboot -f"
    );
    let flags = ["--name", "vm", "--hotplug-memory", "512M"];
    let mut job = guest::start(&host, &script, &flags, "booted")?;
    step(&mut job, "ready")?;
    wait_for(&host, "a driver", |report| report["driver"] == "active")?;
    host.shell("napa plug vm 256M --no-wait")?;
    for boot in 0..2 {
        wait_for(&host, "256 MiB", |report| report["plugged"] == 256 * MIB)?;
        has(&host, 512)?;
        step(&mut job, "seen")?;
        if boot == 0 {
            step(&mut job, "booted")?;
            let report = json(&host, &["napa", "plug", "vm", "--json"])?;
            let expected = (Some(0), Some(256 * MIB));
            ensure!((report["plugged"].as_u64(), report["requested"].as_u64()) == expected, "{report}");
            has(&host, 256)?;
            step(&mut job, "ready")?;
        }
    }
    let said = job.stdout_after(Duration::ZERO)?;
    let totals = totals(&said)?;
    let [first, more, again, more_again] = totals[..] else { anyhow::bail!("no four totals in {said}") };
    ensure!(more > first + 240 * 1024 && more_again > again + 240 * 1024, "the guest had {totals:?} KiB");
    ensure!(first.abs_diff(again) < 8 * 1024, "after the reboot the guest had {totals:?} KiB");
    println!("MemTotal {totals:?} KiB over a reboot");
    host.shell("napa kill vm")?;
    let output = job.wait(GUEST_WAIT)?;
    ensure!(output.status == 83, "napa ended with {}: {}", output.status, output.error_text());
    Ok(())
}

/// The guest has so many MiB, each in one state.
fn has(host: &Host, mib: u64) -> Result<()> {
    let report = memory(host)?;
    let is_so = report["size"] == mib * MIB && sum(&report["ledger"]) == report["size"].as_u64();
    ensure!(is_so, "it should be {mib} MiB: {report}");
    Ok(())
}

/// Lets the guest go on until it says `marker`.
fn step(job: &mut Job, marker: &str) -> Result<()> {
    job.write(b"\n")?;
    job.wait_for(marker, GUEST_WAIT)?;
    Ok(())
}

fn totals(said: &str) -> Result<Vec<u64>> {
    let lines = said.lines().filter_map(|line| line.trim().strip_prefix("total MemTotal:"));
    let number = |rest: &str| rest.split_whitespace().next().and_then(|word| word.parse().ok());
    lines.map(|rest| number(rest).with_context(|| format!("{rest:?} is no size"))).collect()
}

fn json(host: &Host, words: &[&str]) -> Result<Value> {
    let output = host.run_within(words, GUEST_WAIT)?;
    ensure!(output.status == 0, "{words:?}: {}", output.error_text());
    serde_json::from_str(&output.text()).with_context(|| format!("{words:?} is no JSON"))
}

fn memory(host: &Host) -> Result<Value> {
    json(host, &["napa", "inspect", "vm", "--memory", "--json"])
}

/// All parts of a ledger, in bytes.
fn sum(ledger: &Value) -> Option<u64> {
    ledger.as_object()?.values().map(Value::as_u64).sum()
}

/// What the VM's process has in memory.
fn resident(host: &Host) -> Result<u64> {
    let line = host.shell("grep VmRSS /proc/$(pidof napa)/status")?;
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no size in {line:?}"))? << 10)
}

fn wait_for(host: &Host, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
    let until = Instant::now() + GUEST_WAIT;
    loop {
        let report = json(host, &["napa", "plug", "vm", "--json"])?;
        if is_so(&report) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "no {what}: {report}");
        std::thread::sleep(Duration::from_millis(300));
    }
}
