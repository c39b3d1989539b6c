//! What the host can promise to VMs: its RAM and its swap on disks. Nothing else counts.

use std::sync::Arc;

use napa_policy::admission::{self, Request};
use napa_sys::host::Root;
use napa_units::Bytes;

use crate::guests::OWN_MEMORY;
use crate::sensors::{Meminfo, SwapState};
use crate::server::Latest;
use crate::supervisor::{Admission, Promise, VerbError};
use crate::tick::Settings;

/// Promises by the host's own figures, which are read anew each time.
#[derive(Debug)]
pub struct Promises {
    settings: Settings,
    root: Root,
    latest: Arc<Latest>,
}

impl Promises {
    /// Promises of the host at `root`; none while the last report says that memory is too short.
    pub fn new(settings: Settings, root: Root, latest: Arc<Latest>) -> Self {
        Self { settings, root, latest }
    }
}

impl Admission for Promises {
    fn admit(&self, name: &str, promised: &[Promise], wanted: Promise) -> Result<(), VerbError> {
        let refused = |detail: String, ram, swap| Err(VerbError::Shortage { detail, ram, swap });
        if let Some(report) = self.latest.report().filter(|report| !report.admission_open) {
            let reason = report.reasons.join("; ");
            return refused(
                format!("VM {name:?} cannot start now: memory is short ({reason}); try again later"),
                Bytes(0),
                Bytes(0),
            );
        }
        // A host that does not say how much it has can promise nothing.
        let ram = Meminfo::read(&self.root).map_or(Bytes(0), |memory| self.settings.capacity(memory.total));
        let swap = SwapState::read(&self.root).map_or(Bytes(0), |swap| swap.disk.total);
        let promises = admission::Promises::to(ram, swap, promised.iter().copied().map(request));
        match admission::admit(&promises, &request(wanted)) {
            Ok(()) => Ok(()),
            Err(shortage) => {
                refused(format!("VM {name:?}: {shortage}"), shortage.ram_missing, shortage.swap_missing)
            }
        }
    }
}

fn request(promise: Promise) -> Request {
    Request { limit: promise.limit, reservation: promise.reservation, overhead: OWN_MEMORY }
}
