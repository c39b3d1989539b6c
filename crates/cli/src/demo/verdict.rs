//! What a fleet came to, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use napa_api::host::Level;
use napa_policy::Kind;
use napa_units::Bytes;
use serde::Serialize;

use super::fleet::{ANSWER_BOUND, Member};
use super::guest::State;
use super::keeper::{Account, Peaks};
use super::plan::Plan;
use super::witness::{REACTION, Testimony};
use crate::figures::{count, duration_ns, size};
use crate::output::Style;

/// More than the budget by so much, in percent, still keeps it: processes hold a little beside guest memory.
const TOLERANCE: u64 = 2;

/// What the verdict rests on.
pub struct Evidence<'a> {
    /// Who decided.
    pub policy: Kind,
    /// What was planned.
    pub plan: &'a Plan,
    /// The guests that were started.
    pub members: &'a [Member],
    /// What was seen and done about their memory.
    pub account: &'a Account,
    /// What they held by the kernel's word.
    pub testimony: Testimony,
    /// There was swap.
    pub has_swap: bool,
    /// Somebody ended it before its time.
    pub was_cut_short: bool,
    /// From the start of the first guest to the end of the last.
    pub elapsed: Duration,
}

/// What a fleet came to. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Nobody was killed, every guest verified its memory and answered in time, and the budget was kept.
    pub passed: bool,
    /// Who decided.
    pub policy: &'static str,
    /// Guests that were started.
    pub guests_started: usize,
    /// Guests that something else ended than their own end or this program's wish.
    pub guests_killed: usize,
    /// Guests that verified their memory and ended with code 0.
    pub guests_verified: usize,
    /// Guests that looked at all they kept, after the last phase.
    pub guests_checked: usize,
    /// Guests that answered within a second after the last phase. `None`: it was ended before.
    pub guests_answered: Option<usize>,
    /// The longest time until an answer, in milliseconds.
    pub answer_max_ms: Option<f64>,
    /// Visits of pages, first writes included.
    pub operations: u64,
    /// Visits that compared the page with what it should hold.
    pub visits_verified: u64,
    /// Pages that held something else.
    pub content_errors: u64,
    /// The longest visit of one page, in milliseconds: what a guest waited for its memory or for a CPU.
    pub stall_max_ms: f64,
    /// The sum of the guests' limits.
    pub limits: Bytes,
    /// RAM that they may hold together.
    pub budget: Bytes,
    /// Limits by budget.
    pub overcommit: f64,
    /// The most that they held at one time (proportional set size, by a reader that knows nothing of the policy).
    pub held_max: Bytes,
    /// The most by which the budget was exceeded.
    pub excess_max: Bytes,
    /// The most by which it was still exceeded after ten seconds of excess.
    pub excess_lasting: Bytes,
    /// How long it was exceeded, in milliseconds.
    pub over_budget_ms: f64,
    /// The budget was kept: after ten seconds, no more than a fiftieth above it was held.
    pub budget_kept: bool,
    /// The most of the guests' memory at one time that was merged, in balloons and in swap.
    pub shared_max: Bytes,
    /// See `shared_max`.
    pub ballooned_max: Bytes,
    /// See `shared_max`.
    pub swapped_max: Bytes,
    /// What mechanisms were told to take, in all.
    pub ordered: BTreeMap<String, Bytes>,
    /// How long each level was held, in milliseconds.
    pub level_ms: BTreeMap<&'static str, f64>,
    /// There was swap for what does not fit the budget.
    pub has_swap: bool,
    /// It was ended before its time.
    pub was_cut_short: bool,
    /// From the start of the first guest to the first word of the last one's program, in milliseconds.
    pub start_ms: Option<f64>,
    /// From the start of the first guest to the end of the last, in milliseconds.
    pub elapsed_ms: f64,
    /// Each guest.
    pub guests: Vec<GuestVerdict>,
}

