//! How a VM ends: the exit code, and one line that says so.

use crate::machine_code;
use crate::support::{Ended, Host};

/// The exit code, and the line about it; no line at all where all went well.
fn check(ended: &Ended, code: i32, line: &str) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let said: Vec<&str> = ended.error.lines().filter(|line| line.starts_with("napa: vm: ")).collect();
    match line {
        "" => assert_eq!(ended.error, "", "{ended:?}"),
        _ => assert_eq!(said, [format!("napa: vm: {line}")], "{ended:?}"),
    }
}

#[test]
fn every_kind_of_end_has_its_exit_code_and_its_line() {
    let Some(host) = Host::new() else { return };
    let lost = host.kernel("lost", &machine_code::lost());
    let restless = host.kernel("restless", &machine_code::restless());
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--cmdline", "workload=hello"], 0, ""),
        (&["--cmdline", "workload=poweroff"], 0, ""),
        (&["--cmdline", "workload=exit:255"], 255, "the guest ended with exit code 255"),
        (&["--cmdline", "workload=reboot", "--on-reboot", "exit"], 80, "the guest asked for a reboot"),
        (&["--kernel", &restless, "--on-reboot", "exit"], 80, "the guest asked for a reboot"),
        (&["--cmdline", "workload=panic"], 81, "the guest reported a panic"),
        (&["--cmdline", "workload=triple-fault"], 82, "a vCPU met a triple fault"),
        (&["--kernel", &lost], 84, "KVM could not run a vCPU any further, or the host has lost memory"),
    ];
    for (words, code, line) in cases {
        check(&host.run(words).end(), code, line);
    }
}

#[test]
fn the_exit_file_says_how_it_ended() {
    let Some(host) = Host::new() else { return };
    let path = host.path("exit.json");
    let file = path.to_str().unwrap();
    let cases: [(&[&str], u8, &str); 3] = [
        (&["--cmdline", "workload=exit:7"], 7, "the guest ended with exit code 7"),
        (&["--cmdline", "workload=poweroff"], 0, "the guest switched itself off"),
        (&["--disk", "path=/no/such"], 2, "disk /no/such does not exist"),
    ];
    for (words, code, reason) in cases {
        std::fs::write(&path, "of an earlier VM, and longer than what is written now: ".repeat(9)).unwrap();
        assert_eq!(host.run(&[words, &["--exit-file", file]].concat()).end().code, Some(code.into()));
        let note: napa_api::exit::ExitNote = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert!(note.code == code && note.reason.contains(reason), "{note:?}");
    }
    let ended = host.run(&["--exit-file", "/no/such/folder/file"]).end();
    assert!(ended.code == Some(2) && ended.error.contains("--exit-file /no/such/folder/file"), "{ended:?}");
}

#[test]
fn a_signal_is_an_orderly_stop_for_a_guest_that_obeys() {
    let Some(host) = Host::new() else { return };
    for signal in ["TERM", "INT", "HUP"] {
        let mut vm = host.run(&["--cmdline", "workload=idle"]);
        vm.wait_line("READY ");
        vm.signal(signal);
        check(&vm.end(), 0, "");
    }
}

#[test]
fn a_guest_that_does_not_obey_is_stopped_hard_after_the_bound() {
    let Some(host) = Host::new() else { return };
    let kernel = host.kernel("stubborn", &machine_code::stubborn());
    for bound in ["0", "1"] {
        let mut vm = host.run(&["--kernel", &kernel, "--stop-timeout", bound]);
        vm.wait_line("R");
        vm.signal("TERM");
        check(&vm.end(), 83, "the VM was stopped hard");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let Some(host) = Host::new() else { return };
    let kernel = host.kernel("stubborn", &machine_code::stubborn());
    let words = ["--kernel", &kernel, "--stop-timeout", "86400", "--name", "vm"];
    let mut vm = host.run(&words);
    vm.wait_line("R");
    vm.signal("TERM");
    let mut client = crate::client::Client::new(&host.socket("vm"));
    while client.state("status") != "stopping" {}
    vm.signal("INT");
    check(&vm.end(), 83, "the VM was stopped hard");
}

#[test]
fn a_paused_vm_is_stopped_in_order_by_a_signal() {
    let Some(host) = Host::new() else { return };
    let mut vm = host.run(&["--cmdline", "workload=idle", "--name", "vm"]);
    vm.wait_line("READY ");
    assert_eq!(crate::client::Client::new(&host.socket("vm")).state("pause"), "paused");
    vm.signal("TERM");
    check(&vm.end(), 0, "");
}
