//! `napa bench` on this host's KVM: it measures, and it leaves nothing behind. What comes out is not judged here.

#![allow(clippy::unwrap_used)] // A helper of a test is a test too.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What is changed of the kernel's scanner of pages.
const SETTINGS: [&str; 5] = ["run", "advisor_mode", "pages_to_scan", "sleep_millisecs", "use_zero_pages"];

/// A folder for what the benchmark makes, unless no VM runs on this machine.
fn scratch() -> Option<TempDir> {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Some(tempfile::tempdir().unwrap()),
        Err(error) => {
            println!("skipped: /dev/kvm cannot be opened: {error}");
            None
        }
    }
}

fn bench(folder: &Path, words: &[&str]) -> Output {
    let mut napa = Command::new(env!("CARGO_BIN_EXE_napa"));
    napa.arg("bench").args(words).env("TMPDIR", folder).stdin(Stdio::null());
    napa.output().unwrap()
}

fn check(what: &str, expected: &[(&str, usize)]) {
    let Some(folder) = scratch() else { return };
    let output = bench(folder.path(), &[what, "--napa-only", "--quick", "--json"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{error}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (group, count) in expected {
        let of_group = |figure: &&Value| figure["group"] == *group;
        let figures: Vec<&Value> = report["figures"].as_array().unwrap().iter().filter(of_group).collect();
        assert_eq!(figures.len(), *count, "{report:#}");
        for figure in figures {
            let value = &figure["values"][0];
            assert_eq!(value["subject"], "napa", "{figure:#}");
            assert!(value["count"].as_u64().unwrap() > 0, "{figure:#}");
            assert!(value["min"].as_f64() <= value["max"].as_f64(), "{figure:#}");
        }
    }
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn starts_are_measured() {
    check("start", &[("start", 1)]);
}

#[test]
fn a_named_disk_is_only_read() {
    let Some(folder) = scratch() else { return };
    let disk = folder.path().join("disk");
    let content = vec![7; 4 << 20];
    fs::write(&disk, &content).unwrap();
    let words = ["disk", "--napa-only", "--quick", "--json", "--device", disk.to_str().unwrap()];
    let output = bench(folder.path(), &words);
    let error = String::from_utf8(output.stderr).unwrap();
    if error.contains("Invalid argument") {
        println!("skipped: the file system of {} has no direct I/O", folder.path().display());
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{error}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = report["figures"].as_array().unwrap().iter().map(|figure| figure["name"].as_str().unwrap());
    assert_eq!(names.filter(|name| name.contains(" read, ")).count(), 3, "{report:#}");
    assert_eq!(report["figures"].as_array().unwrap().len(), 3);
    assert_eq!(fs::read(&disk).unwrap(), content);
}

#[test]
fn a_qemu_that_is_none_is_refused() {
    let Some(folder) = scratch() else { return };
    for (path, expected) in [("absent", "there is no QEMU"), ("/bin/false", "is no QEMU")] {
        let output = bench(folder.path(), &["start", "--qemu", path]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn guests_that_share_pages_are_measured_and_the_host_is_as_before() {
    let settings = || SETTINGS.map(|name| fs::read_to_string(format!("/sys/kernel/mm/ksm/{name}")).ok());
    let Some(_ksm) = free_ksm() else { return };
    let before = settings();
    let Some(folder) = scratch() else { return };
    let words = ["share", "--quick", "--json", "--guests", "3", "--memory", "64M"];
    let output = bench(folder.path(), &words);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{error}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let median = |name: &str| {
        let figures = report["figures"].as_array().unwrap();
        let figure = figures.iter().find(|figure| figure["name"].as_str().unwrap() == name);
        figure.unwrap_or_else(|| panic!("no {name}: {report:#}"))["values"][0]["median"].as_f64().unwrap()
    };
    let held = f64::from(64 << 20);
    assert!(median("one guest with 64M, Pss") >= held, "{report:#}");
    assert!(median("3 guests, merged, Pss") < 1.5 * held, "{report:#}");
    assert!(median("3 guests, merged, private pages") < 0.5 * held, "{report:#}");
    // The kernel keeps a note about each page.
    assert!(median("the kernel's notes about their pages") >= 3.0 * 16_384.0 * 48.0, "{report:#}");
    assert_eq!(settings(), before);
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn sizes_of_guests_are_for_guests_that_share() {
    for (words, expected) in [
        (["start", "--guests", "3"], "--guests and --memory are for: napa bench share"),
        (["share", "--memory", "4K"], "--memory: a guest of this benchmark holds 16M to 64G"),
        (["share", "--guests", "1"], "1 is not in 2..=1000"),
    ] {
        let Some(folder) = scratch() else { return };
        let output = bench(folder.path(), &words);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

/// The host's one scanner of pages, which tests take in turn. `None`, with a word about it: nothing can be shared here.
fn free_ksm() -> Option<fs::File> {
    let stat = fs::read_to_string("/proc/self/ksm_stat").unwrap_or_default();
    if !stat.contains("ksm_process_profit") {
        println!("skipped: the kernel does not say what merging saves a process");
        return None;
    }
    if let Err(error) = fs::OpenOptions::new().write(true).open("/sys/kernel/mm/ksm/run") {
        println!("skipped: /sys/kernel/mm/ksm/run cannot be written: {error}");
        return None;
    }
    let user = rustix::process::getuid().as_raw();
    let lock = fs::File::create(std::env::temp_dir().join(format!("napa-ksm-{user}.lock"))).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    Some(lock)
}
