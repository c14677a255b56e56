//! What every handler may ask of a request: the address that its links must begin with, who sent it, the position that it
//! must not be older than, and its query parameters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::Web;
use super::access::Caller;
use super::problem::{Problem, Result};
use crate::model::Position;

/// Carries a [`Position`]: answers say how far they know, and a request that sends one back is not answered from before it.
pub const POSITION: HeaderName = HeaderName::from_static("alluvium-position");

/// The service's address as the client sees it, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(pub Arc<str>);

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Middleware: identifies the caller and the address, for the extractors.
pub async fn context(State(web): State<Arc<Web>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|c| c.0);
    match base_url(&web, &request, peer) {
        Ok(url) => request.extensions_mut().insert(url),
        Err(problem) => return problem.into_response(),
    };
    match web.access.identify(request.headers()).await {
        Ok(caller) => request.extensions_mut().insert(caller),
        Err(problem) => return problem.into_response(),
    };
    next.run(request).await
}

fn base_url(web: &Web, request: &Request, peer: Option<SocketAddr>) -> Result<BaseUrl> {
    if let Some(url) = &web.server.public_url {
        return Ok(BaseUrl(url.trim_end_matches('/').into()));
    }
    let headers = request.headers();
    let trusted = peer.is_some_and(|peer| web.server.trusted_proxies.iter().any(|n| n.contains(peer.ip())));
    let forwarded = if trusted { Forwarded::read(headers) } else { Forwarded::default() };
    let host = forwarded.host.or_else(|| text(headers, header::HOST.as_str()).map(str::to_owned));
    let host = host.or_else(|| request.uri().authority().map(ToString::to_string));
    let host = host.filter(|h| h.parse::<Authority>().is_ok_and(|a| !a.as_str().contains('@')));
    let host = host.ok_or_else(|| Problem::bad_request("the request names no host, or one that is not valid"))?;
    let scheme = if forwarded.https { "https" } else { "http" };
    Ok(BaseUrl(format!("{scheme}://{host}{}", forwarded.prefix).into()))
}

/// What a trusted proxy says of the address that the client used.
#[derive(Default)]
struct Forwarded {
    https: bool,
    host: Option<String>,
    /// A path that the proxy has taken off.
    prefix: String,
}

impl Forwarded {
    /// `Forwarded` (RFC 7239) goes before the `X-Forwarded-` headers. Of several proxies the first, nearest to the client,
    /// counts.
    fn read(headers: &HeaderMap) -> Forwarded {
        let first = |name: &str| text(headers, name).and_then(|v| v.split(',').next()).map(str::trim);
        let mut scheme = first("x-forwarded-proto");
        let mut host = first("x-forwarded-host");
        for pair in first("forwarded").unwrap_or_default().split(';') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = Some(value.trim().trim_matches('"'));
            match name.trim().to_ascii_lowercase().as_str() {
                "proto" => scheme = value,
                "host" => host = value,
                _ => {}
            }
        }
        let prefix = first("x-forwarded-prefix").unwrap_or_default().trim_end_matches('/');
        let good = prefix.starts_with('/')
            && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~'));
        Forwarded {
            https: scheme.is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: host.map(str::to_owned),
            prefix: if good { prefix.to_owned() } else { String::new() },
        }
    }
}

/// A header's text, where it is there once and readable.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

impl<S: Send + Sync> FromRequestParts<S> for BaseUrl {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get::<BaseUrl>().cloned().ok_or_else(missing_context)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get::<Caller>().cloned().ok_or_else(missing_context)
    }
}

fn missing_context() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the route is outside of the middleware `context`")
}

/// The variable parts of the path, decoded.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|p| Path(p.0)).map_err(|e| Problem::bad_request(format!("the path cannot be read: {}", e.body_text())))
    }
}

/// The position of the request's header `Alluvium-Position`; of the first write on if there is none.
#[derive(Clone, Debug, Default)]
pub struct AtLeast(pub Position);

impl<S: Send + Sync> FromRequestParts<S> for AtLeast {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let mut position = Position::default();
        for value in parts.headers.get_all(POSITION) {
            let token = value.to_str().map_err(|_| "not text".to_owned()).and_then(str::parse::<Position>);
            position.merge(&token.map_err(|e| Problem::bad_request(format!("header Alluvium-Position: {e}")))?);
        }
        Ok(AtLeast(position))
    }
}

/// The header that tells a position.
pub fn position_header(position: &Position) -> Option<(HeaderName, HeaderValue)> {
    if position.is_empty() {
        return None;
    }
    Some((POSITION, HeaderValue::try_from(position.to_string()).ok()?))
}

/// The query parameters in their order, decoded, each given at most once.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Params::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Params {
    /// Reads a query string. Stray separators are passed over.
    pub fn parse(query: &str) -> Result<Params> {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decoded(name)?, decoded(value)?))
        };
        Params::new(query.split('&').filter(|part| !part.is_empty()).map(pair).collect::<Result<_>>()?)
    }

    fn new(pairs: Vec<(String, String)>) -> Result<Params> {
        for (i, (name, _)) in pairs.iter().enumerate() {
            if pairs[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(Problem::parameter(name, format!("parameter '{name}' is given twice")));
            }
        }
        Ok(Params(pairs))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// A parameter that is not among `known` is an error (OGC API - Features Part 1, `/req/core/query-param-unknown`).
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(Problem::parameter(
                name,
                format!("there is no parameter '{name}' here; there are {}", known.join(", ")),
            )),
        }
    }

    /// `true` or `false`; absent is false.
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Problem::parameter(name, format!("{name}: '{other}' is not true or false"))),
        }
    }

    /// The query string of these parameters, with `changes` put in their places or at the end; `None` takes one out.
    pub fn with(&self, changes: &[(&str, Option<&str>)]) -> String {
        let kept = self.iter().filter(|(name, _)| !changes.iter().any(|(n, _)| n == name));
        let added = changes.iter().filter_map(|(n, v)| Some((*n, (*v)?)));
        let mut out = String::new();
        for (name, value) in kept.chain(added) {
            out.push(if out.is_empty() { '?' } else { '&' });
            encode(&mut out, name);
            out.push('=');
            encode(&mut out, value);
        }
        out
    }
}

