//! One VM: what is known about it, what can be done with it, and what it is asked next.

use std::time::Duration;

use napa_api::control::{BRAKE_MS_MAX, BalloonReport, BalloonStatistics, Command};
use napa_policy::{Brake, GuestHints, GuestObservation, Offer, Order, WorkingSet};
use napa_sys::host::Root;
use napa_units::{Bytes, Pages};

use super::readings::Said;
use super::{Probes, Readings, Silence, Subject};
use crate::calls::{CallError, Ended};
use crate::mechanisms::{Answered, Facts, Haste, Mechanism, Protected, SwapRoom, Urgency, Wish, catalog};

/// What a guest has said counts for so long.
const HINTS_AGE_MAX: Duration = Duration::from_secs(30);

/// One VM.
#[derive(Debug)]
pub struct Guest {
    /// As its supervisor knows it.
    pub subject: Subject,
    /// What the kernel says about it.
    pub readings: Readings,
    /// What it was asked.
    pub probes: Probes,
    mechanisms: Vec<Box<dyn Mechanism>>,
    /// `None`: the kernel cannot be told to take its memory last.
    protected: Option<Protected>,
    is_braked: bool,
    silence: Silence,
    /// Why the last call failed.
    trouble: Option<String>,
}

/// What is the same for all guests at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the daemon's own clock.
    pub now: Duration,
    /// How fresh figures have to be.
    pub haste: Haste,
    /// What the host's swap has room for.
    pub room: SwapRoom,
    /// Strangers let the kernel merge their pages.
    pub has_strangers: bool,
}

impl Guest {
    /// A VM that was found at time `now`.
    pub fn new(root: &Root, subject: Subject, now: Duration) -> Self {
        Self {
            readings: Readings::open(root, &subject),
            probes: Probes::new(subject.id, now),
            mechanisms: catalog(),
            protected: subject.group.as_deref().and_then(Protected::find),
            is_braked: false,
            silence: Silence::default(),
            trouble: None,
            subject,
        }
    }

    /// What a policy may know about it.
    pub fn observe(&self, now: Duration) -> GuestObservation {
        let balloon = self.balloon();
        let said = Said {
            ballooned: balloon.map_or(Bytes(0), |(report, _)| report.held),
            hints: balloon.and_then(|(report, at)| hints(report, now.saturating_sub(at))),
            working_set: self
                .probes
                .working_set()
                .map(|(found, at)| WorkingSet { bytes: found.working_set, age: now.saturating_sub(at) }),
        };
        self.readings.observe(&self.subject, said)
    }

    /// What its mechanisms can do. A VM that does not answer can be asked for nothing.
    pub fn offers(&self, moment: Moment) -> Vec<Offer> {
        if self.silence.is_broken() {
            return Vec::new();
        }
        let facts = self.facts(moment);
        let numbered = self.mechanisms.iter().map(AsRef::as_ref).enumerate();
        let offers = |(place, mechanism): (usize, &dyn Mechanism)| {
            let drafts = mechanism.offers(&facts).into_iter();
            drafts.map(move |draft| draft.offer(self.subject.id, place)).collect::<Vec<Offer>>()
        };
        numbered.flat_map(offers).collect()
    }

