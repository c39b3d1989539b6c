//! The VMs that run, each with its sensors, its mechanisms and what it is asked next.

mod growth;
mod guest;
mod probes;
mod readings;
mod silence;
mod subject;

pub use self::growth::Growth;
pub use self::guest::{Guest, Moment};
pub use self::probes::Probes;
pub use self::readings::{OWN_MEMORY, Readings};
pub use self::silence::Silence;
pub use self::subject::Subject;
