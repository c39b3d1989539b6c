//! `napa share`: merge equal pages of a running VM, or take them apart.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use napa_api::config::ShareConfig;
use napa_api::control::{Command, MemoryCommand, MemoryReport, ShareOrder, ShareReport, Stranger};
use napa_sys::host::Root;
use napa_sys::ksm;

use crate::client;
use crate::command::ShareArgs;
use crate::error::Error;
use crate::output::{self, Table};
use crate::run::Switch;

/// Gives the order until it is carried out: each time the VM works at it for about a second.
pub fn share(arguments: &ShareArgs) -> Result<ExitCode, Error> {
    let order = match arguments.switch {
        Switch::On => ShareOrder::On,
        Switch::Off => ShareOrder::Off,
    };
    let ask = |command| client::ask::<ShareReport>(&arguments.target, Command::Memory(command));
    if order == ShareOrder::On {
        let memory: MemoryReport = client::ask(&arguments.target, Command::Memory(MemoryCommand::Report))?;
        refuse_strangers(&memory.sharing.scope, &ksm::strangers(&Root::system()))?;
    }
    let mut report = ask(MemoryCommand::Share(order))?;
    while report.left.0 > 0 {
        show_progress(&report);
        report = ask(MemoryCommand::Share(order))?;
    }
    clear_progress();
    report.strangers = strangers();
    if arguments.format.json {
        output::print_json(&report)
    } else {
        output::print(describe(&report).as_bytes())
    }
}

/// Processes whose memory would be merged with a VM's though they belong to no domain.
pub fn strangers() -> Vec<Stranger> {
    let found = ksm::strangers(&Root::system()).into_iter();
    found.map(|stranger| Stranger { pid: stranger.pid, name: stranger.name }).collect()
}

/// Only what is merged by the kernel can be merged with a stranger.
fn refuse_strangers(scope: &ShareConfig, strangers: &[ksm::Stranger]) -> Result<(), Error> {
    match (scope, strangers.first()) {
        (ShareConfig::Vm | ShareConfig::Domain(_), Some(stranger)) => {
            Err(Error::bad_input(stranger.to_string()))
        }
        _ => Ok(()),
    }
}

fn show_progress(report: &ShareReport) {
    if io::stderr().is_terminal() {
        // Nobody is left to be told when standard error is closed.
        let _ = write!(io::stderr(), "\r{} MiB to go \x1b[K", report.left.0 >> 20);
    }
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        // As above.
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

/// A report for people.
pub fn describe(report: &ShareReport) -> String {
    let size = |bytes: Option<napa_units::Bytes>| bytes.map_or_else(|| "unknown".into(), mib);
    let mut table = Table::new();
    table.row(["sharing", state(report)]);
    table.row(["extent", &report.scope.to_string()]);
    table.row(["merged", &size(report.merged)]);
    table.row(["pages of zeros", &size(report.zero)]);
    table.row(["given back", &mib(report.given_back)]);
    if let Some(profit) = report.profit {
        table.row(["saved", &signed_mib(profit)]);
    }
    if let Some(scans) = report.full_scans {
        table.row(["scans of the host", &scans.to_string()]);
    }
    let notes: String = report.notes.iter().map(|note| format!("note: {note}\n")).collect();
    table.finish() + &notes + &warnings(report)
}

/// A report in a few words.
pub fn line(report: &ShareReport) -> String {
    let state = state(report);
    let saved =
        report.profit.filter(|_| report.is_on).map(|profit| format!(", saves {}", signed_mib(profit)));
    format!("{state} (--share {}){}", report.scope, saved.unwrap_or_default())
}

fn state(report: &ShareReport) -> &'static str {
    match (&report.scope, report.is_on) {
        (ShareConfig::Zero, _) => "pages of zeros, each time it is asked for",
        (_, true) => "on",
        (_, false) => "off",
    }
}

/// What should not be, line by line.
pub fn warnings(report: &ShareReport) -> String {
    let mut text = String::new();
    for stranger in &report.strangers {
        text += &format!(
            "warning: process {} ({}) belongs to no trust domain, but its pages are merged with those of VMs that \
             share: end it, or stop sharing\n",
            stranger.pid, stranger.name
        );
    }
    text
}

fn signed_mib(bytes: i64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn mib(bytes: napa_units::Bytes) -> String {
    format!("{:.1} MiB", bytes.0 as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use napa_units::Bytes;

    use super::*;

    #[test]
    fn a_report_is_shown_line_by_line() {
        let report = ShareReport {
            scope: ShareConfig::Domain("web".into()),
            is_on: true,
            merged: Some(Bytes::mib(3)),
            zero: None,
            profit: Some(-512 << 10),
            full_scans: Some(4),
            given_back: Bytes::mib(5),
            left: Bytes(0),
            notes: vec!["pages of zeros stay".into()],
            strangers: vec![Stranger { pid: 7, name: "qemu".into() }],
        };
        let expected = "\
sharing            on
extent             domain=web
merged             3.0 MiB
pages of zeros     unknown
given back         5.0 MiB
saved              -0.5 MiB
scans of the host  4
note: pages of zeros stay
warning: process 7 (qemu) belongs to no trust domain, but its pages are merged with those of VMs that share: end it, or stop sharing
";
        assert_eq!(describe(&report), expected);
        assert_eq!(line(&report), "on (--share domain=web), saves -0.5 MiB");
    }

    #[test]
    fn strangers_matter_where_the_kernel_merges() {
        let stranger = [ksm::Stranger { pid: 7, name: "qemu".into() }];
        let refused = |scope| refuse_strangers(&scope, &stranger).is_err();
        assert!(refused(ShareConfig::Vm) && refused(ShareConfig::Domain("d".into())));
        assert!(!refused(ShareConfig::Zero) && !refused(ShareConfig::Off));
        assert!(refuse_strangers(&ShareConfig::Vm, &[]).is_ok());
    }
}
