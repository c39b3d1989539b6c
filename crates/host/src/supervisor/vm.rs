//! One VM of the host, as the supervisor has it in memory.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use napa_api::VmConfig;
use napa_api::config::{CgroupConfig, ConsoleConfig};
use napa_api::host::{Time, VmDetail, VmExit, VmState, VmSummary};
use napa_units::{Bytes, Shares, VmId};

use super::VmFolder;
use super::process::{Process, Status};
use crate::clock;
use crate::guests::Subject;
use crate::state::{Record, Wanted};

/// A VM.
pub struct Vm {
    /// What is on the disk.
    pub record: Record,
    /// The record in memory is newer than that on the disk, which was full.
    pub is_unsaved: bool,
    /// What belongs to it.
    pub folder: VmFolder,
    /// What it does.
    pub phase: Phase,
}

/// What a VM does.
pub enum Phase {
    /// It has no process.
    Resting,
    /// It is started again.
    Waiting {
        /// Then.
        until: Instant,
        /// The same, for people.
        time: Time,
    },
    /// It has a process.
    Alive(Alive),
}

/// A VM with a process.
pub struct Alive {
    /// The process.
    pub process: Process,
    /// Since when it is watched.
    pub since: Instant,
    /// Whether it runs already.
    pub readiness: Readiness,
    /// Its vCPUs were stopped by a verb.
    pub is_paused: bool,
    /// It was asked to end.
    pub ending: Option<Ending>,
}

/// Whether a VM answers.
pub enum Readiness {
    /// Its control socket is not there yet.
    Absent {
        /// When to look again.
        next: Instant,
    },
    /// It was asked how it is.
    Asked(UnixStream),
    /// It has answered once.
    Ready,
}

/// A VM that was asked to end.
pub struct Ending {
    /// When its process is killed.
    pub deadline: Instant,
    /// The process was killed.
    pub is_killed: bool,
    /// Held open until the end, so that the VM reads what was written.
    pub _request: Option<UnixStream>,
}

impl Vm {
    /// A VM that has no process.
    pub fn resting(record: Record, state: &Path) -> Self {
        let folder = VmFolder::new(state, record.id);
        Self { record, is_unsaved: false, folder, phase: Phase::Resting }
    }

    /// Its process, if it has one.
    pub fn alive(&self) -> Option<&Alive> {
        match &self.phase {
            Phase::Alive(alive) => Some(alive),
            Phase::Resting | Phase::Waiting { .. } => None,
        }
    }

    /// What it does, in the API's words.
    pub fn state(&self) -> VmState {
        match &self.phase {
            Phase::Waiting { .. } => VmState::Waiting,
            Phase::Resting if self.record.exit.is_none() => VmState::Created,
            Phase::Resting => VmState::Stopped,
            Phase::Alive(Alive { ending: Some(_), .. }) => VmState::Stopping,
            Phase::Alive(Alive { readiness: Readiness::Ready, is_paused: true, .. }) => VmState::Paused,
            Phase::Alive(Alive { readiness: Readiness::Ready, .. }) => VmState::Running,
            Phase::Alive(_) => VmState::Starting,
        }
    }

    /// Whether it has the memory promised that it may come to need: it runs, or is about to.
    pub fn has_promise(&self) -> bool {
        self.alive().is_some() || self.record.wanted == Wanted::Running
    }

    /// The most memory that its guest can have.
    pub fn limit(&self) -> Bytes {
        limit(&self.record.config)
    }

    /// The line about it.
    pub fn summary(&self) -> VmSummary {
        let config = &self.record.config;
        let alive = self.alive();
        VmSummary {
            name: self.record.name().to_owned(),
            state: self.state(),
            pid: alive.map(|alive| alive.process.id().pid),
            memory: self.limit(),
            cpus: config.cpus,
            restart: self.record.restart,
            held: None,
            started: alive.and(self.record.launch.as_ref()).map(|launch| launch.started),
            exit: self.record.exit.clone(),
        }
    }

    /// All about it; `groups`: VMs have control groups of their own here.
    pub fn detail(&self, groups: Groups) -> VmDetail {
        let next_start = match &self.phase {
            Phase::Waiting { time, .. } => Some(*time),
            _ => None,
        };
        let is_ours = self.record.config.console == ConsoleConfig::Stdio;
        VmDetail {
            summary: self.summary(),
            config: self.record.config.clone(),
            reservation: self.record.reservation,
            shares: self.record.shares,
            created: self.record.created,
            restarts: self.record.restarts,
            next_start,
            control_socket: self.folder.control(),
            console_socket: is_ours.then(|| self.folder.console()),
            log: self.folder.log(),
            cgroup: self.cgroup(groups),
            memory_row: None,
        }
    }

