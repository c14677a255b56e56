//! Features as GML, of each version.

use super::version::GeometryNames;
use super::{APP, GmlVersion, Kept, gml_id};
use crate::format::placed::Shown;
use crate::format::{json, xml};
use crate::model::crs::CrsRef;
use crate::model::feature_type::GEOMETRY;
use crate::model::geometry::{Coord, Reader};
use crate::model::{Dimension, Feature, FeatureType, Geometry, GeometryError, GeometryKind, Value};

/// What of a feature is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub geometry: bool,
    /// Property ids, ascending.
    pub properties: Vec<usize>,
}

impl Selection {
    /// Everything.
    pub fn all(ft: &FeatureType) -> Selection {
        Selection { geometry: ft.geometry.is_some(), properties: (0..ft.properties.len()).collect() }
    }

    /// The named ones and those that the schema demands (WFS 2.0, 7.9.2.4.4: the answer must be valid).
    pub fn of(ft: &FeatureType, geometry: bool, named: &[usize]) -> Selection {
        let demanded = |slot: &usize| named.contains(slot) || !ft.properties[*slot].nullable;
        Selection { geometry, properties: (0..ft.properties.len()).filter(demanded).collect() }
    }
}

/// Writes features of one type; made once for an answer.
pub struct FeatureWriter {
    type_name: String,
    style: GeometryStyle,
    shown: Shown,
    geometry: bool,
    standard: Vec<Kept>,
    /// The type's own: property id, start tag, end tag.
    properties: Vec<(usize, String, String)>,
}

impl FeatureWriter {
    /// Features of `ft` in `gml` with coordinates in `crs`.
    pub fn new(ft: &FeatureType, gml: GmlVersion, crs: &CrsRef, selection: &Selection) -> FeatureWriter {
        let tags = |slot: &usize| {
            let name = &ft.properties[*slot].name;
            (*slot, format!("<{APP}:{name}>"), format!("</{APP}:{name}>"))
        };
        let standard: Vec<Kept> = Kept::of(ft, gml).collect();
        let own = |slot: &&usize| !standard.iter().any(|kept| kept.tells(**slot));
        FeatureWriter {
            type_name: ft.name.clone(),
            style: GeometryStyle::new(gml, crs),
            shown: Shown::new(ft, crs.crs),
            geometry: selection.geometry && ft.geometry.is_some(),
            properties: selection.properties.iter().filter(own).map(tags).collect(),
            standard: standard.into_iter().filter(|kept| selection.properties.contains(&kept.slot)).collect(),
        }
    }

    /// One feature element. `root_attributes` goes into its start tag as it is: the namespaces, where the feature is the
    /// whole document, else nothing. Nulls and geometries that GML cannot say (`POINT EMPTY`) are left out.
    /// An error means that the geometry has no place in the CRS; nothing is appended then.
    pub fn write(&self, out: &mut Vec<u8>, feature: &Feature, root_attributes: &str) -> Result<(), GeometryError> {
        let begin = out.len();
        let id = gml_id(&self.type_name, &feature.id);
        let id_attribute = self.style.gml.id_attribute();
        for part in ["<", APP, ":", &self.type_name, root_attributes, " ", id_attribute, "=\"", &id, "\">"] {
            out.extend_from_slice(part.as_bytes());
        }
        self.standard.iter().for_each(|kept| write_standard(out, kept, feature));
        if self.geometry && feature.geometry.is_some() {
            let start = out.len();
            for part in ["<", APP, ":", GEOMETRY, ">"] {
                out.extend_from_slice(part.as_bytes());
            }
            let written = self.geometry_of(out, feature, &id).inspect_err(|_| out.truncate(begin))?;
            if written {
                for part in ["</", APP, ":", GEOMETRY, ">"] {
                    out.extend_from_slice(part.as_bytes());
                }
            } else {
                out.truncate(start);
            }
        }
        for (slot, open, close) in &self.properties {
            let value = feature.value(*slot);
            if !value.is_null() {
                out.extend_from_slice(open.as_bytes());
                write_value(out, value);
                out.extend_from_slice(close.as_bytes());
            }
        }
        for part in ["</", APP, ":", &self.type_name, ">"] {
            out.extend_from_slice(part.as_bytes());
        }
        Ok(())
    }

