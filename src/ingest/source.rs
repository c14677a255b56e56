//! Files of features into features, one at a time, with bounded memory.

use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;

use crate::format::csv::{Columns, Names};
use crate::format::geojson::read_features;
use crate::model::PropertyType;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// By the file's name, else by its first bytes.
    Auto,
    /// A FeatureCollection.
    Geojson,
    /// A Feature a line, or a GeoJSON Text Sequence.
    Ndjson,
    Csv,
}

/// The longest line that is sent, bytes.
const MAX_LINE: u64 = 64 << 20;

/// What is to be known of the collection and the file.
pub struct Reading {
    pub format: Format,
    pub names: Names,
    /// The collection's properties, for CSV.
    pub properties: Vec<(String, PropertyType)>,
}

/// Whoever takes the features: the number of the line where one begins (in a FeatureCollection: of the feature, from 1), and its
/// text without line feeds, or why there is none.
pub type Sink<'a> = dyn FnMut(u64, Result<&[u8], String>) -> anyhow::Result<()> + 'a;

impl Reading {
    /// Reads all of `input` into `sink`.
    pub fn run(&self, name: &str, input: Box<dyn Read>, sink: &mut Sink<'_>) -> anyhow::Result<()> {
        let mut input = BufReader::with_capacity(1 << 18, input);
        let format = match self.format {
            Format::Auto => guess(name, input.fill_buf()?)?,
            format => format,
        };
        match format {
            Format::Csv => self.csv(name, input, sink),
            Format::Ndjson => lines(input, sink),
            Format::Geojson | Format::Auto => collection(input, sink),
        }
    }

    fn csv(&self, name: &str, input: impl Read, sink: &mut Sink<'_>) -> anyhow::Result<()> {
        let delimiter = if name.trim_end_matches(".gz").ends_with(".tsv") { b'\t' } else { b',' };
        let mut rows = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(input);
        let columns = Columns::find(rows.headers()?, &self.properties, &self.names).map_err(|e| anyhow!(e))?;
        if !columns.ignored.is_empty() {
            eprintln!("columns without a property of that name, left out: {}", columns.ignored.join(", "));
        }
        let mut row = csv::ByteRecord::new();
        let mut text = Vec::new();
        while rows.read_byte_record(&mut row)? {
            text.clear();
            let line = row.position().map_or(0, csv::Position::line);
            match columns.feature(&row, &mut text) {
                Ok(()) => sink(line, Ok(&text))?,
                Err(e) => sink(line, Err(e))?,
            }
        }
        Ok(())
    }
}

/// Which format a file has.
fn guess(name: &str, beginning: &[u8]) -> anyhow::Result<Format> {
    let name = name.to_ascii_lowercase();
    match name.trim_end_matches(".gz").rsplit('.').next() {
        Some("csv" | "tsv") => return Ok(Format::Csv),
        Some("ndjson" | "jsonl" | "geojsonl" | "geojsons" | "geojsonseq") => return Ok(Format::Ndjson),
        _ => {}
    }
    let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning).trim_ascii_start();
    match text.first() {
        Some(0x1e) => Ok(Format::Ndjson),
        Some(b'{') => {
            let first_line = text.split(|b| *b == b'\n').next().unwrap_or(text);
            let whole = serde_json::from_slice::<serde::de::IgnoredAny>(first_line).is_ok();
            let collection = text.windows(19).any(|w| w == b"\"FeatureCollection\"");
            Ok(if whole && !collection { Format::Ndjson } else { Format::Geojson })
        }
        Some(_) => Ok(Format::Csv),
        None => bail!("the file is empty"),
    }
}

fn collection(input: impl Read, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    let mut failed = None;
    let mut text = Vec::new();
    let done = read_features(input, &mut |index, feature| {
        text.clear();
        text.extend_from_slice(feature.as_bytes());
        unbroken(&mut text);
        sink(index as u64 + 1, Ok(&text)).map_err(|e| failed = Some(e)).is_ok()
    });
    match failed {
        Some(e) => Err(e),
        None => done.map_err(|e| anyhow!("{e}")),
    }
}

