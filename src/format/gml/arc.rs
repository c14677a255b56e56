//! Arcs of circles, as the lines that are stored in their place.
//!
//! A line has [`SEGMENTS`] to a whole turn, so it is nowhere further from its arc than 0.0001 of the radius. The points that
//! the arc was given by are on it as they were.

use std::f64::consts::TAU;

use crate::model::geometry::Coord;

const SEGMENTS: f64 = 256.0;

/// Appends what comes after `a` of the arc from `a` by `b` to `c`. Points on one line are an arc without a bend; where `c` is
/// `a`, the arc is a circle with `b` across from it.
pub fn arc(a: Coord, b: Coord, c: Coord, line: &mut Vec<Coord>) {
    let Some((x, y)) = centre(a, b, c) else {
        line.extend([b, c]);
        return;
    };
    let radius = (a.x - x).hypot(a.y - y);
    let angle = |p: Coord| (p.y - y).atan2(p.x - x);
    let turn = |from: Coord, to: Coord| (angle(to) - angle(from)).rem_euclid(TAU);
    // Anticlockwise if b comes before c on the way round that way.
    let whole = a.x == c.x && a.y == c.y;
    let left = whole || turn(a, b) <= turn(a, c);
    for (from, to) in [(a, b), (b, c)] {
        let angles = if left { turn(from, to) } else { -turn(to, from) };
        let n = (angles.abs() / TAU * SEGMENTS).ceil().max(1.0);
        // As many as a circle has at most.
        for i in 1..n as u32 {
            let part = f64::from(i) / n;
            let (sin, cos) = (angle(from) + angles * part).sin_cos();
            line.push(Coord { x: x + radius * cos, y: y + radius * sin, z: from.z + (to.z - from.z) * part, m: 0.0 });
        }
        line.push(to);
    }
}

/// Of the circle through three points; `None` where they are on one line.
fn centre(a: Coord, b: Coord, c: Coord) -> Option<(f64, f64)> {
    let (bx, by, cx, cy) = (b.x - a.x, b.y - a.y, c.x - a.x, c.y - a.y);
    if cx == 0.0 && cy == 0.0 {
        return (bx != 0.0 || by != 0.0).then_some((a.x + bx / 2.0, a.y + by / 2.0));
    }
    let cross = 2.0 * (bx * cy - by * cx);
    let (b2, c2) = (bx * bx + by * by, cx * cx + cy * cy);
    let (x, y) = ((cy * b2 - by * c2) / cross, (bx * c2 - cx * b2) / cross);
    // A centre that far away is one of a straight line, within the precision of the numbers.
    (x.hypot(y) < 1e9 * b2.max(c2).sqrt()).then_some((a.x + x, a.y + y))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f64, y: f64, z: f64) -> Coord {
        Coord { x, y, z, m: 0.0 }
    }

    fn line(a: Coord, b: Coord, c: Coord) -> Vec<Coord> {
        let mut line = vec![a];
        arc(a, b, c, &mut line);
        line
    }

    #[test]
    fn an_arc_keeps_its_points_and_stays_near_its_circle() {
        for (a, b, c, segments) in [
            (at(10.0, 0.0, 0.0), at(0.0, 10.0, 4.0), at(-10.0, 0.0, 8.0), 128),
            (at(-10.0, 0.0, 0.0), at(0.0, 10.0, 4.0), at(10.0, 0.0, 8.0), 128),
            (at(0.0, -10.0, 0.0), at(0.0, 10.0, 4.0), at(-10.0, 0.0, 8.0), 192),
            (at(10.0, 0.0, 0.0), at(-10.0, 0.0, 4.0), at(10.0, 0.0, 8.0), 256),
        ] {
            let points = line(a, b, c);
            assert_eq!(points.len(), segments + 1, "{a:?}");
            assert!(points[0] == a && *points.last().unwrap() == c && points.contains(&b), "{a:?}");
            for pair in points.windows(2) {
                let (x, y) = ((pair[0].x + pair[1].x) / 2.0, (pair[0].y + pair[1].y) / 2.0);
                assert!((x.hypot(y) - 10.0).abs() < 1e-3, "{pair:?}");
                assert!(pair[1].z > pair[0].z, "{pair:?}");
            }
        }
    }

    #[test]
    fn points_on_one_line_make_a_straight_one() {
        let (a, b, c) = (at(0.0, 0.0, 0.0), at(1.0, 1.0, 0.0), at(3.0, 3.0, 0.0));
        assert_eq!(line(a, b, c), [a, b, c]);
        assert_eq!(line(a, a, a), [a, a, a]);
    }
}