/// A whole number of any length: beyond 2^63 - 1 nothing is counted, so that what is greater is as good as that.
pub fn whole_number(text: &str) -> Option<u64> {
    const MOST: u64 = i64::MAX as u64;
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(MOST).min(MOST))
}

/// Percent-encodes for a query string or a path segment: all but the unreserved characters (RFC 3986 §2.3) and the comma and
/// the colon, which are plain in both and frequent in bboxes and times.
pub fn encode(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b',' | b':') {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(b >> 4)]));
            out.push(char::from(HEX[usize::from(b & 15)]));
        }
    }
}

/// What a part of a query string stands for: `+` is a blank, `%XX` a byte of UTF-8.
fn decoded(text: &str) -> Result<String> {
    let bad = || Problem::bad_request("the query string is not percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_at_checked(2).ok_or_else(bad)?;
                rest = after;
                let digit = |d: u8| char::from(d).to_digit(16).ok_or_else(bad);
                (digit(digits[0])? * 16 + digit(digits[1])?) as u8
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

/// `encode` into a text of its own.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode(&mut out, text);
    out
}

/// Middleware: leaves the connection in a state that the client can go on with. A small body is read before the handler
/// runs, so that an error which does not look at it (401, 404, 415) does not cut the connection; with a large one the answer
/// says that the connection ends.
pub async fn settle_body(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    const SMALL: u64 = 64 * 1024;
    if let Err(problem) = check_coding(request.headers()) {
        return problem.into_response();
    }
    let size = axum::body::HttpBody::size_hint(request.body());
    if size.exact() == Some(0) {
        return next.run(request).await;
    }
    if size.upper().is_some_and(|most| most <= SMALL) {
        let (parts, body) = request.into_parts();
        return match whole_body(body, SMALL as usize, web.server.idle_timeout).await {
            Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
            Err(problem) => problem.into_response(),
        };
    }
    let http1 = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if http1 && response.status().as_u16() >= 400 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body comes as it is or in gzip; a layer below unpacks it.
fn check_coding(headers: &HeaderMap) -> Result<()> {
    match text(headers, "content-encoding").map(str::trim) {
        None => Ok(()),
        Some(coding) if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("identity") => Ok(()),
        Some(other) => {
            let what = format!("a body in the content coding '{other}' cannot be read: gzip or none");
            let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
            Err(problem.with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip")))
        }
    }
}

/// The whole of a body of at most `most` bytes. A client that sends nothing for `idle` is given up.
pub async fn whole_body(body: Body, most: usize, idle: Duration) -> Result<Bytes> {
    let too_large = || {
        let what = format!("the body has more than {most} bytes (server.max_body_bytes)");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what)
    };
    if axum::body::HttpBody::size_hint(&body).lower() > most as u64 {
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(piece) = next_piece(&mut stream, idle).await? {
        if whole.len() + piece.len() > most {
            return Err(too_large());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// The next piece of a body that is read as it comes; `None` at its end.
pub async fn next_piece(stream: &mut BodyDataStream, idle: Duration) -> Result<Option<Bytes>> {
    match tokio::time::timeout(idle, stream.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(e))) => Err(Problem::bad_request(format!("the body could not be read to its end: {e}"))),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the rest of the body did not come in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_proxy_to_the_client_counts() {
        let headers = |pairs: &[(&'static str, &str)]| {
            HeaderMap::from_iter(pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())))
        };
        let f = Forwarded::read(&headers(&[
            ("forwarded", r#"for=1.2.3.4;proto=https;host="geo.example:8443", for=10.0.0.1;host=inner"#),
            ("x-forwarded-host", "other"),
            ("x-forwarded-prefix", "/features/"),
        ]));
        assert_eq!((f.https, f.host.as_deref(), f.prefix.as_str()), (true, Some("geo.example:8443"), "/features"));
        let f = Forwarded::read(&headers(&[
            ("x-forwarded-proto", "https, http"),
            ("x-forwarded-host", "a.example, b"),
            ("x-forwarded-prefix", "\"><script>"),
        ]));
        assert_eq!((f.https, f.host.as_deref(), f.prefix.as_str()), (true, Some("a.example"), ""));
    }

    #[test]
    fn a_query_string_can_be_written_again() {
        let params = Params::parse("&bbox=1,2,3,4&name=a+b%26c%3D%c3%a4&&limit=5&").unwrap();
        assert_eq!(
            params.with(&[("limit", None), ("cursor", Some("x/"))]),
            "?bbox=1,2,3,4&name=a%20b%26c%3D%C3%A4&cursor=x%2F"
        );
        assert!(params.only(&["bbox", "name"]).is_err());
        for bad in ["a=1&a=2", "a=%ff", "a=%2", "a=%zz", "%E4=1"] {
            assert!(Params::parse(bad).is_err(), "{bad}");
        }
    }
}
