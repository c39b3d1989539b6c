//! Pages of zeros go back to the host, on order and by themselves, and nothing that a guest writes is lost.

use serde_json::{Value, json};

use crate::client::Client;
use crate::sharing::{hold, sharing, stop};
use crate::support::{Host, wait_until};

/// Bytes of guest memory that were given back because they were zeros.
fn given_back(output: &str) -> u64 {
    let report: Value = serde_json::from_str(output).unwrap_or_else(|error| panic!("{error}: {output}"));
    assert_eq!(report["left"], 0, "{report}");
    report["given_back"].as_u64().unwrap()
}

/// Gives back what is zeros; `None`, with a word about it: the kernel cannot move pages.
fn look_for_zeros(host: &Host) -> Option<u64> {
    let (code, output, error) = host.napa(&["share", "vm", "on", "--json"]);
    if code == Some(1) && error.contains("pages cannot be moved out of the way") {
        println!("skipped: {error}");
        return None;
    }
    assert_eq!(code, Some(0), "{error}");
    Some(given_back(&output))
}

#[test]
fn pages_of_zeros_are_given_back_and_are_zeros_when_they_are_looked_at() {
    let Some(host) = Host::new() else { return };
    let vm = hold(&host, "vm", "zero", &["--share", "zero"]);
    let resident = || {
        let report = Client::new(&host.socket("vm")).call("memory");
        report["result"]["ledger"]["resident"].as_u64().unwrap_or_else(|| panic!("{report}"))
    };
    let before = resident();
    let Some(given_back) = look_for_zeros(&host) else { return };
    assert!(given_back >= 32 << 20, "{given_back}");
    assert!(resident() + (32 << 20) <= before, "{before} bytes were resident, and now {}", resident());
    let again = look_for_zeros(&host).unwrap();
    assert!(
        again - given_back < 1 << 20,
        "there was nothing left to be found, but {again} after {given_back}"
    );
    stop(&host, "vm", vm);
}

#[test]
fn what_a_guest_writes_while_zeros_are_looked_for_is_not_lost() {
    let Some(host) = Host::new() else { return };
    let disk = host.disk("disk", 16);
    // Memory that turns from zeros into contents and back, on both processors, and disk transfers into it.
    let cmdline =
        "workload=hold:24M,zero,1+verify:24M,2+churn:24M,3+blk-verify:8M,3+touch:24M report=0 rewrite=on";
    let words = ["--memory", "96M", "--cpus", "2", "--name", "vm", "--share", "zero", "--disk", &disk];
    let mut vm = host.run(&[&words[..], &["--cmdline", cmdline]].concat());
    vm.wait_line("READY ");
    let (mut passes, mut found) = (0, 0);
    while host.socket("vm").exists() {
        let (code, output, error) = host.napa(&["share", "vm", "on", "--json"]);
        match code {
            Some(0) => found = given_back(&output),
            // It may end between two questions.
            _ if !error.contains("cannot be moved") => break,
            _ => {
                println!("skipped: {error}");
                return;
            }
        }
        passes += 1;
    }
    println!("{passes} looks found {found} bytes");
    let ended = vm.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.output.contains("CORRUPT"), "{ended:?}");
    assert!(passes > 0 && found > 0, "{passes} looks found {found} bytes");
}

#[test]
fn a_vm_that_nobody_asked_gives_back_pages_of_zeros_by_itself() {
    let Some(host) = Host::new() else { return };
    let vms = [("plain", &[][..]), ("off", &["--share", "off"])].map(|(name, flags)| {
        let flags = [flags, &["--huge-pages", "off"]].concat();
        (name, hold(&host, name, "zero", &flags))
    });
    let mut client = Client::new(&host.socket("plain"));
    client.ask("means", &json!({}));
    let why = client.answer()["result"]["no_zero_pages"].clone();
    if why.is_string() {
        return println!("skipped: {why}");
    }
    let found = |name: &str| sharing(&host, name)["given_back"].as_u64().unwrap();
    wait_until("pages of zeros are given back", || found("plain") >= 30 << 20);
    assert_eq!(found("off"), 0);
    assert_eq!(sharing(&host, "plain")["is_on"], false, "nothing is merged unasked");
    for (name, vm) in vms {
        stop(&host, name, vm);
    }
}
