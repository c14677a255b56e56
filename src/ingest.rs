//! `alluvium ingest`: loads a file of any length into a collection of a server, by HTTP.
//!
//! Invariants: memory is bounded by the chunk, whatever the file's length; features go in the file's order; each line that is not
//! taken is written to a file with its number and the reason.

mod source;

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::client::{Client, ClientError, Summary};
use crate::format::csv::Names;
use crate::model::PropertyType;
use source::{Format, Reading};

#[derive(Args, Clone, Debug)]
pub struct IngestArgs {
    /// The file; `-`: standard input. One that ends in .gz is unpacked.
    file: String,
    /// The collection to write to.
    #[arg(long, value_name = "ID")]
    collection: String,
    /// The server's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "ALLUVIUM_SERVER")]
    server: String,
    /// An API key with the role editor, where the server wants one.
    #[arg(long, value_name = "KEY", env = "ALLUVIUM_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// CSV: the column of longitudes [default: lon, longitude, x ...].
    #[arg(long, value_name = "COLUMN")]
    lon: Option<String>,
    /// CSV: the column of latitudes [default: lat, latitude, y ...].
    #[arg(long, value_name = "COLUMN")]
    lat: Option<String>,
    /// CSV: the column of feature ids [default: id, fid; without one the server makes ids].
    #[arg(long, value_name = "COLUMN")]
    id: Option<String>,
    /// Where rejected lines go, with number and reason [default: the file's name and .rejected.ndjson].
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
}

/// A chunk is sent when it has so many lines, or so many bytes: what the server writes as one batch.
const CHUNK_LINES: usize = 1000;
const CHUNK_BYTES: usize = 4 << 20;
/// How often a chunk is sent again when the server is not available.
const RETRIES: u32 = 60;

/// Loads the file. An error when a line was rejected, or the server gave out.
pub async fn run(args: IngestArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server, args.api_key.as_deref())?;
    let schema = client.get(&format!("/collections/{}/schema", args.collection)).await;
    let properties = properties(&schema.with_context(|| format!("collection '{}'", args.collection))?);
    let reading = Reading {
        format: args.format,
        names: Names { lon: args.lon.clone(), lat: args.lat.clone(), id: args.id.clone() },
        properties,
    };
    let (progress, input) = open(&args.file)?;
    let (chunks, mut coming) = mpsc::channel(2);
    let name = args.file.clone();
    let reader = tokio::task::spawn_blocking(move || read(&reading, &name, input, &chunks));

    let mut rejects = Rejects { path: args.rejects.clone().unwrap_or_else(|| default_rejects(&args.file)), file: None };
    let mut sent = Sent::default();
    while let Some(chunk) = coming.recv().await {
        let chunk: Chunk = chunk;
        let summary = match send(&client, &args.collection, &chunk).await {
            Ok(summary) => summary,
            Err(e) => {
                let line = chunk.lines.first().copied().unwrap_or_default();
                bail!("{e}; {} features were written, all of them before line {line}", sent.accepted);
            }
        };
        sent.accepted += summary.accepted;
        sent.rejected += summary.rejected + chunk.unreadable.len() as u64;
        rejects.write(&chunk, &summary)?;
        progress.set_message(sent.to_string());
    }
    reader.await??;
    progress.finish_and_clear();
    eprintln!("{sent}");
    match rejects.file {
        None => Ok(()),
        Some(_) => Err(anyhow!("{} lines were rejected, see {}", sent.rejected, rejects.path.display())),
    }
}

#[derive(Clone, Copy, Default)]
struct Sent {
    accepted: u64,
    rejected: u64,
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} accepted, {} rejected", self.accepted, self.rejected)
    }
}

/// Lines for one request.
#[derive(Default)]
struct Chunk {
    text: Vec<u8>,
    /// For each line of `text`, its number in the file.
    lines: Vec<u64>,
    /// Lines that could not be sent, with the reason.
    unreadable: Vec<(u64, String)>,
}

/// Opens the file, unpacking it as its name says, under a progress bar of its bytes.
fn open(name: &str) -> anyhow::Result<(ProgressBar, Box<dyn Read + Send>)> {
    let (progress, bytes): (_, Box<dyn Read + Send>) = if name == "-" {
        (ProgressBar::new_spinner(), Box::new(std::io::stdin()))
    } else {
        let file = File::open(name).with_context(|| name.to_owned())?;
        let progress = ProgressBar::new(file.metadata()?.len());
        let style = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}  {msg}";
        progress.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        (progress, Box::new(file))
    };
    let counted = progress.wrap_read(bytes);
    let unpacked: Box<dyn Read + Send> =
        if name.ends_with(".gz") { Box::new(flate2::read::MultiGzDecoder::new(counted)) } else { Box::new(counted) };
    Ok((progress, unpacked))
}

