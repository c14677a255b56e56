//! Features as FlatGeobuf 3 (<https://flatgeobuf.org>): a head with the columns and the CRS, then one buffer for each feature.
//!
//! As a stream: the head tells neither how many features there are nor where, and there is no index. Coordinates are in x,y
//! order, as the format has them. A geometry with nothing in it is left out: the format has no form for it.

use super::flatbuffer::{self, Field, Table};
use super::gml::{Selection, gml_id};
use super::placed::Placed;
use crate::model::crs::Crs;
use crate::model::geometry::Reader;
use crate::model::value::{format_date, format_instant};
use crate::model::{Dimension, Feature, FeatureType, GeometryError, GeometryKind, PropertyType, Value};

pub const MEDIA_TYPE: &str = "application/flatgeobuf";

const MAGIC: [u8; 8] = *b"fgb\x03fgb\x00";

/// The column of the features' ids, before those of the properties, none of which can have this name.
const ID: &str = "id";

/// Writes the features of one type.
pub struct FeatureWriter {
    header: Vec<u8>,
    /// The type whose ids are written as WFS spells them.
    wfs_ids: Option<String>,
    /// Property ids, in the order of the columns after that of the id.
    properties: Vec<(usize, PropertyType)>,
    placed: Placed,
}

impl FeatureWriter {
    /// Features of `ft` with coordinates in `crs`; ids are bare, or as WFS spells them everywhere ([`gml_id`]).
    pub fn new(ft: &FeatureType, crs: Crs, selection: &Selection, wfs_ids: bool) -> FeatureWriter {
        let placed = Placed::new(ft, crs, selection);
        FeatureWriter {
            header: header(ft, &placed, selection),
            wfs_ids: wfs_ids.then(|| ft.name.clone()),
            properties: selection.properties.iter().map(|slot| (*slot, ft.properties[*slot].kind)).collect(),
            placed,
        }
    }

    /// What stands before the features.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Appends `feature`. When its geometry has no place in the CRS, nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>, feature: &Feature) -> Result<(), GeometryError> {
        let geometry = self.placed.geometry(feature)?;
        self.append(out, feature, geometry.and_then(|g| part(&mut g.reader())));
        Ok(())
    }

    /// As [`write`](Self::write), but without the geometry.
    pub fn write_without_geometry(&self, out: &mut Vec<u8>, feature: &Feature) {
        self.append(out, feature, None);
    }

    fn append(&self, out: &mut Vec<u8>, feature: &Feature, geometry: Option<Table<'_>>) {
        let mut values = Vec::new();
        match &self.wfs_ids {
            None => text(&mut values, 0, &feature.id),
            Some(name) => text(&mut values, 0, &gml_id(name, &feature.id)),
        }
        for ((slot, kind), column) in self.properties.iter().zip(1_u16..) {
            value(&mut values, column, *kind, feature.value(*slot));
        }
        let mut fields = vec![(1, Field::Bytes(&values))];
        fields.extend(geometry.map(|geometry| (0, Field::Table(geometry))));
        flatbuffer::write(out, &fields);
    }
}

fn header(ft: &FeatureType, placed: &Placed, selection: &Selection) -> Vec<u8> {
    let id = vec![(0, Field::Text(ID)), (1, Field::Byte(STRING)), (7, NO), (8, YES), (9, YES)];
    let properties = selection.properties.iter().map(|slot| &ft.properties[*slot]).map(|p| {
        let mut column = vec![(0, Field::Text(&p.name)), (1, Field::Byte(column_type(p.kind)))];
        column.extend(p.title.as_ref().map(|title| (2, Field::Text(title))));
        column.extend((!p.nullable).then_some((7, NO)));
        column
    });
    let mut fields = vec![
        (0, Field::Text(&ft.name)),
        (7, Field::Tables(std::iter::once(id).chain(properties).collect())),
        // No index.
        (9, Field::Short(0)),
        (11, Field::Text(ft.title())),
        (12, Field::Text(&ft.description)),
    ];
    if let Some(g) = placed.column {
        let crs = vec![
            (0, Field::Text("EPSG")),
            (1, Field::Int(placed.crs.epsg() as i32)),
            (2, Field::Text(placed.crs.name())),
        ];
        fields.extend([
            (2, Field::Byte(kind_code(g.kind))),
            (3, Field::Byte(g.dimension.has_z().into())),
            (4, Field::Byte(g.dimension.has_m().into())),
            (10, Field::Table(crs)),
        ]);
    }
    let mut header = MAGIC.to_vec();
    flatbuffer::write(&mut header, &fields);
    header
}

const NO: Field<'static> = Field::Byte(0);
const YES: Field<'static> = Field::Byte(1);

/// The numbers of `ColumnType`.
const STRING: u8 = 11;

fn column_type(kind: PropertyType) -> u8 {
    match kind {
        PropertyType::Boolean => 2,
        PropertyType::Int32 => 5,
        PropertyType::Int64 => 7,
        PropertyType::Number => 10,
        PropertyType::String | PropertyType::Uuid => STRING,
        PropertyType::Json => 12,
        // Text of ISO 8601; a day is one as well, and has no type of its own.
        PropertyType::Date | PropertyType::DateTime => 13,
        PropertyType::Bytes => 14,
    }
}

