//! Two stock Debian guests share their pages on stock Debian hosts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use napa_lab::{Host, HostKernel, Lab};

use crate::Test;
use crate::guest::{self, GUEST_WAIT};

pub const TESTS: &[Test] = &[
    ("two_debian_guests_of_a_domain_share_pages", |lab| share(lab, HostKernel::V6_12)),
    ("two_debian_guests_share_pages_on_an_old_host", |lab| share(lab, HostKernel::V6_1)),
];

/// The kernel's scanner needs some 30 s for all pages of two guests here.
const MERGE_WAIT: Duration = Duration::from_secs(240);
/// Two guests with the same kernel and programs have at least so many pages in common: 16 MiB.
const MERGED_PAGES_MIN: u64 = 4096;

/// Holds something that no other guest has, and checks it when it is told to.
const SCRIPT: &str =
    "head -c 4000000 /dev/urandom > f; sha256sum f > sum; echo settled; read go; sha256sum -c sum";

fn share(lab: &Lab, kernel: HostKernel) -> Result<()> {
    let host = lab.start(kernel)?;
    let settings = "cd /sys/kernel/mm/ksm; cat run pages_to_scan sleep_millisecs use_zero_pages; cat advisor_mode || true";
    let before = host.shell(settings)?;
    let start = |name| {
        let flags = ["--name", name, "--share", "domain=lab"];
        guest::start(&host, SCRIPT, &flags, "settled")
    };
    let mut jobs = [start("one")?, start("two")?];
    // The scanner's pace is not what is tested.
    host.shell("cd /sys/kernel/mm/ksm; [ ! -e advisor_mode ] || echo none > advisor_mode; echo 20000 > pages_to_scan; echo 1 > sleep_millisecs")?;
    let wait = format!(
        "for pid in $(pidof napa); do until [ $(cat /proc/$pid/ksm_merging_pages) -ge {MERGED_PAGES_MIN} ]; do sleep 1; done; done; \
         scans=$(cat /sys/kernel/mm/ksm/full_scans); until [ $(cat /sys/kernel/mm/ksm/full_scans) -ge $((scans + 3)) ]; do sleep 1; done"
    );
    let merged = host.run_within(&["sh", "-c", &wait], MERGE_WAIT)?;
    ensure!(merged.status == 0, "merging: {}", merged.error_text());
    let figure = host.shell("cat /sys/kernel/mm/ksm/pages_shared /sys/kernel/mm/ksm/pages_sharing; for pid in $(pidof napa); do grep ^Rss /proc/$pid/smaps_rollup; grep ^Pss: /proc/$pid/smaps_rollup; done")?;
    println!(
        "{kernel:?}: shared, sharing, resident: {}",
        figure.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    refuses_others(&host)?;
    for job in &mut jobs {
        job.write(b"go\n")?;
        job.wait_for("f: OK", GUEST_WAIT).context("what a guest holds alone is as it was")?;
    }
    for job in jobs {
        ensure!(job.wait(GUEST_WAIT)?.status == 0, "a guest ended badly");
    }
    let after = host.shell(settings)?;
    ensure!(after == before, "the settings were {before:?} and are {after:?}");
    Ok(())
}

fn refuses_others(host: &Host) -> Result<()> {
    let refused = host.run(&["napa", "run", "--share", "domain=other"])?;
    let said = refused.error_text();
    ensure!(refused.status == 2 && said.contains("trust domain 'lab'"), "{}: {said}", refused.status);
    Ok(())
}