    /// Gives an order to the mechanism at this place of the catalog; says what that is called.
    pub fn order(&mut self, place: usize, order: Order, moment: Moment) -> Option<&'static str> {
        let Self { subject, readings, probes, mechanisms, .. } = self;
        let facts = facts(subject, readings, probes, moment);
        let mechanism = mechanisms.get_mut(place)?;
        mechanism.order(order, &facts);
        Some(mechanism.name())
    }

    /// Has the kernel take so much of it last. Where that cannot be, nothing is done.
    pub fn protect(&mut self, low: Bytes) {
        if let Some(Err(error)) = self.protected.as_mut().map(|protected| protected.protect(low)) {
            self.trouble = Some(error);
        }
    }

    /// What to tell the VM so that it does not grow, or may grow again. It is told beside whatever else it is asked: to
    /// stop the vCPUs is no work at its memory.
    pub fn brake(&mut self, brake: Option<Brake>, now: Duration) -> Option<Wish> {
        let was_braked = std::mem::replace(&mut self.is_braked, brake.is_some());
        let time_ms = match brake {
            Some(brake) => (brake.at_most.as_millis() as u32).min(BRAKE_MS_MAX),
            None if was_braked => 0,
            None => return None,
        };
        let command = Command::Brake { time_ms };
        (!self.silence.lasts(now)).then_some(Wish { urgency: Urgency::Order, command })
    }

    /// What to ask it next. `None`: nothing, or it does not answer.
    pub fn wish(&self, moment: Moment) -> Option<Wish> {
        if self.silence.lasts(moment.now) {
            return None;
        }
        let facts = self.facts(moment);
        let wishes = self.mechanisms.iter().filter_map(|mechanism| mechanism.wish(&facts));
        // Of equally urgent ones the first: the catalog's order is that of the strategy.
        let first = |best: Wish, wish: Wish| if wish.urgency > best.urgency { wish } else { best };
        wishes.chain(self.probes.wish(moment.now)).reduce(first)
    }

    /// Learns what came of a call.
    pub fn answered(&mut self, ended: &Ended, haste: Haste, now: Duration) {
        let at = Answered { now, took: ended.took };
        match &ended.outcome {
            Err(error) if !error.is_refusal() => {
                self.silence.go_on(now);
                self.trouble = Some(error.to_string());
            }
            outcome => {
                self.silence.end();
                // A refusal of a probe is no trouble: the host may have no swap to sample with.
                let is_order = |command| matches!(command, Command::Brake { .. });
                self.trouble =
                    outcome.as_ref().err().filter(|_| is_order(ended.command)).map(CallError::to_string);
            }
        }
        let outcome = ended.outcome.as_ref();
        for mechanism in &mut self.mechanisms {
            mechanism.answered(ended.command, outcome, at);
        }
        self.probes.answered(ended.command, outcome, haste, at);
    }

    /// Its balloon, and when the VM told so. `None`: it has none, or was not asked so far.
    pub fn balloon(&self) -> Option<(&BalloonReport, Duration)> {
        self.mechanisms.iter().find_map(|mechanism| mechanism.balloon())
    }

    /// What is wrong, in words.
    pub fn troubles(&self) -> impl Iterator<Item = String> {
        let name = &self.subject.name;
        let sensors = self.readings.troubles().map(move |error| format!("{name}: {error}"));
        sensors.chain(self.trouble.iter().map(move |error| format!("{name}: {error}")))
    }

    fn facts(&self, moment: Moment) -> Facts<'_> {
        facts(&self.subject, &self.readings, &self.probes, moment)
    }
}

fn facts<'a>(subject: &'a Subject, readings: &Readings, probes: &'a Probes, moment: Moment) -> Facts<'a> {
    let guest = readings.observe(subject, Said::default());
    Facts {
        now: moment.now,
        resident: Pages::covering(guest.resident),
        swapped: Pages::covering(guest.swapped),
        share: &subject.share,
        means: probes.means(),
        room: moment.room,
        has_strangers: moment.has_strangers,
        haste: moment.haste,
    }
}

/// What the guest has said, if that was not too long ago.
fn hints(report: &BalloonReport, age: Duration) -> Option<GuestHints> {
    let said = report.statistics.as_ref()?;
    if age + Duration::from_millis(said.age_ms) > HINTS_AGE_MAX {
        return None;
    }
    let BalloonStatistics { total, available, free, caches, .. } = *said;
    Some(GuestHints {
        total,
        available,
        free,
        caches,
        oom_kills: said.oom_kills,
        alloc_stalls: said.allocation_stalls,
        direct_scans: said.scanned_directly,
        major_faults: said.major_faults,
    })
}
