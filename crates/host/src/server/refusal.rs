//! Why a request is refused, as a problem (RFC 9457).

use axum::extract::rejection::{
    BytesRejection, FailedToBufferBody, JsonRejection, PathRejection, QueryRejection,
};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use napa_api::control::code;
use napa_api::host::{PROBLEM_CONTENT_TYPE, Problem, ProblemKind};

use crate::control::ControlError;
use crate::state::StoreError;
use crate::supervisor::VerbError;

/// A request that is not carried out.
#[derive(Debug)]
pub struct Refusal(Problem);

impl Refusal {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Problem::new(kind, detail))
    }

    pub fn no_resource() -> Self {
        Self::new(
            ProblemKind::UnknownResource,
            "there is nothing at this path: GET /openapi.json lists those there are",
        )
    }

    pub fn wrong_method() -> Self {
        Self::new(
            ProblemKind::MethodNotAllowed,
            "this path takes other methods: GET /openapi.json lists them",
        )
    }

    /// A thread beside the server's ended without an answer: it panicked.
    pub fn no_answer() -> Self {
        Self::new(ProblemKind::Internal, "the daemon failed at this request; its log says how")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).expect("a problem of texts and numbers can be written");
        let content_type = HeaderValue::from_static(PROBLEM_CONTENT_TYPE);
        (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
    }
}

impl From<VerbError> for Refusal {
    fn from(error: VerbError) -> Self {
        let detail = error.to_string();
        let kind = match &error {
            VerbError::Unknown { .. } => ProblemKind::UnknownVm,
            VerbError::NameInUse(_) => ProblemKind::NameInUse,
            VerbError::Config(_) | VerbError::Unfit(_) => ProblemKind::BadConfig,
            VerbError::State { .. } => ProblemKind::WrongState,
            VerbError::Shortage { .. } => ProblemKind::NotEnoughMemory,
            VerbError::DiskFull { .. } | VerbError::Store(StoreError::Full(_)) => ProblemKind::DiskFull,
            VerbError::Store(_) | VerbError::Spawn { .. } => ProblemKind::Internal,
        };
        let mut problem = Problem::new(kind, detail);
        if let VerbError::Shortage { ram, swap, .. } = error {
            (problem.ram_missing, problem.swap_missing) = (Some(ram), Some(swap));
        }
        Self(problem)
    }
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        let kind = match &error {
            ControlError::Refused(refused) if refused.code == code::INVALID_PARAMS => ProblemKind::BadRequest,
            ControlError::Refused(_) | ControlError::Silent(_) => ProblemKind::VmRefused,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::MissingJsonContentType(_) => Self::new(
                ProblemKind::NotJson,
                "the body must be JSON: send it with Content-Type: application/json",
            ),
            JsonRejection::BytesRejection(rejection) => rejection.into(),
            other => Self::new(ProblemKind::BadRequest, other.body_text()),
        }
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        match rejection {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
                let detail = format!("the body has more than {} bytes", super::BODY_BYTES_MAX);
                Self::new(ProblemKind::BodyTooLarge, detail)
            }
            other => Self::new(ProblemKind::BadRequest, other.body_text()),
        }
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ProblemKind::BadRequest, rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ProblemKind::BadRequest, rejection.body_text())
    }
}
