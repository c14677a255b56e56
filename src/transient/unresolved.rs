//! Changes whose base could not be loaded: kept in the log's order until it is known, so that nothing behind them waits.
//!
//! Their feature stands in the index like a tombstone: it hides the delegate's row and has its place in the queue, which no
//! sweeper passes. What it is nobody can say, so readers that would have to are told to wait ([`TransientIndex::is_unknown`]).
//!
//! Invariant: the first change kept of a feature is the first one since it was not in the index, so a base that is loaded
//! later, with what is kept after the base's version, is the feature at the index's position.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Decision, Known, Step, TransientIndex};
use crate::model::geometry::Coord;
use crate::model::{Append, Change, FeatureId, Offset, PartitionId, Patch, Value};
use crate::query::Filter;
use crate::sabotage::{Safeguard, off};

/// What is kept of one feature.
#[derive(Debug)]
pub struct Unresolved {
    /// Never empty.
    changes: Vec<(Step, Change)>,
    bytes: usize,
}

impl TransientIndex {
    pub fn has_unresolved(&self) -> bool {
        !self.unresolved.is_empty()
    }

    /// How many features there are of which nobody can say what they are.
    pub fn unresolved_len(&self) -> usize {
        self.unresolved.len()
    }

    /// How many of them are a partition's.
    pub fn unresolved_of(&self, partition: PartitionId) -> usize {
        self.unresolved.values().filter(|u| u.changes[0].0.partition == partition).count()
    }

    pub fn is_unresolved(&self, id: &str) -> bool {
        self.unresolved.contains_key(id)
    }

    /// True when nobody can say yet what matches.
    pub fn is_unknown(&self, filter: &Filter) -> bool {
        if self.unresolved.is_empty() || off(Safeguard::UnknownUntilResolved) {
            return false;
        }
        // A patch leaves most of its feature as it was: any filter might match it.
        filter.id_set().is_none_or(|ids| ids.list.iter().any(|id| self.is_unresolved(id)))
    }

    /// Some features whose base is to be loaded, each with the offset of the first change that is kept.
    pub fn unresolved(&self, most: usize) -> Vec<(FeatureId, Offset)> {
        self.unresolved.iter().take(most).map(|(id, kept)| (id.clone(), kept.changes[0].0.offset)).collect()
    }

    /// Keeps a change that cannot be applied yet; false of one that can.
    pub(super) fn keep(&mut self, step: Step, change: &Change, bases: &FxHashMap<FeatureId, Known>) -> bool {
        let id = change.id();
        let is_kept = !self.unresolved.is_empty() && self.is_unresolved(id);
        // Whether a change with a time of its own is late, only what is there can tell.
        if change.is_full() && self.event_time.is_none() {
            if is_kept {
                self.forget(id);
            }
            return false;
        }
        if !is_kept {
            if self.by_id.contains_key(id) || !matches!(bases.get(id), Some(Known::Away)) {
                return false;
            }
            self.set(step, id, None, false);
        }
        if let Change::If(..) = change {
            self.partitions[step.partition as usize].decisions.note(step.offset, Decision::Unknown);
        }
        let bytes = bytes(change);
        self.bytes += bytes;
        let kept = self.unresolved.entry(id.clone()).or_insert(Unresolved { changes: Vec::new(), bytes: 0 });
        kept.bytes += bytes;
        kept.changes.push((step, change.clone()));
        if let Some(entry) = self.by_id.get(id).and_then(|slot| self.slots[*slot as usize].as_mut()) {
            // It has not changed later than that.
            entry.version = step.offset;
        }
        true
    }

    /// What was kept of a feature does not matter any more.
    pub(super) fn forget(&mut self, id: &FeatureId) -> Option<Unresolved> {
        let kept = self.unresolved.remove(id)?;
        self.bytes -= kept.bytes;
        Some(kept)
    }

    /// Has the values of what is kept suit a later version of the type.
    pub(super) fn widen_kept(&mut self, widen: &impl Fn(usize, &mut Value)) {
        fn values(change: &mut Change, widen: &impl Fn(usize, &mut Value)) {
            match change {
                Change::Put(feature) => {
                    let properties = &mut Arc::make_mut(feature).properties;
                    properties.iter_mut().enumerate().for_each(|(slot, value)| widen(slot, value));
                }
                Change::Patch(Patch { properties, .. }) | Change::Append(Append { properties, .. }) => {
                    properties.iter_mut().for_each(|(slot, value)| widen(usize::from(*slot), value));
                }
                Change::Delete(_) => {}
                Change::If(_, change) => values(change, widen),
            }
        }
        let kept = self.unresolved.values_mut().flat_map(|kept| &mut kept.changes);
        kept.for_each(|(_, change)| values(change, widen));
    }

    /// Applies what is kept of these features to their bases, which were asked for when [`Self::unresolved`] said so.
    pub fn resolve(&mut self, asked: &[(FeatureId, Offset)], bases: &FxHashMap<FeatureId, Known>) {
        self.step += 1;
        for (id, first) in asked {
            // It may have left since, and come again: then its base is not the one that was loaded.
            if self.unresolved.get(id).is_some_and(|kept| kept.changes[0].0.offset == *first)
                && let Some(known) = bases.get(id)
                && let Some(kept) = self.forget(id)
            {
                self.resolve_one(id, known, kept.changes);
            }
        }
    }

    fn resolve_one(&mut self, id: &FeatureId, known: &Known, kept: Vec<(Step, Change)>) {
        let Some(slot) = self.by_id.get(id).copied() else { return };
        let (row, version, deleted_time) = match known {
            Known::Row(row, version, _) => (Some(row.clone()), *version, None),
            Known::Deleted(version, event_time) => (None, *version, *event_time),
            Known::Nothing | Known::Away => (None, None, None),
        };
        let includes = |step: &Step| Some(step.offset) <= version;
        let made_it = |step: &Step| Some(step.offset) == version;
        let since = self.slots[slot as usize].as_ref().map_or(0, |entry| entry.dirty_since);
        self.set(Step { offset: version.unwrap_or(0), since, ..kept[0].0 }, id, row, false);
        if let Some(entry) = self.slots[slot as usize].as_mut() {
            entry.deleted_time = deleted_time;
        }
        let mut changed = false;
        for (step, change) in kept {
            let decisions = &mut self.partitions[step.partition as usize].decisions;
            match change {
                Change::If(..) if made_it(&step) => decisions.note(step.offset, Decision::Held),
                _ if includes(&step) => {}
                Change::If(expected, change) => {
                    decisions.note(step.offset, Decision::Held);
                    changed |= self.change_if(step, &expected, &change, &FxHashMap::default());
                }
                change => changed |= self.change(step, &change, true, &FxHashMap::default()),
            }
        }
        if !changed {
            // Nothing of it is newer than the delegate: with its base at hand it would never have come here.
            self.evict(slot);
        }
    }
}

/// What keeping a change costs, about.
fn bytes(change: &Change) -> usize {
    let values = |n: usize| n * size_of::<(u16, Value)>();
    let of_its_own = match change {
        Change::Put(feature) => feature.heap_bytes(),
        Change::Patch(patch) => {
            let geometry = patch.geometry.as_ref().and_then(Option::as_ref);
            values(patch.properties.len()) + geometry.map_or(0, |g| g.wkb().len())
        }
        Change::Append(append) => values(append.properties.len()) + append.fixes.len() * size_of::<Coord>(),
        Change::Delete(_) => 0,
        Change::If(_, change) => return bytes(change),
    };
    size_of::<(Step, Change)>() + of_its_own
}
