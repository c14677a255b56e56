//! Reading items: a page of a collection as a streamed FeatureCollection, and single features. As FlatGeobuf: [`super::download`].

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use super::params::{ItemsRequest, PageSize, encode_cursor, requested_crs};
use super::{GEOJSON, JSON, accepts, download, link, prefers};
use crate::format::flatgeobuf::MEDIA_TYPE as FLATGEOBUF;
use crate::format::geojson::{Closing, CollectionFrame, FeatureWriter, Options};
use crate::model::crs::CrsRef;
use crate::model::{Feature, FeatureType, Offset};
use crate::query::{Cursor, Query};
use crate::store::{Item, ReadError, Reading};
use crate::web::Web;
use crate::web::access::Caller;
use crate::web::assets;
use crate::web::problem::{Problem, Result};
use crate::web::request::{AtLeast, BaseUrl, Params, Path, encoded, position_header, text};

const CONTENT_CRS: HeaderName = HeaderName::from_static("content-crs");
/// Where a feature is kept at the moment: `transient` or `persistent`.
const TIER: HeaderName = HeaderName::from_static("alluvium-tier");
/// How many features an answer leaves out: see [`Reading::left_out`].
const UNRESOLVED: HeaderName = HeaderName::from_static("alluvium-unresolved");
const NUMBER_MATCHED: HeaderName = HeaderName::from_static("ogc-numbermatched");
const NUMBER_RETURNED: HeaderName = HeaderName::from_static("ogc-numberreturned");

/// An answer goes out in pieces of about this many bytes.
pub const PIECE: usize = 64 * 1024;

/// `GET /collections/{collection}/items`.
pub async fn list(
    State(web): State<Arc<Web>>,
    Path(collection): Path<String>,
    caller: Caller,
    base: BaseUrl,
    AtLeast(at_least): AtLeast,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    let ft = web.feature_type(&caller, &collection)?;
    if asks_for_flatgeobuf(&params, &headers) {
        let size = PageSize { default: u64::MAX, most: u64::MAX };
        let request = ItemsRequest::read(&ft, &params, size, at_least)?;
        return download::flatgeobuf(&web, ft, request).await;
    }
    check_format(&params, &headers, &["geojson", "json", "flatgeobuf"])?;
    let size = PageSize { default: web.server.default_limit_of(&ft), most: web.server.max_limit_of(&ft) };
    let request = ItemsRequest::read(&ft, &params, size, at_least)?;
    let crs = request.crs.clone();
    let mut page = Page::open(web, ft, base, params, request).await?;
    let common = common_headers(&page.reading, &crs);

    // The first piece is made before the head goes out, so that a failure up to here has its status, and a small answer its
    // length and its numbers.
    let mut first = Vec::with_capacity(PIECE + PIECE / 4);
    let done = page.fill(&mut first).await.map_err(Problem::from)?;
    let (body, numbers) = match done {
        Some(numbers) => (Body::from(first), Some(numbers)),
        None => (Body::from_stream(pieces(first, page)), None),
    };
    let mut response = (common, [(header::CONTENT_TYPE, GEOJSON)], body).into_response();
    if let Some(numbers) = numbers {
        let headers = response.headers_mut();
        headers.insert(NUMBER_RETURNED, numbers.returned.into());
        headers.extend(numbers.matched.map(|n| (NUMBER_MATCHED, n.into())));
    }
    Ok(response)
}

/// What the head of an answer says in any format.
pub fn common_headers(reading: &Reading, crs: &CrsRef) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_CRS, content_crs(crs)),
    ]);
    headers.extend(position_header(&reading.position));
    if reading.left_out > 0 {
        headers.insert(UNRESOLVED, reading.left_out.into());
    }
    headers
}

/// The rest of an answer. A failure breaks it off, so that the client notices.
fn pieces(first: Vec<u8>, page: Page) -> impl stream::Stream<Item = std::result::Result<Bytes, ReadError>> + Send {
    let rest = stream::try_unfold(Some(page), |page| async {
        let Some(mut page) = page else { return Ok(None) };
        let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
        let done = page.fill(&mut piece).await?;
        Ok(Some((Bytes::from(piece), done.is_none().then_some(page))))
    });
    let rest = rest.inspect_err(|error: &ReadError| tracing::warn!(%error, "an answer was broken off"));
    stream::once(async { Ok(Bytes::from(first)) }).chain(rest)
}

