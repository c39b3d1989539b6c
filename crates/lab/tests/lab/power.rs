//! How guests end: by themselves, by the button, by force, by accident.

use std::time::Duration;

use anyhow::{Result, ensure};
use napa_lab::{HostKernel, Job, Lab};

use crate::Test;
use crate::guest::{self, GUEST_WAIT};

pub const TESTS: &[Test] = &[
    ("the_power_button_is_pressed_by_sigterm", the_power_button_is_pressed_by_sigterm),
    ("a_guest_that_ignores_the_button_is_stopped_hard", a_guest_that_ignores_the_button_is_stopped_hard),
    ("a_panic_and_a_reboot_have_their_own_exit_codes", a_panic_and_a_reboot_have_their_own_exit_codes),
    ("the_control_socket_pauses_resumes_and_stops", the_control_socket_pauses_resumes_and_stops),
];

const SIGTERM: i32 = 15;

/// napa's exit codes (`napa run --help`).
const REBOOT: i32 = 80;
const PANIC: i32 = 81;
const STOPPED_HARD: i32 = 83;

/// Obeys the button, and goes on once the button's device is open.
const OBEYING: &str = "acpid -p /tmp/acpid -l /dev/null; \
    until ls -l /proc/$(cat /tmp/acpid)/fd | grep -q event; do usleep 10000; done;";
const IGNORE: &str = "echo waiting; sleep 1000";

fn the_power_button_is_pressed_by_sigterm(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let script = format!("{OBEYING} echo waiting; sleep 1000");
    let mut job = guest::start(&host, &script, &["--stop-timeout", "100"], "waiting")?;
    job.signal(SIGTERM)?;
    job.wait_for("guest: power button", GUEST_WAIT)?;
    expect_status(job, 0)
}

fn a_guest_that_ignores_the_button_is_stopped_hard(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let job = guest::start(&host, IGNORE, &["--stop-timeout", "1"], "waiting")?;
    job.signal(SIGTERM)?;
    expect_status(job, STOPPED_HARD)
}

fn a_panic_and_a_reboot_have_their_own_exit_codes(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    for (script, status) in [
        ("modprobe pvpanic_mmio; echo waiting; sleep 1; echo c > /proc/sysrq-trigger", PANIC),
        ("echo waiting; sleep 1; reboot -f", REBOOT),
    ] {
        let job = guest::start(&host, script, &["--on-reboot", "exit"], "waiting")?;
        expect_status(job, status)?;
    }
    Ok(())
}

fn the_control_socket_pauses_resumes_and_stops(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let ticking = format!("{OBEYING} while true; do echo tick; sleep 1; done");
    let mut job = guest::start(&host, &ticking, &["--name", "one", "--stop-timeout", "100"], "tick")?;
    let napa = |verb: &str| host.run_within(&["napa", verb, "one"], GUEST_WAIT);
    let paused = napa("pause")?;
    ensure!(paused.status == 0, "pause: {}", paused.error_text());
    let status = napa("status")?.text();
    ensure!(status.contains("paused"), "the status is {status}");
    // What was printed before the pause has arrived when the status has.
    let ticks = job.stdout_after(Duration::from_secs(3))?.matches("tick").count();
    let later = job.stdout_after(Duration::from_secs(3))?.matches("tick").count();
    ensure!(ticks == later, "a paused guest went on from {ticks} ticks to {later}");
    ensure!(napa("resume")?.status == 0, "resume failed");
    job.wait_for("tick", GUEST_WAIT)?;
    ensure!(napa("stop")?.status == 0, "stop failed");
    expect_status(job, 0)
}

fn expect_status(job: Job, expected: i32) -> Result<()> {
    let output = job.wait(GUEST_WAIT)?;
    let (text, errors) = (output.text(), output.error_text());
    ensure!(output.status == expected, "code {}, not {expected}:\n{text}{errors}", output.status);
    Ok(())
}
