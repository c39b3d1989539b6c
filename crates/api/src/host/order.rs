//! What a VM of the host is told, where a verb has something to say.

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

/// How a VM is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct StopOrder {
    /// Stop hard after this many seconds, one day at most. `None`: after the bound of the VM's configuration.
    #[cfg_attr(feature = "schema", schema(maximum = 86400))]
    pub timeout_s: Option<u32>,
}

/// What a guest is asked to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalloonOrder {
    /// How much memory the guest is asked to give up, in whole pages of 4 KiB.
    pub target: Bytes,
}

/// How much memory of a VM is put into swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReclaimOrder {
    /// How much; at least a page.
    pub size: Bytes,
}