/// What `f` says goes before what `Accept` says.
fn asks_for_flatgeobuf(params: &Params, headers: &HeaderMap) -> bool {
    params.get("f").map_or_else(|| prefers(headers, &[FLATGEOBUF], &[GEOJSON, JSON]), |f| f == "flatgeobuf")
}

/// `names`: what `f` may be.
fn check_format(params: &Params, headers: &HeaderMap, names: &[&str]) -> Result<()> {
    match params.get("f") {
        None => accepts(headers, &[GEOJSON, JSON]),
        Some("json" | "geojson") => Ok(()),
        Some(other) => {
            let what = format!("f: '{other}' is not a format of this resource: {}", names.join(", "));
            Err(Problem::parameter("f", what))
        }
    }
}

fn content_crs(crs: &CrsRef) -> HeaderValue {
    // The spellings are ours.
    HeaderValue::try_from(format!("<{}>", crs.spelling)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A page being written.
struct Page {
    web: Arc<Web>,
    base: BaseUrl,
    params: Params,
    reading: Reading,
    encoder: Encoder,
    frame: Option<CollectionFrame>,
    query: Query,
    limit: u64,
    last: Option<Cursor>,
}

#[derive(Clone, Copy)]
struct Numbers {
    returned: u64,
    matched: Option<u64>,
}

impl Page {
    async fn open(
        web: Arc<Web>,
        ft: Arc<FeatureType>,
        base: BaseUrl,
        params: Params,
        request: ItemsRequest,
    ) -> Result<Page> {
        let ItemsRequest { query, limit, crs, properties, skip_geometry } = request;
        // One more than the page has tells whether there is a next one.
        let reading = web.store.read(Query { limit: Some(limit + 1), ..query.clone() }).await?;
        let encoder = Encoder::new(&ft, &crs, properties.as_deref(), skip_geometry);
        Ok(Page { web, base, params, reading, encoder, frame: None, query, limit, last: None })
    }

    /// Appends up to a piece; `Some` when the document is complete.
    async fn fill(&mut self, out: &mut Vec<u8>) -> std::result::Result<Option<Numbers>, ReadError> {
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => CollectionFrame::open(out),
        };
        while out.len() < PIECE {
            match self.reading.next().await.transpose()? {
                Some(item) if frame.features() < self.limit => {
                    frame.next(out);
                    self.encoder.write(out, &item.feature);
                    self.last = Some(Cursor::of(&item.feature, &self.query.sort));
                }
                more => return self.close(frame, out, more.is_some()).await.map(Some),
            }
        }
        self.frame = Some(frame);
        Ok(None)
    }

    async fn close(
        &mut self,
        frame: CollectionFrame,
        out: &mut Vec<u8>,
        more: bool,
    ) -> std::result::Result<Numbers, ReadError> {
        let returned = frame.features();
        let matched = if !more && self.query.after.is_none() && self.reading.left_out == 0 {
            Some(returned)
        } else {
            self.reading.count(Some(self.web.server.count_budget)).await?
        };
        let links = self.links(more);
        let now = self.web.clock.now_ms();
        frame.close(out, &Closing { number_matched: matched, time_stamp_ms: Some(now), links: &links });
        Ok(Numbers { returned, matched })
    }

    fn links(&self, more: bool) -> Vec<Value> {
        let collection = format!("{}/collections/{}", self.base, self.query.feature_type);
        let items = format!("{collection}/items");
        let mut links = vec![
            link(format!("{items}{}", self.params.with(&[])), "self", GEOJSON, "This page"),
            link(collection, "collection", JSON, "The collection"),
        ];
        if let Some(last) = self.last.as_ref().filter(|_| more) {
            let cursor = encode_cursor(last);
            let query = self.params.with(&[("cursor", Some(&cursor))]);
            links.push(link(format!("{items}{query}"), "next", GEOJSON, "The next page"));
        }
        links
    }
}

/// Writes features in the CRS that was asked for; the geometry of one that has no place in it is null.
struct Encoder {
    writer: FeatureWriter,
    without_geometry: FeatureWriter,
}

impl Encoder {
    fn new(ft: &FeatureType, crs: &CrsRef, properties: Option<&[usize]>, skip_geometry: bool) -> Encoder {
        let options = |skip_geometry| Options { crs: Some(crs), wfs_ids: false, properties, skip_geometry };
        Encoder {
            writer: FeatureWriter::new(ft, &options(skip_geometry)),
            without_geometry: FeatureWriter::new(ft, &options(true)),
        }
    }

    fn write(&self, out: &mut Vec<u8>, feature: &Feature) {
        if let Err(error) = self.writer.write(out, feature, None) {
            tracing::debug!(id = %feature.id, %error, "a geometry has no place in the CRS asked for");
            if let Err(error) = self.without_geometry.write(out, feature, None) {
                tracing::error!(id = %feature.id, %error, "a feature without geometry was not written");
            }
        }
    }
}

/// `GET /collections/{collection}/items/{id}`.
pub async fn one(
    State(web): State<Arc<Web>>,
    Path((collection, id)): Path<(String, String)>,
    caller: Caller,
    base: BaseUrl,
    AtLeast(at_least): AtLeast,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    let ft = web.feature_type(&caller, &collection)?;
    params.only(&["crs", "f"])?;
    check_format(&params, &headers, &["geojson", "json"])?;
    let crs = requested_crs(&ft, &params)?;
    let found = web.store.get(&collection, &id, &at_least).await?;
    let (item, position) = found.ok_or_else(|| no_item(&collection, &id))?;
    let etag = etag(&ft, &item, &crs);
    let mut common = HeaderMap::from_iter([
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_CRS, content_crs(&crs)),
        // Not in the body, which the ETag stands for: a feature changes tiers without changing.
        (TIER, HeaderValue::from_static(item.tier.name())),
    ]);
    common.extend(position_header(&position));
    if let Some(etag) = &etag
        && let Ok(value) = HeaderValue::try_from(etag)
    {
        common.insert(header::ETAG, value);
        if text(&headers, "if-none-match").is_some_and(|tags| assets::matches(tags, etag)) {
            return Ok((StatusCode::NOT_MODIFIED, common).into_response());
        }
    }
    let here = format!("{base}/collections/{collection}");
    let links = [
        link(format!("{here}/items/{}{}", encoded(&id), params.with(&[])), "self", GEOJSON, "This feature"),
        link(&here, "collection", JSON, "The collection"),
    ];
    let mut body = Vec::with_capacity(1024);
    Encoder::new(&ft, &crs, None, false).write(&mut body, &item.feature);
    // Into the feature's object, after its last member.
    body.pop();
    body.extend_from_slice(format!(r#","links":{}}}"#, Value::from_iter(links)).as_bytes());
    Ok((common, [(header::CONTENT_TYPE, GEOJSON)], body).into_response())
}

pub fn no_item(collection: &str, id: &str) -> Problem {
    Problem::not_found(format!("there is no feature '{id}' in the collection '{collection}'"))
}

/// The version of a feature, in the CRS of the answer. `None` of a row that another tool wrote.
pub fn etag(ft: &FeatureType, item: &Item, crs: &CrsRef) -> Option<String> {
    Some(version_tag(ft, item.version?, crs))
}

/// The version of an entity tag of ours, whatever the CRS; weak ones count as the same, since proxies weaken them.
pub fn version_of(ft: &FeatureType, tag: &str) -> Option<Offset> {
    let tag = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
    let mut parts = tag.strip_prefix(&*ft.incarnation)?.strip_prefix('-')?.split('-');
    parts.next()?.parse().ok()
}

/// The entity tag of a version that is known.
pub fn version_tag(ft: &FeatureType, version: Offset, crs: &CrsRef) -> String {
    let in_crs = if crs.crs.epsg() == 4326 && !crs.swap { String::new() } else { format!("-{}", crs.crs.epsg()) };
    format!("\"{}-{version}{in_crs}\"", ft.incarnation)
}
