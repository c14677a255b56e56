//! GeoJSON text into features.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::coordinates::Positions;
use super::text::{ParseError, members, named, text_of, unescaped};
use super::times;
use crate::model::crs::{Crs, CrsRef, Transform};
use crate::model::feature_type::GEOMETRY;
use crate::model::{Feature, FeatureId, FeatureType, Geometry, GeometryKind, PropertyType, Value, check_id};

/// A feature as a client sent it. `properties` has a value for every property of the type.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedFeature {
    pub id: Option<FeatureId>,
    pub geometry: Option<Geometry>,
    pub properties: Vec<Value>,
}

impl ParsedFeature {
    pub fn into_feature(self, id: FeatureId) -> Feature {
        Feature { id, geometry: self.geometry, properties: self.properties }
    }
}

/// A merge patch (RFC 7396) of a feature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedChanges {
    /// Where the body names one. An id does not change: the caller compares.
    pub id: Option<FeatureId>,
    /// `None`: left as it is. `Some(None)`: removed.
    pub geometry: Option<Option<Geometry>>,
    /// Property ids with their new values.
    pub properties: Vec<(usize, Value)>,
}

/// What becomes of a property that the type has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    Refuse,
    Ignore,
}

/// Vertices of one geometry, at most: as many as a body of usual size could have.
const MAX_VERTICES: usize = 5_000_000;

/// Reads a geometry object that is no feature's: x and y as they stand, without heights.
pub fn geometry_as_written(text: &str) -> Result<Geometry, ParseError> {
    let positions =
        Positions { dimension: crate::model::Dimension::XY, swap: false, transform: None, max_vertices: MAX_VERTICES };
    positions.geometry(text)?.ok_or_else(|| ParseError::new("a geometry is expected, not null"))
}

/// Reads features of one type.
#[derive(Clone, Debug)]
pub struct FeatureReader<'a> {
    ft: &'a FeatureType,
    crs: Crs,
    positions: Positions,
    unknown: Unknown,
}

