//! Memory that can be plugged, seen by a guest of a few instructions.

use serde_json::Value;

use crate::machine_code;
use crate::support::Host;

#[test]
fn unplugged_memory_reads_as_ones_and_swallows_writes() {
    let Some(host) = Host::new() else { return };
    let kernel = host.kernel("void", &machine_code::void_reader());
    let socket = host.path("socket");
    let socket = socket.to_str().unwrap();
    // The console and the memory are the only devices, so that the guest knows their slots.
    let mut vm = host.run(&[
        "--kernel",
        &kernel,
        "--rng",
        "off",
        "--balloon",
        "off",
        "--hotplug-memory",
        "64M",
        "--api-socket",
        socket,
    ]);
    for _ in 0..3 {
        vm.wait_line("R");
    }
    let (code, text, error) = host.napa(&["plug", socket, "32M", "--no-wait", "--json"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["requested"], 32 << 20, "{report}");
    assert_eq!((&report["plugged"], &report["driver"]), (&0.into(), &"idle".into()), "{report}");
    let (code, _, error) = host.napa(&["plug", socket, "64M"]);
    assert_eq!((code, error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("load its module virtio_mem"), "{error}");
    let (code, _, error) = host.napa(&["plug", socket, "66M"]);
    assert!(code != Some(0) && error.contains("--hotplug-memory 64M"), "{code:?} {error}");
    vm.wait_line("R");
    let (_, text, _) = host.napa(&["inspect", socket, "--memory", "--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["size"], &report["hotplug"]["size"]), (&(128 << 20).into(), &(64 << 20).into()));
    vm.signal("TERM");
    vm.signal("TERM");
    assert_eq!(vm.end().code, Some(83));
}

#[test]
fn memory_that_cannot_be_plugged_is_refused() {
    let Some(host) = Host::new() else { return };
    for (words, what) in [
        (&["run", "--hotplug-memory", "3M"][..], "the next one is 4M"),
        (&["run", "--hotplug-memory", "0"], "leave it out"),
        (&["run", "--hotplug-memory", "63T"], "are more than this host has"),
        (&["run", "--hotplug-memory", "64T"], "more than a guest can address"),
    ] {
        let (code, _, error) = host.napa(words);
        assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains("--hotplug-memory") && error.contains(what), "{error}");
    }
}
