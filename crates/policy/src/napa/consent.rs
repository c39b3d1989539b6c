//! Asking a guest for memory: whether it answers, how fast, and when to leave it alone.
//!
//! ```text
//!                  ask                    5 s unmet: cancel            20 s without an answer
//!   cooperative ─────────► waiting ───────────────────────► stuck ───────────────────────► uncooperative
//!        ▲                    │   ▲                            │                                  │
//!        └────── met ─────────┘   └── asked again after 5 s ───┴──── after 10 min, then 20 … 60 ──┘
//!
//!   distress in any state: everything goes back at once, and 10 min (then 20 … 60) without asking; 1 min if the guest
//!   is short of memory, but nobody has waited for any
//! ```

use std::time::Duration;

use napa_units::{Bytes, Pages};
use serde::{Deserialize, Serialize};

use crate::napa::row::Row;
use crate::{Cooperation, GuestHints, Offer, OfferId};

/// How long an order may be unmet before it is cancelled: a guest that fights for an order hangs.
const UNMET_MAX: Duration = Duration::from_secs(5);
/// How long a stuck guest is left alone.
const STUCK_PAUSE: Duration = Duration::from_secs(5);
/// How long a guest may fail to answer before it counts as uncooperative.
const UNANSWERED_MAX: Duration = Duration::from_secs(20);
/// The first long pause; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_mins(10);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(60);
/// After so long without trouble the next pause is a first one again.
const FORGIVEN_AFTER: Duration = Duration::from_mins(60);
/// How long a guest that has become short of memory, without having to wait for it, is not asked.
const SHORT_PAUSE: Duration = Duration::from_secs(60);

/// What a guest should be able to give to its programs at any time: 5 % of its limit, or 192 MiB if that is more, but
/// of a small guest an eighth.
pub fn floor(limit: Bytes) -> Bytes {
    Bytes((limit.0 / 20).max(Bytes::mib(192).0.min(limit.0 / 8)))
}

/// What is known about how a guest answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Consent {
    waiting: Option<Waiting>,
    /// Pages a second that it gave lately.
    rate: Option<f64>,
    /// Time since the first order that it did not answer.
    unanswered: Option<Duration>,
    /// Time in which it is still left alone.
    pause: Duration,
    /// Length of the last long pause.
    last_pause: Duration,
    /// Time since the last long pause ended.
    calm: Duration,
    cooperation: Cooperation,
    troubles: Option<Troubles>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    offer: OfferId,
    start: Pages,
    goal: Pages,
    since: Duration,
}

/// The counters whose growth means distress.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Troubles {
    oom_kills: u64,
    alloc_stalls: u64,
    direct_scans: u64,
}

impl Troubles {
    fn of(hints: &GuestHints) -> Self {
        Self {
            oom_kills: hints.oom_kills.unwrap_or(0),
            alloc_stalls: hints.alloc_stalls.unwrap_or(0),
            direct_scans: hints.direct_scans.unwrap_or(0),
        }
    }

    fn grew_from(&self, before: &Self) -> bool {
        self.oom_kills > before.oom_kills
            || self.alloc_stalls > before.alloc_stalls
            || self.direct_scans > before.direct_scans
    }
}

/// How a guest lacks memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Distress {
    /// It has less than it should be able to give to its programs.
    Short,
    /// Its programs wait for memory, or were killed for want of it.
    Suffers,
}

/// What has to be done about a guest whatever else is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// It did not do what it was asked for this long: cancel.
    Cancel(Duration),
    /// It is in distress: everything goes back.
    Relieve,
}

impl Consent {
    /// Takes an observation in. `offer` is what the guest can be asked for.
    pub fn update(&mut self, row: &Row, offer: Option<&Offer>, elapsed: Duration) -> Turn {
        if self.pause > Duration::ZERO {
            self.pause = self.pause.saturating_sub(elapsed);
        } else {
            self.calm = self.calm.saturating_add(elapsed);
        }
        if self.calm >= FORGIVEN_AFTER {
            self.last_pause = Duration::ZERO;
        }
        let unmet = self.wait(offer, elapsed);
        if let Some(distress) = self.distress(row) {
            return self.relieve(distress, row.given());
        }
        match unmet {
            Some(unmet) => Turn::Cancel(unmet),
            None => Turn::None,
        }
    }

