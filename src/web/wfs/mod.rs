//! WFS 2.0.0, 1.1.0 and 1.0.0 at `/wfs`: Simple, Basic, Transactional and Locking, over key-value pairs and XML, each request answered
//! in its own version. Clients mix them: QGIS and GDAL write in the dialects of 1.0 and 1.1 to a layer that they read in 2.0.
//!
//! Owns requests, answers and exception reports of WFS; features, geometries and schemas are [`crate::format::gml`]'s, filters
//! [`crate::query::fes`]'s. Invariant: the version of an answer, an error's too, is that of the request's own document.

mod answer;
mod capabilities;
mod describe;
mod exception;
mod file;
mod format;
mod get_feature;
mod join;
mod kvp;
mod lock;
mod query;
mod stored_query;
mod transaction;
mod version;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Web;
use super::access::Caller;
use super::problem::Problem;
use super::request::{AtLeast, BaseUrl};
use crate::format::xml::{Element, Limits, Reader};
use crate::model::{FeatureType, Position};
use crate::store::api::LockedFeatures;
use exception::{Code, Exception, Result};
use kvp::Kvp;
use version::{OLD_WFS_NS, Version, WFS_NS};

/// `/wfs`, and `/wfs/{type}` as if there were that feature type alone.
pub fn router() -> Router<Arc<Web>> {
    let methods = || get(handle).post(handle).options(options);
    Router::new().route("/wfs", methods()).route("/wfs/{type}", methods())
}

/// True of the path of this service, whole or of one type.
pub fn is_path(path: &str) -> bool {
    path == "/wfs" || path.starts_with(TYPE_PATH)
}

const TYPE_PATH: &str = "/wfs/";

