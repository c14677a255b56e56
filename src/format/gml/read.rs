//! Geometries read from GML 3.2, 3.1 and 2, by local name: clients mix the namespaces of the versions.

use super::arc::{arc, circle};
use crate::format::xml::Element;
use crate::model::crs::{Crs, CrsRef, Transform};
use crate::model::geometry::{Coord, Writer};
use crate::model::{Dimension, Geometry, GeometryKind, Rect};

/// What is wrong with a piece of GML. The message says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct GmlError {
    pub line: u32,
    /// The element or property at fault.
    pub locator: String,
    pub what: String,
}

pub(super) fn error(at: &Element, what: impl std::fmt::Display) -> GmlError {
    GmlError { line: at.line, locator: at.local.to_string(), what: format!("{}: {what}", at.local) }
}

/// How the coordinates of a request are meant, and where they go.
#[derive(Clone, Debug)]
pub struct Axes {
    /// Of geometries without `srsName`.
    pub default: CrsRef,
    /// x,y whatever the spelling: the rule of WFS 1.0.0.
    pub always_xy: bool,
    /// The CRS of the geometries that come out (in x,y).
    pub target: Crs,
}

impl Axes {
    /// A spelling in a request with these rules.
    pub fn parse(&self, spelling: &str) -> Result<CrsRef, String> {
        let crs = CrsRef::parse(spelling).map_err(|e| e.to_string())?;
        Ok(if self.always_xy { crs.in_xy_order() } else { crs })
    }
}

/// Reads a geometry element into the target CRS, x,y. Arcs become lines ([`arc`](super::arc)); other curves that are not straight
/// are refused by name.
pub fn read_geometry(element: &Element, axes: &Axes) -> Result<Geometry, GmlError> {
    let mut reader = GeometryReader { axes, z: false };
    let shape = reader.shape(element, &Level::new(axes))?;
    let mut writer = Writer::new(Dimension::new(reader.z, false));
    write(&mut writer, &shape);
    writer.checked().map_err(|e| error(element, e))
}

/// Reads `gml:Envelope` or `gml:Box` into the target CRS. Ordinates beyond the second are left out.
pub fn read_envelope(element: &Element, axes: &Axes) -> Result<Rect, GmlError> {
    let mut reader = GeometryReader { axes, z: false };
    let level = Level::new(axes).enter(element, axes)?;
    // The corners are transformed together: the envelope of a transformed box is more than its corners.
    let transform = level.transform;
    let (a, b) = reader.corners(element, &Level { transform: None, ..level })?;
    if a.x > b.x || a.y > b.y {
        return Err(error(element, "the lower corner is beyond the upper one"));
    }
    let rect = Rect { min_x: a.x, min_y: a.y, max_x: b.x, max_y: b.y };
    transform.map_or(Ok(rect), |t| t.rect(rect)).map_err(|e| error(element, e))
}

/// True of the elements that [`read_geometry`] takes.
pub fn is_geometry(local: &str) -> bool {
    matches!(
        local,
        "Point"
            | "LineString"
            | "LinearRing"
            | "Polygon"
            | "Curve"
            | "CompositeCurve"
            | "Surface"
            | "CompositeSurface"
            | "PolyhedralSurface"
            | "TriangulatedSurface"
            | "Tin"
            | "MultiPoint"
            | "MultiLineString"
            | "MultiCurve"
            | "MultiPolygon"
            | "MultiSurface"
            | "MultiGeometry"
            | "GeometryCollection"
            | "Envelope"
            | "Box"
    )
}

enum Shape {
    Point(Option<Coord>),
    Line(Vec<Coord>),
    Polygon(Vec<Vec<Coord>>),
    Multi(GeometryKind, Vec<Shape>),
}

impl Shape {
    fn kind(&self) -> GeometryKind {
        match self {
            Shape::Point(_) => GeometryKind::Point,
            Shape::Line(_) => GeometryKind::LineString,
            Shape::Polygon(_) => GeometryKind::Polygon,
            Shape::Multi(kind, _) => *kind,
        }
    }
}

