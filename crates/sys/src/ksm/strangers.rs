//! Processes that let the kernel merge their memory, but belong to no domain.

use std::fmt;
use std::path::Path;

use super::REGISTRY;
use super::registry::LOCK;
use crate::host::Root;

/// A process whose memory is mergeable without having joined a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The process.
    pub pid: u32,
    /// What it is called.
    pub name: String,
}

impl fmt::Display for Stranger {
    /// What stands in the way, and how to mend it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "process {} ({}) lets the kernel merge its memory with that of others and belongs to no trust domain: \
             switch that off there (QEMU: -machine mem-merge=off), or end it",
            self.pid, self.name
        )
    }
}

/// All strangers of a host. Its pages are merged with those of whatever domain holds the host: there is nothing else
/// that the kernel could do. Needs the right to look at other processes' mappings; what cannot be looked at is passed
/// over.
pub fn strangers(root: &Root) -> Vec<Stranger> {
    let lock = root.as_ref().join(REGISTRY).join(LOCK);
    let processes = root.names("proc").into_iter().filter_map(|name| name.parse::<u32>().ok());
    let mut found: Vec<Stranger> = processes
        .filter(|pid| is_mergeable(root, *pid) && !has_open(root, *pid, &lock))
        .map(|pid| Stranger { pid, name: root.text(&format!("proc/{pid}/comm")).unwrap_or_default() })
        .collect();
    found.sort_by_key(|stranger| stranger.pid);
    found
}

/// Whether any memory of the process may be merged. Kernels before 6.15 say it only of each mapping.
fn is_mergeable(root: &Root, pid: u32) -> bool {
    // A thread of the kernel has no memory, and an empty file.
    let Some(stat) = root.text(&format!("proc/{pid}/ksm_stat")).filter(|stat| !stat.is_empty()) else {
        return false;
    };
    match stat.lines().find_map(|line| line.strip_prefix("ksm_mergeable:")) {
        Some(word) => word.trim() == "yes",
        None => {
            let mappings = root.text(&format!("proc/{pid}/smaps")).unwrap_or_default();
            let mut flags = mappings.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
            flags.any(|flags| flags.split_whitespace().any(|flag| flag == "mg"))
        }
    }
}

/// A member has the registry's lock open. napa makes memory mergeable only while it is one.
fn has_open(root: &Root, pid: u32, file: &Path) -> bool {
    let folder = format!("proc/{pid}/fd");
    let targets = root.names(&folder).into_iter();
    targets
        .filter_map(|name| std::fs::read_link(root.as_ref().join(&folder).join(name)).ok())
        .any(|target| target == file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Fixture;

    #[test]
    fn whoever_is_mergeable_without_being_a_member_is_a_stranger() {
        let mergeable = "ksm_rmap_items 0\nksm_merge_any: no\nksm_mergeable: yes\n";
        let flags = "VmFlags: rd wr mr mw me ac sd mg \n";
        let host = Fixture::new(&[
            ("proc/self/comm", "x"),
            ("proc/1/comm", "init"),
            ("proc/1/ksm_stat", "ksm_rmap_items 0\nksm_merge_any: no\nksm_mergeable: no\n"),
            ("proc/1/smaps", flags),
            ("proc/2/comm", "kthreadd"),
            ("proc/2/ksm_stat", ""),
            ("proc/30/comm", "qemu-system-x86\n"),
            ("proc/30/ksm_stat", mergeable),
            ("proc/30/fd/keep", ""),
            ("proc/31/comm", "napa"),
            ("proc/31/ksm_stat", mergeable),
            ("proc/31/fd/keep", ""),
            ("proc/40/comm", "old"),
            ("proc/40/ksm_stat", "ksm_rmap_items 5\n"),
            ("proc/40/smaps", flags),
            ("proc/41/comm", "older"),
            ("proc/41/ksm_stat", "ksm_rmap_items 5\n"),
            ("proc/41/smaps", "VmFlags: rd wr\n"),
            ("proc/50/comm", "gone"),
        ]);
        let root = host.root();
        let lock = root.as_ref().join("run/napa/ksm/lock");
        std::os::unix::fs::symlink(lock, root.as_ref().join("proc/31/fd/7")).unwrap();
        std::os::unix::fs::symlink("/dev/null", root.as_ref().join("proc/30/fd/7")).unwrap();
        let expected =
            [(30, "qemu-system-x86"), (40, "old")].map(|(pid, name)| Stranger { pid, name: name.into() });
        assert_eq!(strangers(&root), expected);
    }
}
