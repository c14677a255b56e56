//! The parameters of `/items`, read into a [`Query`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;

use crate::format::json;
use crate::model::crs::{Crs, CrsRef};
use crate::model::value::{parse_date, parse_instant};
use crate::model::{FeatureType, Position, PropertyType, Rect, Value, check_id};
use crate::query::cql::{self, Expression};
use crate::query::foreign_box::ForeignBox;
use crate::query::{CompareOp, Cursor, Filter, Operand, Query, SortKey, TierChoice};
use crate::web::problem::{Problem, Result};
use crate::web::request::{Params, whole_number};

/// The parameters that are not properties.
pub const RESERVED: &[&str] = &[
    "limit",
    "bbox",
    "bbox-crs",
    "crs",
    "datetime",
    "filter",
    "filter-lang",
    "filter-crs",
    "sortby",
    "properties",
    "skipGeometry",
    "tier",
    "cursor",
    "f",
];

/// The feature's id as a queryable; no property can have the name.
const ID: &str = "id";

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What a request for items asks.
#[derive(Debug)]
pub struct ItemsRequest {
    /// Its limit is that of the page.
    pub query: Query,
    /// Features on the page at most.
    pub limit: u64,
    pub crs: CrsRef,
    /// Property ids to answer with; `None`: all.
    pub properties: Option<Vec<usize>>,
    pub skip_geometry: bool,
}

/// How many features a page has.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    pub default: u64,
    pub most: u64,
}

impl ItemsRequest {
    pub fn read(ft: &FeatureType, params: &Params, page: PageSize, at_least: Position) -> Result<ItemsRequest> {
        let queryables = ft.properties.iter().map(|p| p.name.as_str()).chain([ID]);
        params.only(&queryables.chain(RESERVED.iter().copied()).collect::<Vec<_>>())?;
        let sort = params.get("sortby").map_or(Ok(Vec::new()), |text| sort_keys(ft, text))?;
        let limit = params.get("limit").map_or(Ok(page.default), limit)?.min(page.most);
        let query = Query {
            feature_type: ft.name.clone(),
            filter: filter(ft, params)?,
            after: params.get("cursor").map(|text| decode_cursor(ft, &sort, text)).transpose()?,
            sort,
            limit: Some(limit),
            tier: tier(params)?,
            at_least,
            ..Query::default()
        };
        let properties = params.get("properties").map(|text| property_ids(ft, text)).transpose()?;
        let crs = requested_crs(ft, params)?;
        Ok(ItemsRequest { query, limit, crs, properties, skip_geometry: params.flag("skipGeometry")? })
    }
}

/// The CRS that a collection is offered in; the first is the default. CRS84 is always there.
pub fn offered_crs(ft: &FeatureType) -> Vec<CrsRef> {
    let Some(geometry) = &ft.geometry else { return vec![CrsRef::crs84()] };
    let mut offered = vec![CrsRef::crs84()];
    if geometry.dimension.has_z() {
        let with_height = "http://www.opengis.net/def/crs/OGC/0/CRS84h".to_owned();
        offered.insert(0, CrsRef { spelling: with_height, ..CrsRef::crs84() });
    }
    for epsg in [4326, 3857, geometry.epsg] {
        if let Some(crs) = Crs::from_epsg(epsg)
            && !offered.iter().any(|o| o.spelling == CrsRef::uri(crs).spelling)
        {
            offered.push(CrsRef::uri(crs));
        }
    }
    offered
}

/// The CRS of the request's `crs`, else the default (Part 2, `/req/crs/fc-crs-definition`).
pub fn requested_crs(ft: &FeatureType, params: &Params) -> Result<CrsRef> {
    named_crs(ft, params, "crs")
}

fn named_crs(ft: &FeatureType, params: &Params, parameter: &str) -> Result<CrsRef> {
    match params.get(parameter) {
        None => Ok(offered_crs(ft).swap_remove(0)),
        Some(uri) => crs_of(ft, uri)
            .ok_or_else(|| Problem::parameter(parameter, format!("{parameter}: {}", not_offered(ft, uri)))),
    }
}

