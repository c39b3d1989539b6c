//! Swap areas of the host: made whole or not at all, and removed without a trace.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::Host;
use crate::swap_area::{Area, Turn, areas};

const NO_ZRAM: &str = "the kernel has no zram";

#[test]
fn what_is_made_is_listed_and_removed() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let before = areas();
    let Some(file) = Area::file(&host, &turn, "swap", "8M") else { return };
    let Some(zram) = Area::zram(&host, &turn, "8M") else { return };
    let (code, text, _) = host.napa(&["swap", "list", "--json"]);
    assert_eq!(code, Some(0));
    let listing: Value = serde_json::from_str(&text).unwrap();
    let find = |path: &Path| {
        let listed = listing["areas"].as_array().unwrap();
        listed.iter().find(|area| area["path"] == path.to_str().unwrap()).cloned().unwrap()
    };
    let (in_file, in_memory) = (find(&file.path), find(&zram.path));
    assert_eq!((in_file["kind"].as_str(), in_memory["kind"].as_str()), (Some("file"), Some("zram")));
    assert!(in_file["priority"].as_i64() < in_memory["priority"].as_i64(), "{text}");
    assert_eq!((&in_file["napa"], &in_memory["napa"]), (&true.into(), &true.into()));
    let (_, text, _) = host.napa(&["swap", "list"]);
    assert!(text.contains("napa's"), "{text}");
    let path = file.path.clone();
    assert!(file.remove().contains("is removed; "));
    assert!(!path.exists());
    zram.remove();
    assert_eq!(areas(), before);
}

#[test]
fn what_cannot_be_made_is_one_line_and_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let Some(_turn) = Turn::take() else { return };
    let before = areas();
    let taken = host.path("taken");
    std::fs::write(&taken, "text").unwrap();
    let taken = taken.to_str().unwrap();
    let free = host.path("free");
    let free = free.to_str().unwrap();
    let folder = host.path("");
    let folder = folder.to_str().unwrap();
    let devices = zrams();
    let off = ["--compressed", "off"];
    let zram = ["--compressed", "zram", "--zram-size"];
    // With zram before it, the file's step comes after a device was made, which goes again.
    for (words, texts) in [
        ([&["--size", "8M", "--file", taken][..], &off].concat(), &["exists: name another"][..]),
        (
            [&["--size", "8M", "--file", taken][..], &zram, &["8M"]].concat(),
            &["exists: name another", NO_ZRAM],
        ),
        ([&["--size", "8M", "--file", folder][..], &zram, &["8M"]].concat(), &["is a folder", NO_ZRAM]),
        ([&["--size", "8M", "--file", free][..], &zram, &["4K"]].concat(), &["is too small"]),
        (vec!["--size", "0"], &["such as 8G"]),
        ([&["--size", "8193", "--file", free][..], &off].concat(), &["whole number of 4 KiB pages"]),
        // A folder in memory cannot hold it whatever its size.
        (
            [&["--size", "8T", "--file", free][..], &off].concat(),
            &["that are free for", "would be on a tmpfs", "would be on an overlay"],
        ),
        ([&["--size", "8M", "--file", "/proc/swap"][..], &off].concat(), &["than the 0 that are free for"]),
        (
            [&["--size", "8M", "--file", free][..], &off, &["--zram-size", "8M"]].concat(),
            &["leave one of them out"],
        ),
        (vec!["--size", "0", "--zram-size", "1"], &["--zram-size 1 is not a whole number"]),
    ] {
        let (found, _, error) = host.napa(&[&["swap", "create"], &words[..]].concat());
        assert_eq!((found, error.lines().count()), (Some(2), 1), "{words:?}: {error}");
        assert!(texts.iter().any(|text| error.contains(text)), "{words:?}: {error}");
        assert!(!Path::new(free).exists(), "{words:?}");
        assert_eq!(zrams(), devices, "{words:?}");
    }
    let (code, _, error) = host.napa(&["swap", "remove", "--file", taken]);
    assert_eq!(code, Some(2));
    assert!(error.contains("is not a swap file that napa made"), "{error}");
    assert_eq!(std::fs::read(taken).unwrap(), b"text");
    assert_eq!(areas(), before);
}

/// The host's zram devices.
fn zrams() -> Vec<OsString> {
    let names = std::fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().file_name());
    let mut zrams: Vec<OsString> = names.filter(|name| name.to_string_lossy().starts_with("zram")).collect();
    zrams.sort();
    zrams
}

fn switch_off(path: &Path) -> bool {
    std::process::Command::new("swapoff").arg(path).status().is_ok_and(|status| status.success())
}

#[test]
fn a_device_that_is_looked_at_is_removed_when_it_is_let_go() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let devices = zrams();
    let Some(area) = Area::zram(&host, &turn, "8M") else { return };
    let watched = File::open(&area.path).unwrap();
    let watcher = std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(300));
        drop(watched);
    });
    assert!(area.remove().contains("is removed; "));
    watcher.join().unwrap();
    assert_eq!(zrams(), devices);
}

#[test]
fn a_device_that_was_switched_off_by_hand_is_listed_and_removed() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let devices = zrams();
    let Some(area) = Area::zram(&host, &turn, "8M") else { return };
    if !switch_off(&area.path) {
        return println!("skipped: there is no swapoff");
    }
    let (_, text, _) = host.napa(&["swap", "list"]);
    assert!(text.contains(&format!("{} of 8,192 KiB is switched off", area.path.display())), "{text}");
    assert!(area.remove().contains("it was not in use"));
    assert_eq!(zrams(), devices);
}

/// zswap is put back too, though nothing of napa's is in use any more.
#[test]
fn a_file_behind_zswap_that_is_no_longer_in_use_leaves_zswap_as_it_was() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let zswap = || std::fs::read_to_string("/sys/module/zswap/parameters/enabled").ok();
    let Some(before) = zswap() else { return println!("skipped: the kernel has no zswap") };
    let Some(file) = Area::file_behind(&host, &turn, "swap", "8M", "zswap") else { return };
    assert_eq!(zswap().as_deref(), Some("Y\n"));
    if !switch_off(&file.path) {
        return println!("skipped: there is no swapoff");
    }
    file.remove();
    assert_eq!(zswap(), Some(before));
}

/// What a restart of the host leaves: the file, not in use.
#[test]
fn a_file_that_is_no_longer_in_use_is_removed_by_its_name() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let Some(file) = Area::file(&host, &turn, "swap", "8M") else { return };
    let path = file.path.clone();
    if !switch_off(&path) {
        return println!("skipped: there is no swapoff");
    }
    let path = path.to_str().unwrap();
    let (code, _, error) = host.napa(&["swap", "create", "--size", "8M", "--file", path]);
    assert_eq!(code, Some(2));
    assert!(error.contains("napa made it before: sudo napa swap remove --file"), "{error}");
    assert!(file.remove().contains("it was not in use"));
    assert!(!Path::new(path).exists());
}
