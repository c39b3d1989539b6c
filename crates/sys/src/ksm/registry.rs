//! Who holds the host's one tree of merged pages.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::REGISTRY;
use super::controls::{Controls, Settings};
use super::lock::{self, Kind};
use super::record::{Domain, Member, Record};
use crate::host::Root;

/// The file whose bytes are locked.
pub(super) const LOCK: &str = "lock";
/// The file that says what is locked.
const RECORD: &str = "record";
/// This byte is locked while somebody joins or leaves.
const DOOR: i64 = 0;
/// This byte is locked by every member, together.
const MEMBERS: i64 = 1;
/// How long the door is waited for: whoever leaves last may have to wait for the kernel's scanner.
const DOOR_BOUND: Duration = Duration::from_secs(10);
/// How often it is tried.
const DOOR_POLL: Duration = Duration::from_millis(5);

/// The registry of a host, open. All files are opened at once, so that a process can join and leave from within its
/// sandbox.
#[derive(Debug)]
pub struct Registry {
    root: Root,
    folder: PathBuf,
    lock: File,
    record: File,
    controls: Controls,
    joined: Option<(Domain, Member)>,
}

/// Why the registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel has no KSM.
    #[error("this kernel does not merge pages: boot one with CONFIG_KSM")]
    NoKsm,
    /// The settings belong to somebody else.
    #[error(
        "this user may not change the settings in /sys/kernel/mm/ksm, which hold for the whole host: run napa as root"
    )]
    Denied,
    /// The registry's own files cannot be made.
    #[error("cannot use {}, where VMs note who shares: {source}", .path.display())]
    Folder {
        /// What was attempted to open.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot use /sys/kernel/mm/ksm: {0}")]
    Sysfs(io::Error),
}

/// Why a domain could not be joined. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum RefusedJoin {
    /// Another domain holds the host.
    #[error(
        "pages of this host are shared by {domain} already ({holder}), and the kernel cannot keep two apart: give the \
         VM the same --share domain=NAME if they trust each other, or stop sharing there: napa share {} off",
        .holder.name
    )]
    Held {
        /// The domain.
        domain: Domain,
        /// One of its members.
        holder: Member,
    },
    /// Another domain holds the host, and has not said which.
    #[error(
        "pages of this host are shared by VMs whose record in {} cannot be read, and the kernel cannot keep two \
         domains apart: stop those VMs",
        .0.display()
    )]
    Unknown(PathBuf),
    /// This process is a member of another domain.
    #[error("this VM shares pages with {0} already")]
    Member(Domain),
    /// The registry's files are not those that were opened.
    #[error("{} was removed or replaced since this VM started: start the VM again", .0.display())]
    Replaced(PathBuf),
    /// Somebody joins or leaves, and does not get done.
    #[error("somebody has been joining or leaving a trust domain for {} seconds: try again later", DOOR_BOUND.as_secs())]
    Busy,
    /// The kernel refused.
    #[error("cannot set the kernel up to merge pages: {0}")]
    Io(#[from] io::Error),
}

/// Why the settings were not put back. The next VM that shares does it when it leaves.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// Somebody joins or leaves, and does not get done.
    #[error("somebody has been joining or leaving a trust domain for {} seconds", DOOR_BOUND.as_secs())]
    Busy,
    /// The kernel refused.
    #[error("cannot put the settings in /sys/kernel/mm/ksm back: {0}")]
    Io(#[from] io::Error),
}

/// How a member leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// None of its pages is merged any more.
    Unmerged,
    /// Its process ends at once, and its merged pages with it.
    Ending,
}

/// Settings of a domain that nobody holds any more: its last member was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    /// The settings as they were before.
    pub saved: Settings,
}

