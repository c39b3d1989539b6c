//! One guest of the model.

use napa_policy::{Brake, GuestHints, GuestObservation, Pressure};
use napa_units::{Bytes, Pages, Shares, VmId};

use super::{STEP, mib};

/// RAM of a VM's process beside the guest's memory.
pub const OVERHEAD: f64 = mib(4);
/// How fast a guest touches new memory, a second.
const GROWTH: f64 = mib(200);
/// In how many seconds a guest goes once through what is hot.
const CYCLE: f64 = 2.0;
/// A guest that cannot get memory from itself for so long kills one of its own programs.
const OWN_OOM_AFTER: f64 = 2.0;
/// Of what reclaim takes, the part that it finds to be cold, while there is any.
const COLD_FIRST: f64 = 0.85;

/// How a guest does what its balloon asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answers {
    /// So many bytes a second.
    At(f64),
    Never,
}

/// What a guest says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Truth,
    Nothing,
    /// That it has nothing to spare, and is always in distress.
    Greedy,
    /// That it uses nothing.
    Modest,
}

/// Memory that was touched, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pool {
    pub resident: f64,
    pub swapped: f64,
}

impl Pool {
    pub fn all(&self) -> f64 {
        self.resident + self.swapped
    }

    fn swap_out(&mut self, bytes: f64) -> f64 {
        let moved = bytes.min(self.resident);
        self.resident -= moved;
        self.swapped += moved;
        moved
    }

    fn swap_in(&mut self, bytes: f64) -> f64 {
        let moved = bytes.min(self.swapped);
        self.swapped -= moved;
        self.resident += moved;
        moved
    }

    /// Moves a part of everything to another pool.
    fn pour(&mut self, part: f64, to: &mut Self) {
        let (resident, swapped) = (self.resident * part, self.swapped * part);
        self.resident -= resident;
        self.swapped -= swapped;
        to.resident += resident;
        to.swapped += swapped;
    }
}

/// One guest.
#[derive(Clone, Debug)]
pub struct Guest {
    pub id: VmId,
    pub limit: f64,
    pub reservation: f64,
    pub shares: u32,
    pub answers: Answers,
    pub says: Says,
    /// The part of what it uses that it goes through all the time.
    pub hot_part: f64,
    /// What its programs want to use.
    pub wants: f64,
    pub hot: Pool,
    pub cold: Pool,
    /// Touched once, of no use to the guest now.
    pub idle: Pool,
    pub ballooned: f64,
    pub balloon_target: f64,
    pub killed: bool,
    pub protected: f64,
    /// Seconds for which its vCPUs still stand still.
    pub stopped: f64,
    pub taking: f64,
    pub saved: f64,
    /// The part of the last step in which it stood still.
    pub stall: f64,
    pub refaulted: f64,
    pub said: Option<GuestHints>,
    pub said_age: f64,
    pub alloc_stalls: u64,
    pub short: f64,
}

impl Guest {
    pub fn new(id: u64, limit_mib: u64) -> Self {
        Self {
            id: VmId(id),
            limit: mib(limit_mib),
            reservation: 0.0,
            shares: 100,
            answers: Answers::At(mib(200)),
            says: Says::Truth,
            hot_part: 0.5,
            wants: 0.0,
            hot: Pool::default(),
            cold: Pool::default(),
            idle: Pool::default(),
            ballooned: 0.0,
            balloon_target: 0.0,
            killed: false,
            protected: 0.0,
            stopped: 0.0,
            taking: 0.0,
            saved: 0.0,
            stall: 0.0,
            refaulted: 0.0,
            said: None,
            said_age: 0.0,
            alloc_stalls: 0,
            short: 0.0,
        }
    }

    pub fn resident(&self) -> f64 {
        self.hot.resident + self.cold.resident + self.idle.resident
    }

    pub fn swapped(&self) -> f64 {
        self.hot.swapped + self.cold.swapped + self.idle.swapped
    }

    pub fn used(&self) -> f64 {
        self.hot.all() + self.cold.all()
    }

    /// Never touched, and not in the balloon.
    pub fn untouched(&self) -> f64 {
        (self.limit - self.ballooned - self.used() - self.idle.all()).max(0.0)
    }

    pub fn held(&self) -> f64 {
        self.resident() - self.saved.min(self.resident()) + OVERHEAD
    }

    fn available(&self) -> f64 {
        (self.limit - self.ballooned - self.used()).max(0.0)
    }

    /// The host takes memory: mostly what is cold, with some that is not. Returns what left RAM.
    pub fn reclaim(&mut self, bytes: f64) -> f64 {
        let mut left = bytes.min(self.resident());
        let all = left;
        let hot = self.hot.swap_out((left * (1.0 - COLD_FIRST)).min(self.hot.resident));
        left -= hot;
        left -= self
            .idle
            .swap_out(left * self.idle.resident / (self.idle.resident + self.cold.resident).max(1.0));
        left -= self.cold.swap_out(left);
        left -= self.idle.swap_out(left);
        left -= self.hot.swap_out(left);
        all - left
    }

