//! `napa top`: where the memory of the host and of its VMs is, live.
//!
//! `model` is what is known and chosen, `keys` what keys ask for, `view` the picture: all pure. `live` is the shell around
//! them, `terminal` the terminal, `source` the daemon. `once` serves those who are no terminal.

mod column;
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

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use napa_api::host::host_socket;

use crate::client::runtime_dir;
use crate::command::JsonArgs;
use crate::error::Error;
use crate::output;
use source::{Source, SourceError};
use terminal::Screen;

/// Time between two reports, unless another is asked for: that of the daemon.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct TopArgs {
    /// Socket of the host's daemon [default: /run/napa/host.sock, or napa/host.sock in $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Time between two reports; with --json, print one again and again [default: 1]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    interval: Option<u32>,
    /// Print one report as text and end, as where standard output is no terminal
    #[arg(long, conflicts_with_all = ["interval", "json"])]
    once: bool,
    #[command(flatten)]
    format: JsonArgs,
}

/// Shows reports of the host's daemon.
pub fn top(arguments: &TopArgs) -> Result<ExitCode, Error> {
    let socket = arguments.socket.clone().unwrap_or_else(|| host_socket(runtime_dir().as_deref()));
    let source = Source::new(socket);
    let first = source.report().map_err(refusal)?;
    let interval = arguments.interval.map(|seconds| Duration::from_secs(seconds.into()));
    match interval {
        Some(interval) if arguments.format.json => once::json_lines(&source, interval, first),
        None if arguments.format.json => output::print_json(&first),
        interval if !arguments.once && Screen::is_possible() => {
            live::live(source, interval.unwrap_or(INTERVAL), first)
        }
        _ => output::print(once::text(&first).as_bytes()),
    }
}

fn refusal(error: SourceError) -> Error {
    if error.is_bad_input() { Error::bad_input(error) } else { Error::failure(error) }
}
