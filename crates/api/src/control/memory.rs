//! What a VM is asked about its memory, and what it answers.

use napa_units::{Bytes, Ledger, PAGE_SIZE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::GroupReport;
use super::message::Params;
use super::sharing::{ShareOrder, ShareReport};
use super::{BalloonReport, PlugReport, RpcError, WorkingSet};

/// What is asked about a VM's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryCommand {
    /// Say where every page is.
    Report,
    /// Say how the balloon is.
    Balloon {
        /// First ask the guest to give up so much, in whole pages. `None`: leave the target as it is.
        target: Option<Bytes>,
    },
    /// Ask the guest how its memory is, and say how the balloon is.
    BalloonStatistics,
    /// Ask the guest which of its pages are free.
    BalloonHint,
    /// Say how the memory is that can be plugged.
    Plug {
        /// First ask the guest to have so much plugged, in whole blocks. `None`: leave the target as it is.
        size: Option<Bytes>,
    },
    /// Put memory into the host's swap.
    Reclaim {
        /// How much; at least one page.
        size: Bytes,
    },
    /// Merge equal pages, or take them apart.
    Share(ShareOrder),
    /// Take some pages away, to see which come back.
    Sample,
    /// Say where guest memory is in the VM's process.
    Mapping,
    /// Say which came back, and how much memory the guest uses by that.
    WorkingSet,
    /// Say by what means memory can be taken from the VM.
    Means,
}

impl MemoryCommand {
    pub(super) const METHODS: &[&str] = &[
        "memory",
        "balloon",
        "balloon-statistics",
        "balloon-hint",
        "plug",
        "reclaim",
        "share",
        "sample",
        "mapping",
        "working-set",
        "means",
    ];

    /// The name of the method.
    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Report => "memory",
            Self::Balloon { .. } => "balloon",
            Self::BalloonStatistics => "balloon-statistics",
            Self::BalloonHint => "balloon-hint",
            Self::Plug { .. } => "plug",
            Self::Reclaim { .. } => "reclaim",
            Self::Share(_) => "share",
            Self::Sample => "sample",
            Self::Mapping => "mapping",
            Self::WorkingSet => "working-set",
            Self::Means => "means",
        }
    }

    /// `None`: the method is not one of these.
    pub(super) fn decode(params: &Params<'_>) -> Option<Result<Self, RpcError>> {
        Some(match params.method {
            "memory" => params.none().map(|()| Self::Report),
            "balloon" => balloon_target(params).map(|target| Self::Balloon { target }),
            "balloon-statistics" => params.none().map(|()| Self::BalloonStatistics),
            "balloon-hint" => params.none().map(|()| Self::BalloonHint),
            "plug" => plug_size(params).map(|size| Self::Plug { size }),
            "reclaim" => size(params).map(|size| Self::Reclaim { size }),
            "share" => ShareOrder::decode(params).map(Self::Share),
            "sample" => params.none().map(|()| Self::Sample),
            "mapping" => params.none().map(|()| Self::Mapping),
            "working-set" => params.none().map(|()| Self::WorkingSet),
            "means" => params.none().map(|()| Self::Means),
            _ => return None,
        })
    }

    /// Parameters, by name; `None`: there are none.
    pub(super) fn params(self) -> Option<Value> {
        match self {
            Self::Balloon { target } => target.map(|target| json!({ "target": target })),
            Self::Plug { size } => size.map(|size| json!({ "size": size })),
            Self::Reclaim { size } => Some(json!({ "size": size })),
            Self::Share(order) => Some(json!({ "on": order.is_on() })),
            Self::Report
            | Self::BalloonStatistics
            | Self::BalloonHint
            | Self::Sample
            | Self::Mapping
            | Self::WorkingSet
            | Self::Means => None,
        }
    }
}

fn balloon_target(params: &Params<'_>) -> Result<Option<Bytes>, RpcError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Balloon {
        #[serde(default)]
        target: Option<Bytes>,
    }
    let what = "takes one named parameter, \"target\", a number of bytes in whole pages of 4096";
    let Balloon { target } = params.read(what)?;
    match target {
        Some(target) if target.0 % PAGE_SIZE != 0 => Err(params.error(what)),
        _ => Ok(target),
    }
}

fn plug_size(params: &Params<'_>) -> Result<Option<Bytes>, RpcError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Plug {
        #[serde(default)]
        size: Option<Bytes>,
    }
    let what = "takes one named parameter, \"size\": bytes, or a text such as \"512M\"";
    params.read(what).map(|Plug { size }| size)
}

/// The one parameter of a method that takes a size.
fn size(params: &Params<'_>) -> Result<Bytes, RpcError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Size {
        size: Bytes,
    }
    let what =
        "takes one named parameter, \"size\": bytes, or a text such as \"512M\", of at least one page (4K)";
    match params.read(what)? {
        Size { size } if size.0 < PAGE_SIZE => Err(params.error(what)),
        Size { size } => Ok(size),
    }
}

/// The memory of a VM at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MemoryReport {
    /// Name of the VM.
    pub name: String,
    /// Guest memory, with what is plugged.
    pub size: Bytes,
    /// How much of it is where; the parts sum to the size.
    pub ledger: Ledger,
    /// How much of it was looked at. Less than all: the ledger is scaled from a random sample.
    pub looked_at: Bytes,
    /// How much of it is in huge pages. `None`: not looked at in a guest of this size.
    pub huge: Option<Bytes>,
    /// How the part in compressed swap is known.
    pub compressed: Certainty,
    /// Pages that a report found in swap and a later one in memory, since the guest started.
    pub refaults: u64,
    /// How often the VM's process has waited for a page from swap or a disk. `None`: the kernel does not say.
    pub major_faults: Option<u64>,
    /// How much of it the guest uses, by the last sample. `None`: there was none.
    pub working_set: Option<WorkingSet>,
    /// The balloon. `None`: the VM has none.
    pub balloon: Option<BalloonReport>,
    /// Memory that can be plugged. `None`: none can.
    #[serde(default)]
    pub hotplug: Option<PlugReport>,
    /// Merged pages.
    pub sharing: ShareReport,
    /// The VM's own control group. `None`: it has none with the memory controller.
    pub group: Option<GroupReport>,
}

/// How something is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The kernel counts it for this VM.
    Counted,
    /// The kernel counts it for the host, and the VM is taken to have its part of it.
    Estimated,
}
