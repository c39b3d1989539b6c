//! A paused guest does not run, and does not notice.

use std::time::Duration;

use crate::client::Client;
use crate::support::{Host, number};

/// Several of the guest's ticks.
const SEVERAL_TICKS: Duration = Duration::from_millis(2500);

#[test]
fn a_paused_guest_makes_no_progress_and_its_clock_does_not_step_back() {
    let Some(host) = Host::new() else { return };
    let mut vm = host.run(&["--cmdline", "workload=idle tick=1", "--name", "vm", "--cpus", "2"]);
    let before = vm.wait_line("TICK ");
    let mut client = Client::new(&host.socket("vm"));
    assert_eq!(client.state("pause"), "paused");
    vm.lines_now();
    std::thread::sleep(SEVERAL_TICKS);
    assert_eq!(vm.lines_now(), Vec::<String>::new(), "a paused guest is silent");
    assert_eq!(client.state("resume"), "running");
    let after = vm.wait_line("TICK ");
    let later = vm.wait_line("TICK ");
    assert!(number(&before, "clock_ns") < number(&after, "clock_ns"), "{before} {after}");
    assert_eq!(number(&later, "clock_steps_back"), 0, "{later}");
    client.state("stop");
    assert_eq!(vm.end().code, Some(0));
}

#[test]
fn a_brake_lets_go_by_itself_and_a_pause_outlasts_it() {
    let Some(host) = Host::new() else { return };
    let mut vm = host.run(&["--cmdline", "workload=idle tick=1", "--name", "vm", "--cpus", "2"]);
    vm.wait_line("TICK ");
    let mut client = Client::new(&host.socket("vm"));
    // A brake is no state that anybody sees, and ends without another word.
    let brake = |client: &mut Client, time_ms: u32| {
        client.ask("brake", &serde_json::json!({ "time_ms": time_ms }));
        client.answer()["result"]["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(brake(&mut client, 300), "running");
    vm.lines_now();
    vm.wait_line("TICK ");
    assert_eq!(brake(&mut client, 2000), "running");
    assert_eq!(brake(&mut client, 0), "running");
    vm.wait_line("TICK ");
    // Who pauses a VM that is braked pauses it; a brake on a paused VM changes nothing.
    assert_eq!(brake(&mut client, 100), "running");
    assert_eq!(client.state("pause"), "paused");
    assert_eq!(brake(&mut client, 100), "paused");
    vm.lines_now();
    std::thread::sleep(SEVERAL_TICKS);
    assert_eq!(vm.lines_now(), Vec::<String>::new(), "a paused guest is silent");
    assert_eq!(client.state("resume"), "running");
    vm.wait_line("TICK ");
    brake(&mut client, 2000);
    client.state("stop");
    assert_eq!(vm.end().code, Some(0));
}

/// Pauses and resumes a guest at work; in the end it has verified all that it wrote.
fn work_goes_on(words: &[&str]) {
    let Some(host) = Host::new() else { return };
    let disk = host.disk("disk", 16);
    let all: Vec<&str> = ["--name", "vm", "--disk", &disk].iter().chain(words).copied().collect();
    let mut vm = host.run(&all);
    vm.wait_line("READY ");
    let mut client = Client::new(&host.socket("vm"));
    for _ in 0..100 {
        assert_eq!(client.state("pause"), "paused");
        assert_eq!(client.state("resume"), "running");
    }
    vm.wait_line("REPORT ");
    assert_eq!(client.state("stop"), "stopping");
    let ended = vm.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.output.contains("CORRUPT"), "{ended:?}");
    assert!(ended.output.contains("DONE code=0"), "{ended:?}");
}

#[test]
fn memory_survives_a_hundred_pauses() {
    work_goes_on(&["--cpus", "2", "--cmdline", "workload=verify:32M,3600"]);
}

#[test]
fn a_disk_survives_a_hundred_pauses() {
    work_goes_on(&["--cmdline", "workload=blk-verify:8M,3600"]);
}
