//! The memory of VMs on this host's KVM, by the binary that users run: where their pages are, what takes memory from
//! them, and that they lose nothing by it. Times are bounds for what hangs, never measures.
#![allow(clippy::unwrap_used)] // A test ends where its preparation fails.

mod balloon;
#[path = "../lifecycle/client.rs"]
#[allow(dead_code)] // What other tests use.
mod client;
mod control_group;
mod embedded_balloon;
mod full;
mod held;
mod host_budget;
mod ledger;
#[path = "../lifecycle/machine_code.rs"]
#[allow(dead_code)] // The kernels of other tests.
mod machine_code;
mod mechanisms;
mod reclaim;
mod sharing;
#[path = "../lifecycle/support.rs"]
#[allow(dead_code)] // What other tests use.
mod support;
mod swap;
mod swap_area;
mod working_set;
mod zeros;
