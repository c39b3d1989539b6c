//! The host of the model: RAM, swap with a bandwidth, mechanisms that need time, and a policy in the loop.

use std::time::Duration;

use napa_policy::{
    Consent, Decision, Direction, Fraction, HostObservation, Observation, Offer, OfferId, Order, Policy,
    Pressure, Price, Works,
};
use napa_units::{Bytes, Pages};

use super::{Guest, Report, STEP, mib};

/// Swap's bandwidth, out and in, a second.
const SWAP_OUT: f64 = mib(800);
const SWAP_IN: f64 = mib(800);
/// The part of a guest's memory that equals other memory.
const SHARABLE: f64 = 0.12;
/// How often a policy is asked, in seconds, and how soon after tasks began to wait.
const TICK: f64 = 1.0;
const ALARM: f64 = 0.1;

/// A host with guests.
pub struct Host {
    pub capacity: f64,
    pub swap: f64,
    /// Whether the kernel reclaims by itself when no RAM is free. Without it, the budget is only the policy's.
    pub kernel: bool,
    /// Whether guests can be kept from growing, and be protected from the kernel's reclaim.
    pub groups: bool,
    pub guests: Vec<Guest>,
    pub report: Report,
    pub time: f64,
    pace: f64,
    waited: Vec<(f64, f64)>,
    asked_at: f64,
    rates: Vec<f64>,
    size_before: f64,
}

impl Host {
    pub fn new(capacity: f64, swap: f64, guests: Vec<Guest>) -> Self {
        let report = Report::new(guests.len());
        Self {
            capacity,
            swap,
            kernel: true,
            groups: true,
            guests,
            report,
            time: 0.0,
            pace: 0.0,
            waited: Vec::new(),
            asked_at: f64::NEG_INFINITY,
            rates: Vec::new(),
            size_before: 0.0,
        }
    }

    pub fn held(&self) -> f64 {
        self.guests.iter().map(Guest::held).sum()
    }

    pub fn free(&self) -> f64 {
        self.capacity - self.held()
    }

    pub fn swap_free(&self) -> f64 {
        self.swap - self.guests.iter().map(Guest::swapped).sum::<f64>()
    }

    /// Runs for some seconds. `wants` says what each guest wants to use, by its index and the time since the start.
    pub fn run(&mut self, policy: &mut dyn Policy, seconds: f64, wants: impl Fn(usize, f64) -> f64) {
        let end = self.time + seconds;
        while self.time < end {
            let since = self.time - self.asked_at;
            let over = !self.kernel && self.free() < 0.0;
            let alarm = since >= ALARM && (over || self.pressure().some.get() > 0.05);
            // An alarm does not sound twice in half a second.
            if since >= TICK - STEP / 2.0 || (alarm && since >= 0.5) {
                let observation = self.observe();
                let decision = policy.decide(&observation);
                self.report.decided(&decision, since.min(TICK));
                if std::env::var_os("NAPA_MODEL_TRACE").is_some() {
                    let example = decision.grants.first().map_or("", |grant| &grant.reason);
                    println!("{:7.2} s  {}  [{example}]", self.time, decision.reasons.join("; "));
                }
                self.apply(&decision);
                self.asked_at = self.time;
            }
            for (index, guest) in self.guests.iter_mut().enumerate() {
                guest.wants = wants(index, self.time).min(guest.limit * 0.98);
            }
            self.step();
            self.time += STEP;
        }
    }

    /// Begins a new report, and returns the old one.
    pub fn start_report(&mut self) -> Report {
        std::mem::replace(&mut self.report, Report::new(self.guests.len()))
    }

