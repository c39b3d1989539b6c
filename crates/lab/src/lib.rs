//! Stock Debian hosts for napa to be tested on.

pub mod apt;
mod binaries;
pub mod cache;
mod command;
mod connection;
mod cpio;
mod debian;
mod devices;
mod guest_image;
mod host;
mod host_image;
mod images;
mod job;
pub mod kernel;
mod lab;
pub mod packages;
mod process;
pub mod protocol;
pub mod qemu;
mod qmp;
pub mod share;
pub mod sources;
pub mod tools;
mod tsc;
mod vmlinux;

pub use binaries::napa;
pub use host::Host;
pub use job::{Input, Job, JobError, Output, Stream};
pub use kernel::HostKernel;
pub use lab::{HostOptions, Images, Lab, with_one_retry_for_lost_hosts};

/// Set to `1` to let `cargo test` run the tests that need a lab: they fetch packages and take minutes.
pub const LAB_VARIABLE: &str = "NAPA_LAB";

/// Says on standard error what takes the time.
pub(crate) fn progress(what: &str) {
    eprintln!("lab: {what}");
}
