//! `napa doctor`: what is wrong on this host, why it matters, and the command that mends it.
//!
//! `facts` looks, `findings` judges (a pure function of the facts), and here the result is shown. The exit
//! code is 0 where VMs can run.

mod facts;
mod findings;

use std::process::ExitCode;

use napa_sys::host::Root;
use napa_sys::ksm::Registry;
use serde::Serialize;

use crate::command::DoctorArgs;
use crate::error::Error;
use crate::output::{self, Style};

use facts::Facts;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// VMs run, but something will not work, or not well.
    Warn,
    /// No VM runs.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    /// What was looked at, in one word.
    subject: &'static str,
    /// What was found.
    found: String,
    /// Why that matters. Empty where all is well.
    why: &'static str,
    /// The command that mends it. Empty where there is nothing to mend.
    mend: String,
}

/// Looks the host over.
pub fn doctor(arguments: &DoctorArgs) -> Result<ExitCode, Error> {
    if arguments.mend {
        mend(&Root::system())?;
    }
    let findings = findings::judge(&Facts::gather());
    if arguments.format.json {
        output::print_json(&findings)?;
    } else {
        output::print(table(&findings, Style::for_output()).as_bytes())?;
    }
    let can_run = findings.iter().all(|finding| finding.level != Level::Fail);
    Ok(if can_run { ExitCode::SUCCESS } else { output::failed() })
}

/// Puts back what VMs that were killed have left. VMs that share have a say in it: nothing is taken from them.
fn mend(root: &Root) -> Result<(), Error> {
    if Registry::leftovers(root).is_some() {
        let refused = |why: String| Error::bad_input(why);
        let registry = Registry::open(root).map_err(|error| refused(error.to_string()))?;
        registry.put_leftovers_back().map_err(|error| refused(format!("{error}; try again")))?;
    }
    Ok(())
}

fn table(findings: &[Finding], style: Style) -> String {
    let lines = findings.iter().map(|finding| lines(finding, style));
    lines.chain([summary(findings), "\n".into()]).collect()
}

fn lines(finding: &Finding, style: Style) -> String {
    let level = match finding.level {
        Level::Ok => style.good("ok  "),
        Level::Warn => style.doubtful("warn"),
        Level::Fail => style.bad("fail"),
    };
    let mut text = format!("{level}  {:<12}  {}\n", finding.subject, finding.found);
    for (word, line) in [("why ", finding.why), ("mend", finding.mend.as_str())] {
        if !line.is_empty() {
            text += &format!("      {:<12}  {word}  {line}\n", "");
        }
    }
    text
}

fn summary(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let plural = |count, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    match (count(Level::Fail), count(Level::Warn)) {
        (0, 0) => "VMs can run here.".into(),
        (0, warnings) => format!("VMs can run here; {}.", plural(warnings, "warning")),
        (failures, warnings) => {
            format!("VMs cannot run here: {}, {}.", plural(failures, "failure"), plural(warnings, "warning"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(level: Level, mend: &str) -> Finding {
        let why = if level == Level::Ok { "" } else { "because" };
        Finding { level, subject: "swap", found: "none".into(), why, mend: mend.into() }
    }

    #[test]
    fn the_table_says_what_why_and_how_to_mend() {
        let found = table(&[finding(Level::Ok, ""), finding(Level::Warn, "swapon x")], Style::PLAIN);
        let expected = "\
ok    swap          none
warn  swap          none
                    why   because
                    mend  swapon x
VMs can run here; 1 warning.
";
        assert_eq!(found, expected);
    }

    #[test]
    fn one_failure_is_enough() {
        let findings = [finding(Level::Fail, ""), finding(Level::Warn, ""), finding(Level::Warn, "")];
        assert_eq!(summary(&findings), "VMs cannot run here: 1 failure, 2 warnings.");
    }
}
