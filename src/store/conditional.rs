//! Writes that hold only while a feature is as its writer believes. The log decides: every instance comes to the same outcome
//! at the same place, whoever else writes, and the writer learns it when its own instance has come there.

use std::sync::Arc;

use bytes::Bytes;

use super::locks::Claim;
use super::state::TypeState;
use super::{Store, WriteError, Written, derived};
use crate::format::record;
use crate::log::NewRecord;
use crate::model::{Append, Change, Expected, FeatureType, SchemaError, Value, partition_of};
use crate::store::api::{Action, ActionKind, Transaction};
use crate::transient::Decision;

impl Store {
    /// Makes one change of one feature if that is as expected, and tells whether it was; asks nothing of anybody before.
    pub async fn write_if(
        &self,
        feature_type: &str,
        expected: Expected,
        mut change: Change,
    ) -> Result<Written, WriteError> {
        let state = self.state(feature_type).ok_or_else(|| WriteError::UnknownType(feature_type.to_owned()))?;
        self.check_room()?;
        if let Some(why) = state.stopped() {
            return Err(WriteError::Unavailable(why));
        }
        let ft = state.feature_type();
        check(&ft, &mut change).map_err(|error| WriteError::Invalid { action: 0, error })?;
        let id = change.id().clone();
        let partition = partition_of(&id, ft.partitions);
        let conditional = Change::If(expected, Box::new(change.clone()));
        let records = record::split(vec![conditional], self.log.max_value_bytes(), || 0)
            .map_err(|e| WriteError::TooLarge(e.to_string()))?;
        let records = records.iter().map(|r| NewRecord {
            log: state.log_name.clone(),
            partition,
            key: Bytes::copy_from_slice(id.as_bytes()),
            value: record::encode(r, ft.schema_version),
        });
        let pass = self.locks.enter();
        self.locks.check(&pass, &ft, std::iter::once(&id), Claim::None)?;
        for (tracks, appends) in self.appends_of(&ft, &change) {
            self.locks.check(&pass, &tracks, appends.iter().map(|append| &append.id), Claim::None)?;
        }
        let offsets = self.append(records.collect(), pass).await?;
        let (name, place) = (ft.name.clone(), (state.clone(), partition));
        let written = self.visible(&[name], vec![vec![id.clone()]], &[place], &offsets).await;
        match offsets.first().map(|offset| state.index.read().decision(partition, *offset)) {
            Some(Decision::Held) if written.applied => self.with_tracks(&state, change, written).await,
            Some(Decision::Failed) if written.applied => {
                Err(WriteError::NotAsExpected { feature_type: ft.name.clone(), id })
            }
            _ => Err(WriteError::OutcomeUnknown("this instance has not come to know it in time".to_owned())),
        }
    }

    /// What the change means for the tracks of these points is appended when it is known to have held: a record cannot depend
    /// on the outcome of another one in another log.
    async fn with_tracks(
        &self,
        points: &Arc<TypeState>,
        change: Change,
        written: Written,
    ) -> Result<Written, WriteError> {
        let appends = self.appends_of(&points.feature_type(), &change).into_iter();
        let append = |(tracks, appends): (Arc<FeatureType>, Vec<Append>)| {
            let kind = ActionKind::Append { appends };
            Action { feature_type: tracks.name.clone(), kind }
        };
        let actions: Vec<Action> = appends.map(append).collect();
        if actions.is_empty() {
            return Ok(written);
        }
        // The change itself is done: no error may say that nothing was written.
        let mut with_tracks =
            self.write_with(Transaction { actions, ..Transaction::default() }, Claim::Fact).await.map_err(|e| {
                WriteError::OutcomeUnknown(format!("the change is done, but not what its tracks have of it: {e}"))
            })?;
        with_tracks.position.merge(&written.position);
        Ok(Written { ids: written.ids, ..with_tracks })
    }

    /// What the change means for the types that are tracks of these points.
    fn appends_of(&self, points: &FeatureType, change: &Change) -> Vec<(Arc<FeatureType>, Vec<Append>)> {
        let types = self.feature_types().into_iter().filter(|t| t.track_of.as_ref() == Some(&points.name));
        let appends = |tracks: Arc<FeatureType>| {
            let changes = std::slice::from_ref(change);
            let appends = derived::appends(points, &tracks, changes, self.clock.now_ms());
            (tracks, appends)
        };
        types.map(appends).collect()
    }
}

fn check(ft: &FeatureType, change: &mut Change) -> Result<(), SchemaError> {
    ft.check_writable()?;
    match change {
        Change::Put(feature) => ft.check(Arc::make_mut(feature)),
        Change::Patch(patch) => {
            if let Some(geometry) = &mut patch.geometry {
                ft.check_geometry(geometry)?;
            }
            widen(ft, &mut patch.properties);
            patch.properties.iter().try_for_each(|(slot, value)| ft.check_value(usize::from(*slot), value))
        }
        Change::Append(append) => {
            widen(ft, &mut append.properties);
            ft.check_append(append)
        }
        Change::Delete(_) | Change::If(..) => Ok(()),
    }
}

fn widen(ft: &FeatureType, values: &mut [(u16, Value)]) {
    values.iter_mut().for_each(|(slot, value)| ft.widen(usize::from(*slot), value));
}
