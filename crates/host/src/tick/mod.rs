//! The tick: looks at the host and its VMs, has a policy decide, gives the orders, and says what was seen and done.
//!
//! ```text
//!   ┌─► attend ── a second is over, the kernel calls, or VMs hold more than they may ──► once ─┐
//!   │   (calls to VMs go on; a glance at resident sizes)        (sensors → policy → orders)    │
//!   └──────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! All of it is one thread: calls to VMs are many at once and none is waited for, so a VM that hangs stalls nobody.
//! What is decided from what is seen ([`observe`], [`pace`], [`report`]) does no I/O.

mod attend;
mod observe;
mod pace;
mod report;
mod settings;
#[cfg(test)]
mod tests;
mod thread;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use napa_api::host::HostReport;
use napa_policy::{Decision, Engine, Level, Observation, Policy};
use napa_sys::host::Root;
use napa_sys::ksm::strangers;
use napa_units::{Bytes, VmId};

pub use self::attend::Woken;
pub use self::settings::Settings;
pub use self::thread::Ticker;
use crate::calls::Calls;
pub use crate::guests::Subject;
use crate::guests::{Growth, Guest, Moment};
use crate::mechanisms::{Haste, SwapRoom, owner};
use crate::record::Recorder;
use crate::sensors::{Alarm, HostSensors, HostState};

/// The time between two ticks, if nothing happens.
pub const PERIOD: Duration = Duration::from_secs(1);
/// How often it is looked for processes that let the kernel merge their memory: every process of the host is opened.
const STRANGERS_PERIOD: Duration = Duration::from_secs(60);
/// Troubles that are told at most; a hundred VMs may have the same.
const TROUBLES_MAX: usize = 20;

/// Decides about the memory of one host.
pub struct Tick {
    settings: Settings,
    policy: Engine,
    root: Root,
    clock: Instant,
    host: HostSensors,
    guests: BTreeMap<VmId, Guest>,
    calls: Calls,
    alarm: Alarm,
    growth: Growth,
    /// What was seen last.
    state: Option<HostState>,
    has_strangers: bool,
    /// When it is looked for strangers again.
    strangers_next: Duration,
    /// What was decided last.
    level: Level,
    /// When.
    last: Option<Duration>,
    /// RAM that VMs could still take then.
    free: Bytes,
    /// How long that took.
    took: Duration,
    recorder: Option<Recorder>,
    /// Why the last tick was not recorded.
    unrecorded: Option<String>,
}

/// What was seen and decided in one tick.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// Which policy decided.
    pub policy: &'a str,
    /// What was seen.
    pub observation: &'a Observation,
    /// What was decided.
    pub decision: &'a Decision,
}

impl Tick {
    /// Begins to decide about the host at `root`.
    pub fn new(settings: Settings, policy: Engine, root: &Root) -> Self {
        Self {
            settings,
            policy,
            root: root.clone(),
            clock: Instant::now(),
            host: HostSensors::new(root),
            guests: BTreeMap::new(),
            calls: Calls::default(),
            alarm: Alarm::set(root),
            growth: Growth::default(),
            state: None,
            has_strangers: false,
            strangers_next: Duration::ZERO,
            level: Level::High,
            last: None,
            free: Bytes(u64::MAX),
            took: Duration::ZERO,
            recorder: None,
            unrecorded: None,
        }
    }

