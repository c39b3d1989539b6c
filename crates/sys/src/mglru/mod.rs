//! The generations that the kernel sorts pages into by the time of their last access, the multi-generational LRU
//! (Documentation/admin-guide/mm/multigen_lru.rst).
//!
//! An order to age begins a new generation: the kernel looks at the page tables of the group's processes, and where KVM
//! runs a guest at those of the guest too, and moves what was accessed since the last look into the generation that was
//! the youngest until then. So what is in a generation that began at some time, or in a younger one, was accessed since.
//! Nothing is taken away and nothing has to be put back: only the order in which the kernel would take pages from this
//! one group is fresher than before.

mod group;
mod table;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use napa_units::{Bytes, Pages};

use self::table::Group;
use crate::host::Root;

const SETTING: &str = "sys/kernel/mm/lru_gen/enabled";
const DEBUG: &str = "sys/kernel/debug/lru_gen";
/// The first kernel whose aging looks at the page tables of guests too. On 6.1, of 32 MiB that a guest reads again and again
/// it has seen 32 KiB.
const SEEING: (u32, u32) = (6, 12);
/// Bits of the setting: generations are kept, and page tables looked at when memory ages.
const NEEDED: u64 = 0b11;
/// The kernel keeps four generations (`MAX_NR_GENS`): one more beside the two of a watch, and older pages have one left
/// to be in. With another they would be among those that are counted.
const FOREIGN_MAX: u64 = 1;

/// The generations of one process's memory, in a control group of its own.
#[derive(Debug)]
pub struct Mglru {
    file: PathBuf,
    path: String,
}

/// The generations that begin with a watch, one for each memory node.
#[derive(Debug)]
pub struct Watch(Vec<(u32, u64)>);

/// What was accessed during a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accessed {
    /// Anonymous memory of the group that was accessed.
    pub accessed: Bytes,
    /// All anonymous memory of the group.
    pub in_memory: Bytes,
}