    fn step(&mut self) {
        let mut bandwidth = SWAP_OUT * STEP;
        bandwidth -= self.take(bandwidth);
        self.share();
        for guest in &mut self.guests {
            guest.shrink();
            guest.balloon();
        }
        let wishes: Vec<(f64, f64)> =
            self.guests.iter().map(|guest| (guest.growth(), guest.misses())).collect();
        let misses: f64 = wishes.iter().map(|(_, misses)| misses).sum();
        let misses_part = (SWAP_IN * STEP / misses.max(1.0)).min(1.0);
        let need = wishes.iter().map(|(growth, misses)| growth + misses * misses_part).sum::<f64>();
        let mut room = self.free().max(0.0);
        if self.kernel {
            if need > room {
                room += self.direct_reclaim((need - room).min(bandwidth));
            }
        } else {
            room = f64::INFINITY;
        }
        let part = (room / need.max(1.0)).min(1.0);
        for (guest, (growth, misses)) in self.guests.iter_mut().zip(wishes) {
            guest.proceed(growth * part, misses * misses_part * part);
        }
        // Nothing can be taken and nothing is free: the kernel kills. Without its reclaim the budget is not a wall.
        let stuck = self.kernel && need > 1.0 && room < 1.0 && self.swap_free() < 1.0;
        self.remember(stuck);
    }

    /// Carries out what the host was ordered to take.
    fn take(&mut self, bandwidth: f64) -> f64 {
        let ordered: f64 = self.guests.iter().map(|guest| guest.taking).sum();
        let (part, mut room) = ((bandwidth / ordered.max(1.0)).min(1.0), self.swap_free().max(0.0));
        let mut taken = 0.0;
        for guest in self.guests.iter_mut().filter(|guest| guest.taking > 0.0) {
            let bytes = (guest.taking * part).min(room);
            let moved = guest.reclaim(bytes);
            guest.taking = if moved + 1.0 < bytes { 0.0 } else { guest.taking - moved };
            room -= moved;
            taken += moved;
        }
        self.report.swapped_out += taken;
        taken
    }

    /// The kernel's own reclaim: from all guests by what they hold, sparing what is protected while it can.
    fn direct_reclaim(&mut self, wanted: f64) -> f64 {
        let wanted = wanted.min(self.swap_free().max(0.0));
        let spared = |guest: &Guest| (guest.resident() - guest.protected).max(0.0);
        let (mut sum, mut all) = (self.guests.iter().map(spared).sum::<f64>(), false);
        if sum < wanted {
            (sum, all) = (self.guests.iter().map(Guest::resident).sum(), true);
        }
        let mut taken = 0.0;
        for guest in &mut self.guests {
            let may = if all { guest.resident() } else { spared(guest) };
            taken += guest.reclaim(wanted * may / sum.max(1.0));
        }
        self.report.swapped_out += taken;
        taken
    }

    /// Equal pages are found at the pace that was ordered, and lost when memory is given up.
    fn share(&mut self) {
        let resident: f64 = self.guests.iter().map(Guest::resident).sum();
        for guest in &mut self.guests {
            let most = guest.resident() * SHARABLE;
            let seen = self.pace * 4096.0 * STEP * guest.resident() / resident.max(1.0);
            guest.saved = (guest.saved + seen * SHARABLE).min(most);
        }
    }

    fn remember(&mut self, stuck: bool) {
        // A guest that was made to stand still does not wait for memory.
        let running = || self.guests.iter().filter(|guest| guest.wants > 0.0 && guest.stopped <= 0.0);
        let some = running().map(|guest| guest.stall).fold(0.0, f64::max);
        let full = running().map(|guest| guest.stall).reduce(f64::min).unwrap_or(0.0);
        self.waited.push((some, full));
        if self.waited.len() > 20 {
            self.waited.remove(0);
        }
        let excess = self.held() - self.capacity;
        self.report.step(&self.guests, excess, stuck);
    }

    fn pressure(&self) -> Pressure {
        let mean = |of: fn(&(f64, f64)) -> f64| {
            Fraction::new(self.waited.iter().map(of).sum::<f64>() / self.waited.len().max(1) as f64)
        };
        Pressure { some: mean(|waited| waited.0), full: mean(|waited| waited.1) }
    }

