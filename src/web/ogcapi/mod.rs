//! OGC API - Features: Part 1 (core), Part 2 (CRS), Part 3 (filters in CQL2), Part 4 (create, replace, update, delete), and the
//! schemas of Part 5.
//!
//! Owns the resource tree and its JSON. The specification's word for a feature type is collection, and only here it is used.

mod bulk;
mod change;
mod collections;
mod download;
mod functions;
mod items;
mod openapi;
mod params;
mod schema;
mod track;
mod write;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::access::Caller;
use super::problem::{Problem, Result};
use super::request::{BaseUrl, Params};
use super::{Web, assets};

pub const JSON: &str = "application/json";
pub const GEOJSON: &str = "application/geo+json";
/// QGIS and OWSLib look for exactly this.
pub const OPENAPI: &str = "application/vnd.oai.openapi+json;version=3.0";
pub const JSON_SCHEMA: &str = "application/schema+json";

/// What holds, and nothing else.
pub const CONFORMANCE: &[&str] = &[
    "http://www.opengis.net/spec/ogcapi-common-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-common-1/1.0/conf/landing-page",
    "http://www.opengis.net/spec/ogcapi-common-1/1.0/conf/json",
    "http://www.opengis.net/spec/ogcapi-common-1/1.0/conf/oas30",
    "http://www.opengis.net/spec/ogcapi-common-2/1.0/conf/collections",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/oas30",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
    "http://www.opengis.net/spec/ogcapi-features-2/1.0/conf/crs",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/queryables",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/queryables-query-parameters",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-cql2",
    "http://www.opengis.net/spec/cql2/1.0/conf/advanced-comparison-operators",
    "http://www.opengis.net/spec/cql2/1.0/conf/case-insensitive-comparison",
    "http://www.opengis.net/spec/cql2/1.0/conf/accent-insensitive-comparison",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-spatial-functions",
    // Its name in the drafts, by which QGIS before 3.44 knows it.
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-spatial-operators",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-spatial-functions-plus",
    "http://www.opengis.net/spec/cql2/1.0/conf/spatial-functions",
    "http://www.opengis.net/spec/cql2/1.0/conf/temporal-functions",
    "http://www.opengis.net/spec/cql2/1.0/conf/property-property",
    "http://www.opengis.net/spec/cql2/1.0/conf/functions",
    "http://www.opengis.net/spec/cql2/1.0/conf/arithmetic",
    "http://www.opengis.net/spec/ogcapi-features-4/1.0/conf/create-replace-delete",
    "http://www.opengis.net/spec/ogcapi-features-4/1.0/conf/update",
    "http://www.opengis.net/spec/ogcapi-features-4/1.0/conf/features",
    // Part 5 has two spellings in the wild.
    "http://www.opengis.net/spec/ogcapi-common-3/1.0/conf/schemas",
    "http://www.opengis.net/spec/ogcapi-features-5/1.0/conf/schemas",
];

pub fn router() -> Router<Arc<Web>> {
    const READ: &str = "GET, HEAD, OPTIONS";
    let options = || async { allow(READ) };
    Router::new()
        .route("/", get(landing_page).options(options))
        .route("/conformance", get(conformance).options(options))
        .route("/api", get(openapi::document).options(options))
        .route("/collections", get(collections::list).post(collections::create).options(collections::list_options))
        .route(
            "/collections/{collection}",
            get(collections::one).patch(change::change).delete(collections::remove).options(collections::one_options),
        )
        .route("/functions", get(functions::functions).options(options))
        .route("/collections/{collection}/schema", get(schema::schema).options(options))
        .route("/collections/{collection}/queryables", get(schema::queryables).options(options))
        .route("/collections/{collection}/items", get(items::list).post(write::create).options(write::items_options))
        .route(
            "/collections/{collection}/items/{id}",
            get(items::one).put(write::replace).patch(write::update).delete(write::remove).options(write::item_options),
        )
        .route("/collections/{collection}/items/{id}/track", post(track::append).options(track::options))
        .route("/collections/{collection}/track", post(track::append_lines).options(track::options))
}

/// The answer to OPTIONS: 200, since QGIS takes nothing else, and what is allowed.
fn allow(methods: &'static str) -> Response {
    (StatusCode::OK, [(header::ALLOW, methods)]).into_response()
}

/// A link object.
fn link(href: impl std::fmt::Display, rel: &str, media_type: &str, title: &str) -> Value {
    json!({ "href": href.to_string(), "rel": rel, "type": media_type, "title": title })
}

/// JSON that must not be served from an old copy: QGIS keeps descriptions for a day when nothing is said.
fn fresh_json(media_type: &'static str, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-cache")];
    (headers, body.to_string()).into_response()
}

