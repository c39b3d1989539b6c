//! The daemon of one machine: it supervises VMs and decides about the host's memory.
//!
//! VMs are processes of their own. If the daemon ends, they run on; when it starts again, it finds and adopts them.

pub mod calls;
#[cfg(test)]
mod fixture;
pub mod guests;
pub mod mechanisms;
pub mod sensors;
pub mod tick;
