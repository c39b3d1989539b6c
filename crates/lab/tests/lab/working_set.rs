//! How much memory an embedded guest uses, found by each method, and what its control group tells about it.

use anyhow::{Context, Result, ensure};
use napa_lab::{Host, HostKernel, Job, Lab};
use serde_json::Value;

use crate::Test;
use crate::guest::GUEST_WAIT;

pub const TESTS: &[Test] = &[
    ("each_method_finds_what_a_busy_guest_uses", each_method_finds_what_a_busy_guest_uses),
    ("generations_tell_a_guest_that_works_from_one_that_rests", generations_tell_a_guest_that_works_from_one),
];

const KDAMONDS: &str = "/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds";

/// An embedded guest of 256 MiB, in a control group of its own, that has begun its work.
fn start(host: &Host, workload: &str, begun: &str) -> Result<Job> {
    let cmdline = format!("workload={workload}");
    let flags = ["--name", "vm", "--memory", "256M", "--huge-pages", "off", "--cgroup", "auto"];
    // Who looks for pages of zeros accesses all of them.
    let words = [&["napa", "run", "--share", "off"][..], &flags, &["--cmdline", &cmdline]].concat();
    let mut job = host.spawn(&words)?;
    job.wait_for(begun, GUEST_WAIT)?;
    Ok(job)
}

/// What `napa inspect vm` says to programs.
fn inspect(host: &Host, words: &[&str]) -> Result<Value> {
    let words = [&["napa", "inspect", "vm", "--json"][..], words].concat();
    let output = host.run_within(&words, GUEST_WAIT)?;
    ensure!(output.status == 0, "{words:?} ended with {}: {}", output.status, output.error_text());
    serde_json::from_str(&output.text()).context("napa inspect gives no JSON")
}

fn mebibytes(found: &Value, key: &str) -> Result<u64> {
    let bytes = found[key].as_u64().with_context(|| format!("no {key} in {found}"))?;
    Ok(bytes >> 20)
}

fn kill(host: &Host, job: Job) -> Result<()> {
    let killed = host.run(&["napa", "kill", "vm"])?;
    ensure!(killed.status == 0, "napa kill: {}", killed.error_text());
    let output = job.wait(GUEST_WAIT)?;
    ensure!(!output.text().contains("CORRUPT"), "{}", output.text());
    Ok(())
}

/// The guest reads 64 MiB again and again, in random order. How fast it is depends on the machine, so the bounds are
/// wide; they are far from all of its memory, and from nothing.
fn each_method_finds_what_a_busy_guest_uses(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    host.shell("modprobe zram num_devices=0")?;
    let swap = ["napa", "swap", "create", "--size", "0", "--zram-size", "256M"];
    let made = host.run_within(&swap, GUEST_WAIT)?;
    ensure!(made.status == 0, "no swap could be made: {}", made.error_text());
    let job = start(&host, "verify:64M,0", "phase=visit")?;
    for method in ["damon", "sampling"] {
        let found = inspect(&host, &["--working-set", "20", "--method", method])?;
        println!("{found}");
        ensure!(found["method"] == method, "{found}");
        for key in ["estimate", "working_set"] {
            let size = mebibytes(&found, key)?;
            ensure!((24..=96).contains(&size), "{method} finds {size} MiB of 64: {found}");
        }
        if method == "sampling" {
            let refaulted = found["group"]["refaulted"].as_u64().context("nothing of the group")?;
            ensure!(refaulted > 0, "pages came back, and the group has not seen it: {found}");
            ensure!(found["group"]["stalled_some_us"].is_u64(), "no pressure: {found}");
        }
    }
    ensure!(host.shell(&format!("cat {KDAMONDS}"))?.trim() == "0", "DAMON is not as it was");
    refuse_damon_of_somebody_else(&host)?;
    kill(&host, job)
}

fn refuse_damon_of_somebody_else(host: &Host) -> Result<()> {
    host.shell(&format!("echo 1 > {KDAMONDS}"))?;
    let refused = host.run(&["napa", "inspect", "vm", "--working-set", "1", "--method", "damon"])?;
    let said = refused.error_text();
    ensure!(refused.status == 2 && said.contains("serves somebody else"), "{} {said}", refused.status);
    let left = host.shell(&format!("cat {KDAMONDS}"))?;
    ensure!(left.trim() == "1", "DAMON was taken from somebody else");
    host.shell(&format!("echo 0 > {KDAMONDS}"))?;
    Ok(())
}

fn generations_tell_a_guest_that_works_from_one(lab: &Lab) -> Result<()> {
    let words = ["napa", "inspect", "vm", "--working-set", "1", "--method", "mglru"];
    let refuse = |host: &Host, mend: &str| -> Result<()> {
        let refused = host.run(&words)?;
        let said = refused.error_text();
        ensure!(refused.status == 2 && said.contains(mend), "{} {said}", refused.status);
        Ok(())
    };
    // It has generations, and does not see in them what guests access.
    let host = lab.start(HostKernel::V6_1)?;
    let job = start(&host, "idle", "READY ")?;
    refuse(&host, "Linux 6.12 or newer")?;
    kill(&host, job)?;
    let host = lab.start(HostKernel::V6_12)?;
    let job = start(&host, "touch:128M+verify:32M,0", "workload=verify phase=visit")?;
    refuse(&host, "mount -t debugfs none /sys/kernel/debug")?;
    host.shell("mount -t debugfs none /sys/kernel/debug")?;
    // Nothing is said about the method: there is no swap, and generations disturb nobody.
    let found = inspect(&host, &["--working-set", "20"])?;
    println!("{found}");
    ensure!(found["method"] == "mglru", "{found}");
    let (used, in_memory) = (mebibytes(&found, "working_set")?, mebibytes(&found, "in_memory")?);
    ensure!(in_memory >= 120 && (16..=64).contains(&used), "{used} MiB of {in_memory} are used: {found}");
    kill(&host, job)
}
