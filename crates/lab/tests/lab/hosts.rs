//! The lab itself: hosts, commands in them, files, networks. A failure here is the lab's, not napa's.

use std::time::Duration;

use anyhow::{Result, ensure};
use napa_lab::protocol::TerminalSize;
use napa_lab::{HostKernel, HostOptions, JobError, Lab, Presence, Share};

use crate::Test;
use crate::guest::{self, GUEST_WAIT};

pub const TESTS: &[Test] = &[
    ("a_command_gives_its_output_and_code", a_command_gives_its_output_and_code),
    ("commands_run_side_by_side", commands_run_side_by_side),
    ("a_dropped_command_is_killed", a_dropped_command_is_killed),
    ("a_terminal_has_the_asked_size", a_terminal_has_the_asked_size),
    ("files_travel_both_ways", files_travel_both_ways),
    ("every_host_kernel_has_kvm", every_host_kernel_has_kvm),
    ("hosts_start_with_the_right_time_and_their_own_randomness", hosts_start_with_the_right_time),
    ("two_hosts_reach_each_other", two_hosts_reach_each_other),
    ("a_lost_host_is_told_from_a_failed_command", a_lost_host_is_told_from_a_failed_command),
    ("qemu_boots_a_stock_kernel_in_a_host", qemu_boots_a_stock_kernel_in_a_host),
];

const WAIT: Duration = Duration::from_secs(60);

fn a_command_gives_its_output_and_code(lab: &Lab) -> Result<()> {
    let host = lab.start_with(HostKernel::V6_12, &HostOptions::bare())?;
    for (script, status, stdout, stderr) in [
        ("echo out; echo err >&2; exit 7", 7, "out\n", "err\n"),
        ("kill -TERM $$", 143, "", ""),
        ("sleep 1000 & echo left behind", 0, "left behind\n", ""),
        ("cat", 0, "", ""),
    ] {
        let output = host.run(&["sh", "-c", script])?;
        let found = (output.status, output.text(), output.error_text());
        ensure!(found == (status, stdout.to_owned(), stderr.to_owned()), "`{script}` gave {found:?}");
    }
    let missing = host.run(&["no-such-program"]);
    ensure!(matches!(missing, Err(JobError::NotStarted { .. })), "a missing program gave {missing:?}");
    let slow = host.run_within(&["sleep", "1000"], Duration::from_millis(100));
    ensure!(matches!(slow, Err(JobError::Timeout { .. })), "a slow program gave {slow:?}");
    Ok(())
}

fn commands_run_side_by_side(lab: &Lab) -> Result<()> {
    let host = lab.start_with(HostKernel::V6_12, &HostOptions::bare())?;
    let mut jobs = Vec::new();
    for _ in 0..8 {
        jobs.push(host.spawn(&[
            "sh",
            "-c",
            "echo ready; read word; echo \"got $word\"; yes | head -n 20000",
        ])?);
    }
    // Each waits for its own input, so none can end before all have started.
    jobs.iter_mut().try_for_each(|job| job.wait_for("ready", WAIT))?;
    for (number, job) in jobs.iter().enumerate() {
        job.write(format!("{number}\n").as_bytes())?;
    }
    for (number, job) in jobs.into_iter().enumerate() {
        let output = job.wait(WAIT)?;
        let expected = format!("ready\ngot {number}\n{}", "y\n".repeat(20_000));
        ensure!(output.text() == expected, "job {number} gave {} bytes of output", output.stdout.len());
    }
    Ok(())
}

fn a_dropped_command_is_killed(lab: &Lab) -> Result<()> {
    let host = lab.start_with(HostKernel::V6_12, &HostOptions::bare())?;
    let mut job = host.spawn(&["sh", "-c", "echo $$; sleep 12345 & wait"])?;
    job.wait_for("\n", WAIT)?;
    drop(job);
    host.shell(
        "tries=0; while pidof sleep; do tries=$((tries + 1)); [ $tries -lt 1000 ]; usleep 10000; done",
    )?;
    Ok(())
}

fn a_terminal_has_the_asked_size(lab: &Lab) -> Result<()> {
    let host = lab.start_with(HostKernel::V6_12, &HostOptions::bare())?;
    let size = TerminalSize { rows: 31, columns: 97 };
    let mut job = host.spawn_on_terminal(&["sh", "-c", "stty size; read x; stty size; exit 3"], size)?;
    job.wait_for("31 97", WAIT)?;
    job.input().resize(TerminalSize { rows: 12, columns: 34 })?;
    job.write(b"\n")?;
    job.wait_for("12 34", WAIT)?;
    let status = job.wait(WAIT)?.status;
    ensure!(status == 3, "the command ended with {status}");
    Ok(())
}

