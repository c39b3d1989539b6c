//! Developer commands: `cargo xtask lab …`.

mod lab;

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Lab { command } => lab::run(command),
    }
}
