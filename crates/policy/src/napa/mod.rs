//! napa's own policy: entitlements by shares and use, and the cheapest mechanism that is still fast enough.
//!
//! ```text
//!   high    everything goes back, in small steps
//!   clear   equal pages are looked for; guests that lack memory get theirs back
//!   soft    guests above their entitlement are asked
//!   hard    what those do not give at once the host takes itself from others above theirs; no VM is started
//!   low     nobody is asked: the host takes, and keeps guests above their entitlement from growing
//! ```

mod asks;
mod consent;
mod returns;
mod row;
mod searches;
mod takes;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use napa_units::{Bytes, Pages, VmId};
use serde::{Deserialize, Serialize};

use crate::draft::Draft;
use crate::entitlement::{Claim, entitlements};
use crate::level::{Ladder, unit};
use crate::words::Figure;
use crate::working_set::Demand;
use crate::{Brake, Decision, Fraction, GuestDecision, GuestObservation, Level, Observation, Policy};

use asks::Asked;
use consent::{Consent, Turn};
use row::{Offers, Row, Sorted};
use takes::Taken;

/// The tax on memory that a guest holds and does not use.
const TAX: f64 = 0.75;
/// Longer gaps between observations say no more than this one.
const ELAPSED_MAX: Duration = Duration::from_mins(60);
/// How long a guest may be kept from growing at once.
const BRAKE_MAX: Duration = Duration::from_secs(2);

/// The policy and what it remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Napa {
    ladder: Ladder,
    guests: BTreeMap<VmId, Guest>,
}

/// What is remembered of one guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Guest {
    demand: Demand,
    consent: Consent,
    /// Its memory in RAM and in swap, one observation ago.
    size: Option<Bytes>,
    /// What it grew by since the observation before.
    growth: Bytes,
    /// For how long it has been kept from growing.
    braked: Duration,
}

/// What holds for the whole host in one decision.
#[derive(Clone, Copy, Debug)]
struct Situation {
    level: Level,
    /// m, the unit of the levels.
    unit: Bytes,
    free: Bytes,
    /// What has to become free.
    wanted: Bytes,
}

impl Policy for Napa {
    fn name(&self) -> &'static str {
        "napa"
    }

    fn decide(&mut self, observation: &Observation) -> Decision {
        let elapsed = observation.elapsed.min(ELAPSED_MAX);
        let unit = unit(&observation.host);
        let level = self.ladder.update(&observation.host, unit, elapsed);
        let mut sorted = Sorted::new(observation);
        let mut guests: Vec<Guest> = self.recall(observation);
        let inflow = inflow(observation, &mut guests, elapsed);
        let rows = rows(observation, unit, &mut sorted, &mut guests, elapsed);
        let mut situation = Situation {
            level,
            unit,
            free: observation.host.free(),
            wanted: wanted(observation, level, unit, inflow),
        };

        let mut draft = Draft::default();
        answer(&rows, &mut guests, &mut draft, elapsed);
        searches::pace(&situation, &rows, &sorted.searches, &mut draft);
        let asked = match level {
            Level::Soft | Level::Hard => asks::ask(&situation, &rows, &mut guests, &mut draft),
            Level::High | Level::Clear | Level::Low => Asked::default(),
        };
        situation.wanted.0 = situation.wanted.0.saturating_sub(asked.expected.0);
        let taken = match level {
            Level::Hard | Level::Low => takes::take(&situation, &rows, &mut guests, &mut draft),
            Level::High | Level::Clear | Level::Soft => Taken::default(),
        };
        let returned = returns::give_back(&situation, &rows, &guests, &mut draft);

        let mut reasons = vec![self.ladder.reason(&observation.host, unit)];
        reasons.extend(words::deeds(asked, taken, returned));
        let decisions =
            rows.iter().zip(&mut guests).map(|(row, guest)| verdict(level, row, guest, elapsed)).collect();
        self.guests = observation.guests.iter().map(|guest| guest.id).zip(guests).collect();
        Decision {
            level,
            guests: decisions,
            grants: draft.finish(),
            admission_open: level < Level::Hard,
            reasons,
        }
    }
}

impl Napa {
    /// What is remembered of the guests of an observation, in its order.
    fn recall(&mut self, observation: &Observation) -> Vec<Guest> {
        observation.guests.iter().map(|guest| self.guests.remove(&guest.id).unwrap_or_default()).collect()
    }
}

/// What came into RAM since the last observation, as a size a second: what was touched first, and what came back.
fn inflow(observation: &Observation, guests: &mut [Guest], elapsed: Duration) -> Bytes {
    let mut sum = 0.0;
    for (seen, guest) in observation.guests.iter().zip(guests) {
        let size = Bytes(seen.resident.0.saturating_add(seen.swapped.0));
        let before = guest.size.replace(size).unwrap_or(size);
        guest.growth = Bytes(size.0.saturating_sub(before.0));
        sum += guest.growth.0 as f64 / elapsed.as_secs_f64().max(0.1);
        sum += seen.refaults.bytes().0 as f64;
    }
    Bytes(sum as u64)
}