async fn options() -> impl IntoResponse {
    (StatusCode::OK, [(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"))])
}

/// Who asks, from where, and in which version.
#[derive(Clone)]
struct Ask {
    web: Arc<Web>,
    caller: Caller,
    base: BaseUrl,
    at_least: Position,
    /// The one type that there is at this address; `None`: all.
    only: Option<Arc<FeatureType>>,
    /// The highest until the request has told.
    version: Version,
    /// What was locked for the answer: it has these features alone.
    lock: Option<Arc<LockedFeatures>>,
}

impl Ask {
    async fn of(web: Arc<Web>, parts: &mut Parts) -> Result<Ask> {
        let caller = Caller::from_request_parts(parts, &()).await?;
        let base = BaseUrl::from_request_parts(parts, &()).await?;
        let AtLeast(at_least) = AtLeast::from_request_parts(parts, &()).await?;
        let only = match parts.uri.path().strip_prefix(TYPE_PATH) {
            None => None,
            Some(name) => Some(web.feature_type(&caller, name)?),
        };
        Ok(Ask { web, caller, base, at_least, only, version: Version::V2_0, lock: None })
    }

    /// The address of the service, without a query.
    fn href(&self) -> String {
        match &self.only {
            None => format!("{}/wfs", self.base),
            Some(ft) => format!("{}{TYPE_PATH}{}", self.base, ft.name),
        }
    }

    /// The types that the caller may read here.
    fn feature_types(&self) -> Vec<Arc<FeatureType>> {
        match &self.only {
            None => self.web.feature_types(&self.caller),
            Some(ft) => vec![ft.clone()],
        }
    }

    /// The type of a qualified name; prefixes do not matter, there is one namespace.
    fn feature_type(&self, qname: &str) -> Result<Arc<FeatureType>> {
        let name = qname.trim();
        let name = name.strip_prefix("schema-element(").and_then(|n| n.strip_suffix(')')).unwrap_or(name);
        let name = name.rsplit_once(':').map_or(name, |(_, local)| local);
        if self.only.as_ref().is_some_and(|only| only.name != name) {
            return Err(Exception::invalid("typeName", format!("there is no feature type '{qname}' at this address")));
        }
        let found = self.web.feature_type(&self.caller, name).map_err(Exception::from);
        found.map_err(|e| match e.code() {
            Code::NotFound => Exception::invalid("typeName", format!("there is no feature type '{qname}'")),
            _ => e,
        })
    }

    fn is_type(&self, name: &str) -> bool {
        self.web.store.feature_type(name).is_some()
    }
}

/// What happened to a request before it came here, told as WFS clients read it.
pub fn problem(problem: Problem, query: &str) -> Response {
    let version = Kvp::parse(query).ok().and_then(|kvp| kvp.get("version").and_then(Version::parse));
    Exception::from(problem).into_response(version.unwrap_or(Version::V2_0))
}

async fn handle(State(web): State<Arc<Web>>, request: Request) -> Response {
    let mut version = Version::V2_0;
    match respond(web, request, &mut version).await {
        Ok(response) => response,
        Err(e) => e.into_response(version),
    }
}

/// `version` becomes the request's as soon as it is known: an error is told in it.
async fn respond(web: Arc<Web>, request: Request, version: &mut Version) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let mut query = parts.uri.query().unwrap_or_default().to_owned();
    if parts.method == Method::POST {
        let body = whole(body, web.server.max_body_bytes).await?;
        let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body).trim_ascii_start();
        if start.first() == Some(&b'<') {
            // What the query string says besides is a client's habit and nothing more.
            let ask = Ask::of(web, &mut parts).await?;
            return xml_request(ask, &body, version).await;
        }
        let form = std::str::from_utf8(&body);
        let form = form.map_err(|_| Exception::new(Code::OperationParsingFailed, "", "the body is not UTF-8"))?;
        query = format!("{}&{query}", form.trim());
    }
    let ask = Ask::of(web, &mut parts).await?;
    kvp_request(ask, Kvp::parse(&query)?, version).await
}

async fn whole(body: Body, limit: usize) -> Result<Bytes> {
    axum::body::to_bytes(body, limit).await.map_err(|e| {
        let mut cause: Option<&dyn std::error::Error> = Some(&e);
        while let Some(error) = cause {
            if error.is::<http_body_util::LengthLimitError>() {
                let text = format!("the request's body is longer than {limit} bytes");
                return Exception::new(Code::NoApplicableCode, "", text).with_status(StatusCode::PAYLOAD_TOO_LARGE);
            }
            cause = error.source();
        }
        Exception::new(Code::OperationParsingFailed, "", format!("the body cannot be read: {e}"))
    })
}

async fn kvp_request(mut ask: Ask, kvp: Kvp, version: &mut Version) -> Result<Response> {
    if let Some(known) = kvp.get("version").and_then(Version::parse) {
        *version = known;
    }
    let operation = kvp.get("request").ok_or_else(|| Exception::missing("request"))?;
    check_service(kvp.get("service"), operation)?;
    if operation.eq_ignore_ascii_case("GetCapabilities") {
        return capabilities::from_kvp(&ask, &kvp, version).await;
    }
    if let Some(wrong) = kvp.get("version").filter(|v| Version::parse(v).is_none()) {
        return Err(version::unknown(wrong));
    }
    check_operation(operation, *version)?;
    ask.version = *version;
    let ask = &ask;
    match operation.to_ascii_lowercase().as_str() {
        "describefeaturetype" => describe::from_kvp(ask, &kvp),
        "getfeature" => get_feature::from_kvp(ask, kvp).await,
        "getfeaturewithlock" => lock::features_from_kvp(ask, kvp).await,
        "lockfeature" => lock::from_kvp(ask, kvp).await,
        "getgmlobject" => get_feature::object_from_kvp(ask, &kvp).await,
        "getpropertyvalue" => get_feature::values_from_kvp(ask, kvp).await,
        "liststoredqueries" => stored_query::list(ask),
        "describestoredqueries" => {
            let ids =
                kvp.get("storedQuery_Id").unwrap_or_default().split(',').map(str::trim).filter(|id| !id.is_empty());
            stored_query::describe(ask, &ids.collect::<Vec<_>>()).await
        }
        "dropstoredquery" => stored_query::remove(ask, kvp.any(&["storedQuery_Id", "id"])).await,
        "transaction" | "createstoredquery" => Err(Exception::new(
            Code::OperationNotSupported,
            "request",
            format!("a {operation} is sent as XML in the body of a POST"),
        )),
        _ => Err(not_supported(operation)),
    }
}

async fn xml_request(mut ask: Ask, body: &[u8], version: &mut Version) -> Result<Response> {
    let mut reader = Reader::new(body, Limits::default())?;
    let mut root = reader.root()?;
    if !matches!(&*root.ns, WFS_NS | OLD_WFS_NS) {
        let text = format!("the root element '{}' is not in a namespace of WFS's ({WFS_NS}, {OLD_WFS_NS})", root.local);
        return Err(Exception::new(Code::OperationParsingFailed, "", text));
    }
    let asked = root.attribute("version").map(str::to_owned);
    if let Some(known) = asked.as_deref().and_then(Version::parse) {
        *version = known;
    }
    if &*root.local == "Transaction" {
        return transaction::respond(&ask, &root, &mut reader, version).await;
    }
    if &*root.local == "CreateStoredQuery" {
        check_service(root.attribute("service"), &root.local)?;
        *version = Version::of_document(&root.ns, asked.as_deref())?;
        check_operation(&root.local, *version)?;
        return stored_query::create(&ask, &mut reader).await;
    }
    reader.finish(&mut root)?;
    reader.end()?;
    check_service(root.attribute("service"), &root.local)?;
    if &*root.local == "GetCapabilities" {
        return capabilities::from_xml(&ask, &root, version).await;
    }
    *version = Version::of_document(&root.ns, asked.as_deref())?;
    check_operation(&root.local, *version)?;
    ask.version = *version;
    let ask = &ask;
    match &*root.local {
        "DescribeFeatureType" => describe::from_xml(ask, &root),
        "GetFeature" => get_feature::from_xml(ask, &root).await,
        "GetFeatureWithLock" => lock::features_from_xml(ask, &root).await,
        "LockFeature" => lock::from_xml(ask, &root).await,
        "GetGmlObject" => get_feature::object_from_xml(ask, &root).await,
        "GetPropertyValue" => get_feature::values_from_xml(ask, &root).await,
        "ListStoredQueries" => stored_query::list(ask),
        "DescribeStoredQueries" => {
            let ids: Vec<&str> = root.children_named("StoredQueryId").map(Element::trimmed).collect();
            stored_query::describe(ask, &ids).await
        }
        "DropStoredQuery" => stored_query::remove(ask, root.attribute("id")).await,
        operation => Err(not_supported(operation)),
    }
}

fn not_supported(operation: &str) -> Exception {
    Exception::new(Code::OperationNotSupported, "request", format!("the operation '{operation}' is not supported"))
}

/// Only GetCapabilities cannot do without: some clients leave `service` out of the others.
fn check_service(service: Option<&str>, operation: &str) -> Result<()> {
    match service {
        Some(s) if s.trim().eq_ignore_ascii_case("WFS") => Ok(()),
        Some(s) => Err(Exception::invalid("service", format!("the service '{s}' is not offered here"))),
        None if operation.eq_ignore_ascii_case("GetCapabilities") => Err(Exception::missing("service")),
        None => Ok(()),
    }
}

/// An operation of one version has no form in another.
fn check_operation(operation: &str, version: Version) -> Result<()> {
    let is = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(operation));
    let known = match version {
        Version::V2_0 => !is(&["GetGmlObject"]),
        Version::V1_1 => !is(&ONLY_IN_2_0),
        Version::V1_0 => !is(&ONLY_IN_2_0) && !is(&["GetGmlObject"]),
    };
    if known { Ok(()) } else { Err(not_supported(operation)) }
}

const ONLY_IN_2_0: [&str; 5] =
    ["GetPropertyValue", "ListStoredQueries", "DescribeStoredQueries", "CreateStoredQuery", "DropStoredQuery"];

/// An XML answer that no cache may keep: QGIS else keeps capabilities and schemas for a day.
fn xml_response(body: impl Into<Body>, content_type: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")];
    (headers, body.into()).into_response()
}
