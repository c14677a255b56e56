//! Answers to queries: collections that stream, and single features.
//!
//! Up to [`PRIME`] bytes are made before the answer begins: an error in them is an exception report. An error in what follows
//! ends the answer with `wfs:truncatedResponse`, or breaks off JSON. The counts are of the moment of the features; each query
//! of several has its own. Memory: one chunk per request.

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::response::Response;

use super::exception::{Code, Exception, Result};
use super::get_feature::{Format, Request};
use super::query::Prepared;
use super::{Ask, Version, WFS_NS, xml_response};
use crate::format::gml::{self, APP, APP_NS, GML_NS, Selection, gml_id};
use crate::format::{geojson, xml};
use crate::model::crs::CrsRef;
use crate::model::value::format_instant;
use crate::model::{Feature, Position};
use crate::query::fes::{Reference, resolve_reference};
use crate::store::{Reading, Store};
use crate::web::request::position_header;

const CHUNK: usize = 64 << 10;
const PRIME: usize = 256 << 10;

/// What the members of a collection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    Features,
    /// Of the request's value reference.
    Values,
}

/// A `FeatureCollection` or a `ValueCollection`.
pub async fn collection(ask: &Ask, request: Request, members: Members) -> Result<Response> {
    let (web, store) = (&ask.web, &ask.web.store);
    let limit = request.count.unwrap_or(web.server.max_limit).min(web.server.max_limit);
    let mut parts = Vec::with_capacity(request.queries.len());
    for query in &request.queries {
        parts.push(Part::open(store, query.prepare(ask)?, &request).await?);
    }
    let type_names: Vec<String> = parts.iter().map(|p| p.reading.feature_type.name.clone()).collect();
    let content_crs = parts.first().map(|p| p.crs.spelling.clone());
    let mut matched = None;
    match &mut parts[..] {
        // The end of a small answer tells how many there are.
        [one] if !request.hits => one.reading.page(request.start, limit),
        several => matched = Some(share_out(several, request.start, if request.hits { 0 } else { limit }).await?),
    }
    let mut stream = MemberStream::new(parts);
    let mut first = Vec::new();
    let mut more = !request.hits && stream.fill(&mut first, PRIME).await?;
    let matched = match matched {
        Some(n) => n,
        None if !more && stream.returned < limit && (stream.returned > 0 || request.start == 0) => {
            request.start + stream.returned
        }
        None => {
            let n = stream.count().await?;
            if more {
                first.clear();
                more = stream.again(&mut first, PRIME).await?;
            }
            n
        }
    };
    let rest = matched.saturating_sub(request.start).min(limit);
    let frame = Frame {
        matched,
        returned: if more { rest } else { stream.returned },
        time_stamp: format_instant(web.clock.now_ms().saturating_mul(1000)),
        next: link(ask, &request, limit, matched, Page::Next),
        previous: link(ask, &request, limit, matched, Page::Previous),
        members,
        format: request.format,
    };
    let mut out = frame.open(ask, &type_names);
    out.append(&mut first);
    let position = position_header(&stream.position);
    let body = match more {
        true => Body::from_stream(stream.into_chunks(out, frame.clone())),
        false => {
            frame.close(&mut out, stream.returned);
            Body::from(out)
        }
    };
    let mut response = xml_response(body, frame.format.name());
    response.headers_mut().extend(position);
    if frame.format == Format::GeoJson
        && let Some(crs) = content_crs.and_then(|c| HeaderValue::try_from(format!("<{c}>")).ok())
    {
        response.headers_mut().insert("content-crs", crs);
    }
    Ok(response)
}

