//! For orchestrators and load balancers: is the process alive, may it be asked.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Web;

/// `/health/live`: the process serves. Nothing is looked at.
pub async fn live() -> &'static str {
    "alive\n"
}

/// `/health/ready`: 200 once every feature type has caught up with what its log was at the start; before, 503. Tells which
/// background tasks have failed and wait, which alone is no reason to send requests elsewhere.
pub async fn ready(State(web): State<Arc<Web>>) -> Response {
    let mut failing = String::new();
    for task in web.store.task_reports().into_iter().filter(|t| t.state != "running") {
        let error = task.last_error.unwrap_or_default();
        failing += &format!("{}: {}, {} restarts, {error}\n", task.name, task.state, task.restarts);
    }
    if web.store.is_ready() {
        return format!("ready\n{failing}").into_response();
    }
    let mut text = format!("not ready\n{failing}");
    for p in web.store.status().iter().filter(|p| !p.ready) {
        text += &format!("{} partition {}: at {} of {}", p.feature_type, p.partition, p.applied, p.end);
        if let Some(error) = &p.last_error {
            text += &format!(", {error}");
        }
        text.push('\n');
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, HeaderValue::from_static("1"))], text).into_response()
}
