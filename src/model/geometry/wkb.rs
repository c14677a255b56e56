//! Well-known binary, in and out: reading a [`Geometry`] without building a tree, building one front to back,
//! and copying what came from outside into canonical form, checked.

use super::{Coord, Dimension, Geometry, GeometryError, GeometryKind, MAX_DEPTH};

/// Reads a [`Geometry`] from its front. A geometry is: a header, then by kind
/// - `Point`: one coord (NaN, NaN when empty);
/// - `LineString`: a count and as many coords;
/// - `Polygon`: a count of rings, each a count and coords;
/// - the multis and collections: a count of geometries, each with its own header.
pub struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Reader<'_> {
    pub fn header(&mut self) -> (GeometryKind, Dimension) {
        self.at += 1;
        let code = self.count();
        let dimension = match code / 1000 {
            1 => Dimension::XYZ,
            2 => Dimension::XYM,
            3 => Dimension::XYZM,
            _ => Dimension::XY,
        };
        (GeometryKind::from_code(code % 1000).unwrap_or(GeometryKind::GeometryCollection), dimension)
    }

    pub fn count(&mut self) -> u32 {
        let b = &self.bytes[self.at..self.at + 4];
        self.at += 4;
        u32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }

    pub fn coord(&mut self, dimension: Dimension) -> Coord {
        let mut c = Coord { x: self.ordinate(), y: self.ordinate(), z: 0.0, m: 0.0 };
        if dimension.has_z() {
            c.z = self.ordinate();
        }
        if dimension.has_m() {
            c.m = self.ordinate();
        }
        c
    }

    fn ordinate(&mut self) -> f64 {
        let v = f64::from_le_bytes(eight(&self.bytes[self.at..self.at + 8]));
        self.at += 8;
        v
    }

    /// Every vertex in order, those of empty points left out.
    pub fn each_coord(&mut self, f: &mut dyn FnMut(Coord)) {
        let (kind, dimension) = self.header();
        match kind {
            GeometryKind::Point => {
                let c = self.coord(dimension);
                if !c.x.is_nan() {
                    f(c);
                }
            }
            GeometryKind::LineString => self.each_of_line(dimension, f),
            GeometryKind::Polygon => {
                for _ in 0..self.count() {
                    self.each_of_line(dimension, f);
                }
            }
            _ => {
                for _ in 0..self.count() {
                    self.each_coord(f);
                }
            }
        }
    }

    fn each_of_line(&mut self, dimension: Dimension, f: &mut dyn FnMut(Coord)) {
        for _ in 0..self.count() {
            f(self.coord(dimension));
        }
    }
}

/// Builds a geometry front to back, in the order that [`Reader`] reads. Counts that are not known yet are written as a
/// placeholder by [`Writer::count_later`] and filled by [`Writer::set_count`].
pub struct Writer {
    pub(super) bytes: Vec<u8>,
    pub(super) dimension: Dimension,
}

impl Writer {
    pub fn new(dimension: Dimension) -> Writer {
        Writer { bytes: Vec::with_capacity(32), dimension }
    }

    pub fn begin(&mut self, kind: GeometryKind) {
        self.bytes.push(1);
        self.count(kind.code() + self.dimension.iso_offset());
    }

    pub fn count(&mut self, n: u32) {
        self.bytes.extend_from_slice(&n.to_le_bytes());
    }

    pub fn count_later(&mut self) -> usize {
        self.count(0);
        self.bytes.len() - 4
    }

    pub fn set_count(&mut self, place: usize, n: u32) {
        self.bytes[place..place + 4].copy_from_slice(&n.to_le_bytes());
    }

    pub fn coord(&mut self, c: Coord) {
        self.bytes.extend_from_slice(&c.x.to_le_bytes());
        self.bytes.extend_from_slice(&c.y.to_le_bytes());
        if self.dimension.has_z() {
            self.bytes.extend_from_slice(&c.z.to_le_bytes());
        }
        if self.dimension.has_m() {
            self.bytes.extend_from_slice(&c.m.to_le_bytes());
        }
    }

    /// Bytes so far; for limits.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written from outside is checked as a whole.
    pub fn checked(self) -> Result<Geometry, GeometryError> {
        Geometry::from_wkb(&self.bytes)
    }

    pub(super) fn finish(self) -> Geometry {
        Geometry(self.bytes.into())
    }
}