/// GetFeatureById: the feature's element itself is the document (WFS 2.0, 7.9.3.6).
pub async fn by_id(ask: &Ask, request: Request, id: &str) -> Result<Response> {
    let mut part = Part::open(&ask.web.store, request.queries[0].prepare(ask)?, &request).await?;
    let not_found = || Exception::new(Code::NotFound, "id", format!("there is no feature '{id}'"));
    let item = part.reading.next().await.ok_or_else(not_found)??;
    let mut out = Vec::new();
    if request.format == Format::Gml {
        out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    }
    let root = format!(" {}", namespaces(ask, std::slice::from_ref(&part.reading.feature_type.name)));
    part.writer.feature(&mut out, &item.feature, &root, &part.crs)?;
    let mut response = xml_response(out, request.format.name());
    response.headers_mut().extend(position_header(&part.reading.position));
    Ok(response)
}

async fn exact_count(part: &mut Part) -> Result<u64> {
    let counted = part.reading.count(None).await?;
    counted.ok_or_else(|| Exception::new(Code::NoApplicableCode, "", "the features could not be counted"))
}

/// Several queries are one sequence: gives each its part of the page. Returns how many features there are in all.
async fn share_out(parts: &mut [Part], mut start: u64, mut limit: u64) -> Result<u64> {
    let mut sum = 0;
    for part in parts {
        let n = exact_count(part).await?;
        sum += n;
        let skipped = start.min(n);
        let taken = (n - skipped).min(limit);
        part.reading.page(skipped, taken);
        start -= skipped;
        limit -= taken;
    }
    Ok(sum)
}

enum Page {
    Next,
    Previous,
}

/// The address of another page; `None` where there is none.
fn link(ask: &Ask, request: &Request, limit: u64, matched: u64, page: Page) -> Option<String> {
    let kvp = request.as_kvp.as_ref()?;
    let (start, count) = match page {
        // Hits lead to the first page, if the client says how long a page is.
        Page::Next if request.hits => {
            (request.start, request.count.map(|_| limit).filter(|_| matched > request.start)?)
        }
        Page::Next => (request.start + limit, Some(limit).filter(|n| *n > 0 && request.start + n < matched)?),
        Page::Previous if request.hits || request.start == 0 || limit == 0 => return None,
        Page::Previous => (request.start.saturating_sub(limit), limit.min(request.start)),
    };
    let changes = [("startIndex", start.to_string()), ("count", count.to_string())];
    let replaced = ["startIndex", "count", "maxFeatures", if request.hits { "resultType" } else { "count" }];
    Some(format!("{}{}", ask.href(), kvp.with(&replaced, &changes)))
}

fn namespaces(ask: &Ask, type_names: &[String]) -> String {
    let mut names: Vec<String> = type_names.iter().map(|n| format!("{APP}:{n}")).collect();
    names.sort_unstable();
    names.dedup();
    let schema =
        format!("{}?service=WFS&version=2.0.0&request=DescribeFeatureType&typeNames={}", ask.href(), names.join(","));
    let mut escaped = Vec::new();
    xml::attribute(&mut escaped, &schema);
    format!(
        "xmlns:wfs=\"{WFS_NS}\" xmlns:gml=\"{GML_NS}\" xmlns:{APP}=\"{APP_NS}\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:schemaLocation=\"{WFS_NS} \
         http://schemas.opengis.net/wfs/2.0/wfs.xsd {GML_NS} http://schemas.opengis.net/gml/3.2.1/gml.xsd {APP_NS} {}\"",
        String::from_utf8_lossy(&escaped)
    )
}

/// One query of the answer, and how its members are written.
struct Part {
    reading: Reading,
    crs: CrsRef,
    writer: Writer,
}

enum Writer {
    Gml(gml::FeatureWriter),
    Values { writer: gml::FeatureWriter, type_name: String, reference: Reference },
    Json(geojson::FeatureWriter),
}

