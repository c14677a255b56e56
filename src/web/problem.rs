//! Errors of the OGC API side: problem details (RFC 9457), with `code` and `description` for clients of Part 1's own
//! exception schema. The one place where failures of the store become HTTP statuses.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::model::{IdError, SchemaError};
use crate::store::api::{CatalogueError, ReadError, WriteError};

/// An error answer.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// Where in the request's body, a JSON pointer (RFC 6901).
    pointer: Option<String>,
    /// The query parameter at fault.
    parameter: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: clipped(detail.into()), pointer: None, parameter: None, headers: Vec::new() }
    }

    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// A query parameter that is not known, or whose value is not good.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Problem {
        Problem { parameter: Some(name.to_owned()), ..Problem::bad_request(detail) }
    }

    /// A body that does not fit, at a JSON pointer.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Problem {
        Problem { pointer: Some(pointer.into()), ..Problem::bad_request(detail) }
    }

    /// Not now; the same request may work later.
    pub fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.headers.push((name, value));
        self
    }

    pub fn set_detail(&mut self, detail: String) {
        self.detail = clipped(detail);
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// A message repeats what the client sent, but not pages of it.
fn clipped(mut text: String) -> String {
    const MOST: usize = 600;
    if text.len() > MOST {
        text.truncate(text.floor_char_boundary(MOST));
        text.push('…');
    }
    text
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut body = json!({
            "type": "about:blank",
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": title.replace(' ', ""),
            "description": self.detail,
        });
        if let Some(pointer) = self.pointer {
            body["pointer"] = json!(pointer);
        }
        if let Some(parameter) = self.parameter {
            body["parameter"] = json!(parameter);
        }
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        let mut response = (self.status, content_type, body.to_string()).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<ReadError> for Problem {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::UnknownType(_) => Problem::not_found(e.to_string()),
            ReadError::Unavailable(_) | ReadError::Behind => Problem::unavailable(e.to_string()),
            ReadError::StalePosition(_) => Problem::bad_request(e.to_string()),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(e: WriteError) -> Self {
        match e {
            WriteError::UnknownType(_) => Problem::not_found(e.to_string()),
            WriteError::Invalid { error, .. } => error.into(),
            WriteError::Exists { .. } => Problem::new(StatusCode::CONFLICT, e.to_string()),
            WriteError::NotAsExpected { .. } => Problem::new(StatusCode::PRECONDITION_FAILED, e.to_string()),
            WriteError::Locked { .. } => Problem::new(StatusCode::LOCKED, e.to_string()),
            // Of WFS alone.
            WriteError::NoLock(_) => Problem::new(StatusCode::CONFLICT, e.to_string()),
            WriteError::Unavailable(_) => Problem::unavailable(e.to_string()),
            // Not 503, which clients and proxies take for leave to send again as it is.
            WriteError::OutcomeUnknown(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, e.to_string()),
            WriteError::TooLarge(_) => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, e.to_string()),
            WriteError::Read(e) => e.into(),
        }
    }
}

impl From<CatalogueError> for Problem {
    fn from(e: CatalogueError) -> Self {
        match e {
            CatalogueError::UnknownType(_) => Problem::not_found(e.to_string()),
            CatalogueError::Exists(_) => Problem::new(StatusCode::CONFLICT, e.to_string()),
            CatalogueError::Invalid(error) => Problem::at(format!("/{}", error.locator.replace('.', "/")), error.what),
            CatalogueError::Unavailable(_) => Problem::unavailable(e.to_string()),
            CatalogueError::Unservable(_) => Problem::new(StatusCode::CONFLICT, e.to_string()),
        }
    }
}

/// A feature that does not fit its type.
impl From<SchemaError> for Problem {
    fn from(e: SchemaError) -> Self {
        let pointer = match e.locator.as_str() {
            "properties" => "/properties".to_owned(),
            crate::model::feature_type::GEOMETRY => "/geometry".to_owned(),
            property => format!("/properties/{}", property.replace('~', "~0").replace('/', "~1")),
        };
        Problem::at(pointer, e.what)
    }
}

impl From<IdError> for Problem {
    fn from(e: IdError) -> Self {
        Problem::at("/id", e.to_string())
    }
}