    /// The geometry element alone; false, and nothing written, when there is none that GML can say.
    pub fn geometry(&self, out: &mut Vec<u8>, feature: &Feature) -> Result<bool, GeometryError> {
        self.geometry_of(out, feature, &gml_id(&self.type_name, &feature.id))
    }

    /// `id` is the feature's `gml:id`.
    fn geometry_of(&self, out: &mut Vec<u8>, feature: &Feature, id: &str) -> Result<bool, GeometryError> {
        let Some(geometry) = &feature.geometry else { return Ok(false) };
        Ok(write_geometry(out, &*self.shown.geometry(geometry)?, id, &self.style))
    }
}

fn write_standard(out: &mut Vec<u8>, kept: &Kept, feature: &Feature) {
    let value = feature.value(kept.slot);
    if value.is_null() {
        return;
    }
    let name = kept.what.element();
    out.extend_from_slice(format!("<gml:{name}").as_bytes());
    if let Some(uri) = kept.code_space_in(feature) {
        out.extend_from_slice(b" codeSpace=\"");
        xml::attribute(out, uri);
        out.push(b'"');
    }
    out.push(b'>');
    write_value(out, value);
    out.extend_from_slice(format!("</gml:{name}>").as_bytes());
}

/// A simple property's text, in XSD's lexical form.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Int(n) => out.extend_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
        Value::Number(n) => write_number(out, *n),
        Value::String(s) | Value::Json(s) => xml::text(out, s),
        Value::Date(days) => json::date(out, *days),
        Value::DateTime(micros) => json::instant(out, *micros),
        Value::Uuid(bytes) => {
            let mut buffer = uuid::Uuid::encode_buffer();
            out.extend_from_slice(uuid::Uuid::from_bytes(*bytes).as_hyphenated().encode_lower(&mut buffer).as_bytes());
        }
        Value::Bytes(bytes) => {
            use base64::Engine;
            out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes());
        }
    }
}

/// The shortest decimal that reads back as `n`, without an exponent, which some clients do not know.
pub fn write_number(out: &mut Vec<u8>, n: f64) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(n);
    if text.contains('e') {
        // The standard library never writes one.
        out.extend_from_slice(format!("{n}").as_bytes());
    } else {
        out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    }
}

/// How geometries are written: in which GML, and with which coordinates.
pub struct GeometryStyle {
    gml: GmlVersion,
    names: &'static GeometryNames,
    /// Escaped.
    srs_name: String,
    swap: bool,
}

impl GeometryStyle {
    pub fn new(gml: GmlVersion, crs: &CrsRef) -> GeometryStyle {
        let mut srs_name = Vec::new();
        xml::attribute(&mut srs_name, &crs.spelling);
        let srs_name = String::from_utf8_lossy(&srs_name).into_owned();
        GeometryStyle { gml, names: gml.geometry_names(), srs_name, swap: crs.swap }
    }
}

/// A geometry element with its coordinates as they are, in the order of the style's CRS. Its ids, where the version has them,
/// are made of `id`, the feature's, so that none of them is another's. M is left out. False, and nothing written, when GML
/// cannot say it: an empty point, line or polygon, and in GML 2 an empty collection.
pub fn write_geometry(out: &mut Vec<u8>, geometry: &Geometry, id: &str, style: &GeometryStyle) -> bool {
    let z = geometry.dimension().has_z();
    let mut writer = GeometryWriter { out, id, style, names: style.names, z, parts: 0 };
    writer.element(&mut geometry.reader())
}

struct GeometryWriter<'a> {
    out: &'a mut Vec<u8>,
    id: &'a str,
    style: &'a GeometryStyle,
    names: &'static GeometryNames,
    z: bool,
    /// Elements begun.
    parts: u32,
}

