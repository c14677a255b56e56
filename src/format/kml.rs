//! Features as KML 2.2 (OGC 07-147r2): always longitude and latitude of WGS 84.

use crate::format::gml::{Selection, gml_id, write_number, write_value};
use crate::format::placed::Shown;
use crate::format::xml;
use crate::model::crs::Crs;
use crate::model::geometry::{Coord, Reader};
use crate::model::{Feature, FeatureType, GeometryError, GeometryKind};

/// What stands before the features, and behind them.
pub const OPEN: &str =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<kml xmlns=\"http://www.opengis.net/kml/2.2\"><Document>\n";
pub const CLOSE: &str = "</Document></kml>\n";

/// Writes the features of one type as placemarks.
pub struct FeatureWriter {
    type_name: String,
    geometry: bool,
    /// Property id, and the start tags.
    properties: Vec<(usize, Vec<u8>)>,
    shown: Shown,
}

impl FeatureWriter {
    pub fn new(ft: &FeatureType, selection: &Selection) -> FeatureWriter {
        let tags = |slot: &usize| {
            let mut tags = b"<Data name=\"".to_vec();
            xml::attribute(&mut tags, &ft.properties[*slot].name);
            tags.extend_from_slice(b"\"><value>");
            (*slot, tags)
        };
        FeatureWriter {
            type_name: ft.name.clone(),
            geometry: selection.geometry,
            properties: selection.properties.iter().map(tags).collect(),
            shown: Shown::new(ft, Crs::WGS84),
        }
    }

    /// Appends `feature`. When its geometry has no place on the globe, nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>, feature: &Feature) -> Result<(), GeometryError> {
        let geometry = feature.geometry.as_ref().filter(|_| self.geometry);
        let geometry = geometry.map(|g| self.shown.geometry(g)).transpose()?;
        let id = gml_id(&self.type_name, &feature.id);
        out.extend_from_slice(b"<Placemark id=\"");
        xml::attribute(out, &id);
        out.extend_from_slice(b"\"><name>");
        xml::text(out, &id);
        out.extend_from_slice(b"</name>");
        let values = self.properties.iter().map(|(slot, tags)| (feature.value(*slot), tags));
        let mut values = values.filter(|(value, _)| !value.is_null()).peekable();
        if values.peek().is_some() {
            out.extend_from_slice(b"<ExtendedData>");
            for (value, tags) in values {
                out.extend_from_slice(tags);
                write_value(out, value);
                out.extend_from_slice(b"</value></Data>");
            }
            out.extend_from_slice(b"</ExtendedData>");
        }
        if let Some(geometry) = geometry.filter(|g| !g.is_empty()) {
            part(out, &mut geometry.reader());
        }
        out.extend_from_slice(b"</Placemark>\n");
        Ok(())
    }
}

fn part(out: &mut Vec<u8>, r: &mut Reader<'_>) {
    let (kind, dimension) = r.header();
    let coordinates = |out: &mut Vec<u8>, r: &mut Reader<'_>, n: u32| {
        out.extend_from_slice(b"<coordinates>");
        for i in 0..n {
            if i > 0 {
                out.push(b' ');
            }
            coord(out, r.coord(dimension), dimension.has_z());
        }
        out.extend_from_slice(b"</coordinates>");
    };
    let (open, close): (&[u8], &[u8]) = match kind {
        GeometryKind::Point => (b"<Point>", b"</Point>"),
        GeometryKind::LineString => (b"<LineString>", b"</LineString>"),
        GeometryKind::Polygon => (b"<Polygon>", b"</Polygon>"),
        _ => (b"<MultiGeometry>", b"</MultiGeometry>"),
    };
    out.extend_from_slice(open);
    match kind {
        GeometryKind::Point => coordinates(out, r, 1),
        GeometryKind::LineString => {
            let n = r.count();
            coordinates(out, r, n);
        }
        GeometryKind::Polygon => {
            for ring in 0..r.count() {
                let boundary: (&[u8], &[u8]) = match ring {
                    0 => (b"<outerBoundaryIs><LinearRing>", b"</LinearRing></outerBoundaryIs>"),
                    _ => (b"<innerBoundaryIs><LinearRing>", b"</LinearRing></innerBoundaryIs>"),
                };
                out.extend_from_slice(boundary.0);
                let n = r.count();
                coordinates(out, r, n);
                out.extend_from_slice(boundary.1);
            }
        }
        _ => {
            for _ in 0..r.count() {
                part(out, r);
            }
        }
    }
    out.extend_from_slice(close);
}

/// An empty point within a collection has no coordinates to write.
fn coord(out: &mut Vec<u8>, c: Coord, z: bool) {
    if c.x.is_nan() {
        return;
    }
    write_number(out, c.x);
    out.push(b',');
    write_number(out, c.y);
    if z {
        out.push(b',');
        write_number(out, c.z);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::geometry::Writer;
    use crate::model::{Dimension, Geometry, Value};

    #[test]
    fn a_feature_is_a_placemark() {
        let ft: FeatureType = serde_json::from_value(serde_json::json!({
            "name": "ships", "geometry": {"type": "Geometry"},
            "properties": [{"name": "name", "type": "string"}, {"name": "speed", "type": "number"}],
        }))
        .unwrap();
        let writer = FeatureWriter::new(&ft, &Selection::all(&ft));
        let written = |geometry: Option<Geometry>, name: &str| {
            let mut out = Vec::new();
            let properties = vec![Value::String(name.into()), Value::Null];
            writer.write(&mut out, &Feature { id: "1".into(), geometry, properties }).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(Geometry::point(24.0, 60.0).ok(), "R&D"),
            "<Placemark id=\"ships.1\"><name>ships.1</name><ExtendedData><Data name=\"name\"><value>R&amp;D</value></Data>\
             </ExtendedData><Point><coordinates>24,60</coordinates></Point></Placemark>\n"
        );
        let mut w = Writer::new(Dimension::XYZ);
        w.begin(GeometryKind::MultiLineString);
        w.count(1);
        w.begin(GeometryKind::LineString);
        w.count(2);
        for x in [1.0, 2.0] {
            w.coord(Coord { x, y: 0.5, z: 9.0, m: 0.0 });
        }
        let text = written(w.checked().ok(), "");
        assert!(
            text.contains(
                "<MultiGeometry><LineString><coordinates>1,0.5,9 2,0.5,9</coordinates></LineString></MultiGeometry>"
            ),
            "{text}"
        );
        assert!(written(None, "x").ends_with("</ExtendedData></Placemark>\n"));
    }
}