/// The numbers of `GeometryType`, which begin as those of WKB do; 0 is any.
fn kind_code(kind: GeometryKind) -> u8 {
    kind as u8
}

/// Appends a value behind the number of its column; nothing where there is none.
fn value(out: &mut Vec<u8>, column: u16, kind: PropertyType, value: &Value) {
    let mut number = |bytes: &[u8]| {
        out.extend_from_slice(&column.to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::Null => {}
        Value::Bool(b) => number(&[u8::from(*b)]),
        Value::Int(n) => match kind {
            PropertyType::Int32 => number(&(*n as i32).to_le_bytes()),
            PropertyType::Number => number(&(*n as f64).to_le_bytes()),
            _ => number(&n.to_le_bytes()),
        },
        Value::Number(n) => number(&n.to_le_bytes()),
        Value::String(s) | Value::Json(s) => text(out, column, s),
        Value::Date(days) => text(out, column, &format_date(*days)),
        Value::DateTime(micros) => text(out, column, &format_instant(*micros)),
        Value::Uuid(bytes) => text(out, column, &uuid::Uuid::from_bytes(*bytes).to_string()),
        Value::Bytes(bytes) => counted(out, column, bytes),
    }
}

fn text(out: &mut Vec<u8>, column: u16, text: &str) {
    counted(out, column, text.as_bytes());
}

fn counted(out: &mut Vec<u8>, column: u16, bytes: &[u8]) {
    out.extend_from_slice(&column.to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A `Geometry` of the schema; `None` of one with nothing in it.
fn part(r: &mut Reader<'_>) -> Option<Table<'static>> {
    let (kind, dimension) = r.header();
    let mut flat = Flat { dimension, ..Flat::default() };
    let mut parts = Vec::new();
    match kind {
        GeometryKind::Point => flat.coords(r, 1),
        GeometryKind::LineString => flat.line(r),
        GeometryKind::Polygon => (0..r.count()).for_each(|_| flat.line(r)),
        GeometryKind::MultiPoint => (0..r.count()).for_each(|_| {
            r.header();
            flat.coords(r, 1);
        }),
        GeometryKind::MultiLineString => (0..r.count()).for_each(|_| {
            r.header();
            flat.line(r);
        }),
        GeometryKind::MultiPolygon | GeometryKind::GeometryCollection | GeometryKind::Geometry => {
            parts.extend((0..r.count()).filter_map(|_| part(r)));
        }
    }
    if flat.xy.is_empty() && parts.is_empty() {
        return None;
    }
    let mut fields = vec![(6, Field::Byte(kind_code(kind)))];
    if parts.is_empty() {
        flat.append_to(&mut fields);
    } else {
        fields.push((7, Field::Tables(parts)));
    }
    Some(fields)
}

/// Vertices, each ordinate in a list of its own.
#[derive(Default)]
struct Flat {
    dimension: Dimension,
    xy: Vec<f64>,
    z: Vec<f64>,
    m: Vec<f64>,
    /// Where the lines and rings end, in vertices.
    ends: Vec<u32>,
}

impl Flat {
    fn coords(&mut self, r: &mut Reader<'_>, n: u32) {
        for c in (0..n).map(|_| r.coord(self.dimension)).filter(|c| !c.x.is_nan()) {
            self.xy.extend([c.x, c.y]);
            self.z.extend(self.dimension.has_z().then_some(c.z));
            self.m.extend(self.dimension.has_m().then_some(c.m));
        }
    }

    fn line(&mut self, r: &mut Reader<'_>) {
        let n = r.count();
        self.coords(r, n);
        if n > 0 {
            self.ends.push((self.xy.len() / 2) as u32);
        }
    }

    fn append_to(self, fields: &mut Table<'static>) {
        if self.ends.len() > 1 {
            fields.push((0, Field::Ints(self.ends)));
        }
        fields.push((1, Field::Doubles(self.xy)));
        fields.extend(self.dimension.has_z().then_some((2, Field::Doubles(self.z))));
        fields.extend(self.dimension.has_m().then_some((3, Field::Doubles(self.m))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::flatbuffer::tests::{Read, root};
    use crate::model::geometry::{Coord, Writer};
    use crate::model::{Geometry, PropertyType};

    fn ships() -> FeatureType {
        serde_json::from_value(serde_json::json!({
            "name": "ships", "title": "Ships", "geometry": {"type": "Geometry", "dimension": "XYZM"},
            "properties": [
                {"name": "name", "type": "string"}, {"name": "crew", "type": "int32"}, {"name": "mmsi", "type": "int64", "nullable": false},
                {"name": "speed", "type": "number"}, {"name": "moored", "type": "boolean"}, {"name": "seen", "type": "date-time"},
                {"name": "built", "type": "date"}, {"name": "photo", "type": "bytes"},
            ],
        }))
        .unwrap()
    }

    fn written(geometry: Option<Geometry>, properties: Vec<Value>, crs: Crs) -> Result<Vec<u8>, GeometryError> {
        let ft = ships();
        let mut out = Vec::new();
        let feature = Feature { id: "a:b".into(), geometry, properties };
        FeatureWriter::new(&ft, crs, &Selection::all(&ft), true).write(&mut out, &feature)?;
        Ok(out)
    }

    #[test]
    fn the_head_tells_the_columns_and_the_crs() {
        let ft = ships();
        let writer = FeatureWriter::new(&ft, Crs::WEB_MERCATOR, &Selection::of(&ft, true, &[1]), false);
        let mut rest = writer.header().strip_prefix(&MAGIC).unwrap();
        let head = root(&mut rest);
        assert!(rest.is_empty());
        assert_eq!(
            (head.text(0), head.byte(2), head.byte(3), head.byte(4)),
            (Some("ships"), Some(0), Some(1), Some(1))
        );
        assert_eq!((head.short(9), head.int(8), head.text(11)), (Some(0), None, Some("Ships")));
        let crs = head.table(10).unwrap();
        assert_eq!((crs.text(0), crs.int(1)), (Some("EPSG"), Some(3857)));
        let columns: Vec<_> =
            head.tables(7).iter().map(|c| (c.text(0).unwrap(), c.byte(1).unwrap(), c.byte(7))).collect();
        assert_eq!(columns, [("id", 11, Some(0)), ("crew", 5, None), ("mmsi", 7, Some(0))]);
    }

    #[test]
    fn values_stand_behind_their_columns() {
        let kinds = ships().properties.into_iter().map(|p| p.kind);
        let texts = ["Ä", "-3", "5000000000", "", "true", "2026-01-02T03:04:05.5Z", "1999-12-31", "AAE="];
        let values = kinds.zip(texts).map(|(kind, text): (PropertyType, _)| kind.parse(text).unwrap()).collect();
        let out = written(None, values, Crs::WGS84).unwrap();
        let feature = root(&mut &*out);
        assert!(feature.table(0).is_none());
        let mut want = b"\0\0\x0d\0\0\0ships.a_x3A_b\x01\0\x02\0\0\0\xc3\x84".to_vec();
        want.extend_from_slice(b"\x02\0\xfd\xff\xff\xff\x03\0\x00\xf2\x05\x2a\x01\0\0\0\x05\0\x01");
        want.extend_from_slice(
            b"\x06\0\x16\0\0\x002026-01-02T03:04:05.5Z\x07\0\x0a\0\0\x001999-12-31\x08\0\x02\0\0\0\0\x01",
        );
        assert_eq!(feature.bytes(1).unwrap(), want);
    }

    /// Kind, ends, x and y, z, m, and the parts likewise, as text.
    fn told(g: Read<'_>) -> String {
        let parts: Vec<String> = g.tables(7).into_iter().map(told).collect();
        format!(
            "{:?} {:?} {:?} {:?} {:?} {parts:?}",
            g.byte(6).unwrap(),
            g.ints(0),
            g.doubles(1),
            g.doubles(2),
            g.doubles(3)
        )
    }

    #[test]
    fn every_kind_of_geometry_has_its_form() {
        let coord = |n: u32| {
            let x = f64::from(n);
            Coord { x, y: x + 0.5, z: 10.0 * x, m: 100.0 * x }
        };
        let line = |w: &mut Writer, from: u32, n: u32| {
            w.begin(GeometryKind::LineString);
            w.count(n);
            (from..from + n).for_each(|i| w.coord(coord(i)));
        };
        let geometry = |write: &dyn Fn(&mut Writer)| {
            let mut w = Writer::new(Dimension::XYZM);
            write(&mut w);
            let out = written(Some(w.checked().unwrap()), Vec::new(), Crs::WGS84).unwrap();
            root(&mut &*out).table(0).map(told)
        };
        assert_eq!(geometry(&|w| line(w, 1, 2)).unwrap(), "2 [] [1.0, 1.5, 2.0, 2.5] [10.0, 20.0] [100.0, 200.0] []");
        let two_lines_of_three = geometry(&|w| {
            w.begin(GeometryKind::MultiLineString);
            w.count(3);
            line(w, 1, 2);
            line(w, 0, 0);
            line(w, 3, 2);
        });
        assert_eq!(
            two_lines_of_three.unwrap(),
            "5 [2, 4] [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5] [10.0, 20.0, 30.0, 40.0] [100.0, 200.0, 300.0, 400.0] []"
        );
        let in_a_collection = geometry(&|w| {
            w.begin(GeometryKind::GeometryCollection);
            w.count(2);
            w.begin(GeometryKind::Point);
            w.coord(coord(1));
            w.begin(GeometryKind::MultiPoint);
            w.count(0);
        });
        assert_eq!(in_a_collection.unwrap(), "7 [] [] [] [] [\"1 [] [1.0, 1.5] [10.0] [100.0] []\"]");
        assert_eq!(geometry(&|w| line(w, 0, 0)), None);
    }

    #[test]
    fn what_has_no_place_in_the_crs_is_an_error() {
        let pole = Geometry::point(0.0, 90.0).ok();
        assert!(written(pole, Vec::new(), Crs::WEB_MERCATOR).is_err());
    }
}
