//! The VMs of a host.

use std::fmt;
use std::path::PathBuf;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use super::{HostReport, VmMemoryRow};
use crate::VmConfig;

/// The shares of a VM that nobody gave any.
pub const SHARES_DEFAULT: u32 = 100;
/// The most shares of a VM.
pub const SHARES_MAX: u32 = 1_000_000;

/// A moment, in milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Time(pub u64);

/// A VM that the host is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// The VM, as `napa run` takes it. It has a name; its console and control socket are the host's.
    pub config: VmConfig,
    /// When the host starts it again.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Memory that the VM can always have, whatever others want. `None`: none.
    #[serde(default)]
    pub reservation: Option<Bytes>,
    /// Its part of contended memory in proportion to the shares of others, 1 to 1,000,000. `None`: 100.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 1_000_000))]
    pub shares: Option<u32>,
}

/// When the host starts a VM again that has ended by itself. An end of the host counts as a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    Never,
    /// Unless it switched itself off.
    OnFailure,
    /// However it ended.
    Always,
}

/// What a VM of the host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// It has never run.
    Created,
    /// Its process is there and does not answer yet.
    Starting,
    /// It runs.
    Running,
    /// Its vCPUs were stopped and can go on.
    Paused,
    /// It was asked to end.
    Stopping,
    /// It has ended.
    Stopped,
    /// It has ended, and is started again after a while.
    Waiting,
}

impl VmState {
    /// What it is called, also in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
        }
    }

    /// Whether there is a process.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Paused | Self::Stopping)
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl RestartPolicy {
    /// What it is called, also in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnFailure => "on-failure",
            Self::Always => "always",
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a VM ended last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VmExit {
    /// When it was seen to have ended.
    pub time: Time,
    /// The exit code of its process, one of those of `napa run`. `None`: a signal ended it, or it is not known.
    pub code: Option<u8>,
    /// The signal that ended it. `None`: none did, or it is not known.
    pub signal: Option<i32>,
    /// What happened, in words.
    pub reason: String,
}

/// A VM of the host, in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VmSummary {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: VmState,
    /// Its process. `None`: there is none.
    pub pid: Option<u32>,
    /// Guest memory, with all that can be plugged.
    pub memory: Bytes,
    /// Number of vCPUs.
    pub cpus: u32,
    /// When the host starts it again.
    pub restart: RestartPolicy,
    /// What it holds in RAM, by the last report (proportional set size). `None`: it does not run, or there was no report
    /// since it started.
    pub held: Option<Bytes>,
    /// When its process was started. `None`: there is none.
    pub started: Option<Time>,
    /// How it ended last. `None`: it has not.
    pub exit: Option<VmExit>,
}

/// All VMs of a host, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VmList {
    /// The VMs.
    pub vms: Vec<VmSummary>,
}

/// All about a VM of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VmDetail {
    /// The line about it.
    #[serde(flatten)]
    pub summary: VmSummary,
    /// How it is configured.
    pub config: VmConfig,
    /// Memory that it can always have.
    pub reservation: Bytes,
    /// Its shares of contended memory.
    pub shares: u32,
    /// When it was created.
    pub created: Time,
    /// How often it was started again since somebody last started it.
    pub restarts: u32,
    /// When it is started again. `None`: nobody waits for that.
    pub next_start: Option<Time>,
    /// Its control socket; there while it runs.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub control_socket: PathBuf,
    /// The socket of its console; there while it runs. `None`: its console goes elsewhere.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub console_socket: Option<PathBuf>,
    /// What it says and its VM's process says.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub log: PathBuf,
    /// Its control group, below the root of the hierarchy of version 2. `None`: it has none of its own.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub cgroup: Option<PathBuf>,
    /// Its memory, by the last report. `None`: as for [`held`](VmSummary::held).
    pub memory_row: Option<VmMemoryRow>,
}

/// What the daemon tells those who follow it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "event", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// A VM was created, or does something else than before.
    Vm(VmSummary),
    /// A VM was removed.
    Removed {
        /// Its name.
        name: String,
    },
    /// The memory of the host was looked at and decided upon.
    Report(Box<HostReport>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_json() {
        let json = |value: serde_json::Value| value.as_str().map(str::to_owned).unwrap_or_default();
        for state in [
            VmState::Created,
            VmState::Starting,
            VmState::Running,
            VmState::Paused,
            VmState::Stopping,
            VmState::Stopped,
            VmState::Waiting,
        ] {
            assert_eq!(json(serde_json::to_value(state).unwrap()), state.to_string());
        }
        for policy in [RestartPolicy::Never, RestartPolicy::OnFailure, RestartPolicy::Always] {
            assert_eq!(json(serde_json::to_value(policy).unwrap()), policy.to_string());
        }
    }

    #[test]
    fn a_vm_to_create_needs_a_configuration_and_nothing_else() {
        let text = r#"{"config": {"name": "web", "memory": "1G"}}"#;
        let vm: CreateVm = serde_json::from_str(text).unwrap();
        assert_eq!((vm.config.memory, vm.restart, vm.shares), (Bytes::gib(1), RestartPolicy::Never, None));
        for wrong in [r#"{}"#, r#"{"config": {}, "restart": "often"}"#, r#"{"config": {}, "cpus": 1}"#] {
            assert!(serde_json::from_str::<CreateVm>(wrong).is_err(), "{wrong}");
        }
    }
}