/// Why the kernel does not tell.
#[derive(Debug, thiserror::Error)]
pub enum MglruError {
    /// The kernel has no such thing.
    #[error("this kernel keeps no generations of pages (CONFIG_LRU_GEN, Linux 6.1)")]
    Absent,
    /// It does not look at what guests access.
    #[error("this kernel's generations of pages do not see what guests access: boot Linux 6.12 or newer")]
    Blind,
    /// It is switched off, in whole or in part.
    #[error("the kernel keeps no generations of pages now: echo y | sudo tee /{SETTING}")]
    Off,
    /// The files are not there.
    #[error("the kernel's files for debugging are not there: sudo mount -t debugfs none /sys/kernel/debug")]
    NotMounted,
    /// This user may not use them.
    #[error("only root may have pages aged: run it with sudo")]
    Denied,
    /// Root may not either.
    #[error(
        "this kernel is locked down, and keeps its files for debugging from root too: boot with lockdown=none"
    )]
    LockedDown,
    /// There is no such process.
    #[error("process {0} has ended, or this one may not see it")]
    NoProcess(u32),
    /// The process shares its group with others.
    #[error(
        "process {process} has no control group of its own, it is in {path}: start the VM with --cgroup auto"
    )]
    NoGroup {
        /// The process.
        process: u32,
        /// Its group.
        path: String,
    },
    /// The memory is counted with that of another group.
    #[error(
        "the memory of group {0} is not counted by itself: give its parents the memory controller (echo +memory | sudo \
         tee PARENT/cgroup.subtree_control) before the VM starts"
    )]
    NotCounted(String),
    /// Other agings than ours came between.
    #[error("the kernel was short of memory and aged the group's pages itself meanwhile: try a shorter time")]
    Overtaken,
    /// A file refused.
    #[error("cannot {what} /{DEBUG}: {source}")]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Mglru {
    /// Whether the host has what it takes, as far as this user can see.
    ///
    /// # Errors
    /// The kernel has no such thing, it is off, or the files are not mounted.
    pub fn offered(root: &Root) -> Result<(), MglruError> {
        let setting = root.text(SETTING).ok_or(MglruError::Absent)?;
        if root.kernel_release().and_then(|release| version(&release)).is_none_or(|found| found < SEEING) {
            return Err(MglruError::Blind);
        }
        let bits = setting.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if bits.is_none_or(|bits| bits & NEEDED != NEEDED) {
            return Err(MglruError::Off);
        }
        match fs::metadata(root.path(DEBUG)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MglruError::NotMounted),
            // Whoever may not look at them cannot say that they are not there.
            _ => Ok(()),
        }
    }

    /// The generations of a process's memory.
    ///
    /// # Errors
    /// The host does not have what it takes, this user may not use it, or the process has no group of its own.
    pub fn of(root: &Root, process: u32) -> Result<Self, MglruError> {
        Self::offered(root)?;
        let found = Self { file: root.path(DEBUG), path: group::own_group(root, process)? };
        found.read()?;
        Ok(found)
    }

    /// Begins a generation: what is accessed from now on is told apart.
    ///
    /// # Errors
    /// The kernel refuses, or the group is gone.
    pub fn begin(&self) -> Result<Watch, MglruError> {
        let before = self.read()?;
        self.age(&before)?;
        let after = self.read()?;
        let youngest = after.nodes.iter().filter_map(|node| Some((node.id, node.youngest()?)));
        Ok(Watch(youngest.collect()))
    }

    /// What was accessed since then.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), or the kernel has aged the group's memory so often that it cannot tell any more.
    pub fn end(&self, watch: &Watch) -> Result<Accessed, MglruError> {
        self.age(&self.read()?)?;
        accessed(&self.read()?, watch)
    }

    fn read(&self) -> Result<Group, MglruError> {
        let text = fs::read_to_string(&self.file).map_err(|source| refused("read", source))?;
        table::find(&text, &self.path).ok_or_else(|| MglruError::NotCounted(self.path.clone()))
    }

    /// Has the youngest generation of each node aged, anonymous memory included also where there is no swap, and all of
    /// it looked at. An order that somebody has forestalled does nothing.
    fn age(&self, group: &Group) -> Result<(), MglruError> {
        for node in &group.nodes {
            let youngest = node.youngest().unwrap_or_default();
            let order = format!("+ {} {} {youngest} 1 1", group.id, node.id);
            let file = OpenOptions::new().write(true).open(&self.file);
            file.and_then(|mut file| file.write_all(order.as_bytes()))
                .map_err(|source| refused("write", source))?;
        }
        Ok(())
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn accessed(group: &Group, watch: &Watch) -> Result<Accessed, MglruError> {
    let (mut accessed, mut in_memory) = (Pages(0), Pages(0));
    for node in &group.nodes {
        // A node that has come meanwhile holds nothing from before.
        let begun = watch.0.iter().find(|(id, _)| *id == node.id).map_or(0, |(_, begun)| *begun);
        let own = begun + 1;
        if begun != 0 && node.youngest().unwrap_or_default() > own + FOREIGN_MAX {
            return Err(MglruError::Overtaken);
        }
        accessed.0 += node.anonymous_from(begun).0;
        in_memory.0 += node.anonymous_from(0).0;
    }
    Ok(Accessed { accessed: accessed.bytes(), in_memory: in_memory.bytes() })
}

fn refused(what: &'static str, source: io::Error) -> MglruError {
    match source.raw_os_error() {
        Some(libc::EACCES) => MglruError::Denied,
        Some(libc::EPERM) => MglruError::LockedDown,
        Some(libc::ENOENT) => MglruError::NotMounted,
        _ => MglruError::Refused { what, source },
    }
}

#[cfg(test)]
mod tests {
    use super::table::{Generation, Node};
    use super::*;
    use crate::host::root::Fixture;

    fn node(id: u32, generations: &[(u64, u64)]) -> Node {
        let generation = |&(number, pages): &(u64, u64)| Generation { number, anonymous: Pages(pages) };
        Node { id, generations: generations.iter().map(generation).collect() }
    }

    #[test]
    fn what_is_in_generations_since_the_beginning_was_accessed() {
        let watch = Watch(vec![(0, 4), (1, 9)]);
        let nodes = vec![node(0, &[(2, 100), (3, 20), (4, 8), (5, 2)]), node(1, &[(8, 50), (9, 5), (10, 0)])];
        let found = accessed(&Group { id: 3, nodes }, &watch).unwrap();
        assert_eq!(found.accessed, Pages(8 + 2 + 5).bytes());
        assert_eq!(found.in_memory, Pages(130 + 55).bytes());
    }

    #[test]
    fn one_aging_of_the_kernels_own_is_borne_and_two_are_not() {
        let watch = Watch(vec![(0, 4)]);
        let group = |generations: &[(u64, u64)]| Group { id: 3, nodes: vec![node(0, generations)] };
        let once = accessed(&group(&[(3, 100), (4, 8), (5, 2), (6, 1)]), &watch).unwrap();
        assert_eq!(once.accessed, Pages(11).bytes());
        let twice = accessed(&group(&[(4, 108), (5, 2), (6, 1), (7, 0)]), &watch).unwrap_err();
        assert!(matches!(twice, MglruError::Overtaken), "{twice}");
    }

    #[test]
    fn each_thing_that_is_missing_has_its_own_words() {
        let on = (SETTING, "0x0007\n");
        let new = ("proc/sys/kernel/osrelease", "6.12.118+deb13-cloud-amd64\n");
        let old = (new.0, "6.1.0-56-cloud-amd64\n");
        let group = ("proc/7/cgroup", "0::/napa/vm\n");
        let controllers = ("sys/fs/cgroup/cgroup.controllers", "memory\n");
        let processes = ("sys/fs/cgroup/napa/vm/cgroup.procs", "7\n");
        let table =
            (DEBUG, "memcg     3 /napa/vm\n node     0\n          5         60          9           0 \n");
        for (files, expected) in [
            (vec![], "CONFIG_LRU_GEN"),
            (vec![on, old], "Linux 6.12 or newer"),
            (vec![on], "Linux 6.12 or newer"),
            (vec![new, (SETTING, "0x0000\n")], "echo y | sudo tee /sys/kernel/mm/lru_gen/enabled"),
            (vec![new, (SETTING, "0x0005\n")], "echo y | sudo tee /sys/kernel/mm/lru_gen/enabled"),
            (vec![new, on], "mount -t debugfs none /sys/kernel/debug"),
            (vec![new, on, table], "process 7 has ended"),
            (vec![new, on, table, ("proc/7/cgroup", "0::/\n"), controllers], "--cgroup auto"),
            (vec![new, on, group, controllers, processes, (DEBUG, "memcg     1 /\n")], "+memory"),
        ] {
            let host = Fixture::new(&files);
            let error = Mglru::of(&host.root(), 7).unwrap_err().to_string();
            assert!(error.contains(expected), "{files:?}: {error}");
        }
        let whole = Fixture::new(&[new, on, group, controllers, processes, table]);
        let found = Mglru::of(&whole.root(), 7).unwrap();
        assert_eq!(found.path, "/napa/vm");
        // The file of a fixture takes the order and is no table any more.
        assert!(found.begin().is_err());
        assert!(whole.root().text(DEBUG).unwrap().starts_with("+ 3 0 5 1 1"));
    }
}
