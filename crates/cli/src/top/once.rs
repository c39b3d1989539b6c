//! Reports for files, pipes and programs: text once, or JSON once or again and again.

use std::io::{self, Write, stdout};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use napa_api::host::HostReport;
use napa_host::client::Client;

use super::column::Column;
use super::source;
use super::view;
use crate::error::Error;
use crate::figures::size;
use crate::output::{self, Table};

/// A report as text: the host, a row for every VM, the decisions.
pub fn text(report: &HostReport) -> String {
    let mut text = view::plain_head(report);
    if !report.vms.is_empty() {
        let mut table = Table::new();
        table.row(Column::ALL.map(Column::title));
        for row in &report.vms {
            let cells = Column::ALL.map(|column| column.text(row));
            table.row(cells.each_ref().map(String::as_str));
        }
        text += &format!("\n{}", table.finish());
    }
    if !report.decisions.is_empty() {
        let mut table = Table::new();
        for decided in &report.decisions {
            let vm = decided.vm.as_deref().unwrap_or("host");
            let (way, bytes) = (view::way(decided.direction), size(decided.bytes));
            table.row([vm, &decided.what, way, &bytes, &decided.reason]);
        }
        text += &format!("\n{}", table.finish());
    }
    // Names and reasons do nothing to a terminal.
    text.lines().map(|line| output::printable(line) + "\n").collect()
}

/// Writes reports as lines of JSON, one every `interval`, until nobody reads them. A daemon that went away is waited for.
///
/// # Errors
/// Standard output takes nothing more.
pub fn json_lines(client: &Client, interval: Duration, first: HostReport) -> Result<ExitCode, Error> {
    let mut answer = Ok(first);
    let mut is_silent = false;
    loop {
        match &answer {
            Ok(report) => {
                is_silent = false;
                match write_line(report) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                    Err(error) => {
                        return Err(Error::failure(format!("cannot write to standard output: {error}")));
                    }
                    Ok(()) => {}
                }
            }
            Err(error) if !is_silent => {
                is_silent = true;
                output::warn(format_args!("{error}; waiting"));
            }
            Err(_) => {}
        }
        thread::sleep(interval);
        answer = source::report(client);
    }
}

fn write_line(report: &HostReport) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut output = stdout().lock();
    output.write_all(&line)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture;

    #[test]
    fn a_report_is_a_text() {
        let mut report = fixture::report(2);
        report.vms[0].reason = "not shown".into();
        report.decisions[0].reason = "\x1b[2J".into();
        let expected = "
napa host   level soft   policy napa   2 VMs   VMs may start
budget  [############....] VMs hold 3.0G of 4.0G, 1.0G left
RAM     [###==...........] VMs 3.0G, others 2.0G, available 11.0G (9.0G free)
swap    [ssss............] 2.0G of 8.0G, promised 3.0G, compressed 500M in RAM
PSI     some 1.2 %, full 0.1 %  sharing saves 300M  limits 1.0G = 0.2 x budget
why     VMs hold 76 % of the budget

VM    LIMIT  IN RAM  SHARED  BALLOON  SWAP  WORKING  ENTITLED  AVAIL  PSI %  GIVES
vm-0  512M   100M    40M     96M      36M   -        160M      -      -      yes
vm-1  512M   101M    40M     96M      36M   90M      161M      30M    2.1    yes

vm-0  balloon  take  64 MiB   �[2J
vm-1  reclaim  give  16 MiB   its pages come back from swap
host  share    take  256 MiB  merging costs less than it saves
";
        assert_eq!(format!("\n{}", text(&report)), expected);
    }
}
