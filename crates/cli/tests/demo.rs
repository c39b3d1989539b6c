//! `napa demo` on this host's KVM: it verifies, it fails when a guest does, and it leaves nothing behind.

#![allow(clippy::unwrap_used)] // A helper of a test is a test too.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// A folder for what the demonstration makes, unless no VM runs on this machine.
fn scratch() -> Option<TempDir> {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Some(tempfile::tempdir().unwrap()),
        Err(error) => {
            println!("skipped: /dev/kvm cannot be opened: {error}");
            None
        }
    }
}

fn start(folder: &Path, words: &[&str]) -> Child {
    let mut napa = Command::new(env!("CARGO_BIN_EXE_napa"));
    napa.arg("demo").args(words).env("TMPDIR", folder).stdin(Stdio::null());
    napa.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The exit code and what was written to standard output.
fn end(mut demo: Child) -> (Option<i32>, String) {
    let mut text = String::new();
    demo.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    (demo.wait().unwrap().code(), text)
}

/// The processes that the demonstration has started, once there are `count` that listen.
fn guests(demo: &Child, folder: &Path, count: usize) -> Vec<u32> {
    let start = Instant::now();
    loop {
        let path = format!("/proc/{0}/task/{0}/children", demo.id());
        let children = fs::read_to_string(path).unwrap_or_default();
        let children: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        if children.len() == count && sockets(folder) == count {
            return children;
        }
        assert!(start.elapsed() < BOUND, "{children:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Control sockets in the folders that the demonstration has made.
fn sockets(folder: &Path) -> usize {
    files(folder).iter().filter(|file| file.extension().is_some_and(|extension| extension == "sock")).count()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let inside = |entry: fs::DirEntry| fs::read_dir(entry.path()).into_iter().flatten();
    let entries = fs::read_dir(folder).unwrap().flat_map(|entry| inside(entry.unwrap()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_small_fleet_is_kept_within_its_budget_and_loses_nothing() {
    let Some(folder) = scratch() else { return };
    let words = ["--guests", "4", "--memory", "96M", "--budget", "96M", "--duration", "8", "--json"];
    let (code, text) = end(start(folder.path(), &words));
    let verdict: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, Some(0), "{text}");
    for (figure, expected) in [
        ("guests_killed", 0),
        ("guests_verified", 4),
        ("guests_checked", 4),
        ("guests_answered", 4),
        ("content_errors", 0),
    ] {
        assert_eq!(verdict[figure], expected, "{figure}: {text}");
    }
    assert_eq!((&verdict["budget_kept"], &verdict["overcommit"]), (&true.into(), &4.0.into()), "{text}");
    assert!(verdict["visits_verified"].as_u64().unwrap() > 0, "{text}");
    assert!(verdict["held_max"].as_u64().unwrap() > 16 << 20, "somebody looked: {text}");
    assert!(verdict["level_ms"].as_object().unwrap().values().any(|ms| ms.as_f64() > Some(0.0)), "{text}");
    assert!(is_empty(folder.path()));
}

#[test]
fn a_guest_that_is_killed_fails_the_demonstration() {
    let Some(folder) = scratch() else { return };
    let demo =
        start(folder.path(), &["--guests", "2", "--memory", "64M", "--budget", "64M", "--duration", "4"]);
    let victim = guests(&demo, folder.path(), 2)[1];
    signal(victim, "-KILL");
    let (code, text) = end(demo);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("guest-2 failed: its process was killed by signal 9"), "{text}");
    assert!(text.contains("2 started, 1 killed, 1 verified, 1 failed"), "{text}");
    assert!(text.ends_with("1 guests were killed; 1 of 2 guests did not verify their memory; 1 of 2 guests did not answer within a second\n"), "{text}");
    assert!(is_empty(folder.path()));
}

#[test]
fn a_signal_ends_all_guests_in_order() {
    let Some(folder) = scratch() else { return };
    let words = ["--guests", "3", "--memory", "64M", "--budget", "64M", "--duration", "600"];
    let demo = start(folder.path(), &words);
    let children = guests(&demo, folder.path(), 3);
    signal(demo.id(), "-TERM");
    let (_, text) = end(demo);
    assert!(text.contains("3 started"), "{text}");
    assert!(!children.iter().any(|&pid| runs(pid)));
    assert!(is_empty(folder.path()));
}

#[test]
fn guests_do_not_outlive_a_demonstration_that_is_killed() {
    let Some(folder) = scratch() else { return };
    let words = ["--guests", "2", "--memory", "64M", "--budget", "64M", "--duration", "600"];
    let demo = start(folder.path(), &words);
    let children = guests(&demo, folder.path(), 2);
    signal(demo.id(), "-KILL");
    end(demo);
    let start = Instant::now();
    while children.iter().any(|&pid| runs(pid)) || sockets(folder.path()) > 0 {
        assert!(start.elapsed() < BOUND, "{children:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Swap is the kernel's: it stays until somebody removes it.
    if let Some(swap) = files(folder.path()).iter().find(|file| file.ends_with("swap")) {
        let napa = Command::new(env!("CARGO_BIN_EXE_napa"))
            .args(["swap", "remove", "--file"])
            .arg(swap)
            .status()
            .unwrap();
        assert!(napa.success());
    }
}

#[test]
fn what_the_host_cannot_give_is_refused() {
    let Some(folder) = scratch() else { return };
    for (words, expected) in [
        (["--budget", "1000T"], "napa: error: --budget 1000T is more than three quarters"),
        (["--memory", "1M"], "napa: error: --memory 1M is too little for a guest"),
        (["--policy", "hope"], "there is no policy 'hope': choose one of napa, static"),
    ] {
        let mut demo = start(folder.path(), &words);
        let mut error = String::new();
        demo.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert_eq!(demo.wait().unwrap().code(), Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    assert!(is_empty(folder.path()));
}