impl<'a> FeatureReader<'a> {
    /// `crs` is that of the text; `None`: CRS84.
    pub fn new(ft: &'a FeatureType, crs: Option<&CrsRef>, unknown: Unknown) -> FeatureReader<'a> {
        let from = crs.map_or(Crs::WGS84, |c| c.crs);
        let stored = ft.geometry.and_then(|g| Crs::from_epsg(g.epsg)).unwrap_or(from);
        let positions = Positions {
            dimension: ft.geometry.map(|g| g.dimension).unwrap_or_default(),
            swap: crs.is_some_and(|c| c.swap),
            transform: Transform::between(from, stored),
            max_vertices: MAX_VERTICES,
        };
        FeatureReader { ft, crs: from, positions, unknown }
    }

    /// Reads one Feature.
    pub fn feature(&self, bytes: &[u8]) -> Result<ParsedFeature, ParseError> {
        self.feature_text(text_of(bytes)?)
    }

    /// Reads a FeatureCollection, or a single Feature as a collection of one, and hands each feature with its index to `each`.
    /// The pointers of errors begin at the body.
    pub fn collection(
        &self,
        bytes: &[u8],
        mut each: impl FnMut(usize, ParsedFeature) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        let text = text_of(bytes)?;
        let mut failed = None;
        let mut index = 0;
        let mut one = |raw: &RawValue| {
            let done = self.feature_text(raw.get()).and_then(|feature| each(index, feature));
            index += 1;
            done.map_err(|e| failed = Some(e.within(index - 1).within("features"))).is_ok()
        };
        let mut json = serde_json::Deserializer::from_str(text);
        let parsed =
            json.deserialize_map(CollectionVisitor { each: &mut one, crs: None }).and_then(|c| json.end().map(|()| c));
        let collection = match (failed, parsed) {
            (Some(error), _) => return Err(error),
            (None, Err(error)) => return Err(ParseError::new(error.to_string())),
            (None, Ok(collection)) => collection,
        };
        match collection.kind.as_deref() {
            Some("FeatureCollection") if collection.has_features => self.check_crs(collection.crs.as_deref()),
            Some("FeatureCollection") => Err(ParseError::new("a FeatureCollection needs \"features\"")),
            Some("Feature") if !collection.has_features => each(0, self.feature_text(text)?),
            _ => Err(ParseError::new("\"FeatureCollection\" or \"Feature\" is expected").within("type")),
        }
    }

    /// Reads a merge patch, either of GeoJSON's shape (`{"geometry": ..., "properties": {...}}`) or flat, as the schema has it
    /// (`{"geom": ..., "speed": 3}`). A property of type `json` is replaced as a whole.
    pub fn changes(&self, bytes: &[u8]) -> Result<ParsedChanges, ParseError> {
        let members = members(text_of(bytes)?)?;
        let ours = |name: &str| self.ft.property(name).is_some();
        let geojson = |name: &str| matches!(name, "type" | "geometry" | "properties") && !ours(name);
        let nested = members.iter().any(|(name, _)| geojson(name));
        let mut changes = ParsedChanges::default();
        let mut seen = vec![false; self.ft.properties.len()];
        for (at, (name, raw)) in members.iter().enumerate() {
            if members[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(ParseError::new("the member is given twice").within(name));
            }
            match (name.as_ref(), nested) {
                ("id", _) => changes.id = feature_id(raw)?,
                ("geometry", true) | (GEOMETRY, false) => {
                    let geometry = self.positions.geometry(raw.get()).map_err(|e| e.within(name))?;
                    changes.geometry = Some(geometry);
                }
                ("properties", true) if raw.get() == "null" => {
                    changes.properties = (0..seen.len()).map(|slot| (slot, Value::Null)).collect();
                }
                ("properties", true) => self
                    .properties(raw.get(), &mut |slot, value| changes.properties.push((slot, value)))
                    .map_err(|e| e.within(name))?,
                (_, true) => {}
                (_, false) => {
                    if let Some((slot, value)) = self.property(name, raw, &mut seen)? {
                        changes.properties.push((slot, value));
                    }
                }
            }
        }
        Ok(changes)
    }

    /// Reads a geometry object alone.
    pub fn geometry(&self, bytes: &[u8]) -> Result<Option<Geometry>, ParseError> {
        let raw: &RawValue = serde_json::from_str(text_of(bytes)?).map_err(|e| ParseError::new(e.to_string()))?;
        self.positions.geometry(raw.get())
    }

    fn feature_text(&self, text: &str) -> Result<ParsedFeature, ParseError> {
        use GeometryKind::{LineString, MultiLineString};
        let names = ["type", "id", "geometry", "properties", "crs", "datetimes"];
        let [kind, id, geometry, properties, crs, datetimes] = named(text, names)?;
        if kind.and_then(unescaped).as_deref() != Some("Feature") {
            return Err(ParseError::new("\"Feature\" is expected").within("type"));
        }
        self.check_crs(crs)?;
        let id = id.map_or(Ok(None), feature_id)?;
        let geometry = match geometry {
            Some(raw) => self.positions.geometry(raw.get()).map_err(|e| e.within("geometry"))?,
            None => None,
        };
        let geometry = match (geometry, datetimes, self.ft.track_shape()) {
            (Some(line), Some(raw), Some(shape)) if line.kind() == LineString || line.kind() == MultiLineString => {
                times::of_track(&line, raw, &shape).map_err(|e| e.within("datetimes"))?
            }
            (geometry, ..) => geometry,
        };
        let mut values = vec![Value::Null; self.ft.properties.len()];
        if let Some(raw) = properties.filter(|raw| raw.get() != "null") {
            self.properties(raw.get(), &mut |slot, value| values[slot] = value).map_err(|e| e.within("properties"))?;
        }
        Ok(ParsedFeature { id, geometry, properties: values })
    }

    fn properties(&self, text: &str, set: &mut dyn FnMut(usize, Value)) -> Result<(), ParseError> {
        let mut seen = vec![false; self.ft.properties.len()];
        for (name, raw) in members(text)? {
            if let Some((slot, value)) = self.property(&name, raw, &mut seen)? {
                set(slot, value);
            }
        }
        Ok(())
    }

    fn property(&self, name: &str, raw: &RawValue, seen: &mut [bool]) -> Result<Option<(usize, Value)>, ParseError> {
        let Some((slot, property)) = self.ft.property(name) else {
            return match self.unknown {
                Unknown::Ignore => Ok(None),
                Unknown::Refuse => {
                    let message = format!("feature type '{}' has no property '{name}'", self.ft.name);
                    Err(ParseError::new(message).within(name))
                }
            };
        };
        if std::mem::replace(&mut seen[slot], true) {
            return Err(ParseError::new("the member is given twice").within(name));
        }
        let value = value(property.kind, raw).map_err(|e| ParseError::new(e).within(name))?;
        Ok(Some((slot, value)))
    }

    /// The `crs` member of GeoJSON's draft of 2008, which RFC 7946 dropped and programs still write: it may be there, but
    /// coordinates in another CRS than the one agreed upon must not be taken for it.
    fn check_crs(&self, member: Option<&RawValue>) -> Result<(), ParseError> {
        let Some(raw) = member.filter(|raw| raw.get() != "null") else {
            return Ok(());
        };
        match crs_name(raw) {
            Some(name) if CrsRef::parse(&name).is_ok_and(|c| c.crs == self.crs) => Ok(()),
            _ => Err(ParseError::new(format!(
                "the coordinates are to be in EPSG:{}, the member \"crs\" says otherwise",
                self.crs.epsg()
            ))
            .within("crs")),
        }
    }
}

/// The name that a `crs` member gives.
fn crs_name(member: &RawValue) -> Option<String> {
    let [properties] = named(member.get(), ["properties"]).ok()?;
    let [name] = named(properties?.get(), ["name"]).ok()?;
    unescaped(name?).map(Cow::into_owned)
}

fn feature_id(raw: &RawValue) -> Result<Option<FeatureId>, ParseError> {
    let text = raw.get();
    let id = match text.as_bytes() {
        b"null" => return Ok(None),
        [b'"', ..] => unescaped(raw),
        _ => text.parse::<i128>().is_ok().then_some(Cow::Borrowed(text)),
    };
    let id = id.ok_or_else(|| ParseError::new("a feature's id is a string or an integer").within("id"))?;
    check_id(&id).map(Some).map_err(|e| ParseError::new(e.to_string()).within("id"))
}

/// A property's value, or what was expected in its place.
fn value(kind: PropertyType, raw: &RawValue) -> Result<Value, String> {
    use PropertyType::*;
    let text = raw.get();
    let first = text.as_bytes().first().copied().unwrap_or(b'n');
    match (first, kind) {
        (b'n', _) => Ok(Value::Null),
        (_, Json) => kind.parse(text),
        (b't' | b'f', Boolean) => Ok(Value::Bool(first == b't')),
        // JSON has a null of its own, so no bytes are not taken for it.
        (b'"', Bytes) if text == "\"\"" => Ok(Value::Bytes([].into())),
        (b'"', String | Date | DateTime | Uuid | Bytes) => {
            kind.parse(&unescaped(raw).ok_or("the text has half a surrogate pair")?)
        }
        (b'-' | b'0'..=b'9', Number) => kind.parse(text),
        (b'-' | b'0'..=b'9', Int32 | Int64) => integer(kind, text),
        _ => {
            let have = match first {
                b'"' => "a string",
                b't' | b'f' => "a boolean",
                b'{' => "an object",
                b'[' => "an array",
                _ => "a number",
            };
            Err(format!("{} is expected, this is {have}", expectation(kind)))
        }
    }
}

/// Clients whose numbers are doubles write integers as `5.0` or `1e3`.
fn integer(kind: PropertyType, text: &str) -> Result<Value, String> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match text.parse::<f64>() {
        Ok(n) if text.contains(['e', 'E']) && n.fract() == 0.0 && n.abs() <= EXACT => {
            kind.parse(&(n as i64).to_string())
        }
        _ => kind.parse(text),
    }
}

