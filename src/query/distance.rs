//! How near a geometry is to another, for filters.
//!
//! On a plane the distance is Euclid's. On the globe the nearest two points are sought on a sphere, along great circles between
//! vertices, and the distance between these two is that of the geodesic on the ellipsoid of WGS 84: metres, exact between points,
//! and within a per mille of the geodesic of long edges. The antimeridian is no border.

use geo::{CoordsIter, Distance as _, Euclidean, Geodesic, Intersects};
use geo_types::{Coord, Geometry as Geo, LineString, Point};

use super::filter::SpatialLiteral;
use crate::model::{Geometry, Rect};

/// In what the distance of a [`Near`] is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The units of the coordinates.
    Plane,
    /// Metres; the coordinates are degrees.
    Globe,
}

/// A geometry and all that is within a distance of it.
#[derive(Clone, Debug)]
pub struct Near {
    literal: SpatialLiteral,
    limit: f64,
    measure: Measure,
    /// The literal's edges on the sphere.
    edges: Vec<[Vector; 2]>,
}

impl Near {
    /// `limit`: finite, not negative.
    pub fn new(geometry: Geometry, limit: f64, measure: Measure) -> Near {
        let literal = SpatialLiteral::new(geometry);
        let mut all = Vec::new();
        if let (Measure::Globe, Some(geo)) = (measure, &literal.geo) {
            edges(geo, &mut all);
        }
        Near { literal, limit, measure, edges: all }
    }

    /// An empty geometry is near nothing.
    pub fn holds(&self, geometry: &Geometry) -> bool {
        let (Some(bounds), Some(b)) = (geometry.bounds(), &self.literal.geo) else { return false };
        if self.literal.bounds.is_none() || self.bounds().is_some_and(|near| !near.intersects(&bounds)) {
            return false;
        }
        let Some(a) = geometry.to_geo() else { return false };
        match self.measure {
            Measure::Plane => Euclidean.distance(&a, b) <= self.limit,
            Measure::Globe => a.intersects(b) || self.gap(&a) <= self.limit,
        }
    }

    /// A box that holds all that is near; `None`: there is none that does not cross the antimeridian or go round a pole.
    pub fn bounds(&self) -> Option<Rect> {
        let b = self.literal.bounds?;
        let (dx, dy) = match self.measure {
            Measure::Plane => (self.limit, self.limit),
            Measure::Globe => {
                // No degree of latitude is shorter, and a hundredth on top makes up for the sphere.
                let dy = self.limit / 110_574.0 * 1.01;
                let farthest = b.min_y.abs().max(b.max_y.abs()) + dy;
                if farthest >= 89.0 {
                    return None;
                }
                (dy / farthest.to_radians().cos(), dy)
            }
        };
        let near = Rect { min_x: b.min_x - dx, min_y: b.min_y - dy, max_x: b.max_x + dx, max_y: b.max_y + dy };
        (self.measure == Measure::Plane || (near.min_x >= -180.0 && near.max_x <= 180.0)).then_some(near)
    }

    /// Metres to a geometry that does not meet the literal.
    fn gap(&self, other: &Geo<f64>) -> f64 {
        let mut others = Vec::new();
        edges(other, &mut others);
        let pairs = self.edges.iter().flat_map(|a| others.iter().map(move |b| nearest(a, b)));
        let nearest = pairs.min_by(|(p, q), (r, s)| p.chord(q).total_cmp(&r.chord(s)));
        nearest.map_or(f64::INFINITY, |(p, q)| Geodesic.distance(p.point(), q.point()))
    }
}

/// The great circles between the vertices; of a single point, the point twice.
fn edges(geo: &Geo<f64>, out: &mut Vec<[Vector; 2]>) {
    let mut line = |line: &LineString<f64>| {
        let vertices: Vec<Vector> = line.coords_iter().map(Vector::of).collect();
        out.extend(vertices.windows(2).map(|w| [w[0], w[1]]));
    };
    match geo {
        Geo::LineString(l) => line(l),
        Geo::MultiLineString(all) => all.iter().for_each(line),
        Geo::Polygon(p) => std::iter::once(p.exterior()).chain(p.interiors()).for_each(line),
        Geo::MultiPolygon(all) => {
            all.iter().flat_map(|p| std::iter::once(p.exterior()).chain(p.interiors())).for_each(line);
        }
        Geo::GeometryCollection(all) => all.iter().for_each(|g| edges(g, out)),
        points => out.extend(points.coords_iter().map(|c| [Vector::of(c); 2])),
    }
}

/// The two points, one of each edge, that are nearest to each other. Of edges that do not cross, one of them is an end.
fn nearest(a: &[Vector; 2], b: &[Vector; 2]) -> (Vector, Vector) {
    let [mut best, rest @ ..] =
        [(a[0], a[0].onto(b)), (a[1], a[1].onto(b)), (b[0].onto(a), b[0]), (b[1].onto(a), b[1])];
    for pair in rest {
        if pair.0.chord(&pair.1) < best.0.chord(&best.1) {
            best = pair;
        }
    }
    best
}

/// A place on the unit sphere.
#[derive(Clone, Copy, Debug)]
struct Vector([f64; 3]);

