//! The lines of a record.

use napa_api::host::Time;
use napa_policy::{Decision, Engine, Observation};
use serde::{Deserialize, Serialize};

/// The version of the lines. A reader takes its own alone: a policy that decides otherwise is a newer version as well.
pub const VERSION: u32 = 1;

/// The first line of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// [`VERSION`].
    pub version: u32,
    /// The policy, with its state before the first tick of the file.
    pub policy: Engine,
}

/// Any other line: one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When it was.
    pub time: Time,
    /// What was seen.
    pub observation: Observation,
    /// What was decided.
    pub decision: Decision,
}
