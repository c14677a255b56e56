//! Geometries as well-known text (OGC 06-103r4, 7.2).

use crate::format::gml::write_number;
use crate::model::geometry::{Coord, Reader};
use crate::model::{Dimension, Geometry, GeometryKind};

/// Appends a geometry; `swap` writes y before x.
pub fn write(out: &mut Vec<u8>, geometry: &Geometry, swap: bool) {
    part(out, &mut geometry.reader(), swap);
}

fn part(out: &mut Vec<u8>, r: &mut Reader<'_>, swap: bool) {
    let (kind, dimension) = r.header();
    out.extend(kind.name().bytes().map(|b| b.to_ascii_uppercase()));
    out.extend_from_slice(match (dimension.has_z(), dimension.has_m()) {
        (false, false) => b" ",
        (true, false) => b" Z ",
        (false, true) => b" M ",
        (true, true) => b" ZM " as &[u8],
    });
    body(out, r, kind, dimension, swap);
}

fn body(out: &mut Vec<u8>, r: &mut Reader<'_>, kind: GeometryKind, dimension: Dimension, swap: bool) {
    let line =
        |out: &mut Vec<u8>, r: &mut Reader<'_>| list(out, r, |out, r| coord(out, r.coord(dimension), dimension, swap));
    match kind {
        GeometryKind::Point => match r.coord(dimension) {
            c if c.x.is_nan() => out.extend_from_slice(b"EMPTY"),
            c => {
                out.push(b'(');
                coord(out, c, dimension, swap);
                out.push(b')');
            }
        },
        GeometryKind::LineString => line(out, r),
        GeometryKind::Polygon => list(out, r, line),
        GeometryKind::MultiPoint | GeometryKind::MultiLineString | GeometryKind::MultiPolygon => {
            list(out, r, |out, r| {
                let (kind, dimension) = r.header();
                body(out, r, kind, dimension, swap);
            })
        }
        GeometryKind::GeometryCollection | GeometryKind::Geometry => list(out, r, |out, r| part(out, r, swap)),
    }
}

fn list(out: &mut Vec<u8>, r: &mut Reader<'_>, each: impl Fn(&mut Vec<u8>, &mut Reader<'_>)) {
    let n = r.count();
    if n == 0 {
        return out.extend_from_slice(b"EMPTY");
    }
    for i in 0..n {
        out.push(if i == 0 { b'(' } else { b',' });
        each(out, r);
    }
    out.push(b')');
}

fn coord(out: &mut Vec<u8>, c: Coord, dimension: Dimension, swap: bool) {
    let (first, second) = if swap { (c.y, c.x) } else { (c.x, c.y) };
    write_number(out, first);
    for ordinate in
        [Some(second), dimension.has_z().then_some(c.z), dimension.has_m().then_some(c.m)].into_iter().flatten()
    {
        out.push(b' ');
        write_number(out, ordinate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::geometry::Writer;

    fn text(g: &Geometry, swap: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, g, swap);
        String::from_utf8(out).unwrap()
    }

    fn built(dimension: Dimension, build: impl FnOnce(&mut Writer)) -> Geometry {
        let mut w = Writer::new(dimension);
        build(&mut w);
        w.checked().unwrap()
    }

    fn line(w: &mut Writer, all: &[[f64; 4]]) {
        w.count(all.len() as u32);
        all.iter().for_each(|[x, y, z, m]| w.coord(Coord { x: *x, y: *y, z: *z, m: *m }));
    }

    #[test]
    fn every_kind_is_written() {
        assert_eq!(text(&Geometry::point(1.5, -2e21).unwrap(), false), "POINT (1.5 -2000000000000000000000)");
        assert_eq!(text(&Geometry::point(24.0, 60.0).unwrap(), true), "POINT (60 24)");
        let zm = built(Dimension::new(true, true), |w| {
            w.begin(GeometryKind::LineString);
            line(w, &[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]);
        });
        assert_eq!(text(&zm, false), "LINESTRING ZM (1 2 3 4,5 6 7 8)");
        let ring = [[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]];
        let polygon = |w: &mut Writer| {
            w.begin(GeometryKind::Polygon);
            w.count(1);
            line(w, &ring);
        };
        assert_eq!(text(&built(Dimension::XY, polygon), false), "POLYGON ((0 0,1 0,1 1,0 0))");
        let all = built(Dimension::XY, |w| {
            w.begin(GeometryKind::GeometryCollection);
            w.count(3);
            w.begin(GeometryKind::MultiPoint);
            w.count(1);
            w.begin(GeometryKind::Point);
            w.coord(Coord::xy(1.0, 2.0));
            w.begin(GeometryKind::MultiPolygon);
            w.count(1);
            polygon(w);
            w.begin(GeometryKind::LineString);
            w.count(0);
        });
        assert_eq!(
            text(&all, false),
            "GEOMETRYCOLLECTION (MULTIPOINT ((1 2)),MULTIPOLYGON (((0 0,1 0,1 1,0 0))),LINESTRING EMPTY)"
        );
    }
}