impl Vector {
    /// Of degrees.
    fn of(c: Coord<f64>) -> Vector {
        let (sin_y, cos_y) = c.y.to_radians().sin_cos();
        let (sin_x, cos_x) = c.x.to_radians().sin_cos();
        Vector([cos_y * cos_x, cos_y * sin_x, sin_y])
    }

    fn point(&self) -> Point<f64> {
        let [x, y, z] = self.0;
        Point::new(y.atan2(x).to_degrees(), z.atan2(x.hypot(y)).to_degrees())
    }

    fn dot(&self, o: &Vector) -> f64 {
        self.0.iter().zip(o.0).map(|(a, b)| a * b).sum()
    }

    fn cross(&self, o: &Vector) -> Vector {
        let ([a, b, c], [x, y, z]) = (self.0, o.0);
        Vector([b * z - c * y, c * x - a * z, a * y - b * x])
    }

    /// The square of the straight distance, which orders as the distance along the sphere does.
    fn chord(&self, o: &Vector) -> f64 {
        self.0.iter().zip(o.0).map(|(a, b)| (a - b) * (a - b)).sum()
    }

    /// The nearest place on an edge.
    fn onto(&self, edge: &[Vector; 2]) -> Vector {
        let [a, b] = edge;
        let normal = a.cross(b);
        let square = normal.dot(&normal);
        let off = self.dot(&normal) / square;
        let foot = Vector(std::array::from_fn(|i| self.0[i] - normal.0[i] * off));
        let length = foot.dot(&foot).sqrt();
        // An edge without length has no normal, and its pole no foot: not a number, or nothing.
        let within = length > f64::EPSILON && a.cross(&foot).dot(&normal) >= 0.0 && foot.cross(b).dot(&normal) >= 0.0;
        match within {
            true => Vector(foot.0.map(|v| v / length)),
            false if self.chord(a) <= self.chord(b) => *a,
            false => *b,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::geometry::{Coord as C, Writer};
    use crate::model::{Dimension, GeometryKind};

    fn point(x: f64, y: f64) -> Geometry {
        Geometry::point(x, y).unwrap()
    }

    fn line(vertices: &[(f64, f64)]) -> Geometry {
        let mut w = Writer::new(Dimension::XY);
        w.begin(GeometryKind::LineString);
        w.count(vertices.len() as u32);
        vertices.iter().for_each(|(x, y)| w.coord(C::xy(*x, *y)));
        w.checked().unwrap()
    }

    #[track_caller]
    fn metres(a: &Geometry, b: &Geometry, expected: f64) {
        let near = |limit| Near::new(b.clone(), limit, Measure::Globe);
        assert!(near(expected * 1.0005).holds(a), "farther than {expected} m");
        assert!(!near(expected * 0.9995).holds(a), "nearer than {expected} m");
    }

    #[test]
    fn points_are_as_far_as_the_geodesic_says() {
        // Flinders Peak to Buninyong, the textbook's example for Vincenty's formulae: 54,972.271 m on GRS 80.
        metres(&point(144.424_868, -37.951_034), &point(143.926_496, -37.652_822), 54_972.3);
        assert!(Near::new(point(24.0, 60.0), 0.0, Measure::Globe).holds(&point(24.0, 60.0)));
    }

    #[test]
    fn an_edge_is_near_between_its_vertices() {
        // A degree of longitude on the equator is 111,319 m, one of latitude there 110,574 m.
        metres(&point(5.0, 1.0), &line(&[(0.0, 0.0), (10.0, 0.0)]), 110_574.0);
        metres(&line(&[(0.0, 0.0), (10.0, 0.0)]), &point(11.0, 0.0), 111_319.0);
        metres(&line(&[(0.0, 1.0), (5.0, 1.0)]), &line(&[(6.0, -3.0), (6.0, 3.0)]), 111_302.0);
    }

    #[test]
    fn the_antimeridian_and_the_poles_are_no_borders() {
        metres(&point(179.5, 0.0), &point(-179.5, 0.0), 111_319.0);
        metres(&point(0.0, 89.5), &point(180.0, 89.5), 111_694.0);
    }

    #[test]
    fn its_box_holds_all_that_is_near() {
        let near = Near::new(point(24.0, 60.0), 10_000.0, Measure::Globe);
        let bounds = near.bounds().unwrap();
        for i in 0..360 {
            let (sin, cos) = f64::from(i).to_radians().sin_cos();
            let (x, y) = (24.0 + 0.2 * cos, 60.0 + 0.1 * sin);
            let inside = bounds.intersects(&point(x, y).bounds().unwrap());
            assert!(inside || Geodesic.distance(Point::new(24.0, 60.0), Point::new(x, y)) > 10_000.0);
        }
        assert!(Near::new(point(179.99, 0.0), 10_000.0, Measure::Globe).bounds().is_none());
        assert!(Near::new(point(0.0, 89.99), 10_000.0, Measure::Globe).bounds().is_none());
    }

    #[test]
    fn on_a_plane_units_are_those_of_the_coordinates() {
        let near = Near::new(point(0.0, 0.0), 5.0, Measure::Plane);
        assert!(near.holds(&point(3.0, 4.0)) && !near.holds(&point(3.1, 4.0)));
        assert!(!near.holds(&line(&[])));
    }
}
