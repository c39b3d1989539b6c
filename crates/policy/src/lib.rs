//! What to do about the memory of a host: observation and offers in, grants and reasons out. Pure.
//!
//! It knows no clock, thread, file or guest, and no mechanism by name: the daemon and a simulator call the same
//! function.
//!
//! ```text
//!   sensors ──► Observation ──┐
//!                             ├──► Policy::decide ──► Decision ──► grants to the mechanisms
//!   mechanisms ──► offers ────┘       (state)            └───────► words for people, and a record
//! ```

pub mod admission;
mod baselines;
mod decision;
mod draft;
mod engine;
pub mod entitlement;
mod fraction;
mod level;
mod napa;
mod observation;
mod offer;
mod words;
mod working_set;

pub use baselines::{Ksm, Mom, Proxmox, Static, Swap};
pub use decision::{Brake, Cooperation, Decision, Grant, GuestDecision, Level, Order};
pub use engine::{Engine, Kind, UnknownPolicy};
pub use fraction::Fraction;
pub use napa::Napa;
pub use observation::{GuestHints, GuestObservation, HostObservation, Observation, Pressure, WorkingSet};
pub use offer::{Consent, Direction, Offer, OfferId, Price, Works};
pub use words::Figure;

/// Decides about the memory of one host, again and again.
pub trait Policy: Send {
    /// The name that chooses it on a command line.
    fn name(&self) -> &'static str;

    /// What to do now, after what was seen and decided before.
    ///
    /// Whatever the observation says, this neither panics nor grants more than was offered.
    fn decide(&mut self, observation: &Observation) -> Decision;
}
