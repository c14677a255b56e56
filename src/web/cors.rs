//! Cross-origin requests of web pages. Ours, since tower-http's layer answers every OPTIONS request itself, without `Allow`,
//! and QGIS asks OPTIONS to learn what it may do.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Web;
use super::request::text;

const EXPOSED: &str = "Alluvium-Position, Alluvium-Tier, Alluvium-Unresolved, Allow, Content-Crs, ETag, Last-Modified, \
    Link, Location, OGC-Content-Crs, OGC-NumberMatched, OGC-NumberReturned, Retry-After";
const ALLOWED_HEADERS: &str = "Accept, Accept-Language, Alluvium-Position, Authorization, Content-Crs, Content-Type, \
    If-Match, If-Modified-Since, If-None-Match, If-Unmodified-Since, Last-Event-ID, OGC-Content-Crs, Prefer, X-API-Key";
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Middleware: answers pre-flight requests, and lets pages read answers where [`super::access`] allows their origin.
pub async fn cross_origin(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let Some(origin) = text(request.headers(), "origin").map(str::to_owned) else {
        let mut response = next.run(request).await;
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
        return response;
    };
    let allowed = web.access.may_read_across(&origin);
    let preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut headers = HeaderMap::new();
        headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        (StatusCode::NO_CONTENT, headers).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if allowed && let Ok(origin) = HeaderValue::try_from(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}