    /// The VM for who decides about memory. `None`: it does not run.
    pub fn subject(&self, groups: Groups, top: Option<&Path>) -> Option<Subject> {
        let alive = self.alive().filter(|alive| matches!(alive.readiness, Readiness::Ready))?;
        Some(Subject {
            id: VmId(self.record.id),
            name: self.record.name().to_owned(),
            pid: alive.process.id().pid,
            socket: self.folder.control(),
            group: top.and_then(|top| Some(top.join(self.cgroup(groups)?))),
            limit: self.limit(),
            reservation: self.record.reservation,
            shares: Shares(self.record.shares),
            share: self.record.config.share_or_default().clone(),
        })
    }

    /// Its control group, below the root of the hierarchy.
    pub fn cgroup(&self, groups: Groups) -> Option<PathBuf> {
        match (&self.record.config.cgroup, groups) {
            (Some(CgroupConfig::Path(path)), _) => Some(path.clone()),
            (Some(CgroupConfig::Auto), _) | (None, Groups::Each) => {
                Some(Path::new("napa").join(self.record.name()))
            }
            (None, Groups::None) => None,
        }
    }

    /// What its process is told.
    pub fn config_to_run(&self, groups: Groups) -> VmConfig {
        let mut config = self.record.config.clone();
        config.api_socket = Some(self.folder.control());
        if config.console == ConsoleConfig::Stdio {
            config.console = ConsoleConfig::Socket(self.folder.console());
            config.console_log.get_or_insert_with(|| self.folder.log());
        }
        if config.cgroup.is_none() && groups == Groups::Each {
            config.cgroup = Some(CgroupConfig::Auto);
        }
        config
    }
}

/// Whether VMs that say nothing of it have control groups of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Each has one.
    Each,
    /// The host cannot give them any.
    None,
}

/// The most memory that a guest can have.
pub fn limit(config: &VmConfig) -> Bytes {
    Bytes(config.memory.0.saturating_add(config.hotplug_memory.unwrap_or_default().0))
}

/// How a VM ended, from what its process and the kernel say about it.
pub fn exit_of(note: Option<napa_api::exit::ExitNote>, status: Status, was_killed_late: bool) -> VmExit {
    let time = clock::now();
    let exit = |code, signal, reason: String| VmExit { time, code, signal, reason };
    match (status, note) {
        (Status::Signal(signal), _) if was_killed_late => {
            exit(None, Some(signal), "it did not end in time and was killed".into())
        }
        (Status::Signal(signal), _) => exit(None, Some(signal), format!("its process was ended by signal {signal}")),
        (Status::Code(_) | Status::Unknown, Some(note)) => exit(Some(note.code), None, note.reason),
        (Status::Code(code), None) => {
            exit(Some(code), None, format!("its process ended with code {code} and said no more; see its log"))
        }
        (Status::Unknown, None) => exit(
            None,
            None,
            "unknown: its process ended while no daemon watched, and left no word; it was killed, most likely".into(),
        ),
    }
}

/// The end of a VM whose host was started anew.
pub fn host_restarted() -> VmExit {
    let reason = "the host was switched off or restarted while it ran".to_owned();
    VmExit { time: clock::now(), code: None, signal: None, reason }
}

/// How long an orderly stop of this VM may take.
pub fn stop_bound(config: &VmConfig, timeout_s: Option<u32>) -> Duration {
    Duration::from_secs(timeout_s.unwrap_or(config.stop_timeout_s).into())
}

#[cfg(test)]
mod tests {
    use napa_api::exit::ExitNote;

    use super::*;

    fn check(note: Option<&str>, status: Status, late: bool, code: Option<u8>, words: &str) {
        let note = note.map(|reason| ExitNote { code: 81, reason: reason.to_owned() });
        let exit = exit_of(note, status, late);
        assert_eq!(exit.code, code, "{exit:?}");
        assert!(exit.reason.contains(words), "{exit:?}");
    }

    #[test]
    fn the_best_word_about_an_end_is_taken() {
        let panic = Some("the guest reported a panic");
        check(panic, Status::Code(81), false, Some(81), "panic");
        check(panic, Status::Unknown, false, Some(81), "panic");
        check(None, Status::Code(2), false, Some(2), "code 2");
        check(None, Status::Signal(11), false, None, "signal 11");
        check(None, Status::Signal(9), true, None, "in time");
        check(None, Status::Unknown, false, None, "unknown");
    }
}
