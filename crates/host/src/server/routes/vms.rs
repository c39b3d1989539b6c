//! VMs that are there.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use napa_api::host::{CreateVm, Problem, VmDetail, VmList};

use crate::server::Sources;
use crate::server::body::{Body, Name};
use crate::server::refusal::Refusal;
use crate::server::sources::aside;

/// All VMs, by name.
#[utoipa::path(get, path = "/v1/vms", tag = "VMs", responses((status = 200, body = VmList)))]
pub async fn list(State(sources): State<Arc<Sources>>) -> Json<VmList> {
    Json(VmList { vms: sources.list() })
}

/// Notes a new VM, which is not started by that.
#[utoipa::path(post, path = "/v1/vms", tag = "VMs", request_body = CreateVm, responses(
    (status = 201, body = VmDetail),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn create(
    State(sources): State<Arc<Sources>>,
    Body(vm): Body<CreateVm>,
) -> Result<(StatusCode, Json<VmDetail>), Refusal> {
    let detail = aside(&sources, |sources| {
        let name = vm.config.name_or_default().to_owned();
        sources.supervisor.create(vm)?;
        Ok(sources.detail(&name)?)
    });
    Ok((StatusCode::CREATED, Json(detail.await?)))
}

/// All about one VM.
#[utoipa::path(get, path = "/v1/vms/{name}", tag = "VMs", params(("name" = String, Path, description = "Name of the VM")), responses(
    (status = 200, body = VmDetail),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn detail(
    State(sources): State<Arc<Sources>>,
    Name(name): Name,
) -> Result<Json<VmDetail>, Refusal> {
    Ok(Json(sources.detail(&name)?))
}

/// Forgets a VM that does not run, with its log. Its disks stay.
#[utoipa::path(delete, path = "/v1/vms/{name}", tag = "VMs", params(("name" = String, Path, description = "Name of the VM")), responses(
    (status = 204, description = "It is gone"),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn remove(State(sources): State<Arc<Sources>>, Name(name): Name) -> Result<StatusCode, Refusal> {
    aside(&sources, move |sources| Ok(sources.supervisor.remove(&name)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
