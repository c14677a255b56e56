//! Answers in formats whose files are made as a whole before they are sent: whatever goes wrong with a feature is an exception
//! report, and nothing that is sent is half a file.

use std::io::{self, Seek, SeekFrom, Write};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::mpsc;

use super::answer::attach;
use super::exception::{Code, Exception, Result};
use super::get_feature::Request;
use super::query::Prepared;
use super::{Ask, xml_response};
use crate::format::file::{Content, FeatureFile, FileError};
use crate::format::zip;
use crate::model::Position;
use crate::model::crs::CrsRef;
use crate::query::Query;
use crate::store::Reading;
use crate::web::request::position_header;

/// Features that go to the file at once.
const BATCH: usize = 512;
const PIECE: usize = 64 << 10;
/// Pieces that wait for a slow client.
const PIECES_AHEAD: usize = 4;

/// The features of all queries, each of another type, in `file`.
pub async fn respond(ask: &Ask, request: &Request, mut file: Box<dyn FeatureFile>) -> Result<Response> {
    let (mut skip, mut left) = (request.start, request.count.unwrap_or(u64::MAX));
    let any_order = (skip, left) == (0, u64::MAX);
    let mut position = Position::default();
    let mut type_names: Vec<String> = Vec::new();
    for query in &request.queries {
        let Prepared { ft, query, crs, selection, .. } = query.prepare(ask)?;
        if type_names.contains(&ft.name) {
            let text = format!("{} has each type once, and '{}' is asked for twice", request.format.name(), ft.name);
            return Err(Exception::invalid("outputFormat", text));
        }
        type_names.push(ft.name.clone());
        let any_order = any_order && query.sort.is_empty();
        let mut reading = ask.web.store.read(Query { any_order, ..query }).await?;
        position.merge(&reading.position);
        let to = crs.crs;
        file = step(file, move |file| file.begin(&ft, to, &selection).map_err(told)).await?;
        file = features(file, &mut reading, &crs, &mut skip, &mut left).await?;
    }
    let content = tokio::task::spawn_blocking(move || file.finish()).await.map_err(broken)?.map_err(told)?;
    let mut response = xml_response(body(content), request.format.name());
    response.headers_mut().extend(position_header(&position));
    attach(&mut response, request, &type_names);
    Ok(response)
}

/// Passes over the first `skip` features, and gives the file at most `left`.
async fn features(
    mut file: Box<dyn FeatureFile>,
    reading: &mut Reading,
    crs: &CrsRef,
    skip: &mut u64,
    left: &mut u64,
) -> Result<Box<dyn FeatureFile>> {
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH && *left > 0 {
            let Some(item) = reading.next().await.transpose()? else { break };
            if *skip > 0 {
                *skip -= 1;
            } else {
                *left -= 1;
                batch.push(item.feature);
            }
        }
        let last = batch.len() < BATCH;
        let spelling = crs.spelling.clone();
        file = step(file, move |file| {
            batch.iter().try_for_each(|feature| {
                file.write(feature).map_err(|e| match e {
                    FileError::Geometry(e) => {
                        let text = format!("feature '{}' has no place in {spelling}: {e}", feature.id);
                        Exception::invalid("srsName", text)
                    }
                    e => told(e),
                })
            })
        })
        .await?;
        if last {
            return Ok(file);
        }
    }
}

/// Does what blocks on a thread for that.
async fn step(
    mut file: Box<dyn FeatureFile>,
    what: impl FnOnce(&mut dyn FeatureFile) -> Result<()> + Send + 'static,
) -> Result<Box<dyn FeatureFile>> {
    tokio::task::spawn_blocking(move || what(&mut *file).map(|()| file)).await.map_err(broken)?
}

fn told(e: FileError) -> Exception {
    match e {
        FileError::Geometry(_) => Exception::invalid("srsName", e.to_string()),
        FileError::Format(text) => Exception::invalid("outputFormat", text),
        FileError::Io(_) => {
            Exception::new(Code::NoApplicableCode, "", e.to_string()).with_status(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

fn broken(e: tokio::task::JoinError) -> Exception {
    let text = format!("the file could not be made: {e}");
    Exception::new(Code::NoApplicableCode, "", text).with_status(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Sends the content piece by piece, from a thread that may block.
fn body(content: Content) -> Body {
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut out = Pieces { sender, piece: Vec::with_capacity(PIECE) };
        let sent = match content {
            Content::File(mut file) => {
                file.seek(SeekFrom::Start(0)).and_then(|_| io::copy(&mut file, &mut out)).map(|_| ())
            }
            Content::Zip(entries) => zip::write(entries, &mut out),
        };
        let sent = sent.and_then(|()| out.flush());
        match sent {
            // The client has gone.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                tracing::warn!(%error, "an answer was broken off");
                // Nobody is left to be told when this fails.
                out.sender.blocking_send(Err(error)).ok();
            }
            Ok(()) => {}
        }
    });
    Body::from_stream(futures::stream::unfold(pieces, |mut pieces| async move {
        let next = pieces.recv().await?;
        Some((next, pieces))
    }))
}

/// Writes into a body.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
