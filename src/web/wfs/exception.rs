//! Exception reports: how errors look to WFS clients. The one place where failures of the store become WFS exceptions.
//!
//! Versions 1.0 and 1.1 answer with status 200, as their clients expect: QGIS shows the user a transaction's error text only
//! then. Refused credentials keep their status in every version, or no client would ask for others.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Version;
use crate::format::gml::GmlError;
use crate::format::xml::{self, XmlError};
use crate::query::fes::{self, FesError};
use crate::store::JoinError;
use crate::store::api::{CatalogueError, LockError, NoLock, ReadError, WriteError};
use crate::web::problem::Problem;

/// An `exceptionCode` (WFS 2.0.0 table 3, OWS Common 1.1 table 27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "the standard's own names")]
pub enum Code {
    MissingParameterValue,
    InvalidParameterValue,
    VersionNegotiationFailed,
    OperationNotSupported,
    OptionNotSupported,
    OperationParsingFailed,
    OperationProcessingFailed,
    InvalidValue,
    InvalidLockId,
    LockHasExpired,
    CannotLockAllFeatures,
    DuplicateStoredQueryIdValue,
    DuplicateStoredQueryParameterName,
    NotFound,
    NoApplicableCode,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::OperationProcessingFailed | Code::LockHasExpired => StatusCode::FORBIDDEN,
            Code::DuplicateStoredQueryIdValue | Code::DuplicateStoredQueryParameterName => StatusCode::CONFLICT,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// An error answer.
#[derive(Debug)]
pub struct Exception {
    code: Code,
    /// The parameter, property or element at fault; empty where there is none.
    locator: String,
    text: String,
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
}

pub type Result<T> = std::result::Result<T, Exception>;

impl Exception {
    pub fn new(code: Code, locator: impl Into<String>, text: impl Into<String>) -> Exception {
        let status = code.status();
        Exception { code, locator: locator.into(), text: text.into(), status, headers: Vec::new() }
    }

    pub fn missing(parameter: &str) -> Exception {
        Exception::new(Code::MissingParameterValue, parameter, format!("the parameter '{parameter}' is missing"))
    }

    pub fn invalid(parameter: &str, text: impl Into<String>) -> Exception {
        Exception::new(Code::InvalidParameterValue, parameter, text)
    }

    pub fn with_status(self, status: StatusCode) -> Exception {
        Exception { status, ..self }
    }