/// One of the collection's CRS by its URI, with or without angle brackets.
pub fn crs_of(ft: &FeatureType, uri: &str) -> Option<CrsRef> {
    let uri = uri.trim().trim_start_matches('<').trim_end_matches('>');
    offered_crs(ft).into_iter().find(|c| c.spelling == uri)
}

/// Says so.
pub fn not_offered(ft: &FeatureType, uri: &str) -> String {
    let offered: Vec<String> = offered_crs(ft).into_iter().map(|c| c.spelling).collect();
    format!("the collection is not offered in '{uri}', but in {}", offered.join(", "))
}

fn limit(text: &str) -> Result<u64> {
    whole_number(text)
        .filter(|n| *n > 0)
        .ok_or_else(|| Problem::parameter("limit", format!("limit: '{text}' is not a positive integer")))
}

fn tier(params: &Params) -> Result<TierChoice> {
    match params.get("tier") {
        None => Ok(TierChoice::Merged),
        Some("transient") => Ok(TierChoice::Transient),
        Some("persistent") => Ok(TierChoice::Persistent),
        Some(other) => Err(Problem::parameter("tier", format!("tier: '{other}' is not transient or persistent"))),
    }
}

fn filter(ft: &FeatureType, params: &Params) -> Result<Filter> {
    let mut filter = Filter::All;
    if let Some(text) = params.get("bbox") {
        filter = filter.and(bbox(ft, text, &named_crs(ft, params, "bbox-crs")?)?);
    } else if params.get("bbox-crs").is_some() {
        named_crs(ft, params, "bbox-crs")?;
    }
    if let Some(text) = params.get("datetime") {
        filter = filter.and(datetime(ft, text)?);
    }
    for (name, text) in params.iter().filter(|(name, _)| !RESERVED.contains(name)) {
        if name == ID {
            let id = check_id(text).map_err(|e| Problem::parameter(ID, format!("{ID}: {e}")))?;
            filter = filter.and(Filter::ids([id]));
            continue;
        }
        let Some((slot, property)) = ft.property(name) else { continue };
        let text = if property.kind == PropertyType::DateTime { &*with_plus(text) } else { text };
        let value = property.kind.parse(text).map_err(|e| Problem::parameter(name, format!("{name}: {e}")))?;
        if value.is_null() {
            return Err(Problem::parameter(name, format!("{name}: a value is missing")));
        }
        filter = filter.and(compare(CompareOp::Equal, slot, value));
    }
    Ok(filter.and(cql2(ft, params)?))
}

/// `filter`, `filter-lang` and `filter-crs` (Part 3, `/req/filter`).
fn cql2(ft: &FeatureType, params: &Params) -> Result<Filter> {
    let read = match params.get("filter-lang") {
        None | Some("cql2-text") => Expression::from_text,
        Some("cql2-json") => Expression::from_json,
        Some(other) => {
            let what = format!("filter-lang: '{other}' is not cql2-text or cql2-json");
            return Err(Problem::parameter("filter-lang", what));
        }
    };
    let crs = named_crs(ft, params, "filter-crs")?;
    let Some(text) = params.get("filter") else { return Ok(Filter::All) };
    let target = ft.geometry.and_then(|g| Crs::from_epsg(g.epsg)).unwrap_or(Crs::WGS84);
    let context = cql::Context { ft, crs, target, is_type: &|_| false };
    let filter = read(text).and_then(|expression| expression.bind(&context));
    filter.map_err(|e| Problem::parameter("filter", format!("filter: {e}")))
}

fn compare(op: CompareOp, slot: usize, value: Value) -> Filter {
    Filter::Compare { op, left: Operand::Property(slot), right: Operand::Literal(value), match_case: true }
}

