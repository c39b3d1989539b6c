//! Taking memory from the guest into the host's swap.
//!
//! Two ways, chosen by facts when the machine is built: the kernel chooses among the pages of the VM's own control
//! group, or this process chooses among the guest's pages. A request takes only so long, so that whoever asked can
//! show how it goes and give up, and so that a VM that ends is not kept.

mod group;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use napa_api::control::{ReclaimEnd, ReclaimMechanism, ReclaimReport, RpcError, code};
use napa_memory::{End, PageOut, PageStates, Sensors};
use napa_sys::cgroup::{GroupFiles, GroupMemory};
use napa_units::{Bytes, Pages};

use self::group::GroupReclaim;
use super::Subject;

/// How long one request works, but for the block under way: a fraction of what a client waits for an answer.
const REQUEST_TIME: Duration = Duration::from_secs(2);
/// A limit is as good as reached this far below it: the kernel hands swap out in clusters.
const SLACK: Bytes = Bytes::mib(1);

/// Takes memory from one machine.
pub struct Reclaimer {
    mechanism: Mutex<Mechanism>,
    /// The VM's control group, whose limit on swap binds both mechanisms.
    group: GroupFiles,
}

enum Mechanism {
    ControlGroup(GroupReclaim),
    PageOut(PageOut),
}

/// What one mechanism took.
struct Outcome {
    taken: Bytes,
    came_back: Bytes,
    end: End,
}

/// What decides between the ways.
pub struct Means {
    /// The VM's control group.
    pub group: GroupFiles,
    /// The host's KVM has no trouble when the kernel takes a guest's pages behind its back.
    pub is_kernel_reclaim_sound: bool,
}

impl Reclaimer {
    /// For the guest with this memory.
    pub fn new(pages: Arc<PageStates>, sensors: Arc<Sensors>, means: &Means) -> Self {
        let mechanism = match means.group.can_reclaim() && means.is_kernel_reclaim_sound {
            true => Mechanism::ControlGroup(GroupReclaim::new(means.group.clone())),
            false => Mechanism::PageOut(PageOut::new(pages, sensors)),
        };
        Self { mechanism: Mutex::new(mechanism), group: means.group.clone() }
    }

    /// How memory is taken.
    pub fn kind(&self) -> ReclaimMechanism {
        self.mechanism.lock().unwrap_or_else(PoisonError::into_inner).kind()
    }
}

/// Puts memory of `size` into the host's swap, or as much as there is and as time allows.
pub fn reclaim(subject: &Subject, size: Bytes) -> Result<ReclaimReport, RpcError> {
    if swap().total == Bytes(0) {
        return Err(RpcError::new(code::WRONG_STATE, NO_SWAP));
    }
    let started = Instant::now();
    let mut mechanism = subject.reclaimer.mechanism.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = mechanism.take(size, started + REQUEST_TIME)?;
    let end = match outcome.end {
        End::Complete => ReclaimEnd::Complete,
        End::Interrupted => ReclaimEnd::OutOfTime,
        End::NothingGoes => why_nothing_goes(subject.reclaimer.group.memory().as_ref(), &swap()),
    };
    Ok(ReclaimReport {
        name: subject.config.name_or_default().to_owned(),
        asked: size,
        taken: outcome.taken,
        came_back: outcome.came_back,
        time_ms: started.elapsed().as_millis() as u64,
        mechanism: mechanism.kind(),
        end,
    })
}

/// The VM's own limit comes first: more swap would not help a VM that may not use it.
fn why_nothing_goes(group: Option<&GroupMemory>, host: &Swap) -> ReclaimEnd {
    let limit = group.and_then(|group| Some((group.swap?, group.swap_max?)));
    match limit {
        Some((used, limit)) if used.0.saturating_add(SLACK.0) > limit.0 => ReclaimEnd::LimitReached,
        _ if host.free < SLACK => ReclaimEnd::SwapFull,
        _ => ReclaimEnd::NothingLeft,
    }
}

const NO_SWAP: &str = "this host has no swap to put memory into: sudo napa swap create --size 8G";

impl Mechanism {
    fn kind(&self) -> ReclaimMechanism {
        match self {
            Self::ControlGroup(_) => ReclaimMechanism::ControlGroup,
            Self::PageOut(_) => ReclaimMechanism::PageOut,
        }
    }

    fn take(&mut self, size: Bytes, deadline: Instant) -> Result<Outcome, RpcError> {
        let may_go_on = || Instant::now() < deadline;
        let failed = |error: &dyn std::fmt::Display| RpcError::new(code::INTERNAL, error.to_string());
        match self {
            Self::ControlGroup(group) => group.take(size, deadline).map_err(|error| failed(&error)),
            Self::PageOut(page_out) => {
                let taken =
                    page_out.take(Pages::covering(size), may_go_on).map_err(|error| failed(&error))?;
                let (pages, came_back) = (taken.pages.bytes(), taken.came_back.bytes());
                Ok(Outcome { taken: pages, came_back, end: taken.end })
            }
        }
    }
}

/// The host's swap.
struct Swap {
    total: Bytes,
    free: Bytes,
}

fn swap() -> Swap {
    let host = rustix::system::sysinfo();
    let unit = u64::from(host.mem_unit);
    Swap { total: Bytes(host.totalswap * unit), free: Bytes(host.freeswap * unit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vms_own_limit_is_told_apart_from_the_hosts_full_swap() {
        let swap = |free| Swap { total: Bytes::gib(1), free };
        let (full, roomy) = (swap(Bytes(0)), swap(Bytes::mib(512)));
        let group = |used, limit| GroupMemory { swap: used, swap_max: limit, ..GroupMemory::default() };
        let mib = |size| Some(Bytes::mib(size));
        for (group, host, expected) in [
            (None, &roomy, ReclaimEnd::NothingLeft),
            (None, &full, ReclaimEnd::SwapFull),
            (Some(group(mib(16), None)), &roomy, ReclaimEnd::NothingLeft),
            (Some(group(mib(16), mib(64))), &roomy, ReclaimEnd::NothingLeft),
            (Some(group(mib(16), mib(64))), &full, ReclaimEnd::SwapFull),
            (Some(group(Some(Bytes(Bytes::mib(16).0 - 4096)), mib(16))), &roomy, ReclaimEnd::LimitReached),
            (Some(group(mib(16), mib(16))), &full, ReclaimEnd::LimitReached),
            (Some(group(mib(0), mib(0))), &roomy, ReclaimEnd::LimitReached),
        ] {
            assert_eq!(why_nothing_goes(group.as_ref(), host), expected, "{group:?}, {} free", host.free);
        }
    }
}
