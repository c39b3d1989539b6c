//! Whether the kernel may merge pages of this VM, and with whose.
//!
//! A VM is a member of at most one domain, from the order to share until the last page was taken apart again. What is
//! needed for that is opened before the sandbox closes; strangers, however, can be seen only from outside of it, so
//! whoever orders a VM that runs to share looks for them first.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use napa_api::VmConfig;
use napa_api::config::ShareConfig;
use napa_api::control::{RpcError, ShareOrder, ShareReport, code};
use napa_memory::{PageStates, Progress, Splitting, ZeroPages, make_mergeable, take_apart};
use napa_sys::host::Root;
use napa_sys::ksm::{Departure, Domain, Member, OwnCounters, Registry, forget_inherited_merging, strangers};
use napa_units::Pages;

use crate::error::RunError;

/// How long an order is carried out before it is answered; the rest is done when it is given again. Other requests
/// about the VM's memory wait meanwhile.
const STEP: Duration = Duration::from_secs(1);

/// The sharing of one VM, over the guest's reboots.
pub struct Sharing {
    scope: ShareConfig,
    domain: Domain,
    member: Member,
    counters: OwnCounters,
    /// Never locked for longer than it takes to read it: the control thread may wait for it.
    current: Mutex<Current>,
    /// Locked for a whole step.
    state: Mutex<State>,
}

/// The machine that runs.
#[derive(Default)]
struct Current {
    ram: Weak<PageStates>,
    /// Whether the kernel may merge the pages of the machine after it as well. Only while a domain is joined.
    is_mergeable: bool,
}

struct State {
    /// Or why there is none.
    registry: Result<Registry, String>,
    /// The RAM that the progress below is about.
    ram: Weak<PageStates>,
    /// How far the pages have been taken apart.
    apart: Pages,
    /// What looks for pages of zeros, or why there is no such thing.
    zeros: Result<ZeroPages, String>,
    /// How far it has looked.
    looked: Pages,
    /// What it has found since the VM started.
    given_back: Pages,
}

/// Ends the sharing when the VM ends.
pub struct SharingOwner(pub Arc<Sharing>);

impl Drop for SharingOwner {
    fn drop(&mut self) {
        if self.0.end() == Departure::Ending {
            // The registry's lock says that there are merged pages: it ends with the process, as they do.
            std::mem::forget(Arc::clone(&self.0));
        }
    }
}

impl Sharing {
    /// Opens what sharing needs. Where the configuration asks for it by name, the domain is joined at once.
    pub fn open(config: &VmConfig) -> Result<SharingOwner, RunError> {
        let root = Root::system();
        forget_inherited_merging()
            .map_err(|error| RunError::host("cannot keep the kernel from merging all memory", error))?;
        let scope = config.share_or_default().clone();
        let pid = std::process::id();
        let domain = match &scope {
            ShareConfig::Domain(name) => Domain::Named(name.clone()),
            ShareConfig::Vm | ShareConfig::Zero | ShareConfig::Off => Domain::Process(pid),
        };
        let registry = match scope {
            ShareConfig::Vm | ShareConfig::Domain(_) => {
                Registry::open(&root).map_err(|error| error.to_string())
            }
            ShareConfig::Zero | ShareConfig::Off => Err(format!("--share {scope} forbids it")),
        };
        let member = Member { pid, name: config.name_or_default().to_owned() };
        let zeros = match scope {
            ShareConfig::Off => Err("--share off forbids it".into()),
            _ => ZeroPages::open(&root)
                .map_err(|error| format!("pages cannot be moved out of the way: {error}")),
        };
        let (apart, looked, given_back) = (Pages(0), Pages(0), Pages(0));
        let state = Mutex::new(State { registry, ram: Weak::new(), apart, zeros, looked, given_back });
        let counters = OwnCounters::open(&root);
        let current = Mutex::default();
        let sharing = SharingOwner(Arc::new(Self { scope, domain, member, counters, current, state }));
        if matches!(config.share, Some(ShareConfig::Vm | ShareConfig::Domain(_))) {
            sharing.0.begin(&root)?;
        }
        Ok(sharing)
    }

    /// Takes over the RAM of a machine that is about to run. Waits for no order that is carried out.
    pub fn adopt(&self, pages: &Arc<PageStates>) {
        let mut current = lock(&self.current);
        current.ram = Arc::downgrade(pages);
        if current.is_mergeable
            && let Err(error) = make_mergeable(pages)
        {
            eprintln!("napa: pages of the guest's memory cannot be merged: {error}");
        }
    }

