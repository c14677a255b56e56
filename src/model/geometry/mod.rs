//! Geometry, kept as ISO well-known binary: compact, ready for the log and the delegates, and read without building a tree.
//!
//! Invariant: a [`Geometry`] is little-endian ISO WKB of one dimension throughout, whose coordinates are finite (or all NaN in
//! an empty point), whose lines have two vertices or none, and whose rings are closed with four or none. Every way in checks
//! this, so reading it back cannot fail.

mod wkb;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
pub use wkb::{Reader, Writer};
use wkb::{Source, copy, eight};

/// The simple-feature types. As a column's type, `Geometry` takes any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GeometryKind {
    Geometry,
    Point,
    LineString,
    Polygon,
    MultiPoint,
    MultiLineString,
    MultiPolygon,
    GeometryCollection,
}

impl GeometryKind {
    /// The types that a column may have.
    pub const ALL: [GeometryKind; 8] = {
        use GeometryKind::*;
        [Geometry, Point, LineString, Polygon, MultiPoint, MultiLineString, MultiPolygon, GeometryCollection]
    };

    fn code(self) -> u32 {
        self as u32
    }

    fn from_code(code: u32) -> Option<GeometryKind> {
        Self::of_geometry(|k| k.code() == code)
    }

    /// The first type that a geometry may have, and that is as asked.
    pub fn of_geometry(asked: impl Fn(GeometryKind) -> bool) -> Option<GeometryKind> {
        Self::ALL.into_iter().find(|k| *k != GeometryKind::Geometry && asked(*k))
    }

    /// The multi form of a single kind.
    pub fn multi(self) -> Option<GeometryKind> {
        match self {
            GeometryKind::Point => Some(GeometryKind::MultiPoint),
            GeometryKind::LineString => Some(GeometryKind::MultiLineString),
            GeometryKind::Polygon => Some(GeometryKind::MultiPolygon),
            _ => None,
        }
    }

    /// The name of GeoJSON and of the settings.
    pub fn name(self) -> &'static str {
        match self {
            GeometryKind::Geometry => "Geometry",
            GeometryKind::Point => "Point",
            GeometryKind::LineString => "LineString",
            GeometryKind::Polygon => "Polygon",
            GeometryKind::MultiPoint => "MultiPoint",
            GeometryKind::MultiLineString => "MultiLineString",
            GeometryKind::MultiPolygon => "MultiPolygon",
            GeometryKind::GeometryCollection => "GeometryCollection",
        }
    }
}

/// Which ordinates every vertex has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dimension {
    #[default]
    XY,
    XYZ,
    XYM,
    XYZM,
}

impl Dimension {
    pub fn new(z: bool, m: bool) -> Dimension {
        match (z, m) {
            (false, false) => Dimension::XY,
            (true, false) => Dimension::XYZ,
            (false, true) => Dimension::XYM,
            (true, true) => Dimension::XYZM,
        }
    }

    pub fn has_z(self) -> bool {
        matches!(self, Dimension::XYZ | Dimension::XYZM)
    }

    pub fn has_m(self) -> bool {
        matches!(self, Dimension::XYM | Dimension::XYZM)
    }

    /// Ordinates of one vertex.
    pub fn size(self) -> usize {
        2 + usize::from(self.has_z()) + usize::from(self.has_m())
    }

    fn iso_offset(self) -> u32 {
        1000 * u32::from(self.has_z()) + 2000 * u32::from(self.has_m())
    }
}

/// A vertex. Ordinates that its geometry has not are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Coord {
    pub x: f64,
    pub y: f64,
    pub z: f64,
    pub m: f64,
}

impl Coord {
    pub fn xy(x: f64, y: f64) -> Coord {
        Coord { x, y, ..Coord::default() }
    }
}

/// A box, borders included. One that crosses the antimeridian is two of these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    pub min_x: f64,
    pub min_y: f64,
    pub max_x: f64,
    pub max_y: f64,
}

impl Rect {
    pub fn intersects(&self, o: &Rect) -> bool {
        self.min_x <= o.max_x && o.min_x <= self.max_x && self.min_y <= o.max_y && o.min_y <= self.max_y
    }

    pub fn contains(&self, o: &Rect) -> bool {
        self.min_x <= o.min_x && o.max_x <= self.max_x && self.min_y <= o.min_y && o.max_y <= self.max_y
    }