    /// Follows the order that is outstanding. Returns for how long it was unmet if it is time to cancel it.
    fn wait(&mut self, offer: Option<&Offer>, elapsed: Duration) -> Option<Duration> {
        if let Some(unanswered) = &mut self.unanswered {
            *unanswered = unanswered.saturating_add(elapsed);
        }
        let offer = offer?;
        // What somebody else ordered, or a daemon that is gone, is waited for like an order of our own.
        let mut waiting = match self.waiting.take().filter(|waiting| waiting.offer == offer.id) {
            Some(waiting) => Waiting { since: waiting.since.saturating_add(elapsed), ..waiting },
            None if offer.outstanding > Pages(0) => Waiting::for_offer(offer, offer.outstanding),
            None => return None,
        };
        if offer.taken >= waiting.goal || (offer.outstanding == Pages(0) && offer.taken > waiting.start) {
            self.met(&waiting, offer.taken);
            return None;
        }
        waiting.start = waiting.start.min(offer.taken);
        if waiting.since < UNMET_MAX {
            self.waiting = Some(waiting);
            return None;
        }
        self.unmet(&waiting, offer.taken);
        Some(waiting.since)
    }

    fn met(&mut self, waiting: &Waiting, taken: Pages) {
        let seconds = waiting.since.as_secs_f64().max(0.01);
        let rate = taken.0.saturating_sub(waiting.start.0) as f64 / seconds;
        // An order that was met at the first look might have been met much sooner.
        let quick = waiting.since < Duration::from_millis(1500);
        self.rate = Some(if quick { self.rate.unwrap_or(0.0).max(2.0 * rate) } else { rate });
        self.unanswered = None;
        self.cooperation = Cooperation::Cooperative;
    }

    fn unmet(&mut self, waiting: &Waiting, taken: Pages) {
        let moved = taken.0.saturating_sub(waiting.start.0) as f64;
        self.rate = Some(moved / waiting.since.as_secs_f64().max(0.01));
        let unanswered = *self.unanswered.get_or_insert(waiting.since);
        if unanswered >= UNANSWERED_MAX {
            self.cooperation = Cooperation::Uncooperative;
            self.unanswered = None;
            self.long_pause();
        } else if self.cooperation == Cooperation::Uncooperative {
            self.long_pause();
        } else {
            self.cooperation = Cooperation::Stuck;
            self.pause = self.pause.max(STUCK_PAUSE);
        }
    }

    /// Whether the guest lacks memory, and how much it suffers from that.
    fn distress(&mut self, row: &Row) -> Option<Distress> {
        let hints = row.hints.as_ref()?;
        let now = Troubles::of(hints);
        if self.troubles.replace(now).is_some_and(|before| now.grew_from(&before)) {
            return Some(Distress::Suffers);
        }
        hints.available.is_some_and(|available| available < floor(row.guest.limit)).then_some(Distress::Short)
    }

    /// Leaves a guest in distress alone, and has everything returned that it gave.
    fn relieve(&mut self, distress: Distress, given: Pages) -> Turn {
        let asked = self.waiting.take().is_some();
        let involved = given > Pages(0) || asked;
        if involved && distress == Distress::Suffers && self.pause <= SHORT_PAUSE {
            self.long_pause();
        }
        self.pause = self.pause.max(SHORT_PAUSE);
        if involved { Turn::Relieve } else { Turn::None }
    }

    fn long_pause(&mut self) {
        self.last_pause = self.last_pause.saturating_mul(2).clamp(PAUSE_FIRST, PAUSE_MAX);
        self.pause = self.last_pause;
        self.calm = Duration::ZERO;
    }

    /// Remembers that the guest was asked.
    pub fn asked(&mut self, offer: &Offer, pages: Pages) {
        self.waiting = Some(Waiting::for_offer(offer, pages));
    }

    /// Remembers that it is not asked any more, through no fault of its own.
    pub fn forget(&mut self) {
        self.waiting = None;
    }

    /// Whether an order is outstanding.
    pub const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether it has lately given what it was asked for.
    pub fn is_proven(&self) -> bool {
        self.cooperation == Cooperation::Cooperative && self.rate.is_some_and(|rate| rate > 0.0)
    }

    /// For how long it is left alone; zero if it may be asked.
    pub const fn pause(&self) -> Duration {
        self.pause
    }

    /// Whether it does what it is asked.
    pub const fn cooperation(&self) -> Cooperation {
        self.cooperation
    }

    /// The most to ask a guest of this size for at once: 5 % of it, or what it gave in a second if that is less, but
    /// enough for it to show that it still can.
    pub fn step(&self, limit: Bytes) -> Pages {
        let part = Pages::covering(Bytes(limit.0 / 20));
        let measured = self.rate.map_or(part, |rate| Pages(rate as u64));
        measured.min(part).max(STEP_MIN)
    }
}

/// The least to ask for: 1 MiB. Anything smaller costs more than it brings.
pub const STEP_MIN: Pages = Pages(256);

impl Waiting {
    fn for_offer(offer: &Offer, pages: Pages) -> Self {
        let goal = Pages(offer.taken.0.saturating_add(pages.0));
        Self { offer: offer.id, start: offer.taken, goal, since: Duration::ZERO }
    }
}