/// `/`: the map page for those who ask for HTML, else the landing page of the API.
async fn landing_page(
    State(web): State<Arc<Web>>,
    base: BaseUrl,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    params.only(&["f"])?;
    let html = match params.get("f") {
        None => prefers_html(&headers),
        Some("html") => true,
        Some("json") => false,
        Some(other) => return Err(Problem::parameter("f", format!("f: '{other}' is not json or html"))),
    };
    let mut response = if html { assets::page(&headers) } else { fresh_json(JSON, &landing(&web, &base)) };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

fn landing(web: &Web, base: &BaseUrl) -> Value {
    json!({
        "title": web.service.title,
        "description": web.service.description,
        "delegate": web.store.delegate_kind(),
        "links": [
            link(format!("{base}/?f=json"), "self", JSON, "This document"),
            link(format!("{base}/?f=html"), "alternate", "text/html", "The map"),
            link(format!("{base}/api"), "service-desc", OPENAPI, "The API's definition (OpenAPI 3.0)"),
            link(format!("{base}/conformance"), "conformance", JSON, "Conformance classes"),
            link(
                format!("{base}/conformance"),
                "http://www.opengis.net/def/rel/ogc/1.0/conformance",
                JSON,
                "Conformance classes",
            ),
            link(
                format!("{base}/functions"),
                "http://www.opengis.net/def/rel/ogc/1.0/functions",
                JSON,
                "The functions of filters",
            ),
            link(format!("{base}/collections"), "data", JSON, "The collections"),
            link(
                format!("{base}/collections"),
                "http://www.opengis.net/def/rel/ogc/1.0/data",
                JSON,
                "The collections",
            ),
        ],
    })
}

/// `/conformance`.
async fn conformance(params: Params, headers: HeaderMap) -> Result<Json<Value>> {
    json_only(&params, &headers, &["f"])?;
    Ok(Json(json!({ "conformsTo": CONFORMANCE })))
}

/// Checks the parameters of a resource that there is in JSON alone.
fn json_only(params: &Params, headers: &HeaderMap, known: &[&str]) -> Result<()> {
    params.only(known)?;
    match params.get("f") {
        None => accepts(headers, &[JSON, GEOJSON, JSON_SCHEMA, OPENAPI]),
        Some("json" | "geojson") => Ok(()),
        Some(other) => Err(Problem::parameter("f", format!("f: '{other}' is not a format of this resource: json"))),
    }
}

/// 406 when the request's `Accept` rules out all of `offered`.
fn accepts(headers: &HeaderMap, offered: &[&str]) -> Result<()> {
    let ranges: Vec<(String, f32)> = media_ranges(headers);
    let suits = |range: &str| {
        range == "*/*"
            || offered.iter().any(|o| {
                let o = o.split(';').next().unwrap_or(o);
                range == o || range.strip_suffix("/*").is_some_and(|kind| o.split('/').next() == Some(kind))
            })
    };
    // A browser's wish for HTML is met by JSON, as its list goes on with */*.
    if ranges.is_empty() || ranges.iter().any(|(range, q)| *q > 0.0 && suits(range)) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::NOT_ACCEPTABLE, format!("this resource is there as {}", offered.join(", "))))
}

/// True when HTML is named and nothing of ours is preferred to it.
fn prefers_html(headers: &HeaderMap) -> bool {
    prefers(headers, &["text/html", "application/xhtml+xml"], &[JSON, GEOJSON])
}

/// True when `Accept` names one of these media types, and none of the others with more weight.
fn prefers(headers: &HeaderMap, these: &[&str], others: &[&str]) -> bool {
    let ranges = media_ranges(headers);
    let weight = |names: &[&str]| {
        ranges.iter().filter(|(range, _)| names.contains(&range.as_str())).map(|(_, q)| *q).fold(0.0, f32::max)
    };
    weight(these) > 0.0 && weight(these) >= weight(others)
}

/// The media ranges of `Accept`, without their parameters, with their quality.
fn media_ranges(headers: &HeaderMap) -> Vec<(String, f32)> {
    let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|v| v.to_str().ok());
    let range = |part: &str| {
        let mut pieces = part.split(';').map(str::trim);
        let name = pieces.next().filter(|n| !n.is_empty())?.to_ascii_lowercase();
        let quality = pieces.find_map(|p| p.strip_prefix("q=")?.parse().ok());
        Some((name, quality.unwrap_or(1.0)))
    };
    values.flat_map(|v| v.split(',')).filter_map(range).collect()
}

/// What the caller may do with a collection's items, for `Allow`.
fn may_write(caller: &Caller, ft: &crate::model::FeatureType) -> bool {
    ft.check_writable().is_ok() && caller.can(super::access::Role::Editor, Some(&ft.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())])
    }

    #[test]
    fn a_browser_gets_the_page_and_a_client_json() {
        assert!(prefers_html(&accept("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")));
        for other in ["*/*", "application/json", "application/json, text/html;q=0.5", "application/geo+json, */*"] {
            assert!(!prefers_html(&accept(other)), "{other}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn what_nobody_wants_is_not_acceptable() {
        for good in [
            "*/*",
            "application/*",
            "application/geo+json;q=0.1",
            "image/png, */*;q=0.1",
            "application/geo+json, application/json",
        ] {
            assert!(accepts(&accept(good), &[GEOJSON]).is_ok(), "{good}");
        }
        for bad in ["image/png", "application/geo+json;q=0", "text/*"] {
            assert!(accepts(&accept(bad), &[GEOJSON]).is_err(), "{bad}");
        }
    }
}