    /// Programs end: what they used is idle now.
    pub fn shrink(&mut self) {
        let used = self.used();
        if self.wants < used && self.stopped <= 0.0 {
            let part = 1.0 - self.wants / used;
            self.hot.pour(part, &mut self.idle);
            self.cold.pour(part, &mut self.idle);
        }
    }

    /// What it would like to touch in one step, as RAM that it takes from the host.
    pub fn growth(&self) -> f64 {
        let missing = (self.wants - self.used()).clamp(0.0, GROWTH * STEP);
        let need = (missing - self.idle.resident).max(0.0).min(self.untouched() + self.idle.swapped);
        if self.stopped > 0.0 { 0.0 } else { need }
    }

    /// What it would like to have back from swap in one step.
    pub fn misses(&self) -> f64 {
        if self.stopped > 0.0 { 0.0 } else { self.hot.swapped * STEP / CYCLE }
    }

    /// It gets so much new memory and so much back from swap, and stands still for as long as that is too little.
    pub fn proceed(&mut self, grown: f64, back: f64) {
        if self.stopped > 0.0 {
            (self.stopped, self.stall) = (self.stopped - STEP, 1.0);
            return;
        }
        let wanted_back = self.hot.swapped * STEP / CYCLE;
        self.hot.swap_in(back);
        self.refaulted += back;
        let missing = (self.wants - self.used()).clamp(0.0, GROWTH * STEP);
        let own = missing.min(self.idle.resident);
        self.idle.resident -= own;
        let fresh = grown.min(self.untouched());
        let reused = (grown - fresh).min(self.idle.swapped);
        self.idle.swapped -= reused;
        let got = own + fresh + reused;
        self.hot.resident += got * self.hot_part;
        self.cold.resident += got * (1.0 - self.hot_part);
        self.starve(missing - got, missing);
        let late = |wanted: f64, got: f64| if wanted < 1.0 { 0.0 } else { 1.0 - (got / wanted).min(1.0) };
        self.stall = late(missing, got).max(late(wanted_back, back));
    }

    /// Wants that the guest's own size does not allow.
    fn starve(&mut self, lacking: f64, wanted: f64) {
        let full = self.untouched() + self.idle.all() < 4096.0;
        if wanted >= 1.0 && lacking > wanted / 2.0 && full && self.ballooned > 0.0 {
            self.alloc_stalls += 1;
            self.short += STEP;
            self.killed |= self.short > OWN_OOM_AFTER;
        } else {
            self.short = 0.0;
        }
    }

    /// The balloon moves towards its target.
    pub fn balloon(&mut self) {
        let Answers::At(rate) = self.answers else { return };
        if self.stopped > 0.0 {
            return;
        }
        if self.balloon_target > self.ballooned {
            let spare = self.untouched() + self.idle.all();
            let moved = (self.balloon_target - self.ballooned).min(rate * STEP).min(spare);
            let part = if spare > 0.0 { moved / spare } else { 0.0 };
            self.idle.resident -= self.idle.resident * part;
            self.idle.swapped -= self.idle.swapped * part;
            self.ballooned += moved;
        } else {
            self.ballooned -= (self.ballooned - self.balloon_target).min(rate * STEP);
        }
    }

    /// What is seen of it after so many seconds. What it says is up to two seconds old.
    pub fn observe(&mut self, seconds: f64) -> GuestObservation {
        self.said_age += seconds;
        if self.said.is_none() || self.said_age >= 2.0 {
            (self.said, self.said_age) = (self.hints(), 0.0);
        }
        let bytes = |value: f64| Bytes(value as u64);
        let refaults = Pages((self.refaulted / seconds.max(STEP) / 4096.0) as u64);
        self.refaulted = 0.0;
        GuestObservation {
            reservation: bytes(self.reservation),
            shares: Shares(self.shares),
            overhead: bytes(OVERHEAD),
            held: bytes(self.held()),
            resident: bytes(self.resident()),
            shared: bytes(self.saved),
            swapped: bytes(self.swapped()),
            zero: bytes(self.untouched()),
            ballooned: bytes(self.ballooned),
            refaults,
            pressure: Pressure { some: self.stall.into(), full: self.stall.into() },
            hints: self.said.clone(),
            ..GuestObservation::untouched(self.id, bytes(self.limit))
        }
    }

    fn hints(&mut self) -> Option<GuestHints> {
        let available = match self.says {
            Says::Nothing => return None,
            Says::Truth => self.available(),
            Says::Greedy => 0.0,
            Says::Modest => self.limit,
        };
        if self.says == Says::Greedy {
            self.alloc_stalls += 1;
        }
        Some(GuestHints {
            total: Some(Bytes((self.limit - self.ballooned) as u64)),
            available: Some(Bytes(available as u64)),
            free: Some(Bytes(available as u64)),
            caches: Some(Bytes(0)),
            oom_kills: Some(0),
            alloc_stalls: Some(self.alloc_stalls),
            direct_scans: Some(0),
            major_faults: Some(0),
        })
    }

    pub fn obey(&mut self, brake: Option<Brake>, protected: Bytes) {
        self.stopped = brake.map_or(0.0, |brake| brake.at_most.as_secs_f64());
        self.protected = protected.0 as f64;
    }
}
