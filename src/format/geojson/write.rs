//! Features into GeoJSON text.

use crate::format::gml::gml_id;
use crate::format::json;
use crate::format::placed::Shown;
use crate::model::crs::{Crs, CrsRef};
use crate::model::geometry::Reader;
use crate::model::{Dimension, Feature, FeatureType, Geometry, GeometryError, GeometryKind};

/// What the features of one answer have in common.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    /// The CRS of the coordinates; `None`: CRS84.
    pub crs: Option<&'a CrsRef>,
    /// Ids as WFS spells them everywhere ([`gml_id`]), not bare.
    pub wfs_ids: bool,
    /// The ids of the properties to write, in this order; `None`: all.
    pub properties: Option<&'a [usize]>,
    /// Leaves the geometry out: it is written as null.
    pub skip_geometry: bool,
}

/// Writes the features of one type.
pub struct FeatureWriter {
    /// The type whose ids are written as WFS spells them.
    wfs_ids: Option<String>,
    /// The property's id, and the text that goes before its value.
    properties: Vec<(usize, Vec<u8>)>,
    shown: Shown,
    swap: bool,
    skip_geometry: bool,
    /// The features are tracks, whose times are written beside their lines.
    tracks: bool,
}

impl FeatureWriter {
    pub fn new(ft: &FeatureType, options: &Options<'_>) -> FeatureWriter {
        let all: Vec<usize>;
        let slots = match options.properties {
            Some(slots) => slots,
            None => {
                all = (0..ft.properties.len()).collect();
                &all
            }
        };
        let named = slots.iter().filter_map(|slot| Some((*slot, ft.properties.get(*slot)?)));
        let properties = named.enumerate().map(|(i, (slot, property))| {
            let mut before = if i == 0 { Vec::new() } else { vec![b','] };
            json::string(&mut before, &property.name);
            before.push(b':');
            (slot, before)
        });
        FeatureWriter {
            wfs_ids: options.wfs_ids.then(|| ft.name.clone()),
            properties: properties.collect(),
            shown: Shown::new(ft, options.crs.map_or(Crs::WGS84, |c| c.crs)),
            swap: options.crs.is_some_and(|c| c.swap),
            skip_geometry: options.skip_geometry,
            tracks: ft.track.is_some(),
        }
    }

