//! Where the pages of a VM are.

use napa_api::control::{Certainty, GroupReport, MemoryReport, RpcError, code};
use napa_sys::cgroup::GroupMemory;

use super::{Subject, random};

/// The memory of the VM as it is now.
pub fn report(subject: &Subject) -> Result<MemoryReport, RpcError> {
    let unseen = |error| {
        let message = format!("the kernel does not show the guest's pages (/proc/self/pagemap): {error}");
        RpcError::new(code::INTERNAL, message)
    };
    let look = subject.watch.look(&subject.sensors, random()).map_err(unseen)?;
    Ok(MemoryReport {
        name: subject.config.name_or_default().to_owned(),
        size: subject.pages.count().bytes(),
        ledger: look.ledger,
        looked_at: look.looked_at.bytes(),
        huge: look.huge,
        compressed: match look.compressed {
            napa_memory::Certainty::Counted => Certainty::Counted,
            napa_memory::Certainty::Estimated => Certainty::Estimated,
        },
        refaults: look.refaults,
        major_faults: subject.sensors.major_faults(),
        working_set: subject.samples.last(),
        balloon: subject.balloon.as_ref().map(|balloon| balloon.report()),
        sharing: subject.sharing.report(),
        group: subject.group.memory().as_ref().map(group),
    })
}

fn group(memory: &GroupMemory) -> GroupReport {
    GroupReport {
        current: memory.current,
        swap: memory.swap,
        swap_max: memory.swap_max,
        zswap: memory.zswap,
        refaults: memory.refaults,
        major_faults: memory.major_faults,
        stalled_us: memory.pressure.map(|pressure| pressure.some.total_us),
        low_events: memory.events.low,
        kills: memory.events.oom_kill,
    }
}