fn lines(mut input: impl BufRead, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    let separator = if input.fill_buf()?.first() == Some(&0x1e) { 0x1e } else { b'\n' };
    let mut line = 1;
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = input.by_ref().take(MAX_LINE).read_until(separator, &mut text).context("reading")?;
        if read == 0 {
            return Ok(());
        }
        let here = line;
        line += text.iter().filter(|b| **b == b'\n').count() as u64;
        if read as u64 == MAX_LINE && text.last() != Some(&separator) {
            sink(here, Err(format!("longer than {MAX_LINE} bytes")))?;
            line += skip(&mut input, separator)?;
            continue;
        }
        unbroken(&mut text);
        let feature = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text).trim_ascii();
        if !feature.is_empty() {
            sink(here, Ok(feature))?;
        }
    }
}

/// Passes over the rest of a line; counts its line feeds.
fn skip(input: &mut impl BufRead, separator: u8) -> std::io::Result<u64> {
    let mut line_feeds = 0;
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|b| *b == separator);
        let passed = end.map_or(buffer.len(), |end| end + 1);
        line_feeds += buffer[..passed].iter().filter(|b| **b == b'\n').count() as u64;
        input.consume(passed);
        if end.is_some() || passed == 0 {
            return Ok(line_feeds);
        }
    }
}

/// JSON's strings have no bare line feeds, so those that are there are only layout.
fn unbroken(text: &mut [u8]) {
    for b in text {
        if matches!(b, b'\n' | b'\r' | 0x1e) {
            *b = b' ';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &'static str) -> Vec<(u64, Result<String, String>)> {
        let properties = vec![("speed".to_owned(), PropertyType::Number)];
        let reading = Reading { format: Format::Auto, names: Names::default(), properties };
        let mut all = Vec::new();
        let sink = &mut |line, feature: Result<&[u8], String>| {
            all.push((line, feature.map(|f| String::from_utf8(f.to_vec()).unwrap())));
            Ok(())
        };
        reading.run(name, Box::new(text.as_bytes()), sink).unwrap();
        all
    }

    fn good(line: u64, text: &str) -> (u64, Result<String, String>) {
        (line, Ok(text.to_owned()))
    }

    #[test]
    fn every_format_is_known_by_its_name_or_its_beginning() {
        let collection = "{\"type\":\"FeatureCollection\",\n\"features\":[{\"a\":\n1},{}]}";
        assert_eq!(read("a.geojson", collection), [good(1, "{\"a\": 1}"), good(2, "{}")]);
        assert_eq!(read("-", collection), [good(1, "{\"a\": 1}"), good(2, "{}")]);
        let lines = "{\"a\":1}\r\n\n{\"a\":2}";
        assert_eq!(read("-", lines), [good(1, "{\"a\":1}"), good(3, "{\"a\":2}")]);
        assert_eq!(read("a.ndjson", lines).len(), 2);
        assert_eq!(read("-", "\x1e{\n\"a\":1}\n\x1e{}\n"), [good(1, "{ \"a\":1}"), good(3, "{}")]);
        let rows = read("a.csv.gz", "lon,lat,speed\n1,2,3\n1,x,3\n");
        assert_eq!((rows[0].0, rows[1].clone()), (2, (3, Err("'x' is not a coordinate".into()))));
        assert_eq!(read("-", "lon,lat,speed\n1,2,3\n"), rows[..1]);
    }

    #[test]
    fn a_collection_in_another_crs_is_refused_before_its_features() {
        let reading = Reading { format: Format::Geojson, names: Names::default(), properties: Vec::new() };
        let with = |crs: &str| {
            let text = format!(
                r#"{{"type":"FeatureCollection","crs":{{"type":"name","properties":{{"name":"{crs}"}}}},"features":[{{}}]}}"#
            );
            let mut n = 0;
            let done = reading.run("-", Box::new(std::io::Cursor::new(text)), &mut |_, _: Result<&[u8], String>| {
                n += 1;
                Ok(())
            });
            (n, done.map_err(|e| e.to_string()))
        };
        assert_eq!(with("urn:ogc:def:crs:OGC:1.3:CRS84"), (1, Ok(())));
        let (n, refused) = with("urn:ogc:def:crs:EPSG::25832");
        assert!(n == 0 && refused.unwrap_err().contains("EPSG::25832"));
    }

    #[test]
    fn a_file_that_breaks_off_is_an_error_after_what_was_whole() {
        let reading = Reading { format: Format::Geojson, names: Names::default(), properties: Vec::new() };
        let mut n = 0;
        let text = &b"{\"type\":\"FeatureCollection\",\"features\":[{},{}"[..];
        let sink = &mut |_, _: Result<&[u8], String>| {
            n += 1;
            Ok(())
        };
        assert!(reading.run("-", Box::new(text), sink).is_err());
        assert_eq!(n, 2);
    }
}
