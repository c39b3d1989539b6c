//! What is shown of a fleet while it runs. Pure.

use std::time::Duration;

use napa_api::host::{Cooperation, Decided, Direction, Level, VmMemoryRow};
use napa_units::Bytes;

use super::fleet::Member;
use super::guest::{Figures, State};
use super::plan::Activity;
use crate::figures::{count, duration_ns, size};
use crate::output::Style;

/// A fleet at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Since it was started.
    pub age: Duration,
    /// How long its phases take together.
    pub duration: Duration,
    /// What its guests do.
    pub activity: Activity,
    /// RAM that they may hold together.
    pub budget: Bytes,
    /// RAM that they hold.
    pub held: Bytes,
    /// How scarce memory is.
    pub level: Level,
    /// Its guests.
    pub rows: Vec<Row>,
    /// What was decided last, in words, the newest first.
    pub decisions: Vec<String>,
}

/// A guest at one moment.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the VM.
    pub name: String,
    /// Guest memory.
    pub memory: Bytes,
    /// What it does.
    pub state: State,
    /// What it has counted.
    pub figures: Figures,
    /// Where its memory is. `None`: nobody has looked.
    pub place: Option<VmMemoryRow>,
}

impl Row {
    /// The guest as it is now.
    pub fn of(member: &Member, place: Option<&VmMemoryRow>) -> Self {
        Self {
            name: member.plan().name.clone(),
            memory: member.plan().memory,
            state: member.progress().state().clone(),
            figures: member.progress().figures(),
            place: place.filter(|_| !member.progress().has_ended()).cloned(),
        }
    }
}

/// A decision in a line.
pub fn sentence(decided: &Decided) -> String {
    let sign = match decided.direction {
        Direction::Take => "-",
        Direction::Return => "+",
        Direction::Cancel => "x",
    };
    let vm = decided.vm.as_deref().unwrap_or("host");
    format!("{vm}: {} {sign}{}: {}", decided.what, size(decided.bytes), decided.reason)
}

/// What all guests together come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    memory: Bytes,
    held: Bytes,
    shared: Bytes,
    ballooned: Bytes,
    swapped: Bytes,
    entitlement: Bytes,
    stall_max_ns: u64,
    verified: u64,
    errors: u64,
    over: usize,
    failed: usize,
}

impl Picture {
    fn sum(&self) -> Sum {
        self.rows.iter().fold(Sum::default(), |sum, row| {
            let place = row.place.clone().unwrap_or_default();
            let plus = |sum: Bytes, more: Bytes| Bytes(sum.0 + more.0);
            Sum {
                memory: plus(sum.memory, row.memory),
                held: plus(sum.held, place.pss),
                shared: plus(sum.shared, place.shared),
                ballooned: plus(sum.ballooned, place.ballooned),
                swapped: plus(sum.swapped, place.swapped),
                entitlement: plus(sum.entitlement, place.entitlement),
                stall_max_ns: sum.stall_max_ns.max(row.figures.stall_max_ns),
                verified: sum.verified + row.figures.verified,
                errors: sum.errors + row.figures.errors,
                over: sum.over + usize::from(row.state == State::Verified),
                failed: sum.failed + usize::from(matches!(row.state, State::Failed(_))),
            }
        })
    }

    /// One line for all guests.
    pub fn line(&self) -> String {
        let sum = self.sum();
        let running = self.rows.len() - sum.over - sum.failed;
        format!(
            "{:>4} s  {}, level {}: {running} running, {} verified, {} failed; {} of {} held; {} shared, {} ballooned, {} swapped; {} visits verified, {} errors",
            self.age.as_secs(),
            self.activity,
            self.level,
            sum.over,
            sum.failed,
            size(self.held),
            size(self.budget),
            size(sum.shared),
            size(sum.ballooned),
            size(sum.swapped),
            count(sum.verified),
            count(sum.errors),
        )
    }

