//! Swap areas for tests: one test at a time has any, and nothing of it stays.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::support::Host;

/// The right to change the host's swap, which all tests of all binaries share.
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits for it. `None`, with a word about it: only root may change the host's swap.
    pub fn take() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root may change the host's swap");
            return None;
        }
        let lock = File::create(std::env::temp_dir().join("napa-swap-tests.lock")).unwrap();
        lock.lock().unwrap();
        Some(Self { _lock: lock })
    }
}

/// Why a host may have no area; everything else is a failure.
const LACKS: [&str; 6] = [
    "the kernel has no zram",
    "would be on a tmpfs",
    "would be on an overlay",
    "its file system cannot hold a swap file",
    "that are free for",
    "Operation not permitted",
];

/// An area that 'napa swap create' made.
pub struct Area<'a> {
    host: &'a Host,
    /// As the host shows it.
    pub path: PathBuf,
    is_there: bool,
}

impl<'a> Area<'a> {
    /// `None`, with a word about it: this host cannot have one.
    pub fn zram(host: &'a Host, _turn: &Turn, size: &str) -> Option<Self> {
        Self::create(host, &["swap", "create", "--size", "0", "--zram-size", size])
    }

    /// A file of this name in the host's folder, with nothing in front of it.
    pub fn file(host: &'a Host, turn: &Turn, name: &str, size: &str) -> Option<Self> {
        Self::file_behind(host, turn, name, size, "off")
    }

    /// The same behind something.
    pub fn file_behind(host: &'a Host, _turn: &Turn, name: &str, size: &str, front: &str) -> Option<Self> {
        let path = host.path(name);
        let path = path.to_str().unwrap();
        Self::create(host, &["swap", "create", "--size", size, "--file", path, "--compressed", front])
    }

    fn create(host: &'a Host, words: &[&str]) -> Option<Self> {
        let before = areas();
        let (code, _, error) = host.napa(words);
        if code != Some(0) {
            assert_eq!(areas(), before, "what fails leaves nothing");
            assert!(LACKS.iter().any(|lack| error.contains(lack)), "{words:?} ended with {code:?}: {error}");
            println!("skipped: {}", error.trim());
            return None;
        }
        let made: Vec<PathBuf> = areas().into_iter().filter(|area| !before.contains(area)).collect();
        assert_eq!(made.len(), 1, "{made:?}");
        Some(Self { host, path: made[0].clone(), is_there: true })
    }

    /// Removes it; gives what was said.
    pub fn remove(mut self) -> String {
        let (code, said, error) = self.try_remove();
        assert_eq!((code, error.as_str()), (Some(0), ""));
        self.is_there = false;
        said
    }

    fn try_remove(&self) -> (Option<i32>, String, String) {
        self.host.napa(&["swap", "remove", "--file", self.path.to_str().unwrap()])
    }
}

impl Drop for Area<'_> {
    fn drop(&mut self) {
        if self.is_there {
            let _ = self.try_remove();
        }
    }
}

/// The paths of what the host swaps to.
pub fn areas() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/swaps").unwrap();
    text.lines().skip(1).map(|line| Path::new(line.split_whitespace().next().unwrap()).to_owned()).collect()
}
