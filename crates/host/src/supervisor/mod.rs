//! The processes of the VMs: started, watched, started again, found again after the daemon's own restart.
//!
//! ```text
//!            start            answers            stop, kill
//!  resting --------> starting --------> running ------------> stopping
//!     ^                 |                  |                     |
//!     |                 +------------------+---------------------+ the process ends
//!     |        wait is over                                      v
//!     |  <------------------ waiting <--- started again? <------ ended
//!     +------------------------------------------- no ----------/
//! ```
//!
//! What is to happen is written to the [`Store`] before it happens: a start is noted, then the process is made, then its
//! number noted. A daemon that ends in between leaves enough for the next one to go on ([`adopt`]).
//!
//! Verbs never wait for a VM. One thread ([`watch`]) waits for ends, answers and deadlines of all of them.

mod admission;
mod adopt;
mod error;
mod folder;
mod logs;
mod process;
mod restart;
mod verbs;
mod vm;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use napa_api::host::{Event, VmDetail, VmSummary};
use rustix::event::epoll;
use tokio::sync::{broadcast, watch as change};

pub use admission::{Admission, AdmitAll, Promise};
pub use error::VerbError;
pub use folder::VmFolder;
pub use logs::Logs;
pub use vm::Groups;

use crate::guests::Subject;
use crate::state::{Store, StoreError};
use vm::Vm;

/// Events that a slow follower may fall behind before it misses some.
const EVENTS_MAX: usize = 256;

/// What a supervisor is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The state folder.
    pub state: PathBuf,
    /// The `napa` program, which runs VMs.
    pub program: PathBuf,
    /// Whether VMs have control groups of their own.
    pub groups: Groups,
}

/// Why a supervisor could not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host has no descriptor or thread left.
    #[error("cannot watch processes: {0}")]
    Watch(#[from] io::Error),
}

/// The VMs of a host. Dropping it ends the watching; the VMs run on.
pub struct Supervisor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What verbs and the watching thread share.
struct Shared {
    settings: Settings,
    inner: Mutex<Inner>,
    /// What the watching thread waits for.
    epoll: OwnedFd,
    /// Makes it look at everything.
    wake: OwnedFd,
    is_over: AtomicBool,
    events: broadcast::Sender<Event>,
    /// Counts changes, for those who wait for one.
    changes: change::Sender<u64>,
}

struct Inner {
    store: Store,
    admission: Box<dyn Admission>,
    vms: BTreeMap<String, Vm>,
}

impl Supervisor {
    /// Takes the VMs of a state folder over, which must be locked by then: finds those that run, notes those that ended,
    /// starts those that should run.
    ///
    /// # Errors
    /// The state cannot be read, or processes cannot be watched.
    pub fn begin(
        settings: Settings,
        store: Store,
        admission: Box<dyn Admission>,
    ) -> Result<Self, BeginError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let wake = rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )
        .map_err(io::Error::from)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(watch::WAKE), epoll::EventFlags::IN)
            .map_err(io::Error::from)?;
        let shared = Arc::new(Shared {
            settings,
            inner: Mutex::new(Inner { store, admission, vms: BTreeMap::new() }),
            epoll,
            wake,
            is_over: AtomicBool::new(false),
            events: broadcast::Sender::new(EVENTS_MAX),
            changes: change::Sender::new(0),
        });
        adopt::adopt(&shared)?;
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("supervisor".into()).spawn(move || watch::watch(&shared))?
        };
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Where others tell what happens.
    pub fn announcer(&self) -> broadcast::Sender<Event> {
        self.shared.events.clone()
    }

    /// Changes with every change of a VM.
    pub fn changes(&self) -> change::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// All VMs, by name.
    pub fn list(&self) -> Vec<VmSummary> {
        self.shared.lock().vms.values().map(Vm::summary).collect()
    }

    /// The VMs that run, for who decides about their memory; `top`: the root of the hierarchy of control groups.
    pub fn subjects(&self, top: Option<&Path>) -> Vec<Subject> {
        let groups = self.shared.settings.groups;
        self.shared.lock().vms.values().filter_map(|vm| vm.subject(groups, top)).collect()
    }

    /// All about one VM.
    ///
    /// # Errors
    /// There is none.
    pub fn detail(&self, name: &str) -> Result<VmDetail, VerbError> {
        self.shared.lock().find(name).map(|vm| vm.detail(self.shared.settings.groups))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // The counter would overflow after 2^64 calls that the thread did not see.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Has the watching thread look at a descriptor of a VM.
    fn register(&self, descriptor: impl AsFd, data: u64) -> io::Result<()> {
        epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(data), epoll::EventFlags::IN)
            .map_err(Into::into)
    }

    /// Tells followers that a VM does something else than before.
    fn changed(&self, vm: &Vm) {
        // There may be no followers.
        let _ = self.events.send(Event::Vm(vm.summary()));
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn removed(&self, name: &str) {
        let _ = self.events.send(Event::Removed { name: name.to_owned() });
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Inner {
    fn find(&self, name: &str) -> Result<&Vm, VerbError> {
        self.vms.get(name).ok_or_else(|| self.unknown(name))
    }

    fn find_mut(&mut self, name: &str) -> Result<&mut Vm, VerbError> {
        if !self.vms.contains_key(name) {
            return Err(self.unknown(name));
        }
        Ok(self.vms.get_mut(name).expect("it was looked up"))
    }

    fn unknown(&self, name: &str) -> VerbError {
        let names: Vec<&str> = self.vms.keys().map(String::as_str).collect();
        let hint = napa_api::config::nearest(name, &names);
        let hint = hint.map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default();
        VerbError::Unknown { name: name.chars().take(100).collect(), hint }
    }

    /// Writes the record of a VM as `change` makes it; in memory it changes only if it is on the disk.
    fn update(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut crate::state::Record),
    ) -> Result<(), VerbError> {
        let vm = self.find(name)?;
        let mut record = vm.record.clone();
        change(&mut record);
        self.store.put(&record)?;
        let vm = self.find_mut(name)?;
        vm.record = record;
        vm.is_unsaved = false;
        Ok(())
    }

    /// The same for what has happened already: the record changes in memory in any case, and is written later if the disk
    /// is full now.
    fn note(&mut self, name: &str, change: impl FnOnce(&mut crate::state::Record)) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        change(&mut vm.record);
        let written = self.store.put(&vm.record);
        vm.is_unsaved = written.is_err();
        if let Err(error) = written {
            crate::say(format_args!("VM {name}: {error}; it is tried again"));
        }
    }
}
