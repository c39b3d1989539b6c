//! What a policy wants done, and why.

use std::fmt;
use std::time::Duration;

use napa_units::{Bytes, Pages, VmId};
use serde::{Deserialize, Serialize};

use crate::OfferId;

/// What a policy wants done now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// How short memory is.
    pub level: Level,
    /// One for each guest of the observation, in its order.
    pub guests: Vec<GuestDecision>,
    /// At most one for each offer. An offer without a grant goes on with what is outstanding of it.
    ///
    /// They are meant to start at once and in parallel. What is returned does not count on what is taken.
    pub grants: Vec<Grant>,
    /// Whether VMs may be started.
    pub admission_open: bool,
    /// Why, in words: about the host, most important first.
    pub reasons: Vec<String>,
}

/// How short the memory of a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Plenty: balloons return.
    High,
    /// Enough: equal pages are looked for.
    Clear,
    /// Less than wanted: guests are asked.
    Soft,
    /// Little: the host takes without asking.
    Hard,
    /// Nearly nothing: all that there is.
    Low,
}

impl Level {
    /// All of them, the best first.
    pub const ALL: [Self; 5] = [Self::High, Self::Clear, Self::Soft, Self::Hard, Self::Low];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::High => "high",
            Self::Clear => "clear",
            Self::Soft => "soft",
            Self::Hard => "hard",
            Self::Low => "low",
        })
    }
}

/// What a policy thinks of one guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestDecision {
    /// Which VM.
    pub guest: VmId,
    /// RAM that the guest's memory may have, as things are: what it has beyond may be taken.
    pub entitlement: Bytes,
    /// What it is taken to use.
    pub working_set: Bytes,
    /// Whether it does what it is asked.
    pub cooperation: Cooperation,
    /// RAM of the guest that should not be reclaimed while other RAM can be (`memory.low`). Zero: no protection.
    pub protected: Bytes,
    /// Keep it from growing, for a short time; `None` lets it go.
    pub brake: Option<Brake>,
    /// Why, in words.
    pub reason: String,
}

/// Keeps a guest from growing for a short time: by pauses of its vCPUs, or by `memory.high`.
///
/// It is given only to guests that take more than they are entitled to, so that they may as well stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// RAM of the guest's memory that it should not grow beyond.
    pub ceiling: Bytes,
    /// When the brake must be off again at the latest, at most two seconds.
    pub at_most: Duration,
}

/// Whether a guest does what it is asked. Only mechanisms that need its consent depend on that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cooperation {
    /// It does, as far as is known.
    #[default]
    Cooperative,
    /// It did not move for some seconds: what was asked was taken back.
    Stuck,
    /// It does not, for longer: it is not asked for a while.
    Uncooperative,
}

impl fmt::Display for Cooperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cooperative => "cooperative",
            Self::Stuck => "stuck",
            Self::Uncooperative => "uncooperative",
        })
    }
}

/// An order to a mechanism.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Which offer is taken.
    pub offer: OfferId,
    /// Whose memory; as in the offer.
    pub guest: Option<VmId>,
    /// What to do.
    pub order: Order,
    /// Why, in words.
    pub reason: String,
}

/// What to do with an offer. It replaces whatever is outstanding of the same mechanism for the same guest, in both
/// directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Take so many pages from the guest, counted from what is done. For an offer of `Direction::Take`.
    Take(Pages),
    /// Give so many pages back, counted from what is done. For an offer of `Direction::Return`.
    Return(Pages),
    /// Forget what is outstanding, and leave what is done.
    Cancel,
}
