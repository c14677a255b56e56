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
    match Bend::through(a, b, c) {
        Some(bend) => [(a, b), (b, c)].into_iter().for_each(|(from, to)| bend.follow(from, to, line)),
        None => line.extend([b, c]),
    }
}

/// The whole of the circle from `a` by `b` and `c` to `a` again; `None` where they are on one line, or two of them are one.
pub fn circle(a: Coord, b: Coord, c: Coord) -> Option<Vec<Coord>> {
    let bend = Bend::through(a, b, c).filter(|_| (a.x, a.y) != (c.x, c.y))?;
    let mut line = vec![a];
    [(a, b), (b, c), (c, a)].into_iter().for_each(|(from, to)| bend.follow(from, to, &mut line));
    Some(line)
}

/// A way round a circle.
struct Bend {
    centre: (f64, f64),
    radius: f64,
    /// Anticlockwise.
    left: bool,
}

impl Bend {
    fn through(a: Coord, b: Coord, c: Coord) -> Option<Bend> {
        let (x, y) = centre(a, b, c)?;
        let mut bend = Bend { centre: (x, y), radius: (a.x - x).hypot(a.y - y), left: true };
        // Anticlockwise if b comes before c on the way round that way.
        let whole = a.x == c.x && a.y == c.y;
        bend.left = whole || bend.turn(a, b) <= bend.turn(a, c);
        Some(bend)
    }

    fn angle(&self, p: Coord) -> f64 {
        (p.y - self.centre.1).atan2(p.x - self.centre.0)
    }

    /// Anticlockwise.
    fn turn(&self, from: Coord, to: Coord) -> f64 {
        (self.angle(to) - self.angle(from)).rem_euclid(TAU)
    }

    /// Appends what comes after `from`.
    fn follow(&self, from: Coord, to: Coord, line: &mut Vec<Coord>) {
        let angles = if self.left { self.turn(from, to) } else { -self.turn(to, from) };
        let n = (angles.abs() / TAU * SEGMENTS).ceil().max(1.0);
        // As many as a circle has at most.
        for i in 1..n as u32 {
            let part = f64::from(i) / n;
            let (sin, cos) = (self.angle(from) + angles * part).sin_cos();
            let (x, y) = (self.centre.0 + self.radius * cos, self.centre.1 + self.radius * sin);
            line.push(Coord { x, y, z: from.z + (to.z - from.z) * part, m: 0.0 });
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
    fn a_circle_goes_all_the_way_round() {
        let (a, b, c) = (at(10.0, 0.0, 0.0), at(0.0, -10.0, 4.0), at(-10.0, 0.0, 8.0));
        for [a, b, c] in [[a, b, c], [c, b, a], [b, c, a]] {
            let points = circle(a, b, c).unwrap();
            assert!(points[0] == a && points.last() == Some(&a) && points.contains(&b) && points.contains(&c));
            let area: f64 = points.windows(2).map(|p| p[0].x * p[1].y - p[1].x * p[0].y).sum();
            assert!((area.abs() / 2.0 - 100.0 * std::f64::consts::PI).abs() < 0.1, "{area}");
        }
        assert_eq!(circle(a, b, a), None);
        assert_eq!(circle(at(0.0, 0.0, 0.0), at(1.0, 1.0, 0.0), at(3.0, 3.0, 0.0)), None);
    }

    #[test]
    fn points_on_one_line_make_a_straight_one() {
        let (a, b, c) = (at(0.0, 0.0, 0.0), at(1.0, 1.0, 0.0), at(3.0, 3.0, 0.0));
        assert_eq!(line(a, b, c), [a, b, c]);
        assert_eq!(line(a, a, a), [a, a, a]);
    }
}
