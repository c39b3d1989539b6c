//! What a VM says about memory that can be plugged.

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use super::DeviceState;

/// The pluggable memory of a VM at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PlugReport {
    /// How much can be plugged.
    pub size: Bytes,
    /// In which pieces.
    pub block: Bytes,
    /// How much the guest is asked to have plugged.
    pub requested: Bytes,
    /// How much is plugged.
    pub plugged: Bytes,
    /// Whether the guest drives the device.
    pub driver: DeviceState,
}
