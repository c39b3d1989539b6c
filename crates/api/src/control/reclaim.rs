//! Taking memory from a VM into the host's swap.

use std::fmt;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

/// What came of a `reclaim`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ReclaimReport {
    /// Name of the VM.
    pub name: String,
    /// How much was asked for.
    pub asked: Bytes,
    /// How much left memory.
    pub taken: Bytes,
    /// How much was found that an earlier reclaim had taken and the guest brought back.
    pub came_back: Bytes,
    /// How long it took, in milliseconds.
    pub time_ms: u64,
    /// How it was taken.
    pub mechanism: ReclaimMechanism,
    /// Why it ended.
    pub end: ReclaimEnd,
}

/// How memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReclaimMechanism {
    /// The kernel chooses among the pages of the VM's control group (`memory.reclaim`).
    ControlGroup,
    /// The VM's process chooses among the guest's pages (`MADV_PAGEOUT`).
    PageOut,
}

/// By what means memory can be taken from a VM, as it found them when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MeansReport {
    /// Why pages of zeros cannot be given back. `None`: they can.
    pub no_zero_pages: Option<String>,
    /// Why equal pages cannot be merged. `None`: they can, unless another trust domain has the host by then.
    pub no_merging: Option<String>,
    /// How memory is put into swap.
    pub reclaim: ReclaimMechanism,
}

/// Why a reclaim took no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReclaimEnd {
    /// It took what was asked for.
    Complete,
    /// A request takes only so long; ask again for the rest.
    OutOfTime,
    /// The guest has nothing more in memory that the kernel would let go.
    NothingLeft,
    /// The VM has in swap all that its own limit lets it have (`--swap-max`).
    LimitReached,
    /// The host's swap is full.
    SwapFull,
}

impl fmt::Display for ReclaimMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlGroup => "the VM's control group",
            Self::PageOut => "the VM's process",
        })
    }
}
