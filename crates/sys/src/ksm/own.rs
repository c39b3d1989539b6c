//! What KSM has done for this process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::host::Root;

/// Counters of this process, readable after the sandbox has closed.
#[derive(Debug)]
pub struct OwnCounters {
    stat: Option<File>,
    /// Kernels before 6.5 have this number in a file of its own.
    merging: Option<File>,
}

/// What KSM has done for a process. `None`: the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnSharing {
    /// Its pages that are merged with others, its own among them.
    pub merged_pages: Option<u64>,
    /// Its pages that are the kernel's page of zeros instead.
    pub zero_pages: Option<u64>,
    /// What merging saves less what it costs, in bytes.
    pub profit: Option<i64>,
}

impl OwnCounters {
    /// Opens what this kernel has.
    pub fn open(root: &Root) -> Self {
        let open = |name: &str| File::open(root.as_ref().join("proc/self").join(name)).ok();
        Self { stat: open("ksm_stat"), merging: open("ksm_merging_pages") }
    }

    /// Reads them.
    pub fn read(&self) -> OwnSharing {
        let text = |file: &Option<File>| file.as_ref().and_then(|file| read(file).ok()).unwrap_or_default();
        let stat = text(&self.stat);
        let merging = || text(&self.merging).trim().parse().ok();
        OwnSharing {
            merged_pages: value(&stat, "ksm_merging_pages").or_else(merging),
            zero_pages: value(&stat, "ksm_zero_pages"),
            profit: value(&stat, "ksm_process_profit"),
        }
    }
}

fn read(file: &File) -> io::Result<String> {
    let mut bytes = [0; 1024];
    let count = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

fn value<T: std::str::FromStr>(stat: &str, name: &str) -> Option<T> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Fixture;

    #[test]
    fn old_and_new_kernels_say_what_they_know() {
        let new = "ksm_rmap_items 9\nksm_zero_pages 1\nksm_merging_pages 7\nksm_process_profit -64\n";
        let all = OwnSharing { merged_pages: Some(7), zero_pages: Some(1), profit: Some(-64) };
        let old = OwnSharing { merged_pages: Some(5), ..OwnSharing::default() };
        for (files, expected) in [
            (vec![("proc/self/ksm_stat", new)], all),
            (vec![("proc/self/ksm_stat", "ksm_rmap_items 9\n"), ("proc/self/ksm_merging_pages", "5\n")], old),
            (vec![], OwnSharing::default()),
        ] {
            assert_eq!(OwnCounters::open(&Fixture::new(&files).root()).read(), expected);
        }
    }
}
