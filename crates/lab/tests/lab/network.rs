//! Guests talk to their host through a tap.

use anyhow::{Result, ensure};
use napa_lab::{Host, HostKernel, Lab};

use crate::Test;
use crate::guest::{self, GUEST_WAIT};

pub const TESTS: &[Test] = &[
    ("host_and_guest_reach_each_other_through_a_tap", host_and_guest_reach_each_other),
    ("files_arrive_whole_over_tcp_in_both_directions", files_arrive_whole_over_tcp),
];

const NET: [&str; 2] = ["--net", "tap=tap0"];

/// What a guest does first.
const GUEST_ADDRESS: &str = "ip addr add 10.8.0.2/24 dev eth0; ip link set eth0 up; ";

fn host_with_tap(lab: &Lab) -> Result<Host> {
    let host = lab.start(HostKernel::V6_12)?;
    host.shell("tunctl -t tap0; ip addr add 10.8.0.1/24 dev tap0; ip link set tap0 up")?;
    Ok(host)
}

fn host_and_guest_reach_each_other(lab: &Lab) -> Result<()> {
    let host = host_with_tap(lab)?;
    let script = format!("{GUEST_ADDRESS} ping -c 3 -w 30 10.8.0.1 && echo reached; read word; true");
    let job = guest::start(&host, &script, &NET, "reached")?;
    // Frames of every size up to the largest go both ways.
    for size in ["0", "1", "57", "1400", "1472"] {
        let ping = host.run(&["ping", "-c", "2", "-w", "30", "-s", size, "10.8.0.2"])?;
        ensure!(ping.status == 0, "ping with {size} bytes: {}", ping.text());
    }
    job.write(b"\n")?;
    let output = job.wait(GUEST_WAIT)?;
    ensure!(output.status == 0, "napa ended with code {}: {}", output.status, output.error_text());
    Ok(())
}

fn files_arrive_whole_over_tcp(lab: &Lab) -> Result<()> {
    let host = host_with_tap(lab)?;
    host.shell(
        "mkdir /tmp/www; head -c 8000000 /dev/urandom > /tmp/www/down; httpd -p 10.8.0.1:80 -h /tmp/www",
    )?;
    let script = format!(
        "{GUEST_ADDRESS} cd /tmp; wget -q http://10.8.0.1/down && echo down $(sha256sum < down); \
         head -c 8000000 /dev/urandom > up; echo up $(sha256sum < up); httpd -p 80 -h /tmp; \
         echo serving; read word; true"
    );
    let job = guest::start(&host, &script, &NET, "serving")?;
    let down = guest::sha256(&host, "/tmp/www/down")?;
    let fetch = host.run_within(&["wget", "-q", "-O", "/tmp/up", "http://10.8.0.2/up"], GUEST_WAIT)?;
    ensure!(fetch.status == 0, "fetch from the guest: {}", fetch.error_text());
    let up = guest::sha256(&host, "/tmp/up")?;
    job.write(b"\n")?;
    let text = job.wait(GUEST_WAIT)?.text();
    for expected in [format!("down {down}"), format!("up {up}")] {
        ensure!(text.contains(&expected), "{expected:?} is not what the guest says:\n{text}");
    }
    Ok(())
}
