//! What is known of one guest: its lines and its end, folded into where it stands.

use std::time::Duration;

use crate::guests::{Gone, Line, Part, Report};

/// What a guest does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not said a word yet.
    Starting,
    /// It does what its plan says.
    Running,
    /// It was asked to end.
    Stopping,
    /// It ended with code 0, and nothing was wrong with its memory.
    Verified,
    /// It did not.
    Failed(String),
}

/// A guest, from its first line to its end.
#[derive(Clone, Debug)]
pub struct Progress {
    state: State,
    ready_after: Option<Duration>,
    figures: Figures,
    /// Operations that the present phase has reported so far.
    in_phase: u64,
    failure: Option<String>,
    done: Option<u8>,
    was_killed: bool,
}

/// What a guest has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Visits of pages, first writes included.
    pub operations: u64,
    /// Those that compared the page with what it should hold.
    pub verified: u64,
    /// Pages that held something else.
    pub errors: u64,
    /// The longest that a visit of one page took.
    pub stall_max_ns: u64,
    /// What it kept to the end was looked at once more.
    pub checked: bool,
}

impl Progress {
    /// A guest that was just started.
    pub fn new() -> Self {
        Self {
            state: State::Starting,
            ready_after: None,
            figures: Figures::default(),
            in_phase: 0,
            failure: None,
            done: None,
            was_killed: false,
        }
    }

    /// What it does.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What it has counted.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// When it first had its own program running, from the start of the fleet.
    pub fn ready_after(&self) -> Option<Duration> {
        self.ready_after
    }

