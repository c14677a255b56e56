//! GetFeature over two feature types (WFS 2.0, 7.9.2.5.3): its members are tuples.
//!
//! A tuple has a feature of each type, whole, however many tuples a feature is in: clients that read joins follow no references
//! to what stood there before.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;

use super::answer::{Frame, MemberSource, Members, PRIME, Page, chunks, link, no_place};
use super::exception::{Code, Exception, Result};
use super::format::Format;
use super::get_feature::Request;
use super::query::{JoinRequest, QueryRequest, axes, longest_page, selection};
use super::{Ask, xml_response};
use crate::format::gml::{FeatureWriter, GmlVersion, Selection};
use crate::model::Feature;
use crate::model::crs::CrsRef;
use crate::model::value::format_instant;
use crate::query::fes::{self, Joined, Sides};
use crate::query::{Query, SortKey};
use crate::store::PairQuery;
use crate::web::request::position_header;

/// The answer to a request with a join in it.
pub async fn collection(ask: &Ask, request: Request) -> Result<Response> {
    if request.format != Format::Gml(GmlVersion::V3_2) {
        let text = format!("joins are only offered as {}", Format::Gml(GmlVersion::V3_2).name());
        return Err(Exception::invalid("outputFormat", text));
    }
    let [QueryRequest { join: Some(with), .. }] = &request.queries[..] else {
        let text = "a join is the only query of its request";
        return Err(Exception::new(Code::OptionNotSupported, "typeNames", text));
    };
    let limit = request.count.unwrap_or(u64::MAX).min(longest_page(ask, &request.queries)?);
    let mut prepared = prepare(ask, &request.queries[0], with)?;
    (prepared.query.start, prepared.query.limit) = (request.start, if request.hits { 0 } else { limit });
    let pairs = ask.web.store.pairs(prepared.query).await?;
    let frame = Frame {
        matched: pairs.matched,
        returned: pairs.page.len() as u64,
        time_stamp: format_instant(ask.web.clock.now_ms().saturating_mul(1000)),
        next: link(ask, &request, limit, pairs.matched, Page::Next),
        previous: link(ask, &request, limit, pairs.matched, Page::Previous),
        members: Members::Features,
        format: request.format,
    };
    let mut tuples = Tuples { pairs: pairs.page.into_iter(), writers: prepared.writers, written: 0 };
    let mut out = frame.open(ask, &prepared.type_names, &[]);
    let body = match tuples.fill(&mut out, PRIME).await? {
        true => Body::from_stream(chunks(tuples, out, frame)),
        false => {
            frame.close(&mut out, tuples.written);
            Body::from(out)
        }
    };
    let mut response = xml_response(body, request.format.name());
    response.headers_mut().extend(position_header(&pairs.position));
    Ok(response)
}

struct Prepared {
    /// Of the first page.
    query: PairQuery,
    type_names: [String; 2],
    writers: [(FeatureWriter, CrsRef); 2],
}

