//! The files of `static/`, compiled in: the map page and what it needs.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use super::problem::Problem;
use super::request::{Path, text};

#[derive(RustEmbed)]
#[folder = "static/"]
struct Static;

/// `/static/*`.
pub async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    serve(&path, &headers)
}

/// The map page.
pub fn page(headers: &HeaderMap) -> Response {
    serve("index.html", headers)
}

fn serve(path: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Static::get(path) else {
        return Problem::not_found(format!("there is no file '{path}' here")).into_response();
    };
    let hash = file.metadata.sha256_hash();
    let tag: String = hash[..16].iter().map(|b| format!("{b:02x}")).collect();
    let etag = format!("\"{tag}\"");
    let known = text(headers, "if-none-match").is_some_and(|tags| matches(tags, &etag));
    // The names carry no version: ask again each time, which costs nothing when nothing has changed.
    let common = [(header::CACHE_CONTROL, "no-cache".to_owned()), (header::ETAG, etag)];
    if known {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static(media_type(path)));
    match file.data {
        Cow::Borrowed(bytes) => (common, [content_type], bytes).into_response(),
        Cow::Owned(bytes) => (common, [content_type], bytes).into_response(),
    }
}

/// Whether a list of entity tags, or `*`, has this one; weak ones count as the same (RFC 9110 §13.1.2).
pub fn matches(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == etag)
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "json" => "application/json",
        "png" => "image/png",
        "md" | "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
