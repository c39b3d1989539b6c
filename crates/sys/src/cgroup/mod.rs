//! A control group of a VM's own (Documentation/admin-guide/cgroup-v2.rst).
//!
//! [`Group::enter`] makes the group and moves this process into it, all threads included; dropping it moves the
//! process back and removes what napa made, now or for an earlier VM. A group that somebody else made keeps its rules,
//! but for those that were asked for, and stays. What a VM wants to read or write later is opened on entering
//! ([`GroupFiles`], [`Protection`]), because its sandbox closes after that.

mod files;
mod hierarchy;
mod mark;
mod protection;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use napa_units::Bytes;

pub use self::files::{GroupEvents, GroupFiles, GroupMemory};
use self::hierarchy::{Controller, Hierarchy, enable_memory};
use self::mark::{is_marked, mark};
pub use self::protection::Protection;
use crate::host::Root;

/// Attempts to make folders whose parents another VM may be removing at the same time.
const MAKE_ATTEMPTS_MAX: usize = 3;

/// What the kernel is told about the memory of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryRules {
    /// Memory that is not taken from the group while others have some to give (`memory.low`).
    pub low: Option<Bytes>,
    /// The most that the group may have in swap (`memory.swap.max`).
    pub swap_max: Option<Bytes>,
}

/// The group that this process is in, until it is dropped.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    /// Folders that napa made, now or for an earlier VM, the deepest last.
    made: Vec<PathBuf>,
    /// `None`: nothing is protected, or by rules that stay.
    protection: Option<Protection>,
    /// `cgroup.procs` of the group that this process came from; `None` before it has left.
    home: Option<File>,
    files: GroupFiles,
}

/// Why a VM could not have its group.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The host has no control groups of version 2.
    #[error("this host has no control groups of version 2: mount -t cgroup2 none /sys/fs/cgroup")]
    NoHierarchy,
    /// The memory controller does not reach the group.
    #[error(
        "{} does not name the memory controller, which --memory-low and --swap-max need: {mend}",
        .file.display()
    )]
    NoController {
        /// The file that should name it.
        file: PathBuf,
        /// What to do.
        mend: &'static str,
    },
    /// A file or folder of the hierarchy refused.
    #[error("cannot {what} {}: {source}; {mend}", .path.display())]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
        /// What to do.
        mend: String,
    },
    /// Somebody else is in the group.
    #[error("{} holds process {process}: give each VM a group of its own", .folder.display())]
    Occupied {
        /// The group.
        folder: PathBuf,
        /// One of its processes.
        process: String,
    },
}

impl Group {
    /// Makes the group at `path` below the root of the hierarchy, if it is not there, and moves this process into it.
    /// Its parents get the memory controller where they can.
    ///
    /// # Errors
    /// There is no such hierarchy, no right to it, or no memory controller although `rules` need it; nothing is left
    /// behind.
    pub fn enter(root: &Root, path: &Path, rules: MemoryRules) -> Result<Self, GroupError> {
        let hierarchy = Hierarchy::find(root).ok_or(GroupError::NoHierarchy)?;
        let folder = hierarchy.folder(path);
        let mut group =
            Self { folder, made: Vec::new(), protection: None, home: None, files: GroupFiles::default() };
        // From here on, dropping it takes back what was done.
        match group.make(&hierarchy, path)? {
            Controller::Enabled => group.set(rules)?,
            Controller::Absent(error) if rules != MemoryRules::default() => return Err(error),
            Controller::Absent(_) => {}
        }
        group.files = GroupFiles::open(&group.folder);
        group.go_in(&hierarchy.home(root))?;
        Ok(group)
    }

    /// The group's files that were opened.
    pub fn files(&self) -> GroupFiles {
        self.files.clone()
    }

    /// The folders out of which folders are removed at the end.
    pub fn folders_of_removed(&self) -> impl Iterator<Item = &Path> {
        self.made.iter().filter_map(|folder| folder.parent())
    }

