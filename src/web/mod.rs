//! What clients see: OGC API - Features, WFS, the map page, health, metrics. It knows the store and nothing below it.

pub mod health;
pub mod listener;
pub mod problem;

use axum::Router;
use axum::routing::get;

/// Every route.
pub fn router() -> Router {
    Router::new().route("/health/live", get(health::live))
}
