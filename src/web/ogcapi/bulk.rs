//! Uploads of any length, one feature, or some fixes of one track, a line: NDJSON, and GeoJSON Text Sequences (RFC 8142).
//!
//! Invariants: memory is bounded by the batch, whatever the length; lines are written in their order; a batch is written as
//! a whole or not at all; a line that is not good is told with its number and harms no other.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Buf, BytesMut};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::JSON;
use super::write::one_action;
use crate::format::geojson::{FeatureReader, ParseError, Unknown};
use crate::model::crs::CrsRef;
use crate::model::{Append, Feature, FeatureType, Position, no_id};
use crate::store::{ActionKind, Existing, WriteError, Written};
use crate::web::problem::{Problem, Result};
use crate::web::request::{next_piece, position_header};
use crate::web::{Web, metrics};

pub const NDJSON: &str = "application/x-ndjson";
pub const SEQUENCE: &str = "application/geo+json-seq";
pub const MEDIA_TYPES: &[&str] = &[NDJSON, SEQUENCE];

/// A batch is written when it has so many lines, or so many bytes of them.
const BATCH_LINES: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;
/// Errors that are told; the others are only counted.
const ERRORS_TOLD: usize = BATCH_LINES;

/// What stands between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    LineFeed,
    /// ASCII RS before each record, which may itself have line feeds.
    RecordSeparator,
}

impl Separator {
    /// `None`: not a media type of lines.
    pub fn of(media_type: &str) -> Option<Separator> {
        match media_type {
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines"
            | "application/geo+jsonl"
            | "application/x-ldjson" => Some(Separator::LineFeed),
            "application/geo+json-seq" | "application/json-seq" => Some(Separator::RecordSeparator),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Separator::LineFeed => b'\n',
            Separator::RecordSeparator => 0x1e,
        }
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Features,
    /// Of tracks.
    Fixes,
}

/// Reads a body of lines and writes it batch by batch: the next one is read while one is being written.
pub async fn upload(
    web: &Arc<Web>,
    ft: &Arc<FeatureType>,
    crs: &CrsRef,
    separator: Separator,
    content: Content,
    body: Body,
) -> Result<Response> {
    let reader = FeatureReader::new(ft, Some(crs), Unknown::Refuse);
    let mut records = Records::new(separator, web.server.max_line_bytes);
    let mut stream = body.into_data_stream();
    let mut upload = Upload { web, ft, content, batch: Batch::default(), writing: None, report: Report::default() };
    while let Some(piece) = next_piece(&mut stream, web.server.idle_timeout).await? {
        records.push(&piece);
        while let Some(record) = records.next() {
            upload.take(&reader, record).await?;
        }
        upload.poll().await?;
    }
    if let Some(record) = records.end() {
        upload.take(&reader, record).await?;
    }
    upload.finish().await
}

/// One record of the body.
#[derive(Debug, PartialEq)]
struct Record {
    /// The number of its first line, from 1.
    line: u64,
    /// `None`: too long; it was passed over.
    text: Option<BytesMut>,
}

/// Cuts pieces of a body into records.
struct Records {
    separator: u8,
    most: usize,
    buffer: BytesMut,
    /// Bytes of the buffer that are known to have no separator.
    searched: usize,
    line: u64,
    /// Inside a record that is too long.
    skipping: bool,
}

impl Records {
    fn new(separator: Separator, most: usize) -> Records {
        let (separator, buffer) = (separator.byte(), BytesMut::new());
        Records { separator, most, buffer, searched: 0, line: 1, skipping: false }
    }

    fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole record that is not blank.
    fn next(&mut self) -> Option<Record> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|b| *b == self.separator);
            let Some(end) = found.map(|at| self.searched + at) else {
                self.searched = self.buffer.len();
                if self.buffer.len() > self.most {
                    self.pass_over();
                }
                return None;
            };
            let text = self.buffer.split_to(end);
            self.buffer.advance(1);
            self.searched = 0;
            let line = self.line;
            self.line += lines_in(&text) + u64::from(self.separator == b'\n');
            if let Some(record) = self.record(line, text) {
                return Some(record);
            }
        }
    }

    /// What stands after the last separator.
    fn end(&mut self) -> Option<Record> {
        let text = self.buffer.split();
        self.record(self.line, text)
    }

    fn record(&mut self, line: u64, text: BytesMut) -> Option<Record> {
        if std::mem::take(&mut self.skipping) || text.len() > self.most {
            return Some(Record { line, text: None });
        }
        let mut text = text;
        // Records of either kind are found in bodies of the other.
        while text.first().is_some_and(|b| b.is_ascii_whitespace() || *b == 0x1e) {
            text.advance(1);
        }
        let blank = text.iter().all(u8::is_ascii_whitespace);
        (!blank).then_some(Record { line, text: Some(text) })
    }

    /// Forgets the beginning of a record that has become too long, until its end comes.
    fn pass_over(&mut self) {
        self.line += lines_in(&self.buffer);
        self.buffer.clear();
        self.searched = 0;
        self.skipping = true;
    }
}