    /// Carries out an order, for about a second.
    pub fn carry_out(&self, order: ShareOrder) -> Result<ShareReport, RpcError> {
        let mut state = lock(&self.state);
        match order {
            ShareOrder::On => self.switch_on(&mut state),
            ShareOrder::Off => self.switch_off(&mut state),
        }
    }

    /// The sharing as it is.
    pub fn report(&self) -> ShareReport {
        self.report_with(&lock(&self.state), Pages(0), Vec::new())
    }

    /// Why pages of zeros cannot be given back, and why equal pages cannot be merged; `None` where they can.
    pub fn hindrances(&self) -> (Option<String>, Option<String>) {
        let state = lock(&self.state);
        (state.zeros.as_ref().err().cloned(), state.registry.as_ref().err().cloned())
    }

    /// Whether the VM can look for pages of zeros by itself.
    pub fn can_look(&self) -> bool {
        lock(&self.state).zeros.is_ok()
    }

    /// Gives pages of zeros back without an order, from this index on, and leaves huge pages whole. `None`: it cannot.
    pub fn look_by_itself(&self, pages: &PageStates, from: Pages, until: Instant) -> Option<Progress> {
        let mut state = lock(&self.state);
        let zeros = state.zeros.as_mut().ok()?;
        let (progress, result) = zeros.give_back(pages, from, until, Splitting::Never);
        state.given_back.0 += progress.given_back.0;
        result.is_ok().then_some(progress)
    }

    /// Whether the kernel may merge the guest's pages now.
    pub fn is_on(&self) -> bool {
        lock(&self.state).is_on()
    }

    fn begin(&self, root: &Root) -> Result<(), RunError> {
        let refused = |why: String| RunError::BadInput(format!("--share {}: {why}", self.scope));
        let mut state = lock(&self.state);
        let registry = state.registry.as_mut().map_err(|why| refused(why.clone()))?;
        if let Some(stranger) = strangers(root).first() {
            return Err(refused(stranger.to_string()));
        }
        registry.join(&self.domain, &self.member).map_err(|error| refused(error.to_string()))?;
        lock(&self.current).is_mergeable = true;
        Ok(())
    }

    /// Pages of zeros need no domain: where none can be joined they are given back all the same.
    fn switch_on(&self, state: &mut State) -> Result<ShareReport, RpcError> {
        let mut notes = Vec::new();
        let merging = match self.scope {
            ShareConfig::Zero => Ok(()),
            _ => self.let_merge(state),
        };
        let pages = self.begin_step(state, Merging::AsIs)?;
        let given_back = state.give_back(&pages, Instant::now() + STEP);
        let left = match (merging, given_back) {
            (Ok(()), Ok(left)) => left,
            (Err(why), Ok(left)) => {
                notes.push(format!("equal pages are not merged: {why}"));
                left
            }
            // The kernel merges pages of zeros too, but later, and only while sharing is on.
            // So nothing is amiss where napa cannot look for them itself.
            (Ok(()), Err(NoZeros::NoScanner(_))) if self.scope != ShareConfig::Zero => Pages(0),
            (Ok(()), Err(error @ NoZeros::Failed(_))) if self.scope != ShareConfig::Zero => {
                notes.push(error.to_string());
                Pages(0)
            }
            (Ok(()), Err(error)) => return Err(wrong_state(&format!("this VM cannot share pages: {error}"))),
            (Err(why), Err(error)) => {
                let also = error.to_string();
                let both = if also == why { why } else { format!("{why}; and {also}") };
                return Err(wrong_state(&format!("this VM cannot share pages: {both}")));
            }
        };
        Ok(self.report_with(state, left, notes))
    }

    /// Joins the domain and lets the kernel merge the pages.
    fn let_merge(&self, state: &mut State) -> Result<(), String> {
        let registry = state.registry.as_mut().map_err(|why| why.clone())?;
        registry.join(&self.domain, &self.member).map_err(|error| error.to_string())?;
        let pages = self.begin_step(state, Merging::Allowed).map_err(|error| error.message)?;
        state.apart = Pages(0);
        make_mergeable(&pages)
            .map_err(|error| format!("pages of the guest's memory cannot be merged: {error}"))
    }

