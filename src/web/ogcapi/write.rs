//! Writing items (Part 4): a feature or a FeatureCollection as one transaction, replacing, patching and deleting one feature.
//! Uploads of lines are in [`super::bulk`].

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::items::{no_item, version_of, version_tag};
use super::params::{crs_of, not_offered};
use super::{JSON, allow, bulk, may_write};
use crate::format::geojson::{FeatureReader, ParseError, Unknown};
use crate::model::crs::CrsRef;
use crate::model::position::partition_of;
use crate::model::{Change, Expected, Feature, FeatureId, FeatureType, Offset, check_id, no_id};
use crate::query::Filter;
use crate::store::{Action, ActionKind, Existing, FeatureChanges, Transaction, WriteError, Written};
use crate::web::access::{Caller, Role};
use crate::web::problem::{Problem, Result};
use crate::web::request::{AtLeast, BaseUrl, Params, Path, encoded, position_header, text, whole_body};
use crate::web::{Web, metrics};

const GEOJSON_TYPES: &[&str] = &["application/geo+json", "application/json", "application/vnd.geo+json"];
pub const MERGE_PATCH: &str = "application/merge-patch+json";

/// `POST /collections/{collection}/items`.
pub async fn create(
    State(web): State<Arc<Web>>,
    Path(collection): Path<String>,
    caller: Caller,
    base: BaseUrl,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let ft = writable(&web, &caller, &collection, &params)?;
    let crs = content_crs(&ft, &headers)?;
    let media_type = media_type(&headers);
    if let Some(separator) = bulk::Separator::of(&media_type) {
        return bulk::upload(&web, &ft, &crs, separator, bulk::Content::Features, body).await;
    }
    if !media_type.is_empty() && !GEOJSON_TYPES.contains(&media_type.as_str()) {
        let offered = format!("{}, {}", GEOJSON_TYPES[..2].join(", "), bulk::MEDIA_TYPES.join(", "));
        return Err(unsupported(&media_type, HeaderName::from_static("accept-post"), &offered));
    }
    let body = whole_body(body, web.server.max_body_bytes, web.server.idle_timeout).await?;
    let (type_of_body, crs_of_body) = (ft.clone(), crs.clone());
    let parsed = off_thread(body.len(), move || parse_features(&type_of_body, &crs_of_body, &body)).await?;
    let count = parsed.features.len();
    let written = if parsed.single && parsed.named {
        create_one(&web, &collection, parsed.features).await?
    } else {
        let existing = if parsed.named { Existing::Refuse } else { Existing::Replace };
        insert(&web, &collection, parsed.features, existing).await?
    };
    metrics::written(&collection, "insert", count);
    let ids = &written.ids[0];
    let status = if written.applied { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let items = format!("{base}/collections/{collection}/items");
    match ids.first().filter(|_| parsed.single) {
        Some(id) => {
            let mut response = done(status, &written, [(header::LOCATION, format!("{items}/{}", encoded(id)))]);
            response.headers_mut().extend(etag_of_change(&ft, id, &written));
            Ok(response)
        }
        None => {
            let summary = json!({ "inserted": ids.len(), "ids": ids.iter().map(|id| &**id).collect::<Vec<_>>() });
            let mut response = done(status, &written, [(header::CONTENT_TYPE, JSON.to_owned())]);
            *response.body_mut() = Body::from(summary.to_string());
            Ok(response)
        }
    }
}

/// `PUT /collections/{collection}/items/{id}`: creates or replaces, without a look-up. `If-None-Match: *` only creates, `If-Match`
/// only replaces.
pub async fn replace(
    State(web): State<Arc<Web>>,
    Path((collection, id)): Path<(String, String)>,
    caller: Caller,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let ft = writable(&web, &caller, &collection, &params)?;
    let id = path_id(&id)?;
    let crs = content_crs(&ft, &headers)?;
    let media_type = media_type(&headers);
    if !media_type.is_empty() && !GEOJSON_TYPES.contains(&media_type.as_str()) {
        return Err(unsupported(&media_type, header::ACCEPT, &GEOJSON_TYPES[..2].join(", ")));
    }
    let expected = expected(&ft, &headers)?;
    let body = whole_body(body, web.server.max_body_bytes, web.server.idle_timeout).await?;
    let parsed = FeatureReader::new(&ft, Some(&crs), Unknown::Refuse).feature(&body)?;
    let feature = parsed.into_feature(id);
    let written = match expected {
        None => insert(&web, &collection, vec![feature], Existing::Replace).await?,
        Some(expected) => web.store.write_if(&collection, expected, Change::Put(Arc::new(feature))).await?,
    };
    metrics::written(&collection, "replace", 1);
    Ok(done(no_content(&written), &written, []))
}

/// `PATCH /collections/{collection}/items/{id}`: a merge patch (RFC 7396) of a GeoJSON feature, or of the flat form that the
/// schema describes.
pub async fn update(
    State(web): State<Arc<Web>>,
    Path((collection, id)): Path<(String, String)>,
    caller: Caller,
    AtLeast(at_least): AtLeast,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let ft = writable(&web, &caller, &collection, &params)?;
    let id = path_id(&id)?;
    let crs = content_crs(&ft, &headers)?;
    let media_type = media_type(&headers);
    if !(media_type.is_empty() || media_type == MERGE_PATCH || GEOJSON_TYPES.contains(&media_type.as_str())) {
        return Err(unsupported(&media_type, HeaderName::from_static("accept-patch"), MERGE_PATCH));
    }
    let expected = expected(&ft, &headers)?;
    let body = whole_body(body, web.server.max_body_bytes, web.server.idle_timeout).await?;
    let changes = FeatureReader::new(&ft, Some(&crs), Unknown::Refuse).changes(&body)?;
    if changes.id.is_some_and(|other| other != id) {
        return Err(Problem::at("/id", "a feature's id cannot be changed"));
    }
    let changes = FeatureChanges { geometry: changes.geometry, properties: changes.properties };
    let written = match expected {
        None => {
            let kind = ActionKind::Update { filter: Filter::ids([id.clone()]), changes };
            web.store.write(one_action(&collection, kind, at_least)).await?
        }
        Some(expected) => web.store.write_if(&collection, expected, Change::Patch(changes.patch(id.clone()))).await?,
    };
    found(&written, &collection, &id)?;
    metrics::written(&collection, "update", 1);
    let mut response = done(no_content(&written), &written, []);
    response.headers_mut().extend(etag_of_change(&ft, &id, &written));
    Ok(response)
}

/// `DELETE /collections/{collection}/items/{id}`.
pub async fn remove(
    State(web): State<Arc<Web>>,
    Path((collection, id)): Path<(String, String)>,
    caller: Caller,
    AtLeast(at_least): AtLeast,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    let ft = writable(&web, &caller, &collection, &params)?;
    let id = path_id(&id)?;
    let written = match expected(&ft, &headers)? {
        None => {
            let kind = ActionKind::Delete { filter: Filter::ids([id.clone()]) };
            web.store.write(one_action(&collection, kind, at_least)).await?
        }
        Some(expected) => web.store.write_if(&collection, expected, Change::Delete(id.clone())).await?,
    };
    found(&written, &collection, &id)?;
    metrics::written(&collection, "delete", 1);
    Ok(done(no_content(&written), &written, []))
}

/// `OPTIONS /collections/{collection}/items`: what this caller may do.
pub async fn items_options(
    State(web): State<Arc<Web>>,
    Path(collection): Path<String>,
    caller: Caller,
) -> Result<Response> {
    let ft = web.feature_type(&caller, &collection)?;
    Ok(allow(if may_write(&caller, &ft) { "GET, HEAD, POST, OPTIONS" } else { "GET, HEAD, OPTIONS" }))
}

/// `OPTIONS /collections/{collection}/items/{id}`: the same whether there is such a feature or not, since QGIS asks with an id
/// that it made up when the collection is empty.
pub async fn item_options(
    State(web): State<Arc<Web>>,
    Path((collection, _)): Path<(String, String)>,
    caller: Caller,
) -> Result<Response> {
    let ft = web.feature_type(&caller, &collection)?;
    let methods = "GET, HEAD, PUT, PATCH, DELETE, OPTIONS";
    Ok(allow(if may_write(&caller, &ft) { methods } else { "GET, HEAD, OPTIONS" }))
}

/// The collection, if the caller may write in it.
pub fn writable(web: &Web, caller: &Caller, collection: &str, params: &Params) -> Result<Arc<FeatureType>> {
    let ft = web.feature_type(caller, collection)?;
    caller.may(Role::Editor, Some(collection))?;
    ft.check_writable().map_err(|e| Problem::new(StatusCode::FORBIDDEN, e.what))?;
    params.only(&[])?;
    Ok(ft)
}

pub fn path_id(id: &str) -> Result<FeatureId> {
    check_id(id).map_err(|e| Problem::bad_request(e.to_string()))
}

/// `Content-Type` without its parameters.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = text(headers, "content-type").unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The CRS of the body: `Content-Crs`, with or without brackets; CRS84 when there is none.
pub fn content_crs(ft: &FeatureType, headers: &HeaderMap) -> Result<CrsRef> {
    let uri = text(headers, "content-crs").or_else(|| text(headers, "ogc-content-crs"));
    let Some(uri) = uri else { return Ok(CrsRef::crs84()) };
    crs_of(ft, uri).ok_or_else(|| Problem::bad_request(format!("Content-Crs: {}", not_offered(ft, uri))))
}

pub fn unsupported(media_type: &str, header: HeaderName, offered: &str) -> Problem {
    let what = format!("'{media_type}' is not taken here, but {offered}");
    let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
    match HeaderValue::try_from(offered) {
        Ok(value) => problem.with_header(header, value),
        Err(_) => problem,
    }
}

/// What `If-Match` or `If-None-Match` expect of the feature (RFC 9110, 13.1). The log decides whether it holds, and no other writer
/// comes in between.
fn expected(ft: &FeatureType, headers: &HeaderMap) -> Result<Option<Expected>> {
    match (text(headers, "if-match"), text(headers, "if-none-match")) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Problem::bad_request("If-Match and If-None-Match: one of them, not both")),
        (None, Some("*")) => Ok(Some(Expected::Absent)),
        (None, Some(_)) => Err(Problem::bad_request("If-None-Match: only '*' has a meaning here")),
        (Some(tags), None) if tags.trim() == "*" => Ok(Some(Expected::Present)),
        (Some(tags), None) => {
            let versions: Vec<Offset> = tags.split(',').filter_map(|tag| version_of(ft, tag.trim())).collect();
            if versions.is_empty() {
                let why = "If-Match names no version that this feature type has ever had";
                return Err(Problem::new(StatusCode::PRECONDITION_FAILED, why));
            }
            Ok(Some(Expected::OneOf(versions)))
        }
    }
}

