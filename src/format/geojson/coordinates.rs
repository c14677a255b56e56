//! A geometry object's text into a [`Geometry`].
//!
//! The text has been validated as JSON before, so this looks at the shape alone and reads coordinates straight into WKB.

use serde_json::value::RawValue;

use super::text::{ParseError, named};
use crate::model::crs::Transform;
use crate::model::geometry::{Coord, Writer};
use crate::model::{Dimension, Geometry, GeometryKind};

/// How positions are to be read.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    /// Of the geometries made.
    pub dimension: Dimension,
    /// The text has y,x.
    pub swap: bool,
    /// From the text's CRS to the stored one.
    pub transform: Option<Transform>,
    /// Vertices of one geometry, at most.
    pub max_vertices: usize,
}

/// Geometries in geometries, at most.
const MAX_DEPTH: usize = 16;

impl Positions {
    /// Reads a geometry object or null.
    pub fn geometry(&self, text: &str) -> Result<Option<Geometry>, ParseError> {
        if text == "null" {
            return Ok(None);
        }
        let mut building = Building { positions: self, writer: Writer::new(self.dimension), vertices: 0 };
        building.object(text, 0)?;
        building.writer.checked().map(Some).map_err(|e| ParseError::new(e.to_string()))
    }
}

struct Building<'a> {
    positions: &'a Positions,
    writer: Writer,
    vertices: usize,
}

impl Building<'_> {
    fn object(&mut self, text: &str, depth: usize) -> Result<(), ParseError> {
        if depth > MAX_DEPTH {
            return Err(ParseError::new(format!("geometries nested more than {MAX_DEPTH} deep")));
        }
        let [kind, coordinates, geometries] = named(text, ["type", "coordinates", "geometries"])?;
        let kind = kind.ok_or_else(|| ParseError::new("a geometry needs a member \"type\""))?;
        let kind = geometry_kind(kind)
            .ok_or_else(|| ParseError::new(format!("{} is not a GeoJSON geometry type", kind.get())).within("type"))?;
        self.writer.begin(kind);
        if kind == GeometryKind::GeometryCollection {
            let list = geometries.ok_or_else(|| ParseError::new("a GeometryCollection needs \"geometries\""))?;
            return self.collection(list.get(), depth).map_err(|e| e.within("geometries"));
        }
        let list = coordinates.ok_or_else(|| ParseError::new(format!("a {} needs \"coordinates\"", kind.name())))?;
        let mut text = Cursor { rest: list.get().as_bytes() };
        let done = match kind {
            GeometryKind::Point => self.point(&mut text),
            GeometryKind::LineString => self.line(&mut text),
            GeometryKind::Polygon => self.list(&mut text, "an array of rings", Self::line),
            GeometryKind::MultiPoint => self.list(&mut text, "an array of positions", |b, text| {
                b.writer.begin(GeometryKind::Point);
                b.point(text)
            }),
            GeometryKind::MultiLineString => self.list(&mut text, "an array of lines", |b, text| {
                b.writer.begin(GeometryKind::LineString);
                b.line(text)
            }),
            _ => self.list(&mut text, "an array of polygons", |b, text| {
                b.writer.begin(GeometryKind::Polygon);
                b.list(text, "an array of rings", Self::line)
            }),
        };
        done.map_err(|e| e.within("coordinates"))
    }

    fn collection(&mut self, text: &str, depth: usize) -> Result<(), ParseError> {
        let parts: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|_| ParseError::new("an array of geometries is expected"))?;
        self.writer.count(parts.len() as u32);
        for (i, part) in parts.iter().enumerate() {
            self.object(part.get(), depth + 1).map_err(|e| e.within(i))?;
        }
        Ok(())
    }

    fn line(&mut self, text: &mut Cursor<'_>) -> Result<(), ParseError> {
        self.list(text, "an array of positions", |b, text| {
            let coord = b.position(text)?.ok_or_else(|| ParseError::new("a position needs two numbers"))?;
            b.writer.coord(coord);
            Ok(())
        })
    }

    fn list(
        &mut self,
        text: &mut Cursor<'_>,
        what: &str,
        each: impl Fn(&mut Self, &mut Cursor<'_>) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        if !text.take(b'[') {
            return Err(ParseError::new(format!("{what} is expected")));
        }
        let place = self.writer.count_later();
        let mut n = 0;
        if !text.take(b']') {
            loop {
                each(self, text).map_err(|e| e.within(n))?;
                n += 1;
                if !text.take(b',') {
                    break;
                }
            }
            text.take(b']');
        }
        self.writer.set_count(place, n);
        Ok(())
    }

    fn point(&mut self, text: &mut Cursor<'_>) -> Result<(), ParseError> {
        const EMPTY: Coord = Coord { x: f64::NAN, y: f64::NAN, z: f64::NAN, m: f64::NAN };
        let coord = self.position(text)?.unwrap_or(EMPTY);
        self.writer.coord(coord);
        Ok(())
    }

    /// One position; `None` when it is `[]`. Ordinates after the fourth are passed over, as RFC 7946 §3.1.1 allows.
    fn position(&mut self, text: &mut Cursor<'_>) -> Result<Option<Coord>, ParseError> {
        if !text.take(b'[') {
            return Err(ParseError::new("a position is expected: an array of numbers"));
        }
        let mut ordinates = [0.0; 4];
        let mut n = 0;
        if !text.take(b']') {
            loop {
                let number = text.number().map_err(|e| e.within(n))?;
                if let Some(ordinate) = ordinates.get_mut(n) {
                    *ordinate = number;
                }
                n += 1;
                if !text.take(b',') {
                    break;
                }
            }
            text.take(b']');
        }
        self.vertices += 1;
        if self.vertices > self.positions.max_vertices {
            return Err(ParseError::new(format!("more than {} vertices", self.positions.max_vertices)));
        }
        let [mut x, mut y, z, m] = ordinates;
        match n {
            0 => return Ok(None),
            1 => return Err(ParseError::new("a position needs two numbers, this one has one")),
            _ => {}
        }
        if self.positions.swap {
            (x, y) = (y, x);
        }
        if let Some(transform) = &self.positions.transform {
            (x, y) = transform.point(x, y).map_err(|e| ParseError::new(e.to_string()))?;
        }
        Ok(Some(Coord { x, y, z, m }))
    }
}

fn geometry_kind(raw: &RawValue) -> Option<GeometryKind> {
    let name: std::borrow::Cow<'_, str> = serde_json::from_str(raw.get()).ok()?;
    GeometryKind::of_geometry(|k| k.name() == name)
}

/// A place in text that is known to be JSON.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn take(&mut self, token: u8) -> bool {
        self.rest = self.rest.trim_ascii_start();
        match self.rest {
            [first, rest @ ..] if *first == token => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn number(&mut self) -> Result<f64, ParseError> {
        self.rest = self.rest.trim_ascii_start();
        let end = self.rest.iter().position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let parsed = std::str::from_utf8(number).ok().and_then(|n| n.parse::<f64>().ok());
        let parsed = parsed.ok_or_else(|| ParseError::new("a number is expected"))?;
        if !parsed.is_finite() {
            return Err(ParseError::new("the number is too large"));
        }
        self.rest = rest;
        Ok(parsed)
    }
}
