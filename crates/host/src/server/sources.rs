//! What the server speaks for.

use std::sync::Arc;

use napa_api::host::{HostReport, VmDetail, VmSummary};
use tokio::sync::watch;

use super::metrics::Counters;
use super::refusal::Refusal;
use crate::supervisor::{Supervisor, VerbError};

/// What the server speaks for.
pub struct Sources {
    /// The VMs.
    pub supervisor: Supervisor,
    /// The host's memory.
    pub latest: Arc<Latest>,
}

/// The last report, for those who ask for it and those who wait for the next one.
#[derive(Debug)]
pub struct Latest {
    report: watch::Sender<Option<Arc<HostReport>>>,
    pub(super) counters: Counters,
}

impl Default for Latest {
    fn default() -> Self {
        Self { report: watch::Sender::new(None), counters: Counters::default() }
    }
}

impl Latest {
    /// There is a new report.
    pub fn tell(&self, report: HostReport) {
        self.counters.count(&report);
        self.report.send_replace(Some(Arc::new(report)));
    }

    /// The last report. `None`: there was none so far.
    pub fn report(&self) -> Option<Arc<HostReport>> {
        self.report.borrow().clone()
    }

    /// Each report from now on, or the last of them for who is slow.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<HostReport>>> {
        self.report.subscribe()
    }
}

impl Sources {
    /// All VMs, with what they hold.
    pub fn list(&self) -> Vec<VmSummary> {
        let report = self.latest.report();
        let mut vms = self.supervisor.list();
        for vm in vms.iter_mut().filter(|vm| vm.state.is_alive()) {
            let row = report.as_ref().and_then(|report| report.vms.iter().find(|row| row.name == vm.name));
            vm.held = row.map(|row| row.pss);
        }
        vms
    }

    /// All about one VM, with where its memory is.
    pub fn detail(&self, name: &str) -> Result<VmDetail, VerbError> {
        let mut detail = self.supervisor.detail(name)?;
        if detail.summary.state.is_alive()
            && let Some(report) = self.latest.report()
        {
            detail.memory_row = report.vms.iter().find(|row| row.name == name).cloned();
            detail.summary.held = detail.memory_row.as_ref().map(|row| row.pss);
        }
        Ok(detail)
    }
}

/// Does on another thread what waits for a disk or a VM.
pub async fn aside<T: Send + 'static>(
    sources: &Arc<Sources>,
    work: impl FnOnce(&Sources) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let sources = Arc::clone(sources);
    let done = tokio::task::spawn_blocking(move || work(&sources)).await;
    done.map_err(|_| Refusal::no_answer())?
}
