//! `cargo xtask lab …`

use anyhow::Result;
use clap::Subcommand;
use napa_lab::cache::Cache;
use napa_lab::qemu;

#[derive(Subcommand)]
pub enum Command {
    /// Fetch QEMU into the cache and print the words that start it.
    Qemu,
    /// Delete everything the lab has fetched and built.
    Clean,
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Qemu => println!("{}", qemu::unpacked()?.prefix()?.join(" ")),
        Command::Clean => Cache::of_this_user()?.clear()?,
    }
    Ok(())
}
