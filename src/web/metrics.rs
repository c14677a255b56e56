//! `/metrics`, for Prometheus: what requests did, counted as they pass, and the state of the store, read when asked.
//!
//! No label ever holds what a client sent: routes are labelled by their pattern.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::Web;
use super::access::{Caller, Role};
use super::problem::Result;
use crate::query::TierChoice;

const REQUEST_SECONDS: &str = "alluvium_http_request_duration_seconds";
const WRITTEN: &str = "alluvium_written_features_total";
const READY: &str = "alluvium_ready";
const APPLIED: &str = "alluvium_applied_position";
const LAG: &str = "alluvium_lag_offsets";
const DURABLE: &str = "alluvium_durable_position";
const INDEX: &str = "alluvium_index_entries";
const IN_FLIGHT: &str = "alluvium_requests_in_flight";
const MEMORY: &str = "alluvium_memory_bytes";
const MEMORY_LIMIT: &str = "alluvium_memory_limit_bytes";
const DELEGATE: &str = "alluvium_persistent_features";
const UNPERSISTED: &str = "alluvium_oldest_unpersisted_seconds";
const UNRESOLVED: &str = "alluvium_unresolved_features";
const SWEPT: &str = "alluvium_swept_features_total";
const FAILURES: &str = "alluvium_persist_failures_total";
const DEAD_LETTERS: &str = "alluvium_dead_letters_total";
const INDEX_BYTES: &str = "alluvium_index_bytes";
const TASK_RESTARTS: &str = "alluvium_task_restarts_total";
const TASK_PANICS: &str = "alluvium_task_panics_total";
const TASK_BACKING_OFF: &str = "alluvium_task_backing_off";
const OWNED: &str = "alluvium_owned_partitions";

/// Writes down what each metric means.
pub fn describe() {
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "Time until an answer's head, by route, method and status");
    describe_counter!(WRITTEN, "Features written by requests, by feature type and action");
    describe_gauge!(READY, "1 when the instance answers reads");
    describe_gauge!(APPLIED, "The offset that this instance has come to, by feature type and partition");
    describe_gauge!(LAG, "Offsets between that and the log's end");
    describe_gauge!(DURABLE, "The offset before which everything is in the long-term store");
    describe_gauge!(INDEX, "Features and tombstones in the transient index, by feature type");
    describe_gauge!(IN_FLIGHT, "Requests for features that are being answered, by kind");
    describe_gauge!(MEMORY, Unit::Bytes, "What the indexes take, and those who read them keep");
    describe_gauge!(MEMORY_LIMIT, Unit::Bytes, "Past soft entries are persisted early, past hard writes are refused");
    describe_gauge!(DELEGATE, "Features that only the long-term store has, by feature type, when counting is quick");
    describe_gauge!(UNPERSISTED, Unit::Seconds, "Age of the oldest change that is not in the long-term store");
    describe_gauge!(UNRESOLVED, "Features whose changes wait for the long-term store to tell what they build on");
    describe_counter!(SWEPT, "Features that this instance has persisted");
    describe_counter!(FAILURES, "Sweeps of this instance that failed");
    describe_counter!(DEAD_LETTERS, "Records of the log that were skipped, by feature type, partition and reason");
    describe_gauge!(INDEX_BYTES, Unit::Bytes, "Rough size of the transient index in memory, by feature type");
    describe_counter!(TASK_RESTARTS, "Failures of background tasks, which are begun again, by task");
    describe_counter!(TASK_PANICS, "Those of them that were faults of the program, by task");
    describe_gauge!(TASK_BACKING_OFF, "1 while a background task that failed waits until it is begun again");
    describe_gauge!(OWNED, "Partitions that this instance sweeps");
}

/// Counts what a request has written.
pub fn written(feature_type: &str, action: &'static str, features: usize) {
    if features > 0 {
        counter!(WRITTEN, "type" => feature_type.to_owned(), "action" => action).increment(features as u64);
    }
}

/// Middleware: times each request until its answer begins, and logs it at level debug.
pub async fn time(request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other".to_owned(), |m| m.as_str().to_owned());
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    let path = tracing::enabled!(tracing::Level::DEBUG).then(|| request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    if let Some(path) = path {
        tracing::debug!(method, path, status, elapsed_ms = begin.elapsed().as_secs_f64() * 1000.0, "request");
    }
    histogram!(REQUEST_SECONDS, "route" => route, "method" => method, "status" => status.to_string())
        .record(begin.elapsed());
    response
}

/// `/metrics`.
pub async fn render(State(web): State<Arc<Web>>, caller: Caller) -> Result<Response> {
    caller.may(Role::Reader, None)?;
    gauge!(READY).set(if web.store.is_ready() { 1.0 } else { 0.0 });
    for (kind, places) in [("reads", &web.places.reads), ("writes", &web.places.writes)] {
        gauge!(IN_FLIGHT, "kind" => kind).set(places.in_flight() as f64);
    }
    let memory = web.store.memory();
    gauge!(MEMORY).set(memory.used as f64);
    gauge!(MEMORY_LIMIT, "limit" => "soft").set(memory.soft_limit as f64);
    gauge!(MEMORY_LIMIT, "limit" => "hard").set(memory.hard_limit as f64);
    let mut owned = 0;
    for p in web.store.status() {
        let labels = [("type", p.feature_type.clone()), ("partition", p.partition.to_string())];
        gauge!(APPLIED, &labels).set(p.applied as f64);
        gauge!(LAG, &labels).set(p.end.saturating_sub(p.applied) as f64);
        gauge!(DURABLE, &labels).set(p.durable_through as f64);
        gauge!(UNPERSISTED, &labels).set(p.oldest_unpersisted_ms as f64 / 1000.0);
        gauge!(UNRESOLVED, &labels).set(p.unresolved as f64);
        counter!(SWEPT, &labels).absolute(p.swept_features);
        counter!(FAILURES, &labels).absolute(p.sweep_failures);
        for (reason, count) in p.dead_letters {
            let [of_type, partition] = labels.clone();
            counter!(DEAD_LETTERS, &[of_type, partition, ("reason", reason.to_owned())]).absolute(count);
        }
        if p.partition == 0 {
            gauge!(INDEX_BYTES, "type" => p.feature_type.clone()).set(p.index_bytes as f64);
            gauge!(INDEX, "type" => p.feature_type.clone()).set(p.index_features as f64);
        }
        owned += u32::from(p.owner);
    }
    gauge!(OWNED).set(f64::from(owned));
    for task in web.store.task_reports() {
        counter!(TASK_RESTARTS, "task" => task.name.clone()).absolute(task.restarts);
        counter!(TASK_PANICS, "task" => task.name.clone()).absolute(task.panics);
        gauge!(TASK_BACKING_OFF, "task" => task.name).set(if task.state == "running" { 0.0 } else { 1.0 });
    }
    for feature_type in web.store.feature_types() {
        let query = crate::query::Query {
            feature_type: feature_type.name.clone(),
            tier: TierChoice::Persistent,
            ..Default::default()
        };
        // A scrape must not wait for a store that is slow or away: then the last number stays.
        if let Ok(Some(n)) = web.store.count(&query, Some(web.server.count_budget / 5)).await {
            gauge!(DELEGATE, "type" => feature_type.name.clone()).set(n as f64);
        }
    }
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, web.metrics.render()).into_response())
}
