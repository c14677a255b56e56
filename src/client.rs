//! The client's side of HTTP, for the commands that speak to a server: `ingest`, `backup` and the demo's replay.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

/// The longest answer that is read, bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A server by its address.
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    server: String,
    api_key: Option<HeaderValue>,
}

/// What a server says to an upload of lines.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub accepted: u64,
    pub rejected: u64,
    pub errors: Vec<LineError>,
    pub errors_truncated: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct LineError {
    /// Of the upload, from 1.
    pub line: u64,
    pub detail: String,
    #[serde(default)]
    pub pointer: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing was written; the same again may do.
    #[error("the server is not available: {what}")]
    Unavailable { what: String, retry_after_s: Option<u64> },
    #[error("the server refused ({status}): {what}")]
    Refused { status: StatusCode, what: String },
    #[error("{0}")]
    Other(String),
}

impl Client {
    /// `server`: as in `http://127.0.0.1:8080`, perhaps with a path.
    pub fn new(server: &str, api_key: Option<&str>) -> Result<Client, ClientError> {
        if !server.starts_with("http://") {
            return Err(ClientError::Other(format!("'{server}' is not an address that begins with http://")));
        }
        let api_key = api_key.map(HeaderValue::from_str).transpose();
        Ok(Client {
            http: hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http(),
            server: server.trim_end_matches('/').to_owned(),
            api_key: api_key.map_err(|_| ClientError::Other("the API key is not text".into()))?,
        })
    }

    pub async fn get(&self, path: &str) -> Result<serde_json::Value, ClientError> {
        let answer = self.send(Method::GET, path, "application/json", Bytes::new()).await?;
        serde_json::from_slice(&answer).map_err(|e| ClientError::Other(format!("the server's answer is not JSON: {e}")))
    }

    /// Writes features, one a line, to a collection.
    pub async fn post_lines(&self, collection: &str, lines: Bytes) -> Result<Summary, ClientError> {
        let path = format!("/collections/{collection}/items");
        let answer = self.send(Method::POST, &path, "application/x-ndjson", lines).await?;
        serde_json::from_slice(&answer)
            .map_err(|e| ClientError::Other(format!("the server's answer is no summary: {e}")))
    }

    /// A WFS request. Its answer is XML, of which the status is all that is looked at.
    pub async fn post_wfs(&self, request: String) -> Result<(), ClientError> {
        self.send(Method::POST, "/wfs", "text/xml", Bytes::from(request)).await.map(|_| ())
    }

    /// Gives the pieces of an answer of any length to `take`, in order.
    pub async fn download(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), ClientError> {
        let mut response = self.request(Method::GET, path, "application/octet-stream", Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.map_err(|e| ClientError::Other(format!("the answer was broken off: {}", root(&e))))?;
            if let Some(piece) = frame.data_ref() {
                take(piece).map_err(|e| ClientError::Other(format!("writing: {e}")))?;
            }
        }
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, content_type: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let response = self.request(method, path, content_type, body).await?;
        if response.status().is_success() { whole(response.into_body()).await } else { Err(refused(response).await) }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|e| ClientError::Other(format!("'{}{path}': {e}", self.server)))?;
        if let Some(key) = &self.api_key {
            request.headers_mut().insert("x-api-key", key.clone());
        }
        self.http.request(request).await.map_err(|e| {
            let what = format!("{}: {}", self.server, root(&e));
            let unsent = e.is_connect();
            if unsent { ClientError::Unavailable { what, retry_after_s: None } } else { ClientError::Other(what) }
        })
    }
}

async fn whole(body: Incoming) -> Result<Bytes, ClientError> {
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    Ok(body.map_err(|e| ClientError::Other(format!("reading the answer: {e}")))?.to_bytes())
}

/// The error that an answer stands for.
async fn refused(response: Response<Incoming>) -> ClientError {
    let (head, body) = response.into_parts();
    let what = match whole(body).await {
        Ok(body) => detail(&body),
        Err(e) => return e,
    };
    match head.status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            let retry_after = head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            ClientError::Unavailable { what, retry_after_s: retry_after }
        }
        status => ClientError::Refused { status, what },
    }
}

/// What a problem document (RFC 9457) says; else the beginning of the text.
fn detail(body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let said = problem.as_ref().and_then(|p| p.get("detail").or(p.get("title"))?.as_str());
    said.map_or_else(|| String::from_utf8_lossy(body).chars().take(300).collect(), str::to_owned)
}

/// The error at the bottom: 'connection refused' rather than 'client error'.
fn root(e: &(dyn std::error::Error + 'static)) -> String {
    let mut e = e;
    while let Some(source) = e.source() {
        e = source;
    }
    e.to_string()
}