/// What a body of GeoJSON holds.
#[derive(Debug)]
struct Parsed {
    features: Vec<Feature>,
    /// A Feature, not a FeatureCollection.
    single: bool,
    /// At least one had an id.
    named: bool,
}

fn parse_features(ft: &FeatureType, crs: &CrsRef, body: &[u8]) -> std::result::Result<Parsed, ParseError> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        kind: Option<std::borrow::Cow<'a, str>>,
    }
    let kind = serde_json::from_slice::<Kind<'_>>(body).ok().and_then(|k| k.kind);
    let mut parsed = Parsed { features: Vec::new(), single: kind.as_deref() == Some("Feature"), named: false };
    FeatureReader::new(ft, Some(crs), Unknown::Refuse).collection(body, |_, feature| {
        parsed.named |= feature.id.is_some();
        let id = feature.id.clone().unwrap_or_else(no_id);
        let mut feature = feature.into_feature(id);
        ft.check(&mut feature)?;
        parsed.features.push(feature);
        Ok(())
    })?;
    Ok(parsed)
}

/// Runs work that takes long for `bytes` of input where it does not keep others from being served.
async fn off_thread<T: Send + 'static, E: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T>
where
    Problem: From<E>,
{
    const AT_ONCE: usize = 256 * 1024;
    if bytes <= AT_ONCE {
        return Ok(work()?);
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of the server's")),
    }
}

