//! Stock Debian hosts for napa to be tested on.
//!
//! [`Lab`] fetches and builds what hosts are made of, [`Host`] is a running one, [`Job`] a command in it.
//! Everything comes out of Debian packages at test time and is kept in the [`cache`]; nothing is installed,
//! nothing in a host can reach this machine but through the agent's port, and no QEMU outlives the process
//! that started it.
//!
//! ```text
//!  this machine                 host (emulated)                    guest
//!  Lab ─ packages ─ snapshot ─► kernel, busybox, modules
//!  Host ─ control protocol ───► QEMU
//!  Job ─ frames on a port ────► agent ─ command ─► napa ─ KVM ───► stock kernel, initramfs or Debian
//!  Share ─ erofs disk ────────► /share (napa)
//!  images disk, copy on write ► /images (kernels, disks) ────────► its disk
//! ```

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
mod share;
pub mod sources;
pub mod tools;
mod tsc;
mod unavailable;
mod vmlinux;

pub use binaries::{agent, napa};
pub use host::Host;
pub use job::{Input, Job, JobError, Output, Stream};
pub use kernel::HostKernel;
pub use lab::{HostOptions, Lab, Presence, with_one_retry_for_lost_hosts};
pub use share::Share;
pub use unavailable::Unavailable;

/// Says on standard error what takes the time.
pub(crate) fn progress(what: &str) {
    eprintln!("lab: {what}");
}
