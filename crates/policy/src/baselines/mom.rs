//! oVirt's Memory Overcommitment Manager with its own rules: `doc/balloon.rules` and `doc/ksm.rules` of MOM.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use napa_units::{Bytes, VmId};
use serde::{Deserialize, Serialize};

use crate::baselines::ksm::Tuner;
use crate::baselines::{Balloons, unmoved};
use crate::draft::Draft;
use crate::{Decision, GuestObservation, Observation, Policy};

/// How often it looks.
const SAMPLE: Duration = Duration::from_secs(5);
/// How often it decides.
const PERIOD: Duration = Duration::from_secs(10);
/// How many samples its means are of.
const SAMPLES_MAX: usize = 10;
/// Free memory of the host below which guests shrink (`pressure_threshold`).
const PRESSURE: f64 = 0.20;
/// Free memory of the host below which guests are made to swap (`defcon_threshold`).
const DEFCON: f64 = 0.05;
/// The least part of a guest that is left free when it grows (`min_guest_free_percent`).
const GUEST_FREE_MIN: f64 = 0.201;
/// The most that a guest changes by at once (`max_balloon_change_percent`).
const CHANGE_MAX: f64 = 0.05;
/// Smaller changes are not made (`min_balloon_change_percent`).
const CHANGE_MIN: f64 = 0.0025;

/// Shares pages as `ksmtuned` does, and sizes balloons by means over 50 s.
///
/// While less than 20 % of the host is free: `target = max(0.95·size, max(min, used + part·size))`, where `part` goes
/// from 20 % down to nothing with the host's free memory, and below nothing when less than 5 % is free, so that the
/// guest swaps. Otherwise each guest grows by 5 %. The smallest size is the reservation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mom {
    tuner: Tuner,
    since_sample: Duration,
    since_decision: Duration,
    host_free: VecDeque<f64>,
    unused: BTreeMap<VmId, VecDeque<f64>>,
}

impl Policy for Mom {
    fn name(&self) -> &'static str {
        "mom"
    }

    fn decide(&mut self, observation: &Observation) -> Decision {
        let mut draft = Draft::default();
        let mut reasons: Vec<String> = self.tuner.tune(observation, &mut draft).into_iter().collect();
        self.since_sample = self.since_sample.saturating_add(observation.elapsed);
        self.since_decision = self.since_decision.saturating_add(observation.elapsed);
        if self.since_sample >= SAMPLE || self.host_free.is_empty() {
            self.since_sample = Duration::ZERO;
            self.sample(observation);
        }
        if self.since_decision >= PERIOD {
            self.since_decision = Duration::ZERO;
            reasons.push(self.balloon(observation, &mut draft));
        }
        Decision { grants: draft.finish(), reasons, ..unmoved(observation) }
    }
}

impl Mom {
    fn sample(&mut self, observation: &Observation) {
        let host = &observation.host;
        push(&mut self.host_free, host.free().0 as f64 / host.capacity.0.max(1) as f64);
        self.unused.retain(|id, _| observation.guests.iter().any(|guest| guest.id == *id));
        for guest in &observation.guests {
            if let Some(free) = guest.hints.as_ref().and_then(|hints| hints.free) {
                push(self.unused.entry(guest.id).or_default(), free.0 as f64);
            }
        }
    }

    fn balloon(&self, observation: &Observation, draft: &mut Draft) -> String {
        let (free, balloons) = (mean(&self.host_free), Balloons::new(observation));
        let part = if free <= DEFCON { free - DEFCON } else { PRESSURE * (free / PRESSURE) };
        for guest in observation.guests.iter().filter(|guest| balloons.has(guest.id)) {
            let Some(unused) = self.unused.get(&guest.id) else { continue };
            let size = Balloons::size(guest).0 as f64;
            let target = if free < PRESSURE {
                shrunk(guest, size, mean(unused), part)
            } else {
                grown(guest, size, mean(unused))
            };
            if (target - size).abs() > size * CHANGE_MIN {
                balloons.resize(guest, Bytes(target as u64), draft, "its part by the rules of MOM");
            }
        }
        format!("{:.0} % of the host was free in the mean", free * 100.0)
    }
}

fn shrunk(guest: &GuestObservation, size: f64, unused: f64, part: f64) -> f64 {
    let smallest = (size - unused + part * size).max(guest.reservation.0 as f64);
    (size * (1.0 - CHANGE_MAX)).max(smallest).min(size)
}

fn grown(guest: &GuestObservation, size: f64, unused: f64) -> f64 {
    let least = size - unused + GUEST_FREE_MIN * size;
    (size * (1.0 + CHANGE_MAX)).max(least).min(guest.limit.0 as f64)
}

fn push(samples: &mut VecDeque<f64>, sample: f64) {
    samples.push_back(sample);
    if samples.len() > SAMPLES_MAX {
        samples.pop_front();
    }
}

fn mean(samples: &VecDeque<f64>) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}
