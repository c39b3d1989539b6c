//! What a VM is asked now and then, besides what its mechanisms ask: its means, where its pages are, how much it uses.

use std::time::Duration;

use napa_api::control::{Command, MeansReport, MemoryCommand, MemoryReport, WorkingSet};
use napa_units::{Ledger, VmId};
use serde_json::Value;

use crate::calls::CallError;
use crate::mechanisms::{Answered, Haste, Urgency, Wish};

/// How long the pages of a sample have time to come back.
const SAMPLE_TIME: Duration = Duration::from_secs(20);
/// What is asked anew after so long: it changes when the host's own facilities do.
const MEANS_PERIOD: Duration = Duration::from_secs(600);
/// How often it is looked where all pages are. The VM walks its page tables for it.
const LEDGER_PERIOD: Duration = Duration::from_secs(60);
/// How long something that was refused is not asked for.
const REFUSED: Duration = Duration::from_secs(120);

/// What one VM was asked, and when it is asked again.
#[derive(Debug)]
pub struct Probes {
    means: Probe<MeansReport>,
    ledger: Probe<Ledger>,
    working_set: Probe<WorkingSet>,
    /// When the sample that is under way began. `None`: none is.
    sample: Option<Duration>,
}

/// One question.
#[derive(Debug)]
struct Probe<T> {
    /// The last answer, and when it came.
    answer: Option<(T, Duration)>,
    /// Not to be asked before.
    next: Duration,
}

impl<T> Probe<T> {
    const fn new(next: Duration) -> Self {
        Self { answer: None, next }
    }

    fn is_due(&self, now: Duration) -> bool {
        now >= self.next
    }

    /// Takes an answer; `None`: there was none.
    fn note(&mut self, answer: Option<T>, period: Duration, now: Duration) {
        self.next = now + if answer.is_some() { period } else { REFUSED };
        self.answer = answer.map(|answer| (answer, now)).or(self.answer.take());
    }
}

impl Probes {
    /// Questions to a VM that was found at time `now`. Those of many VMs are spread over time.
    pub fn new(id: VmId, now: Duration) -> Self {
        // Neighbours are far from each other: by the golden section of a minute.
        let spread = Duration::from_millis(id.0.wrapping_mul(37_082) % 60_000);
        Self {
            means: Probe::new(now),
            ledger: Probe::new(now + spread / 4),
            working_set: Probe::new(now + spread),
            sample: None,
        }
    }

    /// By what means memory can be taken.
    pub fn means(&self) -> Option<&MeansReport> {
        self.means.answer.as_ref().map(|(means, _)| means)
    }

    /// Where all pages were.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.answer.as_ref().map(|(ledger, _)| ledger)
    }

    /// How much the guest uses, and when that was found.
    pub fn working_set(&self) -> Option<(&WorkingSet, Duration)> {
        self.working_set.answer.as_ref().map(|(found, at)| (found, *at))
    }

    /// What to ask next.
    pub fn wish(&self, now: Duration) -> Option<Wish> {
        let ask = |urgency, command| Some(Wish { urgency, command: Command::Memory(command) });
        if self.means.is_due(now) {
            return ask(Urgency::Poll, MemoryCommand::Means);
        }
        match self.sample {
            // A sample that is ended late says too much: more pages come back.
            Some(begun) if now.saturating_sub(begun) >= SAMPLE_TIME => {
                return ask(Urgency::Poll, MemoryCommand::WorkingSet);
            }
            Some(_) => {}
            None if self.working_set.is_due(now) => return ask(Urgency::Probe, MemoryCommand::Sample),
            None => {}
        }
        if self.ledger.is_due(now) { ask(Urgency::Probe, MemoryCommand::Report) } else { None }
    }

    /// Learns what came of a question.
    pub fn answered(
        &mut self,
        command: Command,
        outcome: Result<&Value, &CallError>,
        haste: Haste,
        at: Answered,
    ) {
        let Command::Memory(command) = command else { return };
        match command {
            MemoryCommand::Means => self.means.note(read(outcome), MEANS_PERIOD, at.now),
            MemoryCommand::Report => {
                let ledger = read::<MemoryReport>(outcome).map(|report| report.ledger);
                self.ledger.note(ledger, LEDGER_PERIOD, at.now);
            }
            MemoryCommand::Sample => match outcome {
                Ok(_) => self.sample = Some(at.now),
                Err(_) => self.working_set.note(None, REFUSED, at.now),
            },
            MemoryCommand::WorkingSet => {
                self.sample = None;
                self.working_set.note(read(outcome), period(haste), at.now);
            }
            _ => {}
        }
    }
}