    fn make(&mut self, hierarchy: &Hierarchy, path: &Path) -> Result<Controller, GroupError> {
        let mut attempts = 1;
        loop {
            match self.make_folders(hierarchy, path) {
                Err(GroupError::Refused { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempts < MAKE_ATTEMPTS_MAX =>
                {
                    attempts += 1;
                }
                other => return other,
            }
        }
    }

    fn make_folders(&mut self, hierarchy: &Hierarchy, path: &Path) -> Result<Controller, GroupError> {
        let mut controller = Controller::Enabled;
        let mut folder = hierarchy.top().to_owned();
        for name in path {
            controller = controller.and_then(|| enable_memory(&folder));
            folder.push(name);
            self.make_folder(&folder)?;
        }
        self.refuse_others()?;
        Ok(controller)
    }

    fn make_folder(&mut self, folder: &Path) -> Result<(), GroupError> {
        let is_made = match fs::create_dir(folder) {
            Ok(()) => {
                mark(folder);
                true
            }
            // What a killed VM left is as good as new, and is removed like it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => is_marked(folder),
            Err(source) => return Err(refused("make the group", folder, source)),
        };
        if is_made && !self.made.iter().any(|made| made == folder) {
            self.made.push(folder.to_owned());
        }
        Ok(())
    }

    fn refuse_others(&mut self) -> Result<(), GroupError> {
        let path = self.folder.join("cgroup.procs");
        let processes = fs::read_to_string(&path).map_err(|source| refused("read", &path, source))?;
        let own = std::process::id().to_string();
        match processes.lines().find(|process| *process != own) {
            None => Ok(()),
            Some(process) => {
                // It is theirs.
                self.made.retain(|folder| *folder != self.folder);
                Err(GroupError::Occupied { folder: self.folder.clone(), process: process.to_owned() })
            }
        }
    }

    fn set(&mut self, rules: MemoryRules) -> Result<(), GroupError> {
        match self.made.contains(&self.folder) {
            true => {
                // An earlier VM may have left rules.
                self.protection = Some(self.protect(rules.low.unwrap_or_default())?);
                self.write_swap_max(rules.swap_max)
            }
            false => {
                rules.low.map(|low| self.protect(low)).transpose()?;
                rules.swap_max.map_or(Ok(()), |limit| self.write_swap_max(Some(limit)))
            }
        }
    }

    fn protect(&self, low: Bytes) -> Result<Protection, GroupError> {
        let path = self.folder.join("memory.low");
        Protection::add(&self.folder, low).map_err(|source| refused("write", &path, source))
    }

    /// A kernel that does not count swap has no such file, and then no limit can be had.
    fn write_swap_max(&self, limit: Option<Bytes>) -> Result<(), GroupError> {
        let name = "memory.swap.max";
        match limit {
            Some(limit) => self.write(name, &limit.0.to_string()),
            None if self.folder.join(name).exists() => self.write(name, "max"),
            None => Ok(()),
        }
    }

    fn write(&self, name: &str, value: &str) -> Result<(), GroupError> {
        let path = self.folder.join(name);
        write(&path, value).map_err(|source| refused("write", &path, source))
    }

    fn go_in(&mut self, home: &Path) -> Result<(), GroupError> {
        let home = home.join("cgroup.procs");
        let way_back = fs::OpenOptions::new()
            .write(true)
            .open(&home)
            .map_err(|source| refused("open, to leave the group at the end,", &home, source))?;
        self.write("cgroup.procs", "0")?;
        self.home = Some(way_back);
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(mut home) = self.home.take() {
            // A group that cannot be left stays; the next VM of this name takes it.
            let _ = io::Write::write_all(&mut home, b"0");
        }
        if let Some(protection) = &self.protection {
            protection.remove();
        }
        for folder in self.made.iter().rev() {
            // One that holds other groups by now stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Writes to a file of the hierarchy, which is never made by that.
fn write(path: &Path, value: &str) -> io::Result<()> {
    io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(path)?, value.as_bytes())
}

fn refused(what: &'static str, path: &Path, source: io::Error) -> GroupError {
    let mend = match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "run napa as root, or as a service of your own with --cgroup below the service's group: systemd-run --user \
             --pty -p Delegate=yes -p DelegateSubgroup=main napa run ..."
        }
        io::ErrorKind::ResourceBusy => {
            "the group's parent holds processes, or the group holds other groups: name one below a group that does not"
        }
        io::ErrorKind::NotFound => "the kernel does not offer it: boot with swapaccount=1, or a newer kernel",
        io::ErrorKind::InvalidInput => "name a group that is not a threaded one",
        _ => "napa doctor tells more",
    };
    GroupError::Refused { what, path: path.to_owned(), source, mend: mend.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Fixture;

    #[test]
    fn a_host_without_version_2_is_told_apart() {
        let host = Fixture::new(&[("sys/fs/cgroup/memory/tasks", "")]);
        let error = Group::enter(&host.root(), Path::new("napa/vm"), MemoryRules::default()).unwrap_err();
        assert!(matches!(error, GroupError::NoHierarchy), "{error}");
    }

    #[test]
    fn rules_need_the_controller_and_nothing_is_left_without() {
        let host = Fixture::new(&[
            ("sys/fs/cgroup/cgroup.controllers", "cpu\n"),
            ("sys/fs/cgroup/napa/vm/cgroup.procs", ""),
            ("proc/self/cgroup", "0::/\n"),
        ]);
        let rules = MemoryRules { low: Some(Bytes::mib(1)), ..MemoryRules::default() };
        let error = Group::enter(&host.root(), Path::new("napa/vm"), rules).unwrap_err().to_string();
        assert!(error.contains("cgroup.controllers does not name the memory controller"), "{error}");
        assert!(error.contains("cgroup_enable=memory"), "{error}");
    }

    /// A hierarchy with the memory controller in which `napa/vm` was there before, with rules.
    fn with_rules() -> Fixture {
        let (controllers, subtree) = ("cgroup.controllers", "cgroup.subtree_control");
        let [top, napa] = ["sys/fs/cgroup", "sys/fs/cgroup/napa"];
        let vm = |name: &str| format!("{napa}/vm/{name}");
        Fixture::new(&[
            (&format!("{top}/{controllers}"), "memory\n"),
            (&format!("{top}/{subtree}"), "memory\n"),
            (&format!("{top}/cgroup.procs"), ""),
            (&format!("{napa}/{subtree}"), "memory\n"),
            (&vm("cgroup.procs"), ""),
            (&vm("memory.low"), "70"),
            (&vm("memory.swap.max"), "800"),
            ("proc/self/cgroup", "0::/\n"),
        ])
    }

    fn rules_now(host: &Fixture) -> [Option<String>; 2] {
        ["memory.low", "memory.swap.max"]
            .map(|name| host.root().text(&format!("sys/fs/cgroup/napa/vm/{name}")))
    }

    #[test]
    fn a_group_that_somebody_else_made_keeps_its_rules_but_for_those_asked_for() {
        let low = |size| MemoryRules { low: Some(Bytes(size)), ..MemoryRules::default() };
        let swap_max = |size| MemoryRules { swap_max: Some(Bytes(size)), ..MemoryRules::default() };
        for (rules, expected) in [
            (MemoryRules::default(), ["70", "800"]),
            (low(50), ["50", "800"]),
            (swap_max(900), ["70", "900"]),
        ] {
            let host = with_rules();
            let group = Group::enter(&host.root(), Path::new("napa/vm"), rules).unwrap();
            assert_eq!(group.folders_of_removed().count(), 0);
            assert_eq!(rules_now(&host), expected.map(|text| Some(text.to_owned())));
            drop(group);
            assert_eq!(rules_now(&host), expected.map(|text| Some(text.to_owned())));
        }
    }

    #[test]
    fn a_group_that_a_killed_vm_left_begins_anew_and_is_removed_with_its_parent() {
        let host = with_rules();
        for folder in ["sys/fs/cgroup/napa", "sys/fs/cgroup/napa/vm"] {
            mark(&host.root().path(folder));
        }
        if !is_marked(&host.root().path("sys/fs/cgroup/napa")) {
            return println!("skipped: the file system has no extended attributes");
        }
        let group = Group::enter(&host.root(), Path::new("napa/vm"), MemoryRules::default()).unwrap();
        let [low, swap_max] = rules_now(&host);
        assert!(low.unwrap().starts_with('0') && swap_max.as_deref() == Some("max"));
        let top = host.root().path("sys/fs/cgroup");
        assert_eq!(group.folders_of_removed().collect::<Vec<_>>(), [&top, &top.join("napa")]);
    }

    #[test]
    fn a_group_of_somebody_else_is_left_alone() {
        let host = Fixture::new(&[
            ("sys/fs/cgroup/cgroup.controllers", "cpu\n"),
            ("sys/fs/cgroup/napa/vm/cgroup.procs", "1\n"),
        ]);
        let error = Group::enter(&host.root(), Path::new("napa/vm"), MemoryRules::default()).unwrap_err();
        assert!(error.to_string().contains("holds process 1: give each VM"), "{error}");
        assert!(host.root().exists("sys/fs/cgroup/napa/vm/cgroup.procs"));
    }
}
