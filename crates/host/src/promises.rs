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
    fn fits(&self, name: &str, promised: &[Promise], wanted: Promise) -> Result<(), VerbError> {
        // A host that does not say how much it has can promise nothing.
        let ram = Meminfo::read(&self.root).map_or(Bytes(0), |memory| self.settings.capacity(memory.total));
        let swap = SwapState::read(&self.root).map_or(Bytes(0), |swap| swap.disk.total);
        let promises = admission::Promises::to(ram, swap, promised.iter().copied().map(request));
        admission::admit(&promises, &request(wanted)).map_err(|shortage| VerbError::Shortage {
            detail: format!("VM {name:?}: {shortage}"),
            ram: shortage.ram_missing,
            swap: shortage.swap_missing,
        })
    }

    fn is_open(&self, name: &str) -> Result<(), VerbError> {
        let Some(report) = self.latest.report().filter(|report| !report.admission_open) else {
            return Ok(());
        };
        let reasons = report.reasons.join("; ");
        Err(VerbError::Shortage {
            detail: format!("VM {name:?} cannot start now: memory is short ({reasons}); try again later"),
            ram: Bytes(0),
            swap: Bytes(0),
        })
    }
}

fn request(promise: Promise) -> Request {
    Request { limit: promise.limit, reservation: promise.reservation, overhead: OWN_MEMORY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    const MEMINFO: &str =
        "MemTotal: 4194304 kB\nMemFree: 1 kB\nMemAvailable: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";

    fn promise(limit: u64, reservation: u64) -> Promise {
        Promise { limit: Bytes::mib(limit), reservation: Bytes::mib(reservation) }
    }

    fn missing(promised: &[Promise], wanted: Promise) -> Option<(Bytes, Bytes)> {
        let host = Fixture::new(&[
            ("proc/meminfo", MEMINFO),
            ("proc/swaps", "Filename Type Size Used Priority\n/swap file 1048576 0 -2\n"),
        ]);
        let settings = Settings { budget: Some(Bytes::gib(2)), reserve: None };
        let promises = Promises::new(settings, host.root(), Arc::default());
        match promises.fits("web", promised, wanted) {
            Ok(()) => None,
            Err(VerbError::Shortage { ram, swap, .. }) => Some((ram, swap)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn limits_must_fit_the_budget_and_swap_and_reservations_the_budget() {
        assert_eq!(missing(&[promise(1024, 0); 2], promise(1000, 0)), None);
        let (ram, swap) = missing(&[promise(1024, 0); 3], promise(100, 0)).unwrap();
        assert!(ram == Bytes(0) && swap >= Bytes::mib(100), "{ram} {swap}");
        let (ram, swap) = missing(&[promise(1024, 1024)], promise(1100, 1100)).unwrap();
        assert!(ram >= Bytes::mib(76) && swap == Bytes(0), "{ram} {swap}");
    }
}
