//! Developer commands: `cargo xtask lab …` and what `./check` asks for.

mod documents;
mod lab;
mod licences;

use clap::{Parser, Subcommand};

/// Developer commands of napa.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stock Debian hosts under emulation, for napa to be tested on.
    Lab {
        #[command(subcommand)]
        command: lab::Command,
    },
    /// Check the licences, names and sources of all dependencies against deny.toml.
    Licences,
    /// Check the links in the documents, and that no file names one person's folders.
    Documents,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Lab { command } => lab::run(command),
        Command::Licences => licences::check(),
        Command::Documents => documents::check(),
    }
}
