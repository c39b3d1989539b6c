//! The host itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use napa_api::host::{Event, HostReport, Problem, ProblemKind};
use tokio_stream::wrappers::{BroadcastStream, WatchStream};
use tokio_stream::{Stream, StreamExt};

use crate::server::Sources;
use crate::server::refusal::Refusal;

/// How often a line without a meaning is sent to followers, so that a connection that broke is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where the host's memory is, and what was decided about it last.
#[utoipa::path(get, path = "/v1/host", tag = "host", responses(
    (status = 200, body = HostReport),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn report(State(sources): State<Arc<Sources>>) -> Result<Json<HostReport>, Refusal> {
    sources.latest.report().map(|report| Json(report.as_ref().clone())).ok_or_else(|| {
        let detail = "the host has not been looked at so far: ask again in a second";
        Refusal::new(ProblemKind::UnknownResource, detail)
    })
}

/// What happens from now on, as events (`text/event-stream`): `vm`, `removed` and `report`, each with JSON as its data.
#[utoipa::path(get, path = "/v1/events", tag = "host", responses(
    (status = 200, body = Event, content_type = "text/event-stream")))]
pub async fn events(
    State(sources): State<Arc<Sources>>,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    // Who falls behind misses events of VMs, and can ask for their list.
    let vms = BroadcastStream::new(sources.supervisor.events())
        .filter_map(|event| event.ok().as_ref().and_then(told));
    let reports = WatchStream::new(sources.latest.follow())
        .filter_map(|report| sse::Event::default().event("report").json_data(report?.as_ref()).ok());
    Sse::new(vms.merge(reports).map(Ok)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// The document that describes this API (OpenAPI 3.1).
#[utoipa::path(get, path = "/openapi.json", tag = "host", responses(
    (status = 200, description = "The document", body = String, content_type = "application/json")))]
pub async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], crate::server::document()).into_response()
}

fn told(event: &Event) -> Option<sse::Event> {
    let event_of = |name: &str| sse::Event::default().event(name);
    match event {
        Event::Vm(summary) => event_of("vm").json_data(summary).ok(),
        Event::Removed { name } => event_of("removed").json_data(serde_json::json!({ "name": name })).ok(),
        Event::Report(report) => event_of("report").json_data(report).ok(),
    }
}