    pub fn observe(&mut self) -> Observation {
        let elapsed = if self.asked_at.is_finite() { self.time - self.asked_at } else { 0.0 };
        let pressure = self.pressure();
        let size: f64 = self.guests.iter().map(|guest| guest.resident() + guest.swapped()).sum();
        self.rates.push((size - self.size_before).max(0.0) / elapsed.max(STEP));
        self.size_before = size;
        self.rates.drain(..self.rates.len().saturating_sub(300));
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        let bytes = |value: f64| Bytes(value.max(0.0) as u64);
        let host = HostObservation {
            capacity: bytes(self.capacity),
            held: bytes(self.held()),
            available: bytes(self.free()),
            swap_total: bytes(self.swap),
            swap_free: bytes(self.swap_free()),
            swap_promised: bytes(self.guests.iter().map(|guest| guest.limit).sum::<f64>() - self.capacity),
            pressure,
            allocation_rate_p99: bytes(rates[(rates.len() - 1) * 99 / 100]),
            sharing_profit: bytes(self.guests.iter().map(|guest| guest.saved).sum()),
        };
        let offers = self.offers();
        let guests = self.guests.iter_mut().map(|guest| guest.observe(elapsed)).collect();
        Observation { elapsed: Duration::from_secs_f64(elapsed), host, guests, offers }
    }

    fn offers(&self) -> Vec<Offer> {
        let pages = |bytes: f64| Pages((bytes.max(0.0) / 4096.0) as u64);
        let mut offers = Vec::new();
        for guest in &self.guests {
            let offer = |kind: u64, direction, consent, most, outstanding, taken| Offer {
                id: OfferId(guest.id.0 * 4 + kind),
                guest: Some(guest.id),
                direction,
                pages_max: pages(most),
                price: Price(if consent == Consent::Guest { 20 } else { 30 }),
                delay: Duration::from_secs(1),
                reversible: consent == Consent::Guest,
                consent,
                works: Works::Amount,
                outstanding: pages(outstanding),
                taken: pages(taken),
            };
            let (actual, target) = (guest.ballooned, guest.balloon_target);
            let room = guest.limit - actual;
            offers.push(offer(0, Direction::Take, Consent::Guest, room, target - actual, actual));
            offers.push(offer(1, Direction::Return, Consent::Guest, actual, actual - target, actual));
            let swappable = guest.resident().min(self.swap_free());
            offers.push(offer(2, Direction::Take, Consent::Host, swappable, guest.taking, guest.swapped()));
        }
        offers.push(Offer {
            id: OfferId(u64::MAX),
            guest: None,
            direction: Direction::Take,
            pages_max: Pages(125_000),
            price: Price(10),
            delay: Duration::from_secs(60),
            reversible: true,
            consent: Consent::Host,
            works: Works::Search,
            outstanding: Pages(self.pace as u64),
            taken: pages(self.guests.iter().map(|guest| guest.saved).sum()),
        });
        offers
    }

    fn apply(&mut self, decision: &Decision) {
        for grant in &decision.grants {
            let bytes = |pages: Pages| pages.bytes().0 as f64;
            let Some(id) = grant.guest else {
                self.pace = if let Order::Take(pages) = grant.order { pages.0 as f64 } else { 0.0 };
                continue;
            };
            let guest = self
                .guests
                .iter_mut()
                .find(|guest| guest.id == id)
                .expect("grants are for guests of the host");
            match (grant.offer.0 % 4, grant.order) {
                (0 | 1, Order::Take(pages)) => guest.balloon_target = guest.ballooned + bytes(pages),
                (0 | 1, Order::Return(pages)) => {
                    guest.balloon_target = (guest.ballooned - bytes(pages)).max(0.0)
                }
                (0 | 1, Order::Cancel) => guest.balloon_target = guest.ballooned,
                (_, Order::Take(pages)) => guest.taking = bytes(pages),
                (_, Order::Return(_) | Order::Cancel) => guest.taking = 0.0,
            }
        }
        for verdict in decision.guests.iter().filter(|_| self.groups) {
            let guest =
                self.guests.iter_mut().find(|guest| guest.id == verdict.guest).expect("it is a guest");
            guest.obey(verdict.brake, verdict.protected);
        }
    }
}
