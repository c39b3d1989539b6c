//! What a person sees of a fleet: a picture of it as lines of text, made from values alone.

use std::time::Duration;

use napa_units::Bytes;

use super::fleet::Member;
use super::guest::{Figures, State};
use crate::figures::{count, duration_ns, size};
use crate::output::Style;

/// A fleet at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// How long it has been running.
    pub age: Duration,
    /// How long it is meant to run.
    pub duration: Duration,
    /// Its guests, in order.
    pub rows: Vec<Row>,
}

/// A guest at one moment.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the VM.
    pub name: String,
    /// What it was told to do.
    pub workload: String,
    /// Guest memory.
    pub memory: Bytes,
    /// What it does.
    pub state: State,
    /// What it has counted.
    pub figures: Figures,
    /// Resident memory of its process.
    pub resident: Bytes,
}

impl Row {
    /// The guest as it is now.
    pub fn of(member: &Member) -> Self {
        let (plan, progress) = (member.plan(), member.progress());
        Self {
            name: plan.name.clone(),
            workload: plan.workload.clone(),
            memory: plan.memory,
            state: progress.state().clone(),
            figures: progress.figures(),
            resident: member.resident(),
        }
    }
}

/// What all guests together come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    memory: Bytes,
    resident: Bytes,
    per_second: u64,
    verified: u64,
    errors: u64,
    over: usize,
    failed: usize,
}

impl Picture {
    fn sum(&self) -> Sum {
        self.rows.iter().fold(Sum::default(), |sum, row| Sum {
            memory: Bytes(sum.memory.0 + row.memory.0),
            resident: Bytes(sum.resident.0 + row.resident.0),
            per_second: sum.per_second + row.figures.per_second,
            verified: sum.verified + row.figures.verified,
            errors: sum.errors + row.figures.errors,
            over: sum.over + usize::from(row.state == State::Verified),
            failed: sum.failed + usize::from(matches!(row.state, State::Failed(_))),
        })
    }

    /// One line for all guests.
    pub fn line(&self) -> String {
        let sum = self.sum();
        let running = self.rows.len() - sum.over - sum.failed;
        format!(
            "{:>4} s  {running} running, {} verified, {} failed; {} operations/s, {} of {} resident, {} visits verified, {} errors",
            self.age.as_secs(),
            sum.over,
            sum.failed,
            count(sum.per_second),
            size(sum.resident),
            size(sum.memory),
            count(sum.verified),
            count(sum.errors),
        )
    }

    /// A line for each guest, with a heading and a sum, none wider than `columns`, no more than `lines`.
    pub fn screen(&self, columns: usize, lines: usize, style: Style) -> Vec<String> {
        let sum = self.sum();
        let title = format!(
            "napa demo: {} guests, {} of guest memory, {} of {} s; q ends it",
            self.rows.len(),
            size(sum.memory),
            self.age.as_secs(),
            self.duration.as_secs(),
        );
        let fixed_lines = 4;
        let shown = self.rows.len().min(lines.saturating_sub(fixed_lines).max(1));
        let mut cells = vec![HEADINGS.map(str::to_owned)];
        cells.extend(self.rows[..shown].iter().map(Row::cells));
        cells.push(sum.cells(self.rows.len() - shown));
        let columns_shown = fitting(&widths(&cells), columns);
        let widths = widths(&cells);
        let mut picture = vec![cut(&title, columns), String::new()];
        for (index, row) in cells.iter().enumerate() {
            let text = cut(&join(row, &widths, &columns_shown), columns);
            let state =
                index.checked_sub(1).and_then(|index| self.rows[..shown].get(index)).map(|row| &row.state);
            picture.push(paint(&text, state, style));
        }
        picture.truncate(lines.max(1));
        picture
    }
}

const COLUMNS: usize = 8;
const HEADINGS: [&str; COLUMNS] =
    ["VM", "WORKLOAD", "STATE", "OPS/S", "P99", "RESIDENT", "VERIFIED", "ERRORS"];
/// Numbers stand at the right of their column.
const NUMBERS: [bool; COLUMNS] = [false, false, false, true, true, true, true, true];
/// What a narrow terminal goes without, the first first.
const DISPENSABLE: [usize; 5] = [4, 1, 6, 3, 5];
const GAP: &str = "  ";

impl Row {
    fn cells(&self) -> [String; COLUMNS] {
        let Figures { verified, errors, per_second, p99_ns, .. } = self.figures;
        let known = |number, text| if number == 0 { "-".to_owned() } else { text };
        [
            self.name.clone(),
            self.workload.clone(),
            state_word(&self.state),
            known(per_second, count(per_second)),
            known(p99_ns, duration_ns(p99_ns)),
            known(self.resident.0, size(self.resident)),
            count(verified),
            count(errors),
        ]
    }
}

impl Sum {
    fn cells(&self, hidden: usize) -> [String; COLUMNS] {
        let name = if hidden == 0 { "all".to_owned() } else { format!("all, {hidden} not shown") };
        [
            name,
            String::new(),
            String::new(),
            count(self.per_second),
            String::new(),
            size(self.resident),
            count(self.verified),
            count(self.errors),
        ]
    }
}

