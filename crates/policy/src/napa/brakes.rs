//! Keeping guests from growing, for moments.
//!
//! Memory can be asked for much faster than it can be taken. When nobody gets on any more, guests may not grow beyond
//! their entitlement for two seconds, and then have a turn. By turns each gets on; at once none would.
//!
//! When VMs hold more than they may and will hold far more in half a second, then no kernel stops them, and only the
//! policy keeps the budget. Then no guest may grow by more than its part of what is free and of what can be got out of
//! RAM meanwhile, until nobody meets that bound any more. The host takes for them at its full pace.

use std::time::Duration;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::napa::consent::STEP_MIN;
use crate::napa::row::Row;
use crate::napa::{Guest, Situation};
use crate::{Brake, Level};

/// How long a guest may be kept from growing at once.
const BRAKE_MAX: Duration = Duration::from_secs(2);
/// Waiting of all tasks at once from which on nobody gets on.
const FULL_MAX: f64 = 0.5;
/// In how many groups guests have their turns.
const TURNS: u32 = 5;

/// Whom to keep from growing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Nobody.
    #[default]
    Off,
    /// Those that grow, and not in their turn.
    Turns,
    /// All, from growing by more than their part of what there is.
    Budget,
}

impl Mode {
    /// The mode after another one, with so many guests that want more.
    pub fn next(self, situation: &Situation, wanting: usize) -> Self {
        let soon = situation.excess.0.saturating_add(situation.rush.0 / 2);
        let far_too_much = situation.excess.0 > situation.unit.0 / 16 && soon > situation.unit.0 / 4;
        match self {
            _ if far_too_much => Self::Budget,
            Self::Budget if situation.level >= Level::Hard && wanting > 0 => Self::Budget,
            _ if situation.full.get() > FULL_MAX && situation.dire() > Bytes(0) => Self::Turns,
            _ => Self::Off,
        }
    }
}

/// What holds for the brakes of all guests.
#[derive(Clone, Copy, Debug)]
pub struct Brakes {
    mode: Mode,
    /// What a guest that wants more may grow by until the next decision.
    allowance: Bytes,
    /// What anybody may grow by, so that nobody stands still.
    least: Bytes,
    elapsed: Duration,
}

impl Brakes {
    pub fn new(mode: Mode, situation: &Situation, wanting: usize, elapsed: Duration) -> Self {
        let leaving = situation.leaving.0 as f64 * elapsed.as_secs_f64().min(1.0);
        let room = (situation.free.0 as f64 + leaving - situation.excess.0 as f64).max(0.0);
        let part = |bytes: u64| Bytes(bytes / wanting.max(1) as u64).max(STEP_MIN.bytes());
        let least = part(situation.unit.0 / 4);
        Self { mode, allowance: part(room as u64).max(least), least, elapsed }
    }

    /// The brake for one guest, if it needs one: it may grow to its entitlement, or not at all if it is beyond.
    pub fn brake(&self, row: &Row, guest: &mut Guest) -> Option<Brake> {
        let ceiling = row.charge.max(row.entitled);
        match self.mode {
            Mode::Turns if guest.growth > Bytes(0) || guest.braked.is_some() => {
                self.turn(row, guest).map(|at_most| Brake { ceiling, at_most })
            }
            Mode::Off | Mode::Turns => {
                (guest.braked, guest.ceiling) = (None, None);
                None
            }
            Mode::Budget => {
                let allowance = if wants_more(row, guest) { self.allowance } else { self.least };
                let grown = Bytes(row.charge.0.saturating_add(allowance.0)).min(row.guest.limit);
                (guest.braked, guest.ceiling) = (None, Some(grown));
                Some(Brake { ceiling: grown, at_most: BRAKE_MAX })
            }
        }
    }

    /// For how long the guest may not grow; `None` if it is its turn.
    fn turn(&self, row: &Row, guest: &mut Guest) -> Option<Duration> {
        // A guest that was kept at its entitlement lies just below it, and has its turn too.
        if row.charge.0.saturating_add(row.guest.limit.0 / 64) < row.entitled.0 {
            return Some(BRAKE_MAX);
        }
        // The first time ends early for most, so that not all have their turn at once later.
        let braked = match guest.braked {
            None => BRAKE_MAX / TURNS * (row.guest.id.0 % u64::from(TURNS)) as u32,
            Some(braked) => braked.saturating_add(self.elapsed),
        };
        let at_most = BRAKE_MAX.saturating_sub(braked);
        guest.braked = Some(if at_most.is_zero() { Duration::ZERO } else { braked });
        (!at_most.is_zero()).then_some(at_most)
    }
}

/// How many guests want more than they have.
pub fn wanting(rows: &[Row], guests: &[Guest]) -> usize {
    rows.iter().zip(guests).filter(|(row, guest)| wants_more(row, guest)).count()
}

/// Whether the guest grows, or has met the ceiling that it was given.
fn wants_more(row: &Row, guest: &Guest) -> bool {
    let step = STEP_MIN.bytes();
    let met = |ceiling: Bytes| row.charge.0.saturating_add(step.0) >= ceiling.0;
    guest.growth >= step || guest.ceiling.is_some_and(met)
}