/// How often a guest loses a hundred pages for this.
const fn period(haste: Haste) -> Duration {
    match haste {
        Haste::None => Duration::from_secs(300),
        Haste::Some | Haste::Great => Duration::from_secs(40),
    }
}

fn read<T: serde::de::DeserializeOwned>(outcome: Result<&Value, &CallError>) -> Option<T> {
    serde::Deserialize::deserialize(outcome.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const fn at(seconds: u64) -> Answered {
        Answered { now: Duration::from_secs(seconds), took: Duration::ZERO }
    }

    fn wish(probes: &Probes, seconds: u64) -> Option<MemoryCommand> {
        probes.wish(Duration::from_secs(seconds)).map(|wish| match wish.command {
            Command::Memory(command) => command,
            other => panic!("{other:?}"),
        })
    }

    fn answer(probes: &mut Probes, command: MemoryCommand, outcome: Result<Value, CallError>, seconds: u64) {
        let command = Command::Memory(command);
        probes.answered(command, outcome.as_ref(), Haste::Some, at(seconds));
    }

    fn refusal() -> Result<Value, CallError> {
        Err(CallError::Late { method: "sample", bound: REFUSED })
    }

    #[test]
    fn a_sample_has_time_and_is_ended_and_the_next_one_comes_later() {
        let mut probes = Probes::new(VmId(0), Duration::ZERO);
        assert_eq!(wish(&probes, 0), Some(MemoryCommand::Means));
        let means = json!({"no_zero_pages": null, "no_merging": "why", "reclaim": "page_out"});
        answer(&mut probes, MemoryCommand::Means, Ok(means), 0);
        assert!(probes.means().unwrap().no_merging.is_some());
        assert_eq!(wish(&probes, 0), Some(MemoryCommand::Sample));
        answer(&mut probes, MemoryCommand::Sample, Ok(json!({})), 1);
        assert_eq!(wish(&probes, 2), Some(MemoryCommand::Report));
        answer(&mut probes, MemoryCommand::Report, refusal(), 3);
        assert_eq!(wish(&probes, 4), None);
        assert_eq!(wish(&probes, 21), Some(MemoryCommand::WorkingSet));
        let found = json!({
            "name": "vm", "working_set": 8192, "estimate": 4096, "low": 0, "high": 0, "group": null,
            "average_fast": 0, "average_slow": 0, "used_by_guest": null, "resident": 0, "taken": 100, "returned": 3,
            "interval_ms": 20000,
        });
        answer(&mut probes, MemoryCommand::WorkingSet, Ok(found), 21);
        let (found, when) = probes.working_set().unwrap();
        assert_eq!((found.working_set.0, when), (8192, Duration::from_secs(21)));
        assert_eq!((wish(&probes, 60), wish(&probes, 61)), (None, Some(MemoryCommand::Sample)));
    }

    #[test]
    fn what_a_vm_refuses_is_not_asked_at_once_again_and_the_last_answer_stays() {
        let mut probes = Probes::new(VmId(0), Duration::ZERO);
        answer(&mut probes, MemoryCommand::Means, refusal(), 0);
        answer(&mut probes, MemoryCommand::Sample, refusal(), 0);
        answer(&mut probes, MemoryCommand::Report, Ok(json!("nonsense")), 0);
        assert_eq!((wish(&probes, 119), wish(&probes, 120)), (None, Some(MemoryCommand::Means)));
        assert!(probes.means().is_none() && probes.ledger().is_none() && probes.working_set().is_none());
    }

    #[test]
    fn the_questions_of_many_vms_are_spread() {
        let mut at: Vec<Duration> =
            (0..60).map(|id| Probes::new(VmId(id), Duration::ZERO).working_set.next).collect();
        at.sort();
        let widest = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(widest < Duration::from_secs(3), "{widest:?}");
    }
}