/// What one guest came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuestVerdict {
    /// Name of the VM.
    pub name: String,
    /// Its command line.
    pub cmdline: String,
    /// Guest memory, in bytes.
    pub memory: Bytes,
    /// What went wrong.
    pub failure: Option<String>,
    /// Something else ended it than its own end or this program's wish.
    pub killed: bool,
    /// Visits of pages, first writes included.
    pub operations: u64,
    /// Visits that compared the page with what it should hold.
    pub visits_verified: u64,
    /// Pages that held something else.
    pub content_errors: u64,
    /// It looked at all it kept, after the last phase.
    pub checked: bool,
    /// How long it took to answer after the last phase, in milliseconds.
    pub answer_ms: Option<f64>,
    /// The longest visit of one page, in milliseconds.
    pub stall_max_ms: f64,
    /// From the start of the fleet to the first word of its program, in milliseconds.
    pub ready_ms: Option<f64>,
}

impl GuestVerdict {
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
            cmdline: member.cmdline().to_owned(),
            memory: plan.memory,
            failure,
            killed: progress.was_killed(),
            operations: figures.operations,
            visits_verified: figures.verified,
            content_errors: figures.errors,
            checked: figures.checked,
            answer_ms: member.answered_in().map(milliseconds),
            stall_max_ms: milliseconds(Duration::from_nanos(figures.stall_max_ns)),
            ready_ms: progress.ready_after().map(milliseconds),
        }
    }
}

impl Verdict {
    /// Judges a fleet that has ended.
    pub fn of(evidence: &Evidence<'_>) -> Self {
        Self::judge(evidence, evidence.members.iter().map(GuestVerdict::of).collect())
    }

    fn judge(evidence: &Evidence<'_>, guests: Vec<GuestVerdict>) -> Self {
        let &Evidence { plan, account, testimony, was_cut_short, .. } = evidence;
        let counted = |is: fn(&GuestVerdict) -> bool| guests.iter().filter(|guest| is(guest)).count();
        let sum = |figure: fn(&GuestVerdict) -> u64| guests.iter().map(figure).sum::<u64>();
        let most = |times: &mut dyn Iterator<Item = f64>| times.fold(0.0, f64::max);
        let in_time =
            |guest: &GuestVerdict| guest.answer_ms.is_some_and(|ms| ms < milliseconds(ANSWER_BOUND));
        let start_ms = guests.iter().map(|guest| guest.ready_ms).collect::<Option<Vec<f64>>>();
        let Peaks { shared, ballooned, swapped } = account.peaks;
        let mut verdict = Self {
            passed: false,
            policy: evidence.policy.name(),
            guests_started: guests.len(),
            guests_killed: counted(|guest| guest.killed),
            guests_verified: counted(|guest| guest.failure.is_none()),
            guests_checked: counted(|guest| guest.checked),
            guests_answered: (!was_cut_short).then(|| counted(in_time)),
            answer_max_ms: (!was_cut_short)
                .then(|| most(&mut guests.iter().filter_map(|guest| guest.answer_ms))),
            operations: sum(|guest| guest.operations),
            visits_verified: sum(|guest| guest.visits_verified),
            content_errors: sum(|guest| guest.content_errors),
            stall_max_ms: most(&mut guests.iter().map(|guest| guest.stall_max_ms)),
            limits: plan.limits(),
            budget: plan.budget,
            overcommit: plan.limits().0 as f64 / plan.budget.0 as f64,
            held_max: testimony.held_max,
            excess_max: testimony.excess_max,
            excess_lasting: testimony.excess_lasting,
            over_budget_ms: milliseconds(testimony.over),
            budget_kept: testimony.excess_lasting.0 <= plan.budget.0 / 100 * TOLERANCE,
            shared_max: shared,
            ballooned_max: ballooned,
            swapped_max: swapped,
            ordered: account.ordered.clone(),
            level_ms: account.at_level.iter().map(|(level, held)| (*level, milliseconds(*held))).collect(),
            has_swap: evidence.has_swap,
            was_cut_short,
            start_ms: start_ms.map(|times| most(&mut times.into_iter())),
            elapsed_ms: milliseconds(evidence.elapsed),
            guests,
        };
        verdict.passed = verdict.complaints().is_empty() && verdict.guests_started > 0;
        verdict
    }

