//! What a VM is told about merging its pages, and what it says about it.

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use super::RpcError;
use super::message::Params;
use crate::config::ShareConfig;

/// What is to become of the sharing of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareOrder {
    /// Begin, or go on: mark memory as mergeable and look for pages of zeros, for about a second.
    On,
    /// Stop: give every merged page a copy of its own, for about a second.
    Off,
}

impl ShareOrder {
    pub(super) fn decode(params: &Params<'_>) -> Result<Self, RpcError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Share {
            on: bool,
        }
        let Share { on } = params.read("takes one named parameter, \"on\": true or false")?;
        Ok(if on { Self::On } else { Self::Off })
    }

    /// Whether it is [`On`](Self::On), as the parameter `on` says it.
    pub(super) fn is_on(self) -> bool {
        self == Self::On
    }
}

/// The sharing of a VM at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ShareReport {
    /// How far pages may be merged.
    pub scope: ShareConfig,
    /// Whether they are.
    pub is_on: bool,
    /// Guest memory that has been merged with equal pages. `None`: the kernel does not say.
    pub merged: Option<Bytes>,
    /// Guest memory that the kernel has replaced by its own page of zeros. `None`: the kernel does not say.
    pub zero: Option<Bytes>,
    /// What merging has saved on behalf of this VM less what it costs, in bytes. `None`: the kernel does not say.
    pub profit: Option<i64>,
    /// How often the kernel has looked at all mergeable memory of the host. `None`: there is no KSM here, or this VM
    /// may not use it.
    pub full_scans: Option<u64>,
    /// Pages of zeros that were given back to the host since the VM started.
    pub given_back: Bytes,
    /// What the order that this answers has not got to yet: give it again until this is 0.
    pub left: Bytes,
    /// What could not be done while the rest was: equal pages are not merged, or pages of zeros not given back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Processes outside of the domain that let the kernel merge their memory with this VM's. The VM's process does not
    /// see others; whoever asks fills this in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strangers: Vec<Stranger>,
}

/// A process that is no member of the domain, but lets the kernel merge its memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Stranger {
    /// The process.
    pub pid: u32,
    /// What it is called.
    pub name: String,
}