fn lines_in(text: &[u8]) -> u64 {
    text.iter().filter(|b| **b == b'\n').count() as u64
}

#[derive(Default)]
struct Batch {
    features: Vec<Feature>,
    appends: Vec<Append>,
    lines: Vec<u64>,
    bytes: usize,
}

/// What becomes of a batch: its lines, and the store's answer.
type Outcome = (Vec<u64>, std::result::Result<Written, WriteError>);

struct Upload<'a> {
    web: &'a Arc<Web>,
    ft: &'a Arc<FeatureType>,
    content: Content,
    batch: Batch,
    /// The batch before. The next is begun when it has ended, so that changes of one feature stay in order.
    writing: Option<BoxFuture<'static, Outcome>>,
    report: Report,
}

impl Upload<'_> {
    async fn take(&mut self, reader: &FeatureReader<'_>, record: Record) -> Result<()> {
        let Some(text) = record.text else {
            let what =
                format!("the line has more than {} bytes (server.max_line_bytes)", self.web.server.max_line_bytes);
            self.report.reject(record.line, &what, "");
            return Ok(());
        };
        let parsed = match self.content {
            Content::Features => self.feature(reader, &text).map(|f| self.batch.features.push(f)),
            Content::Fixes => self.fixes(reader, &text).map(|a| self.batch.appends.push(a)),
        };
        match parsed {
            Ok(()) => {
                self.batch.lines.push(record.line);
                self.batch.bytes += text.len();
            }
            Err(e) => self.report.reject(record.line, &e.message, &e.pointer),
        }
        if self.batch.lines.len() >= BATCH_LINES || self.batch.bytes >= BATCH_BYTES {
            self.write().await?;
        }
        Ok(())
    }

    fn feature(&self, reader: &FeatureReader<'_>, text: &[u8]) -> std::result::Result<Feature, ParseError> {
        let parsed = reader.feature(text)?;
        let id = parsed.id.clone().unwrap_or_else(no_id);
        let mut feature = parsed.into_feature(id);
        self.ft.check(&mut feature)?;
        Ok(feature)
    }

    fn fixes(&self, reader: &FeatureReader<'_>, text: &[u8]) -> std::result::Result<Append, ParseError> {
        let append = reader.append(text, None)?;
        self.ft.check_append(&append)?;
        Ok(append)
    }

    /// Begins to write the batch, when the one before has ended.
    async fn write(&mut self) -> Result<()> {
        self.wait().await?;
        let batch = std::mem::take(&mut self.batch);
        if batch.lines.is_empty() {
            return Ok(());
        }
        // Where other writes are refused at once, this client is slowed down: what it sends next is not read meanwhile.
        self.web.store.room(self.web.server.idle_timeout).await;
        let (web, collection) = (self.web.clone(), self.ft.name.clone());
        let kind = match self.content {
            Content::Features => ActionKind::Insert { features: batch.features, existing: Existing::Replace },
            Content::Fixes => ActionKind::Append { appends: batch.appends },
        };
        self.writing = Some(Box::pin(async move {
            let written = web.store.write(one_action(&collection, kind, Position::default())).await;
            (batch.lines, written)
        }));
        self.poll().await
    }

    /// Lets the batch that is being written go on, without waiting for it.
    async fn poll(&mut self) -> Result<()> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        match futures::poll!(writing) {
            std::task::Poll::Pending => Ok(()),
            std::task::Poll::Ready(outcome) => {
                self.writing = None;
                self.report.add(&self.ft.name, outcome)
            }
        }
    }

    async fn wait(&mut self) -> Result<()> {
        match self.writing.take() {
            Some(writing) => self.report.add(&self.ft.name, writing.await),
            None => Ok(()),
        }
    }

    async fn finish(mut self) -> Result<Response> {
        self.write().await?;
        self.wait().await?;
        Ok(self.report.into_response())
    }
}

