//! What merged guests take of a host, and what merging them costs it, as the kernel counts it.

use std::fs;
use std::io;
use std::iter::Sum;
use std::ops::Add;

use napa_units::{Bytes, Pages};

/// The scanner's thread.
const SCANNER: &str = "ksmd";
/// The kernel's note about a page that is kept for others (`struct ksm_stable_node` of a 64-bit kernel): an estimate,
/// because no counter gives its size.
const KEPT_PAGE_NOTE: Bytes = Bytes(64);

/// Memory of one VM's process, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Proportional set size: shared pages count for a part.
    pub proportional: Bytes,
    /// Pages that nobody else has.
    pub private: Bytes,
    /// Page tables of the process; those that KVM has for the guest are not among them.
    pub page_tables: Bytes,
    /// Pages that are merged, with others or into the kernel's page of zeros.
    pub merged: Pages,
    /// The kernel's notes about pages of the process that may be merged.
    pub notes: Bytes,
}

impl Usage {
    /// Reads what the kernel says of a process.
    ///
    /// # Errors
    /// The process is gone, or the kernel (before Linux 6.6) does not count merged pages for it.
    pub fn of(pid: u32) -> io::Result<Self> {
        let text = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        Self::parse(&text("smaps_rollup")?, &text("status")?, &text("ksm_stat")?)
            .ok_or_else(|| io::Error::other("the kernel does not say which pages of a process are merged"))
    }

    fn parse(rollup: &str, status: &str, stat: &str) -> Option<Self> {
        let kib = |text: &str, name: &str| {
            let value = value(text, name)?.strip_suffix("kB")?;
            value.trim().parse().ok().map(Bytes::kib)
        };
        let number = |name: &str| value(stat, name)?.parse::<i64>().ok();
        let merged = number("ksm_merging_pages")? + number("ksm_zero_pages").unwrap_or(0);
        // The kernel's profit is what these pages save, less its notes.
        let notes = merged * rustix::param::page_size() as i64 - number("ksm_process_profit")?;
        Some(Self {
            proportional: kib(rollup, "Pss")?,
            private: Bytes(kib(rollup, "Private_Clean")?.0 + kib(rollup, "Private_Dirty")?.0),
            page_tables: kib(status, "VmPTE")?,
            merged: Pages(u64::try_from(merged).ok()?),
            notes: Bytes(u64::try_from(notes).ok()?),
        })
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            proportional: Bytes(self.proportional.0 + other.proportional.0),
            private: Bytes(self.private.0 + other.private.0),
            page_tables: Bytes(self.page_tables.0 + other.page_tables.0),
            merged: Pages(self.merged.0 + other.merged.0),
            notes: Bytes(self.notes.0 + other.notes.0),
        }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(usages: I) -> Self {
        usages.fold(Self::default(), Add::add)
    }
}

/// The value behind a name, with a colon (`smaps_rollup`, `status`) or without (`ksm_stat`).
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        rest.starts_with([' ', '\t']).then(|| rest.trim())
    })
}

/// The kernel's notes about the pages of this host that are kept for others.
pub fn notes_of_kept_pages() -> Bytes {
    Bytes(counter("pages_shared") * KEPT_PAGE_NOTE.0)
}

/// How often the kernel has looked at all memory that may be merged.
pub fn full_scans() -> u64 {
    counter("full_scans")
}

/// Changes settings of the scanner; those that this kernel lacks or refuses stay as they are.
pub fn set(settings: &[(&str, &str)]) {
    for (name, value) in settings {
        let _ = fs::write(format!("/sys/kernel/mm/ksm/{name}"), value);
    }
}

/// A counter of the whole host.
fn counter(name: &str) -> u64 {
    let text = fs::read_to_string(format!("/sys/kernel/mm/ksm/{name}")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The process of the kernel's scanner. `None`: it cannot be seen from here.
pub fn scanner() -> Option<u32> {
    let names = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).find(|pid: &u32| {
        let text = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        // A program may be called the same, but has words that it was started with.
        text("comm").is_some_and(|name| name.trim() == SCANNER)
            && text("cmdline").is_some_and(|words| words.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLUP: &str = "00400000-7ffd3000 ---p 00000000 00:00 0    [rollup]\n\
        Rss:              532000 kB\nPss:              530000 kB\nPss_Dirty:             0 kB\n\
        Private_Clean:         8 kB\nPrivate_Dirty:    529000 kB\n";
    const STATUS: &str = "Name:\tnapa\nVmPTE:\t    1096 kB\n";
    const STAT: &str =
        "ksm_rmap_items 100\nksm_zero_pages 1\nksm_merging_pages 9\nksm_process_profit 34560\n";

    #[test]
    fn what_the_kernel_says_is_read() {
        let expected = Usage {
            proportional: Bytes::kib(530_000),
            private: Bytes::kib(529_008),
            page_tables: Bytes::kib(1096),
            merged: Pages(10),
            notes: Bytes(6400),
        };
        assert_eq!(Usage::parse(ROLLUP, STATUS, STAT), Some(expected));
        let both = [expected, expected].into_iter().sum::<Usage>();
        assert_eq!(
            (both.notes, both.merged, both.private),
            (Bytes(12_800), Pages(20), Bytes::kib(1_058_016))
        );
    }

    #[test]
    fn a_kernel_that_does_not_count_says_nothing() {
        for stat in ["", "ksm_rmap_items 100\n", "ksm_merging_pages 9\n", "ksm_merging_pages x\n"] {
            assert_eq!(Usage::parse(ROLLUP, STATUS, stat), None, "{stat}");
        }
        assert_eq!(Usage::parse("", STATUS, STAT), None);
    }

    #[test]
    fn this_kernel_has_a_scanner_or_hides_it() {
        if let Some(pid) = scanner() {
            assert!(crate::guests::cpu_time(pid).is_ok(), "{pid}");
        }
    }
}
