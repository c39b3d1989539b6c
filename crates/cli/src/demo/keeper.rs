//! Who keeps the fleet within its budget: the host's own policy, sensors and mechanisms, on a thread of this process, and
//! swap for what does not fit.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use napa_api::config::ShareConfig;
use napa_api::host::{Decided, Direction, HostReport, Level, VmMemoryRow};
use napa_host::tick::{Settings, Subject, Tick, Ticker};
use napa_policy::Kind;
use napa_sys::host::{Root, Swap};
use napa_sys::ksm::{Departure, Domain, Member, Registry, strangers};
use napa_sys::swap::SwapFile;
use napa_units::Bytes;

/// The name of the fleet's trust domain.
const DOMAIN: &str = "napa-demo";
/// Decisions that are remembered for a picture.
const DECISIONS_MAX: usize = 64;

/// Keeps a fleet within its budget until it is dropped.
pub struct Keeper {
    ticker: Ticker,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    subjects: Vec<Subject>,
    account: Account,
}

/// What was seen and done so far.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The newest report.
    pub report: Option<HostReport>,
    /// How long each level was held.
    pub at_level: BTreeMap<&'static str, Duration>,
    /// The most of the guests' memory that was in each state at one time.
    pub peaks: Peaks,
    /// What was ordered, by mechanism, in bytes.
    pub ordered: BTreeMap<String, Bytes>,
    /// The newest decisions, the newest first.
    pub decisions: VecDeque<Decided>,
}

/// The most at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// Merged with equal pages.
    pub shared: Bytes,
    /// In balloons.
    pub ballooned: Bytes,
    /// In swap.
    pub swapped: Bytes,
}

impl Account {
    /// Takes a report in.
    pub fn note(&mut self, report: HostReport) {
        if let Some(last) = &self.report {
            let held = Duration::from_millis(report.time.0.saturating_sub(last.time.0));
            *self.at_level.entry(last.level.name()).or_default() += held;
        }
        let sum = |size: fn(&VmMemoryRow) -> Bytes| Bytes(report.vms.iter().map(|vm| size(vm).0).sum());
        let Peaks { shared, ballooned, swapped } = &mut self.peaks;
        *shared = (*shared).max(sum(|vm| vm.shared));
        *ballooned = (*ballooned).max(sum(|vm| vm.ballooned));
        *swapped = (*swapped).max(sum(|vm| vm.swapped));
        for decided in &report.decisions {
            if decided.direction == Direction::Take {
                self.ordered.entry(decided.what.clone()).or_default().0 += decided.bytes.0;
            }
            self.decisions.push_front(decided.clone());
        }
        self.decisions.truncate(DECISIONS_MAX);
        self.report = Some(report);
    }

    /// What is known of a VM.
    pub fn row(&self, name: &str) -> Option<&VmMemoryRow> {
        self.report.as_ref()?.vms.iter().find(|vm| vm.name == name)
    }

    /// How scarce memory is.
    pub fn level(&self) -> Level {
        self.report.as_ref().map_or(Level::High, |report| report.level)
    }
}

impl Keeper {
    /// Begins to keep to `budget`.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub fn start(budget: Bytes, policy: Kind) -> std::io::Result<Self> {
        let settings = Settings { budget: Some(budget), reserve: None };
        let tick = Tick::new(settings, policy.start(), &Root::system());
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (asked, told) = (Arc::clone(&shared), Arc::clone(&shared));
        let ticker = Ticker::start(
            tick,
            move || lock(&asked).subjects.clone(),
            move |report| lock(&told).account.note(report),
        )?;
        Ok(Self { ticker, shared })
    }

    /// Which VMs there are from now on.
    pub fn look_after(&self, subjects: Vec<Subject>) {
        let mut shared = lock(&self.shared);
        if shared.subjects != subjects {
            shared.subjects = subjects;
            drop(shared);
            self.ticker.hurry();
        }
    }

    /// What was seen and done so far.
    pub fn account(&self) -> Account {
        lock(&self.shared).account.clone()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The trust domain of the fleet, in which its guests may share pages with each other. It is left with this.
pub struct OwnDomain(Registry);

impl OwnDomain {
    /// Joins it, so that nobody comes between the guests. `None`: this user may not merge pages, somebody else shares
    /// pages of the host, or would be drawn into it.
    pub fn join() -> Option<Self> {
        let root = Root::system();
        let mut registry = Registry::open(&root).ok()?;
        if !strangers(&root).is_empty() {
            return None;
        }
        let member = Member { pid: std::process::id(), name: DOMAIN.into() };
        registry.join(&Domain::Named(DOMAIN.into()), &member).ok()?;
        Some(Self(registry))
    }

    /// What the guests are told.
    pub fn share() -> ShareConfig {
        ShareConfig::Domain(DOMAIN.into())
    }
}

impl Drop for OwnDomain {
    fn drop(&mut self) {
        // None of this process's own pages was ever mergeable.
        if let Err(error) = self.0.leave(Departure::Unmerged) {
            crate::output::warn(format_args!("{error}"));
        }
    }
}

/// Swap of the demonstration's own. It is removed with this.
pub struct OwnSwap {
    /// `None`: the host has enough, or there is none to be had.
    _file: Option<SwapFile>,
    /// What guests can be put into, in all.
    pub free: Bytes,
}

impl OwnSwap {
    /// Has at least so much swap there, if that is possible, in a file in `folder`.
    pub fn ensure(wanted: Bytes, folder: &Path) -> Self {
        let free = Bytes(Swap::read(&Root::system()).iter().map(|area| area.size.0 - area.used.0).sum());
        if free >= wanted || !rustix::process::geteuid().is_root() {
            return Self { _file: None, free };
        }
        let path: PathBuf = folder.join("swap");
        let made = SwapFile::make(&path, Bytes(wanted.0.next_multiple_of(1 << 20))).and_then(|mut file| {
            file.switch_on()?;
            Ok(file)
        });
        match made {
            Ok(file) => Self { _file: Some(file), free: Bytes(free.0 + wanted.0) },
            Err(error) => {
                crate::output::warn(format_args!("no swap for what does not fit the budget: {error}"));
                Self { _file: None, free }
            }
        }
    }
}
