//! The balloon on this host's KVM: a guest gives memory up, has it back, reports what it frees, and loses nothing.

use serde_json::{Value, json};

use crate::client::Client;
use crate::support::{Host, number, wait_until};

const MIB: u64 = 1 << 20;

/// The balloon as it is.
fn look(client: &mut Client) -> Value {
    client.call("balloon")["result"].clone()
}

fn ask_for(client: &mut Client, target: u64) {
    client.ask("balloon", &json!({ "target": target }));
    let answer = client.answer();
    assert_eq!(answer["result"]["target"], target, "{answer}");
}

fn bytes(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("no {field} in {report}"))
}

/// Memory of a process that is not shared with files.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_guest_follows_its_target_a_hundred_times_and_keeps_its_data() {
    let Some(host) = Host::new() else { return };
    let words = ["--memory", "256M", "--name", "vm", "--cmdline"];
    // Half of the memory was in use before: giving it up has something to give back.
    let work = "workload=touch:128M+verify:16M,0 balloon=on reporting=off report=0";
    let mut vm = host.run(&[&words[..], &[work]].concat());
    vm.wait_line("REPORT workload=verify phase=fill");
    let before = resident(vm.pid());
    let mut client = Client::new(&host.socket("vm"));
    let target = 256 * MIB * 9 / 10 / (2 * MIB) * (2 * MIB);
    for cycle in 0..100 {
        for target in [target, 0] {
            ask_for(&mut client, target);
            wait_until(&format!("cycle {cycle}: {target}"), || bytes(&look(&mut client), "held") == target);
            if target > 0 && cycle == 0 {
                let during = resident(vm.pid());
                assert!(during + 64 * MIB < before, "{during} of {before} bytes are resident");
            }
        }
    }
    let report = look(&mut client);
    // Whole huge pages, one call each.
    assert_eq!(bytes(&report, "discarded"), 100 * target, "{report}");
    assert_eq!(bytes(&report, "discards"), 100 * target / (2 * MIB), "{report}");
    client.state("stop");
    let ended = vm.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // Every visit has looked at a whole page.
    let visits = ended.output.lines().find(|line| line.contains("workload=verify phase=visit part=total"));
    assert!(number(visits.unwrap(), "ops") > 0 && !ended.output.contains("CORRUPT"), "{ended:?}");
}

#[test]
fn the_verb_says_how_far_the_guest_has_come() {
    let Some(host) = Host::new() else { return };
    let mut vm = host.run(&["--memory", "64M", "--name", "vm", "--cmdline", "workload=balloon"]);
    vm.wait_line("READY ");
    wait_until("the driver takes the balloon", || host.napa(&["balloon", "vm"]).1.contains("active"));
    let (code, output, error) = host.napa(&["balloon", "vm", "32M"]);
    assert_eq!((code, output.as_str()), (Some(0), "vm: the guest has given up 32M"), "{error}");
    let report: Value = serde_json::from_str(&host.napa(&["balloon", "vm", "--json"]).1).unwrap();
    assert_eq!((bytes(&report, "held"), bytes(&report, "actual")), (32 * MIB, 32 * MIB), "{report}");
    let statistics = &report["statistics"];
    let (total, free) = (bytes(statistics, "total"), bytes(statistics, "free"));
    assert!(free <= total && total <= 64 * MIB && free > 16 * MIB, "{report}");
    let (code, output, error) = host.napa(&["balloon", "vm", "--hint"]);
    assert!(code == Some(0) && output.ends_with("MiB of 64M free"), "{output} {error}");
    // All of its memory is more than any guest gives.
    let (code, _, error) = host.napa(&["balloon", "vm", "64M"]);
    assert_eq!(code, Some(1), "{error}");
    for expected in ["of 64M and has not moved for 5 s", "the target stands", "'napa balloon VM 0'"] {
        assert!(error.contains(expected), "{error}");
    }
    let (code, output, _) = host.napa(&["balloon", "vm", "0"]);
    assert_eq!((code, output.as_str()), (Some(0), "vm: the guest has all its memory back"));
    for (size, expected) in [
        ("65M", "balloon beyond the guest's size: 65M of 64M"),
        ("100", "SIZE 100 is not a whole number of 4 KiB pages: the next one is 4K"),
        ("1.5M", "is not a size"),
    ] {
        let (code, _, error) = host.napa(&["balloon", "vm", size]);
        assert!(code == Some(2) && error.contains(expected), "{size}: {code:?} {error}");
    }
    // A guest that stands still does not answer; the last statistics are there.
    assert_eq!(host.napa(&["pause", "vm"]).0, Some(0));
    let report: Value = serde_json::from_str(&host.napa(&["balloon", "vm", "--json"]).1).unwrap();
    assert_eq!(report["statistics"]["total"], total, "{report}");
    assert_eq!(host.napa(&["stop", "vm"]).0, Some(0));
    assert_eq!(vm.end().code, Some(0));
}

