//! What a run of the model showed.

use std::fmt;

use napa_policy::{Cooperation, Decision, Level};

use super::{Guest, STEP, mib};

/// What happened, until now or since it was reset.
#[derive(Clone, Debug)]
pub struct Report {
    /// Steps in which the host could neither give memory nor take any: a real one kills.
    pub host_kills: usize,
    pub guest_kills: usize,
    /// Seconds that each guest stood still, in all.
    pub stalled: Vec<f64>,
    /// The longest time for which a guest made next to no progress.
    pub longest: f64,
    pub swapped_out: f64,
    /// What VMs held beyond the budget, at worst, and for how many seconds they did.
    pub excess: f64,
    pub excess_seconds: f64,
    pub ballooned_max: f64,
    pub level_seconds: [f64; 5],
    pub seconds: f64,
    pub uncooperative: usize,
    running: Vec<f64>,
}

impl Report {
    pub fn new(guests: usize) -> Self {
        Self {
            host_kills: 0,
            guest_kills: 0,
            stalled: vec![0.0; guests],
            longest: 0.0,
            swapped_out: 0.0,
            excess: 0.0,
            excess_seconds: 0.0,
            ballooned_max: 0.0,
            level_seconds: [0.0; 5],
            seconds: 0.0,
            uncooperative: 0,
            running: vec![0.0; guests],
        }
    }

    pub fn step(&mut self, guests: &[Guest], excess: f64, stuck: bool) {
        self.seconds += STEP;
        self.host_kills += usize::from(stuck);
        self.guest_kills = guests.iter().filter(|guest| guest.killed).count();
        for (index, guest) in guests.iter().enumerate() {
            self.stalled[index] += guest.stall * STEP;
            self.running[index] = if guest.stall > 0.95 { self.running[index] + STEP } else { 0.0 };
            self.longest = self.longest.max(self.running[index]);
        }
        self.excess = self.excess.max(excess);
        self.excess_seconds += if excess > 0.0 { STEP } else { 0.0 };
        self.ballooned_max = self.ballooned_max.max(guests.iter().map(|guest| guest.ballooned).sum());
    }

    pub fn decided(&mut self, decision: &Decision, seconds: f64) {
        self.level_seconds[decision.level as usize] += seconds;
        let uncooperative =
            decision.guests.iter().filter(|guest| guest.cooperation == Cooperation::Uncooperative);
        self.uncooperative = self.uncooperative.max(uncooperative.count());
    }

    /// The stall of the guest that this part of all guests is better than, in seconds.
    pub fn stall(&self, part: f64) -> f64 {
        let mut stalled = self.stalled.clone();
        stalled.sort_by(f64::total_cmp);
        stalled[((stalled.len() - 1) as f64 * part).ceil() as usize]
    }

    pub fn kills(&self) -> usize {
        self.host_kills + self.guest_kills
    }

    /// The head of the table whose rows are reports.
    pub fn head() -> String {
        format!(
            "{:8} {:8} {:>5} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8}  {}",
            "policy",
            "phase",
            "kills",
            "p50 s",
            "p90 s",
            "p99 s",
            "longest",
            "swapped",
            "ballooned",
            "excess",
            "seconds a level"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5} {:8.1} {:8.1} {:8.1} {:8.1} {:>8.0}M {:>8.0}M {:>7.0}M ",
            self.kills(),
            self.stall(0.5),
            self.stall(0.9),
            self.stall(0.99),
            self.longest,
            self.swapped_out / mib(1),
            self.ballooned_max / mib(1),
            self.excess / mib(1)
        )?;
        for level in Level::ALL {
            write!(f, " {level} {:.0}", self.level_seconds[level as usize])?;
        }
        Ok(())
    }
}