    /// What speaks against it.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut unless = |is_well: bool, complaint: String| {
            if !is_well {
                complaints.push(complaint);
            }
        };
        let all = self.guests_started;
        unless(self.guests_killed == 0, format!("{} guests were killed", self.guests_killed));
        unless(self.content_errors == 0, format!("{} pages were not as written", count(self.content_errors)));
        unless(
            self.guests_verified == all,
            format!("{} of {all} guests did not verify their memory", all - self.guests_verified),
        );
        if let Some(answered) = self.guests_answered {
            unless(
                answered == all,
                format!("{} of {all} guests did not answer within a second", all - answered),
            );
        }
        unless(
            self.budget_kept,
            format!(
                "{} above the budget were held for longer than {} s",
                size(self.excess_lasting),
                REACTION.as_secs()
            ),
        );
        complaints
    }

    /// The verdict for people.
    pub fn text(&self, style: Style) -> String {
        let mut text = String::new();
        for guest in &self.guests {
            if let Some(reason) = &guest.failure {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{}  {}: {reason}", style.bad("failed"), guest.name);
            }
        }
        for (name, value) in self.rows() {
            let _ = writeln!(text, "{name:<11} {value}");
        }
        let complaints = self.complaints();
        let verdict = match (self.passed, self.was_cut_short) {
            (true, false) => style
                .good("nobody was killed, every page was as written, everybody answers, the budget was kept"),
            (true, true) => style
                .good("ended before its time; until then nobody was killed and every page was as written"),
            (false, _) => style.bad(&complaints.join("; ")),
        };
        text + &verdict + "\n"
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let ms = |ms: f64| duration_ns((ms * 1e6) as u64);
        let mut rows = vec![(
            "guests",
            format!(
                "{} started, {} killed, {} verified, {} failed",
                self.guests_started,
                self.guests_killed,
                self.guests_verified,
                self.guests_started - self.guests_verified
            ),
        )];
        if let (Some(answered), Some(slowest)) = (self.guests_answered, self.answer_max_ms) {
            rows.push((
                "answers",
                format!("{answered} within a second at the end, the slowest in {}", ms(slowest)),
            ));
        }
        rows.push((
            "contents",
            format!(
                "{} visits verified, {} errors; {} guests looked at all they kept at the end",
                count(self.visits_verified),
                count(self.content_errors),
                self.guests_checked
            ),
        ));
        rows.push((
            "overcommit",
            format!(
                "{} of limits in a budget of {}: {:.1} times",
                size(self.limits),
                size(self.budget),
                self.overcommit
            ),
        ));
        rows.push((
            "held",
            format!(
                "{} at most, {} above the budget at worst, {} of that for longer than {} s",
                size(self.held_max),
                size(self.excess_max),
                size(self.excess_lasting),
                REACTION.as_secs()
            ),
        ));
        rows.push((
            "where",
            format!(
                "at most {} shared, {} in balloons, {} swapped",
                size(self.shared_max),
                size(self.ballooned_max),
                size(self.swapped_max)
            ),
        ));
        let levels: Vec<String> = Level::ALL
            .iter()
            .filter_map(|level| Some(format!("{level} {}", ms(*self.level_ms.get(level.name())?))))
            .collect();
        rows.push(("levels", levels.join(", ")));
        rows.push((
            "stall",
            format!("{} was the longest that a guest waited for a page", ms(self.stall_max_ms)),
        ));
        if let Some(start) = self.start_ms {
            rows.push(("start", format!("{} until the last guest ran", ms(start))));
        }
        if !self.has_swap {
            rows.push((
                "swap",
                "none, so the spike stayed below the budget: run as root to have some made".into(),
            ));
        }
        rows
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::{Host, Wish, plan};

    fn guest(name: &str, failure: Option<&str>) -> GuestVerdict {
        GuestVerdict {
            name: name.into(),
            cmdline: "workload=phases:1M/1".into(),
            memory: Bytes::mib(64),
            failure: failure.map(str::to_owned),
            killed: failure.is_some_and(|failure| failure.contains("signal")),
            operations: 1200,
            visits_verified: 1000,
            content_errors: u64::from(failure.is_some_and(|failure| failure.contains("pages"))),
            checked: failure.is_none(),
            answer_ms: failure.is_none().then_some(2.5),
            stall_max_ms: 12.0,
            ready_ms: Some(12.5),
        }
    }

    fn verdict(guests: Vec<GuestVerdict>, held: u64) -> Verdict {
        let wish = Wish {
            guests: Some(2),
            memory: Some(Bytes::mib(256)),
            budget: Some(Bytes::mib(128)),
            duration_s: 10,
        };
        let host = Host { cpus: 2, available: Bytes::gib(8), has_swap: true };
        let mut testimony = Testimony::default();
        for second in 0..12 {
            testimony.see(Bytes::mib(held), Bytes::mib(128), Duration::from_secs(second));
        }
        let mut account = Account::default();
        account.at_level.insert("soft", Duration::from_secs(4));
        account.at_level.insert("high", Duration::from_secs(7));
        account.peaks = Peaks { shared: Bytes(0), ballooned: Bytes::mib(20), swapped: Bytes::mib(90) };
        let evidence = Evidence {
            policy: Kind::Napa,
            plan: &plan(wish, host).unwrap(),
            members: &[],
            account: &account,
            testimony,
            has_swap: true,
            was_cut_short: false,
            elapsed: Duration::from_secs(11),
        };
        Verdict::judge(&evidence, guests)
    }

    #[test]
    fn a_good_fleet_passes() {
        let verdict = verdict(vec![guest("a", None), guest("b", None)], 120);
        let expected = "\
guests      2 started, 0 killed, 2 verified, 0 failed
answers     2 within a second at the end, the slowest in 2.5 ms
contents    2,000 visits verified, 0 errors; 2 guests looked at all they kept at the end
overcommit  512 MiB of limits in a budget of 128 MiB: 4.0 times
held        120 MiB at most, 0 KiB above the budget at worst, 0 KiB of that for longer than 10 s
where       at most 0 KiB shared, 20 MiB in balloons, 90 MiB swapped
levels      high 7.0 s, soft 4.0 s
stall       12 ms was the longest that a guest waited for a page
start       12 ms until the last guest ran
nobody was killed, every page was as written, everybody answers, the budget was kept
";
        assert!(verdict.passed);
        assert_eq!(verdict.text(Style::PLAIN), expected);
    }

    #[test]
    fn whatever_went_wrong_fails_it_and_is_named() {
        for (failure, held, expected) in [
            (Some("its process was killed by signal 9"), 100, "1 guests were killed"),
            (Some("7 pages were not as written"), 100, "1 pages were not as written"),
            (Some("it ended with exit code 3"), 100, "1 of 2 guests did not verify"),
            (Some("it ended with exit code 3"), 100, "1 of 2 guests did not answer"),
            (None, 140, "12 MiB above the budget were held for longer than 10 s"),
        ] {
            let verdict = verdict(vec![guest("a", None), guest("b", failure)], held);
            let text = verdict.text(Style::PLAIN);
            assert!(!verdict.passed);
            assert!(text.contains(expected), "{text}");
            assert!(
                failure.is_none_or(|failure| text.starts_with(&format!("failed  b: {failure}\n"))),
                "{text}"
            );
        }
    }

    #[test]
    fn nobody_proves_nothing() {
        assert!(!verdict(vec![], 0).passed);
    }
}
