//! What a VM is asked about its memory, and what it answers.

use napa_units::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RpcError;
use super::message::Params;

/// What is asked about a VM's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryCommand {
    /// Say where every page is.
    Report,
}

impl MemoryCommand {
    pub(super) const METHODS: &[&str] = &["memory"];

    /// The name of the method.
    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Report => "memory",
        }
    }

    /// `None`: the method is not one of these.
    pub(super) fn decode(params: &Params<'_>) -> Option<Result<Self, RpcError>> {
        Some(match params.method {
            "memory" => params.none().map(|()| Self::Report),
            _ => return None,
        })
    }

    /// Parameters, by name; `None`: there are none.
    pub(super) fn params(self) -> Option<Value> {
        match self {
            Self::Report => None,
        }
    }
}

/// The memory of a VM at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// Name of the VM.
    pub name: String,
    /// Guest memory.
    pub size: Bytes,
}
