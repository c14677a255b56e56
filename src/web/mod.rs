//! What clients see: OGC API - Features, WFS, the map page, health, metrics. It knows the store and nothing below it.
//!
//! Owns the protocols' spelling of requests, answers and errors; does not own what they mean. Each protocol maps the store's
//! errors in one place of its own.

pub mod access;
mod admin;
mod assets;
mod cors;
mod health;
mod in_flight;
pub mod listener;
pub mod metrics;
pub mod ogcapi;
pub mod problem;
pub mod request;
pub mod starting;
pub mod wfs;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::decompression::RequestDecompressionLayer;

use crate::clock::Clock;
use crate::config;
use crate::model::FeatureType;
use crate::store::Store;
use crate::task::panic_text;
use access::{Access, Caller, Role};
pub use in_flight::Places;
use problem::Problem;

/// What the handlers of all protocols share.
pub struct Web {
    pub store: Arc<Store>,
    pub clock: Arc<dyn Clock>,
    pub server: config::Server,
    pub service: config::Service,
    pub access: Arc<Access>,
    pub places: Places,
    pub metrics: PrometheusHandle,
}

impl Web {
    /// The feature types that the caller may read.
    pub fn feature_types(&self, caller: &Caller) -> Vec<Arc<FeatureType>> {
        let mut all = self.store.feature_types();
        all.retain(|t| caller.can(Role::Reader, Some(&t.name)));
        all
    }

    /// One that the caller may read, as answers show it; an unknown one is 404.
    pub fn feature_type(&self, caller: &Caller, name: &str) -> problem::Result<Arc<FeatureType>> {
        caller.may(Role::Reader, Some(name))?;
        let ft = self.store.feature_type(name);
        let ft = ft.ok_or_else(|| Problem::not_found(format!("there is no collection '{name}'")))?;
        Ok(with_decimals(&ft, ft.decimals.or(self.server.decimals)))
    }
}

/// The type with so many decimals in its answers.
fn with_decimals(ft: &Arc<FeatureType>, decimals: Option<u8>) -> Arc<FeatureType> {
    match decimals == ft.decimals {
        true => ft.clone(),
        false => Arc::new(FeatureType { decimals, ..(**ft).clone() }),
    }
}

/// Every route, with what all of them go through.
pub fn router(web: Arc<Web>) -> Router {
    metrics::describe();
    let compressible = DefaultPredicate::new()
        .and(NotForContentType::new("text/event-stream"))
        .and(NotForContentType::new("application/zip"));
    let compression = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(compressible);
    Router::new()
        .merge(ogcapi::router())
        .merge(wfs::router())
        .route("/static/{*path}", get(assets::file))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::render))
        .route("/admin/status", get(admin::status))
        .route("/admin/dead-letters", get(admin::dead_letters))
        .route("/admin/backup", get(admin::backup))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(web.clone(), in_flight::admit))
        .layer(DefaultBodyLimit::max(web.server.max_body_bytes))
        .layer(RequestDecompressionLayer::new())
        .layer(compression)
        .layer(from_fn_with_state(web.clone(), request::context))
        .layer(from_fn_with_state(web.clone(), request::settle_body))
        .layer(from_fn_with_state(web.clone(), cors::cross_origin))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(metrics::time))
        .with_state(web)
}

async fn nothing_here(request: Request) -> Problem {
    Problem::not_found(format!("there is nothing at {}", request.uri().path()))
}

async fn wrong_method(request: Request) -> Problem {
    let what = format!("{} has no method {}", request.uri().path(), request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, what)
}

/// A fault of ours: the client learns no more than that.
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!(panic = panic_text(&*panic), "a request failed by a fault of the server's");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of the server's").into_response()
}
