//! The API: HTTP and JSON on a Unix socket, whose permissions decide who may speak; on TCP only with certificates of both
//! sides. Described by a document that it serves itself.
//!
//! One thread, asynchronous. What waits for the disk or a VM runs on a few threads beside it.

mod body;
mod listen;
mod metrics;
mod page;
mod refusal;
mod routes;
mod sources;
mod tls;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use listen::{ListenError, UnixSocket};
pub use sources::{Latest, Sources};
pub use tls::{TlsError, TlsListener, TlsPaths};

use refusal::Refusal;

/// The longest body that is read, in bytes: a hundred times a VM with every key.
const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(OpenApi)]
#[openapi(info(
    title = "napa host",
    description = "The VMs of one machine, and its memory. Errors are problems (RFC 9457).",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

/// All routes, with the document that describes them.
fn described() -> (Router<Arc<Sources>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(routes::vms::list, routes::vms::create))
        .routes(routes!(routes::vms::detail, routes::vms::remove))
        .routes(routes!(routes::verbs::start))
        .routes(routes!(routes::verbs::stop))
        .routes(routes!(routes::verbs::kill))
        .routes(routes!(routes::ask::pause))
        .routes(routes!(routes::ask::resume))
        .routes(routes!(routes::ask::balloon))
        .routes(routes!(routes::ask::reclaim))
        .routes(routes!(routes::ask::memory))
        .routes(routes!(routes::logs::logs))
        .routes(routes!(routes::host::report))
        .routes(routes!(routes::host::events))
        .routes(routes!(metrics::metrics))
        .routes(routes!(routes::host::document))
        .split_for_parts()
}

/// The document that describes the API, as JSON.
pub fn document() -> String {
    described().1.to_json().expect("a document of texts and numbers can be written")
}

/// The API over these sources.
pub fn router(sources: Arc<Sources>) -> Router {
    let (router, _) = described();
    router
        .route("/", get(page::page))
        .fallback(|| async { Refusal::no_resource() })
        .method_not_allowed_fallback(|| async { Refusal::wrong_method() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(page::refuse_strangers))
        .with_state(sources)
}

/// The same for a listener without certificates, which a browser reaches only through a forwarded port.
pub fn local_router(sources: Arc<Sources>) -> Router {
    router(sources).layer(from_fn(page::refuse_names))
}