/// Creates the one feature unless there is one of its id.
async fn create_one(web: &Web, collection: &str, features: Vec<Feature>) -> std::result::Result<Written, WriteError> {
    let Some(feature) = features.into_iter().next() else { return Ok(Written::default()) };
    let id = feature.id.clone();
    let put = Change::Put(Arc::new(feature));
    web.store.write_if(collection, Expected::Absent, put).await.map_err(|e| match e {
        WriteError::NotAsExpected { feature_type, .. } => WriteError::Exists { feature_type, id },
        e => e,
    })
}

async fn insert(
    web: &Web,
    collection: &str,
    features: Vec<Feature>,
    existing: Existing,
) -> std::result::Result<Written, WriteError> {
    let kind = ActionKind::Insert { features, existing };
    web.store.write(one_action(collection, kind, crate::model::Position::default())).await
}

pub fn one_action(collection: &str, kind: ActionKind, at_least: crate::model::Position) -> Transaction {
    Transaction { actions: vec![Action { feature_type: collection.to_owned(), kind }], at_least }
}

fn found(written: &Written, collection: &str, id: &str) -> Result<()> {
    if written.ids.iter().all(Vec::is_empty) { Err(no_item(collection, id)) } else { Ok(()) }
}

/// 202 where the change is durable, but not to be seen here yet.
pub fn no_content(written: &Written) -> StatusCode {
    if written.applied { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED }
}

pub fn done<const N: usize>(status: StatusCode, written: &Written, headers: [(HeaderName, String); N]) -> Response {
    let mut response = (status, headers).into_response();
    response.headers_mut().extend(position_header(&written.position));
    response
}

/// The version that the one change of a write has made. PUT does not tell it: its entity tag would say that the body was kept
/// as it came (RFC 9110, 9.3.4), and answers have links besides.
fn etag_of_change(ft: &FeatureType, id: &str, written: &Written) -> Option<(HeaderName, HeaderValue)> {
    let ends = written.position.offsets(&ft.name, &ft.incarnation).ok()??;
    let end = ends.get(partition_of(id, ft.partitions) as usize)?;
    let tag = version_tag(ft, end.checked_sub(1)?, &CrsRef::crs84());
    Some((header::ETAG, HeaderValue::try_from(tag).ok()?))
}

impl From<ParseError> for Problem {
    fn from(e: ParseError) -> Self {
        Problem::at(e.pointer, e.message)
    }
}
