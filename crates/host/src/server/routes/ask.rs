//! What is asked of a VM's own process.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use napa_api::control::{BalloonReport, Command, MemoryCommand, MemoryReport, ReclaimReport, Status};
use napa_api::host::{BalloonOrder, Problem, ReclaimOrder};
use serde::de::DeserializeOwned;

use crate::control;
use crate::server::Sources;
use crate::server::body::{Body, Name};
use crate::server::refusal::Refusal;
use crate::server::sources::aside;

/// Stops the vCPUs of a VM.
#[utoipa::path(post, path = "/v1/vms/{name}/pause", tag = "verbs", params(("name" = String, Path, description = "Name of the VM")), responses(
    (status = 200, body = Status),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn pause(State(sources): State<Arc<Sources>>, Name(name): Name) -> Result<Json<Status>, Refusal> {
    switch(&sources, name, Command::Pause).await
}

/// Lets the vCPUs of a VM run again.
#[utoipa::path(post, path = "/v1/vms/{name}/resume", tag = "verbs", params(("name" = String, Path, description = "Name of the VM")), responses(
    (status = 200, body = Status),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn resume(State(sources): State<Arc<Sources>>, Name(name): Name) -> Result<Json<Status>, Refusal> {
    switch(&sources, name, Command::Resume).await
}

/// Asks a guest to give up so much memory. The host's policy may ask for something else a moment later.
#[utoipa::path(post, path = "/v1/vms/{name}/balloon", tag = "verbs", params(("name" = String, Path, description = "Name of the VM")),
    request_body = BalloonOrder, responses(
    (status = 200, body = BalloonReport),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn balloon(
    State(sources): State<Arc<Sources>>,
    Name(name): Name,
    Body(BalloonOrder { target }): Body<BalloonOrder>,
) -> Result<Json<BalloonReport>, Refusal> {
    ask(&sources, name, Command::Memory(MemoryCommand::Balloon { target: Some(target) })).await
}

/// Puts memory of a VM into the host's swap, for two seconds at most.
#[utoipa::path(post, path = "/v1/vms/{name}/reclaim", tag = "verbs", params(("name" = String, Path, description = "Name of the VM")),
    request_body = ReclaimOrder, responses(
    (status = 200, body = ReclaimReport),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn reclaim(
    State(sources): State<Arc<Sources>>,
    Name(name): Name,
    Body(ReclaimOrder { size }): Body<ReclaimOrder>,
) -> Result<Json<ReclaimReport>, Refusal> {
    ask(&sources, name, Command::Memory(MemoryCommand::Reclaim { size })).await
}

/// Where every page of a guest is.
#[utoipa::path(get, path = "/v1/vms/{name}/memory", tag = "VMs", params(("name" = String, Path, description = "Name of the VM")), responses(
    (status = 200, body = MemoryReport),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn memory(
    State(sources): State<Arc<Sources>>,
    Name(name): Name,
) -> Result<Json<MemoryReport>, Refusal> {
    ask(&sources, name, Command::Memory(MemoryCommand::Report)).await
}

async fn switch(sources: &Arc<Sources>, name: String, command: Command) -> Result<Json<Status>, Refusal> {
    let status: Json<Status> = ask(sources, name.clone(), command).await?;
    let state = status.state;
    aside(sources, move |sources| {
        sources.supervisor.note_state(&name, state);
        Ok(())
    })
    .await?;
    Ok(status)
}

async fn ask<T: DeserializeOwned + Send + 'static>(
    sources: &Arc<Sources>,
    name: String,
    command: Command,
) -> Result<Json<T>, Refusal> {
    let answer = aside(sources, move |sources| {
        let socket = sources.supervisor.control_socket(&name)?;
        Ok(control::ask(&socket, command)?)
    });
    answer.await.map(Json)
}
