//! The embedded guest's balloon on napa's: memory goes to the host and comes back, and what workloads hold stays.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::support::{Host, Vm, number, wait_until};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// Asks the guest to give so much up.
fn aim(client: &mut Client, bytes: u64) {
    let id = client.ask("balloon", &json!({ "target": bytes }));
    let answer = client.answer();
    assert_eq!((&answer["id"], &answer["result"]["target"]), (&json!(id), &json!(bytes)), "{answer}");
}

fn balloon(client: &mut Client) -> Value {
    client.call("balloon")["result"].clone()
}

/// The next line of the guest that says that the balloon rests.
fn rest(vm: &mut Vm) -> (u64, u64) {
    let line = vm.wait_line("BALLOON ");
    (number(&line, "pages") * PAGE, number(&line, "target") * PAGE)
}

/// Anonymous memory of the VM's process, in bytes: guest memory for the most part. Another test may have put swap on.
fn resident(vm: &Vm) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.pid())).unwrap();
    let kibibytes = |key: &str| -> u64 {
        let value = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (kibibytes("RssAnon:") + kibibytes("VmSwap:")) << 10
}

/// Stops the guest, which finds nothing wrong.
fn stop(vm: Vm, client: &mut Client) {
    assert_eq!(client.state("stop"), "stopping");
    let ended = vm.end();
    assert_eq!((ended.code, ended.error.as_str()), (Some(0), ""), "{}", ended.output);
    assert!(!ended.output.contains("CORRUPT"), "{}", ended.output);
}

#[test]
fn a_hundred_times_nine_tenths_go_and_come_back_while_the_guest_verifies() {
    const TARGET: u64 = 512 * MIB / 10 * 9 / PAGE * PAGE;
    let Some(host) = Host::new() else { return };
    for cpus in ["1", "2"] {
        let line = "workload=verify:32M,0 balloon=on report=0";
        let mut vm = host.run(&["--memory", "512M", "--cpus", cpus, "--name", "vm", "--cmdline", line]);
        vm.wait_line("REPORT workload=verify phase=fill");
        let mut client = Client::new(&host.socket("vm"));
        for cycle in 0..100 {
            for target in [TARGET, 0] {
                aim(&mut client, target);
                assert_eq!(rest(&mut vm), (target, target), "{cycle}");
                let report = balloon(&mut client);
                assert_eq!(
                    (&report["held"], &report["actual"]),
                    (&json!(target), &json!(target)),
                    "{report}"
                );
            }
        }
        assert_eq!(balloon(&mut client)["foreign_pages"], 0);
        stop(vm, &mut client);
    }
}

#[test]
fn what_goes_into_the_balloon_leaves_the_host() {
    let Some(host) = Host::new() else { return };
    let line = "workload=touch:400M+verify:32M,0 balloon=on reporting=off report=0";
    let mut vm = host.run(&["--memory", "512M", "--cpus", "2", "--name", "vm", "--cmdline", line]);
    vm.wait_line("REPORT workload=verify phase=fill");
    assert!(resident(&vm) > 400 * MIB, "{}", resident(&vm));
    let mut client = Client::new(&host.socket("vm"));
    aim(&mut client, 440 * MIB);
    assert_eq!(rest(&mut vm), (440 * MIB, 440 * MIB));
    assert!(resident(&vm) < 90 * MIB, "{}", resident(&vm));
    stop(vm, &mut client);
}

#[test]
fn a_guest_that_has_too_little_gives_what_it_has() {
    let Some(host) = Host::new() else { return };
    let line = "workload=verify:32M,0 balloon=on report=0";
    let mut vm = host.run(&["--memory", "128M", "--name", "vm", "--cmdline", line]);
    vm.wait_line("REPORT workload=verify phase=fill");
    let mut client = Client::new(&host.socket("vm"));
    aim(&mut client, 128 * MIB);
    let (given, wanted) = rest(&mut vm);
    assert_eq!(wanted, 128 * MIB);
    assert!((80 * MIB..96 * MIB).contains(&given), "{given}");
    aim(&mut client, 0);
    assert_eq!(rest(&mut vm), (0, 0));
    stop(vm, &mut client);
}

#[test]
fn a_guest_in_need_takes_pages_back() {
    let Some(host) = Host::new() else { return };
    let line = "workload=verify:16M,3+hold:96M,random balloon=on report=0";
    let mut vm = host.run(&["--memory", "128M", "--name", "vm", "--cmdline", line]);
    vm.wait_line("READY ");
    let mut client = Client::new(&host.socket("vm"));
    aim(&mut client, 96 * MIB);
    while rest(&mut vm).0 == 96 * MIB {}
    vm.wait_line("REPORT workload=hold phase=fill");
    assert!(balloon(&mut client)["held"].as_u64().unwrap() < 32 * MIB);
    stop(vm, &mut client);
}

#[test]
fn memory_that_a_guest_frees_leaves_the_host() {
    let Some(host) = Host::new() else { return };
    let line = "workload=churn:128M,0 balloon=on pause=1000 report=0";
    let mut vm = host.run(&["--memory", "256M", "--cpus", "2", "--name", "vm", "--cmdline", line]);
    vm.wait_line("READY ");
    for _ in 0..3 {
        wait_until("the guest fills its memory", || resident(&vm) > 128 * MIB);
        wait_until("the freed memory leaves the host", || resident(&vm) < 32 * MIB);
    }
    let mut client = Client::new(&host.socket("vm"));
    assert!(balloon(&mut client)["reported"].as_u64().unwrap() >= 3 * 120 * MIB);
    stop(vm, &mut client);
}

#[test]
fn the_statistics_are_those_of_the_guest() {
    let Some(host) = Host::new() else { return };
    let line = "workload=hold:64M,zero balloon=on report=0";
    let mut vm = host.run(&["--memory", "256M", "--name", "vm", "--cmdline", line]);
    vm.wait_line("REPORT workload=hold phase=fill");
    let mut client = Client::new(&host.socket("vm"));
    aim(&mut client, 128 * MIB);
    assert_eq!(rest(&mut vm), (128 * MIB, 128 * MIB));
    let report = client.call("balloon-statistics")["result"].clone();
    let free = report["statistics"]["free"].as_u64().unwrap_or_else(|| panic!("{report}"));
    assert!((56 * MIB..64 * MIB).contains(&free), "{report}");
    stop(vm, &mut client);
}

#[test]
fn targets_that_change_faster_than_the_guest_follows_cost_it_nothing() {
    let Some(host) = Host::new() else { return };
    let line = "workload=churn:64M,0 balloon=on pause=1 report=0";
    let mut vm = host.run(&["--memory", "256M", "--cpus", "2", "--name", "vm", "--cmdline", line]);
    vm.wait_line("READY ");
    let mut client = Client::new(&host.socket("vm"));
    for step in 0..200_u64 {
        // Any size up to the guest's, by a step that shares no divisor with it: the guest takes back what it needs.
        aim(&mut client, step * 40_961 % 65_536 * PAGE);
        std::thread::sleep(Duration::from_millis(step % 7));
    }
    aim(&mut client, 0);
    wait_until("all pages come back", || balloon(&mut client)["held"] == 0);
    let report = balloon(&mut client);
    assert_eq!(report["foreign_pages"], 0, "{report}");
    assert!(report["reported"].as_u64().unwrap() > 0, "{report}");
    stop(vm, &mut client);
}