fn state_word(state: &State) -> String {
    match state {
        State::Starting => "starting".into(),
        State::Filling => "filling".into(),
        State::Working => "working".into(),
        State::Checking => "checking".into(),
        State::Idle => "idle".into(),
        State::Stopping => "stopping".into(),
        State::Verified => "verified".into(),
        State::Failed(reason) => format!("FAILED: {reason}").chars().take(REASON_CHARACTERS_MAX).collect(),
    }
}

/// The reason is whole in the summary.
const REASON_CHARACTERS_MAX: usize = 40;

fn paint(line: &str, state: Option<&State>, style: Style) -> String {
    match state {
        Some(State::Failed(_)) => style.bad(line),
        Some(State::Verified) => style.good(line),
        _ => line.to_owned(),
    }
}

fn widths(rows: &[[String; COLUMNS]]) -> [usize; COLUMNS] {
    std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
}

/// The columns that fit side by side.
fn fitting(widths: &[usize; COLUMNS], room: usize) -> [bool; COLUMNS] {
    let mut shown = [true; COLUMNS];
    for column in DISPENSABLE {
        let width: usize = (0..COLUMNS).filter(|&c| shown[c]).map(|c| widths[c] + GAP.len()).sum();
        if width <= room + GAP.len() {
            break;
        }
        shown[column] = false;
    }
    shown
}

fn join(row: &[String; COLUMNS], widths: &[usize; COLUMNS], shown: &[bool; COLUMNS]) -> String {
    let cells = (0..COLUMNS).filter(|&column| shown[column]).map(|column| {
        let (cell, width) = (&row[column], widths[column]);
        if NUMBERS[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    });
    cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
}

fn cut(line: &str, columns: usize) -> String {
    line.chars().take(columns).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(name: &str, state: State) -> Row {
        let figures = Figures {
            operations: 1_300,
            verified: 1_234_567,
            errors: 0,
            per_second: 812_345,
            p99_ns: 1_200,
            checked: false,
        };
        Row {
            name: name.into(),
            workload: "zipf 96 MiB".into(),
            memory: Bytes::mib(128),
            state,
            figures,
            resident: Bytes::mib(97),
        }
    }

    fn picture(rows: Vec<Row>) -> Picture {
        Picture { age: Duration::from_millis(3400), duration: Duration::from_secs(20), rows }
    }

    #[test]
    fn a_wide_terminal_shows_all() {
        let picture = picture(vec![row("zipf-1", State::Working), row("zipf-2", State::Filling)]);
        let expected = [
            "napa demo: 2 guests, 256 MiB of guest memory, 3 of 20 s; q ends it",
            "",
            "VM      WORKLOAD     STATE        OPS/S     P99  RESIDENT   VERIFIED  ERRORS",
            "zipf-1  zipf 96 MiB  working    812,345  1.2 µs    97 MiB  1,234,567       0",
            "zipf-2  zipf 96 MiB  filling    812,345  1.2 µs    97 MiB  1,234,567       0",
            "all                           1,624,690           194 MiB  2,469,134       0",
        ];
        assert_eq!(picture.screen(80, 24, Style::PLAIN), expected);
    }

    #[test]
    fn a_narrow_terminal_shows_what_matters() {
        let picture = picture(vec![row("zipf-1", State::Failed("it ended with exit code 3".into()))]);
        let expected = [
            "napa demo: 1 guests, 128 MiB of guest memory, 3 of",
            "",
            "VM      STATE                              ERRORS",
            "zipf-1  FAILED: it ended with exit code 3       0",
            "all                                             0",
        ];
        assert_eq!(picture.screen(50, 24, Style::PLAIN), expected);
    }

    #[test]
    fn a_low_terminal_says_what_it_does_not_show() {
        let rows = (1..=9).map(|number| row(&format!("zipf-{number}"), State::Working)).collect();
        let screen = picture(rows).screen(100, 8, Style::PLAIN);
        assert_eq!(screen.len(), 8);
        assert!(screen[7].starts_with("all, 5 not shown"), "{screen:?}");
    }

    #[test]
    fn the_plain_line_sums_up() {
        let rows =
            vec![row("a", State::Verified), row("b", State::Working), row("c", State::Failed("x".into()))];
        assert_eq!(
            picture(rows).line(),
            "   3 s  1 running, 1 verified, 1 failed; 2,437,035 operations/s, 291 MiB of 384 MiB resident, \
             3,703,701 visits verified, 0 errors"
        );
    }

    proptest! {
        #[test]
        fn no_terminal_is_too_small(columns in 0_usize..200, lines in 0_usize..40, guests in 0_usize..30) {
            let rows = (0..guests).map(|number| row(&format!("zipf-{number}"), State::Checking)).collect();
            let screen = picture(rows).screen(columns, lines, Style::PLAIN);
            prop_assert!(screen.len() <= lines.max(1));
            prop_assert!(screen.iter().all(|line| line.chars().count() <= columns));
        }
    }
}
