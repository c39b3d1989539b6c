//! Kernel samepage merging, one trust domain at a time (Documentation/admin-guide/mm/ksm.rst).
//!
//! The kernel merges every mergeable page of the host with every equal one, whoever owns it: there is one tree of
//! merged pages, and no way to keep two groups of processes apart in it. So a host has at most one domain whose
//! members' pages are mergeable, and [`Registry`] says who holds it:
//!
//! ```text
//!             join: settings saved and set          join, same domain
//!   nobody ───────────────────────────────▶ held ◀─────────────────┐
//!      ▲                                     │ └───────────────────┘
//!      └─────────────────────────────────────┘  join, other domain: refused
//!        the last one leaves: settings put back
//! ```
//!
//! Being a member is a lock of the member's own, which ends with its process. Nothing here makes memory mergeable.

mod controls;
mod inherited;
mod lock;
mod own;
mod record;
mod registry;
mod strangers;
#[cfg(test)]
mod tests;

pub use controls::Settings;
pub use inherited::forget_inherited_merging;
pub use own::{OwnCounters, OwnSharing};
pub use record::{Domain, Member};
pub use registry::{Departure, LeaveError, Leftovers, OpenError, RefusedJoin, Registry};
pub use strangers::{Stranger, strangers};

/// Where the registry of a host is.
pub const REGISTRY: &str = "run/napa/ksm";
/// Where the kernel's settings are.
const SYSFS: &str = "sys/kernel/mm/ksm";
