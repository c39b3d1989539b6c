//! Stock kernels boot in napa, in every form and on every host.

use anyhow::{Result, ensure};
use napa_lab::{HostKernel, Lab};

use crate::Test;
use crate::guest;

pub const TESTS: &[Test] = &[
    ("a_vmlinux_and_a_bzimage_boot", a_vmlinux_and_a_bzimage_boot),
    ("a_guest_has_the_vcpus_it_is_given", a_guest_has_the_vcpus_it_is_given),
    ("an_old_host_runs_guests", an_old_host_runs_guests),
    ("a_guest_sees_the_devices_it_is_given", a_guest_sees_the_devices_it_is_given),
    ("a_guest_has_the_clock_of_kvm", a_guest_has_the_clock_of_kvm),
];

fn a_vmlinux_and_a_bzimage_boot(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    for kernel in ["/images/vmlinux-6.12", "/images/bzImage-6.12"] {
        let output = guest::run_kernel(&host, kernel, "echo seen: $(uname -r)", &[])?;
        ensure!(output.text().contains("seen: 6.12."), "{kernel} said:\n{}", output.text());
    }
    Ok(())
}

fn a_guest_has_the_vcpus_it_is_given(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    for cpus in ["2", "4"] {
        // Every CPU has to do something, not only to be counted.
        let script = "for cpu in $(seq 0 $(($(nproc) - 1))); do taskset -c $cpu echo cpu $cpu works; done";
        let output = guest::run(&host, script, &["--cpus", cpus])?;
        let working = output.text().matches(" works").count();
        ensure!(working.to_string() == cpus, "{working} of {cpus} CPUs work:\n{}", output.text());
    }
    Ok(())
}

fn an_old_host_runs_guests(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_1)?;
    let output = guest::run(&host, "echo seen: $(uname -r)", &[])?;
    ensure!(output.text().contains("seen: 6.12."), "the guest said:\n{}", output.text());
    Ok(())
}

fn a_guest_sees_the_devices_it_is_given(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    host.shell("truncate -s 5M /tmp/disk; tunctl -t tap0")?;
    let script = "echo size $(cat /sys/block/vda/size); echo serial $(cat /sys/block/vda/serial); \
        echo ro $(cat /sys/block/vda/ro); echo mac $(cat /sys/class/net/eth0/address); \
        echo rng $(cat /sys/class/misc/hw_random/rng_current); head -c 16 /dev/hwrng | wc -c";
    let disk = "path=/tmp/disk,readonly,serial=lab-disk";
    let net = "tap=tap0,mac=52:54:00:12:34:56";
    let text = guest::run(&host, script, &["--disk", disk, "--net", net, "--rng", "on"])?.text();
    for fact in ["size 10240", "serial lab-disk", "ro 1", "mac 52:54:00:12:34:56", "rng virtio_rng", "\n16"] {
        ensure!(text.contains(fact), "the guest does not say {fact:?}:\n{text}");
    }
    Ok(())
}

fn a_guest_has_the_clock_of_kvm(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let script = "cat /sys/devices/system/clocksource/clocksource0/available_clocksource; date +%Y";
    let text = guest::run(&host, script, &[])?.text();
    ensure!(text.contains("kvm-clock"), "no kvm-clock:\n{text}");
    let year = host.shell("date +%Y")?;
    ensure!(text.contains(year.trim()), "the guest's real-time clock is off:\n{text}");
    Ok(())
}