/// What has to become free: what VMs hold too much, what lacks to leave the level, and in the worst levels what
/// arrives until the next decision.
fn wanted(observation: &Observation, level: Level, unit: Bytes, inflow: Bytes) -> Bytes {
    let host = &observation.host;
    let target = match level {
        Level::High | Level::Clear => 0,
        Level::Soft | Level::Low => unit.0 / 4 * 5,
        Level::Hard => unit.0,
    };
    let missing = target.saturating_sub(host.free().0).saturating_add(host.excess().0);
    let arriving = if level >= Level::Hard && missing > 0 { inflow.0.min(host.capacity.0 / 8) } else { 0 };
    Bytes(missing.saturating_add(arriving))
}

/// The guests with their working sets, entitlements and offers.
fn rows<'a>(
    observation: &'a Observation,
    unit: Bytes,
    sorted: &mut Sorted<'a>,
    guests: &mut [Guest],
    elapsed: Duration,
) -> Vec<Row<'a>> {
    let mut rows: Vec<Row> = observation
        .guests
        .iter()
        .zip(guests)
        .map(|(seen, guest)| {
            let used = guest.demand.update(seen, elapsed).0;
            let working_set = Bytes(used.saturating_add(used / 5).min(seen.limit.0));
            let offers: Offers = sorted.guests.remove(&seen.id).unwrap_or_default();
            row::row(seen, working_set, offers)
        })
        .collect();
    let claims: Vec<Claim> = rows.iter().map(claim).collect();
    let entitled = entitlements(&claims, handed_out(observation, unit), Fraction::new(TAX));
    rows.iter_mut().zip(entitled).for_each(|(row, entitled)| row.entitled = entitled);
    rows
}

fn claim(row: &Row) -> Claim {
    let GuestObservation { reservation, limit, shares, .. } = *row.guest;
    Claim { reservation, limit, shares, working_set: row.working_set }
}

/// What is divided among the guests: what VMs may hold, without their processes' own memory and what should stay free.
/// Of what sharing saves it counts half, as [charges](crate::working_set::charge) count half.
fn handed_out(observation: &Observation, unit: Bytes) -> Bytes {
    let host = &observation.host;
    let sum = |of: fn(&GuestObservation) -> u64| {
        observation.guests.iter().fold(0_u64, |sum, guest| sum.saturating_add(of(guest)))
    };
    let saved = sum(|guest| guest.resident.0.saturating_sub(guest.held.0.saturating_sub(guest.overhead.0)));
    let sharing = host.sharing_profit.0.min(saved) / 2;
    let kept = sum(|guest| guest.overhead.0).saturating_add(unit.0 / 4 * 5);
    Bytes(host.capacity.0.saturating_sub(kept).saturating_add(sharing))
}

/// Deals with guests that did not do what they were asked, and with those in distress.
fn answer(rows: &[Row], guests: &mut [Guest], draft: &mut Draft, elapsed: Duration) {
    for (row, guest) in rows.iter().zip(guests) {
        let asks = &row.offers.asks;
        let asked = asks.iter().find(|offer| offer.outstanding > Pages(0)).or(asks.first());
        match guest.consent.update(row.guest, asked.copied(), row.given(), elapsed) {
            Turn::None => {}
            Turn::Cancel(unmet) => {
                if let Some(offer) = asked {
                    draft.cancel(offer, || words::unmet(offer, unmet));
                }
            }
            Turn::Relieve => relieve(row, draft),
        }
    }
}

/// Gives a guest in distress everything back at once. Its limit was promised to it, so this needs no free memory.
fn relieve(row: &Row, draft: &mut Draft) {
    let words =
        || format!("it is in distress: all of the {} that it gave goes back", Figure(row.given().bytes()));
    for offer in row.offers.gives.iter().filter(|offer| offer.outstanding < offer.taken) {
        draft.order(offer, offer.taken, words);
    }
    for offer in
        row.offers.asks.iter().filter(|offer| offer.outstanding > Pages(0) && offer.taken == Pages(0))
    {
        draft.cancel(offer, words);
    }
}

/// What is thought of one guest, and whether it is kept from growing.
fn verdict(level: Level, row: &Row, guest: &mut Guest, elapsed: Duration) -> GuestDecision {
    let protected = match level {
        Level::Hard | Level::Low => row.working_set.max(row.guest.reservation).min(row.entitled),
        Level::High | Level::Clear | Level::Soft => Bytes(0),
    };
    GuestDecision {
        guest: row.guest.id,
        entitlement: row.entitled,
        working_set: row.working_set,
        cooperation: guest.consent.cooperation(),
        protected,
        brake: brake(level, row, guest, elapsed),
        reason: words::verdict(row, guest),
    }
}

/// Keeps a guest above its entitlement from growing while memory is low. One that was kept for as long as it may be
/// runs freely until the next decision.
fn brake(level: Level, row: &Row, guest: &mut Guest, elapsed: Duration) -> Option<Brake> {
    let at_most = BRAKE_MAX.saturating_sub(guest.braked);
    let grows = guest.growth > Bytes(0) && row.beyond() > Bytes(0);
    if level < Level::Low || !grows || at_most.is_zero() {
        guest.braked = Duration::ZERO;
        return None;
    }
    guest.braked = guest.braked.saturating_add(elapsed);
    Some(Brake { ceiling: row.charge, at_most })
}
