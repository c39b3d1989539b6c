//! `napa top`: where the memory of the host and of its VMs is, live.
//!
//! `model` is what is known and chosen, `keys` what keys ask for, `view` the picture: all pure. `live` is the shell around
//! them, `terminal` the terminal, `source` the daemon, whose `events` come piece by piece. `once` serves those who are no terminal.

mod column;
mod events;
#[cfg(test)]
mod fixture;
mod history;
mod keys;
mod live;
mod model;
mod once;
mod source;
mod terminal;
mod view;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::command::JsonArgs;
use crate::error::Error;
use crate::host::{HostArgs, client_for};
use crate::output;
use terminal::Screen;

#[derive(Args)]
pub struct TopArgs {
    #[command(flatten)]
    host: HostArgs,
    /// Print a report again and again, so long apart
    #[arg(long, value_name = "SECONDS", requires = "json", value_parser = clap::value_parser!(u32).range(1..=3600))]
    interval: Option<u32>,
    /// Print one report as text and end, as where standard output is no terminal
    #[arg(long, conflicts_with = "json")]
    once: bool,
    #[command(flatten)]
    format: JsonArgs,
}

/// Shows reports of the host's daemon.
pub fn top(arguments: &TopArgs) -> Result<ExitCode, Error> {
    let client = client_for(&arguments.host);
    let first = source::first_report(&client)?;
    match arguments.interval {
        Some(seconds) => once::json_lines(&client, Duration::from_secs(seconds.into()), first),
        None if arguments.format.json => output::print_json(&first),
        None if !arguments.once && Screen::is_possible() => live::live(client, first),
        None => output::print(once::text(&first).as_bytes()),
    }
}