    pub fn with_text(mut self, change: impl FnOnce(&str) -> String) -> Exception {
        self.text = change(&self.text);
        self
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    fn unavailable(text: String) -> Exception {
        let mut e = Exception::new(Code::NoApplicableCode, "", text).with_status(StatusCode::SERVICE_UNAVAILABLE);
        e.headers.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
        e
    }

    /// The answer to a request of `version`.
    pub fn into_response(self, version: Version) -> Response {
        let mut body = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_vec();
        self.write(&mut body, version);
        let refused = matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let status = if version == Version::V2_0 || refused { self.status } else { StatusCode::OK };
        if self.status.is_server_error() && self.status != StatusCode::SERVICE_UNAVAILABLE {
            tracing::warn!(status = self.status.as_u16(), error = self.text, "a WFS request failed");
        }
        let mut response = (status, Body::from(body)).into_response();
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml; charset=UTF-8"));
        response
    }

    /// The report's element; its prefixes are declared on it.
    pub fn write(&self, out: &mut Vec<u8>, version: Version) {
        let code = format!("{:?}", self.code);
        let (open, close) = match version {
            Version::V1_0 => (
                "<ServiceExceptionReport version=\"1.2.0\" xmlns=\"http://www.opengis.net/ogc\"><ServiceException code=\"",
                "</ServiceException></ServiceExceptionReport>",
            ),
            Version::V1_1 => (
                "<ows:ExceptionReport xmlns:ows=\"http://www.opengis.net/ows\" version=\"1.0.0\">\
                 <ows:Exception exceptionCode=\"",
                "</ows:ExceptionText></ows:Exception></ows:ExceptionReport>",
            ),
            Version::V2_0 => (
                "<ows:ExceptionReport xmlns:ows=\"http://www.opengis.net/ows/1.1\" version=\"2.0.0\" xml:lang=\"en\">\
                 <ows:Exception exceptionCode=\"",
                "</ows:ExceptionText></ows:Exception></ows:ExceptionReport>",
            ),
        };
        out.extend_from_slice(open.as_bytes());
        out.extend_from_slice(code.as_bytes());
        out.push(b'"');
        if !self.locator.is_empty() {
            out.extend_from_slice(b" locator=\"");
            xml::attribute(out, start(in_words_of(version, &self.locator), MAX_LOCATOR));
            out.push(b'"');
        }
        out.push(b'>');
        if version != Version::V1_0 {
            out.extend_from_slice(b"<ows:ExceptionText>");
        }
        xml::text(out, start(&self.text, MAX_TEXT));
        out.extend_from_slice(close.as_bytes());
    }
}

/// What a parameter or attribute of 2.0.0 is called in the version that was asked for.
fn in_words_of(version: Version, locator: &str) -> &str {
    match (version, locator) {
        (Version::V1_0 | Version::V1_1, "typeNames") => "typeName",
        (Version::V1_0 | Version::V1_1, "count") => "maxFeatures",
        (Version::V1_0 | Version::V1_1, "uom") => "units",
        (Version::V1_0, "gml:id") => "fid",
        _ => locator,
    }
}

/// Errors repeat what was sent, but not at any length.
const MAX_TEXT: usize = 2000;
const MAX_LOCATOR: usize = 200;

fn start(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

impl From<XmlError> for Exception {
    fn from(e: XmlError) -> Exception {
        Exception::new(Code::OperationParsingFailed, "", e.to_string())
    }
}

impl From<GmlError> for Exception {
    fn from(e: GmlError) -> Exception {
        Exception::new(Code::InvalidValue, e.locator.clone(), e.to_string())
    }
}

impl From<FesError> for Exception {
    fn from(e: FesError) -> Exception {
        let code = match e.code {
            fes::Code::InvalidParameterValue => Code::InvalidParameterValue,
            fes::Code::OperationParsingFailed => Code::OperationParsingFailed,
            fes::Code::OperationNotSupported => Code::OperationNotSupported,
            fes::Code::OperationProcessingFailed => Code::OperationProcessingFailed,
        };
        Exception::new(code, e.locator, e.message)
    }
}

impl From<JoinError> for Exception {
    fn from(e: JoinError) -> Exception {
        match e {
            JoinError::Read(e) => e.into(),
            JoinError::TooMuchHeld(_) | JoinError::TooManyCompared | JoinError::NoPlace { .. } => {
                Exception::new(Code::OperationProcessingFailed, "typeNames", e.to_string())
            }
        }
    }
}

impl From<ReadError> for Exception {
    fn from(e: ReadError) -> Exception {
        match e {
            ReadError::UnknownType(_) => Exception::invalid("typeName", e.to_string()),
            ReadError::Unavailable(_) | ReadError::Behind => Exception::unavailable(e.to_string()),
            ReadError::StalePosition(_) => Exception::invalid("Alluvium-Position", e.to_string()),
        }
    }
}

impl From<WriteError> for Exception {
    fn from(e: WriteError) -> Exception {
        let text = e.to_string();
        match e {
            WriteError::UnknownType(_) => Exception::invalid("typeName", text),
            WriteError::Invalid { error, .. } => Exception::new(Code::InvalidValue, error.locator, text),
            WriteError::Exists { .. } => {
                Exception::new(Code::InvalidValue, "gml:id", text).with_status(StatusCode::CONFLICT)
            }
            // WFS has no way to say what is expected.
            WriteError::NotAsExpected { .. } => {
                Exception::new(Code::NoApplicableCode, "", text).with_status(StatusCode::CONFLICT)
            }
            // Of a request without a lockId: it is what would let it pass (15.2.3.1).
            WriteError::Locked { .. } => Exception::new(Code::MissingParameterValue, "lockId", text),
            WriteError::NoLock(e) => e.into(),
            WriteError::Unavailable(_) => Exception::unavailable(text),
            // Not 503, which clients and proxies take for leave to send again as it is.
            WriteError::OutcomeUnknown(_) => {
                Exception::new(Code::NoApplicableCode, "", text).with_status(StatusCode::GATEWAY_TIMEOUT)
            }
            WriteError::TooLarge(_) => {
                Exception::new(Code::NoApplicableCode, "", text).with_status(StatusCode::PAYLOAD_TOO_LARGE)
            }
            WriteError::Read(e) => e.into(),
        }
    }
}

impl From<NoLock> for Exception {
    fn from(e: NoLock) -> Exception {
        let code = match e {
            NoLock::Unknown(_) => Code::InvalidLockId,
            NoLock::Over(_) => Code::LockHasExpired,
        };
        Exception::new(code, "lockId", e.to_string())
    }
}

impl From<LockError> for Exception {
    fn from(e: LockError) -> Exception {
        let text = e.to_string();
        match e {
            LockError::UnknownType(_) => Exception::invalid("typeName", text),
            LockError::Taken { .. } => Exception::new(Code::CannotLockAllFeatures, "", text),
            LockError::NoLock(e) => e.into(),
            LockError::TooMany => Exception::new(Code::OperationProcessingFailed, "", text),
            LockError::Unavailable(_) => Exception::unavailable(text),
        }
    }
}

/// Of stored queries, which are kept with the catalogue.
impl From<CatalogueError> for Exception {
    fn from(e: CatalogueError) -> Exception {
        Exception::unavailable(e.to_string())
    }
}

/// From what the protocols share: refused credentials above all, with the headers that go with them.
impl From<Problem> for Exception {
    fn from(p: Problem) -> Exception {
        let code = match p.status() {
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::BAD_REQUEST => Code::InvalidParameterValue,
            _ => Code::NoApplicableCode,
        };
        let (status, text) = (p.status(), p.detail().to_owned());
        let headers = p.into_response().into_parts().0.headers;
        let kept = headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
        let kept = kept.filter(|(name, _)| *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH);
        Exception { headers: kept.collect(), ..Exception::new(code, "", text).with_status(status) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_follow_the_version() {
        let e = || Exception::new(Code::InvalidParameterValue, "a\"b", "no <such> type");
        let written = |v| {
            let mut out = Vec::new();
            e().write(&mut out, v);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(Version::V1_0),
            "<ServiceExceptionReport version=\"1.2.0\" xmlns=\"http://www.opengis.net/ogc\"><ServiceException \
             code=\"InvalidParameterValue\" locator=\"a&quot;b\">no &lt;such&gt; type</ServiceException></ServiceExceptionReport>"
        );
        assert!(written(Version::V1_1).starts_with("<ows:ExceptionReport xmlns:ows=\"http://www.opengis.net/ows\""));
        assert!(written(Version::V2_0).contains("<ows:ExceptionText>no &lt;such&gt; type</ows:ExceptionText>"));
        assert_eq!(e().into_response(Version::V2_0).status(), 400);
        assert_eq!(e().into_response(Version::V1_1).status(), 200);
        let long = Exception::new(Code::NoApplicableCode, "é".repeat(1000), "é".repeat(10_001));
        let mut out = Vec::new();
        long.write(&mut out, Version::V2_0);
        assert!(out.len() < 3000 && std::str::from_utf8(&out).is_ok());
        let refused = Exception::from(Problem::new(StatusCode::UNAUTHORIZED, "who?"));
        assert_eq!(refused.into_response(Version::V1_0).status(), 401);
    }
}
