//! The daemon of a host with VMs on this host's KVM, by the binary that users run. Times are bounds for what hangs, never
//! measures.
#![allow(clippy::unwrap_used)] // A test ends where its preparation fails.

mod adoption;
mod bad_input;
mod daemon;
mod full_disk;
mod kills;
mod lifecycle;
#[path = "../lifecycle/machine_code.rs"]
#[allow(dead_code)] // The kernels of other tests.
mod machine_code;
mod page;
#[path = "../lifecycle/support.rs"]
#[allow(dead_code)] // What other tests use.
mod support;
mod top;
