//! Times of fixes in JSON, and those of whole tracks: a member `"datetimes"` of the Feature, named as in OGC's Moving Features
//! JSON, with one instant for each position of `"coordinates"`, nested as these are. Positions of GeoJSON have no place for a time
//! that others read.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::ParseError;
use crate::model::Geometry;
use crate::model::geometry::Coord;
use crate::model::track::{Fixes, TrackShape};
use crate::model::value::parse_instant;

/// ISO 8601 text, or seconds since the epoch.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Time<'a> {
    Seconds(f64),
    #[serde(borrow)]
    Text(std::borrow::Cow<'a, str>),
}

impl Time<'_> {
    pub fn seconds(&self) -> Result<f64, ParseError> {
        match self {
            Time::Seconds(s) if s.is_finite() => Ok(*s),
            Time::Seconds(_) => Err(ParseError::new("the time is not finite")),
            Time::Text(text) => parse_instant(text).map(|micros| micros as f64 / 1e6).ok_or_else(|| {
                ParseError::new(format!("'{text}' is not an ISO 8601 date-time, nor a number of seconds"))
            }),
        }
    }
}

/// The track whose vertices have these times: as if each had been appended, so in whatever order.
pub(super) fn of_track(
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