/// `bbox`: four numbers, or six of which the heights are not looked at. Features without geometry match every box (Part 1,
/// `/req/core/fc-bbox-response` C).
fn bbox(ft: &FeatureType, text: &str, crs: &CrsRef) -> Result<Filter> {
    let bad = |what: &str| Problem::parameter("bbox", format!("bbox: {what}: '{text}'"));
    let numbers: Option<Vec<f64>> =
        text.split(',').map(|n| n.trim().parse::<f64>().ok().filter(|n| n.is_finite())).collect();
    let numbers = numbers.ok_or_else(|| bad("not numbers separated by commas"))?;
    let (mut low, mut high) = match numbers[..] {
        [x0, y0, x1, y1] => ((x0, y0), (x1, y1)),
        [x0, y0, _, x1, y1, _] => ((x0, y0), (x1, y1)),
        _ => return Err(bad("four or six numbers are expected")),
    };
    if crs.swap {
        (low, high) = ((low.1, low.0), (high.1, high.0));
    }
    if low.1 > high.1 {
        return Err(bad("the lower edge is above the upper one"));
    }
    let Some(column) = &ft.geometry else { return Ok(Filter::All) };
    let asked = Rect { min_x: low.0, min_y: low.1, max_x: high.0, max_y: high.1 };
    let boxes = if crs.crs.is_geographic() {
        around_the_globe(asked)
    } else if low.0 > high.0 {
        return Err(bad("the left edge is to the right of the right one"));
    } else {
        vec![asked]
    };
    let stored = Crs::from_epsg(column.epsg).unwrap_or(Crs::WGS84);
    let parts = boxes.into_iter().map(|b| ForeignBox::filter(b, crs.crs, stored));
    let mut any = parts.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| bad(&e.to_string()))?;
    if column.nullable {
        any.push(Filter::IsNull(Operand::Geometry));
    }
    Ok(match any.len() {
        1 => any.swap_remove(0),
        _ => Filter::Or(any),
    })
}

/// The parts of a box of longitudes and latitudes that lie where coordinates are kept: west greater than east crosses the
/// antimeridian, and views of map programs run over the edges.
fn around_the_globe(b: Rect) -> Vec<Rect> {
    if b.min_x > b.max_x {
        return vec![Rect { max_x: 180.0, ..b }, Rect { min_x: -180.0, ..b }];
    }
    let mut boxes = vec![b];
    if b.max_x > 180.0 && b.min_x > -180.0 {
        boxes.push(Rect { min_x: -180.0, max_x: (b.max_x - 360.0).min(180.0), ..b });
    }
    if b.min_x < -180.0 && b.max_x < 180.0 {
        boxes.push(Rect { min_x: (b.min_x + 360.0).max(-180.0), max_x: 180.0, ..b });
    }
    boxes
}

/// The property that `datetime` looks at: the first of type date-time or date.
pub fn temporal_property(ft: &FeatureType) -> Option<usize> {
    ft.properties.iter().position(|p| matches!(p.kind, PropertyType::DateTime | PropertyType::Date))
}

/// `datetime`: an instant, a day, or an interval with open ends. Features without a value match every time (Part 1,
/// `/req/core/fc-time-response` C).
fn datetime(ft: &FeatureType, text: &str) -> Result<Filter> {
    let text = &with_plus(text);
    let bad = || {
        let what = format!("datetime: '{text}' is not an RFC 3339 date-time or date, nor an interval a/b, ../b, a/..");
        Problem::parameter("datetime", what)
    };
    let (from, to) = match text.split_once('/') {
        None => (first_moment(text).ok_or_else(bad)?, last_moment(text).ok_or_else(bad)?),
        Some((from, to)) => {
            let open = |end: &str| matches!(end, "" | "..");
            if open(from) && open(to) {
                return if from == ".." && to == ".." { Ok(Filter::All) } else { Err(bad()) };
            }
            let from = if open(from) { i64::MIN } else { first_moment(from).ok_or_else(bad)? };
            let to = if open(to) { i64::MAX } else { last_moment(to).ok_or_else(bad)? };
            (from, to)
        }
    };
    if from > to {
        return Err(Problem::parameter("datetime", format!("datetime: '{text}' ends before it begins")));
    }
    let Some(slot) = temporal_property(ft) else { return Ok(Filter::All) };
    let literal = |micros: i64| match ft.properties[slot].kind {
        PropertyType::Date => Value::Date(micros.div_euclid(MICROS_PER_DAY) as i32),
        _ => Value::DateTime(micros),
    };
    let mut within = Filter::All;
    if from != i64::MIN {
        within = within.and(compare(CompareOp::GreaterOrEqual, slot, literal(from)));
    }
    if to != i64::MAX {
        within = within.and(compare(CompareOp::LessOrEqual, slot, literal(to)));
    }
    if ft.properties[slot].nullable {
        within = Filter::Or(vec![within, Filter::IsNull(Operand::Property(slot))]);
    }
    Ok(within)
}

