//! Guests share an image in memory, and keep no page cache of their own for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use napa_lab::{Host, HostKernel, Lab};

use crate::Test;
use crate::guest;

pub const TESTS: &[Test] =
    &[("two_guests_share_an_image_with_dax_and_cannot_change_it", two_guests_share_an_image)];

/// Random, so that no other file in the host's page cache could be the same.
const DATA_MIB: u64 = 48;

fn two_guests_share_an_image(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    host.shell(&format!(
        "truncate -s 96M /images/image; mke2fs -F -b 4096 /images/image 2>/dev/null; mkdir -p /run/image; \
         mount -o loop /images/image /run/image; head -c {} /dev/urandom > /run/image/data",
        DATA_MIB << 20,
    ))?;
    let sum = guest::sha256(&host, "/run/image/data")?;
    host.shell("umount /run/image; sync; sha256sum < /images/image > /tmp/before")?;
    let script = "until [ -b /dev/pmem0 ]; do usleep 10000; done; mount -t ext4 -o ro,dax /dev/pmem0 /mnt || exit 1; \
        grep pmem0 /proc/mounts; echo sum $(sha256sum < /mnt/data); grep ^Cached: /proc/meminfo; \
        dd if=/dev/zero of=/dev/pmem0 bs=4k count=4 seek=1000 conv=fsync && echo written; echo waiting; sleep 1000";
    let flags = ["--pmem", "path=/images/image"];
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let mut job = guest::start(&host, script, &flags, "waiting")?;
        let text = job.stdout_after(Duration::ZERO)?;
        ensure!(text.contains(&format!("sum {sum}")), "the data is not {sum}:\n{text}");
        ensure!(!text.contains("written"), "the guest was told that what it wrote is safe:\n{text}");
        ensure!(text.contains("dax=always"), "it is not mounted with DAX:\n{text}");
        let cached = number_after(&text, "Cached:")?;
        ensure!(
            cached < DATA_MIB * 1024 / 2,
            "the guest has {cached} KiB in a page cache of its own:\n{text}"
        );
        jobs.push(job);
    }
    for pid in host.shell("pidof napa")?.split_whitespace() {
        let (rss, pss, anonymous) = image_in_memory(&host, pid)?;
        // All data, which two processes share, and nothing else of any size that one of them could have alone.
        ensure!(rss >= DATA_MIB * 1024, "process {pid} maps {rss} KiB of the image");
        ensure!(pss <= rss * 6 / 10, "process {pid} has {pss} of {rss} KiB for itself");
        ensure!(anonymous == 0, "process {pid} has changed {anonymous} KiB of the image");
    }
    drop(jobs);
    host.shell("sha256sum < /images/image | cmp - /tmp/before")?;
    Ok(())
}

/// What `/proc/PID/smaps` says about the image, in KiB: resident, its fair share, copied.
fn image_in_memory(host: &Host, pid: &str) -> Result<(u64, u64, u64)> {
    let smaps = host.shell(&format!("cat /proc/{pid}/smaps"))?;
    let mapping = smaps.split("/images/image").nth(1).context("the image is not mapped")?;
    Ok((number_after(mapping, "Rss:")?, number_after(mapping, "Pss:")?, number_after(mapping, "Anonymous:")?))
}

fn number_after(text: &str, key: &str) -> Result<u64> {
    let word = text.split(key).nth(1).and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).with_context(|| format!("no number after {key} in:\n{text}"))
}
