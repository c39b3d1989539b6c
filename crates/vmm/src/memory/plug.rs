//! What is asked of the memory that can be plugged.

use napa_api::control::{PlugReport, RpcError, code};
use napa_units::Bytes;

use super::Subject;

/// The pluggable memory as it is, after the guest was asked to have `size` of it.
pub fn set_size(subject: &Subject, size: Option<Bytes>) -> Result<PlugReport, RpcError> {
    let hotplug = subject.hotplug.as_ref().ok_or_else(|| {
        let why = "the VM has no memory that can be plugged: start it with --hotplug-memory SIZE";
        RpcError::new(code::WRONG_STATE, why)
    })?;
    if let Some(size) = size {
        hotplug.request(size).map_err(|error| RpcError::new(code::INVALID_PARAMS, error.to_string()))?;
    }
    Ok(hotplug.report())
}
