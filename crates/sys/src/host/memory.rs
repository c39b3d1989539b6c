//! How much memory the host has, and how it promises it.

use napa_units::Bytes;

use super::Root;

/// Sizes of memory and swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of RAM that the kernel manages.
    pub total: Bytes,
    /// What can be used without swapping, by the kernel's estimate.
    pub available: Bytes,
    /// Swap of all kinds.
    pub swap_total: Bytes,
    /// Swap that holds nothing.
    pub swap_free: Bytes,
}

impl Memory {
    /// Reads `/proc/meminfo`.
    pub fn read(root: &Root) -> Option<Self> {
        let text = root.text("proc/meminfo")?;
        let size = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024).map(Bytes)
        };
        Some(Self {
            total: size("MemTotal")?,
            available: size("MemAvailable")?,
            swap_total: size("SwapTotal")?,
            swap_free: size("SwapFree")?,
        })
    }
}

/// Pages of one size that are reserved for hugetlbfs: nobody else can use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugePages {
    /// Size of a page.
    pub size: Bytes,
    /// Pages reserved.
    pub total: u64,
    /// Pages that nobody uses.
    pub free: u64,
}

impl HugePages {
    /// Reads `/sys/kernel/mm/hugepages`, smallest size first.
    pub fn read(root: &Root) -> Vec<Self> {
        let folder = "sys/kernel/mm/hugepages";
        let read = |name: String| {
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            Some(Self {
                size: Bytes(kib.checked_mul(1024)?),
                total: root.number(&format!("{folder}/{name}/nr_hugepages"))?,
                free: root.number(&format!("{folder}/{name}/free_hugepages"))?,
            })
        };
        let mut sizes: Vec<Self> = root.names(folder).into_iter().filter_map(read).collect();
        sizes.sort_by_key(|pages| pages.size);
        sizes
    }
}

/// How the kernel answers a request for more memory than there is (`vm.overcommit_memory`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OvercommitRule {
    /// Refuses what is obviously too much.
    Heuristic,
    /// Grants everything.
    Always,
    /// Grants no more than swap and a part of RAM.
    Never,
}

impl OvercommitRule {
    /// Reads `/proc/sys/vm/overcommit_memory`.
    pub fn read(root: &Root) -> Option<Self> {
        match root.number("proc/sys/vm/overcommit_memory")? {
            0 => Some(Self::Heuristic),
            1 => Some(Self::Always),
            2 => Some(Self::Never),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Fixture;
    use super::*;

    #[test]
    fn sizes_are_read_in_bytes() {
        let text =
            "MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable: 1024 kB\nSwapTotal: 4 kB\nSwapFree: 0 kB\n";
        let expected = Memory {
            total: Bytes::mib(2),
            available: Bytes::mib(1),
            swap_total: Bytes::kib(4),
            swap_free: Bytes(0),
        };
        assert_eq!(Memory::read(&Fixture::new(&[("proc/meminfo", text)]).root()), Some(expected));
        for broken in ["", "MemTotal: x kB\n", "MemTotal: 99999999999999999999 kB\n"] {
            assert_eq!(Memory::read(&Fixture::new(&[("proc/meminfo", broken)]).root()), None);
        }
    }

    #[test]
    fn huge_pages_are_listed_by_size() {
        let host = Fixture::new(&[
            ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0"),
            ("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "0"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "8"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "3"),
        ]);
        let small = HugePages { size: Bytes::mib(2), total: 8, free: 3 };
        let large = HugePages { size: Bytes::gib(1), total: 0, free: 0 };
        assert_eq!(HugePages::read(&host.root()), [small, large]);
    }

    #[test]
    fn the_overcommit_rule_has_three_places() {
        for (text, expected) in
            [("1", Some(OvercommitRule::Always)), ("2", Some(OvercommitRule::Never)), ("x", None)]
        {
            let host = Fixture::new(&[("proc/sys/vm/overcommit_memory", text)]);
            assert_eq!(OvercommitRule::read(&host.root()), expected);
        }
    }
}
