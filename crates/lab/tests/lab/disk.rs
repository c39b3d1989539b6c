//! What guests write is on the disk, and whole systems start from disks.

use anyhow::{Result, ensure};
use napa_lab::{HostKernel, Lab};

use crate::Test;
use crate::guest::{self, DEBIAN_WAIT};

pub const TESTS: &[Test] = &[
    ("files_are_there_after_power_off", files_are_there_after_power_off),
    ("a_read_only_disk_refuses_writes", a_read_only_disk_refuses_writes),
    ("debian_boots_to_a_login_on_one_vcpu", debian_boots_to_a_login_on_one_vcpu),
    ("debian_boots_to_a_login_on_two_vcpus_and_obeys_the_power_button", debian_on_two_vcpus),
];

fn files_are_there_after_power_off(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    host.shell("truncate -s 64M /images/disk; mke2fs -F /images/disk 2>/dev/null")?;
    for cache in ["writeback", "none"] {
        // The guest ends without unmounting, so only `sync` has brought the data to the disk.
        let script = "mount -t ext4 /dev/vda /mnt && head -c 6000000 /dev/urandom > /mnt/data && \
            sync && echo sum $(sha256sum < /mnt/data)";
        let disk = format!("path=/images/disk,cache={cache}");
        let text = guest::run(&host, script, &["--disk", &disk])?.text();
        host.shell("mkdir -p /run/disk; mount -o loop,ro /images/disk /run/disk")?;
        let sum = guest::sha256(&host, "/run/disk/data")?;
        host.shell("umount /run/disk")?;
        ensure!(text.contains(&format!("sum {sum}")), "cache={cache}: the host reads {sum}:\n{text}");
    }
    Ok(())
}

fn a_read_only_disk_refuses_writes(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    host.shell("head -c 1048576 /dev/urandom > /tmp/disk")?;
    let before = guest::sha256(&host, "/tmp/disk")?;
    let script = "echo sum $(sha256sum < /dev/vda); dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync || echo refused";
    let text = guest::run(&host, script, &["--disk", "path=/tmp/disk,readonly"])?.text();
    ensure!(text.contains("refused") && text.contains(&before), "the guest said:\n{text}");
    ensure!(guest::sha256(&host, "/tmp/disk")? == before, "the read-only disk has changed");
    Ok(())
}

fn debian_boots_to_a_login_on_one_vcpu(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let mut job = guest::log_in_to_debian(&host, "/images/bzImage-6.12", &[])?;
    guest::type_and_expect(&mut job, "echo cpus-$(nproc)", "cpus-1")?;
    guest::type_and_expect(&mut job, "echo pid1-$(cat /proc/1/comm)", "pid1-systemd")?;
    guest::type_and_expect(&mut job, "uname -r > /root/witness; sync; echo writ''ten", "written")?;
    job.write(b"poweroff\n")?;
    let output = job.wait(DEBIAN_WAIT)?;
    ensure!(output.status == 0, "napa ended with code {}:\n{}", output.status, output.error_text());
    let witness = host.shell(
        "mkdir -p /run/disk; mount -o loop,ro /images/debian.ext4 /run/disk; \
        cat /run/disk/root/witness; umount /run/disk",
    )?;
    ensure!(witness.starts_with("6.12."), "the guest's file holds {witness:?}");
    Ok(())
}

fn debian_on_two_vcpus(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let flags = ["--cpus", "2", "--name", "debian", "--stop-timeout", "300"];
    let mut job = guest::log_in_to_debian(&host, "/images/vmlinux-6.12", &flags)?;
    guest::type_and_expect(&mut job, "echo cpus-$(nproc)", "cpus-2")?;
    host.run_within(&["napa", "stop", "debian"], DEBIAN_WAIT)?;
    let output = job.wait(DEBIAN_WAIT)?;
    ensure!(output.status == 0, "napa ended with code {}:\n{}", output.status, output.error_text());
    // An orderly end leaves nothing for the journal to repair.
    let log =
        host.shell("mkdir -p /run/disk; mount -o loop,ro /images/debian.ext4 /run/disk; dmesg | tail -n 5")?;
    ensure!(log.contains("mounted filesystem") && !log.contains("recovery"), "the mount said:\n{log}");
    Ok(())
}