    pub fn union(&self, o: &Rect) -> Rect {
        Rect {
            min_x: self.min_x.min(o.min_x),
            min_y: self.min_y.min(o.min_y),
            max_x: self.max_x.max(o.max_x),
            max_y: self.max_y.max(o.max_y),
        }
    }

    pub fn intersection(&self, o: &Rect) -> Option<Rect> {
        self.intersects(o).then(|| Rect {
            min_x: self.min_x.max(o.min_x),
            min_y: self.min_y.max(o.min_y),
            max_x: self.max_x.min(o.max_x),
            max_y: self.max_y.min(o.max_y),
        })
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GeometryError {
    #[error("the WKB ends too early or has bytes left over")]
    Length,
    #[error("WKB type {0} is not a simple-feature type")]
    Kind(u32),
    #[error("a coordinate is not a finite number")]
    NotFinite,
    #[error("a {0} cannot be inside a {1}", .inner.name(), .outer.name())]
    Nesting { inner: GeometryKind, outer: GeometryKind },
    #[error("a line needs two vertices or none, this one has one")]
    ShortLine,
    #[error("a ring needs at least four vertices, this one has {0}")]
    ShortRing(u32),
    #[error("a ring does not end where it begins")]
    OpenRing,
    #[error("a {0} is asked, this is a {1}", .want.name(), .have.name())]
    WrongKind { want: GeometryKind, have: GeometryKind },
    #[error("geometries nested too deep")]
    Depth,
    #[error("the times (M) of a track's vertices must rise from each to the next")]
    NoTrajectory,
    #[error("({x} {y}) lies outside the CRS")]
    OutsideCrs { x: f64, y: f64 },
}

/// Collections in collections, at most.
const MAX_DEPTH: u32 = 16;

/// A geometry, cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Geometry(Arc<[u8]>);

impl std::fmt::Debug for Geometry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({} bytes, {:?})", self.kind().name(), self.0.len(), self.bounds())
    }
}

impl Geometry {
    /// Reads ISO WKB or PostGIS's EWKB (whose SRID is dropped), of either byte order.
    pub fn from_wkb(bytes: &[u8]) -> Result<Geometry, GeometryError> {
        if let [1, rest @ ..] = bytes
            && rest.len() >= 20
            && rest[..4] == [1, 0, 0, 0]
        {
            // By far the most common: a plain point, already in our form.
            let finite = rest[4..20].chunks_exact(8).all(|c| f64::from_le_bytes(eight(c)).is_finite());
            if finite && rest.len() == 20 {
                return Ok(Geometry(bytes.into()));
            }
        }
        let mut source = Source { bytes, at: 0 };
        let mut writer = Writer { bytes: Vec::with_capacity(bytes.len()), dimension: Dimension::XY };
        copy(&mut source, &mut writer, None, 0)?;
        if source.at == bytes.len() { Ok(writer.finish()) } else { Err(GeometryError::Length) }
    }

    pub fn point(x: f64, y: f64) -> Result<Geometry, GeometryError> {
        let mut w = Writer::new(Dimension::XY);
        w.begin(GeometryKind::Point);
        w.coord(Coord::xy(x, y));
        w.checked()
    }

