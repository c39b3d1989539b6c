//! Where the pages of a VM are: the counts follow what the guest does and always sum to its size.

use serde_json::Value;

use crate::client::Client;
use crate::support::Host;

const MIB: u64 = 1 << 20;

/// What `memory` says of the VM, after a look at the sum.
pub fn report(client: &mut Client) -> Value {
    let answer = client.call("memory");
    let report = answer["result"].clone();
    let ledger = report["ledger"].as_object().unwrap_or_else(|| panic!("{answer}"));
    let sum: u64 = ledger.values().map(|bytes| bytes.as_u64().unwrap()).sum();
    assert_eq!(sum, report["size"], "{report}");
    report
}

fn part(report: &Value, state: &str) -> u64 {
    report["ledger"][state].as_u64().unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn what_the_guest_touches_is_resident_and_the_rest_zero() {
    let Some(host) = Host::new() else { return };
    // Two pieces of RAM and the hole between them; most of it is never touched.
    let words = ["--memory", "4G", "--huge-pages", "off", "--name", "vm"];
    let mut vm = host.run(&[&words[..], &["--cmdline", "workload=touch:48M+idle"]].concat());
    vm.wait_line("REPORT workload=touch phase=visit part=total");
    let mut client = Client::new(&host.socket("vm"));
    let full = report(&mut client);
    assert_eq!((full["size"].as_u64(), full["name"].as_str()), (Some(4096 * MIB), Some("vm")));
    assert_eq!(full["looked_at"], full["size"], "{full}");
    let resident = part(&full, "resident") + part(&full, "shared") + swapped(&full);
    assert!((48 * MIB..64 * MIB).contains(&resident), "{full}");
    assert_eq!(part(&full, "zero"), 4096 * MIB - resident, "{full}");
    // A guest that stands still is seen the same way.
    assert_eq!(client.state("pause"), "paused");
    assert_eq!(part(&report(&mut client), "zero"), part(&full, "zero"));
    assert_eq!(client.state("resume"), "running");
    client.state("stop");
    assert_eq!(vm.end().code, Some(0));
}

/// Another test may have put swap on, and the host may swap.
fn swapped(report: &Value) -> u64 {
    ["swapped_compressed", "swapped_disk", "swapped_somewhere"].iter().map(|state| part(report, state)).sum()
}

#[test]
fn inspect_shows_the_ledger_to_people_and_programs() {
    let Some(host) = Host::new() else { return };
    let mut vm = host.run(&["--memory", "64M", "--cmdline", "workload=touch:8M+idle", "--name", "vm"]);
    vm.wait_line("REPORT workload=touch phase=visit part=total");
    let (code, text, error) = host.napa(&["inspect", "vm"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    for expected in ["state   running", "vm: 64 MiB of guest memory", "#  resident", "sum", "100.0 %"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let (_, text, _) = host.napa(&["inspect", "vm", "--memory"]);
    assert!(!text.contains("state") && text.contains("#  resident"), "{text}");
    let (_, json, _) = host.napa(&["inspect", "vm", "--json"]);
    let both: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&both["status"]["name"], &both["memory"]["size"]), (&"vm".into(), &(64 * MIB).into()));
    let (_, json, _) = host.napa(&["inspect", "vm", "--memory", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["name"], "vm");
    assert_eq!(host.napa(&["stop", "vm"]).0, Some(0));
    assert_eq!(vm.end().code, Some(0));
    assert_eq!(host.napa(&["inspect", "vm"]).0, Some(2));
}
