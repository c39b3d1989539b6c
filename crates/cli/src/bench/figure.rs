//! A measured figure: who was measured, how it compares, and what it should reach.

use napa_units::Bytes;
use serde::Serialize;

use super::sample::Sample;
use crate::figures::{count, duration_ns, size};

/// Who was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// napa.
    Napa,
    /// QEMU with its machine `microvm`.
    QemuMicrovm,
    /// QEMU with its machine `q35`.
    QemuQ35,
    /// The host without a VM.
    Host,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Time.
    Nanoseconds,
    /// Memory.
    Bytes,
    /// Things.
    Count,
    /// Events in a second.
    PerSecond,
    /// Data in a second.
    BytesPerSecond,
    /// A part of a hundred.
    Percent,
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// The smaller.
    Lower,
    /// The larger.
    Higher,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it belongs to: `start`, `memory`, `disk`, `latency`, `balloon`, `reporting`, `swap`, `share`.
    pub group: &'static str,
    /// What was measured.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Which direction is good.
    pub better: Better,
    /// Who was measured, and what came out.
    pub values: Vec<Value>,
    /// What napa should reach.
    pub limits: Vec<Limit>,
}

/// What came out for one subject.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Value {
    /// Who.
    pub subject: Subject,
    /// What.
    #[serde(flatten)]
    pub sample: Sample,
}

/// What napa should reach, as a figure of its own or as a ratio to somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// `None`: the figure itself counts.
    pub ratio_to: Option<Subject>,
    /// What has to be reached.
    pub at_least: f64,
    /// What is aimed for.
    pub aim: f64,
}

/// Whether a limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// What is aimed for.
    Aim,
    /// What has to be.
    AtLeast,
    /// Neither.
    Missed,
}

impl Figure {
    /// A figure without limits.
    pub fn new(group: &'static str, name: impl Into<String>, unit: Unit, better: Better) -> Self {
        Self { group, name: name.into(), unit, better, values: Vec::new(), limits: Vec::new() }
    }

    /// Adds what was measured of `subject`; nothing if nothing was.
    pub fn add(&mut self, subject: Subject, values: &[f64]) {
        self.values.extend(Sample::of(values).map(|sample| Value { subject, sample }));
    }

    /// Adds something to reach.
    pub fn limit(mut self, ratio_to: Option<Subject>, at_least: f64, aim: f64) -> Self {
        self.limits.push(Limit { ratio_to, at_least, aim });
        self
    }

    /// What came out for `subject`.
    pub fn sample(&self, subject: Subject) -> Option<Sample> {
        self.values.iter().find(|value| value.subject == subject).map(|value| value.sample)
    }

    /// napa's median divided by that of `subject`.
    pub fn ratio(&self, subject: Subject) -> Option<f64> {
        let (napa, other) = (self.sample(Subject::Napa)?.median, self.sample(subject)?.median);
        (subject != Subject::Napa && other != 0.0).then(|| napa / other)
    }

    /// Whether napa reached `limit`; `None` if what it needs was not measured.
    pub fn verdict(&self, limit: Limit) -> Option<Verdict> {
        let reached = match limit.ratio_to {
            Some(subject) => self.ratio(subject)?,
            None => self.sample(Subject::Napa)?.median,
        };
        let is_good = |bound: f64| match self.better {
            Better::Lower => reached <= bound,
            Better::Higher => reached >= bound,
        };
        Some(match (is_good(limit.aim), is_good(limit.at_least)) {
            (true, _) => Verdict::Aim,
            (false, true) => Verdict::AtLeast,
            (false, false) => Verdict::Missed,
        })
    }
}

impl Unit {
    /// A value for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Nanoseconds => duration_ns(value.round() as u64),
            Self::Bytes => size(Bytes(value.round() as u64)),
            Self::Count if value.fract() == 0.0 => count(value as u64),
            Self::PerSecond if value >= 100.0 => format!("{}/s", count(value.round() as u64)),
            Self::PerSecond => format!("{value:.1}/s"),
            Self::Count => format!("{value:.1}"),
            Self::Percent => format!("{value:.1} %"),
            Self::BytesPerSecond => format!("{} MiB/s", count((value / f64::from(1 << 20)).round() as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(better: Better, napa: f64, qemu: f64) -> Figure {
        let mut figure = Figure::new("start", "x", Unit::Nanoseconds, better);
        figure.add(Subject::Napa, &[napa]);
        figure.add(Subject::QemuMicrovm, &[qemu]);
        figure.add(Subject::Host, &[]);
        figure
    }

    #[test]
    fn a_ratio_needs_both() {
        let figure = figure(Better::Lower, 2.0, 40.0);
        assert_eq!(figure.ratio(Subject::QemuMicrovm), Some(0.05));
        assert_eq!(figure.ratio(Subject::Host), None);
        assert_eq!(figure.ratio(Subject::Napa), None);
    }

    #[test]
    fn limits_know_their_direction() {
        let ratio = |at_least, aim| Limit { ratio_to: Some(Subject::QemuMicrovm), at_least, aim };
        for (better, napa, limit, expected) in [
            (Better::Lower, 1.6, ratio(0.08, 0.04), Some(Verdict::Aim)),
            (Better::Lower, 2.0, ratio(0.08, 0.04), Some(Verdict::AtLeast)),
            (Better::Lower, 4.0, ratio(0.08, 0.04), Some(Verdict::Missed)),
            (Better::Higher, 52.0, ratio(1.0, 1.3), Some(Verdict::Aim)),
            (Better::Higher, 40.0, ratio(1.0, 1.3), Some(Verdict::AtLeast)),
            (Better::Higher, 39.0, ratio(1.0, 1.3), Some(Verdict::Missed)),
            (Better::Lower, 0.0, Limit { ratio_to: None, at_least: 0.0, aim: 0.0 }, Some(Verdict::Aim)),
            (Better::Lower, 1.0, Limit { ratio_to: Some(Subject::Host), at_least: 1.0, aim: 1.0 }, None),
        ] {
            assert_eq!(figure(better, napa, 40.0).verdict(limit), expected, "{napa} {limit:?}");
        }
    }

    #[test]
    fn values_have_their_units() {
        for (unit, value, expected) in [
            (Unit::Nanoseconds, 1.6e6, "1.6 ms"),
            (Unit::Bytes, 262_144.0, "256 KiB"),
            (Unit::Count, 3.0, "3"),
            (Unit::Count, 3.5, "3.5"),
            (Unit::PerSecond, 0.2, "0.2/s"),
            (Unit::PerSecond, 61_234.4, "61,234/s"),
            (Unit::BytesPerSecond, 3_145_728_000.0, "3,000 MiB/s"),
        ] {
            assert_eq!(unit.show(value), expected);
        }
    }
}
