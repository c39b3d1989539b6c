//! Swap areas of the host: made whole or not at all, and removed without a trace.

use std::path::Path;

use serde_json::Value;

use crate::support::Host;
use crate::swap_area::{Area, Turn, areas};

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
    for (words, code, text) in [
        (&["--size", "8M", "--file", taken][..], 2, "exists: name another"),
        (&["--size", "8M", "--file", folder], 2, "is a folder"),
        (&["--size", "0"], 2, "such as 8G"),
        (&["--size", "8193", "--file", free], 2, "whole number of 4 KiB pages"),
        (&["--size", "8T", "--file", free], 2, "that are free for"),
        (&["--size", "8M", "--file", "/proc/swap"], 2, "than the 0 that are free for"),
        (
            &["--size", "8M", "--file", free, "--compressed", "off", "--zram-size", "8M"],
            2,
            "leave one of them out",
        ),
        (&["--size", "0", "--zram-size", "1"], 2, "--zram-size 1 is not a whole number"),
        // The file is there by then, and zram too: both go again.
        (&["--size", "8M", "--compressed", "zram", "--zram-size", "4K", "--file", free], 2, "is too small"),
    ] {
        let (found, _, error) = host.napa(&[&["swap", "create"], words].concat());
        assert_eq!((found, error.lines().count()), (Some(code), 1), "{words:?}: {error}");
        assert!(error.contains(text), "{words:?}: {error}");
        assert!(!Path::new(free).exists(), "{words:?}");
    }
    let (code, _, error) = host.napa(&["swap", "remove", "--file", taken]);
    assert_eq!(code, Some(2));
    assert!(error.contains("is not a swap file that napa made"), "{error}");
    assert_eq!(std::fs::read(taken).unwrap(), b"text");
    assert_eq!(areas(), before);
}

/// What a restart of the host leaves: the file, not in use.
#[test]
fn a_file_that_is_no_longer_in_use_is_removed_by_its_name() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let Some(file) = Area::file(&host, &turn, "swap", "8M") else { return };
    let path = file.path.clone();
    let off = std::process::Command::new("swapoff").arg(&path).status();
    if !off.is_ok_and(|status| status.success()) {
        return println!("skipped: there is no swapoff");
    }
    let path = path.to_str().unwrap();
    let (code, _, error) = host.napa(&["swap", "create", "--size", "8M", "--file", path]);
    assert_eq!(code, Some(2));
    assert!(error.contains("napa made it before: sudo napa swap remove --file"), "{error}");
    assert!(file.remove().contains("it was not in use"));
    assert!(!Path::new(path).exists());
}
