//! What people read: lines on standard error, texts and tables on standard output.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use napa_api::Exit;

use crate::error::Error;

/// Writes one line to standard error, after the program's name. Control characters of a path or a guest's
/// name are shown, not sent to the terminal.
pub fn warn(line: fmt::Arguments<'_>) {
    let line = printable(&line.to_string());
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(io::stderr(), "napa: {line}");
}

/// A text whose control characters can be seen and do nothing.
pub fn printable(text: &str) -> String {
    let visible = |character: char| match character.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => character,
    };
    text.chars().map(visible).collect()
}

/// Writes a text to standard output. A reader that went away (`| head`) has had enough: no error.
pub fn print(text: &[u8]) -> Result<ExitCode, Error> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::failure(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes a value as JSON to standard output.
pub fn print_json(value: &impl serde::Serialize) -> Result<ExitCode, Error> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::failure(format!("cannot write the answer as JSON: {error}")))?;
    text.push(b'\n');
    print(&text)
}

/// The exit code of a check that found something.
pub fn failed() -> ExitCode {
    ExitCode::from(Exit::FAILURE)
}

/// Whether and how words are coloured.
#[derive(Clone, Copy)]
pub struct Style {
    colours: bool,
}

impl Style {
    /// No colours.
    #[cfg(test)]
    pub const PLAIN: Self = Self { colours: false };
    /// Colours.
    #[cfg(test)]
    pub const COLOURED: Self = Self { colours: true };

    /// Colours where standard output is a terminal and nobody refuses them (<https://no-color.org>).
    pub fn for_output() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        Self { colours: !refused && !dumb && io::stdout().is_terminal() }
    }

    /// Green.
    pub fn good(self, word: &str) -> String {
        self.paint(word, "32")
    }

    /// Yellow.
    pub fn doubtful(self, word: &str) -> String {
        self.paint(word, "33")
    }

    /// Red.
    pub fn bad(self, word: &str) -> String {
        self.paint(word, "31")
    }

    /// A word in this colour.
    pub fn coloured(self, word: &str, colour: Colour) -> String {
        self.paint(word, colour.code())
    }

    /// Whether words are coloured.
    pub const fn has_colours(self) -> bool {
        self.colours
    }

    /// `code`: a graphic rendition of ECMA-48 §8.3.117.
    fn paint(self, word: &str, code: &str) -> String {
        match self.colours {
            true => format!("\x1b[{code}m{word}\x1b[0m"),
            false => word.to_owned(),
        }
    }
}

/// A colour of things that are told apart, none of which is good or bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Blue,
    Cyan,
    Green,
    Magenta,
    Red,
    Yellow,
    Grey,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Blue => "34",
            Self::Cyan => "36",
            Self::Green => "32",
            Self::Magenta => "35",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Grey => "90",
        }
    }
}

/// Rows whose columns are lined up by blanks.
#[derive(Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn row<const COLUMNS: usize>(&mut self, cells: [&str; COLUMNS]) {
        self.rows.push(cells.map(str::to_owned).to_vec());
    }

    /// The rows as lines. The last column is as wide as it likes; a column without any text takes no room.
    pub fn finish(self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).filter(|(_, width)| **width > 0);
            let padded: Vec<String> = cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("{}\n", padded.join("  ").trim_end())
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_ones_vanish() {
        let mut table = Table::new();
        table.row(["a", "", "long"]);
        table.row(["bcd", "", "x"]);
        assert_eq!(table.finish(), "a    long\nbcd  x\n");
    }

    #[test]
    fn colours_are_there_only_when_wanted() {
        assert_eq!(Style::PLAIN.bad("x"), "x");
        assert_eq!(Style::COLOURED.bad("x"), "\x1b[31mx\x1b[0m");
    }
}
