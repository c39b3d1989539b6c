//! What a disk says on stderr about requests that failed: a line a second, however many there are.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A guest must not be able to fill the host's log.
const INTERVAL: Duration = Duration::from_secs(1);

/// Failures of one disk.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// Says what failed on the disk called `name`, or counts it if something was said just now.
    pub fn say(&self, name: &str, failure: impl Display) {
        if let Some(line) = self.line(name, failure, Instant::now()) {
            eprintln!("{line}");
        }
    }

    fn line(&self, name: &str, failure: impl Display, now: Instant) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            state.unsaid += 1;
            return None;
        }
        state.last = Some(now);
        Some(match std::mem::take(&mut state.unsaid) {
            0 => format!("napa: {name}: {failure}"),
            unsaid => format!("napa: {name}: {failure} ({unsaid} failures before this one were not shown)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_failures_is_one_line_and_a_count() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let line = |failure: &str, after_ms| {
            complaints.line("disk0", failure, start + Duration::from_millis(after_ms))
        };
        assert_eq!(line("first", 0).unwrap(), "napa: disk0: first");
        assert_eq!(line("second", 1), None);
        assert_eq!(line("third", 999), None);
        assert_eq!(
            line("fourth", 1000).unwrap(),
            "napa: disk0: fourth (2 failures before this one were not shown)"
        );
        assert_eq!(line("fifth", 2000).unwrap(), "napa: disk0: fifth");
    }
}
