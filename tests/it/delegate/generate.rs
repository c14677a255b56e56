//! Features and filters out of a seed, over every property type, geometry and operator.

use alluvium::model::crs::{Crs, Transform};
use alluvium::model::geometry::{Coord, Writer};
use alluvium::model::{Dimension, Feature, FeatureType, Geometry, GeometryKind, PropertyType, Rect, Value};
use alluvium::query::distance::{Measure, Near};
use alluvium::query::filter::{LikePattern, SpatialLiteral};
use alluvium::query::foreign_box::ForeignBox;
use alluvium::query::function::Function;
use alluvium::query::{CompareOp, Filter, Operand, SpatialOp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub struct Generator(StdRng);

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator(StdRng::seed_from_u64(seed))
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Few different values, so that ties, equalities and ranges occur.
    pub fn value(&mut self, kind: PropertyType) -> Value {
        if self.one_in(6) {
            return Value::Null;
        }
        let n = self.below(7) as i64 - 3;
        match kind {
            PropertyType::String => {
                Value::String(self.pick(&["", "a", "A", "ab", "aé", "z", "*[a]?_%\\", "日本", "🚢"]).into())
            }
            PropertyType::Int32 => Value::Int(self.pick(&[n, n, i32::MAX.into(), i32::MIN.into()])),
            PropertyType::Int64 => {
                Value::Int(self.pick(&[n, n, i64::MAX, i64::MAX - 1, i64::MIN, 1 << 53, (1 << 53) + 1]))
            }
            PropertyType::Number => {
                Value::Number(self.pick(&[n as f64, -0.0, 0.1, 1e300, -1e-300, 9_007_199_254_740_993.0]))
            }
            PropertyType::Boolean => Value::Bool(n > 0),
            PropertyType::Date => Value::Date(n as i32),
            PropertyType::DateTime => Value::DateTime(self.pick(&[n, n * 1_000_000, n * 86_400_000_000])),
            PropertyType::Uuid => Value::Uuid([(n * 60) as u8; 16]),
            PropertyType::Json => Value::Json(self.pick(&["{}", "[1,2]", "{\"a\":\"é\"}", "null", "1"]).into()),
            PropertyType::Bytes => Value::Bytes(self.pick(&[&b""[..], b"\0", b"\0\xff", b"\xff"]).into()),
        }
    }

    fn coordinate(&mut self) -> f64 {
        // Some lie on the borders of boxes, some a little beside, closer than single precision can tell.
        self.below(11) as f64 - 5.0 + self.pick(&[0.0, 0.0, 1e-12, -1e-12, 0.3])
    }

    pub fn geometry(&mut self, kind: GeometryKind) -> Option<Geometry> {
        if self.one_in(8) {
            return None;
        }
        let kind = match kind {
            GeometryKind::Geometry => self.pick(&[
                GeometryKind::Point,
                GeometryKind::LineString,
                GeometryKind::Polygon,
                GeometryKind::MultiPoint,
            ]),
            kind => kind,
        };
        let vertices = if self.one_in(10) { 0 } else { 1 + self.below(4) };
        let center = (self.coordinate(), self.coordinate());
        Some(shape(kind, Dimension::XY, vertices as u32, center))
    }

    pub fn feature(&mut self, feature_type: &FeatureType, id: &str) -> Feature {
        Feature {
            id: id.into(),
            geometry: feature_type.geometry.and_then(|g| self.geometry(g.kind)),
            properties: feature_type.properties.iter().map(|p| self.value(p.kind)).collect(),
        }
    }

    fn operand(&mut self, kinds: &[PropertyType], slot: usize) -> Operand {
        match self.below(8) {
            0 => Operand::Property(self.below(kinds.len())),
            1 => Operand::Property(kinds.len()),
            4 if self.one_in(2) => Operand::Call {
                function: self.pick(&[
                    Function::Add,
                    Function::Divide,
                    Function::Modulo,
                    Function::Power,
                    Function::FoldCase,
                    Function::DropAccents,
                    Function::Length,
                    Function::IsPoint,
                ]),
                arguments: vec![Operand::Property(slot), Operand::Literal(self.value(kinds[slot]))],
            },
            2 => Operand::Id,
            // Of another type now and then; a whole number for a double often.
            3 => {
                let kind = self.pick(kinds);
                Operand::Literal(self.value(kind))
            }
            _ => Operand::Literal(self.value(kinds[slot])),
        }
    }

    fn rect(&mut self) -> Rect {
        let (x, y) = (self.coordinate(), self.coordinate());
        Rect { min_x: x, min_y: y, max_x: x + self.below(4) as f64, max_y: y + self.below(4) as f64 }
    }

    pub fn filter(&mut self, feature_type: &FeatureType, ids: &[&str], depth: usize) -> Filter {
        let kinds: Vec<PropertyType> = feature_type.properties.iter().map(|p| p.kind).collect();
        let slot = self.below(kinds.len());
        let property = if self.one_in(12) { Operand::Id } else { Operand::Property(slot) };
        let match_case = !self.one_in(4);
        match self.below(if depth == 0 { 9 } else { 14 }) {
            0 => Filter::All,
            1 | 2 => {
                use CompareOp::*;
                let op = self.pick(&[Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual]);
                let other = self.operand(&kinds, slot);
                let (left, right) = if self.one_in(3) { (other, property) } else { (property, other) };
                Filter::Compare { op, left, right, match_case }
            }
            3 => Filter::Between { value: property, low: self.operand(&kinds, slot), high: self.operand(&kinds, slot) },
            4 => {
                let text = self.pick(&["*", "a*", "?", "*a*", "\\*[*", "?é", "A?", "*_%\\\\", "日*", ""]);
                Filter::Like { value: property, pattern: LikePattern::parse(text, "*", "?", "\\"), match_case }
            }
            5 => Filter::IsNull(if self.one_in(3) { Operand::Geometry } else { property }),
            6 => Filter::ids((0..self.below(4)).map(|_| self.pick(ids).into()).collect::<Vec<_>>()),
            7 if self.one_in(3) => {
                let (own, other) = (
                    Crs::from_epsg(feature_type.geometry.map_or(4326, |g| g.epsg)).unwrap(),
                    Crs::from_epsg(25832).unwrap(),
                );
                let there = Transform::between(own, other).map_or(Ok(self.rect()), |t| t.rect(self.rect())).unwrap();
                ForeignBox::filter(there, other, own).unwrap()
            }
            7 => Filter::Bbox(self.rect()),
            8 => {
                use SpatialOp::*;
                let op = self.pick(&[Intersects, Disjoint, Within, Contains, Touches, Crosses, Overlaps, Equals]);
                let center = (self.coordinate(), self.coordinate());
                let vertices = 1 + self.below(4) as u32;
                let literal = SpatialLiteral::new(shape(GeometryKind::Polygon, Dimension::XY, vertices, center));
                if self.one_in(4) {
                    let (measure, limit) = self.pick(&[(Measure::Plane, 1.5), (Measure::Globe, 200_000.0)]);
                    return Filter::Near(Near::new(literal.geometry, limit, measure).into());
                }
                Filter::Spatial { op, literal: literal.into() }
            }
            9 | 10 => Filter::And((0..self.below(4)).map(|_| self.filter(feature_type, ids, depth - 1)).collect()),
            11 | 12 => Filter::Or((0..self.below(4)).map(|_| self.filter(feature_type, ids, depth - 1)).collect()),
            _ => Filter::Not(Box::new(self.filter(feature_type, ids, depth - 1))),
        }
    }
}