    fn switch_off(&self, state: &mut State) -> Result<ShareReport, RpcError> {
        if !state.is_on() {
            return Ok(self.report_with(state, Pages(0), Vec::new()));
        }
        // From now on the machine after a reboot begins unmerged.
        let pages = self.begin_step(state, Merging::Forbidden)?;
        let (at, result) = take_apart(&pages, state.apart, Instant::now() + STEP);
        state.apart = at;
        let left = pages.count_from(at.0);
        result.map_err(|error| no_memory(left, &error))?;
        if left == Pages(0) {
            state.apart = Pages(0);
            let registry = state.registry.as_mut().map_err(|why| internal(why))?;
            registry.leave(Departure::Unmerged).map_err(|error| internal(&error.to_string()))?;
        }
        Ok(self.report_with(state, left, Vec::new()))
    }

    /// The RAM of the machine that runs; after a reboot it is looked at from its start.
    fn begin_step(&self, state: &mut State, merging: Merging) -> Result<Arc<PageStates>, RpcError> {
        let mut current = lock(&self.current);
        match merging {
            Merging::AsIs => {}
            Merging::Allowed => current.is_mergeable = true,
            Merging::Forbidden => current.is_mergeable = false,
        }
        if !Weak::ptr_eq(&state.ram, &current.ram) {
            state.ram = Weak::clone(&current.ram);
            (state.apart, state.looked) = (Pages(0), Pages(0));
        }
        current.ram.upgrade().ok_or_else(|| wrong_state("the VM is ending"))
    }

    /// Leaves for good; an order that comes later joins nothing. Waits for a step that is being carried out.
    fn end(&self) -> Departure {
        let mut state = lock(&self.state);
        // RAM that is there still is merged still, and goes with the process.
        let is_there = lock(&self.current).ram.strong_count() > 0;
        let departure = if is_there && state.is_on() { Departure::Ending } else { Departure::Unmerged };
        if let Ok(registry) = &mut state.registry {
            let left = registry.leave(departure);
            // Has nothing to leave any more, and closes the registry for orders that come later.
            if let Err(error) = left.and(registry.leave(Departure::Ending)) {
                eprintln!("napa: {error}; 'napa doctor' knows the command");
            }
        }
        departure
    }

    fn report_with(&self, state: &State, left: Pages, notes: Vec<String>) -> ShareReport {
        let own = self.counters.read();
        let is_on = state.is_on();
        // The kernel counts pages that were taken apart until its scanner comes by again.
        let size = |pages: Option<u64>| pages.map(|pages| Pages(if is_on { pages } else { 0 }).bytes());
        ShareReport {
            scope: self.scope.clone(),
            is_on,
            merged: size(own.merged_pages),
            zero: size(own.zero_pages),
            profit: own.profit,
            full_scans: state.registry.as_ref().ok().and_then(|registry| registry.full_scans().ok()),
            given_back: state.given_back.bytes(),
            left: left.bytes(),
            notes,
            strangers: Vec::new(),
        }
    }
}

/// What a step says about memory that comes later.
enum Merging {
    AsIs,
    Allowed,
    Forbidden,
}

/// Why no pages of zeros are given back.
#[derive(Debug, thiserror::Error)]
enum NoZeros {
    /// Nothing here can look for them.
    #[error("{0}")]
    NoScanner(String),
    #[error("pages of zeros cannot be given back: {0}")]
    Failed(#[source] io::Error),
}

impl State {
    fn is_on(&self) -> bool {
        self.registry.as_ref().is_ok_and(Registry::is_member)
    }

    /// Gives pages of zeros back; returns how many pages are still to be looked at. With none left, the next call
    /// begins anew.
    fn give_back(&mut self, pages: &PageStates, until: Instant) -> Result<Pages, NoZeros> {
        let zeros = self.zeros.as_mut().map_err(|why| NoZeros::NoScanner(why.clone()))?;
        let (progress, result) = zeros.give_back(pages, self.looked, until, Splitting::WhereItPays);
        self.given_back.0 += progress.given_back.0;
        let left = pages.count_from(progress.at.0);
        self.looked = if left == Pages(0) || result.is_err() { Pages(0) } else { progress.at };
        result.map(|()| left).map_err(NoZeros::Failed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_memory(left: Pages, error: &io::Error) -> RpcError {
    internal(&format!(
        "{} of guest memory may still be merged, because the host has no memory for copies of the pages: {error}; free \
         some and try again, nothing is lost",
        left.bytes()
    ))
}

fn wrong_state(why: &str) -> RpcError {
    RpcError::new(code::WRONG_STATE, why)
}

fn internal(why: &str) -> RpcError {
    RpcError::new(code::INTERNAL, why)
}
