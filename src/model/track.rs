//! Tracks: lines of fixes, each vertex a position with its time as M, in seconds since the epoch.
//!
//! A track is a set of fixes by time, and its line is a function of that set: in the order of time, cut into parts where the
//! type says so. So fixes may come late, twice, and from several writers, and the line is the same.
//!
//! Invariant: M rises strictly from vertex to vertex, as PostGIS's `ST_IsValidTrajectory` asks. A line needs two vertices: of a
//! part with one fix the vertex stands twice, the second time later by the smallest step of a double (a quarter of a
//! microsecond), and is taken for one again when it is read. No simple alternative is read by all: GEOS and GeoJSON refuse a
//! line of one vertex, and a point does not fit into a column of lines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::geometry::{Coord, Reader, Writer};
use super::{Dimension, FeatureId, Geometry, GeometryError, GeometryKind, Offset, Value};

/// The settings of a type whose features are tracks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackSettings {
    /// A silence of more than so many seconds begins a new part of a MultiLineString.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_seconds: Option<f64>,
    /// And so does a leap of more than so many metres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_metres: Option<f64>,
}

/// How the lines of a type are made of fixes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackShape {
    pub kind: GeometryKind,
    pub dimension: Dimension,
    pub settings: TrackSettings,
    /// Ordinates are degrees; else metres.
    pub geographic: bool,
}

/// What a track has got since a version of it: enough to make the one of the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    pub id: FeatureId,
    /// The offset of the track's last change.
    pub version: Offset,
    /// Every fix that came after this version is here, and nothing but appends did.
    pub builds_on: Offset,
    /// All of them, as they are now, by property id.
    pub properties: Vec<Value>,
    /// The fixes in the order of the log: a MultiPoint.
    pub fixes: Geometry,
}

impl Growth {
    /// The value of property `slot`; null when the track has none.
    pub fn value(&self, slot: usize) -> &Value {
        self.properties.get(slot).unwrap_or(&Value::Null)
    }
}

/// A time as it orders fixes: seconds since the epoch, finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time(f64);

