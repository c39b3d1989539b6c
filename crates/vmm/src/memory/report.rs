//! Where the pages of a VM are.

use napa_api::control::{Certainty, MemoryReport, RpcError, code};

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
        balloon: subject.balloon.as_ref().map(|balloon| balloon.report()),
        sharing: subject.sharing.report(),
    })
}