impl Part {
    async fn open(store: &Store, prepared: Prepared, request: &Request) -> Result<Part> {
        if let Some(text) = &request.value_reference {
            let reference = resolve_reference(text, &prepared.ft);
            let reference = reference.map_err(|e| Exception::invalid("valueReference", e.message))?;
            let prepared = prepared.having(reference)?;
            let writer = gml::FeatureWriter::new(&prepared.ft, &prepared.crs, &Selection::all(&prepared.ft));
            let writer = Writer::Values { writer, type_name: prepared.ft.name.clone(), reference };
            return Ok(Part { reading: store.read(prepared.query).await?, crs: prepared.crs, writer });
        }
        let Prepared { ft, query, mut crs, crs_was_asked, selection } = prepared;
        let writer = match request.format {
            Format::Gml => Writer::Gml(gml::FeatureWriter::new(&ft, &crs, &selection)),
            Format::GeoJson => {
                // GeoJSON is longitude, latitude unless something else is asked for, and x,y always: what JSON clients
                // of WFS have learnt to expect.
                crs = if crs_was_asked { crs.in_xy_order() } else { CrsRef::crs84() };
                let options = geojson::Options {
                    crs: Some(&crs),
                    wfs_ids: true,
                    properties: Some(&selection.properties),
                    skip_geometry: !selection.geometry,
                };
                Writer::Json(geojson::FeatureWriter::new(&ft, &options))
            }
        };
        Ok(Part { reading: store.read(query).await?, crs, writer })
    }
}

impl Writer {
    /// A feature, or what the reference says of it, without anything around it.
    fn feature(&self, out: &mut Vec<u8>, feature: &Feature, root_attributes: &str, crs: &CrsRef) -> Result<()> {
        let written = match self {
            Writer::Gml(writer) => writer.write(out, feature, root_attributes),
            Writer::Json(writer) => writer.write(out, feature, None),
            Writer::Values { writer, type_name, reference } => match reference {
                Reference::Property(slot) => {
                    gml::write_value(out, feature.value(*slot));
                    Ok(())
                }
                Reference::Id => {
                    out.extend_from_slice(gml_id(type_name, &feature.id).as_bytes());
                    Ok(())
                }
                Reference::Geometry | Reference::BoundedBy => writer.geometry(out, feature).map(|_| ()),
                Reference::Standard => Ok(()),
            },
        };
        written.map_err(|e| {
            Exception::invalid("srsName", format!("feature '{}' has no place in {}: {e}", feature.id, crs.spelling))
        })
    }
}

/// What stands around the members.
#[derive(Clone)]
struct Frame {
    matched: u64,
    returned: u64,
    time_stamp: String,
    next: Option<String>,
    previous: Option<String>,
    members: Members,
    format: Format,
}

impl Frame {
    fn root(&self) -> &'static str {
        match self.members {
            Members::Features => "wfs:FeatureCollection",
            Members::Values => "wfs:ValueCollection",
        }
    }

    fn open(&self, ask: &Ask, type_names: &[String]) -> Vec<u8> {
        let mut out = Vec::with_capacity(CHUNK);
        if self.format == Format::GeoJson {
            out.extend_from_slice(b"{\"type\":\"FeatureCollection\",\"features\":[");
            return out;
        }
        let head = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{} timeStamp=\"{}\" numberMatched=\"{}\" numberReturned=\"{}\"",
            self.root(),
            self.time_stamp,
            self.matched,
            self.returned
        );
        out.extend_from_slice(head.as_bytes());
        for (name, link) in [("next", &self.next), ("previous", &self.previous)] {
            if let Some(link) = link {
                out.extend_from_slice(format!(" {name}=\"").as_bytes());
                xml::attribute(&mut out, link);
                out.push(b'"');
            }
        }
        out.extend_from_slice(format!(" {}>\n", namespaces(ask, type_names)).as_bytes());
        out
    }

    fn close(&self, out: &mut Vec<u8>, returned: u64) {
        if self.format == Format::Gml {
            out.extend_from_slice(format!("</{}>\n", self.root()).as_bytes());
            return;
        }
        let links: Vec<serde_json::Value> = [("next", &self.next), ("prev", &self.previous)]
            .into_iter()
            .filter_map(|(rel, href)| {
                Some(serde_json::json!({"rel": rel, "href": href.as_ref()?, "type": self.format.name()}))
            })
            .collect();
        let tail = serde_json::json!({
            "numberMatched": self.matched,
            "numberReturned": returned,
            "timeStamp": self.time_stamp,
            "links": links,
        });
        out.extend_from_slice(b"\n],");
        out.extend_from_slice(tail.to_string().trim_start_matches('{').as_bytes());
        out.push(b'\n');
    }

    /// Ends an answer that cannot go on. JSON has no way to say so: `None`, the connection is to be broken off.
    fn truncate(&self, out: &mut Vec<u8>, e: &Exception) -> Option<()> {
        if self.format == Format::GeoJson {
            return None;
        }
        out.extend_from_slice(b"<wfs:truncatedResponse>");
        e.write(out, Version::V2_0);
        out.extend_from_slice(format!("</wfs:truncatedResponse></{}>\n", self.root()).as_bytes());
        Some(())
    }
}