    /// Appends `feature`, a track with its times as `"datetimes"`; `tier` becomes a member `"tier"` where it is given. When its geometry has no place in the CRS asked
    /// for, nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>, feature: &Feature, tier: Option<&str>) -> Result<(), GeometryError> {
        let start = out.len();
        out.extend_from_slice(br#"{"type":"Feature","id":"#);
        match &self.wfs_ids {
            None => json::string(out, &feature.id),
            Some(name) => json::string(out, &gml_id(name, &feature.id)),
        }
        out.extend_from_slice(br#","geometry":"#);
        let geometry = feature.geometry.as_ref().filter(|_| !self.skip_geometry);
        match geometry {
            None => out.extend_from_slice(b"null"),
            Some(geometry) => self.geometry(out, geometry).inspect_err(|_| out.truncate(start))?,
        }
        out.extend_from_slice(br#","properties":{"#);
        for (slot, before) in &self.properties {
            out.extend_from_slice(before);
            json::value(out, feature.value(*slot));
        }
        out.push(b'}');
        if let Some(line) = geometry.filter(|_| self.tracks) {
            out.extend_from_slice(br#","datetimes":"#);
            times(out, &mut line.reader());
        }
        if let Some(tier) = tier {
            out.extend_from_slice(br#","tier":"#);
            json::string(out, tier);
        }
        out.push(b'}');
        Ok(())
    }

    /// Appends a geometry alone.
    pub fn geometry(&self, out: &mut Vec<u8>, geometry: &Geometry) -> Result<(), GeometryError> {
        self.part(out, &mut self.shown.geometry(geometry)?.reader());
        Ok(())
    }

    fn part(&self, out: &mut Vec<u8>, r: &mut Reader<'_>) {
        let (kind, dimension) = r.header();
        out.extend_from_slice(match kind {
            GeometryKind::Point => br#"{"type":"Point","coordinates":"#,
            GeometryKind::LineString => br#"{"type":"LineString","coordinates":"#,
            GeometryKind::Polygon => br#"{"type":"Polygon","coordinates":"#,
            GeometryKind::MultiPoint => br#"{"type":"MultiPoint","coordinates":"#,
            GeometryKind::MultiLineString => br#"{"type":"MultiLineString","coordinates":"#,
            GeometryKind::MultiPolygon => br#"{"type":"MultiPolygon","coordinates":"#,
            GeometryKind::GeometryCollection | GeometryKind::Geometry => {
                br#"{"type":"GeometryCollection","geometries":"# as &[u8]
            }
        });
        match kind {
            GeometryKind::GeometryCollection | GeometryKind::Geometry => list(out, r, |out, r| self.part(out, r)),
            GeometryKind::MultiPoint | GeometryKind::MultiLineString | GeometryKind::MultiPolygon => {
                list(out, r, |out, r| {
                    let (kind, dimension) = r.header();
                    self.coordinates(out, r, kind, dimension);
                });
            }
            _ => self.coordinates(out, r, kind, dimension),
        }
        out.push(b'}');
    }

    fn coordinates(&self, out: &mut Vec<u8>, r: &mut Reader<'_>, kind: GeometryKind, dimension: Dimension) {
        let line = |out: &mut Vec<u8>, r: &mut Reader<'_>| list(out, r, |out, r| self.position(out, r, dimension));
        match kind {
            GeometryKind::Point => self.position(out, r, dimension),
            GeometryKind::LineString => line(out, r),
            _ => list(out, r, line),
        }
    }

    fn position(&self, out: &mut Vec<u8>, r: &mut Reader<'_>, dimension: Dimension) {
        let c = r.coord(dimension);
        out.push(b'[');
        if !c.x.is_nan() {
            let (first, second) = if self.swap { (c.y, c.x) } else { (c.x, c.y) };
            json::number(out, first);
            out.push(b',');
            json::number(out, second);
            if dimension.has_z() {
                out.push(b',');
                json::number(out, c.z);
            }
        }
        out.push(b']');
    }
}

/// A count, and so many of something, as a JSON array.
fn list(out: &mut Vec<u8>, r: &mut Reader<'_>, each: impl Fn(&mut Vec<u8>, &mut Reader<'_>)) {
    out.push(b'[');
    for i in 0..r.count() {
        if i > 0 {
            out.push(b',');
        }
        each(out, r);
    }
    out.push(b']');
}

/// Appends the times of a track's vertices: a list, of a MultiLineString a list of lists.
fn times(out: &mut Vec<u8>, line: &mut Reader<'_>) {
    match line.header() {
        (GeometryKind::MultiLineString, _) => list(out, line, times),
        (_, dimension) => list(out, line, |out, line| {
            out.push(b'"');
            json::instant(out, (line.coord(dimension).m * 1e6).round() as i64);
            out.push(b'"');
        }),
    }
}

/// The frame of a FeatureCollection around features that are written one by one.
#[derive(Clone, Copy, Debug, Default)]
pub struct CollectionFrame {
    features: u64,
}

/// The members after the features, each where it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Closing<'a> {
    pub number_matched: Option<u64>,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub time_stamp_ms: Option<i64>,
    /// Link objects.
    pub links: &'a [serde_json::Value],
}

impl CollectionFrame {
    pub fn open(out: &mut Vec<u8>) -> CollectionFrame {
        out.extend_from_slice(br#"{"type":"FeatureCollection","features":["#);
        CollectionFrame::default()
    }

    /// To be called before each feature.
    pub fn next(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.features == 0 { b"\n" } else { b",\n" });
        self.features += 1;
    }

    /// Takes back the last `next`, whose feature could not be written; the caller has cut `out` to before it.
    pub fn undo(&mut self) {
        self.features = self.features.saturating_sub(1);
    }

    /// Features so far.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Closes the list and the object, with `numberReturned` and what `closing` knows.
    pub fn close(self, out: &mut Vec<u8>, closing: &Closing<'_>) {
        out.extend_from_slice(b"\n]");
        if let Some(n) = closing.number_matched {
            out.extend_from_slice(br#","numberMatched":"#);
            out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
        }
        out.extend_from_slice(br#","numberReturned":"#);
        out.extend_from_slice(itoa::Buffer::new().format(self.features).as_bytes());
        if let Some(ms) = closing.time_stamp_ms {
            out.extend_from_slice(br#","timeStamp":""#);
            json::instant(out, ms.saturating_mul(1000));
            out.push(b'"');
        }
        if !closing.links.is_empty() {
            out.extend_from_slice(br#","links":["#);
            for (i, link) in closing.links.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(link.to_string().as_bytes());
            }
            out.push(b']');
        }
        out.push(b'}');
    }
}
