//! The life of VMs on this host's KVM, by the binary that users run: how they end, how they are controlled,
//! what they leave behind, and how many there can be. Times are bounds for what hangs, never measures.
#![allow(clippy::unwrap_used)] // A test ends where its preparation fails.

mod client;
mod control;
mod exits;
mod hotplug;
mod leftovers;
mod machine_code;
mod pause;
mod pmem;
mod reboot;
mod scale;
mod support;
mod terminal;
