//! A guest's reset starts it again, with the same devices and the same socket.

use crate::client::Client;
use crate::machine_code;
use crate::support::Host;

#[test]
fn devices_and_control_connections_survive_a_reboot() {
    let Some(host) = Host::new() else { return };
    let disk = host.disk("disk", 8);
    let words = ["--name", "vm", "--disk", &disk, "--cpus", "2"];
    let mut vm = host.run(&[&words[..], &["--cmdline", "workload=blk-verify:2M+rng:4K+reboot"]].concat());
    vm.wait_line("READY ");
    let mut client = Client::new(&host.socket("vm"));
    for _ in 0..3 {
        let line = vm.wait_line("REPORT workload=blk-verify phase=check part=total");
        assert!(line.contains("ops="), "{line}");
        vm.wait_line("READY ");
        assert!(client.call("status")["result"]["pid"] == vm.pid());
    }
    client.call("kill");
    let ended = vm.end();
    assert_eq!(ended.code, Some(83), "{ended:?}");
    assert!(!ended.output.contains("CORRUPT") && !ended.output.contains("FAIL"), "{ended:?}");
}

#[test]
fn a_guest_that_resets_at_once_goes_on_for_as_long_as_it_likes() {
    let Some(host) = Host::new() else { return };
    let kernel = host.kernel("restless", &machine_code::restless());
    let mut vm = host.run(&["--kernel", &kernel, "--name", "vm"]);
    for _ in 0..300 {
        vm.wait_line("R");
    }
    assert_eq!(host.napa(&["kill", "vm"]).1, "vm has ended");
    let ended = vm.end();
    assert_eq!((ended.code, ended.error.as_str()), (Some(83), "napa: vm: the VM was stopped hard\n"));
}

#[test]
fn a_signal_between_two_machines_is_an_orderly_stop_too() {
    let Some(host) = Host::new() else { return };
    let kernel = host.kernel("restless", &machine_code::restless());
    for boots in 1..12 {
        let mut vm = host.run(&["--kernel", &kernel]);
        (0..boots).for_each(|_| drop(vm.wait_line("R")));
        vm.signal("TERM");
        let ended = vm.end();
        assert_eq!((ended.code, ended.error.as_str()), (Some(0), ""), "after {boots}");
    }
}
