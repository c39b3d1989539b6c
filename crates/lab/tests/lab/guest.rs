//! Guests that napa runs in a host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use napa_lab::{Host, Job, Output};

/// How long a guest with an initial RAM file system may take from start to end. It takes 5 s on a quiet
/// machine; the bound is only there to end what hangs.
pub const GUEST_WAIT: Duration = Duration::from_secs(150);

/// The same for a whole Debian, which takes 35 s on a quiet machine.
pub const DEBIAN_WAIT: Duration = Duration::from_secs(400);

/// The kernel command line that makes the initial RAM file system run `script`.
pub fn command_line(script: &str) -> String {
    format!("console=ttyS0 quiet DO=\"{script}\"")
}

/// The words that run a stock kernel with the lab's initial RAM file system, to be followed by more flags.
fn words<'a>(kernel: &'a str, memory: &'a str, command_line: &'a str) -> Vec<&'a str> {
    let initramfs = "/images/initramfs-6.12.cpio";
    vec![
        "napa",
        "run",
        "--kernel",
        kernel,
        "--initrd",
        initramfs,
        "--memory",
        memory,
        "--cmdline",
        command_line,
    ]
}

/// Runs `script` in a guest until the guest has switched itself off.
///
/// # Errors
/// napa's exit code is not 0, or the script's is not.
pub fn run(host: &Host, script: &str, flags: &[&str]) -> Result<Output> {
    run_kernel(host, "/images/vmlinux-6.12", script, flags)
}

/// As [`run`], with another kernel.
///
/// # Errors
/// As [`run`].
pub fn run_kernel(host: &Host, kernel: &str, script: &str, flags: &[&str]) -> Result<Output> {
    let command_line = command_line(script);
    let words = [words(kernel, "256M", &command_line).as_slice(), flags].concat();
    let output = host.run_within(&words, GUEST_WAIT)?;
    let said = format!("{}{}", output.text(), output.error_text());
    ensure!(output.status == 0, "napa ended with code {}:\n{said}", output.status);
    ensure!(output.text().contains("guest: done with code 0"), "the script failed in the guest:\n{said}");
    Ok(output)
}

/// Starts a guest that runs `script`, and waits until it says `marker`.
///
/// # Errors
/// The guest does not say it.
pub fn start(host: &Host, script: &str, flags: &[&str], marker: &str) -> Result<Job> {
    let command_line = command_line(script);
    let words = [words("/images/vmlinux-6.12", "256M", &command_line).as_slice(), flags].concat();
    let mut job = host.spawn(&words)?;
    job.wait_for(marker, GUEST_WAIT)?;
    Ok(job)
}

/// Boots the Debian on `/images/debian.ext4` and logs in; the job waits at root's prompt.
///
/// # Errors
/// There is no login, or it fails.
pub fn log_in_to_debian(host: &Host, kernel: &str, flags: &[&str]) -> Result<Job> {
    let command_line = "console=hvc0 quiet systemd.show_status=false root=/dev/vda";
    let disk = ["--disk", "path=/images/debian.ext4"];
    let words = [words(kernel, "512M", command_line).as_slice(), &disk, flags].concat();
    let mut job = host.spawn(&words)?;
    job.wait_for("debian login:", DEBIAN_WAIT)?;
    job.write(b"root\n")?;
    job.wait_for("root@debian:~#", DEBIAN_WAIT)?;
    Ok(job)
}

/// Types a command at the prompt of [`log_in_to_debian`], and waits for the `marker` that it prints. The
/// terminal echoes the command, so the marker must not stand in it.
///
/// # Errors
/// The marker does not come.
pub fn type_and_expect(job: &mut Job, command: &str, marker: &str) -> Result<()> {
    ensure!(!command.contains(marker), "the echo of `{command}` cannot be told from {marker:?}");
    job.write(format!("{command}\n").as_bytes())?;
    job.wait_for(marker, DEBIAN_WAIT).with_context(|| format!("type `{command}` in the guest"))
}

/// The SHA-256 of a file in the host, in hexadecimal digits.
///
/// # Errors
/// The file cannot be read.
pub fn sha256(host: &Host, file: &str) -> Result<String> {
    let line = host.shell(&format!("sha256sum < {file}"))?;
    let sum = line.split_whitespace().next().filter(|sum| sum.len() == 64);
    sum.map(str::to_owned).with_context(|| format!("the sum of {file} is {line:?}"))
}
