//! All mechanisms that take memory from a guest, in random order on one that runs: at every moment each page is in
//! exactly one state, and the guest finds all that it wrote.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::ledger::report;
use crate::sharing::Ksm;
use crate::support::Host;
use crate::swap_area::{Area, Turn};

const MIB: u64 = 1 << 20;
const STEPS: usize = 40;
/// What a refused request may be: the state forbids it, or there is nowhere to put pages.
const WRONG_STATE: i64 = -32000;

/// Random numbers from a seed (xorshift64*), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// A request with its parameters.
fn step(random: &mut Random) -> (&'static str, Value) {
    match random.below(12) {
        0 | 1 => ("balloon", json!({ "target": random.below(120) * MIB })),
        2 => ("balloon", json!({ "target": 0 })),
        3 | 4 => ("reclaim", json!({ "size": (1 + random.below(100)) * MIB })),
        5 => ("share", json!({ "on": true })),
        6 => ("share", json!({ "on": false })),
        7 => ("sample", json!({})),
        8 => ("working-set", json!({})),
        9 => ("balloon-statistics", json!({})),
        10 => ("pause", json!({})),
        _ => ("resume", json!({})),
    }
}

/// Runs the mechanisms on a guest that verifies its memory, in the order that `seed` gives.
fn run(seed: u64, flags: &[&str]) {
    let Some(host) = Host::new() else { return };
    let Some(_ksm) = Ksm::take() else { return };
    let Some(turn) = Turn::take() else { return };
    // Compressed swap first, and then a file.
    let Some(compressed) = Area::zram(&host, &turn, "32M") else { return };
    let Some(file) = Area::file(&host, &turn, "swap", "512M") else { return };
    let guest = "workload=verify:96M,0 balloon=on report=1 seed=7";
    let words = ["--memory", "256M", "--cpus", "2", "--name", "vm", "--cmdline", guest];
    let mut vm = host.run(&[&words[..], flags].concat());
    vm.wait_line("REPORT workload=verify phase=visit");
    let mut client = Client::new(&host.socket("vm"));
    let mut random = Random(seed);
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..STEPS {
        let (method, params) = step(&mut random);
        client.ask(method, &params);
        let answer = client.answer();
        let context = || format!("seed {seed}, step {number}: {method} {params}: {answer}");
        if let Some(error) = answer.get("error") {
            assert_eq!(error["code"], WRONG_STATE, "{}", context());
        }
        let report = report(&mut client);
        assert_eq!(report["size"], 256 * MIB, "{}", context());
        assert_eq!(report["looked_at"], report["size"], "{}", context());
        let states = report["ledger"].as_object().unwrap();
        seen.extend(states.iter().filter(|(_, bytes)| **bytes != 0).map(|(state, _)| state.clone()));
        std::thread::sleep(Duration::from_millis(random.below(50)));
    }
    println!("seed {seed}: pages were seen {seen:?}");
    for state in ["discarded", "resident", "swapped_"] {
        let is_seen = seen.iter().any(|found| found.starts_with(state));
        assert!(is_seen, "seed {seed}: no page was {state}: {seen:?}");
    }
    client.state("resume");
    assert_eq!(host.napa(&["stop", "vm"]).0, Some(0));
    let ended = vm.end();
    assert_eq!(ended.code, Some(0), "seed {seed}: {ended:?}");
    assert!(!ended.output.contains("CORRUPT"), "seed {seed}: {ended:?}");
    assert!(ended.output.contains("DONE code=0"), "seed {seed}: {ended:?}");
    compressed.remove();
    file.remove();
}

#[test]
fn a_guest_with_small_pages_survives_all_mechanisms_in_any_order() {
    run(1, &["--huge-pages", "off"]);
}

#[test]
fn a_guest_with_huge_pages_survives_all_mechanisms_in_any_order() {
    run(2, &["--huge-pages", "on"]);
}
