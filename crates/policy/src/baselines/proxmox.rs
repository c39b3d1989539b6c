//! Proxmox VE's automatic ballooning: `compute_alg1` of `PVE/AutoBalloon.pm`, as `pvestatd` calls it.

use std::collections::BTreeMap;
use std::time::Duration;

use napa_units::{Bytes, VmId};
use serde::{Deserialize, Serialize};

use crate::baselines::ksm::Tuner;
use crate::baselines::{Balloons, unmoved};
use crate::draft::Draft;
use crate::{Decision, GuestObservation, Observation, Policy};

/// How often it decides.
const PERIOD: Duration = Duration::from_secs(10);
/// The part of the host that should be used.
const TARGET: f64 = 0.80;
/// A smaller distance from it is left alone.
const DEADBAND: i128 = 10 << 20;
/// The most that one guest changes by at once.
const CHANGE_MAX: i128 = 100 << 20;

/// Shares pages as `ksmtuned` does, and keeps the host at 80 % used by sizing balloons between a smallest size and the
/// limit, by shares: `desired = min + shares·(Σ(size − min) + goal)/Σshares`.
///
/// Guests under pressure grow first, guests with more than a quarter of their smallest size free shrink first. The
/// smallest size is the reservation, or a quarter of the limit if nothing is reserved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proxmox {
    tuner: Tuner,
    since: Duration,
}

/// One guest with a balloon, in bytes.
struct Seat<'a> {
    guest: &'a GuestObservation,
    size: i128,
    smallest: i128,
    limit: i128,
    shares: i128,
}

impl<'a> Seat<'a> {
    fn new(guest: &'a GuestObservation) -> Self {
        let quarter = Bytes(guest.limit.0 / 4);
        let smallest =
            if guest.reservation > Bytes(0) { guest.reservation.min(guest.limit) } else { quarter };
        Self {
            guest,
            size: i128::from(Balloons::size(guest).0),
            smallest: i128::from(smallest.0),
            limit: i128::from(guest.limit.0),
            shares: i128::from(guest.shares.0.max(1)),
        }
    }

    fn has_enough(&self) -> bool {
        let free = self.guest.hints.as_ref().and_then(|hints| hints.free).unwrap_or_default();
        i128::from(free.0) > self.smallest / 4 && self.size >= self.smallest
    }
}

impl Policy for Proxmox {
    fn name(&self) -> &'static str {
        "proxmox"
    }

    fn decide(&mut self, observation: &Observation) -> Decision {
        let mut draft = Draft::default();
        let mut reasons: Vec<String> = self.tuner.tune(observation, &mut draft).into_iter().collect();
        self.since = self.since.saturating_add(observation.elapsed);
        if self.since >= PERIOD {
            self.since = Duration::ZERO;
            reasons.push(balloon(observation, &mut draft));
        }
        Decision { grants: draft.finish(), reasons, ..unmoved(observation) }
    }
}

fn balloon(observation: &Observation, draft: &mut Draft) -> String {
    let (host, balloons) = (&observation.host, Balloons::new(observation));
    let total = i128::from(host.capacity.0);
    let used = total - i128::from(host.free().0) + i128::from(host.excess().0);
    let goal = (total as f64 * TARGET) as i128 - used;
    let seats: Vec<Seat> =
        observation.guests.iter().filter(|guest| balloons.has(guest.id)).map(Seat::new).collect();
    let (enough, pressed): (Vec<&Seat>, Vec<&Seat>) = seats.iter().partition(|seat| seat.has_enough());
    let mut sizes = BTreeMap::new();
    if goal > DEADBAND {
        let rest = change(&pressed, goal, &mut sizes);
        change(&enough, rest, &mut sizes);
    } else if goal < -DEADBAND {
        let rest = change(&enough, goal, &mut sizes);
        change(&seats.iter().collect::<Vec<_>>(), rest, &mut sizes);
    }
    for seat in &seats {
        if let Some(size) = sizes.get(&seat.guest.id) {
            balloons.resize(seat.guest, Bytes(*size as u64), draft, "its part by shares, as Proxmox reckons");
        }
    }
    format!("{} MiB from 80 % used", goal >> 20)
}

/// Spreads a change over guests by their shares, and returns what nobody could take part in.
fn change(seats: &[&Seat], goal: i128, sizes: &mut BTreeMap<VmId, i128>) -> i128 {
    let mut rest = goal;
    let mut open: Vec<&Seat> = seats.to_vec();
    // Each round but the last closes a seat.
    while rest != 0 && !open.is_empty() {
        let size =
            |seat: &Seat, sizes: &BTreeMap<VmId, i128>| *sizes.get(&seat.guest.id).unwrap_or(&seat.size);
        let shares: i128 = open.iter().map(|seat| seat.shares).sum();
        let above: i128 = open.iter().map(|seat| size(seat, sizes) - seat.smallest).sum();
        let (before, seats_before) = (rest, open.len());
        let sum = above + rest;
        open.retain(|seat| {
            let now = size(seat, sizes);
            let desired = seat.smallest + sum * seat.shares / shares;
            let bounded = desired.clamp(seat.smallest, seat.limit);
            let new = bounded.clamp(seat.size - CHANGE_MAX, seat.size + CHANGE_MAX);
            // A change against the goal would be undone by the next one.
            let new = if goal < 0 { new.min(now) } else { new.max(now) };
            rest -= new - now;
            sizes.insert(seat.guest.id, new);
            new == desired
        });
        if rest == before && open.len() == seats_before {
            break;
        }
        if (rest < 0) != (goal < 0) {
            return 0;
        }
    }
    rest
}
