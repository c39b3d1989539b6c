//! `napa bench` on this host's KVM: it measures, and it leaves nothing behind. What comes out is not judged here.

#![allow(clippy::unwrap_used)] // A helper of a test is a test too.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

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
