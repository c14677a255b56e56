//! Tracks derived from points: what a write to a feature type adds to the types that are tracks of it.
//!
//! The fixes stand in the same append as the positions: both are durable or neither, and nothing has to be made up for after a
//! crash. What another program writes into the log of the points by itself passes by here, and grows no track.

use crate::model::crs::{Crs, Transform};
use crate::model::geometry::Coord;
use crate::model::{Append, Change, FeatureId, FeatureType, Geometry, GeometryKind, PropertyType, Value};

/// The fixes that these changes of `points` mean for `tracks`. A fix has the time of the point's first property of type
/// date-time; where there is none, or it is null, that of the write.
pub fn appends(points: &FeatureType, tracks: &FeatureType, changes: &[Change], now_ms: i64) -> Vec<Append> {
    let crs = |ft: &FeatureType| ft.geometry.and_then(|g| Crs::from_epsg(g.epsg)).unwrap_or(Crs::WGS84);
    let derive = Derive {
        tracks,
        transform: Transform::between(crs(points), crs(tracks)),
        time: points.properties.iter().position(|p| p.kind == PropertyType::DateTime),
        shared: (points.properties.iter().enumerate())
            .filter_map(|(from, p)| {
                tracks.property(&p.name).filter(|(_, q)| q.kind == p.kind).map(|(to, _)| (from, to as u16))
            })
            .collect(),
        now_ms,
    };
    changes.iter().filter_map(|change| derive.append(change)).collect()
}

struct Derive<'a> {
    tracks: &'a FeatureType,
    transform: Option<Transform>,
    /// The property that has the time.
    time: Option<usize>,
    /// Properties of one name and type in both: from and to.
    shared: Vec<(usize, u16)>,
    now_ms: i64,
}

impl Derive<'_> {
    fn append(&self, change: &Change) -> Option<Append> {
        match change {
            Change::Put(f) => self.fix(&f.id, f.geometry.as_ref()?, |slot| Some(f.value(slot))),
            Change::Patch(p) => self.fix(&p.id, p.geometry.as_ref()?.as_ref()?, |slot| {
                p.properties.iter().find(|(s, _)| usize::from(*s) == slot).map(|(_, v)| v)
            }),
            // A track stays when its ship is gone.
            Change::Delete(_) | Change::Append(_) | Change::If(..) => None,
        }
    }

    fn fix<'v>(
        &self,
        id: &FeatureId,
        position: &Geometry,
        value: impl Fn(usize) -> Option<&'v Value>,
    ) -> Option<Append> {
        if position.kind() != GeometryKind::Point {
            return None;
        }
        let micros = match self.time.and_then(&value) {
            Some(Value::DateTime(micros)) => *micros,
            _ => self.now_ms * 1000,
        };
        let mut at = None;
        let moved = self.transform.as_ref().map(|t| t.geometry(position)).transpose();
        let moved = moved.inspect_err(|e| tracing::warn!(%id, tracks = self.tracks.name, "no fix: {e}")).ok()?;
        moved.as_ref().unwrap_or(position).reader().each_coord(&mut |c| at = Some(c));
        let fix = Coord { m: micros as f64 / 1e6, ..at? };
        let properties = self.shared.iter().filter_map(|(from, to)| Some((*to, value(*from)?.clone()))).collect();
        let append = Append { id: id.clone(), fixes: vec![fix], properties };
        let good = self.tracks.check_append(&append);
        good.inspect_err(|e| tracing::warn!(%id, tracks = self.tracks.name, "no fix: {e}")).ok().map(|()| append)
    }
}
