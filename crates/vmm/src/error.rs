//! Why a VM could not be run.

use napa_devices::OpenError;
use napa_machine::boot::BootError;
use napa_machine::{BuildError, PlanError};

/// Why a VM could not be run. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// What the user asked for cannot be: the message says what, where and how to mend it.
    #[error("{0}")]
    BadInput(String),
    /// The host failed at something that should have worked.
    #[error("{0}")]
    Host(String),
}

impl RunError {
    pub(crate) fn host(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Host(format!("{what}: {error}"))
    }
}

impl From<PlanError> for RunError {
    fn from(error: PlanError) -> Self {
        Self::BadInput(error.to_string())
    }
}

impl From<OpenError> for RunError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Input(message) => Self::BadInput(message),
            OpenError::Host { .. } => Self::Host(error.to_string()),
        }
    }
}

impl From<BuildError> for RunError {
    fn from(error: BuildError) -> Self {
        match error {
            // Without a usable /dev/kvm there is nothing that trying again could help.
            BuildError::Open { .. }
            | BuildError::Version(_)
            | BuildError::Ram(_)
            | BuildError::Blocks(_)
            | BuildError::Slots { .. }
            | BuildError::Image { .. } => Self::BadInput(error.to_string()),
            BuildError::Boot(BootError::Write(..)) => Self::Host(error.to_string()),
            BuildError::Boot(_) => Self::BadInput(error.to_string()),
            BuildError::Kvm(..) | BuildError::Acpi(_) => Self::Host(error.to_string()),
        }
    }
}