    /// Records from now on what is seen and decided.
    pub fn record(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Why the kernel does not call when tasks wait for memory. `None`: it does.
    pub fn why_polled(&self) -> Option<&str> {
        match &self.alarm {
            Alarm::Polling { reason } => Some(reason),
            Alarm::Triggers(_) => None,
        }
    }

    /// Looks, decides and gives orders; `subjects` are the VMs that run. `None`: the host does not say how much memory
    /// it has, so nothing can be decided.
    pub fn once(&mut self, subjects: &[Subject]) -> Option<HostReport> {
        self.meet(subjects);
        let now = self.clock.elapsed();
        let state = self.host.read(now);
        self.state = state.or(self.state);
        let state = self.state?;
        self.read_guests(now);
        self.look_for_strangers(now);
        let observation = self.observe(&state, now);
        let decision = self.decide(&observation);
        self.level = decision.level;
        (self.free, self.last) = (observation.host.free(), Some(now));
        let moment = self.moment(now);
        let decided = self.give_orders(&observation, &decision, moment);
        self.restrain(&decision, moment);
        let round = Round { policy: self.policy.name(), observation: &observation, decision: &decision };
        let troubles = self.troubles();
        let seen = report::Seen { state: &state, guests: &self.guests, decided, troubles };
        let report = report::report(&round, seen);
        self.ask(moment);
        self.took = self.clock.elapsed() - now;
        Some(report)
    }

    /// Takes in VMs that are new, and forgets those that are gone.
    fn meet(&mut self, subjects: &[Subject]) {
        let now = self.clock.elapsed();
        let is_known = |id: &VmId, guest: &Guest| {
            subjects.iter().any(|subject| subject.id == *id && subject.pid == guest.subject.pid)
        };
        let gone: Vec<VmId> =
            self.guests.iter().filter(|(id, guest)| !is_known(id, guest)).map(|(id, _)| *id).collect();
        for id in gone {
            self.guests.remove(&id);
            self.calls.forget(id);
        }
        for subject in subjects {
            match self.guests.get_mut(&subject.id) {
                Some(guest) => guest.subject = subject.clone(),
                None => {
                    let guest = Guest::new(&self.root, subject.clone(), now);
                    self.guests.insert(subject.id, guest);
                }
            }
        }
    }

    /// Reads what is cheap of all VMs, and what is dear of those of which it tells most, as long as the budget lasts.
    fn read_guests(&mut self, now: Duration) {
        for guest in self.guests.values_mut() {
            let before = guest.readings.resident_of_process();
            guest.readings.glance(now);
            if guest.readings.resident_of_process() != before {
                guest.readings.look(now);
            }
        }
        let mut order: Vec<(f64, VmId)> =
            self.guests.iter().map(|(id, guest)| (guest.readings.curiosity(now), *id)).collect();
        order.sort_by(|left, right| right.0.total_cmp(&left.0));
        let until = Instant::now() + pace::study_budget(self.haste());
        for (_, id) in order {
            let Some(guest) = self.guests.get_mut(&id) else { continue };
            guest.readings.look(now);
            guest.readings.study(now);
            if Instant::now() >= until {
                break;
            }
        }
    }

    fn look_for_strangers(&mut self, now: Duration) {
        if now >= self.strangers_next {
            self.has_strangers = !strangers(&self.root).is_empty();
            self.strangers_next = now + STRANGERS_PERIOD;
        }
    }

    fn observe(&mut self, state: &HostState, now: Duration) -> Observation {
        let moment = self.moment(now);
        let alive = || self.guests.values().filter(|guest| !guest.readings.is_gone());
        let guests: Vec<_> = alive().map(|guest| guest.observe(now)).collect();
        let offers = alive().flat_map(|guest| guest.offers(moment)).collect();
        self.growth.note(observe::whole(&guests), now);
        let elapsed = self.last.map_or(Duration::ZERO, |last| now - last);
        let host = observe::host(state, &self.settings, &guests, self.growth.p99());
        Observation { elapsed, host, guests, offers }
    }

    fn decide(&mut self, observation: &Observation) -> Decision {
        let Some(recorder) = &mut self.recorder else { return self.policy.decide(observation) };
        let prepared = recorder.prepare(&self.policy);
        let decision = self.policy.decide(observation);
        let recorded = prepared.and_then(|()| recorder.write(observation, &decision));
        self.unrecorded = recorded.err().map(|error| error.to_string());
        decision
    }

    fn give_orders(
        &mut self,
        observation: &Observation,
        decision: &Decision,
        moment: Moment,
    ) -> Vec<report::Ordered> {
        let mut given = Vec::new();
        for grant in &decision.grants {
            let (id, place) = owner(grant.offer);
            // A policy grants what was offered; anything else is nobody's.
            if !observation.offers.iter().any(|offer| offer.id == grant.offer) {
                continue;
            }
            let Some(guest) = self.guests.get_mut(&id) else { continue };
            if let Some(what) = guest.order(place, grant.order, moment) {
                let vm = guest.subject.name.clone();
                given.push(report::Ordered { vm, what, order: grant.order, reason: grant.reason.clone() });
            }
        }
        given
    }

    /// Protects guests and keeps them from growing, as was decided.
    fn restrain(&mut self, decision: &Decision, moment: Moment) {
        for decided in &decision.guests {
            let Some(guest) = self.guests.get_mut(&decided.guest) else { continue };
            guest.protect(decided.protected);
            let Some(wish) = guest.brake(decided.brake, moment.now) else { continue };
            if let Some(ended) = self.calls.start(decided.guest, &guest.subject.socket, wish) {
                guest.answered(&ended, moment.haste, moment.now);
            }
        }
    }

    fn troubles(&self) -> Vec<String> {
        let host = self.host.troubles().map(ToString::to_string);
        let guests = self.guests.values().flat_map(Guest::troubles);
        self.unrecorded.iter().cloned().chain(host).chain(guests).take(TROUBLES_MAX).collect()
    }

    fn moment(&self, now: Duration) -> Moment {
        let room = self.state.map_or(SwapRoom::default(), |state| observe::room(&state.swap));
        Moment { now, haste: self.haste(), room, has_strangers: self.has_strangers }
    }

    fn haste(&self) -> Haste {
        match self.level {
            Level::High => Haste::None,
            Level::Clear | Level::Soft => Haste::Some,
            Level::Hard | Level::Low => Haste::Great,
        }
    }
}
