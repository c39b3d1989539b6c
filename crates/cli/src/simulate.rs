//! `napa simulate`: has a policy decide again what a host has recorded.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use napa_host::record::{ReadError, Reader, Replay, replay};
use napa_policy::Kind;

use crate::command::JsonArgs;
use crate::error::Error;
use crate::output;

/// The words of the verb.
#[derive(Args)]
pub struct SimulateArgs {
    /// A file that a host has recorded (ticks.jsonl in its state)
    #[arg(long, value_name = "FILE", required = true)]
    pub replay: PathBuf,
    /// Decide by another policy: napa, static, ksm, mom, proxmox or swap [default: the recorded one, in its state]
    #[arg(long, value_name = "NAME")]
    pub policy: Option<Kind>,
    #[command(flatten)]
    pub format: JsonArgs,
}

/// Decides again, and shows what is different.
pub fn simulate(arguments: &SimulateArgs) -> Result<ExitCode, Error> {
    let reader = Reader::open(&arguments.replay).map_err(unreadable)?;
    let name = arguments.policy.unwrap_or(reader.policy().kind()).name();
    let found = replay(reader, arguments.policy.map(Kind::start)).map_err(unreadable)?;
    if arguments.format.json {
        output::print_json(&found)?;
    } else {
        output::print(describe(name, &found).as_bytes())?;
    }
    Ok(if found.different == 0 { ExitCode::SUCCESS } else { output::failed() })
}

fn unreadable(error: ReadError) -> Error {
    Error::bad_input(format!("--replay {error}"))
}

fn describe(policy: &str, found: &Replay) -> String {
    let mut text = String::new();
    for difference in &found.differences {
        writeln!(text, "line {}:", difference.line).expect("writing to a String cannot fail");
        for what in &difference.what {
            writeln!(text, "  {what}").expect("writing to a String cannot fail");
        }
    }
    let told = found.differences.len() as u64;
    if found.different > told {
        writeln!(text, "and {} more", found.different - told).expect("writing to a String cannot fail");
    }
    let Replay { ticks, different, .. } = found;
    text + &format!("{policy} decides {different} of {ticks} ticks otherwise\n")
}

#[cfg(test)]
mod tests {
    use napa_api::host::Time;
    use napa_host::record::Difference;

    use super::*;

    #[test]
    fn differences_are_shown_line_by_line() {
        let what = vec!["level: high then, low now".to_owned()];
        let differences = vec![Difference { line: 7, time: Time(1), what }];
        let found = Replay { ticks: 60, different: 3, differences };
        let expected = "\
line 7:
  level: high then, low now
and 2 more
napa decides 3 of 60 ticks otherwise
";
        assert_eq!(describe("napa", &found), expected);
        assert_eq!(
            describe("mom", &Replay { ticks: 5, ..Replay::default() }),
            "mom decides 0 of 5 ticks otherwise\n"
        );
    }

    #[test]
    fn what_is_no_record_is_bad_input() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let arguments =
            SimulateArgs { replay: file.path().to_owned(), policy: None, format: JsonArgs { json: false } };
        let error = simulate(&arguments).unwrap_err();
        assert!(
            matches!(&error, Error::BadInput(what) if what.contains("is no record of what a host decided"))
        );
    }
}
