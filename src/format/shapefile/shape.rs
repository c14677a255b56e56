//! Shapes: geometries as the records of a `.shp` file have them (ESRI Shapefile Technical Description, 1998).

use crate::model::geometry::{Coord, Reader};
use crate::model::{Dimension, Geometry, GeometryKind};

/// The kinds that cannot stand in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Point,
    MultiPoint,
    Line,
    Polygon,
}

impl Class {
    /// `None`: any geometry, or one that shapes have no form for.
    pub fn of(kind: GeometryKind) -> Option<Class> {
        match kind {
            GeometryKind::Point => Some(Class::Point),
            GeometryKind::MultiPoint => Some(Class::MultiPoint),
            GeometryKind::LineString | GeometryKind::MultiLineString => Some(Class::Line),
            GeometryKind::Polygon | GeometryKind::MultiPolygon => Some(Class::Polygon),
            GeometryKind::Geometry | GeometryKind::GeometryCollection => None,
        }
    }

    /// What a file of this class alone is called after.
    pub fn name(self) -> &'static str {
        match self {
            Class::Point => "point",
            Class::MultiPoint => "multipoint",
            Class::Line => "line",
            Class::Polygon => "polygon",
        }
    }

    /// The shape type. Heights have types of their own, which have measures too; measures alone have others.
    pub fn code(self, dimension: Dimension) -> i32 {
        let flat = match self {
            Class::Point => 1,
            Class::Line => 3,
            Class::Polygon => 5,
            Class::MultiPoint => 8,
        };
        flat + if dimension.has_z() {
            10
        } else if dimension.has_m() {
            20
        } else {
            0
        }
    }
}

/// The ordinates of x, y, z and m, from the least to the greatest.
#[derive(Clone, Copy)]
pub struct Extent(pub [(f64, f64); 4]);

impl Extent {
    pub const NOTHING: Extent = Extent([(f64::INFINITY, f64::NEG_INFINITY); 4]);

    fn add(&mut self, c: Coord) {
        for ((min, max), n) in self.0.iter_mut().zip([c.x, c.y, c.z, c.m]) {
            (*min, *max) = (min.min(n), max.max(n));
        }
    }

    pub fn merge(&mut self, other: &Extent) {
        for ((min, max), (low, high)) in self.0.iter_mut().zip(other.0) {
            (*min, *max) = (min.min(low), max.max(high));
        }
    }

    /// With zeros where there is nothing.
    pub fn sides(&self) -> [(f64, f64); 4] {
        self.0.map(|(min, max)| if min <= max { (min, max) } else { (0.0, 0.0) })
    }
}

/// What a reader takes for no measure: less than -1e38.
const NO_MEASURE: f64 = -1e39;

/// Appends the content of a record and gives its extent: of nothing the null shape, without one.
pub fn write(out: &mut Vec<u8>, geometry: Option<&Geometry>) -> Option<Extent> {
    let (vertices, class, dimension) = match geometry.filter(|g| !g.is_empty()) {
        Some(g) if Class::of(g.kind()).is_some() => {
            let mut vertices = Vertices::default();
            vertices.read(&mut g.reader());
            (vertices, Class::of(g.kind())?, g.dimension())
        }
        _ => {
            int(out, 0);
            return None;
        }
    };
    let mut extent = Extent::NOTHING;
    vertices.coords.iter().for_each(|c| extent.add(*c));
    int(out, class.code(dimension));
    if class == Class::Point {
        for c in &vertices.coords {
            doubles(out, &[c.x, c.y]);
            if dimension.has_z() {
                doubles(out, &[c.z, if dimension.has_m() { c.m } else { NO_MEASURE }]);
            } else if dimension.has_m() {
                doubles(out, &[c.m]);
            }
        }
        return Some(extent);
    }
    let [x, y, z, m] = extent.0;
    doubles(out, &[x.0, y.0, x.1, y.1]);
    if class != Class::MultiPoint {
        int(out, vertices.parts.len() as i32);
    }
    int(out, vertices.coords.len() as i32);
    if class != Class::MultiPoint {
        vertices.parts.iter().for_each(|part| int(out, *part));
    }
    vertices.coords.iter().for_each(|c| doubles(out, &[c.x, c.y]));
    if dimension.has_z() {
        doubles(out, &[z.0, z.1]);
        vertices.coords.iter().for_each(|c| doubles(out, &[c.z]));
    }
    if dimension.has_m() {
        doubles(out, &[m.0, m.1]);
        vertices.coords.iter().for_each(|c| doubles(out, &[c.m]));
    }
    Some(extent)
}

