//! What a fleet came to, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use napa_units::Bytes;
use serde::Serialize;

use super::fleet::Member;
use super::guest::State;
use crate::figures::{count, duration_ns, size};
use crate::output::Style;

/// What a fleet came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Every guest verified its memory and ended with code 0.
    pub verified: bool,
    /// Guests that were started.
    pub guests_started: usize,
    /// Guests that verified their memory and ended with code 0.
    pub guests_verified: usize,
    /// Guests that did not.
    pub guests_failed: usize,
    /// Guests that looked at all of their pages after their work; guests that are stopped do not.
    pub guests_checked: usize,
    /// Visits of pages, first writes included.
    pub operations: u64,
    /// Visits that compared the page with what it should hold.
    pub visits_verified: u64,
    /// Pages that held something else.
    pub content_errors: u64,
    /// Guest memory of all guests together, in bytes.
    pub memory: Bytes,
    /// The most that was resident at one time of all their processes, in bytes.
    pub resident_max: Bytes,
    /// From the start of the first process to the first word of the last guest's program, in milliseconds.
    pub start_ms: Option<f64>,
    /// Private anonymous memory of a VM's process beside guest RAM, mean of those measured, in bytes.
    pub overhead: Option<Bytes>,
    /// From the start of the first process to the end of the last, in milliseconds.
    pub elapsed_ms: f64,
    /// Each guest.
    pub guests: Vec<GuestSummary>,
}

/// What one guest came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuestSummary {
    /// Name of the VM.
    pub name: String,
    /// Its command line.
    pub cmdline: String,
    /// Guest memory, in bytes.
    pub memory: Bytes,
    /// vCPUs.
    pub cpus: u32,
    /// It verified its memory and ended with code 0.
    pub verified: bool,
    /// What went wrong.
    pub failure: Option<String>,
    /// Visits of pages, first writes included.
    pub operations: u64,
    /// Visits that compared the page with what it should hold.
    pub visits_verified: u64,
    /// Pages that held something else.
    pub content_errors: u64,
    /// It looked at all of its pages after its work.
    pub checked: bool,
    /// Private anonymous memory of its process beside guest RAM, in bytes.
    pub overhead: Option<Bytes>,
    /// From the start of the fleet to the first word of its program, in milliseconds.
    pub ready_ms: Option<f64>,
}

impl GuestSummary {
    fn of(member: &Member) -> Self {
        let (plan, progress) = (member.plan(), member.progress());
        let figures = progress.figures();
        let failure = match progress.state() {
            State::Verified => None,
            State::Failed(reason) => Some(reason.clone()),
            _ => Some("it has not ended".into()),
        };
        Self {
            name: plan.name.clone(),
            cmdline: plan.cmdline.clone(),
            memory: plan.memory,
            cpus: plan.cpus,
            verified: failure.is_none(),
            failure,
            operations: figures.operations,
            visits_verified: figures.verified,
            content_errors: figures.errors,
            checked: figures.checked,
            overhead: member.footprint().map(|footprint| footprint.private_anonymous),
            ready_ms: progress.ready_after().map(milliseconds),
        }
    }
}

impl Summary {
    /// Sums up a fleet that has ended.
    pub fn of(members: &[Member], resident_max: Bytes, elapsed: Duration) -> Self {
        Self::sum(members.iter().map(GuestSummary::of).collect(), resident_max, elapsed)
    }