fn files_travel_both_ways(lab: &Lab) -> Result<()> {
    let script = "#!/bin/sh\necho from the share\n";
    let share = Share::new().with_bytes("bin/speak", script).with_bytes("data/zeros", vec![0; 20 << 20]);
    let host = lab.start_with(HostKernel::V6_12, &HostOptions { share, ..HostOptions::bare() })?;
    let said = host.shell("speak; wc -c < /share/data/zeros")?;
    ensure!(said == "from the share\n20971520\n", "the share gave {said:?}");
    let content: Vec<u8> = (0..100_000_u32).map(|number| (number.wrapping_mul(number) >> 7) as u8).collect();
    host.put("/tmp/file", &content)?;
    ensure!(host.get("/tmp/file")? == content, "the file came back changed");
    ensure!(host.get("/tmp/none").is_err(), "a file that is not there was read");
    ensure!(host.put("/no/such/folder", b"").is_err(), "a file was put into a folder that is not there");
    Ok(())
}

fn every_host_kernel_has_kvm(lab: &Lab) -> Result<()> {
    for kernel in HostKernel::ALL {
        let host = lab.start_with(kernel, &HostOptions::bare())?;
        let release = host.shell("test -c /dev/kvm; cat /sys/module/kvm_amd/parameters/npt; uname -r")?;
        let expected = format!("\n{}.", kernel.version());
        ensure!(release.contains(&expected) && release.starts_with(['1', 'Y']), "the host says {release}");
    }
    Ok(())
}

fn hosts_start_with_the_right_time(lab: &Lab) -> Result<()> {
    let mut words = Vec::new();
    for _ in 0..2 {
        let host = lab.start_with(HostKernel::V6_12, &HostOptions::bare())?;
        let facts = host.shell("date +%Y-%m-%d; head -c 16 /dev/urandom | xxd -p")?;
        let (date, random) = facts.split_once('\n').unwrap_or_default();
        let today = std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]).output()?;
        let today = String::from_utf8_lossy(&today.stdout).trim().to_owned();
        ensure!(date == today, "the host has the date {date:?}, this machine {today:?}");
        words.push(random.to_owned());
    }
    ensure!(words[0] != words[1] && words[0].len() > 30, "two hosts drew {words:?}");
    Ok(())
}

fn two_hosts_reach_each_other(lab: &Lab) -> Result<()> {
    let [first, second] = lab.start_pair([HostKernel::V6_12, HostKernel::V6_12], &HostOptions::bare())?;
    first.shell("ip addr add 10.9.0.1/24 dev eth0; ip link set eth0 up")?;
    second.shell("ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up")?;
    first.shell("ping -c 3 -w 30 10.9.0.2")?;
    second.shell("ping -c 3 -w 30 10.9.0.1")?;
    Ok(())
}

fn a_lost_host_is_told_from_a_failed_command(lab: &Lab) -> Result<()> {
    let host = lab.start_with(HostKernel::V6_12, &HostOptions::bare())?;
    let job = host.spawn(&["sleep", "1000"])?;
    // The host pulls the plug on itself.
    let plug =
        host.run(&["sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo b > /proc/sysrq-trigger; sleep 1000"]);
    ensure!(matches!(plug, Err(JobError::HostGone(_))), "the last command gave {plug:?}");
    let waiting = job.wait(WAIT);
    ensure!(matches!(waiting, Err(JobError::HostGone(_))), "the waiting command gave {waiting:?}");
    let late = host.run(&["true"]);
    ensure!(matches!(late, Err(JobError::HostGone(_))), "a late command gave {late:?}");
    Ok(())
}

/// The proof that hosts can run guests at all.
fn qemu_boots_a_stock_kernel_in_a_host(lab: &Lab) -> Result<()> {
    let options = HostOptions { images: Presence::Present, ..HostOptions::bare() };
    let host = lab.start_with(HostKernel::V6_12, &options)?;
    let script = "q=/images/qemu; exec $q/usr/lib64/ld-linux-x86-64.so.2 --inhibit-cache \
        --library-path $q/usr/lib/x86_64-linux-gnu $q/usr/bin/qemu-system-x86_64 \
        -L $q/usr/share/qemu -L $q/usr/share/seabios -accel kvm -cpu host -M microvm -m 256 -nodefaults \
        -display none -no-reboot -serial stdio -kernel /images/vmlinux-6.12 \
        -initrd /images/initramfs-6.12.cpio -append \"$0\"";
    let command_line = format!("{} reboot=t panic=-1", guest::command_line("echo seen: $(uname -s)"));
    let output = host.run_within(&["sh", "-c", script, &command_line], GUEST_WAIT)?;
    ensure!(
        output.text().contains("seen: Linux"),
        "the guest said:\n{}{}",
        output.text(),
        output.error_text()
    );
    Ok(())
}