fn int(out: &mut Vec<u8>, n: i32) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn doubles(out: &mut Vec<u8>, numbers: &[f64]) {
    numbers.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
}

/// All vertices, and where each line or ring begins.
#[derive(Default)]
struct Vertices {
    coords: Vec<Coord>,
    parts: Vec<i32>,
}

impl Vertices {
    fn read(&mut self, r: &mut Reader<'_>) {
        let (kind, dimension) = r.header();
        match kind {
            GeometryKind::Point => self.coords.extend(Some(r.coord(dimension)).filter(|c| !c.x.is_nan())),
            GeometryKind::LineString => {
                self.line(r, dimension);
            }
            GeometryKind::Polygon => {
                for i in 0..r.count() {
                    let ring = self.line(r, dimension);
                    // The outer ring goes clockwise, the holes the other way.
                    if (area(ring) > 0.0) == (i == 0) {
                        ring.reverse();
                    }
                }
            }
            _ => (0..r.count()).for_each(|_| self.read(r)),
        }
    }

    fn line(&mut self, r: &mut Reader<'_>, dimension: Dimension) -> &mut [Coord] {
        let (n, start) = (r.count(), self.coords.len());
        if n > 0 {
            self.parts.push(start as i32);
        }
        self.coords.extend((0..n).map(|_| r.coord(dimension)));
        &mut self.coords[start..]
    }
}

/// Twice the area of a ring; negative where it goes clockwise.
fn area(ring: &[Coord]) -> f64 {
    let Some(origin) = ring.first() else { return 0.0 };
    let cross = |a: &Coord, b: &Coord| (a.x - origin.x) * (b.y - origin.y) - (b.x - origin.x) * (a.y - origin.y);
    ring.windows(2).map(|pair| cross(&pair[0], &pair[1])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::geometry::Writer;

    #[test]
    fn rings_go_as_they_must() {
        let square = [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0), (0.0, 0.0)];
        let hole = [(1.0, 1.0), (1.0, 2.0), (2.0, 2.0), (1.0, 1.0)];
        for reversed in [false, true] {
            let mut w = Writer::new(Dimension::XYM);
            w.begin(GeometryKind::Polygon);
            w.count(2);
            for ring in [&square[..], &hole] {
                w.count(ring.len() as u32);
                let mut ring: Vec<_> = ring.iter().map(|(x, y)| Coord { x: *x, y: *y, z: 0.0, m: 7.0 }).collect();
                if reversed {
                    ring.reverse();
                }
                ring.into_iter().for_each(|c| w.coord(c));
            }
            let mut out = Vec::new();
            let extent = write(&mut out, Some(&w.checked().unwrap())).unwrap();
            assert_eq!(extent.sides(), [(0.0, 4.0), (0.0, 4.0), (0.0, 0.0), (7.0, 7.0)]);
            let int = |at: usize| i32::from_le_bytes(out[at..at + 4].try_into().unwrap());
            let double = |at: usize| f64::from_le_bytes(out[at..at + 8].try_into().unwrap());
            assert_eq!([0, 36, 40, 44, 48].map(int), [25, 2, 9, 0, 5]);
            // The second vertices: up along the left side, and to the right along the hole's lower edge or its diagonal.
            assert_eq!((double(52 + 16), double(52 + 24)), (0.0, 4.0));
            assert_eq!((double(52 + 96), double(52 + 104)), (2.0, 2.0));
            assert_eq!(out.len(), 52 + 9 * 16 + 16 + 9 * 8);
        }
    }

    #[test]
    fn what_is_empty_is_the_null_shape() {
        let mut out = Vec::new();
        assert!(write(&mut out, None).is_none());
        let mut w = Writer::new(Dimension::XY);
        w.begin(GeometryKind::MultiPolygon);
        w.count(0);
        assert!(write(&mut out, Some(&w.checked().unwrap())).is_none());
        assert_eq!(out, [0; 8]);
    }
}
