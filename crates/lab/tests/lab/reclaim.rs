//! Memory of stock guests goes into a host's swap, by the host's kernel and the VM's control group.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use napa_lab::{Host, HostKernel, Job, Lab};

use crate::Test;
use crate::guest::{self, GUEST_WAIT};

pub const TESTS: &[Test] =
    &[("an_idle_debian_loses_its_memory_to_swap_and_still_answers", an_idle_debian_loses_its_memory_to_swap)];

const SWAP: &[&str] = &["napa", "swap", "create", "--size", "0", "--zram-size", "768M"];
const GROUP: &str = "/sys/fs/cgroup/napa/vm";

/// What the guest has in memory: the group's anonymous memory.
fn resident(host: &Host) -> Result<u64> {
    let text = host.shell(&format!("grep '^anon ' {GROUP}/memory.stat"))?;
    let number = text.trim().strip_prefix("anon ").and_then(|number| number.parse().ok());
    number.with_context(|| format!("memory.stat says {text:?}"))
}

/// What `napa reclaim` says to programs, and its exit code.
fn reclaim(host: &Host, size: &str) -> Result<(String, i32)> {
    let output = host.run_within(&["napa", "reclaim", "vm", size, "--json"], GUEST_WAIT)?;
    Ok((format!("{}{}", output.text(), output.error_text()), output.status))
}

fn make_swap(host: &Host) -> Result<()> {
    let made = host.run_within(SWAP, GUEST_WAIT)?;
    ensure!(made.status == 0, "no swap could be made: {}", made.error_text());
    Ok(())
}

/// Has the guest's control group taken away its memory, page faults answered, and content compared.
fn an_idle_debian_loses_its_memory_to_swap(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    host.shell("modprobe zram num_devices=0")?;
    make_swap(&host)?;
    let flags = ["--name", "vm", "--cgroup", "auto"];
    let mut job = guest::log_in_to_debian(&host, "/images/bzImage-6.12", &flags)?;
    // Anonymous memory and the page cache of a file, of which the guest knows the sums.
    let fill = "mount -t tmpfs none /mnt; head -c 16000000 /dev/urandom > /mnt/a; cat /mnt/a /mnt/a /mnt/a > /mnt/data; \
        sha256sum < /mnt/data > /root/sum; echo fil''led";
    guest::type_and_expect(&mut job, fill, "filled")?;
    let before = resident(&host)?;
    let (said, code) = reclaim(&host, "1G")?;
    ensure!(code == 0 && said.contains("\"control_group\""), "napa reclaim ended with {code}: {said}");
    let after = resident(&host)?;
    ensure!(after * 10 < before * 3, "of {before} bytes {after} are left: {said}");
    guest::type_and_expect(&mut job, "echo al''ive", "alive")?;
    let compare = "[ \"$(sha256sum < /mnt/data)\" = \"$(cat /root/sum)\" ] && echo sa''me";
    guest::type_and_expect(&mut job, compare, "same")?;
    println!("an idle Debian went from {} MiB to {} MiB", before >> 20, after >> 20);
    show_async_page_faults(&mut job)?;
    job.write(b"poweroff\n")?;
    let output = job.wait(guest::DEBIAN_WAIT)?;
    ensure!(output.status == 0, "napa ended with code {}:\n{}", output.status, output.error_text());
    host.shell(&format!("[ ! -e {GROUP} ]")).context("the group outlived its VM")?;
    let removed = host.run_within(&["napa", "swap", "remove"], GUEST_WAIT)?;
    ensure!(removed.status == 0, "napa swap remove: {}", removed.error_text());
    ensure!(host.shell("wc -l < /proc/swaps")?.trim() == "1", "swap is left");
    Ok(())
}

/// What the guest says about page faults that it need not wait for: KVM's interrupt for them is "HYP".
fn show_async_page_faults(job: &mut Job) -> Result<()> {
    guest::type_and_expect(job, "grep HYP: /proc/interrupts; echo loo''ked", "looked")?;
    let said = job.stdout_after(Duration::ZERO)?;
    let line = said.lines().rev().find(|line| line.contains("Hypervisor callback"));
    println!("async page faults in the guest: {}", line.unwrap_or("not counted").trim());
    Ok(())
}
