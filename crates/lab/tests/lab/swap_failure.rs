//! Swap that fails: the VM whose memory was there ends with the reason, and others notice nothing.

use anyhow::{Context, Result, ensure};
use napa_lab::{Host, HostKernel, Job, Lab};

use crate::Test;
use crate::guest::GUEST_WAIT;

pub const TESTS: &[Test] =
    &[("a_swap_device_that_fails_ends_only_the_vm_whose_memory_it_had", a_swap_device_that_fails)];

/// An embedded guest that fills memory with content of its own, and checks all of it when it is stopped.
fn hold(host: &Host, name: &str) -> Result<Job> {
    let words = ["--memory", "96M", "--cgroup", "auto", "--cmdline", "workload=hold:64M,random report=0"];
    let mut job = host.spawn(&[&["napa", "run", "--name", name][..], &words].concat())?;
    job.wait_for("phase=fill part=total", GUEST_WAIT)?;
    Ok(job)
}

/// Bytes that a VM has in swap.
fn in_swap(host: &Host, name: &str) -> Result<u64> {
    let text = host.shell(&format!("cat /sys/fs/cgroup/napa/{name}/memory.swap.current"))?;
    text.trim().parse().with_context(|| format!("memory.swap.current holds {text:?}"))
}

/// Output, complaints and exit code of a command about a VM.
fn napa(host: &Host, words: &[&str]) -> Result<(String, String, i32)> {
    let output = host.run_within(&[&["napa"][..], words].concat(), GUEST_WAIT)?;
    Ok((output.text().to_string(), output.error_text().to_string(), output.status))
}

fn a_swap_device_that_fails(lab: &Lab) -> Result<()> {
    let mut host = lab.start(HostKernel::V6_12)?;
    host.shell("mkswap /dev/lab/scratch && swapon /dev/lab/scratch")?;
    let (victim, other) = (hold(&host, "victim")?, hold(&host, "other")?);
    let (said, error, code) = napa(&host, &["reclaim", "victim", "48M"])?;
    ensure!(code == 0, "napa reclaim ended with {code}: {said}{error}");
    let swapped = in_swap(&host, "victim")?;
    ensure!(swapped >= 32 << 20, "only {swapped} bytes are in swap: {said}");
    host.cut_scratch_off()?;

    // Nothing goes out any more: the pages of the other stay where they are, however long somebody tries.
    let reclaim = host.spawn(&["napa", "reclaim", "other", "32M"])?;

    // What is there does not come back. The victim looks for it when it is stopped.
    let (said, error, _) = napa(&host, &["stop", "victim"])?;
    let ended = victim.wait(GUEST_WAIT)?;
    let words = ended.error_text();
    ensure!(ended.status == 84, "the victim ended with {}: {words} ({said}{error})", ended.status);
    ensure!(words.contains("the host has no page for") && words.contains("swap"), "the victim says {words}");
    host.shell("[ ! -e /run/napa/victim.sock ]").context("the victim's socket is left")?;

    // The other has all of its pages.
    drop(reclaim);
    let (said, error, code) = napa(&host, &["stop", "other"])?;
    ensure!(code == 0, "napa stop ended with {code}: {said}{error}");
    let ended = other.wait(GUEST_WAIT)?;
    let words = format!("{}{}", ended.text(), ended.error_text());
    ensure!(ended.status == 0 && words.contains("phase=check part=total"), "code {}: {words}", ended.status);
    ensure!(!words.contains("CORRUPT"), "the other has lost pages: {words}");
    Ok(())
}
