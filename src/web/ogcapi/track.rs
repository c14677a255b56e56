//! Appending fixes to tracks: to one at `/collections/{collection}/items/{id}/track`, to many, as a stream of lines, at
//! `/collections/{collection}/track`. No part of OGC API - Features, which knows whole features only.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;

use super::write::{content_crs, done, media_type, no_content, one_action, path_id, unsupported, writable};
use super::{JSON, allow, bulk};
use crate::format::geojson::{FeatureReader, ParseError, Unknown};
use crate::model::{FeatureType, Position};
use crate::store::ActionKind;
use crate::web::access::Caller;
use crate::web::problem::{Problem, Result};
use crate::web::request::{Params, Path, whole_body};
use crate::web::{Web, metrics};

/// `POST /collections/{collection}/items/{id}/track`: one fix or several, in any order; the first makes the track.
pub async fn append(
    State(web): State<Arc<Web>>,
    Path((collection, id)): Path<(String, String)>,
    caller: Caller,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let ft = of_tracks(writable(&web, &caller, &collection, &params)?)?;
    let id = path_id(&id)?;
    let crs = content_crs(&ft, &headers)?;
    let media_type = media_type(&headers);
    if !matches!(media_type.as_str(), "" | JSON) {
        return Err(unsupported(&media_type, HeaderName::from_static("accept-post"), JSON));
    }
    let body = whole_body(body, web.server.max_body_bytes, web.server.idle_timeout).await?;
    let append = FeatureReader::new(&ft, Some(&crs), Unknown::Refuse).append(&body, Some(&id))?;
    ft.check_append(&append).map_err(ParseError::from)?;
    let fixes = append.fixes.len();
    let kind = ActionKind::Append { appends: vec![append] };
    let written = web.store.write(one_action(&collection, kind, Position::default())).await?;
    metrics::written(&collection, "append", fixes);
    Ok(done(no_content(&written), &written, []))
}

/// `POST /collections/{collection}/track`: a line per fix, or per several of one track, each with the track's `id`.
pub async fn append_lines(
    State(web): State<Arc<Web>>,
    Path(collection): Path<String>,
    caller: Caller,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let ft = of_tracks(writable(&web, &caller, &collection, &params)?)?;
    let crs = content_crs(&ft, &headers)?;
    let media_type = media_type(&headers);
    match bulk::Separator::of(&media_type) {
        Some(separator) => bulk::upload(&web, &ft, &crs, separator, bulk::Content::Fixes, body).await,
        None => {
            let offered = bulk::MEDIA_TYPES[0];
            Err(unsupported(&media_type, HeaderName::from_static("accept-post"), offered))
        }
    }
}

/// `OPTIONS` of both.
pub async fn options() -> Response {
    allow("POST, OPTIONS")
}

fn of_tracks(ft: Arc<FeatureType>) -> Result<Arc<FeatureType>> {
    match ft.track {
        Some(_) => Ok(ft),
        None => Err(Problem::not_found(format!("the features of the collection '{}' are no tracks", ft.name))),
    }
}
