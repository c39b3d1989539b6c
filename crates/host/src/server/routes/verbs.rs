//! Starting and ending VMs. Each verb waits until it is done, within a bound.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use napa_api::Exit;
use napa_api::host::{Problem, ProblemKind, StopOrder, VmDetail, VmState};

use crate::server::Sources;
use crate::server::body::{Name, OptionalBody};
use crate::server::refusal::Refusal;
use crate::server::sources::aside;

/// How long a request waits for a VM to answer or to end. What takes longer goes on, and the answer says so.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Starts a VM and waits until it answers. One that runs is left alone.
#[utoipa::path(post, path = "/v1/vms/{name}/start", tag = "verbs", params(("name" = String, Path, description = "Name of the VM")), responses(
    (status = 200, body = VmDetail),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn start(State(sources): State<Arc<Sources>>, Name(name): Name) -> Result<Json<VmDetail>, Refusal> {
    {
        let name = name.clone();
        aside(&sources, move |sources| Ok(sources.supervisor.start(&name)?)).await?;
    }
    let detail = wait(&sources, &name, |state| state != VmState::Starting).await?;
    match &detail.summary.exit {
        Some(exit) if !detail.summary.state.is_alive() && is_failure(exit.code) => {
            let detail = format!("VM {name:?} ended before it ran: {}", exit.reason);
            Err(Refusal::new(ProblemKind::StartFailed, detail))
        }
        _ => Ok(Json(detail)),
    }
}

/// Asks a VM to switch itself off, stops it hard after a while, and waits until it has ended.
#[utoipa::path(post, path = "/v1/vms/{name}/stop", tag = "verbs", params(("name" = String, Path, description = "Name of the VM")),
    request_body = Option<StopOrder>, responses(
    (status = 200, body = VmDetail),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn stop(
    State(sources): State<Arc<Sources>>,
    Name(name): Name,
    OptionalBody(order): OptionalBody<Option<StopOrder>>,
) -> Result<Json<VmDetail>, Refusal> {
    let timeout_s = order.unwrap_or_default().timeout_s;
    {
        let name = name.clone();
        aside(&sources, move |sources| Ok(sources.supervisor.stop(&name, timeout_s)?)).await?;
    }
    wait(&sources, &name, |state| !state.is_alive()).await.map(Json)
}

/// Stops a VM hard, and waits until it has ended.
#[utoipa::path(post, path = "/v1/vms/{name}/kill", tag = "verbs", params(("name" = String, Path, description = "Name of the VM")), responses(
    (status = 200, body = VmDetail),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn kill(State(sources): State<Arc<Sources>>, Name(name): Name) -> Result<Json<VmDetail>, Refusal> {
    {
        let name = name.clone();
        aside(&sources, move |sources| Ok(sources.supervisor.kill(&name)?)).await?;
    }
    wait(&sources, &name, |state| !state.is_alive()).await.map(Json)
}

/// Waits until a VM does what `is_done` says, or the time is over; gives what it does then.
async fn wait(sources: &Sources, name: &str, is_done: impl Fn(VmState) -> bool) -> Result<VmDetail, Refusal> {
    let mut changes = sources.supervisor.changes();
    let over = tokio::time::sleep(WAIT_MAX);
    tokio::pin!(over);
    loop {
        changes.mark_unchanged();
        let detail = sources.detail(name)?;
        if is_done(detail.summary.state) {
            return Ok(detail);
        }
        tokio::select! {
            changed = changes.changed() => changed.map_err(|_| Refusal::no_answer())?,
            () = &mut over => return Ok(sources.detail(name)?),
        }
    }
}

/// napa's own exit codes for a VM that could not be run, or a process that was ended by a signal.
fn is_failure(code: Option<u8>) -> bool {
    code.is_none_or(|code| code == Exit::FAILURE || code == Exit::BAD_INPUT)
}
