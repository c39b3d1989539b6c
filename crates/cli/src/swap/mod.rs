//! `napa swap`: swap areas of the host that napa makes, shows and removes.

mod create;
mod list;
mod remove;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use napa_sys::swap::SwapError;
use napa_units::Bytes;

use crate::command::JsonArgs;
use crate::error::Error;

/// Where the file is unless somebody names another.
const FILE: &str = "/var/lib/napa/swap";

/// What to do about swap.
#[derive(Subcommand)]
pub enum SwapVerb {
    /// Make a swap file with compressed memory in front of it, and use both (as root)
    Create(CreateArgs),
    /// Stop using what 'napa swap create' made, and remove it (as root)
    Remove(RemoveArgs),
    /// Show what the host swaps to, and what of it napa made
    List(JsonArgs),
}

/// What to make.
#[derive(Args)]
pub struct CreateArgs {
    /// Size of the swap file: a number and one of K, M, G, T; 0 for compressed memory alone
    #[arg(long, value_name = "SIZE")]
    pub size: Bytes,
    /// The swap file [default: /var/lib/napa/swap]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What stands in front of it [default: zswap where the kernel has it, else zram, else off]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub compressed: Option<Compressed>,
    /// Size of zram, before compression [default: the file's, at most half of the host's memory]
    #[arg(long, value_name = "SIZE")]
    pub zram_size: Option<Bytes>,
}

/// What to remove.
#[derive(Args)]
pub struct RemoveArgs {
    /// This area alone, or a file that a restart of the host has left [default: all that napa made]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Compressed memory in front of a swap file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compressed {
    /// A swap area in memory, filled before the file is.
    Zram,
    /// The kernel's cache of the swap file, which passes on to it what is not wanted for long.
    Zswap,
    /// Nothing.
    Off,
}

/// Does it.
pub fn swap(verb: &SwapVerb) -> Result<ExitCode, Error> {
    match verb {
        SwapVerb::Create(arguments) => create::create(arguments),
        SwapVerb::Remove(arguments) => remove::remove(arguments),
        SwapVerb::List(arguments) => list::list(arguments),
    }
}

fn need_root(verb: &str) -> Result<(), Error> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => {
            Err(Error::bad_input(format!("only root may change the host's swap: sudo napa swap {verb} …")))
        }
    }
}

/// The path as the kernel shows it, if the file is there.
fn whole(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn to_error(error: SwapError) -> Error {
    match error {
        SwapError::Input(what) => Error::BadInput(what),
        SwapError::Refused { .. } => Error::failure(error),
    }
}
