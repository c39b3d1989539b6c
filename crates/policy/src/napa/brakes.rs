//! Keeping guests from growing, for moments.
//!
//! Memory can be asked for much faster than it can be taken. When nobody gets on any more, or when VMs hold far more than
//! they may, since only the policy keeps the budget, guests that grow beyond their entitlement are kept from it: for two
//! seconds at most, and then they have a turn. By turns each gets on; at once none would. A host may have no finer means
//! than to let a guest stand still, so nobody below its entitlement is kept, and nobody who does not take more.

use std::time::Duration;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::Brake;
use crate::napa::consent::STEP_MIN;
use crate::napa::row::Row;
use crate::napa::{Guest, Situation};

/// How long a guest may be kept from growing at once.
const BRAKE_MAX: Duration = Duration::from_secs(2);
/// Waiting of all tasks at once from which on nobody gets on.
const FULL_MAX: f64 = 0.5;
/// In how many groups guests have their turns.
const TURNS: u32 = 5;

/// Why guests are kept from growing, if they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// They are not.
    #[default]
    Off,
    /// Nobody gets on.
    Stalled,
    /// VMs hold more than they may, and nobody but the policy stops them.
    Budget,
}

impl Mode {
    /// The mode after another one.
    pub fn next(self, situation: &Situation) -> Self {
        let far_too_much = situation.excess.0 > situation.unit.0 / 2;
        let lasts = situation.excess > Bytes(0);
        match self {
            _ if far_too_much => Self::Budget,
            Self::Budget if lasts => Self::Budget,
            _ if situation.full.get() > FULL_MAX && situation.dire() > Bytes(0) => Self::Stalled,
            _ => Self::Off,
        }
    }

    /// The brake for one guest, if it needs one.
    pub fn brake(self, row: &Row, guest: &mut Guest, elapsed: Duration) -> Option<Brake> {
        // A guest that was kept takes nothing; whether it would is seen in its turn.
        let is_kept = guest.braked.is_some_and(|braked| !braked.is_zero());
        let takes = is_kept || taken(row, guest, elapsed) >= STEP_MIN.bytes();
        if self == Self::Off || !takes || row.charge.0.saturating_add(STEP_MIN.bytes().0) < row.entitled.0 {
            guest.braked = None;
            return None;
        }
        // The first time ends early for most, so that not all have their turn at once later.
        let braked = match guest.braked {
            None => BRAKE_MAX / (2 * TURNS) * (row.guest.id.0 % u64::from(TURNS)) as u32,
            Some(_) if !is_kept => Duration::ZERO,
            Some(braked) => braked.saturating_add(elapsed),
        };
        let at_most = BRAKE_MAX.saturating_sub(braked);
        if is_kept && at_most.is_zero() {
            guest.braked = Some(Duration::ZERO);
            return None;
        }
        // A first time of no length would look like a turn.
        guest.braked = Some(braked.max(Duration::from_nanos(1)));
        Some(Brake { ceiling: row.charge.max(row.entitled), at_most })
    }
}

/// What the guest has taken since the observation before: touched first, or back from swap.
fn taken(row: &Row, guest: &Guest, elapsed: Duration) -> Bytes {
    let back = row.guest.refaults.bytes().0 as f64 * elapsed.as_secs_f64().min(1.0);
    Bytes(guest.growth.0.saturating_add(back as u64))
}