    /// Two lines about all, a line for each guest with a heading and a sum, and what was decided last; none wider than
    /// `columns`, no more than `lines`.
    pub fn screen(&self, columns: usize, lines: usize, style: Style) -> Vec<String> {
        let sum = self.sum();
        let title = format!(
            "napa demo: {} guests, {} of limits; {}, {} of {} s; q ends it",
            self.rows.len(),
            size(sum.memory),
            self.activity,
            self.age.as_secs(),
            self.duration.as_secs(),
        );
        let fixed_lines = 5 + self.decisions.len();
        let shown = self.rows.len().min(lines.saturating_sub(fixed_lines).max(1));
        let mut cells = vec![HEADINGS.map(str::to_owned)];
        cells.extend(self.rows[..shown].iter().map(Row::cells));
        cells.push(sum.cells(self.rows.len() - shown));
        let columns_shown = fitting(&widths(&cells), columns);
        let widths = widths(&cells);
        let mut picture = vec![cut(&title, columns), self.bar(columns, style), String::new()];
        for (index, row) in cells.iter().enumerate() {
            let text = cut(&join(row, &widths, &columns_shown), columns);
            let state =
                index.checked_sub(1).and_then(|index| self.rows[..shown].get(index)).map(|row| &row.state);
            picture.push(paint(&text, state, style));
        }
        picture.extend(self.decisions.iter().map(|decision| cut(decision, columns)));
        picture.truncate(lines.max(1));
        picture
    }

    /// What is held, beside the budget.
    fn bar(&self, columns: usize, style: Style) -> String {
        let text = format!(" {} of {} held, level {}", size(self.held), size(self.budget), self.level);
        let room = columns.saturating_sub(text.chars().count() + 2).min(BAR_MAX);
        if room == 0 {
            return cut(&text, columns);
        }
        let part = self.held.0 as f64 / self.budget.0.max(1) as f64;
        let full = ((part * room as f64) as usize).min(room);
        let bar = format!("[{}{}]{text}", "#".repeat(full), "-".repeat(room - full));
        match self.level {
            Level::High | Level::Clear => bar,
            Level::Soft => style.doubtful(&bar),
            Level::Hard | Level::Low => style.bad(&bar),
        }
    }
}

/// Characters of the bar at most.
const BAR_MAX: usize = 60;
const COLUMNS: usize = 11;
const HEADINGS: [&str; COLUMNS] = [
    "VM", "STATE", "LIMIT", "IN RAM", "SHARED", "BALLOON", "SWAPPED", "ENTITLED", "STALL", "VERIFIED",
    "ERRORS",
];
/// Numbers stand at the right of their column.
const NUMBERS: [bool; COLUMNS] = [false, false, true, true, true, true, true, true, true, true, true];
/// What a narrow terminal goes without, the first first.
const DISPENSABLE: [usize; 8] = [9, 8, 2, 7, 4, 5, 6, 3];
const GAP: &str = "  ";

impl Row {
    fn cells(&self) -> [String; COLUMNS] {
        let Figures { verified, errors, stall_max_ns, .. } = self.figures;
        let place = |part: fn(&VmMemoryRow) -> Bytes| {
            self.place.as_ref().map_or_else(|| "-".to_owned(), |place| size(part(place)))
        };
        let state = match (&self.state, &self.place) {
            (State::Running, Some(place)) if place.cooperation == Cooperation::Stuck => "stuck".into(),
            (State::Running, Some(place)) if place.cooperation == Cooperation::Uncooperative => {
                "silent".into()
            }
            (state, _) => state_word(state),
        };
        [
            self.name.clone(),
            state,
            size(self.memory),
            place(|place| place.pss),
            place(|place| place.shared),
            place(|place| place.ballooned),
            place(|place| place.swapped),
            place(|place| place.entitlement),
            if stall_max_ns == 0 { "-".into() } else { duration_ns(stall_max_ns) },
            count(verified),
            count(errors),
        ]
    }
}

impl Sum {
    fn cells(&self, hidden: usize) -> [String; COLUMNS] {
        [
            if hidden == 0 { "all".to_owned() } else { format!("all, {hidden} not shown") },
            String::new(),
            size(self.memory),
            size(self.held),
            size(self.shared),
            size(self.ballooned),
            size(self.swapped),
            size(self.entitlement),
            if self.stall_max_ns == 0 { "-".into() } else { duration_ns(self.stall_max_ns) },
            count(self.verified),
            count(self.errors),
        ]
    }
}

