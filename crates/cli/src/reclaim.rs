//! `napa reclaim`: puts memory of a running VM into the host's swap.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use napa_api::control::{Command, MemoryCommand, ReclaimEnd, ReclaimReport};
use napa_units::{Bytes, PAGE_SIZE};

use crate::client;
use crate::command::ReclaimArgs;
use crate::error::Error;
use crate::figures;
use crate::output;

/// Requests in a row that run out of time without taking anything before no more are made.
const IDLE_REQUESTS_MAX: usize = 5;

/// Asks until it is done: a request takes only so long.
pub fn reclaim(arguments: &ReclaimArgs) -> Result<ExitCode, Error> {
    if arguments.size.0 < PAGE_SIZE {
        let size = arguments.size;
        return Err(Error::bad_input(format!(
            "{size} is less than a page: ask for 4K or more, such as 512M"
        )));
    }
    let ask = |size| client::ask(&arguments.target, Command::Memory(MemoryCommand::Reclaim { size }));
    let is_shown = io::stderr().is_terminal();
    let sum = ask_until_done(arguments.size, ask, |sum| {
        if is_shown {
            show(sum);
        }
    });
    if is_shown {
        // Over the line that showed how it goes.
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    let sum = sum?;
    if arguments.format.json {
        output::print_json(&sum)?;
    } else {
        output::print(describe(&sum).as_bytes())?;
    }
    Ok(match sum.end {
        ReclaimEnd::Complete | ReclaimEnd::NothingLeft => ExitCode::SUCCESS,
        ReclaimEnd::LimitReached | ReclaimEnd::SwapFull | ReclaimEnd::OutOfTime => output::failed(),
    })
}

/// Asks for what is left until all is taken or the VM says that no more will come.
fn ask_until_done(
    size: Bytes,
    mut ask: impl FnMut(Bytes) -> Result<ReclaimReport, Error>,
    mut show: impl FnMut(&ReclaimReport),
) -> Result<ReclaimReport, Error> {
    let mut sum: Option<ReclaimReport> = None;
    let mut idle = 0;
    loop {
        let taken = sum.as_ref().map_or(0, |sum| sum.taken.0);
        let part = ask(Bytes(size.0.saturating_sub(taken).max(PAGE_SIZE)))?;
        idle = if part.taken > Bytes(0) { 0 } else { idle + 1 };
        let whole = match sum {
            None => ReclaimReport { asked: size, ..part },
            Some(before) => ReclaimReport {
                asked: size,
                taken: Bytes(before.taken.0 + part.taken.0),
                came_back: Bytes(before.came_back.0 + part.came_back.0),
                time_ms: before.time_ms + part.time_ms,
                ..part
            },
        };
        if whole.end != ReclaimEnd::OutOfTime || idle >= IDLE_REQUESTS_MAX {
            return Ok(whole);
        }
        show(&whole);
        sum = Some(whole);
    }
}

fn show(sum: &ReclaimReport) {
    // Nobody is left to be shown it when standard error is closed.
    let _ = write!(io::stderr(), "\r\x1b[K{}: {} of {} taken", sum.name, figures::size(sum.taken), sum.asked);
    let _ = io::stderr().flush();
}

fn describe(sum: &ReclaimReport) -> String {
    let taken = figures::size(sum.taken);
    let time = figures::duration_ns(sum.time_ms.saturating_mul(1_000_000));
    let mut text = format!("{}: {taken} taken by {} in {time}", sum.name, sum.mechanism);
    match sum.end {
        ReclaimEnd::Complete => text.push('\n'),
        ReclaimEnd::NothingLeft => {
            text.push_str(&format!(", less than {}: nothing more of it would go\n", sum.asked));
        }
        ReclaimEnd::LimitReached => text.push_str(&format!(
            ", less than {}: it has in swap all that its --swap-max lets it have; raise memory.swap.max of its control \
             group, or start it with a larger --swap-max\n",
            sum.asked
        )),
        ReclaimEnd::SwapFull => text.push_str(&format!(
            ", less than {}: the host's swap is full; sudo napa swap create --size 8G --file FILE adds some\n",
            sum.asked
        )),
        ReclaimEnd::OutOfTime => text.push_str(&format!(
            ", less than {}: the host's swap takes nothing at the moment; look at its disk, and ask again\n",
            sum.asked
        )),
    }
    if sum.came_back > Bytes(0) {
        text.push_str(&format!(
            "{}: {} that was taken before had come back\n",
            sum.name,
            figures::size(sum.came_back)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use napa_api::control::ReclaimMechanism;

    use super::*;

    fn report(taken: Bytes, end: ReclaimEnd) -> ReclaimReport {
        ReclaimReport {
            name: "web".into(),
            asked: Bytes::mib(100),
            taken,
            came_back: Bytes(0),
            time_ms: 1500,
            mechanism: ReclaimMechanism::PageOut,
            end,
        }
    }

    /// Asks for 100 MiB of a VM that answers like this; gives the sum, and what it was asked for.
    fn sum(answers: &[(Bytes, ReclaimEnd)]) -> (ReclaimReport, Vec<Bytes>) {
        let (mut asked, mut answers) = (Vec::new(), answers.iter());
        let ask = |size| {
            asked.push(size);
            let (taken, end) = answers.next().expect("it asks no more often than it has to");
            Ok(report(*taken, *end))
        };
        let sum = ask_until_done(Bytes::mib(100), ask, |_| {}).unwrap();
        (sum, asked)
    }

    #[test]
    fn it_asks_for_the_rest_until_there_is_none() {
        let (found, asked) =
            sum(&[(Bytes::mib(60), ReclaimEnd::OutOfTime), (Bytes::mib(41), ReclaimEnd::Complete)]);
        assert_eq!((found.taken, found.end, found.time_ms), (Bytes::mib(101), ReclaimEnd::Complete, 3000));
        assert_eq!(asked, [Bytes::mib(100), Bytes::mib(40)]);
        let (found, asked) = sum(&[(Bytes::mib(60), ReclaimEnd::NothingLeft)]);
        assert_eq!((found.taken, asked.len()), (Bytes::mib(60), 1));
    }

    #[test]
    fn a_disk_that_takes_nothing_is_not_asked_forever() {
        let (found, asked) = sum(&[(Bytes(0), ReclaimEnd::OutOfTime); IDLE_REQUESTS_MAX]);
        assert_eq!((found.end, asked.len()), (ReclaimEnd::OutOfTime, IDLE_REQUESTS_MAX));
    }

    #[test]
    fn what_came_of_it_is_said() {
        let text = |end| describe(&report(Bytes::mib(60), end));
        assert_eq!(text(ReclaimEnd::Complete), "web: 60 MiB taken by the VM's process in 1.5 s\n");
        assert!(text(ReclaimEnd::NothingLeft).contains("less than 100M: nothing more of it would go"));
        assert!(text(ReclaimEnd::LimitReached).contains("start it with a larger --swap-max"));
        assert!(text(ReclaimEnd::SwapFull).contains("the host's swap is full; sudo napa swap create"));
        let back =
            ReclaimReport { came_back: Bytes::mib(20), ..report(Bytes::mib(60), ReclaimEnd::Complete) };
        assert!(describe(&back).ends_with("web: 20 MiB that was taken before had come back\n"));
    }
}