impl Eq for Time {}
impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Time {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Fixes by their time: of two at one time the later one to come counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fixes(BTreeMap<Time, Coord>);

impl Fixes {
    /// Bytes that a fix holds, about.
    pub const BYTES: usize = 48;

    pub fn set(&mut self, fix: Coord) {
        // -0.0 and 0.0 are one time.
        self.0.insert(Time(fix.m + 0.0), fix);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fixes of a line. What another program has put there out of order is put in order.
    pub fn of(line: &Geometry) -> Fixes {
        let mut fixes = Fixes::default();
        each_fix(line, |fix| fixes.set(fix));
        fixes
    }
}

/// Every fix of a line, vertices that stand twice once.
pub fn each_fix(line: &Geometry, mut f: impl FnMut(Coord)) {
    let mut last: Option<Coord> = None;
    line.reader().each_coord(&mut |c| {
        if last.is_some_and(|l| c == closing(l)) {
            return;
        }
        last = Some(c);
        f(c);
    });
}

/// The vertex behind that of a part's only fix.
fn closing(fix: Coord) -> Coord {
    Coord { m: fix.m.next_up(), ..fix }
}

impl TrackShape {
    /// The line of these fixes, on top of `base`; costs as much as both have vertices. `None`: there are none.
    pub fn line(&self, base: Option<&Geometry>, fixes: &Fixes) -> Option<Geometry> {
        let mut all = base.map(Fixes::of).unwrap_or_default();
        fixes.0.values().for_each(|fix| all.set(*fix));
        let all: Vec<Coord> = all.0.into_values().collect();
        let parts: Vec<&[Coord]> = match self.kind {
            _ if all.is_empty() => return None,
            GeometryKind::MultiLineString => all.chunk_by(|a, b| !self.is_gap(a, b)).collect(),
            _ => vec![&all],
        };
        let mut w = Writer::new(self.dimension);
        if self.kind == GeometryKind::MultiLineString {
            w.begin(GeometryKind::MultiLineString);
            w.count(parts.len() as u32);
        }
        for part in parts {
            w.begin(GeometryKind::LineString);
            w.count(part.len().max(2) as u32);
            part.iter().for_each(|fix| w.coord(*fix));
            if let [only] = part {
                w.coord(closing(*only));
            }
        }
        // Fixes are finite, so this is a geometry.
        w.checked().ok()
    }

    /// The line with further fixes, the points of a geometry in their order.
    pub fn grown(&self, base: Option<&Geometry>, points: &Geometry) -> Option<Geometry> {
        let mut fixes = Fixes::default();
        points.reader().each_coord(&mut |fix| fixes.set(fix));
        self.line(base, &fixes)
    }

    /// How many fixes there are in what [`Self::points`] has made.
    pub fn count(&self, points: &Geometry) -> usize {
        let mut count = 0;
        points.reader().each_coord(&mut |_| count += 1);
        count
    }

    /// Fixes as a MultiPoint. `None`: there are none.
    pub fn points(&self, fixes: impl ExactSizeIterator<Item = Coord>) -> Option<Geometry> {
        let mut w = Writer::new(self.dimension);
        w.begin(GeometryKind::MultiPoint);
        w.count(fixes.len() as u32);
        let some = fixes.len() > 0;
        fixes.for_each(|fix| {
            w.begin(GeometryKind::Point);
            w.coord(fix);
        });
        w.checked().ok().filter(|_| some)
    }

    /// About how many vertices a line has.
    pub fn vertices(&self, line: &Geometry) -> usize {
        line.wkb().len() / (self.dimension.size() * size_of::<f64>())
    }

    fn is_gap(&self, a: &Coord, b: &Coord) -> bool {
        self.settings.gap_seconds.is_some_and(|most| b.m - a.m > most)
            || self.settings.gap_metres.is_some_and(|most| self.metres(a, b) > most)
    }

    /// On a sphere where ordinates are degrees: near enough to tell a leap from a step.
    fn metres(&self, a: &Coord, b: &Coord) -> f64 {
        if !self.geographic {
            return (b.x - a.x).hypot(b.y - a.y);
        }
        const RADIUS: f64 = 6_371_008.8;
        let half = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
        let h = half(b.y - a.y) + a.y.to_radians().cos() * b.y.to_radians().cos() * half(b.x - a.x);
        2.0 * RADIUS * h.sqrt().min(1.0).asin()
    }

    /// Holds a line that was written whole against the rule: M rises strictly.
    pub fn check(&self, line: &Geometry) -> Result<(), GeometryError> {
        let mut last = f64::NEG_INFINITY;
        let mut rises = true;
        Reader::each_coord(&mut line.reader(), &mut |c| {
            rises &= c.m > last;
            last = c.m;
        });
        if rises { Ok(()) } else { Err(GeometryError::NoTrajectory) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(kind: GeometryKind, gap_seconds: Option<f64>) -> TrackShape {
        let settings = TrackSettings { gap_seconds, gap_metres: None };
        TrackShape { kind, dimension: Dimension::XYM, settings, geographic: true }
    }

    fn fixes(times: &[(f64, f64)]) -> Fixes {
        let mut fixes = Fixes::default();
        times.iter().for_each(|(m, x)| fixes.set(Coord { x: *x, y: 0.0, z: 0.0, m: *m }));
        fixes
    }

    fn told(line: &Geometry) -> Vec<(f64, f64)> {
        let mut told = Vec::new();
        each_fix(line, |c| told.push((c.m, c.x)));
        told
    }

    #[test]
    fn a_single_fix_is_a_trajectory_and_is_read_as_one() {
        let shape = shape(GeometryKind::LineString, None);
        let line = shape.line(None, &fixes(&[(1.7e9, 5.0)])).unwrap();
        shape.check(&line).unwrap();
        assert_eq!(told(&line), [(1.7e9, 5.0)]);
        let longer = shape.line(Some(&line), &fixes(&[(1.7e9 + 1.0, 6.0)])).unwrap();
        assert_eq!(told(&longer), [(1.7e9, 5.0), (1.7e9 + 1.0, 6.0)]);
        assert_eq!(longer.wkb().len(), 9 + 2 * 24);
        assert_eq!(shape.line(None, &Fixes::default()), None);
    }

    #[test]
    fn a_silence_begins_a_part_and_a_late_fix_may_join_two() {
        let shape = shape(GeometryKind::MultiLineString, Some(10.0));
        let line = shape.line(None, &fixes(&[(0.0, 0.0), (1.0, 1.0), (20.0, 2.0)])).unwrap();
        assert_eq!((line.kind(), line.wkb().len()), (GeometryKind::MultiLineString, 9 + 2 * (9 + 2 * 24)));
        let joined = shape.line(Some(&line), &fixes(&[(10.5, 1.5)])).unwrap();
        assert_eq!(joined.wkb().len(), 9 + 9 + 4 * 24);
    }

    #[test]
    fn a_leap_begins_a_part() {
        let settings = TrackSettings { gap_seconds: None, gap_metres: Some(120_000.0) };
        let shape = TrackShape { settings, ..shape(GeometryKind::MultiLineString, None) };
        // A degree on the equator has 111.2 km.
        let line = shape.line(None, &fixes(&[(0.0, 179.5), (1.0, -179.5), (2.0, -178.0)])).unwrap();
        assert_eq!(line.wkb().len(), 9 + 2 * (9 + 2 * 24));
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(
            times in proptest::collection::vec((0_u8..40, 0_u8..9), 1..30), cut in 0_usize..30, twice in 0_usize..30
        ) {
            let of = |some: &[(u8, u8)]| fixes(&some.iter().map(|(m, x)| (f64::from(*m), f64::from(*x))).collect::<Vec<_>>());
            let unique: BTreeMap<u8, u8> = times.iter().copied().collect();
            let mut any_order: Vec<(u8, u8)> = unique.clone().into_iter().collect();
            any_order.sort_by_key(|(m, x)| (x.wrapping_mul(*m), *m));
            for shape in [shape(GeometryKind::LineString, None), shape(GeometryKind::MultiLineString, Some(3.0))] {
                let whole = shape.line(None, &of(&unique.clone().into_iter().collect::<Vec<_>>())).unwrap();
                let (first, second) = any_order.split_at(cut.min(any_order.len()));
                let base = shape.line(None, &of(first));
                let (again, _) = any_order.split_at(twice.min(any_order.len()));
                let in_two = shape.line(base.as_ref(), &of(second)).unwrap();
                let replayed = shape.line(Some(&in_two), &of(again)).unwrap();
                prop_assert_eq!(&in_two, &whole);
                prop_assert_eq!(&replayed, &whole);
                prop_assert!(shape.check(&whole).is_ok());
                prop_assert_eq!(told(&whole).len(), unique.len());
            }
        }
    }
}
