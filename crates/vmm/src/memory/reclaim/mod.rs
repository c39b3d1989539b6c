//! Taking memory from the guest into the host's swap.
//!
//! Two ways, chosen by facts when the machine is built: the kernel chooses among the pages of the VM's own control
//! group, or this process chooses among the guest's pages. A request takes only so long, so that whoever asked can
//! show how it goes and give up, and so that a VM that ends is not kept.

mod group;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use napa_api::control::{ReclaimEnd, ReclaimMechanism, ReclaimReport, RpcError, code};
use napa_memory::{End, GuestRam, PageOut, Sensors};
use napa_sys::cgroup::GroupFiles;
use napa_units::{Bytes, Pages};

use self::group::{GroupReclaim, SLACK};
use super::Subject;

/// How long one request works, but for the block under way: a fraction of what a client waits for an answer.
const REQUEST_TIME: Duration = Duration::from_secs(2);

/// Takes memory from one machine. Its clones are the same one.
#[derive(Clone)]
pub struct Reclaimer {
    mechanism: Arc<Mutex<Mechanism>>,
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
    pub fn new(ram: Arc<GuestRam>, sensors: Arc<Sensors>, means: &Means) -> Self {
        let mechanism = match means.group.can_reclaim() && means.is_kernel_reclaim_sound {
            true => Mechanism::ControlGroup(GroupReclaim::new(means.group.clone())),
            false => Mechanism::PageOut(PageOut::new(ram, sensors)),
        };
        Self { mechanism: Arc::new(Mutex::new(mechanism)) }
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
        End::NothingGoes if mechanism.is_swap_full() => ReclaimEnd::SwapFull,
        End::NothingGoes => ReclaimEnd::NothingLeft,
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
            Self::ControlGroup(group) => group.take(size, may_go_on).map_err(|error| failed(&error)),
            Self::PageOut(page_out) => {
                let taken =
                    page_out.take(Pages::covering(size), may_go_on).map_err(|error| failed(&error))?;
                let (pages, came_back) = (taken.pages.bytes(), taken.came_back.bytes());
                Ok(Outcome { taken: pages, came_back, end: taken.end })
            }
        }
    }

    fn is_swap_full(&self) -> bool {
        let is_group_full = match self {
            Self::ControlGroup(group) => group.is_swap_full(),
            Self::PageOut(_) => false,
        };
        is_group_full || swap().free < SLACK
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
