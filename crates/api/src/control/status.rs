//! What a VM says about itself.

use std::fmt;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

/// A VM at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Status {
    /// Name of the VM.
    pub name: String,
    /// What its vCPUs do.
    pub state: State,
    /// Process of the VM on the host.
    pub pid: u32,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Guest memory.
    pub memory: Bytes,
    /// Time since the VM first ran, pauses included, in milliseconds.
    pub uptime_ms: u64,
    /// Devices, in the order of their PCI slots.
    pub devices: Vec<DeviceStatus>,
}

/// What the vCPUs of a VM do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// They run.
    Running,
    /// They were stopped and can go on.
    Paused,
    /// The guest was asked to switch itself off, or the VM is ending.
    Stopping,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
        })
    }
}

/// A device of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DeviceStatus {
    /// Name of the device within its VM: `disk0`, `net1`, `console`.
    pub name: String,
    /// What kind of device it is: `virtio-blk`.
    pub kind: String,
    /// Its place on the PCI bus: `00:03.0`. `None`: it is not a PCI device.
    pub pci: Option<String>,
    /// Whether the guest uses it.
    pub state: DeviceState,
}

/// Whether the guest uses a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// No driver has taken it.
    Idle,
    /// A driver has taken it.
    Active,
    /// Its driver broke the rules; it does nothing until the driver resets it.
    NeedsReset,
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::NeedsReset => "needs reset",
        })
    }
}