/// The plus sign of `+01:00` is a blank when it comes out of a query string as many clients write it.
fn with_plus(text: &str) -> String {
    let ends = text.split('/').map(|end| match end.rsplit_once(' ') {
        Some((moment, zone)) if moment.contains('T') => format!("{moment}+{zone}"),
        _ => end.to_owned(),
    });
    ends.collect::<Vec<_>>().join("/")
}

fn is_day(text: &str) -> bool {
    text.len() == 10
}

fn first_moment(text: &str) -> Option<i64> {
    if is_day(text) { parse_date(text).map(|d| i64::from(d) * MICROS_PER_DAY) } else { parse_instant(text) }
}

fn last_moment(text: &str) -> Option<i64> {
    if is_day(text) { first_moment(text).map(|t| t + MICROS_PER_DAY - 1) } else { parse_instant(text) }
}

/// `sortby=+a,-b`. The plus sign is a blank when it comes out of a query string.
fn sort_keys(ft: &FeatureType, text: &str) -> Result<Vec<SortKey>> {
    let mut keys: Vec<SortKey> = Vec::new();
    for part in text.split(',') {
        let (descending, name) = match part.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, part.trim_start_matches(['+', ' '])),
        };
        let bad = |what: &str| Problem::parameter("sortby", format!("sortby: {what} '{name}'"));
        let (property, declared) = ft.property(name).ok_or_else(|| bad("there is no property"))?;
        if matches!(declared.kind, PropertyType::Json | PropertyType::Bytes) {
            return Err(bad("one cannot sort by"));
        }
        if keys.iter().any(|k| k.property == property) {
            return Err(bad("given twice:"));
        }
        keys.push(SortKey { property, descending });
    }
    Ok(keys)
}

fn property_ids(ft: &FeatureType, text: &str) -> Result<Vec<usize>> {
    let id = |name: &str| {
        let unknown = || Problem::parameter("properties", format!("properties: there is no property '{name}'"));
        ft.property(name).map(|(slot, _)| slot).ok_or_else(unknown)
    };
    text.split(',').filter(|n| !n.is_empty()).map(id).collect()
}

/// A cursor as text that means nothing to clients: base64 of a JSON array of the id and the sort values.
pub fn encode_cursor(cursor: &Cursor) -> String {
    let mut text = vec![b'['];
    json::string(&mut text, &cursor.id);
    for value in &cursor.values {
        text.push(b',');
        json::value(&mut text, value);
    }
    text.push(b']');
    URL_SAFE_NO_PAD.encode(text)
}

fn decode_cursor(ft: &FeatureType, sort: &[SortKey], text: &str) -> Result<Cursor> {
    let decode = || {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let parts: Vec<&RawValue> = serde_json::from_slice(&bytes).ok()?;
        let (id, values) = parts.split_first().filter(|(_, values)| values.len() == sort.len())?;
        let value = |(raw, key): (&&RawValue, &SortKey)| {
            let kind = ft.properties[key.property].kind;
            match raw.get() {
                "null" => Some(Value::Null),
                text if text.starts_with('"') => kind.parse(&serde_json::from_str::<String>(text).ok()?).ok(),
                number => kind.parse(number).ok(),
            }
        };
        let values = values.iter().zip(sort).map(value).collect::<Option<_>>()?;
        Some(Cursor { values, id: check_id(&serde_json::from_str::<String>(id.get()).ok()?).ok()? })
    };
    decode().ok_or_else(|| Problem::parameter("cursor", "cursor: not one of this query's 'next' links"))
}

#[cfg(test)]
mod tests;
