//! What a group's files tell about its memory, and the one that takes memory from it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use napa_units::Bytes;

use crate::host::Pressure;

/// The longest file that is read, in bytes; `memory.stat` has about two thousand.
const FILE_BYTES_MAX: usize = 16 << 10;

/// Files of one group, open. Those that its kernel does not have are left out.
#[derive(Clone, Debug, Default)]
pub struct GroupFiles {
    files: Arc<Files>,
}

#[derive(Debug, Default)]
struct Files {
    current: Option<File>,
    swap: Option<File>,
    swap_max: Option<File>,
    zswap: Option<File>,
    stat: Option<File>,
    pressure: Option<File>,
    events: Option<File>,
    reclaim: Option<File>,
}

/// The memory of a group at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupMemory {
    /// Memory charged to the group, the kernel's own for it included.
    pub current: Bytes,
    /// What it has in swap. `None`: the kernel does not count it.
    pub swap: Option<Bytes>,
    /// The most that it may have in swap. `None`: there is no limit but the host's.
    pub swap_max: Option<Bytes>,
    /// What its pages in swap take in compressed memory. `None`: the kernel has no zswap.
    pub zswap: Option<Bytes>,
    /// What its pages in zswap held before compression. `None`: the kernel does not count it for groups.
    pub zswapped: Option<Bytes>,
    /// Anonymous memory, which guest RAM is.
    pub anonymous: Bytes,
    /// Pages that came back from swap soon after they went, ever (`workingset_refault_anon`).
    pub refaults: u64,
    /// Page faults that had to wait for a disk, ever.
    pub major_faults: u64,
    /// Time lost for want of memory. `None`: the kernel does not measure it.
    pub pressure: Option<Pressure>,
    /// How often limits made themselves felt.
    pub events: GroupEvents,
}

/// Counts of `memory.events`, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupEvents {
    /// Memory was taken although the group was below `memory.low`.
    pub low: u64,
    /// The group was throttled at `memory.high`.
    pub high: u64,
    /// The group came to `memory.max`.
    pub max: u64,
    /// The group was out of memory.
    pub oom: u64,
    /// Processes of the group were killed for it.
    pub oom_kill: u64,
}

impl GroupFiles {
    /// Opens what there is in a group's folder.
    pub fn open(folder: &Path) -> Self {
        let read = |name| File::open(folder.join(name)).ok();
        let files = Files {
            current: read("memory.current"),
            swap: read("memory.swap.current"),
            swap_max: read("memory.swap.max"),
            zswap: read("memory.zswap.current"),
            stat: read("memory.stat"),
            pressure: read("memory.pressure"),
            events: read("memory.events"),
            reclaim: std::fs::OpenOptions::new().write(true).open(folder.join("memory.reclaim")).ok(),
        };
        Self { files: Arc::new(files) }
    }

    /// The group's memory now. `None`: the memory controller does not look after the group.
    pub fn memory(&self) -> Option<GroupMemory> {
        let files = &*self.files;
        let stat = text(files.stat.as_ref()).unwrap_or_default();
        let events = text(files.events.as_ref()).unwrap_or_default();
        let size = |file: &Option<File>| text(file.as_ref())?.trim().parse().ok().map(Bytes);
        let event = |name| entry(&events, name).unwrap_or(0);
        Some(GroupMemory {
            current: size(&files.current)?,
            swap: size(&files.swap),
            swap_max: size(&files.swap_max),
            zswap: size(&files.zswap),
            zswapped: entry(&stat, "zswapped").map(Bytes),
            anonymous: Bytes(entry(&stat, "anon").unwrap_or(0)),
            refaults: entry(&stat, "workingset_refault_anon").unwrap_or(0),
            major_faults: entry(&stat, "pgmajfault").unwrap_or(0),
            pressure: text(files.pressure.as_ref()).as_deref().and_then(Pressure::parse),
            events: GroupEvents {
                low: event("low"),
                high: event("high"),
                max: event("max"),
                oom: event("oom"),
                oom_kill: event("oom_kill"),
            },
        })
    }

    /// Whether the kernel takes memory from the group on request (Linux 5.19).
    pub fn can_reclaim(&self) -> bool {
        self.files.reclaim.is_some()
    }

    /// Writes to `memory.reclaim`: `size` bytes, with more words where the kernel knows them.
    ///
    /// # Errors
    /// `EAGAIN`: less than that was taken. `EINTR`: a signal came before it was. `EINVAL`: the kernel does not know the
    /// words.
    pub fn reclaim(&self, size: Bytes, words: &str) -> io::Result<()> {
        let file = self.files.reclaim.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let line = format!("{}{words}", size.0);
        // Once: after a signal it is not for the kernel to begin again.
        io::Write::write(&mut &*file, line.as_bytes()).map(drop)
    }
}

fn text(file: Option<&File>) -> Option<String> {
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let length = file?.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

/// The number behind a name at the beginning of a line.
fn entry(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Fixture;

    const STAT: &str =
        "anon 4096\nfile 7\nanon_thp 9\nzswap 100\nzswapped 8192\nworkingset_refault_anon 3\npgmajfault 5\n";

    #[test]
    fn a_group_is_read_from_its_files() {
        let host = Fixture::new(&[
            ("memory.current", "8192\n"),
            ("memory.swap.current", "12288\n"),
            ("memory.swap.max", "max\n"),
            ("memory.stat", STAT),
            ("memory.events", "low 1\nhigh 0\nmax 2\noom 0\noom_kill 0\n"),
            ("memory.reclaim", ""),
        ]);
        let files = GroupFiles::open(&host.root().path(""));
        let expected = GroupMemory {
            current: Bytes(8192),
            swap: Some(Bytes(12288)),
            swap_max: None,
            zswap: None,
            zswapped: Some(Bytes(8192)),
            anonymous: Bytes(4096),
            refaults: 3,
            major_faults: 5,
            pressure: None,
            events: GroupEvents { low: 1, max: 2, ..GroupEvents::default() },
        };
        assert_eq!(files.memory(), Some(expected));
        assert!(files.can_reclaim());
        files.reclaim(Bytes(4096), " swappiness=max").unwrap();
        assert_eq!(host.root().text("memory.reclaim").as_deref(), Some("4096 swappiness=max"));
    }

    #[test]
    fn a_group_without_the_controller_has_no_memory() {
        let host = Fixture::new(&[("memory.pressure", "some avg10=0\n")]);
        let files = GroupFiles::open(&host.root().path(""));
        assert_eq!(files.memory(), None);
        assert!(!files.can_reclaim() && files.reclaim(Bytes(1), "").is_err());
    }
}
