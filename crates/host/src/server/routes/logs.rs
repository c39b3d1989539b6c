//! What a VM says.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use napa_api::host::Problem;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoParams;

use crate::server::Sources;
use crate::server::body::{Name, Words};
use crate::server::refusal::Refusal;
use crate::server::sources::aside;
use crate::supervisor::Logs;

/// How often a log is looked at for somebody who follows it.
const POLL: Duration = Duration::from_millis(250);
/// Pieces of a log that wait for a slow reader; more stay in the file.
const PIECES_MAX: usize = 4;

/// What of a log is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogWords {
    /// Only the last so many lines.
    lines: Option<u32>,
    /// Go on until the VM ends.
    #[serde(default)]
    follow: bool,
}

/// What a VM and its process have said.
#[utoipa::path(get, path = "/v1/vms/{name}/logs", tag = "VMs", params(("name" = String, Path, description = "Name of the VM"), LogWords), responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = "default", description = "Why not", body = Problem, content_type = "application/problem+json")))]
pub async fn logs(
    State(sources): State<Arc<Sources>>,
    Name(name): Name,
    Words(words): Words<LogWords>,
) -> Result<Response, Refusal> {
    let lines = words.lines.map(|lines| lines as usize);
    let (text, logs) = {
        let name = name.clone();
        aside(&sources, move |sources| Ok(sources.supervisor.logs(&name, lines)?)).await?
    };
    let body = match words.follow {
        false => Body::from(text),
        true => {
            let (sender, pieces) = mpsc::channel(PIECES_MAX);
            tokio::spawn(follow(sources, name, text, logs, sender));
            Body::from_stream(ReceiverStream::new(pieces).map(Ok::<Bytes, Infallible>))
        }
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// Sends a log until the VM has ended or nobody reads any more.
async fn follow(
    sources: Arc<Sources>,
    name: String,
    text: Vec<u8>,
    mut logs: Logs,
    sender: mpsc::Sender<Bytes>,
) {
    let mut piece = text;
    loop {
        // Asked first: what it said before its end is read after.
        let is_alive = sources.detail(&name).is_ok_and(|detail| detail.summary.state.is_alive());
        while !piece.is_empty() {
            if sender.send(Bytes::from(piece)).await.is_err() {
                return;
            }
            piece = logs.read();
        }
        if !is_alive {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = sender.closed() => return,
        }
        piece = logs.read();
    }
}