fn write(w: &mut Writer, shape: &Shape) {
    fn line(w: &mut Writer, coords: &[Coord]) {
        w.count(coords.len() as u32);
        coords.iter().for_each(|c| w.coord(*c));
    }
    w.begin(shape.kind());
    match shape {
        Shape::Point(Some(c)) => w.coord(*c),
        Shape::Point(None) => w.coord(Coord { x: f64::NAN, y: f64::NAN, z: f64::NAN, m: f64::NAN }),
        Shape::Line(coords) => line(w, coords),
        Shape::Polygon(rings) => {
            w.count(rings.len() as u32);
            rings.iter().for_each(|r| line(w, r));
        }
        Shape::Multi(_, parts) => {
            w.count(parts.len() as u32);
            parts.iter().for_each(|p| write(w, p));
        }
    }
}

/// What `srsName` and `srsDimension` of an element and of those around it say.
#[derive(Clone)]
struct Level {
    swap: bool,
    transform: Option<Transform>,
    dimension: Option<usize>,
}

impl Level {
    fn new(axes: &Axes) -> Level {
        Level::of(&axes.default, axes, None)
    }

    fn of(crs: &CrsRef, axes: &Axes, dimension: Option<usize>) -> Level {
        let swap = crs.swap && !axes.always_xy;
        Level { swap, transform: Transform::between(crs.crs, axes.target), dimension }
    }

    fn enter(&self, element: &Element, axes: &Axes) -> Result<Level, GmlError> {
        let mut level = match element.attribute("srsName").filter(|s| !s.trim().is_empty()) {
            Some(name) => {
                let crs = axes.parse(name).map_err(|e| error(element, format!("srsName: {e}")))?;
                Level::of(&crs, axes, self.dimension)
            }
            None => self.clone(),
        };
        if let Some(text) = element.attribute("srsDimension").or(element.attribute("dimension")) {
            let dimension = text.trim().parse().ok().filter(|n| matches!(n, 2 | 3));
            level.dimension =
                Some(dimension.ok_or_else(|| error(element, format!("srsDimension '{text}' is not 2 or 3")))?);
        }
        Ok(level)
    }
}

struct GeometryReader<'a> {
    axes: &'a Axes,
    /// Some vertex has a height.
    z: bool,
}

