//! Waits while a guest follows what it was asked, and shows how far it is.

use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use napa_api::control::DeviceState;
use napa_units::Bytes;

use crate::error::Error;
use crate::output;

/// How often the guest's progress is looked at: at first soon, for most targets are near.
const PERIOD_MIN: Duration = Duration::from_millis(5);
const PERIOD_MAX: Duration = Duration::from_millis(100);
/// How often a line about it is written where it cannot be overwritten.
const LINE_PERIOD: Duration = Duration::from_secs(1);

/// What a report says about a guest on its way.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Where it was asked to go.
    pub target: Bytes,
    /// Where it is.
    pub at: Bytes,
    /// Whether it drives the device.
    pub driver: DeviceState,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Waiting,
    Reached,
    /// Somebody else has asked for something else.
    Overtaken,
    /// The guest comes no nearer.
    Stopped,
    NoDriver,
    NeedsReset,
}

/// A way to look at a guest that follows.
pub struct Follower<'a, R> {
    /// Name of the VM.
    pub name: &'a str,
    /// A guest that comes no nearer for so long has stopped.
    pub patience: Duration,
    /// Asks for a report.
    pub look: &'a dyn Fn() -> Result<R, Error>,
    /// What the report says.
    pub sight: &'a dyn Fn(&R) -> Sight,
    /// How far the guest is, in words.
    pub far: &'a dyn Fn(&R) -> String,
}

impl<R> Follower<'_, R> {
    /// Waits until the guest has reached `target` or stops. `report` is the first one; the last one is returned.
    pub fn follow(&self, target: Bytes, mut report: R) -> Result<(Outcome, R), Error> {
        let mut following = Following::new(target, self.patience, Instant::now());
        let mut progress = Progress::new();
        let mut period = PERIOD_MIN;
        let outcome = loop {
            let sight = (self.sight)(&report);
            match following.look(sight, Instant::now()) {
                Outcome::Waiting => progress.show(self.name, sight.at, &(self.far)(&report)),
                outcome => break outcome,
            }
            std::thread::sleep(period);
            period = (period * 2).min(PERIOD_MAX);
            report = (self.look)()?;
        };
        progress.end();
        Ok((outcome, report))
    }
}

/// A guest on its way to a target.
struct Following {
    target: Bytes,
    patience: Duration,
    /// The nearest it came so far, as a distance, and when.
    nearest: u64,
    since: Instant,
}

impl Following {
    const fn new(target: Bytes, patience: Duration, now: Instant) -> Self {
        Self { target, patience, nearest: u64::MAX, since: now }
    }

    fn look(&mut self, sight: Sight, now: Instant) -> Outcome {
        let distance = sight.at.0.abs_diff(self.target.0);
        if distance < self.nearest {
            (self.nearest, self.since) = (distance, now);
        }
        match sight.driver {
            _ if sight.target != self.target => Outcome::Overtaken,
            _ if distance == 0 => Outcome::Reached,
            DeviceState::Idle => Outcome::NoDriver,
            DeviceState::NeedsReset => Outcome::NeedsReset,
            DeviceState::Active if now.duration_since(self.since) >= self.patience => Outcome::Stopped,
            DeviceState::Active => Outcome::Waiting,
        }
    }
}

/// Shows how far a guest is.
struct Progress {
    /// A line can be overwritten by the next one.
    overwrites: bool,
    /// When a line was shown last, and what it said.
    shown: Option<(Instant, Bytes)>,
}

impl Progress {
    fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        Self { overwrites: !dumb && std::io::stderr().is_terminal(), shown: None }
    }

    fn show(&mut self, name: &str, at: Bytes, far: &str) {
        if self.overwrites {
            // Nobody is left to be told when standard error is closed.
            let _ = write!(std::io::stderr(), "\r\x1b[Knapa: {far}");
        } else if self.shown.is_some_and(|(when, shown)| shown == at || when.elapsed() < LINE_PERIOD) {
            return;
        } else {
            output::warn(format_args!("{name}: {far}"));
        }
        self.shown = Some((Instant::now(), at));
    }

    fn end(&self) {
        if self.overwrites && self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn a_guest_is_followed_until_it_is_there_or_stops() {
        let start = Instant::now();
        let (target, active) = (Bytes::mib(100), DeviceState::Active);
        let sight = |at, target, driver| Sight { target, at, driver };
        let mut following = Following::new(target, PATIENCE, start);
        for (second, at, expected) in [
            (0, 0, Outcome::Waiting),
            (4, 10, Outcome::Waiting),
            (8, 10, Outcome::Waiting),
            (8, 20, Outcome::Waiting),
            (12, 15, Outcome::Waiting),
            (13, 19, Outcome::Stopped),
            (14, 100, Outcome::Reached),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(following.look(sight(Bytes::mib(at), target, active), now), expected, "{second}");
        }
        let look = |sight| Following::new(target, PATIENCE, start).look(sight, start);
        assert_eq!(look(sight(Bytes(0), target, DeviceState::Idle)), Outcome::NoDriver);
        assert_eq!(look(sight(Bytes(0), target, DeviceState::NeedsReset)), Outcome::NeedsReset);
        assert_eq!(look(sight(Bytes(0), Bytes::mib(1), active)), Outcome::Overtaken);
    }
}
