//! A feature type: its schema, its CRS and the settings that rule how long its features stay in the transient index.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::crs::Crs;
use super::table::KeyType;
use super::{Dimension, ExistingTable, Feature, GeometryKind, PropertyType, Rect, TrackSettings, TrackShape, Value};

/// The longest name of a type or a property, bytes: PostgreSQL's limit on identifiers.
const MAX_NAME: usize = 63;
/// A double has no more for certain.
pub const MAX_DECIMALS: u8 = 15;

/// A layer: in OGC API a collection, in WFS a feature type, in the delegate a table, in Kafka a topic, all of the same name.
///
/// Its TOML and JSON form is what `POST /collections` takes; `incarnation` and `schema_version` are the store's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureType {
    /// `[a-z][a-z0-9_]*`.
    #[serde(alias = "id")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `None`: a table without geometry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geometry: Option<GeometryColumn>,
    /// A property's id is its place here; properties are only ever added at the end.
    #[serde(default)]
    pub properties: Vec<Property>,
    /// The features are tracks: lines of fixes with their times as M, to which fixes are appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<TrackSettings>,
    /// The point type whose positions these tracks are made of, id by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track_of: Option<String>,
    /// How long a feature must go without a change before it is persisted and leaves the transient index.
    #[serde(default)]
    pub expiry: Expiry,
    /// Changes are ordered by a time of their own: see [`EventTime`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<EventTime>,
    /// A feature that never rests is persisted, in its present state, when it has been dirty for this long.
    #[serde(default = "default_max_dirty", with = "seconds")]
    pub max_dirty: Duration,
    /// Features on a page when the client does not say, and at most; `None`: as the service's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_limit: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_limit: Option<u64>,
    /// How many decimals the coordinates of its features have in answers of text (GML, GeoJSON, CSV, KML), at most; `None`:
    /// as many as the service's settings say. What is stored keeps all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimals: Option<u8>,
    /// Of the log. Fixed when the type is made.
    #[serde(default = "one")]
    pub partitions: u32,
    /// False: no delegate; features are gone when they expire.
    #[serde(default = "yes")]
    pub persist: bool,
    /// `None`: a table of its own, named like the type. Some: one that was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<ExistingTable>,
    /// Made when the type is created; in the topic's name and the positions, so that offsets of two types that bore the same
    /// name one after the other are never mixed up. Empty in a declaration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub incarnation: String,
    /// Rises with each change of the schema.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub schema_version: u32,
}

/// A change whose time is before that of what is there does nothing: a report that comes late never moves a ship back. It costs
/// each write of a feature that is not in the index a look into the delegate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventTime {
    /// Of type date-time. A change that leaves it out, or null, is never late.
    pub property: String,
    /// For so many seconds after its deletion was persisted the time of a deleted feature still tells what is late.
    #[serde(default = "a_day", with = "seconds")]
    pub remember_deleted: Duration,
}

/// The geometry of a type's features. Its column and GML element are named `geom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeometryColumn {
    #[serde(rename = "type")]
    pub kind: GeometryKind,
    /// EPSG code of the stored coordinates; they are kept in x,y (easting, northing; longitude, latitude) order whatever the
    /// registry's axis order.
    #[serde(default = "wgs84")]
    pub epsg: u32,
    #[serde(default)]
    pub dimension: Dimension,
    #[serde(default = "yes")]
    pub nullable: bool,
}

/// The name of the geometry property, in every protocol and table.
pub const GEOMETRY: &str = "geom";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// Letters, digits and `_`, not beginning with a digit; case counts. Not `id`, `geom` or a name beginning with `alluvium_`.
    /// Some that begin with `gml_` are GML's standard properties in GML.
    pub name: String,
    #[serde(rename = "type")]
    pub kind: PropertyType,
    #[serde(default = "yes")]
    pub nullable: bool,
    /// Indexed in both tiers.
    #[serde(default)]
    pub index: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// Seconds, or `"never"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    After(Duration),
    Never,
}

impl Default for Expiry {
    fn default() -> Self {
        Expiry::After(Duration::from_secs(60))
    }
}

/// What is wrong with a declaration, or with a feature held against its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SchemaError {
    /// The property (or setting) at fault.
    pub locator: String,
    pub what: String,
}

impl SchemaError {
    pub fn new(locator: impl Into<String>, what: impl Into<String>) -> Self {
        SchemaError { locator: locator.into(), what: what.into() }
    }
}

impl FeatureType {
    /// The id and type of a property by name.
    pub fn property(&self, name: &str) -> Option<(usize, &Property)> {
        self.properties.iter().enumerate().find(|(_, p)| p.name == name)
    }

