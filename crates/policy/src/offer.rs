//! What mechanisms can do.

use std::time::Duration;

use napa_units::{Pages, VmId};
use serde::{Deserialize, Serialize};

/// Which offer: the same mechanism for the same guest in the same direction keeps its number from one observation to
/// the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OfferId(pub u64);

/// What one mechanism can do with the memory of one guest, or of all guests.
///
/// An offer is made again in each observation for as long as it stands, also while an order is being carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Which one.
    pub id: OfferId,
    /// Whose memory; `None` if the mechanism works on all guests at once.
    pub guest: Option<VmId>,
    /// Whether the host gets memory or gives it.
    pub direction: Direction,
    /// The most that can be ordered now, counted from what is done, not from what is outstanding.
    pub pages_max: Pages,
    /// What it costs the guest, against other offers: the cheapest is taken first.
    pub price: Price,
    /// When an order has most of its effect.
    pub delay: Duration,
    /// Whether what was taken can be given back by an order.
    pub reversible: bool,
    /// Who has to agree.
    pub consent: Consent,
    /// What an order means to it.
    pub works: Works,
    /// Ordered before, and not done yet.
    pub outstanding: Pages,
    /// What the mechanism has taken of this guest and not given back. The same number in both directions.
    pub taken: Pages,
}

/// Whether the host gets memory or gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the guest to the host.
    Take,
    /// From the host to the guest.
    Return,
}

/// What an offer costs the guest, against other offers. The order of prices is the strategy, and the mechanisms' side
/// fixes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Price(pub u32);

/// Who has to agree before memory moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// The guest: it may be slow, or never do it.
    Guest,
    /// The host alone.
    Host,
}

/// What the pages of an order mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Works {
    /// So many pages move, once.
    Amount,
    /// So many pages are looked at every second until another order comes, and what is found is gained: sharing, and
    /// dropping pages of zeros. An order of zero pages stops it. `outstanding` is the pace it has now.
    Search,
}
