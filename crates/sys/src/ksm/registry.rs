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
/// This byte is locked by every process that may have merged pages, together: a member that leaves because its process
/// ends has them until then.
const PAGES: i64 = 2;
/// How long the door is waited for: whoever leaves last may have to wait for the kernel's scanner. Much shorter than
/// anybody waits for the answer to an order.
const DOOR_BOUND: Duration = Duration::from_secs(2);
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
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    Outside,
    Joined(Domain, Member),
    /// The process ends.
    Over,
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
    /// The domain before has no members any more, but one of them has not ended.
    #[error("a VM that shared pages is ending, and its pages are merged until then: try again")]
    Ending,
    /// This process has left for good.
    #[error("this VM is ending")]
    Over,
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
    /// Its process ends at once, and its merged pages with it. Until then nobody but members can join, which takes a
    /// registry that stays open as long.
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
        let standing = Standing::Outside;
        Ok(Self { root: root.clone(), folder, lock, record, controls, standing })
    }

    /// Joins a domain: the caller's memory may be mergeable from then on. Whoever joins first changes the settings.
    ///
    /// # Errors
    /// Another domain holds the host, or the kernel refused.
    pub fn join(&mut self, domain: &Domain, member: &Member) -> Result<(), RefusedJoin> {
        match &self.standing {
            Standing::Joined(joined, _) if joined == domain => return Ok(()),
            Standing::Joined(joined, _) => return Err(RefusedJoin::Member(joined.clone())),
            Standing::Over => return Err(RefusedJoin::Over),
            Standing::Outside => {}
        }
        let until = Instant::now() + DOOR_BOUND;
        loop {
            match self.try_join(domain, member) {
                // A process that ends does not take long.
                Err(RefusedJoin::Ending) if Instant::now() < until => thread::sleep(DOOR_POLL),
                Err(refused) => return Err(refused),
                Ok(()) => break,
            }
        }
        self.standing = Standing::Joined(domain.clone(), member.clone());
        Ok(())
    }

    /// Leaves the domain, if it was joined: the caller's memory is not mergeable any more, or gone. Whoever leaves last
    /// puts the settings back. After a departure with the process nothing can be joined any more.
    ///
    /// # Errors
    /// The settings could not be put back. The domain was left all the same.
    pub fn leave(&mut self, departure: Departure) -> Result<(), LeaveError> {
        let after = match (departure, &self.standing) {
            (Departure::Unmerged, Standing::Outside | Standing::Joined(..)) => Standing::Outside,
            (Departure::Ending, _) | (_, Standing::Over) => Standing::Over,
        };
        let Standing::Joined(_, member) = std::mem::replace(&mut self.standing, after) else { return Ok(()) };
        let door = self.enter()?;
        let left = match door {
            Some(_) => self.leave_domain(&member, departure),
            None => Err(LeaveError::Busy),
        };
        lock::set(&self.lock, MEMBERS, Kind::Free)?;
        if departure == Departure::Unmerged {
            lock::set(&self.lock, PAGES, Kind::Free)?;
        }
        left
    }

    /// Whether this process is a member of a domain.
    pub fn is_member(&self) -> bool {
        matches!(self.standing, Standing::Joined(..))
    }

    /// How often the kernel has looked at all mergeable memory.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn full_scans(&self) -> io::Result<u64> {
        self.controls.full_scans()
    }

    /// Settings that the last member of a domain has left behind because it was killed. `None`: there are none, or
    /// somebody holds the host. Takes no lock: whoever joins or leaves meanwhile does not notice.
    pub fn leftovers(root: &Root) -> Option<Leftovers> {
        let folder = root.as_ref().join(REGISTRY);
        let lock = File::open(folder.join(LOCK)).ok()?;
        let file = File::open(folder.join(RECORD)).ok()?;
        let record = Record::read(&file).ok()??;
        let is_held = lock::is_held(&lock, MEMBERS).ok()?;
        // A member clears its record before it lets go: one that was there before and after the look, while nobody held
        // the host, is nobody's.
        let is_same = Record::read(&file).ok()?.as_ref() == Some(&record);
        (!is_held && is_same).then_some(Leftovers { saved: record.saved })
    }

    /// Puts back the settings that the last member of a domain has left behind. Whether there were any: nothing happens
    /// while somebody holds the host.
    ///
    /// # Errors
    /// Somebody joins or leaves, or the kernel refused.
    pub fn put_leftovers_back(&self) -> Result<bool, LeaveError> {
        let _door = self.enter()?.ok_or(LeaveError::Busy)?;
        let Some(record) = Record::read(&self.record)? else { return Ok(false) };
        if !lock::set(&self.lock, MEMBERS, Kind::Exclusive)? {
            return Ok(false);
        }
        let restored = self.put_back(&record.saved, Departure::Unmerged);
        lock::set(&self.lock, MEMBERS, Kind::Free)?;
        Ok(restored.map(|()| true)?)
    }

    fn try_join(&self, domain: &Domain, member: &Member) -> Result<(), RefusedJoin> {
        let _door = self.enter()?.ok_or(RefusedJoin::Busy)?;
        self.check_in_place()?;
        let record = Record::read(&self.record)?;
        let joined = if lock::set(&self.lock, MEMBERS, Kind::Exclusive)? {
            self.join_first(record, domain, member)
        } else {
            self.join_others(record, domain, member)
        };
        joined.inspect_err(|_| {
            for byte in [MEMBERS, PAGES] {
                // The lock is this file's own: the kernel cannot refuse to take it back.
                let _ = lock::set(&self.lock, byte, Kind::Free);
            }
        })
    }

    /// Behind the door. Nobody sees a record without a lock while its settings hold.
    fn leave_domain(&self, member: &Member, departure: Departure) -> Result<(), LeaveError> {
        let Some(mut record) = Record::read(&self.record)? else { return Ok(()) };
        if lock::set(&self.lock, MEMBERS, Kind::Exclusive)? {
            return Ok(self.put_back(&record.saved, departure)?);
        }
        record.members.retain(|other| other != member);
        Ok(record.write(&self.record)?)
    }

    fn join_first(
        &self,
        record: Option<Record>,
        domain: &Domain,
        member: &Member,
    ) -> Result<(), RefusedJoin> {
        if !lock::set(&self.lock, PAGES, Kind::Exclusive)? {
            return Err(RefusedJoin::Ending);
        }
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
        for byte in [MEMBERS, PAGES] {
            // What is locked for one alone can be shared at any time.
            lock::set(&self.lock, byte, Kind::Shared)?;
        }
        Ok(())
    }

    fn join_others(
        &self,
        record: Option<Record>,
        domain: &Domain,
        member: &Member,
    ) -> Result<(), RefusedJoin> {
        let mut record = record.ok_or_else(|| RefusedJoin::Unknown(self.folder.join(RECORD)))?;
        // Numbers of processes tell apart those of one container, and several may see the same registry.
        if record.domain != *domain || matches!(domain, Domain::Process(_)) {
            return Err(RefusedJoin::Held { holder: self.holder(&record), domain: record.domain });
        }
        for byte in [MEMBERS, PAGES] {
            if !lock::set(&self.lock, byte, Kind::Shared)? {
                // Only one who joins first or leaves last has these bytes alone, and is behind the door with them.
                return Err(RefusedJoin::Busy);
            }
        }
        // The first one may have been killed between its record and the settings.
        self.controls.set()?;
        record.add(member.clone());
        Ok(record.write(&self.record)?)
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
