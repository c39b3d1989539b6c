//! What went wrong, as one line and an exit code.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use napa_api::Exit;
use napa_api::config::nearest;

use crate::command::definition;
use crate::output;

/// Why a verb ended without doing its work.
#[derive(Debug)]
pub enum Error {
    /// A word, a file or an image that cannot be used.
    BadInput(String),
    /// napa or the host failed.
    Failure(String),
    /// Not an error: a text was asked for instead (help, version).
    Text(clap::Error),
}

impl Error {
    /// A word, a file or an image that cannot be used: what, where, and how to mend it.
    pub fn bad_input(what: impl fmt::Display) -> Self {
        Self::BadInput(what.to_string())
    }

    /// napa or the host failed: at what, on which object, and what to do.
    pub fn failure(what: impl fmt::Display) -> Self {
        Self::Failure(what.to_string())
    }

    /// Prints it and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::BadInput(what) => {
                output::warn(format_args!("error: {what}"));
                ExitCode::from(Exit::BAD_INPUT)
            }
            Self::Failure(what) => {
                output::warn(format_args!("error: {what}"));
                ExitCode::from(Exit::FAILURE)
            }
            Self::Text(text) => match text.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(Exit::FAILURE),
            },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadInput(what) | Self::Failure(what) => f.write_str(what),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// The parser's error as one line: what is wrong, the nearest thing that is right, where to read on. `words`
/// are those of the command line.
pub fn from_clap(error: clap::Error, words: &[OsString]) -> Error {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Error::Text(error);
    }
    let napa = definition();
    let verb = words.get(1).and_then(|word| napa.find_subcommand(word)).map(clap::Command::get_name);
    Error::BadInput(Complaint { error: &error, verb }.sentence())
}

/// A parser's error with its context at hand.
struct Complaint<'a> {
    error: &'a clap::Error,
    /// The verb whose words are wrong.
    verb: Option<&'a str>,
}

impl Complaint<'_> {
    fn sentence(&self) -> String {
        match self.error.kind() {
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
                "no verb is given: try 'napa run', or see 'napa --help'".into()
            }
            ErrorKind::InvalidSubcommand => unknown_verb(&self.text(ContextKind::InvalidSubcommand)),
            ErrorKind::UnknownArgument => {
                let word = self.text(ContextKind::InvalidArg);
                let suggestion = self.suggestion(ContextKind::SuggestedArg);
                format!("unknown argument '{word}'{suggestion}; see {}", self.help())
            }
            ErrorKind::ValueValidation => format!("{}: {}", self.flag(), self.reason()),
            ErrorKind::InvalidValue => self.invalid_value(),
            ErrorKind::MissingRequiredArgument => {
                format!("{} is missing; see {}", self.text(ContextKind::InvalidArg), self.help())
            }
            ErrorKind::ArgumentConflict
                if self.text(ContextKind::PriorArg) == self.text(ContextKind::InvalidArg) =>
            {
                format!("{} is given twice: keep one of them", self.flag())
            }
            _ => first_line(&self.error.to_string()),
        }
    }

    fn invalid_value(&self) -> String {
        let (flag, value) = (self.flag(), self.text(ContextKind::InvalidValue));
        let valid = self.text(ContextKind::ValidValue);
        let choices = if valid.is_empty() { String::new() } else { format!(": write one of {valid}") };
        match value.as_str() {
            "" => format!("{flag} has no value{choices}; see {}", self.help()),
            _ => {
                let suggestion = self.suggestion(ContextKind::SuggestedValue);
                format!("{flag}: '{value}' is not possible{suggestion}{choices}")
            }
        }
    }

    /// The reason that the value's own parser gave.
    fn reason(&self) -> String {
        match self.error.source() {
            // The standard library's words name neither the value nor what is allowed.
            Some(source) if source.is::<std::num::ParseIntError>() => {
                format!("'{}' is not a whole number", self.text(ContextKind::InvalidValue))
            }
            Some(source) => source.to_string(),
            None => format!("'{}' is not possible", self.text(ContextKind::InvalidValue)),
        }
    }

    /// The flag alone: `--disk` of `--disk <KEY=VALUE,...>`.
    fn flag(&self) -> String {
        let words = self.text(ContextKind::InvalidArg);
        words
            .split_once([' ', '['])
            .map_or(words.as_str(), |(flag, _)| flag)
            .trim_end_matches("...")
            .to_owned()
    }

    /// The command to type for help: `'napa run --help'`.
    fn help(&self) -> String {
        match self.verb {
            Some(verb) => format!("'napa {verb} --help'"),
            None => "'napa --help'".into(),
        }
    }

    fn suggestion(&self, kind: ContextKind) -> String {
        let nearest = match self.error.get(kind) {
            Some(ContextValue::String(one)) => Some(one),
            // The likeliest comes last.
            Some(ContextValue::Strings(several)) => several.last(),
            _ => None,
        };
        nearest.map(|nearest| format!(", did you mean '{nearest}'?")).unwrap_or_default()
    }

    fn text(&self, kind: ContextKind) -> String {
        match self.error.get(kind) {
            Some(ContextValue::String(text)) => text.clone(),
            Some(ContextValue::Strings(texts)) => texts.join(", "),
            _ => String::new(),
        }
    }
}

