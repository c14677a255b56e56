//! Fixes of tracks in JSON: `{"time": ..., "coordinates": [x, y], "properties": {...}}`, or several as
//! `{"fixes": [{"time": ..., "coordinates": [x, y]}, ...], "properties": {...}}`; in a stream for many tracks each with `"id"`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::read::FeatureReader;
use super::text::ParseError;
use super::times::Time;
use crate::model::geometry::Coord;
use crate::model::{Append, FeatureId, check_id};

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
