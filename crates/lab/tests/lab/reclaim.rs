//! Memory of stock guests goes into a host's swap, by the host's kernel and the VM's control group.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use napa_lab::{Host, HostKernel, Job, Lab};

use crate::Test;
use crate::guest::{self, GUEST_WAIT};

pub const TESTS: &[Test] = &[
    ("an_idle_debian_loses_its_memory_to_swap_and_still_answers", an_idle_debian_loses_its_memory_to_swap),
    ("the_rules_of_a_vms_group_hold", the_rules_of_a_vms_group_hold),
    ("a_user_gives_a_vm_a_group_with_rules", a_user_gives_a_vm_a_group_with_rules),
];

const SWAP: &[&str] = &["napa", "swap", "create", "--size", "0", "--zram-size", "768M"];
const GROUP: &str = "/sys/fs/cgroup/napa/vm";

/// Bytes that a file of the VM's group names.
fn in_group(host: &Host, file: &str) -> Result<u64> {
    let text = host.shell(&format!("cat {GROUP}/{file}"))?;
    text.trim().parse().with_context(|| format!("{file} holds {text:?}"))
}

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

fn the_rules_of_a_vms_group_hold(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    host.shell("modprobe zram num_devices=0")?;
    make_swap(&host)?;
    let script = "mount -t tmpfs none /mnt; cd /mnt; head -c 16000000 /dev/urandom > a; cat a a a > data; \
        sha256sum data > sum; echo filled; read go; sha256sum -c sum";
    let flags = ["--name", "vm", "--cgroup", "auto", "--swap-max", "16M", "--memory-low", "64M"];
    let job = guest::start(&host, script, &flags, "filled")?;
    for file in ["memory.low", "../memory.low"] {
        ensure!(in_group(&host, file)? == 64 << 20, "{file} was not set");
    }
    let (said, code) = reclaim(&host, "100M")?;
    ensure!(code == 1 && said.contains("\"limit_reached\""), "napa reclaim ended with {code}: {said}");
    let swapped = in_group(&host, "memory.swap.current")?;
    ensure!((8 << 20..=16 << 20).contains(&swapped), "{swapped} bytes are in swap: {said}");
    // Others need memory, and take it from everybody but this group.
    host.shell(&format!("echo max > {GROUP}/memory.swap.max"))?;
    let before = resident(&host)?;
    host.shell(&format!("echo $(({before} + 32 * 1048576)) > {GROUP}/memory.low"))?;
    let other = "mkdir /sys/fs/cgroup/napa/other; echo 0 > /sys/fs/cgroup/napa/other/cgroup.procs; \
        head -c 60000000 /dev/zero > /images/other; sync; echo 32M > /sys/fs/cgroup/napa/memory.reclaim";
    let taken = host.run_within(&["sh", "-c", other], GUEST_WAIT)?;
    ensure!(taken.status == 0, "no memory could be taken from the other: {}", taken.error_text());
    let after = resident(&host)?;
    ensure!(after + (4 << 20) >= before, "{before} bytes became {after} in spite of memory.low");
    job.write(b"\n")?;
    let output = job.wait(GUEST_WAIT)?;
    let said = format!("{}{}", output.text(), output.error_text());
    ensure!(output.status == 0 && said.contains("guest: done with code 0"), "code {}: {said}", output.status);
    // The other keeps their parent, which protects nothing any more.
    host.shell(&format!("[ ! -e {GROUP} ]")).context("the group outlived its VM")?;
    let low = host.shell("cat /sys/fs/cgroup/napa/memory.low")?;
    ensure!(low.trim() == "0", "the parent still protects {low}");
    println!("under pressure {} MiB of {} MiB stayed", after >> 20, before >> 20);
    Ok(())
}

/// A group that belongs to a user, as systemd makes it with `Delegate=yes` and `DelegateSubgroup=main`.
const DELEGATE: &str = "echo user:x:1000:1000::/tmp:/bin/sh >> /etc/passwd; chmod 666 /dev/kvm; \
    cd /sys/fs/cgroup; mkdir unit unit/main; echo 128M > unit/memory.low; \
    chown 1000 unit unit/cgroup.procs unit/cgroup.subtree_control unit/main unit/main/cgroup.procs";

fn a_user_gives_a_vm_a_group_with_rules(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    host.shell(DELEGATE)?;
    let start_in = |group: &str| {
        let napa = "napa run --cgroup unit/vms/web --memory-low 64M --cmdline workload=idle";
        format!("echo 0 > /sys/fs/cgroup/{group}/cgroup.procs; exec su user -c '{napa}'")
    };
    let lows = |groups: &str| host.shell(&format!("cd /sys/fs/cgroup; cat {groups}"));
    // In the group that has to pass the controller on.
    let refused = host.run_within(&["sh", "-c", &start_in("unit")], GUEST_WAIT)?;
    let said = refused.error_text();
    ensure!(refused.status == 2 && said.contains("DelegateSubgroup=main"), "code {}: {said}", refused.status);
    host.shell("[ ! -e /sys/fs/cgroup/unit/vms ]").context("what was refused left a group")?;
    // In one beside the VM's.
    let mut job = host.spawn(&["sh", "-c", &start_in("unit/main")])?;
    job.wait_for("READY ", GUEST_WAIT)?;
    let (kept, set) = (128 << 20, 64 << 20);
    let found = lows("unit/memory.low unit/vms/memory.low unit/vms/web/memory.low")?;
    ensure!(found == format!("{kept}\n{set}\n{set}\n"), "the groups protect {found}");
    host.shell("kill -TERM $(pidof napa)")?;
    let output = job.wait(GUEST_WAIT)?;
    ensure!(output.status == 0, "napa ended with code {}: {}", output.status, output.error_text());
    host.shell("[ ! -e /sys/fs/cgroup/unit/vms ]").context("the groups outlived their VM")?;
    ensure!(lows("unit/memory.low")? == format!("{kept}\n"), "the user's group was changed");
    Ok(())
}