fn expectation(kind: PropertyType) -> &'static str {
    match kind {
        PropertyType::String => "a string",
        PropertyType::Int32 => "a 32-bit integer",
        PropertyType::Int64 => "a 64-bit integer",
        PropertyType::Number => "a number",
        PropertyType::Boolean => "a boolean",
        PropertyType::Date => "a date (a string \"YYYY-MM-DD\")",
        PropertyType::DateTime => "a date-time (a string \"YYYY-MM-DDThh:mm:ssZ\")",
        PropertyType::Uuid => "a UUID (a string)",
        PropertyType::Json => "JSON",
        PropertyType::Bytes => "bytes (a string of base64)",
    }
}

/// Hands the text of each feature of a FeatureCollection of any length to `each`, with its index, until it returns false. Nothing
/// is held but the feature at hand. A `crs` member before the features that names another CRS than WGS 84 is an error.
pub fn read_features(input: impl std::io::Read, each: &mut dyn FnMut(usize, &str) -> bool) -> Result<(), ParseError> {
    let mut json = serde_json::Deserializer::from_reader(input);
    let mut index = 0;
    let mut one = |raw: &RawValue| {
        index += 1;
        each(index - 1, raw.get())
    };
    let parsed = json
        .deserialize_map(CollectionVisitor { each: &mut one, crs: Some(Crs::WGS84) })
        .and_then(|c| json.end().map(|()| c));
    match parsed.map_err(|e| ParseError::new(e.to_string()))?.has_features {
        true => Ok(()),
        false => Err(ParseError::new("a FeatureCollection needs \"features\"")),
    }
}

