//! Guests talk to Unix sockets of their host through vsock.

use anyhow::{Context, Result, ensure};
use napa_lab::{Host, HostKernel, Job, Lab};

use crate::Test;
use crate::guest::{self, GUEST_WAIT};

pub const TESTS: &[Test] = &[
    ("a_guest_reaches_a_unix_socket_of_its_host", a_guest_reaches_its_host),
    ("the_host_reaches_a_port_of_its_guest", the_host_reaches_its_guest),
];

const VSOCK: [&str; 2] = ["--vsock", "cid=3,path=/tmp/v.sock"];
const MODULE: &str = "modprobe vmw_vsock_virtio_transport; cd /tmp; ";
/// Makes a file that does not compress and says its sum.
const MAKE: &str = "head -c 3000000 /dev/urandom > file; echo sum $(sha256sum < file)";

fn a_guest_reaches_its_host(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    // The end of its input must not end the listener before the guest has sent all.
    let listener = host.spawn(&[
        "sh",
        "-c",
        "echo from the host | napa-lab-socket listen unix:/tmp/v.sock_1234 > /tmp/got",
    ])?;
    let script = format!("{MODULE} {MAKE}; napa-lab-socket connect vsock:1234 < file");
    let output = guest::run(&host, &script, &VSOCK)?;
    ensure!(output.text().contains("from the host"), "the guest got:\n{}", output.text());
    ended_well(listener)?;
    same(&output.text(), &host)
}

fn the_host_reaches_its_guest(lab: &Lab) -> Result<()> {
    let host = lab.start(HostKernel::V6_12)?;
    let script =
        format!("{MODULE} {MAKE}; echo listening; napa-lab-socket listen vsock:5000 < file > got; cat got");
    let job = guest::start(&host, &script, &VSOCK, "listening")?;
    // The first line asks for the port, the first line that comes back says whether somebody listens there. A guest
    // that has just said so may not do so yet.
    let ask = "until (echo CONNECT 5000; echo from the host) | napa-lab-socket connect unix:/tmp/v.sock > /tmp/all && \
               head -n 1 /tmp/all | grep -q '^OK '; do sleep 0.1; done; tail -n +2 /tmp/all > /tmp/got";
    let connect = host.run_within(&["sh", "-c", ask], GUEST_WAIT)?;
    ensure!(connect.status == 0, "connect to the guest: {}", connect.error_text());
    let output = job.wait(GUEST_WAIT)?;
    ensure!(output.text().contains("from the host"), "the guest got:\n{}", output.text());
    same(&output.text(), &host)
}

fn ended_well(job: Job) -> Result<()> {
    let output = job.wait(GUEST_WAIT)?;
    ensure!(output.status == 0, "the listener ended with {}: {}", output.status, output.error_text());
    Ok(())
}

/// What the host has got is what the guest has sent.
fn same(said: &str, host: &Host) -> Result<()> {
    let sent =
        said.lines().find_map(|line| line.trim().strip_prefix("sum ")).context("the guest says no sum")?;
    let got = guest::sha256(host, "/tmp/got")?;
    ensure!(sent.starts_with(&got), "the guest sent {sent:?} and the host got {got:?}");
    Ok(())
}