fn prepare(ask: &Ask, request: &QueryRequest, with: &JoinRequest) -> Result<Prepared> {
    let conditions = [("bbox", &request.bbox), ("resourceId", &request.resource_ids), ("cql_filter", &request.cql)];
    if let Some((name, _)) = conditions.iter().find(|(_, value)| value.is_some()) {
        let text = format!("the conditions of a join stand in its filter, not in {name}");
        return Err(Exception::new(Code::OptionNotSupported, *name, text));
    }
    let types = [request.shown(ask, &request.type_name)?, request.shown(ask, &with.type_name)?];
    let names = match &with.aliases {
        Some([a, b]) => [a.as_str(), b.as_str()],
        None => [types[0].name.as_str(), types[1].name.as_str()],
    };
    if names[0] == names[1] {
        let text = format!("'{0}' and '{0}' cannot be told apart: a join needs two aliases", names[0]);
        return Err(Exception::invalid("aliases", text));
    }
    let axes = types.each_ref().map(|ft| axes(ft, ask.version));
    let is_type = |name: &str| ask.is_type(name);
    let sides = Sides { types: types.clone(), names, axes: &axes, is_type: &is_type };
    let Joined { own: [first, second], join } = fes::parse_join(request.filter.as_ref(), &sides)?;
    let selections = selections(request, &sides)?;
    let writer = |side: usize| -> Result<(FeatureWriter, CrsRef)> {
        let crs = match &request.srs_name {
            Some(name) => axes[side].parse(name).map_err(|e| Exception::invalid("srsName", e))?,
            None => axes[side].default.clone(),
        };
        Ok((FeatureWriter::new(&types[side], GmlVersion::V3_2, &crs, &selections[side]), crs))
    };
    let writers = [writer(0)?, writer(1)?];
    let query = |side: usize, filter, sort| Query {
        feature_type: types[side].name.clone(),
        filter,
        sort,
        at_least: ask.at_least.clone(),
        ..Query::default()
    };
    let sort = sort_keys(request, &sides)?;
    let query =
        PairQuery { first: query(0, first, sort), second: query(1, second, Vec::new()), join, start: 0, limit: 0 };
    let type_names = types.each_ref().map(|ft| ft.name.clone());
    Ok(Prepared { query, type_names, writers })
}

/// Of the first type alone: pairs come in its order.
fn sort_keys(request: &QueryRequest, sides: &Sides<'_>) -> Result<Vec<SortKey>> {
    let mut own = Vec::new();
    for key in request.sort_by.iter().flat_map(|keys| keys.split(',')).map(str::trim).filter(|key| !key.is_empty()) {
        let (name, order) = key.split_once(char::is_whitespace).unwrap_or((key, "ASC"));
        match sides.resolve(name)? {
            (0, rest) => own.push(format!("{rest} {order}")),
            _ => {
                let text = format!("a join is sorted by properties of its first type, '{}'", sides.names[0]);
                return Err(Exception::new(Code::OptionNotSupported, "sortBy", text));
            }
        }
    }
    Ok(fes::sort_keys_of_text(&own.join(","), &sides.types[0])?)
}

/// What of each feature is written: all, or what the properties name.
fn selections(request: &QueryRequest, sides: &Sides<'_>) -> Result<[Selection; 2]> {
    let named: Vec<&str> = request.properties.iter().map(|n| n.trim()).filter(|n| !n.is_empty()).collect();
    if named.is_empty() || named.contains(&"*") {
        return Ok(sides.types.each_ref().map(|ft| Selection::all(ft)));
    }
    let mut of_side = [Vec::new(), Vec::new()];
    for name in named {
        let (side, rest) = sides.resolve(name).map_err(|e| Exception::invalid("propertyName", e.message))?;
        of_side[side].push(rest);
    }
    Ok([selection(&of_side[0], &sides.types[0])?, selection(&of_side[1], &sides.types[1])?])
}

/// The tuples of a page, as they are written.
struct Tuples {
    pairs: std::vec::IntoIter<[Arc<Feature>; 2]>,
    writers: [(FeatureWriter, CrsRef); 2],
    written: u64,
}

impl MemberSource for Tuples {
    async fn fill(&mut self, out: &mut Vec<u8>, size: usize) -> Result<bool> {
        while out.len() < size {
            let Some(pair) = self.pairs.next() else { return Ok(false) };
            let start = out.len();
            out.extend_from_slice(b"<wfs:member><wfs:Tuple>");
            for ((writer, crs), feature) in self.writers.iter().zip(&pair) {
                out.extend_from_slice(b"<wfs:member>");
                writer.write(out, feature, "").map_err(|e| {
                    out.truncate(start);
                    no_place(feature, crs, &e)
                })?;
                out.extend_from_slice(b"</wfs:member>");
            }
            out.extend_from_slice(b"</wfs:Tuple></wfs:member>\n");
            self.written += 1;
        }
        Ok(true)
    }

    fn returned(&self) -> u64 {
        self.written
    }
}
