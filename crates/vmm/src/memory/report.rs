//! Where the pages of a VM are.

use napa_api::control::{AddressRange, Certainty, GroupReport, MappingReport, MemoryReport, RpcError, code};
use napa_sys::cgroup::GroupMemory;
use napa_units::Pages;

use super::{Subject, balloon, random};

/// The memory of the VM as it is now.
pub fn report(subject: &Subject) -> Result<MemoryReport, RpcError> {
    let unseen = |error| {
        let message = format!("the kernel does not show the guest's pages (/proc/self/pagemap): {error}");
        RpcError::new(code::INTERNAL, message)
    };
    let look = subject.watch.look(&subject.sensors, random()).map_err(unseen)?;
    Ok(MemoryReport {
        name: subject.config.name_or_default().to_owned(),
        size: look.ledger.size().bytes(),
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
        balloon: subject.balloon.as_ref().map(|device| balloon::report(subject, device)),
        hotplug: subject.hotplug.as_ref().map(|hotplug| hotplug.report()),
        sharing: subject.sharing.report(),
        group: subject.group.memory().as_ref().map(group),
    })
}

/// Where guest memory is in this process.
pub fn mapping(subject: &Subject) -> MappingReport {
    let size = subject.pages.count();
    let range = |(start, pages): (u64, Pages)| AddressRange { start, end: start + pages.bytes().0 };
    MappingReport {
        name: subject.config.name_or_default().to_owned(),
        pid: std::process::id(),
        ranges: subject.pages.host_ranges(0..subject.pages.end()).into_iter().map(range).collect(),
        size: size.bytes(),
        used_by_guest: balloon::used_by_guest(subject),
    }
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