impl Registry {
    /// Opens the registry below `root`, and makes it if there is none.
    ///
    /// # Errors
    /// There is no KSM, or this user may not change its settings.
    pub fn open(root: &Root) -> Result<Self, OpenError> {
        let controls = Controls::open(root).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpenError::NoKsm,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::Denied,
            _ => OpenError::Sysfs(error),
        })?;
        let folder = root.as_ref().join(REGISTRY);
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Folder { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(refused(&folder))?;
        let open = |name: &str| {
            let path = folder.join(name);
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.open(&path).map_err(refused(&path))
        };
        let (lock, record) = (open(LOCK)?, open(RECORD)?);
        Ok(Self { root: root.clone(), folder, lock, record, controls, joined: None })
    }

    /// Joins a domain: the caller's memory may be mergeable from then on. Whoever joins first changes the settings.
    ///
    /// # Errors
    /// Another domain holds the host, or the kernel refused.
    pub fn join(&mut self, domain: &Domain, member: &Member) -> Result<(), RefusedJoin> {
        if let Some((joined, _)) = &self.joined {
            return if joined == domain { Ok(()) } else { Err(RefusedJoin::Member(joined.clone())) };
        }
        let door = self.enter()?.ok_or(RefusedJoin::Busy)?;
        self.check_in_place()?;
        let record = Record::read(&self.record)?;
        if lock::set(&self.lock, MEMBERS, Kind::Exclusive)? {
            self.join_first(record, domain, member).inspect_err(|_| {
                // The lock is this file's own: the kernel cannot refuse to take it back.
                let _ = lock::set(&self.lock, MEMBERS, Kind::Free);
            })?;
        } else {
            self.join_others(record, domain, member)?;
        }
        drop(door);
        self.joined = Some((domain.clone(), member.clone()));
        Ok(())
    }

    /// Leaves the domain, if it was joined: the caller's memory is not mergeable any more, or gone. Whoever leaves last
    /// puts the settings back.
    ///
    /// # Errors
    /// The settings could not be put back. The domain was left all the same.
    pub fn leave(&mut self, departure: Departure) -> Result<(), LeaveError> {
        let Some((_, member)) = self.joined.take() else { return Ok(()) };
        let door = self.enter()?;
        lock::set(&self.lock, MEMBERS, Kind::Free)?;
        let _door = door.ok_or(LeaveError::Busy)?;
        let Some(mut record) = Record::read(&self.record)? else { return Ok(()) };
        if !lock::set(&self.lock, MEMBERS, Kind::Exclusive)? {
            record.members.retain(|other| other.pid != member.pid);
            return Ok(record.write(&self.record)?);
        }
        let restored = self.put_back(&record.saved, departure);
        lock::set(&self.lock, MEMBERS, Kind::Free)?;
        Ok(restored?)
    }

    /// Whether this process is a member of a domain.
    pub fn is_member(&self) -> bool {
        self.joined.is_some()
    }

    /// How often the kernel has looked at all mergeable memory.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn full_scans(&self) -> io::Result<u64> {
        self.controls.full_scans()
    }

    /// Settings that the last member of a domain has left behind because it was killed. `None`: there are none, or
    /// somebody holds the host.
    pub fn leftovers(root: &Root) -> Option<Leftovers> {
        let folder = root.as_ref().join(REGISTRY);
        // A lock that keeps all others out needs a file that may be written to; asking does not.
        let lock = File::options().read(true).write(true).open(folder.join(LOCK)).ok()?;
        // Whoever joins meanwhile waits, and does not take this look for a member.
        lock::set(&lock, DOOR, Kind::Exclusive).ok()?.then_some(())?;
        let record = Record::read(&File::open(folder.join(RECORD)).ok()?).ok()??;
        let is_free = lock::set(&lock, MEMBERS, Kind::Exclusive).ok()?;
        is_free.then_some(Leftovers { saved: record.saved })
    }

    fn join_first(
        &self,
        record: Option<Record>,
        domain: &Domain,
        member: &Member,
    ) -> Result<(), RefusedJoin> {
        // The last member of the domain before was killed: what it saved is still how it was before.
        let saved = match record {
            Some(record) => record.saved,
            None => self.controls.save()?,
        };
        // Written before anything changes: whoever comes after a death at any point finds it.
        Record { domain: domain.clone(), members: vec![member.clone()], saved: saved.clone() }
            .write(&self.record)?;
        let set = self.controls.set();
        if let Err(error) = set {
            self.controls.restore(&saved)?;
            Record::clear(&self.record)?;
            return Err(error.into());
        }
        lock::set(&self.lock, MEMBERS, Kind::Shared)?;
        Ok(())
    }

    fn join_others(
        &self,
        record: Option<Record>,
        domain: &Domain,
        member: &Member,
    ) -> Result<(), RefusedJoin> {
        let mut record = record.ok_or_else(|| RefusedJoin::Unknown(self.folder.join(RECORD)))?;
        if record.domain != *domain {
            return Err(RefusedJoin::Held { holder: self.holder(&record), domain: record.domain });
        }
        if !lock::set(&self.lock, MEMBERS, Kind::Shared)? {
            // Only one who joins first or leaves last has this byte alone, and is behind the door with it.
            return Err(RefusedJoin::Busy);
        }
        // The first one may have been killed between its record and the settings.
        let written = self.controls.set().and_then(|()| {
            record.add(member.clone());
            record.write(&self.record)
        });
        written.inspect_err(|_| {
            // As above.
            let _ = lock::set(&self.lock, MEMBERS, Kind::Free);
        })?;
        Ok(())
    }

    fn put_back(&self, saved: &Settings, departure: Departure) -> io::Result<()> {
        let runs = saved.iter().any(|(name, value)| name == "run" && value == "1");
        if departure == Departure::Unmerged && !runs {
            // A scanner that stands still would keep its notes about the pages of this domain for ever.
            self.controls.unmerge_all()?;
        }
        self.controls.restore(saved)?;
        Record::clear(&self.record)
    }

    /// A member that lives, or the first one.
    fn holder(&self, record: &Record) -> Member {
        let lives = |member: &&Member| self.root.as_ref().join(format!("proc/{}", member.pid)).exists();
        let holder = record.members.iter().find(lives).or(record.members.first());
        holder.cloned().unwrap_or(Member { pid: 0, name: "unknown".into() })
    }

    /// Locks of a file that nobody else can find keep nobody out.
    fn check_in_place(&self) -> Result<(), RefusedJoin> {
        for (name, file) in [(LOCK, &self.lock), (RECORD, &self.record)] {
            let path = self.folder.join(name);
            let opened = file.metadata()?;
            let is_same =
                |found: std::fs::Metadata| (found.dev(), found.ino()) == (opened.dev(), opened.ino());
            if !path.metadata().is_ok_and(is_same) {
                return Err(RefusedJoin::Replaced(path));
            }
        }
        Ok(())
    }

    /// `None`: it does not open.
    fn enter(&self) -> io::Result<Option<Door>> {
        let until = Instant::now() + DOOR_BOUND;
        // A second handle of the same open file: its lock is the same lock.
        let file = self.lock.try_clone()?;
        while !lock::set(&file, DOOR, Kind::Exclusive)? {
            if Instant::now() > until {
                return Ok(None);
            }
            thread::sleep(DOOR_POLL);
        }
        Ok(Some(Door(file)))
    }
}

/// Held while the record and the settings change.
struct Door(File);

impl Drop for Door {
    fn drop(&mut self) {
        // The lock is this file's own: the kernel cannot refuse to take it back.
        let _ = lock::set(&self.0, DOOR, Kind::Free);
    }
}