/// Reads the file into chunks; blocks. Stops early when nobody takes them any more.
fn read(
    reading: &Reading,
    name: &str,
    input: Box<dyn Read + Send>,
    chunks: &mpsc::Sender<Chunk>,
) -> anyhow::Result<()> {
    let mut chunk = Chunk::default();
    let gone = |_| anyhow!("the upload has ended");
    reading
        .run(name, input, &mut |line, feature| {
            match feature {
                Ok(text) => {
                    chunk.text.extend_from_slice(text);
                    chunk.text.push(b'\n');
                    chunk.lines.push(line);
                }
                Err(reason) => chunk.unreadable.push((line, reason)),
            }
            let full = chunk.lines.len() + chunk.unreadable.len() >= CHUNK_LINES || chunk.text.len() >= CHUNK_BYTES;
            if full { chunks.blocking_send(std::mem::take(&mut chunk)).map_err(gone) } else { Ok(()) }
        })
        .and_then(|()| chunks.blocking_send(chunk).map_err(gone))
        .with_context(|| name.to_owned())
}

/// Sends a chunk, again and again while the server is not available.
async fn send(client: &Client, collection: &str, chunk: &Chunk) -> Result<Summary, ClientError> {
    if chunk.lines.is_empty() {
        return Ok(Summary::default());
    }
    let text = Bytes::copy_from_slice(&chunk.text);
    for _ in 0..RETRIES {
        match client.post_lines(collection, text.clone()).await {
            Err(ClientError::Unavailable { retry_after_s, .. }) => {
                tokio::time::sleep(Duration::from_secs(retry_after_s.unwrap_or(1).clamp(1, 30))).await;
            }
            done => return done,
        }
    }
    client.post_lines(collection, text).await
}

fn default_rejects(file: &str) -> PathBuf {
    if file == "-" { "stdin.rejected.ndjson".into() } else { format!("{file}.rejected.ndjson").into() }
}

/// The file of rejected lines, made with the first of them: each a JSON object with `line`, `detail` and the `text` sent.
struct Rejects {
    path: PathBuf,
    file: Option<File>,
}

impl Rejects {
    fn write(&mut self, chunk: &Chunk, summary: &Summary) -> anyhow::Result<()> {
        let texts: Vec<&[u8]> = chunk.text.split(|b| *b == b'\n').collect();
        let mut told: Vec<(u64, Value)> = Vec::new();
        for (line, reason) in &chunk.unreadable {
            told.push((*line, json!({ "line": line, "detail": reason })));
        }
        for error in &summary.errors {
            let at = usize::try_from(error.line.saturating_sub(1)).unwrap_or(usize::MAX);
            let line = chunk.lines.get(at).copied().unwrap_or_default();
            let text = texts.get(at).map(|t| String::from_utf8_lossy(t));
            let mut object = json!({ "line": line, "detail": error.detail, "text": text });
            if !error.pointer.is_empty() {
                object["pointer"] = json!(error.pointer);
            }
            told.push((line, object));
        }
        told.sort_by_key(|(line, _)| *line);
        let silent = summary.rejected.saturating_sub(summary.errors.len() as u64);
        if silent > 0 {
            let (first, last) = (chunk.lines.first(), chunk.lines.last());
            let detail =
                format!("{silent} more lines between {first:?} and {last:?} were rejected, the server did not say why");
            told.push((0, json!({ "line": null, "detail": detail })));
        }
        for (_, object) in told {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(File::create(&self.path).with_context(|| self.path.display().to_string())?),
            };
            writeln!(file, "{object}")?;
        }
        Ok(())
    }
}

/// The properties of a collection's JSON Schema, with the types that CSV's fields are read as.
fn properties(schema: &Value) -> Vec<(String, PropertyType)> {
    let members = schema.get("properties").and_then(Value::as_object);
    let logical =
        |s: &Value| s.get("x-ogc-role").and_then(Value::as_str).is_none_or(|r| r != "id" && r != "primary-geometry");
    members.into_iter().flatten().filter(|(_, s)| logical(s)).map(|(name, s)| (name.clone(), type_of(s))).collect()
}

fn type_of(schema: &Value) -> PropertyType {
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    // The type of a property that may be null is a list of two.
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|k| *k != "null"),
        other => other.and_then(Value::as_str),
    };
    match (kind, text("format")) {
        (Some("integer"), _) => PropertyType::Int64,
        (Some("number"), _) => PropertyType::Number,
        (Some("boolean"), _) => PropertyType::Boolean,
        (Some("string"), Some("date")) => PropertyType::Date,
        (Some("string"), Some("date-time")) => PropertyType::DateTime,
        (Some("string"), _) => PropertyType::String,
        _ => PropertyType::Json,
    }
}

#[cfg(test)]
mod tests;
