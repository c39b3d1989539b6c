//! What is asked about the memory of a running VM.
//!
//! Looking at all pages, or giving many of them back, takes longer than the control thread may be away from the
//! devices that it serves. So it is done by jobs, one after the other, on a thread of their own, which starts with the
//! first of them. A job knows the machine it was asked about and nothing of the VM's run state. One that waits does not
//! keep the machine: whatever waits when it ends is told so.

mod balloon;
mod group_interval;
mod jobs;
mod looks;
mod plug;
mod reclaim;
mod report;
mod sharing;
mod working_set;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use napa_api::VmConfig;
use napa_api::control::{MeansReport, MemoryCommand, Reply, RpcError, code, reply};
use napa_devices::balloon::Balloon;
use napa_devices::mem::Hotplug;
use napa_memory::{PageStates, Sensors, Watch};
use napa_sys::cgroup::GroupFiles;

pub use self::jobs::{JobId, Jobs};
pub use self::looks::{LOOK_WAIT_MAX, Looked, Looks, look, resident};
pub use self::reclaim::{Means, Reclaimer};
pub use self::sharing::{Sharing, SharingOwner};
pub use self::working_set::{KEPT, Samples, give_up_forgotten};

/// The machine that a job is about.
pub struct Subject {
    pub config: Arc<VmConfig>,
    pub pages: Arc<PageStates>,
    pub watch: Watch,
    pub sensors: Arc<Sensors>,
    /// `None`: the VM has none.
    pub balloon: Option<Arc<Balloon>>,
    /// `None`: no memory can be plugged.
    pub hotplug: Option<Arc<Hotplug>>,
    pub reclaimer: Reclaimer,
    pub sharing: Arc<Sharing>,
    pub samples: Samples,
    /// Empty: the VM has no group of its own.
    pub group: GroupFiles,
}

/// Does what was asked; on the jobs' thread.
pub fn carry_out(command: MemoryCommand, subject: &Weak<Subject>) -> Reply {
    let Some(subject) = subject.upgrade() else {
        return Err(RpcError::new(code::WRONG_STATE, "the machine has ended since this was asked for"));
    };
    let machine = &*subject;
    match command {
        MemoryCommand::Report => reply(report::report(machine)),
        MemoryCommand::Balloon { target } => reply(balloon::set_target(machine, target)),
        MemoryCommand::BalloonStatistics => reply(balloon::with_statistics(machine)),
        MemoryCommand::BalloonHint => reply(balloon::hint(subject)),
        MemoryCommand::Plug { size } => reply(plug::set_size(machine, size)),
        MemoryCommand::Reclaim { size } => reply(reclaim::reclaim(machine, size)),
        MemoryCommand::Share(order) => reply(machine.sharing.carry_out(order)),
        MemoryCommand::Sample => reply(working_set::start(machine)),
        MemoryCommand::Mapping => reply(Ok(report::mapping(machine))),
        MemoryCommand::WorkingSet => reply(working_set::finish(machine)),
        MemoryCommand::Means => reply(Ok(means(machine))),
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use napa_memory::{RamRegion, allocate};
    use napa_sys::host::Root;
    use napa_units::{Bytes, GuestAddress};

    use super::*;
    use crate::events::{Event, Events};

    #[test]
    fn what_waits_does_not_keep_the_memory_of_a_machine_that_ends() {
        let config = VmConfig::default();
        let ram = allocate(&[RamRegion { start: GuestAddress(0), size: Bytes::mib(1) }]).unwrap();
        let pages = Arc::new(PageStates::new(Arc::new(ram)));
        let sensors = Arc::new(Sensors::open(&Root::system(), GroupFiles::default()).unwrap());
        let means = Means { group: GroupFiles::default(), is_kernel_reclaim_sound: true };
        let sharing = Sharing::open(&config).unwrap();
        let subject = Arc::new(Subject {
            config: Arc::new(config),
            watch: Watch::new(Arc::clone(&pages)),
            reclaimer: Reclaimer::new(Arc::clone(&pages), Arc::clone(&sensors), &means),
            pages,
            sensors,
            balloon: None,
            hotplug: None,
            sharing: Arc::clone(&sharing.0),
            samples: Samples::default(),
            group: means.group,
        });
        let events = Events::new().unwrap();
        let mut jobs = Jobs::new(events.clone());
        let (go_on, waits) = sync_channel::<()>(0);
        jobs.submit(Box::new(move || {
            waits.recv().unwrap();
            Ok(serde_json::Value::Null)
        }))
        .unwrap();
        let asked = Arc::downgrade(&subject);
        jobs.submit(Box::new(move || carry_out(MemoryCommand::Report, &asked))).unwrap();
        assert!(carry_out(MemoryCommand::Report, &Arc::downgrade(&subject)).is_ok());
        let ram = Arc::downgrade(subject.pages.ram());
        drop(subject);
        assert_eq!(ram.strong_count(), 0, "the memory is kept");
        go_on.send(()).unwrap();
        let mut done = Vec::new();
        while done.len() < 2 {
            events.bell().read().unwrap();
            done.extend(events.take());
        }
        let Event::Done(_, Err(error)) = &done[1] else { panic!("{done:?}") };
        assert_eq!(error.code, code::WRONG_STATE);
    }
}
