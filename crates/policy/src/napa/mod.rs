//! napa's own policy: entitlements by shares and use, and the cheapest mechanism that is still fast enough.
//!
//! ```text
//!   high    everything goes back, in small steps
//!   clear   equal pages are looked for; guests that lack memory get theirs back; guests are asked for what they
//!           have no use for at all
//!   soft    guests above their entitlement are asked for all that they can spare
//!   hard    what they do not give at once the host takes itself from others above theirs; no VM is started
//!   low     the same; while nobody gets on, guests above their entitlement are kept from growing by turns
//! ```

mod asks;
mod brakes;
mod consent;
mod heard;
mod returns;
mod row;
mod searches;
mod takes;
#[cfg(test)]
mod tests;
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

use brakes::Mode;
use consent::{Consent, Turn};
use heard::Heard;
use row::{Offers, Row, Sorted};

/// The tax on memory that a guest holds and does not use.
const TAX: f64 = 0.75;
/// Longer gaps between observations say no more than this one.
const ELAPSED_MAX: Duration = Duration::from_mins(60);

/// The policy and what it remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Napa {
    ladder: Ladder,
    mode: Mode,
    guests: BTreeMap<VmId, Guest>,
}

/// What is remembered of one guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Guest {
    demand: Demand,
    consent: Consent,
    heard: Heard,
    /// Its memory in RAM and in swap, one observation ago.
    size: Option<Bytes>,
    /// What it grew by since the observation before.
    growth: Bytes,
    /// For how long it has been kept from growing.
    braked: Option<Duration>,
}

/// What holds for the whole host in one decision.
#[derive(Clone, Copy, Debug)]
struct Situation {
    level: Level,
    /// m, the unit of the levels.
    unit: Bytes,
    free: Bytes,
    /// What guests are asked for, in all.
    to_ask: Bytes,
    /// What has to become free at once.
    wanted: Bytes,
    /// What is expected to be taken by guests until the next decision, in the worst levels.
    arriving: Bytes,
    /// What VMs hold too much.
    excess: Bytes,
    /// For how long all tasks waited for memory at once.
    full: Fraction,
}

impl Situation {
    /// What is missing to the worst threshold: less than a quarter of the unit is free, or VMs hold too much.
    fn dire(&self) -> Bytes {
        Bytes((self.unit.0 / 4).saturating_sub(self.free.0).saturating_add(self.excess.0))
    }

    /// Whether there is more than what ends a shortage.
    fn has_enough(&self) -> bool {
        self.free.0 >= self.unit.0 / 4 * 5
    }
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
        let mut guests = self.recall(observation);
        let rush = rush(observation, &mut guests, elapsed);
        let rows = rows(observation, unit, &mut sorted, &mut guests, elapsed);
        let mut situation = situation(observation, level, unit, rush);
        self.mode = self.mode.next(&situation);
        if self.mode == Mode::Budget {
            // Guests are held back: what they would take is taken for them beforehand.
            let ahead = missing(observation, unit, 16).0 - missing(observation, unit, 5).0;
            situation.arriving = Bytes(observation.host.capacity.0 / 8 + ahead);
        }
        let mut draft = Draft::default();
        answer(&rows, &mut guests, &mut draft, elapsed);
        searches::pace(&situation, &rows, &sorted.searches, &mut draft);
        let asked = asks::ask(&situation, &rows, &mut guests, &mut draft);
        situation.wanted.0 = situation.wanted.0.saturating_sub(asked.expected.0);
        let taken = takes::take(&situation, &rows, &mut guests, &mut draft);
        let returned = returns::give_back(&situation, &rows, &guests, &mut draft);

        let mode = self.mode;
        let mut reasons = vec![self.ladder.reason(&observation.host, unit)];
        reasons.extend(words::deeds(asked, taken, returned));
        let decisions = rows
            .iter()
            .zip(&mut guests)
            .map(|(row, guest)| {
                let brake = mode.brake(row, guest, elapsed);
                verdict(&situation, row, guest, brake)
            })
            .collect();
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
fn rush(observation: &Observation, guests: &mut [Guest], elapsed: Duration) -> Bytes {
    let (mut rush, seconds) = (0.0, elapsed.as_secs_f64().max(0.1));
    for (seen, guest) in observation.guests.iter().zip(guests) {
        let size = Bytes(seen.resident.0.saturating_add(seen.swapped.0));
        let before = guest.size.replace(size).unwrap_or(size);
        guest.growth = Bytes(size.0.saturating_sub(before.0));
        rush += guest.growth.0 as f64 / seconds + seen.refaults.bytes().0 as f64;
    }
    Bytes(rush as u64)
}

/// What follows from the level: guests are asked until it could be high again, the host takes until the worst levels can
/// be left, and more in step with what arrives.
fn situation(observation: &Observation, level: Level, unit: Bytes, rush: Bytes) -> Situation {
    let (free, excess) = (observation.host.free(), observation.host.excess());
    let to_ask = if level >= Level::Clear { missing(observation, unit, 32) } else { Bytes(0) };
    let wanted = if level >= Level::Hard { missing(observation, unit, 5) } else { Bytes(0) };
    let most = observation.host.capacity.0 / 8;
    let arriving = if wanted > Bytes(0) { rush.min(Bytes(most)) } else { Bytes(0) };
    let full = observation.host.pressure.full;
    Situation { level, unit, free, to_ask, wanted, arriving, excess, full }
}

/// What lacks until so many eighths of the unit are free, with what VMs hold too much.
fn missing(observation: &Observation, unit: Bytes, eighths: u128) -> Bytes {
    let target = u64::try_from(u128::from(unit.0) * eighths / 8).unwrap_or(u64::MAX);
    let host = &observation.host;
    Bytes(target.saturating_sub(host.free().0).saturating_add(host.excess().0))
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
            let offers: Offers = sorted.guests.remove(&seen.id).unwrap_or_default();
            let hints = guest.heard.update(seen, offers.given());
            let used = guest.demand.update(seen, hints.as_ref(), elapsed).0;
            let working_set = Bytes(used.saturating_add(used / 5).min(seen.limit.0));
            row::row(seen, hints, working_set, offers)
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
        match guest.consent.update(row, asked.copied(), elapsed) {
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

/// What is thought of one guest.
fn verdict(situation: &Situation, row: &Row, guest: &Guest, brake: Option<Brake>) -> GuestDecision {
    let protected = match situation.level {
        Level::Hard | Level::Low => row.working_set.max(row.guest.reservation).min(row.entitled),
        Level::High | Level::Clear | Level::Soft => Bytes(0),
    };
    GuestDecision {
        guest: row.guest.id,
        entitlement: row.entitled,
        working_set: row.working_set,
        cooperation: guest.consent.cooperation(),
        protected,
        brake,
        reason: words::verdict(row, guest),
    }
}
