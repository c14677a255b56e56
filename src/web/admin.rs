//! For those who run the server: its state in detail.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Web;
use super::access::{Caller, Role};
use super::problem::Result;

/// `/admin/status`: every partition of every feature type.
pub async fn status(State(web): State<Arc<Web>>, caller: Caller) -> Result<Json<Value>> {
    caller.may(Role::Admin, None)?;
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "delegate": web.store.delegate_kind(),
        "ready": web.store.is_ready(),
        "partitions": web.store.status(),
    })))
}