impl GeometryReader<'_> {
    fn shape(&mut self, e: &Element, outer: &Level) -> Result<Shape, GmlError> {
        let level = &outer.enter(e, self.axes)?;
        match &*e.local {
            "Point" => {
                let coords = self.coords(e, level)?;
                match coords.len() {
                    0 | 1 => Ok(Shape::Point(coords.first().copied())),
                    n => Err(error(e, format!("a point has one position, not {n}"))),
                }
            }
            "LineString" | "LinearRing" => Ok(Shape::Line(self.coords(e, level)?)),
            "Curve" | "CompositeCurve" => Ok(Shape::Line(self.curve(e, level)?)),
            "Polygon" => Ok(Shape::Polygon(self.rings(e, level)?)),
            "Surface" | "CompositeSurface" | "PolyhedralSurface" | "TriangulatedSurface" | "Tin" => {
                self.surface(e, level)
            }
            "MultiPoint" => self.multi(e, level, GeometryKind::MultiPoint),
            "MultiLineString" | "MultiCurve" => self.multi(e, level, GeometryKind::MultiLineString),
            "MultiPolygon" | "MultiSurface" => self.multi(e, level, GeometryKind::MultiPolygon),
            "MultiGeometry" | "GeometryCollection" => self.multi(e, level, GeometryKind::GeometryCollection),
            "Envelope" | "Box" => {
                let (a, b) = self.corners(e, level)?;
                let at = |x, y| Coord { x, y, ..a };
                Ok(Shape::Polygon(vec![vec![a, at(b.x, a.y), at(b.x, b.y), at(a.x, b.y), a]]))
            }
            _ => Err(error(e, "this kind of geometry is not supported yet")),
        }
    }

    fn multi(&mut self, e: &Element, level: &Level, kind: GeometryKind) -> Result<Shape, GmlError> {
        let mut parts = Vec::new();
        for member in &e.children {
            // pointMember, pointMembers, lineStringMember, ...
            if !(member.local.ends_with("ember") || member.local.ends_with("embers")) {
                continue;
            }
            let level = level.enter(member, self.axes)?;
            for child in &member.children {
                match self.shape(child, &level)? {
                    Shape::Multi(inner, more) if inner == kind && kind != GeometryKind::GeometryCollection => {
                        parts.extend(more);
                    }
                    part if kind == GeometryKind::GeometryCollection || part.kind().multi() == Some(kind) => {
                        parts.push(part);
                    }
                    part => return Err(error(child, format!("a {} cannot be in a {}", part.kind().name(), e.local))),
                }
            }
        }
        Ok(Shape::Multi(kind, parts))
    }

    /// The rings of a polygon or of a patch, the outer one first.
    fn rings(&mut self, e: &Element, level: &Level) -> Result<Vec<Vec<Coord>>, GmlError> {
        let (mut outer, mut inner) = (None, Vec::new());
        for boundary in &e.children {
            let is_outer = match &*boundary.local {
                "exterior" | "outerBoundaryIs" => true,
                "interior" | "innerBoundaryIs" => false,
                _ => continue,
            };
            for ring in &boundary.children {
                let coords = match &*ring.local {
                    "LinearRing" => self.coords(ring, &level.enter(ring, self.axes)?)?,
                    "Ring" => self.curve(ring, &level.enter(ring, self.axes)?)?,
                    _ => return Err(error(ring, "a LinearRing or Ring is expected here")),
                };
                match is_outer {
                    true if outer.is_some() => return Err(error(boundary, "a polygon has one outer ring")),
                    true => outer = Some(coords),
                    false => inner.push(coords),
                }
            }
        }
        match outer {
            None if inner.is_empty() => Ok(Vec::new()),
            None => Err(error(e, "holes without an outer ring")),
            Some(outer) => Ok(std::iter::once(outer).chain(inner).collect()),
        }
    }

    fn surface(&mut self, e: &Element, level: &Level) -> Result<Shape, GmlError> {
        let mut parts = Vec::new();
        for group in &e.children {
            match &*group.local {
                "patches" | "polygonPatches" | "trianglePatches" => {
                    for patch in &group.children {
                        if !matches!(&*patch.local, "PolygonPatch" | "Rectangle" | "Triangle") {
                            return Err(error(patch, "this kind of surface patch is not supported yet"));
                        }
                        parts.push(Shape::Polygon(self.rings(patch, &level.enter(patch, self.axes)?)?));
                    }
                }
                "surfaceMember" | "surfaceMembers" => {
                    for child in &group.children {
                        match self.shape(child, level)? {
                            Shape::Multi(GeometryKind::MultiPolygon, more) => parts.extend(more),
                            polygon @ Shape::Polygon(_) => parts.push(polygon),
                            _ => return Err(error(child, "a surface is expected here")),
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(match parts.len() {
            1 => parts.swap_remove(0),
            _ => Shape::Multi(GeometryKind::MultiPolygon, parts),
        })
    }

    /// The vertices of a curve (or ring) made of segments or of other curves, end to end.
    fn curve(&mut self, e: &Element, level: &Level) -> Result<Vec<Coord>, GmlError> {
        let mut line: Vec<Coord> = Vec::new();
        let mut join = |more: Vec<Coord>| {
            let skip = usize::from(!line.is_empty() && line.last() == more.first());
            line.extend_from_slice(&more[skip..]);
        };
        for group in &e.children {
            for part in &group.children {
                match (&*group.local, &*part.local) {
                    ("segments", "LineStringSegment") => join(self.coords(part, &level.enter(part, self.axes)?)?),
                    ("segments", "Arc" | "ArcString" | "Circle") => join(self.arcs(part, level)?),
                    ("segments", _) => return Err(error(part, "this kind of curve segment is not supported yet")),
                    ("curveMember" | "curveMembers", _) => match self.shape(part, level)? {
                        Shape::Line(coords) => join(coords),
                        _ => return Err(error(part, "a curve is expected here")),
                    },
                    _ => {}
                }
            }
        }
        Ok(line)
    }

    /// An `Arc` or a `Circle` of three points, or an `ArcString` of two more for each further arc.
    fn arcs(&mut self, e: &Element, level: &Level) -> Result<Vec<Coord>, GmlError> {
        let level = level.enter(e, self.axes)?;
        if level.transform.is_some() {
            return Err(error(e, "arcs are only read in the CRS of the feature type: in another they are none"));
        }
        let points = self.coords(e, &level)?;
        let whole = points.len() >= 3 && points.len() % 2 == 1 && (&*e.local == "ArcString" || points.len() == 3);
        if !whole {
            return Err(error(e, format!("{} points do not make arcs of three each", points.len())));
        }
        if &*e.local == "Circle" {
            let circle = circle(points[0], points[1], points[2]);
            return circle.ok_or_else(|| error(e, "three different points make a circle, which are not on one line"));
        }
        let mut line = vec![points[0]];
        for from in (0..points.len() - 2).step_by(2) {
            arc(points[from], points[from + 1], points[from + 2], &mut line);
        }
        Ok(line)
    }

    fn corners(&mut self, e: &Element, level: &Level) -> Result<(Coord, Coord), GmlError> {
        let mut coords = Vec::new();
        for name in ["lowerCorner", "upperCorner"] {
            if let Some(corner) = e.child(name) {
                coords.push(self.position(corner, level)?);
            }
        }
        if coords.is_empty() {
            coords = self.coords(e, level)?;
        }
        match coords[..] {
            [a, b] => Ok((a, b)),
            _ => Err(error(e, "a lower and an upper corner are expected")),
        }
    }

    /// The vertices right under an element, in whichever of GML's ways.
    fn coords(&mut self, e: &Element, level: &Level) -> Result<Vec<Coord>, GmlError> {
        let mut coords = Vec::new();
        for child in &e.children {
            match &*child.local {
                "pos" if child.trimmed().is_empty() => {}
                "pos" => coords.push(self.position(child, level)?),
                "posList" => self.pos_list(child, level, &mut coords)?,
                "coordinates" => self.coordinates(child, level, &mut coords)?,
                "coord" => {
                    let ordinates: Result<Vec<f64>, GmlError> =
                        ["X", "Y", "Z"].iter().filter_map(|n| child.child(n)).map(|o| number(o, o.trimmed())).collect();
                    coords.push(self.coord(child, level, &ordinates?)?);
                }
                "pointProperty" | "pointRep" => {
                    for point in &child.children {
                        let level = level.enter(point, self.axes)?;
                        coords.extend(self.coords(point, &level)?);
                    }
                }
                _ => {}
            }
        }
        Ok(coords)
    }

    fn position(&mut self, e: &Element, level: &Level) -> Result<Coord, GmlError> {
        let ordinates: Result<Vec<f64>, GmlError> = e.text.split_ascii_whitespace().map(|t| number(e, t)).collect();
        self.coord(e, &level.enter(e, self.axes)?, &ordinates?)
    }

    fn pos_list(&mut self, e: &Element, level: &Level, coords: &mut Vec<Coord>) -> Result<(), GmlError> {
        let level = level.enter(e, self.axes)?;
        let ordinates: Result<Vec<f64>, GmlError> = e.text.split_ascii_whitespace().map(|t| number(e, t)).collect();
        let ordinates = ordinates?;
        let dimension = level.dimension.unwrap_or(2);
        if !ordinates.len().is_multiple_of(dimension) {
            let n = ordinates.len();
            return Err(error(
                e,
                format!("{n} numbers do not make positions of {dimension} (is srsDimension missing?)"),
            ));
        }
        coords.reserve(ordinates.len() / dimension);
        for position in ordinates.chunks_exact(dimension) {
            coords.push(self.coord(e, &level, position)?);
        }
        Ok(())
    }

    /// GML 2's list of tuples, with separators of its own.
    fn coordinates(&mut self, e: &Element, level: &Level, coords: &mut Vec<Coord>) -> Result<(), GmlError> {
        let separator = |name: &str, default: char| match e.attribute(name).map(|s| s.chars().collect::<Vec<_>>()) {
            None => Ok(default),
            Some(one) if one.len() == 1 => Ok(one[0]),
            Some(_) => Err(error(e, format!("{name} is one character"))),
        };
        let (decimal, cs, ts) = (separator("decimal", '.')?, separator("cs", ',')?, separator("ts", ' ')?);
        let tuples = e.text.split(|c: char| if ts.is_whitespace() { c.is_whitespace() } else { c == ts });
        for tuple in tuples.map(str::trim).filter(|t| !t.is_empty()) {
            let ordinates: Result<Vec<f64>, GmlError> = tuple
                .split(|c: char| if cs.is_whitespace() { c.is_whitespace() } else { c == cs })
                .map(|t| if decimal == '.' { number(e, t) } else { number(e, &t.replace(decimal, ".")) })
                .collect();
            coords.push(self.coord(e, level, &ordinates?)?);
        }
        Ok(())
    }

    /// A vertex, brought into x,y of the target.
    fn coord(&mut self, e: &Element, level: &Level, ordinates: &[f64]) -> Result<Coord, GmlError> {
        let (first, second, z) = match *ordinates {
            [first, second] => (first, second, 0.0),
            [first, second, z] => {
                self.z = true;
                (first, second, z)
            }
            _ => return Err(error(e, format!("a position has 2 or 3 numbers, not {}", ordinates.len()))),
        };
        let (x, y) = if level.swap { (second, first) } else { (first, second) };
        let (x, y) = match &level.transform {
            None => (x, y),
            Some(t) => t.point(x, y).map_err(|err| error(e, err))?,
        };
        Ok(Coord { x, y, z, m: 0.0 })
    }
}

fn number(e: &Element, text: &str) -> Result<f64, GmlError> {
    let n = text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    n.ok_or_else(|| error(e, format!("'{text}' is not a finite number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::gml::write::tests::urn_4326;
    use crate::format::gml::{GeometryStyle, GmlVersion, write_geometry};
    use crate::format::xml;

    fn axes(always_xy: bool) -> Axes {
        Axes { default: urn_4326(), always_xy, target: Crs::WGS84 }
    }

    fn read_with(s: &str, axes: &Axes) -> Result<String, GmlError> {
        let element = xml::parse(s.as_bytes(), Default::default()).unwrap();
        read_geometry(&element, axes).map(|g| wkt(&g))
    }

    fn read(s: &str) -> Result<String, GmlError> {
        read_with(s, &axes(false))
    }

    /// Enough of WKT to compare.
    fn wkt(g: &Geometry) -> String {
        let mut coords = Vec::new();
        g.reader().each_coord(&mut |c| {
            coords.push(if g.dimension().has_z() {
                format!("{} {} {}", c.x, c.y, c.z)
            } else {
                format!("{} {}", c.x, c.y)
            });
        });
        format!("{} {}", g.kind().name(), coords.join(","))
    }

    #[test]
    fn every_spelling_of_a_position_is_read() {
        for s in [
            "<Point><pos>60 24</pos></Point>",
            "<Point srsName='EPSG:4326'><pos>24 60</pos></Point>",
            "<Point srsName='urn:ogc:def:crs:EPSG::4326'><pos>60 24</pos></Point>",
            "<Point><pos srsName='EPSG:4326'>24 60</pos></Point>",
            "<Point><coordinates>60,24</coordinates></Point>",
            "<Point><coordinates decimal=',' cs=' ' ts=';'>60,0 2,4e1</coordinates></Point>",
            "<Point><coord><X>60</X><Y>24</Y></coord></Point>",
            "<Point srsName='http://www.opengis.net/gml/srs/epsg.xml#4326'><coordinates cs=',' ts=' '>24,60</coordinates></Point>",
        ] {
            assert_eq!(read(s).unwrap(), "Point 24 60", "{s}");
        }
        // WFS 1.0.0 as QGIS sends it: x,y although the name is a URN.
        let qgis = "<Point srsName='urn:ogc:def:crs:EPSG::4326'><coordinates cs=',' ts=' '>24,60</coordinates></Point>";
        assert_eq!(read_with(qgis, &axes(true)).unwrap(), "Point 24 60");
        assert_eq!(read_with("<Point><coordinates>24,60</coordinates></Point>", &axes(true)).unwrap(), "Point 24 60");
        assert_eq!(read("<Point srsDimension='3'><pos>60 24 7</pos></Point>").unwrap(), "Point 24 60 7");
        assert_eq!(read("<Point/>").unwrap(), "Point ");
    }

    #[test]
    fn lines_polygons_and_multis_are_read_in_every_version() {
        let ring = "<LinearRing><posList>0 0 0 1 1 1 0 0</posList></LinearRing>";
        let ring2 = "<LinearRing><coordinates>0,0 0,1 1,1 0,0</coordinates></LinearRing>";
        let polygon = "Polygon 0 0,1 0,1 1,0 0";
        for (s, expected) in [
            ("<LineString><posList srsDimension='3'>1 2 3 4 5 6</posList></LineString>".into(), "LineString 2 1 3,5 4 6"),
            ("<LineString><pos>1 2</pos><pos>3 4</pos></LineString>".into(), "LineString 2 1,4 3"),
            (
                "<LineString><pointProperty><Point><pos>1 2</pos></Point></pointProperty><pos>3 4</pos></LineString>".into(),
                "LineString 2 1,4 3",
            ),
            (
                "<Curve><segments><LineStringSegment><posList>1 2 3 4</posList></LineStringSegment>\
                 <LineStringSegment><posList>3 4 5 6</posList></LineStringSegment></segments></Curve>"
                    .into(),
                "LineString 2 1,4 3,6 5",
            ),
            (format!("<Polygon><exterior>{ring}</exterior></Polygon>"), polygon),
            (format!("<Polygon><outerBoundaryIs>{ring2}</outerBoundaryIs></Polygon>"), polygon),
            (
                "<Polygon><exterior><Ring><curveMember><LineString><posList>0 0 0 1 1 1</posList></LineString></curveMember>\
                 <curveMember><LineString><posList>1 1 0 0</posList></LineString></curveMember></Ring></exterior></Polygon>"
                    .into(),
                polygon,
            ),
            (format!("<Surface><patches><PolygonPatch><exterior>{ring}</exterior></PolygonPatch></patches></Surface>"), polygon),
            (
                format!("<MultiPolygon><polygonMember><Polygon><exterior>{ring}</exterior></Polygon></polygonMember></MultiPolygon>"),
                "MultiPolygon 0 0,1 0,1 1,0 0",
            ),
            (
                format!(
                    "<MultiSurface srsName='EPSG:4326'><surfaceMembers><Polygon><exterior>{ring}</exterior></Polygon>\
                     <Surface><patches><PolygonPatch><exterior>{ring}</exterior></PolygonPatch></patches></Surface>\
                     </surfaceMembers></MultiSurface>"
                ),
                "MultiPolygon 0 0,0 1,1 1,0 0,0 0,0 1,1 1,0 0",
            ),
            (
                "<MultiLineString><lineStringMember><LineString><posList>1 2 3 4</posList></LineString></lineStringMember></MultiLineString>".into(),
                "MultiLineString 2 1,4 3",
            ),
            ("<MultiPoint><pointMembers><Point><pos>1 2</pos></Point><Point><pos>3 4</pos></Point></pointMembers></MultiPoint>".into(), "MultiPoint 2 1,4 3"),
            (
                "<MultiGeometry><geometryMember><Point><pos>1 2</pos></Point></geometryMember></MultiGeometry>".into(),
                "GeometryCollection 2 1",
            ),
            ("<Envelope><lowerCorner>1 2</lowerCorner><upperCorner>3 4</upperCorner></Envelope>".into(), "Polygon 2 1,4 1,4 3,2 3,2 1"),
        ] {
            assert_eq!(read(&s).unwrap(), expected, "{s}");
        }
    }

    #[test]
    fn arcs_become_lines() {
        let curve = |segments: &str| format!("<Curve><segments>{segments}</segments></Curve>");
        let half = read(&curve("<Arc><posList>0 0 1 1 0 2</posList></Arc>")).unwrap();
        assert!(half.starts_with("LineString 0 0,") && half.ends_with(",2 0") && half.contains(",1 1,"), "{half}");
        assert_eq!(half.split(',').count(), 129);
        let wave = curve(
            "<LineStringSegment><posList>0 -1 0 0</posList></LineStringSegment><ArcString><posList>0 0 1 1 0 2 -1 3 0 4</posList></ArcString>",
        );
        assert_eq!(read(&wave).unwrap().split(',').count(), 1 + 257);
        let ring = format!(
            "<Polygon><exterior><Ring><curveMember>{}</curveMember></Ring></exterior></Polygon>",
            curve(
                "<Arc><posList>0 0 1 1 0 2</posList></Arc><LineStringSegment><posList>0 2 0 0</posList></LineStringSegment>"
            )
        );
        assert!(read(&ring).unwrap().starts_with("Polygon 0 0,"));
        let circle = curve("<Circle><posList>0 0 1 1 0 2</posList></Circle>");
        let disc = format!("<Polygon><exterior><Ring><curveMember>{circle}</curveMember></Ring></exterior></Polygon>");
        let disc = read(&disc).unwrap();
        assert!(disc.starts_with("Polygon 0 0,") && disc.ends_with(",0 0") && disc.split(',').count() == 257, "{disc}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let message = |s: &str| read(s).unwrap_err().to_string();
        assert_eq!(message("<Point><pos>1</pos></Point>"), "line 1: pos: a position has 2 or 3 numbers, not 1");
        assert_eq!(message("<Point>\n<pos>1 x</pos></Point>"), "line 2: pos: 'x' is not a finite number");
        assert!(message("<Point><pos>NaN 1</pos></Point>").contains("'NaN'"));
        assert!(message("<Point srsName='EPSG:999999'><pos>1 2</pos></Point>").contains("EPSG:999999"));
        assert!(message("<LineString><posList>1 2 3</posList></LineString>").contains("srsDimension"));
        assert!(message("<LineString><posList>1 2</posList></LineString>").contains("two vertices"));
        assert!(
            message(
                "<Polygon><exterior><LinearRing><posList>0 0 0 1 1 1 1 0</posList></LinearRing></exterior></Polygon>"
            )
            .contains("does not end where it begins")
        );
        let bezier = "<Curve><segments><Bezier><posList>0 0 1 1 2 0</posList></Bezier></segments></Curve>";
        assert_eq!(message(bezier), "line 1: Bezier: this kind of curve segment is not supported yet");
        let arc = |name: &str, srs: &str, points: &str| {
            message(&format!("<Curve {srs}><segments><{name}><posList>{points}</posList></{name}></segments></Curve>"))
        };
        assert_eq!(
            arc("ArcString", "", "0 0 1 1 2 0 3 1"),
            "line 1: ArcString: 4 points do not make arcs of three each"
        );
        assert!(arc("Arc", "", "0 0 1 1 2 0 3 1 4 0").contains("5 points"));
        assert!(arc("Circle", "", "0 0 1 1 2 2").contains("not on one line"));
        assert!(arc("Arc", "srsName='EPSG:3857'", "0 0 1 1 2 0").contains("CRS of the feature type"));
        assert!(message("<Solid/>").contains("Solid"));
        assert!(message("<MultiPoint><pointMember><LineString/></pointMember></MultiPoint>").contains("LineString"));
    }

    #[test]
    fn geometries_come_into_the_stored_crs() {
        let axes = Axes { default: urn_4326(), always_xy: false, target: Crs::WEB_MERCATOR };
        let text = read_with("<Point><pos>0 1</pos></Point>", &axes).unwrap();
        assert!(text.starts_with("Point 111319.49"), "{text}");
        let e = xml::parse(
            b"<Envelope srsName='EPSG:3857'><lowerCorner>1 2</lowerCorner><upperCorner>3 4</upperCorner></Envelope>",
            Default::default(),
        );
        let rect = read_envelope(&e.unwrap(), &axes).unwrap();
        assert_eq!(rect, Rect { min_x: 1.0, min_y: 2.0, max_x: 3.0, max_y: 4.0 });
    }

    #[test]
    fn what_is_written_is_read_back() {
        let written = "<MultiGeometry><geometryMember><Point><pos>1 2 3</pos></Point></geometryMember><geometryMember>\
                       <MultiSurface><surfaceMember><Polygon><exterior><LinearRing><posList srsDimension='3'>0 0 1 0 1 1 1 1 1 0 0 1\
                       </posList></LinearRing></exterior></Polygon></surfaceMember></MultiSurface></geometryMember></MultiGeometry>";
        let element = xml::parse(written.as_bytes(), Default::default()).unwrap();
        let g = read_geometry(&element, &axes(false)).unwrap();
        let mut out = Vec::new();
        assert!(write_geometry(&mut out, &g, "t.1", &GeometryStyle::new(GmlVersion::V3_2, &urn_4326())));
        let again = String::from_utf8(out).unwrap().replace("gml:", "");
        let again = xml::parse(again.as_bytes(), Default::default()).unwrap();
        assert_eq!(read_geometry(&again, &axes(false)).unwrap(), g);
    }
}