fn unknown_verb(word: &str) -> String {
    let napa = definition();
    let verbs: Vec<&str> = napa.get_subcommands().map(clap::Command::get_name).collect();
    let hint = nearest(word, &verbs).map(|near| format!(", did you mean '{near}'?")).unwrap_or_default();
    format!("there is no verb '{word}'{hint}; see 'napa --help'")
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use crate::command::parse;

    fn error(words: &str) -> String {
        match parse(
            ["napa"].into_iter().chain(words.split(' ').filter(|word| !word.is_empty())).map(Into::into),
        ) {
            Ok(_) => "taken".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_wrong_command_line_is_one_line_with_a_mend() {
        for (words, expected) in [
            ("", "no verb is given: try 'napa run', or see 'napa --help'"),
            ("rnu", "there is no verb 'rnu', did you mean 'run'?; see 'napa --help'"),
            (
                "run --memroy 1G",
                "unknown argument '--memroy', did you mean '--memory'?; see 'napa run --help'",
            ),
            ("run disk.img", "unknown argument 'disk.img'; see 'napa run --help'"),
            (
                "run --memory 1.5G",
                "--memory: '1.5G' is not a size: write a whole number and one of K, M, G, T (powers of two), such as 512M",
            ),
            ("run --memory", "--memory has no value; see 'napa run --help'"),
            ("run --cpus x", "--cpus: 'x' is not a whole number"),
            ("run --cpus 1 --cpus 2", "--cpus is given twice: keep one of them"),
            (
                "run --disk pth=a",
                "--disk: unknown key 'pth', did you mean 'path'?; the keys are path, readonly, format, cache, queues, serial",
            ),
            ("run --rng maybe", "--rng: 'maybe' is not possible: write one of on, off"),
            (
                "run --console tty",
                "--console: 'tty' is not a console: write stdio, off, file=FILE or socket=SOCKET",
            ),
            ("stop", "<VM> is missing; see 'napa stop --help'"),
            ("stop web --timeout 90000", "--timeout: 90000 is not in 0..=86400"),
            (
                "completions basj",
                "<SHELL>: 'basj' is not possible, did you mean 'bash'?: write one of bash, elvish, fish, powershell, zsh",
            ),
            ("guest-image", "--output <FILE> is missing; see 'napa guest-image --help'"),
        ] {
            assert_eq!(error(words), expected, "napa {words}");
        }
    }

    #[test]
    fn help_and_version_are_texts() {
        assert!(error("--version").starts_with("napa "));
        assert!(error("run --help").contains("--memory"));
    }
}
