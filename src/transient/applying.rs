//! Applying changes: what a record makes of the feature that was there.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::track::Tail;
use super::{Decision, Known, Step, TransientIndex};
use crate::model::change::set_values;
use crate::model::{Append, Change, Expected, Feature, FeatureId, Offset, PartitionId, Patch, Rect};
use crate::sabotage::{Safeguard, off};

/// The delegate already includes a record, or has outlived it.
struct Later;

/// What there was under an id before a record.
enum BuildsOn {
    Feature(Arc<Feature>),
    Nothing,
    /// The delegate already includes the record, or has outlived it.
    Later,
}

impl TransientIndex {
    /// The ids whose base must be known before these changes can be applied: patched, not in the index, and not put or
    /// deleted earlier in the same changes.
    pub fn bases_needed<'a>(&self, changes: impl Iterator<Item = &'a Change> + Clone) -> Vec<FeatureId> {
        // Whether a change with a time of its own is late, only what is there can tell.
        let is_full = |change: &Change| change.is_full() && self.event_time.is_none();
        if changes.clone().all(is_full) {
            return Vec::new();
        }
        let mut seen: FxHashMap<&FeatureId, bool> = FxHashMap::default();
        for change in changes {
            let id = change.id();
            if !self.by_id.contains_key(id) {
                seen.entry(id).or_insert(!is_full(change));
            }
        }
        let mut needed: Vec<FeatureId> =
            seen.into_iter().filter(|(_, patched)| *patched).map(|(id, _)| id.clone()).collect();
        needed.sort_unstable();
        needed
    }

    /// Applies the changes of one record (or run) in one step. `bases` has what [`Self::bases_needed`] asked for; they may be
    /// newer than this record.
    pub fn apply(&mut self, step: Step, changes: &[Change], bases: &FxHashMap<FeatureId, Known>) {
        self.step += 1;
        for change in changes {
            if self.was_restored_with(step, change) || self.keep(step, change, bases) {
                continue;
            }
            match change {
                Change::If(expected, change) => self.change_if(step, expected, change, bases),
                change => self.change(step, change, true, bases),
            };
        }
        let partition = &mut self.partitions[step.partition as usize];
        partition.dirty.note_time(step);
        partition.applied = step.offset + 1;
        partition.changed_through = step.offset + 1;
    }

    /// True of a change that a feature includes which was taken up in a later state than the log has been read to.
    fn was_restored_with(&mut self, step: Step, change: &Change) -> bool {
        let Some(version) = self.restored.get(change.id()) else { return false };
        if step.offset > *version {
            self.restored.remove(change.id());
            return false;
        }
        if let Change::If(..) = change {
            let decision = if step.offset == *version { Decision::Held } else { Decision::Unknown };
            self.partitions[step.partition as usize].decisions.note(step.offset, decision);
        }
        true
    }

    /// `unconditional`: a change that is full makes what was there before irrelevant, but for its event time. True when the
    /// feature is changed.
    pub(super) fn change(
        &mut self,
        step: Step,
        change: &Change,
        unconditional: bool,
        bases: &FxHashMap<FeatureId, Known>,
    ) -> bool {
        let Ok(there) = self.event_time_there(step, change.id(), bases) else { return false };
        // Who states what it expects has seen what is there.
        if unconditional && !off(Safeguard::EventTime) && there > self.event_time_of(change).or(there) {
            return false;
        }
        let changed = self.change_in_order(step, change, unconditional && self.event_time.is_none(), bases);
        if let Change::Delete(id) = change
            && let Some(slot) = self.by_id.get(id)
            && let Some(entry) = self.slots[*slot as usize].as_mut()
        {
            entry.deleted_time = there;
        }
        changed
    }

    fn event_time_of(&self, change: &Change) -> Option<i64> {
        change.event_time(self.event_time?)
    }

    /// The event time of what is there, also of what was deleted.
    fn event_time_there(
        &self,
        step: Step,
        id: &FeatureId,
        bases: &FxHashMap<FeatureId, Known>,
    ) -> Result<Option<i64>, Later> {
        let Some(slot) = self.event_time else { return Ok(None) };
        if let Some(entry) = self.get(id) {
            return Ok(entry.base.as_ref().map_or(entry.deleted_time, |f| f.event_time(slot)));
        }
        match bases.get(id) {
            Some(Known::Row(_, version, _) | Known::Deleted(version, _))
                if *version >= Some(step.offset) && !off(Safeguard::Versions) =>
            {
                Err(Later)
            }
            Some(Known::Row(feature, ..)) => Ok(feature.event_time(slot)),
            Some(Known::Deleted(_, time)) => Ok(*time),
            _ => Ok(None),
        }
    }

    fn change_in_order(
        &mut self,
        step: Step,
        change: &Change,
        unconditional: bool,
        bases: &FxHashMap<FeatureId, Known>,
    ) -> bool {
        match change {
            Change::Put(feature) => self.set(step, &feature.id, Some(feature.clone()), unconditional),
            Change::Delete(id) if off(Safeguard::Tombstones) => {
                if let Some(slot) = self.by_id.get(id) {
                    self.evict(*slot);
                }
            }
            Change::Delete(id) => self.set(step, id, None, unconditional),
            Change::Patch(patch) => return self.patch(step, patch, bases),
            Change::Append(append) => return self.append(step, append, bases),
            Change::If(..) => return false,
        }
        true
    }

    /// Decides a conditional change, as every instance does that comes to this place of the log: by what this index holds, or
    /// by a base that is not later. A later base tells that it has been decided elsewhere, and includes the effect. True when
    /// the feature is changed.
    pub(super) fn change_if(
        &mut self,
        step: Step,
        expected: &Expected,
        change: &Change,
        bases: &FxHashMap<FeatureId, Known>,
    ) -> bool {
        let now = Some(step.offset);
        let (is_there, version) = match (self.get(change.id()), bases.get(change.id())) {
            (Some(entry), _) => (entry.base.is_some(), Some(entry.version)),
            (None, Some(Known::Row(_, version, _) | Known::Deleted(version, _))) if *version == now => return false,
            (None, Some(Known::Row(_, version, _) | Known::Deleted(version, _))) if *version > now => {
                self.partitions[step.partition as usize].decisions.note(step.offset, Decision::Unknown);
                return false;
            }
            (None, Some(Known::Row(_, version, _))) => (true, *version),
            (None, _) => (false, None),
        };
        if expected.holds(is_there, version) || off(Safeguard::Conditions) {
            self.change(step, change, false, bases)
        } else {
            self.partitions[step.partition as usize].decisions.note(step.offset, Decision::Failed);
            false
        }
    }

    /// What became of the conditional change at this offset, which has been applied.
    pub fn decision(&self, partition: PartitionId, offset: Offset) -> Decision {
        self.partitions[partition as usize].decisions.of(offset)
    }

    /// Takes up what the delegate has refused, as a marker's `except` would have kept it: before anything is applied, in the
    /// order of the versions.
    pub fn restore(&mut self, partition: PartitionId, id: &FeatureId, version: Offset, feature: Option<Arc<Feature>>) {
        // It was dirty since before the watermark, whatever changed it last.
        let applied = self.partitions[partition as usize].applied;
        let since = version.min(applied.saturating_sub(1));
        if version >= applied {
            self.restored.insert(id.clone(), version);
        }
        self.set(Step { partition, offset: version, since, time_ms: i64::MIN }, id, feature, true);
        self.note_refused(std::iter::once((id, version)));
    }

    fn patch(&mut self, step: Step, patch: &Patch, bases: &FxHashMap<FeatureId, Known>) -> bool {
        let BuildsOn::Feature(base) = self.base_of(step, &patch.id, bases) else { return false };
        self.set(step, &patch.id, Some(Arc::new(patch.apply(&base))), false);
        true
    }

    fn append(&mut self, step: Step, append: &Append, bases: &FxHashMap<FeatureId, Known>) -> bool {
        let Some(shape) = self.track else { return false };
        if let Some(slot) = self.by_id.get(&append.id).copied()
            && self.slots[slot as usize].as_ref().is_some_and(|e| e.base.is_some())
        {
            let entry = self.slots[slot as usize].as_ref();
            let persisted = entry.filter(|e| e.version < e.persisted).map(|e| e.version);
            self.grow(step, slot, append, Tail::new(shape, persisted, 0));
            return true;
        }
        match self.base_of(step, &append.id, bases) {
            BuildsOn::Feature(base) => {
                self.set(step, &append.id, Some(base), false);
                let tail = match bases.get(&append.id) {
                    Some(Known::Row(_, version, apart)) => Tail::new(shape, *version, *apart),
                    _ => Tail::new(shape, None, 0),
                };
                if let Some(slot) = self.by_id.get(&append.id).copied() {
                    self.grow(step, slot, append, tail);
                }
            }
            BuildsOn::Nothing => self.set(step, &append.id, Some(Arc::new(append.apply(None, &shape))), false),
            BuildsOn::Later => return false,
        }
        true
    }

    /// Appends to a track that is here, at a cost that does not depend on its length. `fresh`: its tail if it has none yet.
    fn grow(&mut self, step: Step, slot: u32, append: &Append, fresh: Tail) {
        let Some(entry) = self.slots[slot as usize].as_mut() else { return };
        self.bytes -= entry.heap_bytes();
        let Some(base) = &mut entry.base else { return };
        let tail = entry.tail.get_or_insert_with(|| Box::new(fresh));
        tail.append(base, step.offset, &append.fixes);
        if !append.properties.is_empty() {
            // The line itself is shared, not copied.
            let changed = Arc::make_mut(base);
            let old = self.by_value.iter().map(|(p, _)| changed.value(*p).clone()).collect::<Vec<_>>();
            set_values(&mut changed.properties, &append.properties);
            for ((property, index), old) in self.by_value.iter_mut().zip(&old) {
                index.replace(Some(old), Some(changed.value(*property)), slot);
            }
        }
        entry.version = step.offset;
        let old = entry.bounds;
        for f in &append.fixes {
            let at = Rect { min_x: f.x, min_y: f.y, max_x: f.x, max_y: f.y };
            // May be larger than the line is, when a fix has replaced one; what is found by it is looked at.
            entry.bounds = Some(entry.bounds.map_or(at, |b| b.union(&at)));
        }
        self.bytes += entry.heap_bytes();
        match (old, entry.bounds) {
            (Some(o), Some(n)) if o != n => self.by_space.update(o, n, slot),
            (None, Some(n)) => {
                self.by_space.insert(n, slot);
                self.without_geometry.remove(&slot);
            }
            _ => {}
        }
    }

    /// What a change that is not full finds of its feature.
    fn base_of(&self, step: Step, id: &FeatureId, bases: &FxHashMap<FeatureId, Known>) -> BuildsOn {
        if let Some(entry) = self.get(id) {
            return entry.feature().map_or(BuildsOn::Nothing, BuildsOn::Feature);
        }
        match bases.get(id) {
            Some(Known::Row(_, version, _) | Known::Deleted(version, _))
                if *version >= Some(step.offset) && !off(Safeguard::Versions) =>
            {
                BuildsOn::Later
            }
            Some(Known::Row(feature, ..)) => BuildsOn::Feature(feature.clone()),
            _ => BuildsOn::Nothing,
        }
    }
}
