//! Why a request was not carried out (RFC 9457).

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// Why a request was not carried out (RFC 9457 §3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[error("{detail}")]
pub struct Problem {
    /// Which problem it is, for programs.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// What such a problem is called, for people.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What failed this time, on which object, and how to mend it.
    pub detail: String,
    /// RAM that is missing to promise the VM what it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ram_missing: Option<Bytes>,
    /// Swap that is missing to promise the VM what it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_missing: Option<Bytes>,
}

/// The problems there are. Each is a URI reference of its own (RFC 9457 §3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum ProblemKind {
    /// The request cannot be read: not JSON, or not of the right shape.
    #[serde(rename = "/problems/bad-request")]
    BadRequest,
    /// The configuration cannot be that of a VM.
    #[serde(rename = "/problems/bad-config")]
    BadConfig,
    /// There is no such VM.
    #[serde(rename = "/problems/unknown-vm")]
    UnknownVm,
    /// There is no such resource.
    #[serde(rename = "/problems/unknown-resource")]
    UnknownResource,
    /// The resource does not take this method.
    #[serde(rename = "/problems/method-not-allowed")]
    MethodNotAllowed,
    /// Another VM has this name.
    #[serde(rename = "/problems/name-in-use")]
    NameInUse,
    /// The VM cannot do that in its present state.
    #[serde(rename = "/problems/wrong-state")]
    WrongState,
    /// The VM's process ended before it ran.
    #[serde(rename = "/problems/start-failed")]
    StartFailed,
    /// The host cannot promise the VM its memory.
    #[serde(rename = "/problems/not-enough-memory")]
    NotEnoughMemory,
    /// The body is longer than any that makes sense.
    #[serde(rename = "/problems/body-too-large")]
    BodyTooLarge,
    /// The body is not JSON by its own word.
    #[serde(rename = "/problems/not-json")]
    NotJson,
    /// The VM's process refused, or did not answer.
    #[serde(rename = "/problems/vm-refused")]
    VmRefused,
    /// The disk under the state is full.
    #[serde(rename = "/problems/disk-full")]
    DiskFull,
    /// A browser asks for a page from elsewhere.
    #[serde(rename = "/problems/other-origin")]
    OtherOrigin,
    /// The daemon or its host failed.
    #[serde(rename = "/problems/internal")]
    Internal,
}

impl ProblemKind {
    /// What such a problem is called.
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request cannot be read",
            Self::BadConfig => "The configuration cannot be that of a VM",
            Self::UnknownVm => "There is no such VM",
            Self::UnknownResource => "There is no such resource",
            Self::MethodNotAllowed => "The resource does not take this method",
            Self::NameInUse => "Another VM has this name",
            Self::WrongState => "The VM cannot do that in its present state",
            Self::StartFailed => "The VM ended before it ran",
            Self::NotEnoughMemory => "The host cannot promise the VM its memory",
            Self::BodyTooLarge => "The body is too long",
            Self::NotJson => "The body is not JSON",
            Self::VmRefused => "The VM refused",
            Self::DiskFull => "The disk under the state is full",
            Self::OtherOrigin => "The page is from elsewhere",
            Self::Internal => "The host failed",
        }
    }

    /// Its HTTP status code (RFC 9110 §15).
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::UnknownVm | Self::UnknownResource => 404,
            Self::MethodNotAllowed => 405,
            Self::NameInUse | Self::WrongState | Self::VmRefused | Self::NotEnoughMemory => 409,
            Self::OtherOrigin => 403,
            Self::BodyTooLarge => 413,
            Self::NotJson => 415,
            Self::BadConfig | Self::StartFailed => 422,
            Self::Internal => 500,
            Self::DiskFull => 507,
        }
    }
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            ram_missing: None,
            swap_missing: None,
        }
    }
}