/// A geometry of any kind and dimension about a center; empty with `size` 0.
pub fn shape(kind: GeometryKind, dimension: Dimension, size: u32, center: (f64, f64)) -> Geometry {
    let mut w = Writer::new(dimension);
    write_shape(&mut w, kind, size, center);
    w.checked().unwrap()
}

fn write_shape(w: &mut Writer, kind: GeometryKind, size: u32, (x, y): (f64, f64)) {
    let coord = |i: u32| {
        let angle = f64::from(i);
        Coord { x: x + angle.sin() * f64::from(size), y: y + angle.cos(), z: angle + 0.5, m: -angle }
    };
    w.begin(kind);
    match kind {
        GeometryKind::Point if size == 0 => {
            w.coord(Coord { x: f64::NAN, y: f64::NAN, z: f64::NAN, m: f64::NAN });
        }
        GeometryKind::Point => w.coord(Coord { x, y, ..coord(1) }),
        GeometryKind::LineString => {
            let vertices = if size == 0 { 0 } else { size + 1 };
            w.count(vertices);
            (0..vertices).for_each(|i| w.coord(coord(i)));
        }
        GeometryKind::Polygon => {
            w.count(size.min(1));
            if size > 0 {
                let side = f64::from(size);
                let ring = [(0.0, 0.0), (side, 0.0), (side, 1.0), (0.0, 1.0), (0.0, 0.0)];
                w.count(ring.len() as u32);
                ring.iter().for_each(|(dx, dy)| w.coord(Coord { x: x + dx, y: y + dy, ..coord(2) }));
            }
        }
        multi => {
            let part = match multi {
                GeometryKind::MultiPoint => GeometryKind::Point,
                GeometryKind::MultiLineString => GeometryKind::LineString,
                GeometryKind::MultiPolygon => GeometryKind::Polygon,
                _ => GeometryKind::MultiPoint,
            };
            w.count(size);
            (0..size).for_each(|i| write_shape(w, part, 1, (x + f64::from(i), y)));
        }
    }
}
