//! The kernel's files about this process's memory, opened while paths can still be opened.

use std::io;
use std::ops::Range;

use napa_sys::cgroup::GroupFiles;
use napa_sys::host::{Root, Swap, SwapKind};
use napa_sys::own_memory::{MappingSums, Pagemap, TextFile};
use napa_units::{Bytes, Pages};

use super::swap_kinds::Zswap;

/// What a ledger is read from.
#[derive(Debug)]
pub struct Sensors {
    pub(crate) pagemap: Pagemap,
    smaps: Option<TextFile>,
    /// Linux 6.1 and newer; what it says of merged pages is as of KSM's last round.
    ksm_merging_pages: Option<TextFile>,
    swaps: Option<TextFile>,
    meminfo: Option<TextFile>,
    stat: Option<TextFile>,
    group: GroupFiles,
}

impl Sensors {
    /// Opens them. `group` is this process's own control group; it has no files where there is none.
    ///
    /// # Errors
    /// The kernel does not show this process its own pages.
    pub fn open(root: &Root, group: GroupFiles) -> io::Result<Self> {
        let file = |path| TextFile::open(root, path);
        Ok(Self {
            pagemap: Pagemap::open(root)?,
            smaps: file("proc/self/smaps"),
            ksm_merging_pages: file("proc/self/ksm_merging_pages"),
            swaps: file("proc/swaps"),
            meminfo: file("proc/meminfo"),
            stat: file("proc/self/stat"),
            group,
        })
    }

    /// What the mappings in these ranges of addresses hold.
    pub(super) fn mappings(&self, ranges: &[Range<u64>]) -> Option<MappingSums> {
        let text = self.smaps.as_ref()?.text().ok()?;
        Some(MappingSums::of(&text, ranges))
    }

    /// Pages of this process that KSM has merged.
    pub(super) fn merged(&self) -> Option<Pages> {
        let text = self.ksm_merging_pages.as_ref()?.text().ok()?;
        text.trim().parse().ok().map(Pages)
    }

    /// The host's swap areas, in the order of their numbers.
    pub fn swap_areas(&self) -> Vec<Swap> {
        let text = self.swaps.as_ref().and_then(|file| file.text().ok());
        text.map(|text| Swap::of(&text)).unwrap_or_default()
    }

    /// What zswap holds of what went to these areas.
    pub(super) fn zswap(&self, areas: &[Swap]) -> Zswap {
        if let Some(held) = self.group.memory().and_then(|memory| memory.zswapped) {
            return Zswap::OfGroup { held };
        }
        let held = self.meminfo.as_ref().and_then(|file| file.number("Zswapped")).unwrap_or(0);
        let on_disks = areas.iter().filter(|area| area.kind != SwapKind::Zram);
        match held {
            0 => Zswap::Empty,
            held => Zswap::OfHost {
                held: Bytes(held.saturating_mul(1024)),
                used: Bytes(on_disks.map(|area| area.used.0).sum()),
            },
        }
    }

    /// How often this process has waited for a page to come from a disk or from swap.
    pub fn major_faults(&self) -> Option<u64> {
        field(&self.stat.as_ref()?.text().ok()?, 12)
    }

    /// What this process has in memory, of the guest and its own.
    pub fn resident(&self) -> Option<Pages> {
        field(&self.stat.as_ref()?.text().ok()?, 24).map(Pages)
    }
}

/// A number behind the name, which is field 2 and may hold anything (proc_pid_stat(5)).
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensors(files: &[(&str, &str)]) -> Sensors {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/self/pagemap", "")].iter().chain(files) {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Sensors::open(&Root::at(folder.path()), GroupFiles::open(&folder.path().join("group"))).unwrap()
    }

    #[test]
    fn the_kernels_files_are_read() {
        let swaps = "Filename Type Size Used Priority\n/dev/zram0 partition 8 4 1\n/swap file 8 4 -2\n";
        let host = sensors(&[
            ("proc/self/smaps", "1000-2000 rw-p\nRss: 4 kB\nKSM: 4 kB\n"),
            ("proc/self/ksm_merging_pages", "12\n"),
            ("proc/self/stat", "7 (a) b) S 1 1 1 0 -1 4194304 9 0 31 0 1 1 5 5 20 0 1 0 100 4096 512 0"),
            ("proc/swaps", swaps),
            ("proc/meminfo", "MemTotal: 9 kB\nZswap: 1 kB\nZswapped: 2 kB\n"),
        ]);
        assert_eq!(
            host.mappings(std::slice::from_ref(&(0x1000..0x1001))).unwrap().merged,
            Some(Bytes::kib(4))
        );
        assert_eq!((host.merged(), host.major_faults()), (Some(Pages(12)), Some(31)));
        assert_eq!(host.resident(), Some(Pages(512)));
        assert_eq!(host.swap_areas().len(), 2);
        let zswap = Zswap::OfHost { held: Bytes::kib(2), used: Bytes::kib(4) };
        assert_eq!(host.zswap(&host.swap_areas()), zswap);
    }

    #[test]
    fn a_kernel_that_says_less_is_fine() {
        let host = sensors(&[("proc/swaps", "nonsense"), ("proc/self/stat", "7 (napa S 1")]);
        assert_eq!((host.mappings(&[]), host.merged(), host.major_faults()), (None, None, None));
        assert_eq!((host.swap_areas(), host.zswap(&[])), (vec![], Zswap::Empty));
        assert!(Sensors::open(&Root::at("/absent"), GroupFiles::default()).is_err());
    }

    #[test]
    fn a_group_of_its_own_knows_its_part_of_zswap() {
        let meminfo = ("proc/meminfo", "Zswapped: 400 kB\n");
        let current = ("group/memory.current", "8192\n");
        let of_group =
            sensors(&[meminfo, current, ("group/memory.stat", "anon 1\nzswap 100\nzswapped 12288\n")]);
        assert_eq!(of_group.zswap(&[]), Zswap::OfGroup { held: Bytes(12288) });
        // Before Linux 5.19 groups do not count it.
        let of_host = sensors(&[meminfo, current, ("group/memory.stat", "anon 1\n")]);
        assert_eq!(of_host.zswap(&[]), Zswap::OfHost { held: Bytes::kib(400), used: Bytes(0) });
    }
}