fn state_word(state: &State) -> String {
    match state {
        State::Starting => "starting".into(),
        State::Running => "running".into(),
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
            stall_max_ns: 1_200_000,
            checked: false,
        };
        let place = VmMemoryRow {
            pss: Bytes::mib(97),
            shared: Bytes::mib(10),
            ballooned: Bytes::mib(20),
            swapped: Bytes::mib(30),
            entitlement: Bytes::mib(99),
            ..VmMemoryRow::default()
        };
        Row { name: name.into(), memory: Bytes::mib(128), state, figures, place: Some(place) }
    }

    fn picture(rows: Vec<Row>) -> Picture {
        Picture {
            age: Duration::from_millis(3400),
            duration: Duration::from_secs(20),
            activity: Activity::Spike,
            budget: Bytes::mib(200),
            held: Bytes::mib(150),
            level: Level::Soft,
            rows,
            decisions: vec!["g-1: balloon -20 MiB: it has more than it is entitled to".into()],
        }
    }

    #[test]
    fn a_wide_terminal_shows_all() {
        let picture = picture(vec![row("g-1", State::Running), row("g-2", State::Starting)]);
        let expected = [
            "napa demo: 2 guests, 256 MiB of limits; spike, 3 of 20 s; q ends it",
            "[#############################################---------------] 150 MiB of 200 MiB held, level soft",
            "",
            "VM   STATE       LIMIT   IN RAM  SHARED  BALLOON  SWAPPED  ENTITLED   STALL   VERIFIED  ERRORS",
            "g-1  running   128 MiB   97 MiB  10 MiB   20 MiB   30 MiB    99 MiB  1.2 ms  1,234,567       0",
            "g-2  starting  128 MiB   97 MiB  10 MiB   20 MiB   30 MiB    99 MiB  1.2 ms  1,234,567       0",
            "all            256 MiB  194 MiB  20 MiB   40 MiB   60 MiB   198 MiB  1.2 ms  2,469,134       0",
            "g-1: balloon -20 MiB: it has more than it is entitled to",
        ];
        assert_eq!(picture.screen(120, 24, Style::PLAIN), expected);
    }

    #[test]
    fn a_narrow_terminal_shows_what_matters() {
        let picture = picture(vec![row("g-1", State::Failed("it ended with exit code 3".into()))]);
        let screen = picture.screen(48, 24, Style::PLAIN);
        assert_eq!(screen[1], "[#######---] 150 MiB of 200 MiB held, level soft");
        assert_eq!(screen[3], "VM   STATE                              ERRORS");
        assert_eq!(screen[4], "g-1  FAILED: it ended with exit code 3       0");
    }

    #[test]
    fn a_low_terminal_says_what_it_does_not_show() {
        let rows = (1..=9).map(|number| row(&format!("g-{number}"), State::Running)).collect();
        let screen = picture(rows).screen(120, 10, Style::PLAIN);
        assert_eq!(screen.len(), 10);
        assert!(screen[8].starts_with("all, 5 not shown"), "{screen:?}");
    }

    #[test]
    fn the_plain_line_sums_up() {
        let rows =
            vec![row("a", State::Verified), row("b", State::Running), row("c", State::Failed("x".into()))];
        assert_eq!(
            picture(rows).line(),
            "   3 s  spike, level soft: 1 running, 1 verified, 1 failed; 150 MiB of 200 MiB held; 30 MiB shared, \
             60 MiB ballooned, 90 MiB swapped; 3,703,701 visits verified, 0 errors"
        );
    }

    proptest! {
        #[test]
        fn no_terminal_is_too_small(columns in 0_usize..200, lines in 0_usize..40, guests in 0_usize..30) {
            let rows = (0..guests).map(|number| row(&format!("g-{number}"), State::Running)).collect();
            let screen = picture(rows).screen(columns, lines, Style::PLAIN);
            prop_assert!(screen.len() <= lines.max(1));
            prop_assert!(screen.iter().all(|line| line.chars().count() <= columns));
        }
    }
}
