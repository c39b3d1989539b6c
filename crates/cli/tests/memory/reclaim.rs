//! Memory of a VM goes to swap and comes back as it was.

use serde_json::Value;

use crate::support::{Host, Vm, wait_until};
use crate::swap_area::{Area, Turn, areas};

const MIB: u64 = 1 << 20;

fn start(host: &Host, workload: &str) -> Vm {
    host.run(&["--name", "vm", "--memory", "256M", "--cmdline", &format!("workload={workload}")])
}

/// What `napa reclaim` says, after a look at the exit code.
fn reclaim(host: &Host, size: &str, code: i32) -> Value {
    let (found, text, error) = host.napa(&["reclaim", "vm", size, "--json"]);
    assert_eq!((found, error.as_str()), (Some(code), ""), "{text}");
    serde_json::from_str(&text).unwrap()
}

fn taken(report: &Value) -> u64 {
    report["taken"].as_u64().unwrap_or_else(|| panic!("{report}"))
}

/// What a process has in swap, in bytes.
fn swapped(vm: &Vm) -> u64 {
    status(vm, "VmSwap:")
}

/// What a process has in memory, in bytes.
fn resident(vm: &Vm) -> u64 {
    status(vm, "VmRSS:")
}

fn status(vm: &Vm, word: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(word)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Takes everything from a guest that holds 64 MiB, and has it look at every page.
fn lose_and_verify(host: &Host) {
    let mut vm = start(host, "hold:64M,random");
    vm.wait_line("REPORT workload=hold phase=fill part=total");
    let some = reclaim(host, "16M", 0);
    assert_eq!((some["end"].as_str(), some["asked"].as_u64()), (Some("complete"), Some(16 * MIB)), "{some}");
    let all = reclaim(host, "1G", 0);
    assert_eq!(all["end"], "nothing_left", "{all}");
    assert!(taken(&some) + taken(&all) > 60 * MIB, "{some} {all}");
    assert!(swapped(&vm) > 60 * MIB);
    assert_eq!(host.napa(&["stop", "vm"]).0, Some(0));
    let ended = vm.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.output.contains("phase=check part=total"), "{ended:?}");
}

#[test]
fn a_guest_loses_its_memory_to_zram_and_every_page_verifies() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let Some(area) = Area::zram(&host, &turn, "256M") else { return };
    lose_and_verify(&host);
    area.remove();
}

#[test]
fn a_guest_loses_its_memory_to_a_file_and_every_page_verifies() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let Some(area) = Area::file(&host, &turn, "swap", "256M") else { return };
    lose_and_verify(&host);
    area.remove();
}

/// Needs 2.5 GiB of disk, without which it is skipped.
#[test]
fn two_gibibytes_go_to_a_disk_and_every_page_verifies() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let Some(area) = Area::file(&host, &turn, "swap", "2560M") else { return };
    let workload = "workload=hold:2G,random";
    let patient = ["--name", "vm", "--memory", "2304M", "--stop-timeout", "900"];
    let mut vm = host.run(&[&patient[..], &["--cmdline", workload]].concat());
    vm.wait_line("REPORT workload=hold phase=fill part=total");
    let report = reclaim(&host, "4G", 0);
    assert!(taken(&report) >= 2048 * MIB, "{report}");
    assert!(resident(&vm) < 64 * MIB);
    vm.signal("TERM");
    vm.wait_line("REPORT workload=hold phase=check part=total");
    let ended = vm.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let check = ended.output.lines().find(|line| line.contains("phase=check part=total"));
    println!("{report}\n{}", check.unwrap());
    area.remove();
}

#[test]
fn under_load_memory_goes_again_and_again_and_comes_back_right() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let Some(_area) = Area::zram(&host, &turn, "256M") else { return };
    let mut vm = start(&host, "verify:48M,0");
    vm.wait_line("REPORT workload=verify phase=fill part=total");
    let again = || {
        wait_until("the guest's return to its pages", || resident(&vm) > 40 * MIB);
        reclaim(&host, "32M", 0)
    };
    let reports: Vec<Value> = (0..4).map(|_| again()).collect();
    assert!(reports.iter().map(taken).sum::<u64>() >= 4 * 32 * MIB, "{reports:#?}");
    let back: u64 = reports.iter().map(|report| report["came_back"].as_u64().unwrap()).sum();
    assert!(back > 0, "{reports:#?}");
    // In the middle of it, too, a VM ends in order.
    let asking = Vm::spawn(host.command(&["reclaim", "vm", "40M"]));
    assert_eq!(host.napa(&["stop", "vm"]).0, Some(0));
    asking.end();
    let ended = vm.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_paused_guest_loses_memory_too() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let Some(_area) = Area::zram(&host, &turn, "256M") else { return };
    let mut vm = start(&host, "hold:32M,identical");
    vm.wait_line("REPORT workload=hold phase=fill part=total");
    assert_eq!(host.napa(&["pause", "vm"]).0, Some(0));
    assert!(taken(&reclaim(&host, "1G", 0)) > 30 * MIB);
    assert_eq!(host.napa(&["resume", "vm"]).0, Some(0));
    assert_eq!(host.napa(&["stop", "vm"]).0, Some(0));
    assert_eq!(vm.end().code, Some(0));
}

#[test]
fn a_full_swap_is_said_and_the_guest_runs_on() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    if !areas().is_empty() {
        return println!("skipped: the host has swap of its own");
    }
    let Some(_area) = Area::zram(&host, &turn, "16M") else { return };
    let mut vm = start(&host, "hold:64M,random");
    vm.wait_line("REPORT workload=hold phase=fill part=total");
    let report = reclaim(&host, "64M", 1);
    assert_eq!(report["end"], "swap_full", "{report}");
    assert!((8 * MIB..=16 * MIB).contains(&taken(&report)), "{report}");
    let (code, text, _) = host.napa(&["reclaim", "vm", "64M"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("is full; sudo napa swap create"), "{text}");
    assert_eq!(host.napa(&["stop", "vm"]).0, Some(0));
    assert_eq!(vm.end().code, Some(0));
}

#[test]
fn without_swap_nothing_is_taken_and_the_command_is_told() {
    let Some(host) = Host::new() else { return };
    let Some(_turn) = Turn::take() else { return };
    if !areas().is_empty() {
        return println!("skipped: the host has swap of its own");
    }
    let mut vm = start(&host, "idle");
    vm.wait_line("READY ");
    let (code, _, error) = host.napa(&["reclaim", "vm", "4M"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("no swap to put memory into: sudo napa swap create"), "{error}");
    let (code, _, error) = host.napa(&["reclaim", "vm", "100"]);
    assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
    vm.signal("KILL");
    wait_until("the end", || host.napa(&["reclaim", "vm", "4M"]).0 == Some(2));
}
