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
use napa_memory::{PageStates, ZeroPages, make_mergeable, take_apart};
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
    state: Mutex<State>,
}

struct State {
    /// Or why there is none.
    registry: Result<Registry, String>,
    /// The RAM of the machine that runs.
    pages: Weak<PageStates>,
    /// How far the pages have been taken apart. `None`: nobody has begun to.
    apart: Option<Pages>,
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
        self.0.end();
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
        let (looked, given_back) = (Pages(0), Pages(0));
        let state = State { registry, pages: Weak::new(), apart: None, zeros, looked, given_back };
        let counters = OwnCounters::open(&root);
        let sharing =
            SharingOwner(Arc::new(Self { scope, domain, member, counters, state: Mutex::new(state) }));
        if matches!(config.share, Some(ShareConfig::Vm | ShareConfig::Domain(_))) {
            sharing.0.begin(&root)?;
        }
        Ok(sharing)
    }

    /// Takes over the RAM of a machine that is about to run.
    pub fn adopt(&self, pages: &Arc<PageStates>) {
        let mut state = self.lock();
        state.pages = Arc::downgrade(pages);
        state.apart = None;
        state.looked = Pages(0);
        if state.is_on()
            && let Err(error) = make_mergeable(pages.ram())
        {
            eprintln!("napa: pages of the guest's memory cannot be merged: {error}");
        }
    }

    /// Carries out an order, for about a second.
    pub fn carry_out(&self, order: ShareOrder) -> Result<ShareReport, RpcError> {
        let mut state = self.lock();
        let pages = state.pages.upgrade().ok_or_else(|| wrong_state("the VM is ending"))?;
        let left = match order {
            ShareOrder::On => self.switch_on(&mut state, &pages),
            ShareOrder::Off => self.switch_off(&mut state, &pages),
        }?;
        Ok(self.report_with(&state, left))
    }

    /// The sharing as it is.
    pub fn report(&self) -> ShareReport {
        self.report_with(&self.lock(), Pages(0))
    }

    /// Why pages of zeros cannot be given back, and why equal pages cannot be merged; `None` where they can.
    pub fn hindrances(&self) -> (Option<String>, Option<String>) {
        let state = self.lock();
        (state.zeros.as_ref().err().cloned(), state.registry.as_ref().err().cloned())
    }

    fn begin(&self, root: &Root) -> Result<(), RunError> {
        let refused = |why: String| RunError::BadInput(format!("--share {}: {why}", self.scope));
        let mut state = self.lock();
        let registry = state.registry.as_mut().map_err(|why| refused(why.clone()))?;
        if let Some(stranger) = strangers(root).first() {
            return Err(refused(stranger.to_string()));
        }
        registry.join(&self.domain, &self.member).map_err(|error| refused(error.to_string()))
    }

    fn switch_on(&self, state: &mut State, pages: &PageStates) -> Result<Pages, RpcError> {
        let until = Instant::now() + STEP;
        if self.scope == ShareConfig::Zero {
            return state.give_back(pages, until);
        }
        let registry = state.registry.as_mut().map_err(|why| refused(why))?;
        registry.join(&self.domain, &self.member).map_err(|error| wrong_state(&error.to_string()))?;
        make_mergeable(pages.ram())
            .map_err(|error| internal(&format!("pages of the guest's memory cannot be merged: {error}")))?;
        state.apart = None;
        // The kernel merges pages of zeros too, but later, and only while sharing is on.
        // So nothing is amiss where napa cannot look for them itself.
        Ok(state.give_back(pages, until).unwrap_or_default())
    }

    fn switch_off(&self, state: &mut State, pages: &PageStates) -> Result<Pages, RpcError> {
        if !state.is_on() {
            return Ok(Pages(0));
        }
        let from = state.apart.unwrap_or_default();
        let (at, result) = take_apart(pages.ram(), from, Instant::now() + STEP);
        state.apart = Some(at);
        let left = Pages(pages.count().0 - at.0);
        result.map_err(|error| no_memory(left, &error))?;
        if left == Pages(0) {
            state.apart = None;
            let registry = state.registry.as_mut().map_err(|why| refused(why))?;
            registry.leave(Departure::Unmerged).map_err(|error| internal(&error.to_string()))?;
        }
        Ok(left)
    }

    fn end(&self) {
        let mut state = self.lock();
        // RAM that is there still is merged still, and goes with the process.
        let departure = if state.pages.strong_count() > 0 { Departure::Ending } else { Departure::Unmerged };
        if let Ok(registry) = &mut state.registry
            && let Err(error) = registry.leave(departure)
        {
            eprintln!("napa: {error}; 'napa doctor' knows the command");
        }
    }

    fn report_with(&self, state: &State, left: Pages) -> ShareReport {
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
            strangers: Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_on(&self) -> bool {
        self.registry.as_ref().is_ok_and(Registry::is_member)
    }

    /// Gives pages of zeros back; returns how many pages are still to be looked at. With none left, the next call
    /// begins anew.
    fn give_back(&mut self, pages: &PageStates, until: Instant) -> Result<Pages, RpcError> {
        let zeros = self.zeros.as_mut().map_err(|why| refused(why))?;
        let (progress, result) = zeros.give_back(pages, self.looked, until);
        self.given_back.0 += progress.given_back.0;
        let left = Pages(pages.count().0 - progress.at.0);
        self.looked = if left == Pages(0) || result.is_err() { Pages(0) } else { progress.at };
        result.map(|()| left).map_err(|error| no_look(&error))
    }
}

fn refused(why: &str) -> RpcError {
    wrong_state(&format!("this VM cannot share pages: {why}"))
}

fn no_memory(left: Pages, error: &io::Error) -> RpcError {
    internal(&format!(
        "{} of guest memory may still be merged, because the host has no memory for copies of the pages: {error}; free \
         some and try again, nothing is lost",
        left.bytes()
    ))
}

fn no_look(error: &io::Error) -> RpcError {
    internal(&format!("pages of zeros cannot be given back: {error}"))
}

fn wrong_state(why: &str) -> RpcError {
    RpcError::new(code::WRONG_STATE, why)
}

fn internal(why: &str) -> RpcError {
    RpcError::new(code::INTERNAL, why)
}