#[test]
fn what_a_guest_frees_comes_back_unless_reporting_is_off() {
    let Some(host) = Host::new() else { return };
    for (balloon, reports) in [("on", true), ("no-reporting", false)] {
        let work = "workload=churn:64M,0 pause=20 balloon=on report=1";
        let words = ["--memory", "128M", "--balloon", balloon, "--name", "vm", "--cmdline", work];
        let mut vm = host.run(&words);
        vm.wait_line("REPORT workload=churn");
        let mut client = Client::new(&host.socket("vm"));
        if reports {
            wait_until("a cycle is reported", || bytes(&look(&mut client), "reported") >= 64 * MIB);
        }
        let report = look(&mut client);
        assert_eq!(report["reporting"], reports, "{report}");
        assert_eq!(bytes(&report, "discarded"), bytes(&report, "reported"), "{report}");
        assert_eq!(bytes(&report, "reported") > 0, reports, "{report}");
        client.state("stop");
        let ended = vm.end();
        assert!(ended.code == Some(0) && !ended.output.contains("CORRUPT"), "{ended:?}");
    }
}

#[test]
fn a_target_stands_over_a_reboot_and_without_a_driver() {
    let Some(host) = Host::new() else { return };
    let work = "workload=touch:8M,1+reboot balloon=on";
    let mut vm = host.run(&["--memory", "64M", "--name", "vm", "--cmdline", work]);
    vm.wait_line("READY ");
    let mut client = Client::new(&host.socket("vm"));
    for _ in 0..2 {
        ask_for(&mut client, 16 * MIB);
        wait_until("the target is reached", || bytes(&look(&mut client), "held") == 16 * MIB);
        vm.wait_line("READY ");
    }
    client.call("kill");
    assert_eq!(vm.end().code, Some(83));

    let mut vm = host.run(&["--memory", "64M", "--name", "vm", "--cmdline", "workload=idle"]);
    vm.wait_line("READY ");
    let (code, _, error) = host.napa(&["balloon", "vm", "16M"]);
    assert!(code == Some(1) && error.contains("no driver in the guest has taken the balloon"), "{error}");
    let (code, output, _) = host.napa(&["balloon", "vm", "8M", "--no-wait"]);
    assert!(code == Some(0) && output.contains("the target stands for when one does"), "{output}");
    assert_eq!(host.napa(&["balloon", "vm", "--hint"]).0, Some(1));
    assert_eq!(bytes(&look(&mut Client::new(&host.socket("vm"))), "target"), 8 * MIB);
    assert_eq!(host.napa(&["stop", "vm"]).0, Some(0));
    assert_eq!(vm.end().code, Some(0));

    let words = ["--memory", "64M", "--balloon", "off", "--name", "vm", "--cmdline", "workload=idle"];
    let mut vm = host.run(&words);
    vm.wait_line("READY ");
    let (code, _, error) = host.napa(&["balloon", "vm", "16M"]);
    assert!(code == Some(1) && error.contains("it was started with --balloon off"), "{error}");
    assert_eq!(host.napa(&["stop", "vm"]).0, Some(0));
    assert_eq!(vm.end().code, Some(0));
}