/// WKB of unknown origin.
pub(super) struct Source<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Source<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8], GeometryError> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len()).ok_or(GeometryError::Length)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn u32(&mut self, little: bool) -> Result<u32, GeometryError> {
        let b = self.take(4)?;
        let b = [b[0], b[1], b[2], b[3]];
        Ok(if little { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) })
    }

    fn f64(&mut self, little: bool) -> Result<f64, GeometryError> {
        let b = eight(self.take(8)?);
        Ok(if little { f64::from_le_bytes(b) } else { f64::from_be_bytes(b) })
    }

    fn coord(&mut self, little: bool, dimension: Dimension) -> Result<Coord, GeometryError> {
        let mut c = Coord { x: self.f64(little)?, y: self.f64(little)?, z: 0.0, m: 0.0 };
        if dimension.has_z() {
            c.z = self.f64(little)?;
        }
        if dimension.has_m() {
            c.m = self.f64(little)?;
        }
        Ok(c)
    }
}

pub(super) fn copy(
    s: &mut Source<'_>,
    w: &mut Writer,
    outer: Option<(GeometryKind, Dimension)>,
    depth: u32,
) -> Result<(), GeometryError> {
    if depth > MAX_DEPTH {
        return Err(GeometryError::Depth);
    }
    let little = s.take(1)?[0] == 1;
    let code = s.u32(little)?;
    let (ez, em, srid) = (code & 0x8000_0000 != 0, code & 0x4000_0000 != 0, code & 0x2000_0000 != 0);
    let iso = code & 0x0fff_ffff;
    let kind = GeometryKind::from_code(iso % 1000).filter(|_| iso < 4000).ok_or(GeometryError::Kind(iso))?;
    let dimension = Dimension::new(ez || matches!(iso / 1000, 1 | 3), em || matches!(iso / 1000, 2 | 3));
    if srid {
        s.take(4)?;
    }
    match outer {
        None => w.dimension = dimension,
        Some((o, d)) => {
            let fits = o == GeometryKind::GeometryCollection || kind.multi() == Some(o);
            if !fits || d != dimension {
                return Err(GeometryError::Nesting { inner: kind, outer: o });
            }
        }
    }
    w.begin(kind);
    match kind {
        GeometryKind::Point => {
            let c = s.coord(little, dimension)?;
            let empty = c.x.is_nan() && c.y.is_nan();
            let finite = c.x.is_finite() && c.y.is_finite() && c.z.is_finite() && c.m.is_finite();
            if !empty && !finite {
                return Err(GeometryError::NotFinite);
            }
            w.coord(if empty { Coord { x: f64::NAN, y: f64::NAN, z: f64::NAN, m: f64::NAN } } else { c });
        }
        GeometryKind::LineString => {
            if copy_line(s, w, little, dimension)?.0 == 1 {
                return Err(GeometryError::ShortLine);
            }
        }
        GeometryKind::Polygon => {
            let rings = s.u32(little)?;
            w.count(rings);
            for _ in 0..rings {
                match copy_line(s, w, little, dimension)? {
                    (0, _) => {}
                    (n, _) if n < 4 => return Err(GeometryError::ShortRing(n)),
                    (_, false) => return Err(GeometryError::OpenRing),
                    _ => {}
                }
            }
        }
        _ => {
            let parts = s.u32(little)?;
            w.count(parts);
            for _ in 0..parts {
                copy(s, w, Some((kind, dimension)), depth + 1)?;
            }
        }
    }
    Ok(())
}

/// Copies a count and its vertices; says how many they were and whether the last is the first.
fn copy_line(
    s: &mut Source<'_>,
    w: &mut Writer,
    little: bool,
    dimension: Dimension,
) -> Result<(u32, bool), GeometryError> {
    let n = s.u32(little)?;
    w.count(n);
    let (mut first, mut last) = (Coord::default(), Coord::default());
    for i in 0..n {
        let c = s.coord(little, dimension)?;
        if !(c.x.is_finite() && c.y.is_finite() && c.z.is_finite() && c.m.is_finite()) {
            return Err(GeometryError::NotFinite);
        }
        if i == 0 {
            first = c;
        }
        last = c;
        w.coord(c);
    }
    Ok((n, first.x == last.x && first.y == last.y))
}

pub(super) fn eight(b: &[u8]) -> [u8; 8] {
    [b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]
}