/// What surrounds the features of a collection.
struct Collection {
    kind: Option<String>,
    crs: Option<Box<RawValue>>,
    has_features: bool,
}

/// Hands the features to `each` as they come, until it returns false.
struct CollectionVisitor<'f> {
    each: &'f mut dyn FnMut(&RawValue) -> bool,
    /// What a `crs` member before the features must name; `None`: that is held against afterwards.
    crs: Option<Crs>,
}

impl<'de> Visitor<'de> for CollectionVisitor<'_> {
    type Value = Collection;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a FeatureCollection")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Collection, A::Error> {
        let mut collection = Collection { kind: None, crs: None, has_features: false };
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "type" => collection.kind = Some(map.next_value()?),
                "crs" => collection.crs = Some(map.next_value()?),
                "features" if collection.has_features => return Err(A::Error::duplicate_field("features")),
                "features" => {
                    collection.has_features = true;
                    if let (Some(expected), Some(member)) = (self.crs, &collection.crs) {
                        let name = crs_name(member).unwrap_or_default();
                        if !CrsRef::parse(&name).is_ok_and(|c| c.crs == expected) {
                            let message =
                                format!("the coordinates are in '{name}', EPSG:{} is expected", expected.epsg());
                            return Err(A::Error::custom(message));
                        }
                    }
                    map.next_value_seed(FeaturesSeed { each: &mut *self.each })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(collection)
    }
}

struct FeaturesSeed<'f> {
    each: &'f mut dyn FnMut(&RawValue) -> bool,
}

impl<'de> DeserializeSeed<'de> for FeaturesSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FeaturesSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of features")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut features: A) -> Result<(), A::Error> {
        while let Some(raw) = features.next_element::<Box<RawValue>>()? {
            if !(self.each)(&raw) {
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
