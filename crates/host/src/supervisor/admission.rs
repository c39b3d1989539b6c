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

/// Who decides whether a VM may start.
pub trait Admission: Send {
    /// Whether memory can be promised to a VM besides what was promised to others.
    ///
    /// # Errors
    /// [`VerbError::Shortage`]: how much is missing.
    fn fits(&self, name: &str, promised: &[Promise], wanted: Promise) -> Result<(), VerbError>;

    /// Whether any VM may start at this moment.
    ///
    /// # Errors
    /// [`VerbError::Shortage`]: why not.
    fn is_open(&self, name: &str) -> Result<(), VerbError>;
}

/// Admits every VM.
#[derive(Clone, Copy, Debug)]
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn fits(&self, _name: &str, _promised: &[Promise], _wanted: Promise) -> Result<(), VerbError> {
        Ok(())
    }

    fn is_open(&self, _name: &str) -> Result<(), VerbError> {
        Ok(())
    }
}
