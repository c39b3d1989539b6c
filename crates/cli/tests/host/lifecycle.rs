//! VMs of a host from their creation to their end.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use napa_api::host::{VmDetail, VmState};
use napa_units::Bytes;

use crate::daemon::{Daemon, IDLE};
use crate::support::{Host, wait, wait_until};

#[test]
fn a_vm_is_created_started_paused_stopped_and_removed() {
    let Some(host) = Host::new() else { return };
    let daemon = Daemon::start(&host);
    assert_eq!(daemon.napa(&[&["create", "web"], &IDLE[..]].concat()), "web is created");
    assert_eq!(daemon.vm("web").state, VmState::Created);
    for _ in 0..2 {
        assert_eq!(daemon.napa(&["start", "web"]), "web is running");
    }
    let vm = daemon.vm("web");
    assert_eq!((vm.memory, vm.cpus), (Bytes::mib(32), 1));
    assert_eq!(daemon.processes(), [vm.pid.unwrap()]);
    assert_eq!(daemon.napa(&["pause", "web"]), "web is paused");
    assert_eq!(daemon.vm("web").state, VmState::Paused);
    assert!(daemon.napa(&["status", "web"]).contains("paused"));
    assert_eq!(daemon.napa(&["resume", "web"]), "web is running");
    let inspection = daemon.napa(&["inspect", "web"]);
    assert!(inspection.contains("web: 32 MiB of guest memory"), "{inspection}");
    assert!(daemon.napa(&["stop", "web"]).starts_with("web is stopped: "));
    assert_eq!(daemon.napa(&["stop", "web"]).split(':').next(), Some("web is stopped"));
    assert!(daemon.napa(&["inspect", "web"]).contains("stopped"));
    assert!(daemon.processes().is_empty());
    assert_eq!(daemon.napa(&["rm", "web"]), "web is removed");
    assert!(daemon.list().is_empty());
    assert_eq!(std::fs::read_dir(daemon.state().join("vm")).unwrap().count(), 0, "its folder is gone");
}

#[test]
fn listings_are_for_people_and_for_programs() {
    let Some(host) = Host::new() else { return };
    let daemon = Daemon::start(&host);
    daemon.create("b", &IDLE);
    daemon.napa(&["create", "a", "--memory", "64M", "--restart", "always"]);
    let lines = daemon.napa(&["ls"]);
    let names: Vec<&str> = lines.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["NAME", "a", "b"], "{lines}");
    let list: serde_json::Value = serde_json::from_str(&daemon.napa(&["ls", "--json"])).unwrap();
    assert_eq!((&list[0]["restart"], &list[1]["state"]), (&"always".into(), &"running".into()));
    assert_eq!(daemon.napa(&["rm", "--force", "b"]), "b is removed");
    assert!(daemon.processes().is_empty());
}

#[test]
fn a_guest_that_ends_is_started_again_as_its_policy_says() {
    let Some(host) = Host::new() else { return };
    let daemon = Daemon::start(&host);
    let ends = ["--memory", "32M", "--cmdline", "workload=exit:7"];
    daemon.create("never", &ends);
    daemon.create("failing", &[&ends[..], &["--restart", "on-failure"]].concat());
    daemon.create("fine", &["--memory", "32M", "--cmdline", "workload=poweroff", "--restart", "on-failure"]);
    for (name, code) in [("never", 7), ("failing", 7), ("fine", 0)] {
        wait_until("an end", || daemon.vm(name).exit.is_some_and(|exit| exit.code == Some(code)));
    }
    let detail = || daemon.client().get::<VmDetail>("/v1/vms/failing").unwrap();
    wait_until("starting again", || detail().restarts >= 2);
    daemon.wait_state("never", VmState::Stopped);
    daemon.wait_state("fine", VmState::Stopped);
    daemon.napa(&["stop", "failing"]);
    assert_eq!(daemon.vm("failing").state, VmState::Stopped, "who is stopped is not started again");
}

#[test]
fn the_console_and_the_log_show_what_a_guest_says() {
    let Some(host) = Host::new() else { return };
    let daemon = Daemon::start(&host);
    daemon.create("web", &IDLE);
    let mut command = host.command(&["console", "web"]);
    let mut console =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Keys are taken, whatever the guest makes of them.
    console.stdin.as_mut().unwrap().write_all(b"\r").unwrap();
    let mut output = console.stdout.take().unwrap();
    let (mut text, mut piece) = (Vec::new(), [0; 256]);
    while !String::from_utf8_lossy(&text).contains("READY") {
        let count = output.read(&mut piece).unwrap();
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&text));
        text.extend(&piece[..count]);
    }
    assert!(daemon.napa(&["logs", "web"]).contains("READY cpus=1"));
    daemon.napa(&["kill", "web"]);
    assert!(wait(&mut console).success(), "the console ends with its VM");
    let log = daemon.napa(&["logs", "web", "-n", "1"]);
    assert_eq!(log, "napa: web: the VM was stopped hard");
}

#[test]
fn the_socket_is_for_its_user_alone() {
    let Some(host) = Host::new() else { return };
    let daemon = Daemon::start(&host);
    for path in [host.socket("host"), daemon.state(), daemon.state().join("state.redb")] {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

#[test]
fn the_daemon_is_small_with_many_vms() {
    let Some(host) = Host::new() else { return };
    let daemon = Daemon::start(&host);
    for index in 0..20 {
        daemon.create(&format!("vm{index}"), &IDLE);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kibibytes < 30 << 10, "{kibibytes} KiB");
}
