//! VMs that do not answer.

use std::time::Duration;

/// The longest time for which a VM that does not answer is left alone.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long a VM has not answered. It is asked less and less often, so that it costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    failures: u32,
    until: Duration,
}

impl Silence {
    /// It has answered.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// It has not, at time `now`.
    pub fn go_on(&mut self, now: Duration) {
        let pause = Duration::from_secs(1 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.until = now + pause.min(PAUSE_MAX);
    }

    /// Whether it is not asked for anything now.
    pub fn lasts(self, now: Duration) -> bool {
        now < self.until
    }

    /// Whether it has failed to answer last.
    pub const fn is_broken(self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_asked_less_and_less_often() {
        let (mut silence, mut now) = (Silence::default(), Duration::from_secs(5));
        assert!(!silence.lasts(now));
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            silence.go_on(now);
            let end = now + Duration::from_secs(pause);
            assert!(
                silence.is_broken() && silence.lasts(end - Duration::from_millis(1)) && !silence.lasts(end)
            );
            now = end;
        }
        silence.end();
        assert!(!silence.is_broken() && !silence.lasts(Duration::ZERO));
    }
}