    fn sum(guests: Vec<GuestSummary>, resident_max: Bytes, elapsed: Duration) -> Self {
        let verified = guests.iter().filter(|guest| guest.verified).count();
        let overheads: Vec<u64> =
            guests.iter().filter_map(|guest| guest.overhead).map(|bytes| bytes.0).collect();
        let start_ms = guests.iter().map(|guest| guest.ready_ms).collect::<Option<Vec<f64>>>();
        Self {
            verified: !guests.is_empty() && verified == guests.len(),
            guests_started: guests.len(),
            guests_verified: verified,
            guests_failed: guests.len() - verified,
            guests_checked: guests.iter().filter(|guest| guest.checked).count(),
            operations: guests.iter().map(|guest| guest.operations).sum(),
            visits_verified: guests.iter().map(|guest| guest.visits_verified).sum(),
            content_errors: guests.iter().map(|guest| guest.content_errors).sum(),
            memory: Bytes(guests.iter().map(|guest| guest.memory.0).sum()),
            resident_max,
            start_ms: start_ms.map(|times| times.into_iter().fold(0.0, f64::max)),
            overhead: (!overheads.is_empty())
                .then(|| Bytes(overheads.iter().sum::<u64>() / overheads.len() as u64)),
            elapsed_ms: milliseconds(elapsed),
            guests,
        }
    }

    /// The summary for people.
    pub fn text(&self, style: Style) -> String {
        let mut text = String::new();
        for guest in &self.guests {
            if let Some(reason) = &guest.failure {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{}  {}: {reason}", style.bad("failed"), guest.name);
            }
        }
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<11} {value}");
        };
        row(
            "guests",
            format!(
                "{} started, {} verified, {} failed",
                self.guests_started, self.guests_verified, self.guests_failed
            ),
        );
        row("operations", count(self.operations));
        row(
            "verified",
            format!(
                "{} visits, {} content errors; {} guests looked at every page at the end",
                count(self.visits_verified),
                count(self.content_errors),
                self.guests_checked
            ),
        );
        row(
            "memory",
            format!("{} of guest memory, {} resident at most", size(self.memory), size(self.resident_max)),
        );
        if let Some(ms) = self.start_ms {
            row("start", format!("{} until the last guest ran", duration_ns((ms * 1e6) as u64)));
        }
        if let Some(overhead) = self.overhead {
            row("overhead", format!("{} private a VM beside guest memory", size(overhead)));
        }
        let verdict = match self.verified {
            true => style.good("every guest verified its memory"),
            false => style.bad("not every guest verified its memory"),
        };
        text + &verdict + "\n"
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(name: &str, failure: Option<&str>) -> GuestSummary {
        GuestSummary {
            name: name.into(),
            cmdline: "workload=touch:1M".into(),
            memory: Bytes::mib(64),
            cpus: 1,
            verified: failure.is_none(),
            failure: failure.map(str::to_owned),
            operations: 1200,
            visits_verified: 1000,
            content_errors: u64::from(failure.is_some()),
            checked: failure.is_none(),
            overhead: failure.is_none().then_some(Bytes::kib(300)),
            ready_ms: Some(12.5),
        }
    }

    fn summary(guests: Vec<GuestSummary>) -> Summary {
        Summary::sum(guests, Bytes::mib(90), Duration::from_secs(3))
    }

    #[test]
    fn a_good_fleet_is_summed_up() {
        let summary = summary(vec![guest("a", None), guest("b", None)]);
        assert!(summary.verified);
        let expected = "\
guests      2 started, 2 verified, 0 failed
operations  2,400
verified    2,000 visits, 0 content errors; 2 guests looked at every page at the end
memory      128 MiB of guest memory, 90 MiB resident at most
start       12 ms until the last guest ran
overhead    300 KiB private a VM beside guest memory
every guest verified its memory
";
        assert_eq!(summary.text(Style::PLAIN), expected);
    }

    #[test]
    fn one_failed_guest_fails_the_fleet_and_is_named() {
        let summary = summary(vec![guest("a", None), guest("b", Some("it ended with exit code 3"))]);
        assert!(!summary.verified);
        let text = summary.text(Style::PLAIN);
        assert!(text.starts_with("failed  b: it ended with exit code 3\n"), "{text}");
        assert!(text.ends_with("not every guest verified its memory\n"), "{text}");
        assert_eq!(summary.overhead, Some(Bytes::kib(300)));
    }

    #[test]
    fn nothing_is_verified_by_no_guest() {
        assert!(!summary(vec![]).verified);
        assert_eq!(summary(vec![GuestSummary { ready_ms: None, ..guest("a", Some("x")) }]).start_ms, None);
    }
}
