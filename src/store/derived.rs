//! Tracks derived from points: what a write to a feature type adds to the types that are tracks of it.
//!
//! The fixes stand in the same append as the positions: both are durable or neither, and nothing has to be made up for after a
//! crash. What another program writes into the log of the points by itself is made up for by the owner of the partition, before
//! its sweeper lets go of it; after a crash it is done again, which a line does not show.

use std::sync::Arc;

use super::Store;
use super::api::{Action, ActionKind, Transaction, WriteError};
use super::locks::Claim;
use super::state::TypeState;
use crate::model::crs::{Crs, Transform};
use crate::model::geometry::Coord;
use crate::model::{Append, Change, FeatureId, FeatureType, Geometry, GeometryKind, PartitionId, PropertyType, Value};

/// What other programs have put is taken up so many at once.
const FOREIGN_AT_ONCE: usize = 1000;

impl Store {
    /// Grows the tracks by what other programs have put into the partitions that this instance owns.
    pub(super) async fn derive_foreign(&self) -> Result<(), WriteError> {
        let states: Vec<Arc<TypeState>> = self.types.read().values().cloned().collect();
        for points in states {
            for partition in points.partition_ids() {
                while self.derive_some(&points, partition).await? {}
            }
        }
        Ok(())
    }

    /// True when there may be more.
    async fn derive_some(&self, points: &TypeState, partition: PartitionId) -> Result<bool, WriteError> {
        let some: Vec<_> = {
            let mut state = points.partition(partition);
            // What is durable has been taken up, by whoever owned the partition.
            let durable_through = state.marker.durable_through;
            while state.foreign.pop_front_if(|(offset, ..)| *offset < durable_through).is_some() {}
            if !state.owner {
                return Ok(false);
            }
            state.foreign.iter().take(FOREIGN_AT_ONCE).cloned().collect()
        };
        let Some(&(last, ..)) = some.last() else { return Ok(false) };
        let feature_type = points.feature_type();
        let mut actions = Vec::new();
        for tracks in self.feature_types() {
            if tracks.track_of.as_ref() == Some(&feature_type.name) {
                let derive = |(_, time_ms, change): &(_, i64, Change)| {
                    appends(&feature_type, &tracks, std::slice::from_ref(change), *time_ms)
                };
                let appends = some.iter().flat_map(derive).collect();
                actions.push(Action { feature_type: tracks.name.clone(), kind: ActionKind::Append { appends } });
            }
        }
        if !actions.is_empty() {
            self.check_room()?;
            self.write_with(Transaction { actions, ..Transaction::default() }, Claim::Fact).await?;
        }
        let foreign = &mut points.partition(partition).foreign;
        while foreign.pop_front_if(|(offset, ..)| *offset <= last).is_some() {}
        Ok(some.len() == FOREIGN_AT_ONCE)
    }
}

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