    /// Little-endian ISO WKB.
    pub fn wkb(&self) -> &[u8] {
        &self.0
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.0, at: 0 }
    }

    pub fn kind(&self) -> GeometryKind {
        self.reader().header().0
    }

    pub fn dimension(&self) -> Dimension {
        self.reader().header().1
    }

    /// True of `POINT EMPTY`, and of lines, polygons and collections with nothing in them.
    pub fn is_empty(&self) -> bool {
        self.bounds().is_none()
    }

    /// The envelope; `None` of an empty geometry.
    pub fn bounds(&self) -> Option<Rect> {
        let mut rect: Option<Rect> = None;
        self.reader().each_coord(&mut |c: Coord| {
            let at = Rect { min_x: c.x, min_y: c.y, max_x: c.x, max_y: c.y };
            rect = Some(rect.map_or(at, |r| r.union(&at)));
        });
        rect
    }

    /// This geometry with every x,y replaced.
    pub fn map_xy(
        &self,
        mut f: impl FnMut(f64, f64) -> Result<(f64, f64), GeometryError>,
    ) -> Result<Geometry, GeometryError> {
        let dimension = self.dimension();
        self.rewrite(dimension, &mut |mut c| {
            (c.x, c.y) = f(c.x, c.y)?;
            if c.x.is_finite() && c.y.is_finite() { Ok(c) } else { Err(GeometryError::OutsideCrs { x: c.x, y: c.y }) }
        })
    }

    /// This geometry with x, y and z rounded to so many decimals; numbers that are too large to have them stay as they are.
    pub fn rounded(&self, decimals: u8) -> Result<Geometry, GeometryError> {
        /// From there on a double has no fraction.
        const WHOLE: f64 = (1_u64 << 53) as f64;
        let scale = 10_f64.powi(decimals.into());
        let round = |n: f64| match n * scale {
            // No minus zero.
            scaled if scaled.abs() < WHOLE => scaled.round() / scale + 0.0,
            _ => n,
        };
        self.rewrite(self.dimension(), &mut |c| Ok(Coord { x: round(c.x), y: round(c.y), z: round(c.z), ..c }))
    }

    /// This geometry as a column of `kind` and `dimension` takes it: a single one becomes a multi of one where that is asked,
    /// ordinates that are missing are 0 and those that are too many are dropped.
    pub fn fit(self, kind: GeometryKind, dimension: Dimension) -> Result<Geometry, GeometryError> {
        let have = self.kind();
        let fitted = if self.dimension() == dimension { self } else { self.rewrite(dimension, &mut Ok)? };
        if kind == GeometryKind::Geometry || kind == have {
            return Ok(fitted);
        }
        if have.multi() != Some(kind) {
            return Err(GeometryError::WrongKind { want: kind, have });
        }
        let mut w = Writer::new(dimension);
        w.begin(kind);
        if fitted.is_empty() {
            w.count(0);
        } else {
            w.count(1);
            w.bytes.extend_from_slice(&fitted.0);
        }
        Ok(w.finish())
    }

    fn rewrite(
        &self,
        dimension: Dimension,
        f: &mut dyn FnMut(Coord) -> Result<Coord, GeometryError>,
    ) -> Result<Geometry, GeometryError> {
        fn walk(
            r: &mut Reader<'_>,
            w: &mut Writer,
            f: &mut dyn FnMut(Coord) -> Result<Coord, GeometryError>,
        ) -> Result<(), GeometryError> {
            let (kind, from) = r.header();
            w.begin(kind);
            let line =
                |r: &mut Reader<'_>, w: &mut Writer, f: &mut dyn FnMut(Coord) -> Result<Coord, GeometryError>| {
                    let n = r.count();
                    w.count(n);
                    (0..n).try_for_each(|_| {
                        let c = f(r.coord(from))?;
                        w.coord(c);
                        Ok(())
                    })
                };
            match kind {
                GeometryKind::Point => {
                    let c = r.coord(from);
                    let c = if c.x.is_nan() { c } else { f(c)? };
                    w.coord(c);
                    Ok(())
                }
                GeometryKind::LineString => line(r, w, f),
                GeometryKind::Polygon => {
                    let rings = r.count();
                    w.count(rings);
                    (0..rings).try_for_each(|_| line(r, w, f))
                }
                _ => {
                    let parts = r.count();
                    w.count(parts);
                    (0..parts).try_for_each(|_| walk(r, w, f))
                }
            }
        }
        let mut w = Writer::new(dimension);
        walk(&mut self.reader(), &mut w, f)?;
        Ok(w.finish())
    }

    /// As `geo`'s predicates want it: in two dimensions. `None` of an empty point.
    pub fn to_geo(&self) -> Option<geo_types::Geometry<f64>> {
        to_geo(&mut self.reader())
    }
}

