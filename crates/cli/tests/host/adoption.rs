//! A daemon that ends leaves its VMs alone, and the next one finds them.

use napa_api::host::VmState;

use crate::daemon::{Daemon, IDLE};
use crate::support::Host;

#[test]
fn vms_run_on_without_a_daemon_and_are_found_by_the_next_one() {
    let Some(host) = Host::new() else { return };
    let mut daemon = Daemon::start(&host);
    daemon.create("web", &IDLE);
    daemon.napa(&["create", "idle", "--memory", "32M"]);
    let pid = daemon.vm("web").pid;
    for is_killed in [true, false] {
        if is_killed {
            daemon.kill()
        } else {
            daemon.end()
        }
        assert_eq!(daemon.processes(), [pid.unwrap()]);
        let (code, _, error) = host.napa(&["ls"]);
        assert!(code == Some(2) && error.contains("no 'napa host' listens"), "{error}");
        daemon.start_again();
        daemon.wait_state("web", VmState::Running);
        assert_eq!((daemon.vm("web").pid, daemon.vm("idle").state), (pid, VmState::Created));
    }
    assert!(daemon.napa(&["stop", "web"]).starts_with("web is stopped"), "it can still be stopped");
}

#[test]
fn what_happened_while_no_daemon_ran_is_known_as_far_as_it_can_be() {
    let Some(host) = Host::new() else { return };
    let mut daemon = Daemon::start(&host);
    for name in ["stopped", "killed"] {
        daemon.create(name, &IDLE);
    }
    daemon.create("restarted", &[&IDLE[..], &["--restart", "on-failure"]].concat());
    let socket = |name: &str| {
        let detail: napa_api::host::VmDetail = daemon.client().get(&format!("/v1/vms/{name}")).unwrap();
        detail.control_socket.to_str().unwrap().to_owned()
    };
    let sockets = [socket("stopped"), socket("restarted")];
    let (killed, restarted) = (daemon.vm("killed").pid.unwrap(), daemon.vm("restarted").pid);
    daemon.kill();
    for socket in &sockets {
        daemon.napa(&["kill", socket]);
    }
    let killed = std::process::Command::new("kill").args(["-s", "KILL", &killed.to_string()]).status();
    assert!(killed.unwrap().success());
    crate::support::wait_until("the ends", || daemon.processes().is_empty());
    daemon.start_again();
    let reason = |name: &str| daemon.vm(name).exit.unwrap().reason;
    assert_eq!(reason("stopped"), "the VM was stopped hard");
    assert!(reason("killed").starts_with("unknown: "), "{}", reason("killed"));
    daemon.wait_state("restarted", VmState::Running);
    assert_ne!(daemon.vm("restarted").pid, restarted);
}
