//! How much memory the VM uses, by samples. Nothing runs between the start of a sample and its end, so it costs no
//! wake-up; one that nobody ends is given up after [`KEPT`], and the huge pages that it split are joined again.

use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use napa_api::control::{RpcError, SampleReport, WorkingSet, code};
use napa_memory::{Averages, Sample, SampleError};
use napa_sys::cgroup::GroupMemory;
use napa_units::Pages;

use super::group_interval::{self, Span};
use super::{Subject, balloon, random};

/// How long a sample waits for its end: twice as long as `napa inspect` lets one last.
pub const KEPT: Duration = Duration::from_secs(2 * 3600);

/// The samples of one machine.
#[derive(Debug, Default)]
pub struct Samples(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    under_way: Option<UnderWay>,
    averages: Averages,
    report: Option<WorkingSet>,
    /// When the averages last took something in.
    last: Option<Instant>,
}

/// A sample that waits for its end.
#[derive(Debug)]
struct UnderWay {
    sample: Sample,
    /// The VM's group as the pages were gone.
    group: Option<GroupMemory>,
}

impl Samples {
    /// What the last sample said.
    pub fn last(&self) -> Option<WorkingSet> {
        self.lock().report.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes pages away; [`finish`] tells what came of it. A sample that is under way is given up.
pub fn start(subject: &Subject) -> Result<SampleReport, RpcError> {
    give_up(subject, Duration::ZERO);
    // Pages may come back while others are being taken.
    let group = subject.group.memory();
    let sample = Sample::take(&subject.watch, &subject.sensors, random()).map_err(refusal)?;
    let report = SampleReport {
        name: subject.config.name_or_default().to_owned(),
        resident: sample.resident().bytes(),
        taken: sample.taken(),
    };
    subject.samples.lock().under_way = Some(UnderWay { sample, group });
    Ok(report)
}

/// Ends a sample that nobody has ended.
pub fn give_up_forgotten(subject: &Weak<Subject>) {
    if let Some(subject) = subject.upgrade() {
        give_up(&subject, KEPT);
    }
}

/// Gives the sample up that is under way, if it is as old as this.
fn give_up(subject: &Subject, age: Duration) {
    let given_up = subject.samples.lock().under_way.take_if(|under_way| under_way.sample.age() >= age);
    if let Some(given_up) = given_up {
        join(subject, &given_up.sample);
    }
}

/// Counts what has come back.
pub fn finish(subject: &Subject) -> Result<WorkingSet, RpcError> {
    let mut samples = subject.samples.lock();
    let UnderWay { sample, group: before } = samples.under_way.take().ok_or_else(|| {
        RpcError::new(code::WRONG_STATE, "no sample is under way: ask for \"sample\" first")
    })?;
    let returned = sample.returned(&subject.watch, &subject.sensors).map_err(refusal)?;
    let (estimate, age) = (sample.estimate(returned), sample.age());
    let span = Span { time: age, own_pages: Pages(returned), swapped_before: sample.swapped() };
    let group =
        before.zip(subject.group.memory()).map(|(before, after)| group_interval::of(&before, &after, span));
    let beyond_memory = group.map_or(Pages(0), |group| Pages::covering(group.beyond_memory));
    let now = Instant::now();
    let since_last = samples.last.replace(now).map_or(age, |last| now - last);
    samples.averages.add(Pages(estimate.pages.0 + beyond_memory.0), since_last);
    let averages = samples.averages;
    let size = subject.pages.count().bytes();
    let used_by_guest = balloon::used_by_guest(subject);
    join(subject, &sample);
    let report = WorkingSet {
        name: subject.config.name_or_default().to_owned(),
        working_set: averages.greatest().bytes().min(used_by_guest.unwrap_or(size)).min(size),
        estimate: estimate.pages.bytes(),
        low: estimate.low.bytes(),
        high: estimate.high.bytes(),
        group,
        average_fast: averages.fast().bytes(),
        average_slow: averages.slow().bytes(),
        used_by_guest,
        resident: sample.resident().bytes(),
        taken: sample.taken(),
        returned,
        interval_ms: age.as_millis() as u64,
    };
    samples.report = Some(report.clone());
    Ok(report)
}

/// Joins what the sample split. Not while pages may be merged: those of a huge page would be copied apart.
fn join(subject: &Subject, sample: &Sample) {
    if !subject.sharing.is_on() {
        // Whatever comes of it, the sample has said what it says.
        let _small_pages_stay = sample.join(&subject.watch, &subject.sensors);
    }
}

fn refusal(error: SampleError) -> RpcError {
    let code = match error {
        SampleError::Unseen(_) => code::INTERNAL,
        _ => code::WRONG_STATE,
    };
    RpcError::new(code, error.to_string())
}