    /// The name of this type's log: a Kafka topic, or a name inside the embedded log.
    pub fn log_name(&self) -> String {
        format!("{}.{}", self.name, self.incarnation)
    }

    /// The title, or the name where there is none.
    pub fn title(&self) -> &str {
        if self.title.is_empty() { &self.name } else { &self.title }
    }

    /// Checks a declaration. The error's locator names the setting.
    pub fn check_declaration(&self) -> Result<(), SchemaError> {
        let mut letters = self.name.chars();
        let starts = letters.next().is_some_and(|c| c.is_ascii_lowercase());
        if !starts || !letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return Err(SchemaError::new("name", format!("'{}' is not a name: [a-z][a-z0-9_]*", self.name)));
        }
        if self.name.len() > MAX_NAME {
            return Err(SchemaError::new("name", format!("a name has at most {MAX_NAME} characters")));
        }
        if !(1..=256).contains(&self.partitions) {
            return Err(SchemaError::new("partitions", "between 1 and 256 partitions"));
        }
        if self.max_dirty.is_zero() {
            return Err(SchemaError::new("max_dirty", "must be more than 0 seconds"));
        }
        for (key, limit) in [("default_limit", self.default_limit), ("max_limit", self.max_limit)] {
            if limit == Some(0) {
                return Err(SchemaError::new(key, "must be more than 0"));
            }
        }
        if self.max_limit.is_some_and(|most| self.default_limit.is_some_and(|n| n > most)) {
            return Err(SchemaError::new("default_limit", "is greater than max_limit"));
        }
        if self.decimals.is_some_and(|n| n > MAX_DECIMALS) {
            return Err(SchemaError::new("decimals", format!("at most {MAX_DECIMALS} decimals")));
        }
        if let Some(g) = &self.geometry
            && super::crs::Crs::from_epsg(g.epsg).is_none()
        {
            return Err(SchemaError::new("geometry.epsg", format!("EPSG:{} is not a known CRS", g.epsg)));
        }
        self.check_track()?;
        self.check_event_time()?;
        self.check_table()?;
        for (i, p) in self.properties.iter().enumerate() {
            let name = |what| SchemaError::new(format!("properties.{i}.name"), what);
            check_property_name(&p.name).map_err(name)?;
            if self.properties[..i].iter().any(|q| q.name.eq_ignore_ascii_case(&p.name)) {
                let what = "is declared twice (case does not tell names apart in every table)";
                return Err(name(format!("property '{}' {what}", p.name)));
            }
        }
        if self.properties.len() > 1000 {
            return Err(SchemaError::new("properties", "at most 1000 properties"));
        }
        Ok(())
    }

    /// How fixes become lines; `None`: the features are no tracks.
    pub fn track_shape(&self) -> Option<TrackShape> {
        let (settings, column) = (self.track?, self.geometry?);
        let geographic = Crs::from_epsg(column.epsg).is_none_or(Crs::is_geographic);
        Some(TrackShape { kind: column.kind, dimension: column.dimension, settings, geographic })
    }

    /// Its delegate may keep the last fixes of a track apart from the line, which only its own tables allow.
    pub fn keeps_tails(&self) -> bool {
        self.track.is_some() && self.table.is_none()
    }

    /// The id of the property that has the event time.
    pub fn event_time_slot(&self) -> Option<usize> {
        self.property(&self.event_time.as_ref()?.property).map(|(slot, _)| slot)
    }

    fn check_event_time(&self) -> Result<(), SchemaError> {
        let Some(EventTime { property, .. }) = &self.event_time else { return Ok(()) };
        if self.track.is_some() {
            return Err(SchemaError::new("event_time", "a track puts its fixes in the order of their times by itself"));
        }
        match self.property(property) {
            Some((_, p)) if p.kind == PropertyType::DateTime => Ok(()),
            Some(_) => Err(SchemaError::new("event_time.property", format!("'{property}' is not of type date-time"))),
            None => Err(SchemaError::new("event_time.property", format!("there is no property '{property}'"))),
        }
    }

    fn check_track(&self) -> Result<(), SchemaError> {
        if self.track_of.is_some() {
            if self.track.is_none() {
                return Err(SchemaError::new("track_of", "needs track = {}"));
            }
            if let Some(p) = self.properties.iter().find(|p| !p.nullable) {
                let what = format!("property '{}' must be nullable: no position is refused for its track", p.name);
                return Err(SchemaError::new("track_of", what));
            }
        }
        let Some(track) = &self.track else { return Ok(()) };
        let column = self.geometry.ok_or_else(|| SchemaError::new("track", "a track needs a geometry"))?;
        if !matches!(column.kind, GeometryKind::LineString | GeometryKind::MultiLineString) || !column.dimension.has_m()
        {
            return Err(SchemaError::new(
                "track",
                "a track is a LineString or MultiLineString of dimension XYM or XYZM",
            ));
        }
        for (key, gap) in [("track.gap_seconds", track.gap_seconds), ("track.gap_metres", track.gap_metres)] {
            match gap {
                Some(gap) if !(gap.is_finite() && gap > 0.0) => {
                    return Err(SchemaError::new(key, "must be more than 0"));
                }
                Some(_) if column.kind != GeometryKind::MultiLineString => {
                    return Err(SchemaError::new(key, "only a MultiLineString has parts"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_table(&self) -> Result<(), SchemaError> {
        let Some(table) = &self.table else { return Ok(()) };
        if !self.persist {
            return Err(SchemaError::new("persist", "a type over a table of others is persisted in it"));
        }
        if self.track_of.is_some() && (table.read_only || table.key_type != KeyType::Text) {
            let what = "the track of every point needs a table that takes any text as its key";
            return Err(SchemaError::new("track_of", what));
        }
        if let Some(name) = table.columns.keys().find(|name| self.property(name).is_none()) {
            return Err(SchemaError::new("table.columns", format!("there is no property '{name}'")));
        }
        if let Some(p) = self.properties.iter().find(|p| p.index) {
            let what = format!("property '{}': a table of others gets no index; make it there", p.name);
            return Err(SchemaError::new(&p.name, what));
        }
        Ok(())
    }

    /// An error where nobody may write.
    pub fn check_writable(&self) -> Result<(), SchemaError> {
        match &self.table {
            Some(table) if table.read_only => Err(SchemaError::new(
                &self.name,
                format!("feature type '{}' is read-only: it shows '{}.{}'", self.name, table.schema, table.name),
            )),
            _ => Ok(()),
        }
    }

    /// Holds an id that a client gave against the keys of the type's table.
    pub fn check_key(&self, id: &str) -> Result<(), SchemaError> {
        match &self.table {
            Some(table) if !id.is_empty() => table.key_type.check(id),
            _ => Ok(()),
        }
    }

    /// A value that was read under an earlier version of the schema becomes what its property is now.
    pub fn widen(&self, slot: usize, value: &mut Value) {
        if let (Value::Int(_), Some(property)) = (&*value, self.properties.get(slot)) {
            *value = std::mem::take(value).widened(property.kind);
        }
    }

    /// Holds a feature against this type, promoting its geometry where the type wants the multi form.
    pub fn check(&self, feature: &mut Feature) -> Result<(), SchemaError> {
        self.check_key(&feature.id)?;
        self.check_geometry(&mut feature.geometry)?;
        if feature.properties.len() > self.properties.len() {
            return Err(SchemaError::new("properties", "more values than the type has properties"));
        }
        (0..).zip(&mut feature.properties).for_each(|(slot, value)| self.widen(slot, value));
        for (slot, property) in self.properties.iter().enumerate() {
            self.check_value(slot, feature.value(slot)).map_err(|e| SchemaError::new(&property.name, e.what))?;
        }
        Ok(())
    }

    /// Holds one new value against property `slot`.
    pub fn check_value(&self, slot: usize, value: &Value) -> Result<(), SchemaError> {
        let Some(property) = self.properties.get(slot) else {
            return Err(SchemaError::new("properties", format!("no property with id {slot}")));
        };
        if value.is_null() && !property.nullable {
            return Err(SchemaError::new(&property.name, format!("property '{}' may not be null", property.name)));
        }
        if !value.is_of(property.kind) {
            return Err(SchemaError::new(
                &property.name,
                format!("property '{}' is of type {}", property.name, property.kind.name()),
            ));
        }
        Ok(())
    }

    /// Holds a geometry against the type's: its kind (promoting a single one to the multi form that is asked), its dimension
    /// (missing Z is 0 and missing M is dropped or 0, so that no client is refused for it), its nullability.
    pub fn check_geometry(&self, geometry: &mut Option<super::Geometry>) -> Result<(), SchemaError> {
        let Some(column) = &self.geometry else {
            return match geometry {
                None => Ok(()),
                Some(_) => Err(SchemaError::new(GEOMETRY, format!("feature type '{}' has no geometry", self.name))),
            };
        };
        match geometry.take() {
            None if column.nullable => Ok(()),
            None => Err(SchemaError::new(GEOMETRY, "the geometry may not be null")),
            Some(g) => {
                let fitted =
                    g.fit(column.kind, column.dimension).map_err(|e| SchemaError::new(GEOMETRY, e.to_string()))?;
                if let Some(bounds) = fitted.bounds() {
                    check_extent(column, &bounds)?;
                }
                if let Some(shape) = self.track_shape() {
                    shape.check(&fitted).map_err(|e| SchemaError::new(GEOMETRY, e.to_string()))?;
                }
                *geometry = Some(fitted);
                Ok(())
            }
        }
    }

    /// Holds an append against this type. The locator of an error at a fix is the geometry.
    pub fn check_append(&self, append: &super::Append) -> Result<(), SchemaError> {
        let Some(column) = self.geometry.as_ref().filter(|_| self.track.is_some()) else {
            return Err(SchemaError::new(GEOMETRY, format!("the features of '{}' are no tracks", self.name)));
        };
        self.check_key(&append.id)?;
        if append.fixes.is_empty() {
            return Err(SchemaError::new(GEOMETRY, "there is no fix"));
        }
        for f in &append.fixes {
            check_extent(column, &Rect { min_x: f.x, min_y: f.y, max_x: f.x, max_y: f.y })?;
            if !(f.m.is_finite() && f.z.is_finite() && f.x.is_finite() && f.y.is_finite()) {
                return Err(SchemaError::new(GEOMETRY, "a fix is not finite"));
            }
        }
        append.properties.iter().try_for_each(|(slot, value)| self.check_value(usize::from(*slot), value))?;
        let given = |slot: usize| append.properties.iter().any(|(s, _)| usize::from(*s) == slot);
        match self.properties.iter().enumerate().find(|(slot, p)| !p.nullable && !given(*slot)) {
            None => Ok(()),
            Some((_, p)) => {
                let what = format!("property '{}' may not be null, and this may be the track's first fix", p.name);
                Err(SchemaError::new(&p.name, what))
            }
        }
    }
}

fn check_extent(column: &GeometryColumn, b: &Rect) -> Result<(), SchemaError> {
    let outside = b.min_y < -90.0 || b.max_y > 90.0 || b.min_x < -360.0 || b.max_x > 360.0;
    if outside && Crs::from_epsg(column.epsg).is_some_and(Crs::is_geographic) {
        let what = format!(
            "coordinates outside the CRS: longitude {}..{}, latitude {}..{} (is the axis order right?)",
            b.min_x, b.max_x, b.min_y, b.max_y
        );
        return Err(SchemaError::new(GEOMETRY, what));
    }
    Ok(())
}

fn check_property_name(name: &str) -> Result<(), String> {
    let mut chars = name.chars();
    // Letters that XML has not in its names (µ, ª, circled ones) are none here: a property is an element in GML.
    let letter = |c: char| {
        c == '_'
            || c.is_ascii_alphabetic()
            || (c >= 'À' && c.is_alphabetic() && !('\u{2460}'..='\u{24ff}').contains(&c))
    };
    let starts = chars.next().is_some_and(letter);
    if !starts || !chars.all(|c| letter(c) || c.is_ascii_digit()) || name.len() > MAX_NAME {
        return Err(format!("'{name}' is not a property name: letters, digits and '_', at most {MAX_NAME} bytes"));
    }
    let lower = name.to_ascii_lowercase();
    if matches!(lower.as_str(), "id" | "fid" | GEOMETRY) || lower.starts_with("alluvium_") {
        return Err(format!("'{name}' is a name of the store's own"));
    }
    Ok(())
}

fn default_max_dirty() -> Duration {
    Duration::from_secs(600)
}
fn a_day() -> Duration {
    Duration::from_secs(86_400)
}
fn one() -> u32 {
    1
}
fn yes() -> bool {
    true
}
fn wgs84() -> u32 {
    4326
}
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Durations as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(d.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(d)?).map_err(D::Error::custom)
    }
}

impl Serialize for Expiry {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Expiry::After(d) => s.serialize_f64(d.as_secs_f64()),
            Expiry::Never => s.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Seconds(f64),
            Word(String),
        }
        use serde::de::Error;
        match Form::deserialize(d)? {
            Form::Seconds(s) => Duration::try_from_secs_f64(s).map(Expiry::After).map_err(D::Error::custom),
            Form::Word(w) if w == "never" => Ok(Expiry::Never),
            Form::Word(w) => Err(D::Error::custom(format!("expiry is a number of seconds or \"never\", not \"{w}\""))),
        }
    }
}
