//! Answers to queries: collections that stream, and single features.
//!
//! Up to [`PRIME`] bytes are made before the answer begins: an error in them is an exception report. An error in what follows
//! ends the answer with `wfs:truncatedResponse`, or breaks it off where the format has no such thing (JSON, and all of WFS
//! before 2.0). The counts are of the moment of the features; each query of several has its own. Memory: one chunk per request.
//!
//! A collection is of the version of WFS that goes with its GML: no schema has another.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::exception::{Code, Exception, Result};
use super::format::Format;
use super::get_feature::Request;
use super::query::{Prepared, longest_page};
use super::{Ask, Version, file, xml_response};
use crate::format::gml::{self, APP, APP_NS, GmlVersion, Selection, gml_id};
use crate::format::{csv, flatgeobuf, geojson, kml, xml};
use crate::model::crs::CrsRef;
use crate::model::value::format_instant;
use crate::model::{Feature, GeometryError, Position};
use crate::query::fes::{Reference, resolve_reference};
use crate::store::{Reading, Store};
use crate::web::request::position_header;

const CHUNK: usize = 64 << 10;
pub(super) const PRIME: usize = 256 << 10;

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
    if request.hits && !request.format.tells_counts() {
        let text = format!("{} has no place for a count: ask for another outputFormat", request.format.name());
        return Err(Exception::invalid("resultType", text));
    }
    if let Some(file) = request.format.file() {
        return file::respond(ask, &request, file).await;
    }
    if request.format.of_one_query() && request.queries.len() > 1 {
        let text = format!("{} has the features of one query", request.format.name());
        return Err(Exception::invalid("outputFormat", text));
    }
    let pages = ask.version.dialect().pages && request.format.pages();
    let most = if pages { longest_page(ask, &request.queries)? } else { u64::MAX };
    let limit = request.count.unwrap_or(most).min(most);
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
    let mut stream = MemberStream::new(parts, request.format);
    let mut first = Vec::new();
    let mut more = !request.hits && stream.fill(&mut first, PRIME).await?;
    let matched = match matched {
        Some(n) => n,
        None if !more && stream.returned < limit && (stream.returned > 0 || request.start == 0) => {
            request.start + stream.returned
        }
        None if !request.format.tells_counts() => 0,
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
    let in_1_1 = request.format == Format::Gml(GmlVersion::V3_1);
    let frame = Frame {
        matched,
        // In 1.1 hits tell how many features there would be (9.3); in 2.0 it is numberMatched that does.
        returned: if more || request.hits && in_1_1 { rest } else { stream.returned },
        time_stamp: format_instant(web.clock.now_ms().saturating_mul(1000)),
        next: link(ask, &request, limit, matched, Page::Next),
        previous: link(ask, &request, limit, matched, Page::Previous),
        members,
        format: request.format,
    };
    let mut out = frame.open(ask, &type_names, &stream.parts);
    out.append(&mut first);
    let position = position_header(&stream.position);
    let body = match more {
        true => Body::from_stream(chunks(stream, out, frame.clone())),
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
    attach(&mut response, &request, &type_names);
    Ok(response)
}

/// Says so when the answer is to be saved rather than shown.
pub fn attach(response: &mut Response, request: &Request, type_names: &[String]) {
    if let Some(name) = file_name(request, type_names)
        && let Ok(disposition) = HeaderValue::try_from(format!("attachment; filename=\"{name}\""))
    {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
}

/// Under what name the answer is to be saved: as `format_options=filename:…` says, else after its first type.
fn file_name(request: &Request, type_names: &[String]) -> Option<String> {
    let name = match &request.file_name {
        Some(name) => name.clone(),
        None => format!("{}.{}", type_names.first()?, request.format.extension()?),
    };
    Some(name.chars().map(|c| if c.is_alphanumeric() || "._- ".contains(c) { c } else { '_' }).collect())
}

/// GetFeatureById and GetGmlObject: the feature's element itself is the document (WFS 2.0, 7.9.3.6; 1.1.0, 10.3).
pub async fn by_id(ask: &Ask, request: Request, id: &str) -> Result<Response> {
    if request.format.extension().is_some() {
        return Err(Exception::invalid("outputFormat", "a single feature is offered as GML or GeoJSON"));
    }
    let mut part = Part::open(&ask.web.store, request.queries[0].prepare(ask)?, &request).await?;
    let not_found = || Exception::new(Code::NotFound, "id", format!("there is no feature '{id}'"));
    let item = part.reading.next().await.ok_or_else(not_found)??;
    let mut out = Vec::new();
    let mut root = String::new();
    if let Format::Gml(gml) = request.format {
        out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        root = format!(" {}", namespaces(ask, gml, std::slice::from_ref(&part.reading.feature_type.name)));
    }
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

pub(super) enum Page {
    Next,
    Previous,
}

/// The address of another page; `None` where there is none.
pub(super) fn link(ask: &Ask, request: &Request, limit: u64, matched: u64, page: Page) -> Option<String> {
    let kvp = request.as_kvp.as_ref()?;
    let (start, count) = match page {
        // Hits lead to the first page, if the client says how long a page is.
        Page::Next if request.hits => {
            (request.start, request.count.map(|_| limit).filter(|_| matched > request.start)?)
        }
        Page::Next => {
            let next = request.start.saturating_add(limit);
            (next, Some(limit).filter(|n| *n > 0 && next < matched)?)
        }
        Page::Previous if request.hits || request.start == 0 || limit == 0 => return None,
        Page::Previous => (request.start.saturating_sub(limit), limit.min(request.start)),
    };
    let changes = [("startIndex", start.to_string()), ("count", count.to_string())];
    let replaced = ["startIndex", "count", "maxFeatures", if request.hits { "resultType" } else { "count" }];
    Some(format!("{}{}", ask.href(), kvp.with(&replaced, &changes)))
}

/// The attributes of a root element with features in `gml`.
fn namespaces(ask: &Ask, gml: GmlVersion, type_names: &[String]) -> String {
    let mut names: Vec<String> = type_names.iter().map(|n| format!("{APP}:{n}")).collect();
    names.sort_unstable();
    names.dedup();
    let wfs = Version::of_gml(gml).dialect();
    let described = format!(
        "{}?service=WFS&version={}&request=DescribeFeatureType&{}={}",
        ask.href(),
        wfs.number,
        wfs.type_names,
        names.join(",")
    );
    let mut escaped = Vec::new();
    xml::attribute(&mut escaped, &described);
    format!(
        "xmlns:wfs=\"{0}\" xmlns:gml=\"{2}\" xmlns:{APP}=\"{APP_NS}\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:schemaLocation=\"{0} {1} {2} {3} {APP_NS} {4}\"",
        wfs.ns,
        wfs.schema,
        gml.ns(),
        gml.schema(),
        String::from_utf8_lossy(&escaped)
    )
}

/// One query of the answer, and how its members are written.
pub(super) struct Part {
    reading: Reading,
    crs: CrsRef,
    writer: Writer,
}

enum Writer {
    Gml(gml::FeatureWriter),
    Values { writer: gml::FeatureWriter, type_name: String, reference: Reference },
    Json(geojson::FeatureWriter),
    Csv(csv::FeatureWriter),
    Kml(kml::FeatureWriter),
    FlatGeobuf(flatgeobuf::FeatureWriter),
}

impl Part {
    async fn open(store: &Store, prepared: Prepared, request: &Request) -> Result<Part> {
        if let Some(text) = &request.value_reference {
            let reference = resolve_reference(text, &prepared.ft);
            let reference = reference.map_err(|e| Exception::invalid("valueReference", e.message))?;
            let prepared = prepared.having(reference)?;
            let all = Selection::all(&prepared.ft);
            let writer = gml::FeatureWriter::new(&prepared.ft, GmlVersion::V3_2, &prepared.crs, &all);
            let writer = Writer::Values { writer, type_name: prepared.ft.name.clone(), reference };
            return Ok(Part { reading: store.read(prepared.query).await?, crs: prepared.crs, writer });
        }
        let Prepared { ft, query, mut crs, crs_was_asked, selection } = prepared;
        let writer = match request.format {
            Format::Gml(gml) => Writer::Gml(gml::FeatureWriter::new(&ft, gml, &crs, &selection)),
            Format::Csv => {
                crs = if crs_was_asked { crs.in_xy_order() } else { CrsRef::crs84() };
                Writer::Csv(csv::FeatureWriter::new(&ft, &crs, &selection))
            }
            Format::Kml => Writer::Kml(kml::FeatureWriter::new(&ft, &selection)),
            Format::FlatGeobuf => Writer::FlatGeobuf(flatgeobuf::FeatureWriter::new(&ft, crs.crs, &selection, true)),
            Format::Shapefile | Format::GeoPackage => {
                let text = format!("{} has collections of features alone", request.format.name());
                return Err(Exception::invalid("outputFormat", text));
            }
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
            Writer::Csv(writer) => writer.write(out, feature),
            Writer::Kml(writer) => writer.write(out, feature),
            Writer::FlatGeobuf(writer) => writer.write(out, feature),
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
        written.map_err(|e| no_place(feature, crs, &e))
    }
}

pub(super) fn no_place(feature: &Feature, crs: &CrsRef, e: &GeometryError) -> Exception {
    Exception::invalid("srsName", format!("feature '{}' has no place in {}: {e}", feature.id, crs.spelling))
}

/// What stands around the members.
#[derive(Clone)]
pub(super) struct Frame {
    pub matched: u64,
    pub returned: u64,
    pub time_stamp: String,
    pub next: Option<String>,
    pub previous: Option<String>,
    pub members: Members,
    pub format: Format,
}

impl Frame {
    fn root(&self) -> &'static str {
        match self.members {
            Members::Features => "wfs:FeatureCollection",
            Members::Values => "wfs:ValueCollection",
        }
    }

    pub(super) fn open(&self, ask: &Ask, type_names: &[String], parts: &[Part]) -> Vec<u8> {
        let gml = match (self.format, parts.first().map(|part| &part.writer)) {
            (Format::Gml(gml), _) => gml,
            (_, Some(Writer::Csv(writer))) => return writer.header().to_vec(),
            (_, Some(Writer::FlatGeobuf(writer))) => return writer.header().to_vec(),
            (Format::Kml, _) => return kml::OPEN.into(),
            _ => return b"{\"type\":\"FeatureCollection\",\"features\":[".into(),
        };
        let mut out = Vec::with_capacity(CHUNK);
        let Frame { matched, returned, time_stamp, .. } = self;
        let counts = match gml {
            GmlVersion::V3_2 => {
                format!(" timeStamp=\"{time_stamp}\" numberMatched=\"{matched}\" numberReturned=\"{returned}\"")
            }
            GmlVersion::V3_1 => format!(" timeStamp=\"{time_stamp}\" numberOfFeatures=\"{returned}\""),
            GmlVersion::V2 => String::new(),
        };
        let head = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{}{counts}", self.root());
        out.extend_from_slice(head.as_bytes());
        if let Some(lock) = &ask.lock {
            out.extend_from_slice(format!(" lockId=\"{}\"", lock.id).as_bytes());
        }
        let links = [("next", &self.next), ("previous", &self.previous)];
        for (name, link) in links.into_iter().filter(|_| gml == GmlVersion::V3_2) {
            if let Some(link) = link {
                out.extend_from_slice(format!(" {name}=\"").as_bytes());
                xml::attribute(&mut out, link);
                out.push(b'"');
            }
        }
        out.extend_from_slice(format!(" {}>\n", namespaces(ask, gml, type_names)).as_bytes());
        if gml == GmlVersion::V2 {
            // The schema demands it before the members, and they are not read through for it.
            out.extend_from_slice(b"<gml:boundedBy><gml:null>unknown</gml:null></gml:boundedBy>\n");
        }
        out
    }

    pub(super) fn close(&self, out: &mut Vec<u8>, returned: u64) {
        match self.format {
            Format::GeoJson => {}
            Format::Gml(_) => return out.extend_from_slice(format!("</{}>\n", self.root()).as_bytes()),
            Format::Kml => return out.extend_from_slice(kml::CLOSE.as_bytes()),
            Format::Csv | Format::FlatGeobuf | Format::Shapefile | Format::GeoPackage => return,
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

    /// Ends an answer that cannot go on. `None` where the format has no way to say so: the connection is to be broken off.
    fn truncate(&self, out: &mut Vec<u8>, e: &Exception) -> Option<()> {
        if self.format != Format::Gml(GmlVersion::V3_2) {
            return None;
        }
        out.extend_from_slice(b"<wfs:truncatedResponse>");
        e.write(out, Version::V2_0);
        out.extend_from_slice(format!("</wfs:truncatedResponse></{}>\n", self.root()).as_bytes());
        Some(())
    }
}

/// What stands before the first member, before each other one, and behind each.
fn around_members(format: Format) -> [&'static str; 3] {
    match format {
        Format::GeoJson => ["\n", ",\n", ""],
        Format::Gml(GmlVersion::V3_2) => ["<wfs:member>", "<wfs:member>", "</wfs:member>\n"],
        Format::Gml(_) => ["<gml:featureMember>", "<gml:featureMember>", "</gml:featureMember>\n"],
        Format::Csv | Format::Kml | Format::FlatGeobuf | Format::Shapefile | Format::GeoPackage => [""; 3],
    }
}

/// The members, as they come.
struct MemberStream {
    parts: Vec<Part>,
    around: [&'static str; 3],
    /// The part whose members come next.
    current: usize,
    returned: u64,
    position: Position,
}

impl MemberStream {
    fn new(parts: Vec<Part>, format: Format) -> MemberStream {
        let mut position = Position::default();
        parts.iter().for_each(|part| position.merge(&part.reading.position));
        MemberStream { parts, around: around_members(format), current: 0, returned: 0, position }
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
}

impl MemberSource for MemberStream {
    async fn fill(&mut self, out: &mut Vec<u8>, size: usize) -> Result<bool> {
        while out.len() < size {
            let Some(part) = self.parts.get_mut(self.current) else { return Ok(false) };
            match part.reading.next().await {
                None => self.current += 1,
                Some(item) => {
                    let start = out.len();
                    let [first, next, behind] = self.around;
                    out.extend_from_slice(if self.returned == 0 { first } else { next }.as_bytes());
                    let written = part.writer.feature(out, &item?.feature, "", &part.crs);
                    written.inspect_err(|_| out.truncate(start))?;
                    out.extend_from_slice(behind.as_bytes());
                    self.returned += 1;
                }
            }
        }
        Ok(true)
    }

    fn returned(&self) -> u64 {
        self.returned
    }
}

/// Where the members of a collection come from.
pub(super) trait MemberSource: Send + 'static {
    /// Writes members until `out` has `size` bytes; false when there are no more.
    fn fill(&mut self, out: &mut Vec<u8>, size: usize) -> impl Future<Output = Result<bool>> + Send;

    /// How many have been written.
    fn returned(&self) -> u64;
}

/// The body from `first` on.
pub(super) fn chunks(
    members: impl MemberSource,
    first: Vec<u8>,
    frame: Frame,
) -> impl futures::Stream<Item = std::result::Result<Bytes, std::io::Error>> + Send {
    // `None`: the answer has ended.
    let state = Some((members, first));
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
                    frame.close(&mut out, members.returned());
                    Ok(Some((Bytes::from(out), None)))
                }
                Err(e) => {
                    tracing::warn!(error = e.text(), returned = members.returned(), "an answer had to be broken off");
                    match frame.truncate(&mut out, &e) {
                        Some(()) => Ok(Some((Bytes::from(out), None))),
                        None => Err(std::io::Error::other(e.text().to_owned())),
                    }
                }
            }
        }
    })
}
