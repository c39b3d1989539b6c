//! How much memory a guest uses, by samples: what it needs comes back, what it does not stays away.

use serde_json::Value;

use crate::client::Client;
use crate::ledger::report;
use crate::support::Host;
use crate::swap_area::{Area, Turn, areas};

#[test]
fn without_swap_a_sample_is_refused_with_the_reason() {
    let Some(host) = Host::new() else { return };
    let Some(_turn) = Turn::take() else { return };
    if !areas().is_empty() {
        return println!("skipped: the host has swap of its own");
    }
    let mut vm = host.run(&["--memory", "64M", "--cmdline", "workload=idle", "--name", "vm"]);
    vm.wait_line("READY ");
    let (code, _, error) = host.napa(&["inspect", "vm", "--working-set", "1"]);
    assert_ne!(code, Some(0));
    assert!(error.contains("the host has no free swap; give it some"), "{code:?} {error}");
    let mut client = Client::new(&host.socket("vm"));
    let answer = client.call("working-set");
    assert!(answer["error"]["message"].as_str().unwrap().contains("no sample is under way"), "{answer}");
    assert_eq!(host.napa(&["pause", "vm"]).0, Some(0));
    let (code, _, error) = host.napa(&["inspect", "vm", "--working-set"]);
    assert!(code == Some(2) && error.contains("napa resume vm"), "{code:?} {error}");
    client.state("kill");
    assert_eq!(vm.end().code, Some(83));
}

#[test]
fn a_busy_guest_uses_its_memory_and_an_idle_one_does_not() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let Some(area) = Area::zram(&host, &turn, "64M") else { return };
    let words = ["--memory", "128M", "--huge-pages", "off"];
    let sweeping = [&words[..], &["--name", "busy", "--cmdline", "workload=verify:64M,0"]].concat();
    let idle = [&words[..], &["--name", "idle", "--cmdline", "workload=touch:64M+idle"]].concat();
    let (mut busy_vm, mut idle_vm) = (host.run(&sweeping), host.run(&idle));
    busy_vm.wait_line("REPORT workload=verify phase=visit");
    idle_vm.wait_line("REPORT workload=touch phase=visit part=total");
    let sample = |name| -> Value {
        let (code, json, error) = host.napa(&["inspect", name, "--working-set", "4", "--json"]);
        assert_eq!(code, Some(0), "{error}");
        serde_json::from_str(&json).unwrap()
    };
    for (name, used) in [("busy", true), ("idle", false)] {
        let found = sample(name);
        let bytes = |key: &str| found[key].as_u64().unwrap();
        assert!(bytes("low") <= bytes("estimate") && bytes("estimate") <= bytes("high"), "{found}");
        let half = bytes("resident") / 2;
        assert_eq!(bytes("low") > half, used, "{name}: {found}");
        assert_eq!(bytes("high") < half, !used, "{name}: {found}");
        report(&mut Client::new(&host.socket(name)));
    }
    for (name, vm) in [("busy", busy_vm), ("idle", idle_vm)] {
        assert_eq!(host.napa(&["stop", name]).0, Some(0));
        let ended = vm.end();
        assert!(ended.code == Some(0) && !ended.output.contains("CORRUPT"), "{ended:?}");
    }
    area.remove();
}
