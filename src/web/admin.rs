//! For those who run the server: its state in detail, and what it could not make use of.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Web;
use super::access::{Caller, Role};
use super::problem::{Problem, Result};
use super::request::Params;

const DEAD_LETTERS: usize = 100;
/// Of a backup, while the client takes them.
const FRAMES_AHEAD: usize = 4;

/// `/admin/status`: every partition of every feature type, and every background task of this instance.
pub async fn status(State(web): State<Arc<Web>>, caller: Caller, params: Params) -> Result<Response> {
    params.only(&[])?;
    caller.may(Role::Admin, None)?;
    let status = web.store.inspect().await;
    Ok(fresh(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "delegate": web.store.delegate_kind(),
        "ready": web.store.is_ready(),
        "instance": status.instance,
        "instances": status.instances,
        "coordination_error": status.coordination_error,
        "memory": web.store.memory(),
        "partitions": status.partitions,
        "tasks": status.tasks,
    }))))
}

/// `/admin/dead-letters`: records of the logs that were skipped, the newest first; `collection` names one, `limit` how many.
pub async fn dead_letters(State(web): State<Arc<Web>>, caller: Caller, params: Params) -> Result<Response> {
    params.only(&["collection", "limit"])?;
    let collection = params.get("collection");
    caller.may(Role::Admin, collection)?;
    if let Some(name) = collection {
        web.feature_type(&caller, name)?;
    }
    let limit = match params.get("limit").map(str::parse) {
        None => DEAD_LETTERS,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return Err(Problem::parameter("limit", "limit: not a whole number")),
    };
    Ok(fresh(Json(json!({ "dead_letters": web.store.dead_letters(collection, limit).await }))))
}

/// `/admin/backup`: an embedded server's data, as `alluvium restore` takes it.
pub async fn backup(State(web): State<Arc<Web>>, caller: Caller, params: Params) -> Result<Response> {
    params.only(&[])?;
    caller.may(Role::Admin, None)?;
    let frames = web.store.backup().await?;
    let (frame, frames_to_send) = tokio::sync::mpsc::channel(FRAMES_AHEAD);
    tokio::task::spawn_blocking(move || {
        for each in frames {
            if let Err(error) = &each {
                tracing::error!(%error, "a backup was broken off");
            }
            // The client has gone.
            if frame.blocking_send(each).is_err() {
                break;
            }
        }
    });
    let frames = futures::stream::unfold(frames_to_send, |mut frames| async move {
        let next = frames.recv().await?;
        Some((next, frames))
    });
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(frames)).into_response())
}

fn fresh(body: Json<serde_json::Value>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], body).into_response()
}
