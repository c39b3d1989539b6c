//! Who looks on: a person at a terminal, a file or pipe that takes lines, or nobody.

use std::collections::BTreeSet;
use std::io::{self, Write, stdout};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::guest::State;
use super::screen::Screen;
use super::table::Picture;
use crate::error::Error;
use crate::output::Style;

/// Time between two pictures on a terminal, and between two looks at memory otherwise.
const PERIOD: Duration = Duration::from_millis(500);
/// Time between two lines where there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// Who looks on.
pub enum View {
    /// A terminal.
    Screen(Screen, Style),
    /// Standard output takes lines.
    Lines(Lines),
    /// Only the summary is wanted.
    Nobody,
}

/// What was written so far.
#[derive(Default)]
pub struct Lines {
    next_at: Duration,
    last: String,
    named: BTreeSet<String>,
}

impl View {
    /// Finds out who looks on.
    ///
    /// # Errors
    /// The terminal cannot be used.
    pub fn open(json: bool) -> Result<Self, Error> {
        if json {
            return Ok(Self::Nobody);
        }
        let screen = Screen::take()
            .map_err(|error| Error::failure(format!("the terminal refuses its settings: {error}")))?;
        Ok(match screen {
            Some(screen) => Self::Screen(screen, Style::for_output()),
            None => Self::Lines(Lines::default()),
        })
    }

    /// How often there should be a picture.
    pub fn period(&self) -> Duration {
        PERIOD
    }

    /// Where keys come from.
    pub fn keys(&self) -> Option<BorrowedFd<'static>> {
        match self {
            Self::Screen(screen, _) => screen.keys(),
            Self::Lines(_) | Self::Nobody => None,
        }
    }

    /// Whether a key asks for the end. Called when there are keys.
    pub fn wants_end(&mut self) -> bool {
        match self {
            Self::Screen(screen, _) => screen.wants_end(),
            Self::Lines(_) | Self::Nobody => false,
        }
    }

    /// Shows a picture.
    ///
    /// # Errors
    /// Nobody takes it any more.
    pub fn show(&mut self, picture: &Picture) -> io::Result<()> {
        match self {
            Self::Screen(screen, style) => {
                let (columns, lines) = screen.size();
                screen.draw(&picture.screen(columns, lines, *style))
            }
            Self::Lines(lines) => print(&lines.next(picture)),
            Self::Nobody => Ok(()),
        }
    }

    /// Gives the terminal back and leaves the last picture on it.
    pub fn close(&mut self, picture: &Picture) {
        let last = match std::mem::replace(self, Self::Nobody) {
            Self::Screen(screen, style) => {
                let (columns, _) = screen.size();
                drop(screen);
                let lines = picture.screen(columns, usize::MAX, style);
                // The heading told how to end it.
                lines[2..].join("\n") + "\n\n"
            }
            Self::Lines(mut lines) => lines.failures(picture) + &lines.line(picture),
            Self::Nobody => return,
        };
        // The summary tells whether anybody reads.
        let _ = print(&last);
    }
}

impl Lines {
    /// What is new.
    fn next(&mut self, picture: &Picture) -> String {
        let mut text = self.failures(picture);
        if picture.age >= self.next_at {
            self.next_at += LINE_PERIOD;
            text += &self.line(picture);
        }
        text
    }

    /// The sum of the picture, unless that is what was written last.
    fn line(&mut self, picture: &Picture) -> String {
        let line = picture.line() + "\n";
        if line == self.last {
            String::new()
        } else {
            self.last.clone_from(&line);
            line
        }
    }

    /// Guests that have failed since.
    fn failures(&mut self, picture: &Picture) -> String {
        let mut text = String::new();
        for row in &picture.rows {
            if let State::Failed(reason) = &row.state
                && self.named.insert(row.name.clone())
            {
                text += &format!("{} failed: {reason}\n", row.name);
            }
        }
        text
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut output = stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use napa_api::host::Level;
    use napa_units::Bytes;

    use super::*;
    use crate::demo::guest::Figures;
    use crate::demo::plan::Activity;
    use crate::demo::table::Row;

    fn picture(age_s: u64, state: State) -> Picture {
        let row = Row {
            name: "g-1".into(),
            memory: Bytes::mib(16),
            state,
            figures: Figures::default(),
            place: None,
        };
        Picture {
            age: Duration::from_secs(age_s),
            duration: Duration::from_secs(20),
            activity: Activity::Idle,
            budget: Bytes::mib(8),
            held: Bytes(0),
            level: Level::High,
            rows: vec![row],
            decisions: Vec::new(),
        }
    }

    #[test]
    fn the_same_line_is_not_written_twice() {
        let mut lines = Lines::default();
        assert!(!lines.next(&picture(5, State::Verified)).is_empty());
        assert_eq!(lines.line(&picture(5, State::Verified)), "");
    }

    #[test]
    fn lines_come_every_few_seconds_and_a_failure_once() {
        let mut lines = Lines::default();
        let failed = State::Failed("it ended with exit code 3".into());
        for (age_s, state, expected) in [
            (0, State::Starting, 1),
            (1, State::Running, 0),
            (4, failed.clone(), 1),
            (5, failed.clone(), 1),
            (9, failed, 0),
        ] {
            assert_eq!(lines.next(&picture(age_s, state)).lines().count(), expected, "{age_s} s");
        }
    }
}