/// What an upload has come to so far.
#[derive(Default)]
struct Report {
    accepted: u64,
    rejected: u64,
    errors: Vec<Value>,
    position: Position,
}

impl Report {
    fn reject(&mut self, line: u64, detail: &str, pointer: &str) {
        self.rejected += 1;
        if self.errors.len() < ERRORS_TOLD {
            let mut error = json!({ "line": line, "detail": detail });
            if !pointer.is_empty() {
                error["pointer"] = json!(pointer);
            }
            self.errors.push(error);
        }
    }

    /// Takes up what became of a batch. When the store is away the upload ends, and the problem says how far it came: what
    /// follows would fare no better, and the client can send the rest again.
    fn add(&mut self, collection: &str, (lines, written): Outcome) -> Result<()> {
        match written {
            Ok(written) => {
                self.accepted += lines.len() as u64;
                self.position.merge(&written.position);
                metrics::written(collection, "insert", lines.len());
                Ok(())
            }
            Err(
                e @ (WriteError::Invalid { .. }
                | WriteError::TooLarge(_)
                | WriteError::Exists { .. }
                | WriteError::Locked { .. }),
            ) => {
                let what = e.to_string();
                lines.iter().for_each(|line| self.reject(*line, &what, ""));
                Ok(())
            }
            Err(e) => {
                let first = lines.first().copied().unwrap_or_default();
                let told = format!("{e}; {} lines were written, all of them before line {first}", self.accepted);
                let mut problem = Problem::from(e);
                problem.set_detail(told);
                Err(problem)
            }
        }
    }
}

impl IntoResponse for Report {
    fn into_response(self) -> Response {
        let body = json!({
            "accepted": self.accepted,
            "rejected": self.rejected,
            "errorsTruncated": self.rejected > self.errors.len() as u64,
            "errors": self.errors,
        });
        let content_type = [(header::CONTENT_TYPE, JSON)];
        let mut response = (StatusCode::OK, content_type, body.to_string()).into_response();
        response.headers_mut().extend(position_header(&self.position));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(separator: Separator, most: usize, pieces: &[&str]) -> Vec<(u64, Option<String>)> {
        let mut records = Records::new(separator, most);
        let mut all = Vec::new();
        for piece in pieces {
            records.push(piece.as_bytes());
            while let Some(r) = records.next() {
                all.push(r);
            }
        }
        all.extend(records.end());
        all.into_iter().map(|r| (r.line, r.text.map(|t| String::from_utf8(t.to_vec()).unwrap()))).collect()
    }

    fn good(line: u64, text: &str) -> (u64, Option<String>) {
        (line, Some(text.to_owned()))
    }

    #[test]
    fn lines_are_cut_wherever_the_pieces_end() {
        let text = "{1}\r\n\n  \n{22}\n{3}";
        let expected = [good(1, "{1}\r"), good(4, "{22}"), good(5, "{3}")];
        assert_eq!(cut(Separator::LineFeed, 10, &[text]), expected);
        let bytes: Vec<&str> = text.split("").filter(|s| !s.is_empty()).collect();
        assert_eq!(cut(Separator::LineFeed, 10, &bytes), expected);
    }

    #[test]
    fn records_of_a_text_sequence_may_have_line_feeds() {
        let text = "\x1e{\n1}\n\x1e{2}\n";
        assert_eq!(cut(Separator::RecordSeparator, 10, &[text]), [good(1, "{\n1}\n"), good(3, "{2}\n")]);
        assert_eq!(cut(Separator::LineFeed, 10, &["\x1e{1}\n\x1e{2}\n"]), [good(1, "{1}"), good(2, "{2}")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let long = "x".repeat(30);
        for pieces in [vec![long.as_str(), "yy\n{2}\n"], vec!["xxxxx", "xxxxxxxxx", "xxxxxx\n{2}\n"]] {
            assert_eq!(cut(Separator::LineFeed, 10, &pieces), [(1, None), good(2, "{2}")]);
        }
        assert_eq!(cut(Separator::LineFeed, 10, &[&long]), [(1, None)]);
    }
}
