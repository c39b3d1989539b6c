//! Stock Debian hosts for napa to be tested on.

pub mod apt;
pub mod cache;
mod command;
pub mod packages;
pub mod qemu;
pub mod sources;
pub mod tools;

/// Says on standard error what takes the time.
pub(crate) fn progress(what: &str) {
    eprintln!("lab: {what}");
}
