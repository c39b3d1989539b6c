//! Page sharing alone, as `ksmtuned` (Red Hat's ksmtuned, and the same constants in oVirt MOM's `ksm.rules`) paces it.

use std::time::Duration;

use napa_units::{Bytes, Pages};
use serde::{Deserialize, Serialize};

use crate::baselines::{fold, unmoved};
use crate::draft::Draft;
use crate::{Decision, Direction, Observation, Offer, Policy, Works};

/// How often the pace is set.
const PERIOD: Duration = Duration::from_secs(60);
/// Pages that are added to each round while memory is short.
const BOOST: u64 = 300;
/// Pages that are taken from each round while there is enough.
const DECAY: u64 = 50;
/// The bounds of a round, in pages.
const ROUND: (u64, u64) = (64, 1250);
/// Pauses between rounds last 10 ms on a host of 16 GiB, and as much less as the host is larger.
const PAUSE_MS_FOR_16_GIB: u64 = 10;

/// Shares equal pages and does nothing else.
///
/// Every minute: if what guests may use is more than 80 % of the RAM, or less than 20 % is free, KSM runs. It looks at
/// 300 pages more a round if less than 20 % is free, else at 50 fewer, from 64 to 1250 pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ksm {
    tuner: Tuner,
}

impl Default for Ksm {
    fn default() -> Self {
        Self { tuner: Tuner { since: PERIOD, round: ROUND.0 } }
    }
}

/// The pace of `ksmtuned`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuner {
    since: Duration,
    round: u64,
}

impl Default for Tuner {
    fn default() -> Self {
        Ksm::default().tuner
    }
}

impl Tuner {
    /// Sets the pace of all searches if it is time to, and says what it did.
    pub fn tune(&mut self, observation: &Observation, draft: &mut Draft) -> Option<String> {
        self.since = self.since.saturating_add(observation.elapsed);
        if self.since < PERIOD {
            return None;
        }
        self.since = Duration::ZERO;
        let host = &observation.host;
        let (total, free) = (host.capacity.0, host.free().0);
        let threshold = total / 5;
        let committed = fold(observation.guests.iter().map(|guest| guest.limit));
        let on = committed.0 > total - threshold || free < threshold;
        self.round = match on {
            false => ROUND.0,
            true if free < threshold => (self.round + BOOST).min(ROUND.1),
            true => self.round.saturating_sub(DECAY).max(ROUND.0),
        };
        let pause_ms = (PAUSE_MS_FOR_16_GIB * Bytes::gib(16).0 / total.max(1)).max(10);
        let pace = if on { self.round * 1000 / pause_ms } else { 0 };
        let searches = |offer: &&Offer| offer.works == Works::Search && offer.direction == Direction::Take;
        let searches: Vec<&Offer> = observation.offers.iter().filter(searches).collect();
        for offer in &searches {
            let part = if offer.guest.is_some() { pace / searches.len() as u64 } else { pace };
            draft.order(offer, Pages(part), || format!("{} pages a round, every {pause_ms} ms", self.round));
        }
        Some(format!("looks at {pace} pages a second"))
    }
}

impl Policy for Ksm {
    fn name(&self) -> &'static str {
        "ksm"
    }

    fn decide(&mut self, observation: &Observation) -> Decision {
        let mut draft = Draft::default();
        let reason = self.tuner.tune(observation, &mut draft);
        Decision { grants: draft.finish(), reasons: reason.into_iter().collect(), ..unmoved(observation) }
    }
}