/// The members, as they come.
struct MemberStream {
    parts: Vec<Part>,
    /// The part whose members come next.
    current: usize,
    returned: u64,
    position: Position,
}

impl MemberStream {
    fn new(parts: Vec<Part>) -> MemberStream {
        let mut position = Position::default();
        parts.iter().for_each(|part| position.merge(&part.reading.position));
        MemberStream { parts, current: 0, returned: 0, position }
    }

    /// How many features there are in all. What is read next are the first members [again](Self::again).
    async fn count(&mut self) -> Result<u64> {
        let mut sum = 0;
        for part in &mut self.parts {
            sum += exact_count(part).await?;
        }
        Ok(sum)
    }

    /// As [`fill`](Self::fill), from the first member on.
    async fn again(&mut self, out: &mut Vec<u8>, size: usize) -> Result<bool> {
        (self.current, self.returned) = (0, 0);
        self.fill(out, size).await
    }

    /// Writes members until `out` has `size` bytes; false when there are no more.
    async fn fill(&mut self, out: &mut Vec<u8>, size: usize) -> Result<bool> {
        while out.len() < size {
            let Some(part) = self.parts.get_mut(self.current) else { return Ok(false) };
            match part.reading.next().await {
                None => self.current += 1,
                Some(item) => {
                    let start = out.len();
                    let json = matches!(part.writer, Writer::Json(_));
                    let open: &[u8] = match (json, self.returned) {
                        (true, 0) => b"\n",
                        (true, _) => b",\n",
                        (false, _) => b"<wfs:member>",
                    };
                    out.extend_from_slice(open);
                    let written = part.writer.feature(out, &item?.feature, "", &part.crs);
                    written.inspect_err(|_| out.truncate(start))?;
                    if !json {
                        out.extend_from_slice(b"</wfs:member>\n");
                    }
                    self.returned += 1;
                }
            }
        }
        Ok(true)
    }

    /// The body from `first` on.
    fn into_chunks(
        self,
        first: Vec<u8>,
        frame: Frame,
    ) -> impl futures::Stream<Item = std::result::Result<Bytes, std::io::Error>> + Send {
        // `None`: the answer has ended.
        let state = Some((self, first));
        futures::stream::try_unfold(state, move |state| {
            let frame = frame.clone();
            async move {
                let Some((mut members, first)) = state else { return Ok(None) };
                if !first.is_empty() {
                    return Ok(Some((Bytes::from(first), Some((members, Vec::new())))));
                }
                let mut out = Vec::with_capacity(CHUNK + (CHUNK >> 2));
                match members.fill(&mut out, CHUNK).await {
                    Ok(true) => Ok(Some((Bytes::from(out), Some((members, Vec::new()))))),
                    Ok(false) => {
                        frame.close(&mut out, members.returned);
                        Ok(Some((Bytes::from(out), None)))
                    }
                    Err(e) => {
                        tracing::warn!(error = e.text(), returned = members.returned, "an answer had to be broken off");
                        match frame.truncate(&mut out, &e) {
                            Some(()) => Ok(Some((Bytes::from(out), None))),
                            None => Err(std::io::Error::other(e.text().to_owned())),
                        }
                    }
                }
            }
        })
    }
}
