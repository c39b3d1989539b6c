//! The ways in which a host gets memory back from a VM: which of them a VM has, and which go together.
//!
//! [`rule`] is the one table of what excludes, limits or needs what. [`VmConfig::check`](crate::VmConfig::check)
//! refuses a configuration that breaks one of its rules, and [`explain`] says which mechanisms a VM has and what
//! stands in the way of the others. Nothing here looks at a host: what is the case there comes in as [`HostFacts`].

mod explain;
mod feature;
mod rule;

pub use explain::{
    Availability, Explanation, Finding, GuestFacts, HostFacts, Limit, Mechanism, SwapMedium, explain,
};
pub use feature::Feature;
pub use rule::{RULES, Relation, Rule, broken_rule};
