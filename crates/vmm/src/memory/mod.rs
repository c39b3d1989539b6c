//! What is asked about the memory of a running VM.
//!
//! Looking at all pages, or giving many of them back, takes longer than the control thread may be away from the
//! devices that it serves. So it is done by jobs, one after the other, on a thread of their own, which starts with the
//! first of them. A job knows the machine it was asked about and nothing of the VM's run state.

mod balloon;
mod group_interval;
mod jobs;
mod reclaim;
mod report;
mod sharing;
mod working_set;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use napa_api::VmConfig;
use napa_api::control::{MeansReport, MemoryCommand, Reply, reply};
use napa_devices::balloon::Balloon;
use napa_memory::{PageStates, Sensors, Watch};
use napa_sys::cgroup::GroupFiles;

pub use self::jobs::{JobId, Jobs};
pub use self::reclaim::{Means, Reclaimer};
pub use self::sharing::{Sharing, SharingOwner};
pub use self::working_set::Samples;

/// The machine that a job is about.
pub struct Subject {
    pub config: Arc<VmConfig>,
    pub pages: Arc<PageStates>,
    pub watch: Arc<Watch>,
    pub sensors: Arc<Sensors>,
    /// `None`: the VM has none.
    pub balloon: Option<Arc<Balloon>>,
    pub reclaimer: Reclaimer,
    pub sharing: Arc<Sharing>,
    pub samples: Arc<Samples>,
    /// Empty: the VM has no group of its own.
    pub group: GroupFiles,
}

/// Does what was asked; on the jobs' thread.
pub fn carry_out(command: MemoryCommand, subject: &Subject) -> Reply {
    match command {
        MemoryCommand::Report => reply(report::report(subject)),
        MemoryCommand::Balloon { target } => reply(balloon::set_target(subject, target)),
        MemoryCommand::BalloonStatistics => reply(balloon::with_statistics(subject)),
        MemoryCommand::BalloonHint => reply(balloon::hint(subject)),
        MemoryCommand::Reclaim { size } => reply(reclaim::reclaim(subject, size)),
        MemoryCommand::Share(order) => reply(subject.sharing.carry_out(order)),
        MemoryCommand::Sample => reply(working_set::start(subject)),
        MemoryCommand::WorkingSet => reply(working_set::finish(subject)),
        MemoryCommand::Means => reply(Ok(means(subject))),
    }
}

fn means(subject: &Subject) -> MeansReport {
    let (no_zero_pages, no_merging) = subject.sharing.hindrances();
    MeansReport { no_zero_pages, no_merging, reclaim: subject.reclaimer.kind() }
}

/// A number that a guest cannot know: the key of a hash map that is never made.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
