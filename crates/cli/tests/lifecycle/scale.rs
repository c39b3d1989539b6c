//! Many vCPUs, and many VMs.

use crate::support::{Host, Vm};

#[test]
fn one_to_sixty_four_vcpus_verify_their_memory() {
    let Some(host) = Host::new() else { return };
    for cpus in ["1", "2", "4", "16", "64"] {
        let mut vm = host.run(&["--cpus", cpus, "--cmdline", "workload=verify:64M"]);
        let ready = vm.wait_line("READY ");
        assert!(ready.contains(&format!("cpus={cpus} ")), "{ready}");
        let ended = vm.end();
        assert_eq!((ended.code, ended.error.as_str()), (Some(0), ""), "{cpus}: {}", ended.output);
        assert!(!ended.output.contains("CORRUPT"), "{cpus}: {}", ended.output);
    }
}

#[test]
fn twenty_vms_at_once_start_verify_and_stop() {
    let Some(host) = Host::new() else { return };
    let names: Vec<String> = (0..20).map(|index| format!("vm{index}")).collect();
    let start = |name: &String| {
        host.run(&["--name", name, "--memory", "32M", "--cmdline", "workload=verify:8M,3600 report=1"])
    };
    let mut vms: Vec<Vm> = names.iter().map(start).collect();
    for vm in &mut vms {
        vm.wait_line("REPORT workload=verify phase=visit");
    }
    for name in &names {
        assert_eq!(host.napa(&["stop", name]).1, format!("{name} has ended"));
    }
    for (vm, name) in vms.into_iter().zip(&names) {
        let ended = vm.end();
        assert_eq!((ended.code, ended.error.as_str()), (Some(0), ""), "{name}: {}", ended.output);
        assert!(!ended.output.contains("CORRUPT"), "{name}: {}", ended.output);
        assert!(!host.socket(name).exists(), "{name}");
    }
}
