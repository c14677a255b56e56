//! Fixes of tracks in JSON: `{"time": ..., "coordinates": [x, y], "properties": {...}}`, or several as
//! `{"fixes": [{"time": ..., "coordinates": [x, y]}, ...], "properties": {...}}`; in a stream for many tracks each with `"id"`.
//!
//! And the times of whole tracks: a member `"datetimes"` of the Feature, named as in OGC's Moving Features JSON, with one instant
//! for each position of `"coordinates"`, nested as these are. Positions of GeoJSON have no place for a time that others read.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::read::{FeatureReader, ParseError};
use super::write::list;
use crate::format::json;
use crate::model::geometry::{Coord, Reader};
use crate::model::track::{Fixes, TrackShape};
use crate::model::value::parse_instant;
use crate::model::{Append, FeatureId, Geometry, GeometryKind, check_id};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Time<'a>>,
    #[serde(borrow)]
    coordinates: Option<&'a RawValue>,
    #[serde(borrow)]
    fixes: Option<Vec<Fix<'a>>>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fix<'a> {
    #[serde(borrow)]
    time: Time<'a>,
    #[serde(borrow)]
    coordinates: &'a RawValue,
}

/// ISO 8601 text, or seconds since the epoch.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time<'a> {
    Seconds(f64),
    #[serde(borrow)]
    Text(std::borrow::Cow<'a, str>),
}

impl Time<'_> {
    fn seconds(&self) -> Result<f64, ParseError> {
        match self {
            Time::Seconds(s) if s.is_finite() => Ok(*s),
            Time::Seconds(_) => Err(ParseError::new("the time is not finite")),
            Time::Text(text) => parse_instant(text).map(|micros| micros as f64 / 1e6).ok_or_else(|| {
                ParseError::new(format!("'{text}' is not an ISO 8601 date-time, nor a number of seconds"))
            }),
        }
    }
}

/// Appends the times of a track's vertices: a list, of a MultiLineString a list of lists.
pub(super) fn times(out: &mut Vec<u8>, line: &mut Reader<'_>) {
    match line.header() {
        (GeometryKind::MultiLineString, _) => list(out, line, times),
        (_, dimension) => list(out, line, |out, line| {
            out.push(b'"');
            json::instant(out, (line.coord(dimension).m * 1e6).round() as i64);
            out.push(b'"');
        }),
    }
}

/// The track whose vertices have these times: as if each had been appended, so in whatever order.
pub(super) fn of_times(
    line: &Geometry,
    datetimes: &RawValue,
    shape: &TrackShape,
) -> Result<Option<Geometry>, ParseError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Times<'a> {
        #[serde(borrow)]
        Line(Vec<Time<'a>>),
        Lines(Vec<Vec<Time<'a>>>),
    }
    let times = serde_json::from_str(datetimes.get());
    let times = match times.map_err(|_| ParseError::new("a time for each position is expected"))? {
        Times::Line(times) => times,
        Times::Lines(times) => times.into_iter().flatten().collect(),
    };
    let mut vertices = Vec::with_capacity(times.len());
    line.reader().each_coord(&mut |c| vertices.push(c));
    if vertices.len() != times.len() {
        let what = format!("{} times for {} positions", times.len(), vertices.len());
        return Err(ParseError::new(what));
    }
    let mut fixes = Fixes::default();
    for (vertex, time) in vertices.into_iter().zip(&times) {
        fixes.set(Coord { m: time.seconds()?, ..vertex });
    }
    Ok(shape.line(None, &fixes))
}

impl FeatureReader<'_> {
    /// Reads fixes of the track `id`, or where that is `None` of the track that the body names.
    pub fn append(&self, bytes: &[u8], id: Option<&FeatureId>) -> Result<Append, ParseError> {
        let body: Body<'_> = serde_json::from_slice(bytes).map_err(|e| ParseError::new(e.to_string()))?;
        let named = body.id.as_deref().map(check_id).transpose();
        let named = named.map_err(|e| ParseError::new(e.to_string()).within("id"))?;
        let id = match (id, named) {
            (Some(id), Some(named)) if *id != named => {
                return Err(ParseError::new("is another than that of the path").within("id"));
            }
            (Some(id), _) => id.clone(),
            (None, Some(named)) => named,
            (None, None) => return Err(ParseError::new("the track's \"id\" is missing")),
        };
        let fixes = match (body.time, body.coordinates, body.fixes) {
            (Some(time), Some(coordinates), None) => vec![self.fix(&Fix { time, coordinates })?],
            (None, None, Some(fixes)) => {
                let fix = |(i, fix)| self.fix(fix).map_err(|e| e.within(i).within("fixes"));
                fixes.iter().enumerate().map(fix).collect::<Result<_, _>>()?
            }
            _ => return Err(ParseError::new("either \"time\" and \"coordinates\", or \"fixes\" is expected")),
        };
        let properties = match body.properties.filter(|raw| raw.get() != "null") {
            None => Vec::new(),
            Some(raw) => self.changes(format!(r#"{{"properties":{}}}"#, raw.get()).as_bytes())?.properties,
        };
        Ok(Append { id, fixes, properties: properties.into_iter().map(|(slot, v)| (slot as u16, v)).collect() })
    }

    fn fix(&self, fix: &Fix<'_>) -> Result<Coord, ParseError> {
        let m = fix.time.seconds().map_err(|e| e.within("time"))?;
        let point =
            self.geometry(format!(r#"{{"type":"Point","coordinates":{}}}"#, fix.coordinates.get()).as_bytes())?;
        let mut at = None;
        if let Some(point) = point {
            point.reader().each_coord(&mut |c| at = Some(c));
        }
        let at = at.ok_or_else(|| ParseError::new("a position needs two numbers").within("coordinates"))?;
        Ok(Coord { m, ..at })
    }
}
