//! What the embedded guest says on its serial line, a line at a time (`docs/guest.md`).

use std::str::FromStr;

use napa_units::Pages;

/// One line of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// It has started and begins with its work.
    Ready,
    /// How its work goes.
    Report(Report<'a>),
    /// Its balloon has reached this size, or cannot get any nearer to what the host asked for.
    Balloon(Pages),
    /// A visit found something else than what was written.
    Corrupt,
    /// Why it could not do its work.
    Fail(&'a str),
    /// Its work is over, with this code.
    Done(u8),
    /// Anything else.
    Other,
}

/// The line `REPORT`: operations and latencies of one phase of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// The phase: `fill`, `visit`, `check`, …
    pub phase: &'a str,
    /// What the figures are over.
    pub part: Part,
    /// How long that was, in milliseconds.
    pub elapsed_ms: u64,
    /// Operations in that time.
    pub operations: u64,
    /// Their rate.
    pub operations_per_second: u64,
    /// Median latency of an operation, in nanoseconds.
    pub p50_ns: u64,
    /// 99th percentile of the latencies, in nanoseconds.
    pub p99_ns: u64,
    /// Largest latency, in nanoseconds.
    pub max_ns: u64,
}

/// What the figures of a report are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The time since the report before.
    Interval,
    /// The whole phase.
    Total,
}

impl<'a> Line<'a> {
    /// Reads a line. One that is not as it should be is [`Line::Other`]: a guest may write anything.
    pub fn parse(line: &'a str) -> Self {
        let line = line.trim_end();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let parsed = match word {
            "READY" => Some(Self::Ready),
            "REPORT" => Report::parse(rest).map(Self::Report),
            "BALLOON" => number(rest, "pages").map(|pages| Self::Balloon(Pages(pages))),
            "CORRUPT" => Some(Self::Corrupt),
            "FAIL" => quoted(rest, "reason").map(Self::Fail),
            "DONE" => number(rest, "code").map(Self::Done),
            _ => None,
        };
        parsed.unwrap_or(Self::Other)
    }
}

impl<'a> Report<'a> {
    fn parse(words: &'a str) -> Option<Self> {
        let part = match value(words, "part")? {
            "interval" => Part::Interval,
            "total" => Part::Total,
            _ => return None,
        };
        Some(Self {
            phase: value(words, "phase")?,
            part,
            elapsed_ms: number(words, "ms")?,
            operations: number(words, "ops")?,
            operations_per_second: number(words, "ops_per_second")?,
            p50_ns: number(words, "p50_ns")?,
            p99_ns: number(words, "p99_ns")?,
            max_ns: number(words, "max_ns")?,
        })
    }
}

/// The value of `key` among words `key=value`.
fn value<'a>(words: &'a str, key: &str) -> Option<&'a str> {
    words.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn number<T: FromStr>(words: &str, key: &str) -> Option<T> {
    value(words, key)?.parse().ok()
}

/// The value of `key` in quotation marks, to the last of them.
fn quoted<'a>(words: &'a str, key: &str) -> Option<&'a str> {
    let value = words.strip_prefix(key)?.strip_prefix("=\"")?;
    value.rsplit_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REPORT: &str = "REPORT workload=zipf phase=visit part=interval ms=1000 ops=2598797 \
        ops_per_second=2598796 p50_ns=183 p99_ns=895 max_ns=1440705 clock_ns=1046960865 clock_steps_back=0\r";

    #[test]
    fn a_report_is_read_whole() {
        let expected = Report {
            phase: "visit",
            part: Part::Interval,
            elapsed_ms: 1000,
            operations: 2_598_797,
            operations_per_second: 2_598_796,
            p50_ns: 183,
            p99_ns: 895,
            max_ns: 1_440_705,
        };
        assert_eq!(Line::parse(REPORT), Line::Report(expected));
    }

    #[test]
    fn every_line_is_what_it_says() {
        for (line, expected) in [
            ("READY cpus=1 memory=66715648 clock=kvmclock workload=idle", Line::Ready),
            ("CORRUPT address=0x1000 expected=0x1 found=0x0 page=1 generation=1", Line::Corrupt),
            ("FAIL reason=\"no \"disk\" 0\"", Line::Fail("no \"disk\" 0")),
            ("DONE code=3\r", Line::Done(3)),
            ("DONE code=256", Line::Other),
            ("DONE", Line::Other),
            ("FAIL reason=\"cut", Line::Other),
            ("REPORT phase=visit part=half ms=1", Line::Other),
            ("napa guest", Line::Other),
            ("", Line::Other),
        ] {
            assert_eq!(Line::parse(line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_report_that_lacks_a_figure_is_none() {
        for key in ["phase", "part", "ms", "ops", "ops_per_second", "p50_ns", "p99_ns", "max_ns"] {
            let line = REPORT.replace(&format!(" {key}="), &format!(" x{key}="));
            assert_eq!(Line::parse(&line), Line::Other, "{key}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(line in ".*", word in "READY|REPORT|CORRUPT|FAIL|DONE") {
            Line::parse(&line);
            Line::parse(&format!("{word} {line}"));
        }
    }
}