impl GeometryWriter<'_> {
    fn raw(&mut self, s: &str) {
        self.out.extend_from_slice(s.as_bytes());
    }

    /// A start tag. The outermost bears the CRS, and so does each collection in GML 2, whose schema demands it.
    fn open(&mut self, name: &str) {
        self.raw("<gml:");
        self.raw(name);
        if self.style.gml == GmlVersion::V3_2 {
            self.gml_id();
        }
        let gml_2 = self.style.gml == GmlVersion::V2;
        if self.parts == 0 || gml_2 && name.starts_with("Multi") {
            self.raw(" srsName=\"");
            self.raw(&self.style.srs_name);
            self.raw(match (gml_2, self.z) {
                (true, _) => "\"",
                (false, true) => "\" srsDimension=\"3\"",
                (false, false) => "\" srsDimension=\"2\"",
            });
        }
        self.raw(">");
        self.parts += 1;
    }

    /// A feature's own id begins with its type, whose letters are small: so no `G.{id}` or `G{n}.{id}` is ever the id of a
    /// feature, or of a part of another one's geometry.
    fn gml_id(&mut self) {
        self.raw(" gml:id=\"G");
        if self.parts > 0 {
            self.out.extend_from_slice(itoa::Buffer::new().format(self.parts).as_bytes());
        }
        self.raw(".");
        self.raw(self.id);
        self.raw("\"");
    }

    /// A start tag without attributes.
    fn tag(&mut self, name: &str) {
        self.raw("<gml:");
        self.raw(name);
        self.raw(">");
    }

    fn close(&mut self, name: &str) {
        self.raw("</gml:");
        self.raw(name);
        self.raw(">");
    }

    fn coord(&mut self, c: Coord) {
        let (first, second) = if self.style.swap { (c.y, c.x) } else { (c.x, c.y) };
        write_number(self.out, first);
        self.out.push(self.names.separator);
        write_number(self.out, second);
        if self.z {
            self.out.push(self.names.separator);
            write_number(self.out, c.z);
        }
    }

    fn positions(&mut self, r: &mut Reader<'_>, n: u32, dimension: Dimension) {
        self.tag(self.names.positions);
        for i in 0..n {
            if i > 0 {
                self.out.push(b' ');
            }
            self.coord(r.coord(dimension));
        }
        self.close(self.names.positions);
    }

    fn element(&mut self, r: &mut Reader<'_>) -> bool {
        let (kind, dimension) = r.header();
        match kind {
            GeometryKind::Point => {
                let c = r.coord(dimension);
                if c.x.is_nan() {
                    return false;
                }
                self.open("Point");
                self.tag(self.names.position);
                self.coord(c);
                self.close(self.names.position);
                self.close("Point");
                true
            }
            GeometryKind::LineString => {
                let n = r.count();
                if n == 0 {
                    return false;
                }
                self.open("LineString");
                self.positions(r, n, dimension);
                self.close("LineString");
                true
            }
            GeometryKind::Polygon => self.polygon(r, dimension),
            GeometryKind::MultiPoint => self.members(r, "MultiPoint", "pointMember"),
            GeometryKind::MultiLineString => self.members(r, self.names.multi_line, self.names.line_member),
            GeometryKind::MultiPolygon => self.members(r, self.names.multi_polygon, self.names.polygon_member),
            GeometryKind::GeometryCollection | GeometryKind::Geometry => {
                self.members(r, "MultiGeometry", "geometryMember")
            }
        }
    }

    fn polygon(&mut self, r: &mut Reader<'_>, dimension: Dimension) -> bool {
        let rings = r.count();
        let mut begun = false;
        for i in 0..rings {
            let n = r.count();
            if n == 0 {
                continue;
            }
            if !begun {
                self.open("Polygon");
                begun = true;
            }
            let name = if i == 0 { self.names.outer_ring } else { self.names.inner_ring };
            self.tag(name);
            self.tag("LinearRing");
            self.positions(r, n, dimension);
            self.close("LinearRing");
            self.close(name);
        }
        if begun {
            self.close("Polygon");
        }
        begun
    }

    fn members(&mut self, r: &mut Reader<'_>, name: &str, member: &str) -> bool {
        let begin = self.out.len();
        self.open(name);
        let mut any = self.style.gml != GmlVersion::V2;
        for _ in 0..r.count() {
            let start = self.out.len();
            self.tag(member);
            if self.element(r) {
                self.close(member);
                any = true;
            } else {
                self.out.truncate(start);
            }
        }
        match any {
            true => self.close(name),
            false => self.out.truncate(begin),
        }
        any
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::PropertyType;
    use crate::model::crs::Crs;
    use crate::model::feature_type::{GeometryColumn, Property};
    use crate::model::geometry::Writer;

    pub fn ships() -> FeatureType {
        let property =
            |name: &str, kind, nullable| Property { name: name.into(), kind, nullable, index: false, title: None };
        let mut ft: FeatureType = serde_json::from_value(serde_json::json!({"name": "ships"})).unwrap();
        ft.geometry =
            Some(GeometryColumn { kind: GeometryKind::Point, epsg: 4326, dimension: Dimension::XY, nullable: true });
        ft.properties = vec![
            property("name", PropertyType::String, true),
            property("speed", PropertyType::Number, true),
            property("seen", PropertyType::DateTime, false),
            property("afloat", PropertyType::Boolean, true),
            property("crew", PropertyType::Int32, true),
        ];
        ft
    }

    pub fn urn_4326() -> CrsRef {
        CrsRef { crs: Crs::WGS84, spelling: "urn:ogc:def:crs:EPSG::4326".into(), swap: true }
    }

    fn text_in(gml: GmlVersion, g: &Geometry, swap: bool) -> Option<String> {
        let style = GeometryStyle::new(gml, &CrsRef { spelling: "S".into(), swap, ..urn_4326() });
        let mut out = Vec::new();
        write_geometry(&mut out, g, "t.1", &style).then(|| String::from_utf8(out).unwrap())
    }

    fn geometry_text(g: &Geometry, swap: bool) -> Option<String> {
        text_in(GmlVersion::V3_2, g, swap)
    }

    fn multi(kind: GeometryKind, dimension: Dimension, parts: &[Geometry]) -> Geometry {
        let mut bytes = vec![1];
        let iso = kind as u32 + if dimension.has_z() { 1000 } else { 0 };
        bytes.extend_from_slice(&iso.to_le_bytes());
        bytes.extend_from_slice(&(parts.len() as u32).to_le_bytes());
        parts.iter().for_each(|p| bytes.extend_from_slice(p.wkb()));
        Geometry::from_wkb(&bytes).unwrap()
    }

    fn ring(dimension: Dimension) -> Geometry {
        let mut w = Writer::new(dimension);
        w.begin(GeometryKind::Polygon);
        w.count(1);
        w.count(4);
        for (x, y) in [(0.0, 1.0), (2.0, 1.0), (2.0, 3.0), (0.0, 1.0)] {
            w.coord(Coord { x, y, z: 5.0, m: 6.0 });
        }
        w.checked().unwrap()
    }

    #[test]
    fn numbers_are_short_exact_and_without_exponent() {
        for (n, text) in [
            (1.0, "1"),
            (-0.1, "-0.1"),
            (1e-7, "0.0000001"),
            (1e21, "1000000000000000000000"),
            (0.1 + 0.2, "0.30000000000000004"),
            (123456.789, "123456.789"),
            (0.0, "0"),
        ] {
            let mut out = Vec::new();
            write_number(&mut out, n);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn a_feature_is_written_in_schema_order_without_nulls() {
        let ft = ships();
        let feature = Feature {
            id: "a b".into(),
            geometry: Geometry::point(24.5, 60.0).ok(),
            properties: vec![
                Value::String("R&D <x>\u{1}".into()),
                Value::Null,
                Value::DateTime(1_500_000),
                Value::Bool(true),
            ],
        };
        let written = |selection: &Selection| {
            let mut out = Vec::new();
            FeatureWriter::new(&ft, GmlVersion::V3_2, &urn_4326(), selection).write(&mut out, &feature, "").unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(&Selection::all(&ft)),
            "<app:ships gml:id=\"ships.a_x20_b\"><app:geom><gml:Point gml:id=\"G.ships.a_x20_b\" \
             srsName=\"urn:ogc:def:crs:EPSG::4326\" srsDimension=\"2\"><gml:pos>60 24.5</gml:pos></gml:Point></app:geom>\
             <app:name>R&amp;D &lt;x&gt;</app:name><app:seen>1970-01-01T00:00:01.5Z</app:seen>\
             <app:afloat>true</app:afloat></app:ships>"
        );
        assert_eq!(
            written(&Selection::of(&ft, false, &[3])),
            "<app:ships gml:id=\"ships.a_x20_b\"><app:seen>1970-01-01T00:00:01.5Z</app:seen>\
             <app:afloat>true</app:afloat></app:ships>"
        );
    }

    #[test]
    fn z_is_kept_m_is_dropped_and_every_element_has_its_own_id() {
        let g = multi(GeometryKind::MultiPolygon, Dimension::XYZ, &[ring(Dimension::XYZ), ring(Dimension::XYZ)]);
        let text = geometry_text(&g, false).unwrap();
        assert!(
            text.starts_with("<gml:MultiSurface gml:id=\"G.t.1\" srsName=\"S\" srsDimension=\"3\"><gml:surfaceMember>")
        );
        assert!(text.contains("<gml:Polygon gml:id=\"G1.t.1\"><gml:exterior><gml:LinearRing><gml:posList>0 1 5 2 1 5 2 3 5 0 1 5</gml:posList>"));
        assert!(text.contains("gml:id=\"G2.t.1\""));
        let text = geometry_text(&ring(Dimension::XYZM), true).unwrap();
        assert!(
            text.contains("srsDimension=\"3\"") && text.contains("<gml:posList>1 0 5 1 2 5 3 2 5 1 0 5<"),
            "{text}"
        );
        assert!(geometry_text(&ring(Dimension::XYM), true).unwrap().contains("<gml:posList>1 0 1 2 3 2 1 0<"));
    }

    #[test]
    fn empty_geometries_are_left_out_or_empty() {
        let empty_line = Geometry::from_wkb(&[1, 2, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(geometry_text(&empty_line, false), None);
        let nothing = multi(GeometryKind::MultiPoint, Dimension::XY, &[]);
        assert!(geometry_text(&nothing, false).unwrap().ends_with("></gml:MultiPoint>"));
        let some =
            multi(GeometryKind::GeometryCollection, Dimension::XY, &[empty_line, Geometry::point(1.0, 2.0).unwrap()]);
        assert_eq!(geometry_text(&some, false).unwrap().matches("geometryMember>").count(), 2);
    }

    #[test]
    fn older_versions_have_no_ids_and_their_own_names() {
        let point = Geometry::point(24.5, 60.0).unwrap();
        let text = |gml, g: &Geometry| text_in(gml, g, true).unwrap();
        let expected = "<gml:Point srsName=\"S\" srsDimension=\"2\"><gml:pos>60 24.5</gml:pos></gml:Point>";
        assert_eq!(text(GmlVersion::V3_1, &point), expected);
        let expected = "<gml:Point srsName=\"S\"><gml:coordinates>60,24.5</gml:coordinates></gml:Point>";
        assert_eq!(text(GmlVersion::V2, &point), expected);
        let polygons = multi(GeometryKind::MultiPolygon, Dimension::XYZ, &[ring(Dimension::XYZ)]);
        let polygon = "<gml:outerBoundaryIs><gml:LinearRing><gml:coordinates>1,0,5 1,2,5 3,2,5 1,0,5</gml:coordinates></gml:LinearRing>\
                       </gml:outerBoundaryIs>";
        let expected = format!(
            "<gml:MultiPolygon srsName=\"S\"><gml:polygonMember><gml:Polygon>{polygon}</gml:Polygon></gml:polygonMember></gml:MultiPolygon>"
        );
        assert_eq!(text(GmlVersion::V2, &polygons), expected);
        let nested = multi(GeometryKind::GeometryCollection, Dimension::XYZ, &[polygons]);
        let expected = format!(
            "<gml:MultiGeometry srsName=\"S\"><gml:geometryMember>{expected}</gml:geometryMember></gml:MultiGeometry>"
        );
        assert_eq!(text(GmlVersion::V2, &nested), expected);
        let nothing = multi(GeometryKind::MultiPoint, Dimension::XY, &[]);
        assert_eq!(text_in(GmlVersion::V2, &nothing, false), None);
        assert!(text(GmlVersion::V3_1, &nothing).ends_with("></gml:MultiPoint>"));

        let feature = Feature { id: "1".into(), geometry: None, properties: Vec::new() };
        let ft = ships();
        let mut out = Vec::new();
        let writer = FeatureWriter::new(&ft, GmlVersion::V2, &urn_4326(), &Selection::of(&ft, true, &[]));
        writer.write(&mut out, &feature, "").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "<app:ships fid=\"ships.1\"></app:ships>");
    }
}