    /// Whether something else than its own end or our wish ended its process.
    pub fn was_killed(&self) -> bool {
        self.was_killed
    }

    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Verified | State::Failed(_))
    }

    /// A line came, so long after the start of the fleet.
    pub fn on_line(&mut self, line: &str, after: Duration) {
        match Line::parse(line) {
            Line::Ready => {
                self.ready_after.get_or_insert(after);
                self.go(State::Running);
            }
            Line::Report(report) => self.on_report(&report),
            Line::Corrupt => self.figures.errors += 1,
            Line::Fail(reason) => self.failure = Some(reason.to_owned()),
            Line::Done(code) => self.done = Some(code),
            Line::Balloon(_) | Line::Other => {}
        }
    }

    fn on_report(&mut self, report: &Report<'_>) {
        let is_total = report.part == Part::Total;
        // A total counts what the intervals before it have counted.
        let before = if is_total { std::mem::take(&mut self.in_phase) } else { 0 };
        let new = report.operations.saturating_sub(before);
        if !is_total {
            self.in_phase += report.operations;
        }
        self.figures.operations += new;
        if report.phase != "fill" {
            self.figures.verified += new;
        }
        self.figures.stall_max_ns = self.figures.stall_max_ns.max(report.max_ns);
        self.figures.checked |= is_total && report.phase == "check" && self.state == State::Stopping;
    }

    /// It was asked to end.
    pub fn on_stop_request(&mut self) {
        self.go(State::Stopping);
    }

    fn go(&mut self, state: State) {
        // Reports that were on their way when it was asked to stop do not take that back.
        if !self.has_ended() && (self.state != State::Stopping) {
            self.state = state;
        }
    }

    /// Its process ended. `complaint`: what napa said about it; `killed`: it was ended by force.
    pub fn on_end(&mut self, gone: Gone, complaint: Option<&str>, killed: bool) {
        if self.has_ended() {
            return;
        }
        self.was_killed = matches!(gone, Gone::Signal(_)) && !killed;
        self.state = match self.fault(gone, complaint, killed) {
            None => State::Verified,
            Some(reason) => State::Failed(reason),
        };
    }

    /// What speaks against it. The first is the one that explains the others.
    fn fault(&self, gone: Gone, complaint: Option<&str>, killed: bool) -> Option<String> {
        let Figures { errors, verified, .. } = self.figures;
        if let Some(reason) = &self.failure {
            return Some(reason.clone());
        }
        if errors > 0 {
            return Some(format!("{errors} pages were not as written"));
        }
        if killed {
            return Some("it did not stop in time and was killed".into());
        }
        match (gone, complaint) {
            (Gone::Signal(signal), _) => return Some(format!("its process was killed by signal {signal}")),
            (Gone::Code(code), Some(complaint)) if code != 0 => return Some(complaint.to_owned()),
            (Gone::Code(code), None) if code != 0 => return Some(format!("it ended with exit code {code}")),
            _ => {}
        }
        if self.done != Some(0) {
            return Some("it ended without saying that its work was done".into());
        }
        (verified == 0).then(|| "it ended before it had verified a page".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(phase: &str, part: &str, operations: u64) -> String {
        format!(
            "REPORT workload=w phase={phase} part={part} ms=1000 ops={operations} ops_per_second=50 p50_ns=1 \
             p99_ns=9 max_ns=10 clock_ns=1 clock_steps_back=0"
        )
    }

    fn after(lines: &[&str]) -> Progress {
        let mut guest = Progress::new();
        for (second, line) in (1..).zip(lines) {
            guest.on_line(line, Duration::from_secs(second));
        }
        guest
    }

    /// A guest that did all it should.
    fn good() -> Progress {
        let (fill, work) = (report("fill", "total", 10), report("work", "interval", 100));
        let (total, check) = (report("work", "total", 150), report("check", "total", 10));
        let mut guest = after(&["napa guest", "READY cpus=1", &fill, &work, &total, &fill, &check]);
        guest.on_stop_request();
        guest.on_line(&check, Duration::from_secs(9));
        guest.on_line("DONE code=0", Duration::from_secs(9));
        guest
    }

    #[test]
    fn operations_are_counted_once() {
        let (fill, work) = (report("fill", "total", 10), report("work", "interval", 100));
        let guest = after(&["READY", &fill, &work]);
        assert_eq!((guest.figures.operations, guest.figures.verified), (110, 100));
        assert_eq!(good().figures.verified, 170);
        assert_eq!(good().figures.stall_max_ns, 10);
        assert!(good().figures.checked);
        assert_eq!(good().ready_after(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn only_the_last_check_is_one_of_all_that_is_kept() {
        let check = report("check", "total", 10);
        assert!(!after(&["READY", &check]).figures.checked);
    }

    #[test]
    fn a_guest_that_was_asked_to_stop_stays_so() {
        let mut guest = after(&[]);
        assert_eq!(guest.state(), &State::Starting);
        guest.on_stop_request();
        guest.on_line("READY", Duration::ZERO);
        guest.on_line(&report("work", "total", 1), Duration::ZERO);
        assert_eq!(guest.state(), &State::Stopping);
        assert_eq!(guest.figures.verified, 1);
    }

    #[test]
    fn only_a_guest_without_any_fault_is_verified() {
        let end = |mut guest: Progress, gone, complaint, killed| {
            guest.on_end(gone, complaint, killed);
            guest.state().clone()
        };
        assert_eq!(end(good(), Gone::Code(0), None, false), State::Verified);
        let failed =
            |guest, gone, complaint, killed, expected: &str| match end(guest, gone, complaint, killed) {
                State::Failed(reason) => assert!(reason.contains(expected), "{reason}"),
                state => panic!("{state:?}"),
            };
        let said = "napa: guest-2: a vCPU met a triple fault";
        failed(good(), Gone::Code(82), Some(said), false, "triple fault");
        failed(good(), Gone::Code(7), None, false, "exit code 7");
        failed(good(), Gone::Signal(11), None, false, "signal 11");
        let (mut fell, mut hung) = (good(), good());
        fell.on_end(Gone::Signal(9), None, false);
        hung.on_end(Gone::Signal(9), None, true);
        assert_eq!((fell.was_killed(), hung.was_killed()), (true, false));
        failed(good(), Gone::Signal(9), None, true, "did not stop in time");
        failed(after(&["READY"]), Gone::Code(0), None, false, "without saying");
        failed(after(&["READY", "DONE code=0"]), Gone::Code(0), None, false, "before it had verified");
        let mut corrupt = good();
        corrupt.on_line("CORRUPT address=0x0", Duration::ZERO);
        failed(corrupt, Gone::Code(3), Some("napa: exit code 3"), false, "1 pages were not as written");
        let mut full = good();
        full.on_line("FAIL reason=\"too little\"", Duration::ZERO);
        failed(full, Gone::Code(2), Some("napa: exit code 2"), false, "too little");
    }
}
