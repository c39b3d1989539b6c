//! Whether the host can promise a VM its memory.

use napa_units::Bytes;

use super::VerbError;

/// What VMs may come to need, and can always have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// The most memory that the guest can have.
    pub limit: Bytes,
    /// What it can always have in RAM.
    pub reservation: Bytes,
}

/// Who decides whether a VM may start, given what was promised to others.
pub trait Admission: Send {
    /// # Errors
    /// [`VerbError::Shortage`]: how much is missing.
    fn admit(&self, name: &str, promised: &[Promise], wanted: Promise) -> Result<(), VerbError>;
}

/// Admits every VM.
#[derive(Clone, Copy, Debug)]
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn admit(&self, _name: &str, _promised: &[Promise], _wanted: Promise) -> Result<(), VerbError> {
        Ok(())
    }
}