fn to_geo(r: &mut Reader<'_>) -> Option<geo_types::Geometry<f64>> {
    use geo_types as g;
    fn line(r: &mut Reader<'_>, dimension: Dimension) -> g::LineString<f64> {
        let n = r.count();
        (0..n)
            .map(|_| {
                let c = r.coord(dimension);
                g::Coord { x: c.x, y: c.y }
            })
            .collect()
    }
    let (kind, dimension) = r.header();
    let parts = |r: &mut Reader<'_>| -> Vec<g::Geometry<f64>> {
        let n = r.count();
        (0..n).filter_map(|_| to_geo(r)).collect()
    };
    Some(match kind {
        GeometryKind::Point => {
            let c = r.coord(dimension);
            if c.x.is_nan() {
                return None;
            }
            g::Geometry::Point(g::Point::new(c.x, c.y))
        }
        GeometryKind::LineString => g::Geometry::LineString(line(r, dimension)),
        GeometryKind::Polygon => {
            let n = r.count();
            let mut rings = (0..n).map(|_| line(r, dimension));
            let outer = rings.next().unwrap_or_else(|| g::LineString::new(Vec::new()));
            g::Geometry::Polygon(g::Polygon::new(outer, rings.collect()))
        }
        GeometryKind::MultiPoint => {
            g::Geometry::MultiPoint(parts(r).into_iter().filter_map(|p| g::Point::try_from(p).ok()).collect())
        }
        GeometryKind::MultiLineString => g::Geometry::MultiLineString(g::MultiLineString::new(
            parts(r).into_iter().filter_map(|p| g::LineString::try_from(p).ok()).collect(),
        )),
        GeometryKind::MultiPolygon => g::Geometry::MultiPolygon(g::MultiPolygon::new(
            parts(r).into_iter().filter_map(|p| g::Polygon::try_from(p).ok()).collect(),
        )),
        GeometryKind::GeometryCollection | GeometryKind::Geometry => {
            g::Geometry::GeometryCollection(g::GeometryCollection::from(parts(r)))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Writer {
        let mut w = Writer::new(Dimension::XY);
        w.begin(GeometryKind::LineString);
        w.count(points.len() as u32);
        points.iter().for_each(|(x, y)| w.coord(Coord::xy(*x, *y)));
        w
    }

    #[test]
    fn what_is_not_a_geometry_is_refused() {
        assert_eq!(Geometry::point(f64::INFINITY, 0.0), Err(GeometryError::NotFinite));
        assert_eq!(line(&[(0.0, 0.0)]).checked(), Err(GeometryError::ShortLine));
        assert!(line(&[(0.0, 0.0), (f64::NAN, 1.0)]).checked().is_err());
        assert_eq!(Geometry::from_wkb(&[1, 1, 0, 0]), Err(GeometryError::Length));
        assert_eq!(Geometry::from_wkb(&[1, 2, 0, 0, 0, 255, 255, 255, 255]), Err(GeometryError::Length));
        let mut ring = Writer::new(Dimension::XY);
        ring.begin(GeometryKind::Polygon);
        ring.count(1);
        ring.count(4);
        [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)].iter().for_each(|(x, y)| ring.coord(Coord::xy(*x, *y)));
        assert_eq!(ring.checked(), Err(GeometryError::OpenRing));
    }

    #[test]
    fn rounding_keeps_what_cannot_be_rounded() {
        let g = line(&[(24.123_456_789, -0.004), (1e300, 9_007_199_254_740_993.0)]).checked().unwrap();
        let two = line(&[(24.12, 0.0), (1e300, 9_007_199_254_740_993.0)]).checked().unwrap();
        assert_eq!(g.rounded(2).unwrap(), two);
        assert_eq!(g.rounded(15).unwrap(), g);
    }

    #[test]
    fn ewkb_of_either_byte_order_becomes_iso() {
        let mut big = vec![0, 0xa0, 0, 0, 1, 0, 0, 0x10, 0xe6];
        for v in [1.0_f64, 2.0, 3.0] {
            big.extend_from_slice(&v.to_be_bytes());
        }
        let g = Geometry::from_wkb(&big).unwrap();
        assert_eq!((g.kind(), g.dimension()), (GeometryKind::Point, Dimension::XYZ));
        assert_eq!(g.reader().header(), (GeometryKind::Point, Dimension::XYZ));
        assert_eq!(&g.wkb()[..5], &[1, 0xe9, 3, 0, 0]);
        assert_eq!(Geometry::from_wkb(g.wkb()).unwrap(), g);
    }

    #[test]
    fn fitting_promotes_and_changes_dimension() {
        let g = line(&[(0.0, 0.0), (2.0, 1.0)]).checked().unwrap();
        let fitted = g.clone().fit(GeometryKind::MultiLineString, Dimension::XYZ).unwrap();
        assert_eq!((fitted.kind(), fitted.dimension()), (GeometryKind::MultiLineString, Dimension::XYZ));
        assert_eq!(fitted.bounds(), g.bounds());
        assert_eq!(Geometry::from_wkb(fitted.wkb()).unwrap(), fitted);
        assert!(g.fit(GeometryKind::Polygon, Dimension::XY).is_err());
    }
}
