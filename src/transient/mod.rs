//! The in-memory index of features written and not yet aged off: by id, by space, by the order in which they became dirty,
//! and by indexed properties.
//!
//! A pure data structure, sync and without tasks: a function of the log, and of the rows that some records build on. Readers
//! take what matches at one step and hold a [`ReaderTicket`] while they look at the delegate; what is evicted meanwhile is
//! remembered for them.
//!
//! Invariants: every entry stands in the queue of its partition at its `dirty_since`; whoever has left the index did so by a
//! `Persisted` record.

mod by_value;
mod decisions;
mod quadtree;
mod queue;
mod readers;
mod track;

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::change::set_values;
use crate::model::{
    Append, Change, Expected, Feature, FeatureId, FeatureType, Offset, PartitionId, Patch, Persisted, Rect, TrackShape,
    crs::Crs,
};
use crate::query::{CompareOp, Filter, Operand, evaluate};
use crate::sabotage::{Safeguard, off};
use by_value::ByValue;
pub use decisions::Decision;
use decisions::Decisions;
use quadtree::QuadTree;
use queue::DirtyQueue;
pub use queue::Step;
pub use readers::ReaderTicket;
use readers::Readers;
use track::Tail;

/// What is known of a feature since it entered the index.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: FeatureId,
    /// `None`: a tombstone. Of a track without its tail.
    base: Option<Arc<Feature>>,
    /// What was appended since.
    tail: Option<Box<Tail>>,
    /// The offset of its last change.
    pub version: Offset,
    /// The [`Step::since`] of its last unconditional full record, or of the first change since it was last persisted.
    pub dirty_since: Offset,
    /// The delegate has its changes before here, as far as this instance has persisted them.
    persisted: Offset,
    pub partition: PartitionId,
    /// The step at which it entered.
    entered: u64,
    bounds: Option<Rect>,
}

impl Entry {
    /// The feature as it stands; `None`: a tombstone.
    pub fn feature(&self) -> Option<Arc<Feature>> {
        let base = self.base.as_ref()?;
        Some(self.tail.as_ref().map_or_else(|| base.clone(), |tail| tail.whole(base)))
    }

    fn heap_bytes(&self) -> usize {
        self.base.as_ref().map_or(0, |f| f.heap_bytes()) + self.tail.as_ref().map_or(0, |t| t.heap_bytes())
    }
}

/// What a base load said of an id, to apply a patch to.
#[derive(Clone, Debug)]
pub enum Known {
    /// A row, with its version.
    Row(Arc<Feature>, Offset),
    /// Deleted at this version.
    Deleted(Offset),
    Nothing,
}

/// A feature that matches, as it stands at a step.
#[derive(Clone, Debug)]
pub struct Match {
    pub feature: Arc<Feature>,
    pub version: Offset,
}

/// What a sweeper should persist: all that is dirty since before `durable_through`.
#[derive(Clone, Debug)]
pub struct Aged {
    pub entries: Vec<Entry>,
    pub durable_through: Offset,
    pub evict_through: Offset,
}

/// When entries of a type age.
#[derive(Clone, Copy, Debug)]
pub struct AgeLimits {
    /// Changed before this time of the log's clock: leaves. `None`: never.
    pub expired_before_ms: Option<i64>,
    /// Dirty since before this time: persisted in its present state.
    pub dirty_before_ms: i64,
    /// Take about this many at once.
    pub batch: usize,
}

/// What there was under an id before a record.
enum BuildsOn {
    Feature(Arc<Feature>),
    Nothing,
    /// The delegate already includes the record, or has outlived it.
    Later,
}

#[derive(Debug)]
struct Partition {
    applied: Offset,
    /// Behind the last record of changes, whether or not it changed anything here.
    changed_through: Offset,
    /// Reads wait until `applied` is here: base loads may have shown rows of up to this position.
    serve_from: Offset,
    dirty: DirtyQueue,
    decisions: Decisions,
}

pub struct TransientIndex {
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_id: FxHashMap<FeatureId, u32>,
    by_space: QuadTree,
    /// Features that have none.
    without_geometry: FxHashSet<u32>,
    by_value: Vec<(usize, ByValue)>,
    partitions: Vec<Partition>,
    /// Of a type whose features are tracks.
    track: Option<TrackShape>,
    /// Counts how often the index was begun anew.
    generation: u64,
    /// Counts the steps applied.
    step: u64,
    readers: Readers,
    tombstones: usize,
    bytes: usize,
}

impl TransientIndex {
    /// An index that starts at these offsets.
    pub fn new(feature_type: &FeatureType, start: &[Offset]) -> TransientIndex {
        let geographic = feature_type.geometry.and_then(|g| Crs::from_epsg(g.epsg)).is_none_or(Crs::is_geographic);
        let indexed = feature_type.properties.iter().enumerate().filter(|(_, p)| p.index);
        TransientIndex {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: FxHashMap::default(),
            by_space: QuadTree::new(if geographic { 512.0 } else { f64::from(1 << 25) }),
            without_geometry: FxHashSet::default(),
            by_value: indexed.map(|(slot, _)| (slot, ByValue::default())).collect(),
            partitions: start
                .iter()
                .map(|o| Partition {
                    applied: *o,
                    changed_through: *o,
                    serve_from: *o,
                    dirty: DirtyQueue::default(),
                    decisions: Decisions::new(*o),
                })
                .collect(),
            track: feature_type.track_shape(),
            generation: 0,
            step: 0,
            readers: Readers::default(),
            tombstones: 0,
            bytes: 0,
        }
    }

    /// Begins anew at other offsets: the log no longer has what follows the present ones. Readers that began before cannot
    /// go on (see [`Self::knows`]).
    pub fn begin_anew(&mut self, feature_type: &FeatureType, start: &[Offset]) {
        let generation = self.generation + 1;
        *self = TransientIndex { generation, ..TransientIndex::new(feature_type, start) };
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// False when the index was begun anew since this reader began: what it would have hidden is forgotten.
    pub fn knows(&self, reader: &ReaderTicket) -> bool {
        reader.generation() == self.generation
    }

    /// The next offset to apply, per partition.
    pub fn applied(&self) -> Vec<Offset> {
        self.partitions.iter().map(|p| p.applied).collect()
    }

    pub fn applied_of(&self, partition: PartitionId) -> Offset {
        self.partitions[partition as usize].applied
    }

    /// True when nothing that this index answers could be older than a row that a base load has shown.
    pub fn may_serve(&self) -> bool {
        self.partitions.iter().all(|p| p.applied >= p.serve_from)
    }

    /// Raises the bar for reads: rows of up to `as_of` have been seen.
    pub fn serve_from(&mut self, partition: PartitionId, as_of: Offset) {
        let p = &mut self.partitions[partition as usize];
        p.serve_from = p.serve_from.max(as_of);
    }

    /// Features and tombstones.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn tombstones(&self) -> usize {
        self.tombstones
    }

    /// Rough size in memory, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.by_id.get(id).and_then(|slot| self.slots[*slot as usize].as_ref())
    }

    /// The ids whose base must be known before these changes can be applied: patched, not in the index, and not put or
    /// deleted earlier in the same changes.
    pub fn bases_needed<'a>(&self, changes: impl Iterator<Item = &'a Change> + Clone) -> Vec<FeatureId> {
        if changes.clone().all(Change::is_full) {
            return Vec::new();
        }
        let mut seen: FxHashMap<&FeatureId, bool> = FxHashMap::default();
        for change in changes {
            let id = change.id();
            if !self.by_id.contains_key(id) {
                seen.entry(id).or_insert(!change.is_full());
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
            match change {
                Change::If(expected, change) => self.change_if(step, expected, change, bases),
                change => self.change(step, change, true, bases),
            }
        }
        let partition = &mut self.partitions[step.partition as usize];
        partition.dirty.note_time(step);
        partition.applied = step.offset + 1;
        partition.changed_through = step.offset + 1;
    }

    /// `unconditional`: a change that is full makes what was there before irrelevant.
    fn change(&mut self, step: Step, change: &Change, unconditional: bool, bases: &FxHashMap<FeatureId, Known>) {
        match change {
            Change::Put(feature) => self.set(step, &feature.id, Some(feature.clone()), unconditional),
            Change::Delete(id) if off(Safeguard::Tombstones) => {
                if let Some(slot) = self.by_id.get(id) {
                    self.evict(*slot);
                }
            }
            Change::Delete(id) => self.set(step, id, None, unconditional),
            Change::Patch(patch) => self.patch(step, patch, bases),
            Change::Append(append) => self.append(step, append, bases),
            Change::If(..) => {}
        }
    }

    /// Decides a conditional change, as every instance does that comes to this place of the log: by what this index holds, or
    /// by a base that is not later. A later base tells that it has been decided elsewhere, and includes the effect.
    fn change_if(&mut self, step: Step, expected: &Expected, change: &Change, bases: &FxHashMap<FeatureId, Known>) {
        let now = match (self.get(change.id()), bases.get(change.id())) {
            (Some(entry), _) => entry.base.is_some().then_some(entry.version),
            (None, Some(Known::Row(_, version) | Known::Deleted(version))) if *version == step.offset => return,
            (None, Some(Known::Row(_, version) | Known::Deleted(version))) if *version > step.offset => {
                return self.partitions[step.partition as usize].decisions.note(step.offset, Decision::Unknown);
            }
            (None, Some(Known::Row(_, version))) => Some(*version),
            (None, _) => None,
        };
        if expected.holds(now) || off(Safeguard::Conditions) {
            self.change(step, change, false, bases);
        } else {
            self.partitions[step.partition as usize].decisions.note(step.offset, Decision::Failed);
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
        let since = version.min(self.partitions[partition as usize].applied.saturating_sub(1));
        self.set(Step { partition, offset: version, since, time_ms: i64::MIN }, id, feature, true);
    }

    fn patch(&mut self, step: Step, patch: &Patch, bases: &FxHashMap<FeatureId, Known>) {
        if let BuildsOn::Feature(base) = self.base_of(step, &patch.id, bases) {
            self.set(step, &patch.id, Some(Arc::new(patch.apply(&base))), false);
        }
    }

    fn append(&mut self, step: Step, append: &Append, bases: &FxHashMap<FeatureId, Known>) {
        let Some(shape) = self.track else { return };
        if let Some(slot) = self.by_id.get(&append.id).copied()
            && self.slots[slot as usize].as_ref().is_some_and(|e| e.base.is_some())
        {
            return self.grow(step, slot, append, shape);
        }
        let track = match self.base_of(step, &append.id, bases) {
            BuildsOn::Feature(base) => append.apply(Some(&base), &shape),
            BuildsOn::Nothing => append.apply(None, &shape),
            BuildsOn::Later => return,
        };
        self.set(step, &append.id, Some(Arc::new(track)), false);
    }

    /// Appends to a track that is here, at a cost that does not depend on its length.
    fn grow(&mut self, step: Step, slot: u32, append: &Append, shape: TrackShape) {
        let Some(entry) = self.slots[slot as usize].as_mut() else { return };
        self.bytes -= entry.heap_bytes();
        let Some(base) = &mut entry.base else { return };
        entry.tail.get_or_insert_with(|| Box::new(Tail::new(shape))).append(base, &append.fixes);
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
            // A row of version 0 may be another program's, and to set the same values again is harmless.
            Some(Known::Row(feature, 0)) => BuildsOn::Feature(feature.clone()),
            Some(Known::Row(_, version) | Known::Deleted(version))
                if *version >= step.offset && !off(Safeguard::Versions) =>
            {
                BuildsOn::Later
            }
            Some(Known::Row(feature, _)) => BuildsOn::Feature(feature.clone()),
            _ => BuildsOn::Nothing,
        }
    }

    /// Moves past records that change nothing here.
    pub fn advance(&mut self, partition: PartitionId, next: Offset) {
        let p = &mut self.partitions[partition as usize];
        p.applied = p.applied.max(next);
    }

    /// Applies a sweeper's marker: evicts what was last changed before `evict_through`, and what stays is dirty since
    /// `durable_through` at the earliest, or since what this instance has persisted of it.
    pub fn apply_persisted(&mut self, partition: PartitionId, offset: Offset, marker: &Persisted) {
        self.step += 1;
        let (mut refused, mut persisted) = (Vec::new(), Vec::new());
        // Behind the last change there are markers only, which no sweeper waits for.
        let changed_through = self.changed_through(partition);
        while let Some((dirty_since, slot)) =
            self.partitions[partition as usize].dirty.pop_before(marker.durable_through)
        {
            let Some(entry) = self.slots[slot as usize].as_mut() else { continue };
            if entry.partition != partition || entry.dirty_since != dirty_since {
                continue;
            }
            if marker.except.contains(&entry.id) && !off(Safeguard::Refused) {
                refused.push((dirty_since, slot));
            } else if entry.version < marker.evict_through {
                self.evict(slot);
            } else {
                entry.dirty_since = marker.durable_through.max(entry.persisted).min(changed_through);
                persisted.push((entry.dirty_since, slot));
            }
        }
        let p = &mut self.partitions[partition as usize];
        p.dirty.insert(persisted);
        p.dirty.put_back(refused);
        p.applied = p.applied.max(offset + 1);
    }

    /// Notes that the delegate now has these as of there. Whoever persisted them knows; that others had the same is not certain,
    /// since one that began later may know less of what an entry has gone through.
    pub fn note_persisted<'a>(&mut self, ids: impl Iterator<Item = &'a FeatureId>, as_of: Offset) {
        for id in ids {
            if let Some(slot) = self.by_id.get(id)
                && let Some(entry) = self.slots[*slot as usize].as_mut()
            {
                entry.persisted = entry.persisted.max(as_of);
            }
        }
    }

    /// The position behind the last record of changes; what follows are markers.
    pub fn changed_through(&self, partition: PartitionId) -> Offset {
        self.partitions[partition as usize].changed_through
    }

    /// Every record before this offset was appended so long ago that what it last changed may leave.
    pub fn expired_through(&self, partition: PartitionId, limits: AgeLimits) -> Offset {
        let p = &self.partitions[partition as usize];
        limits.expired_before_ms.map_or(0, |t| p.dirty.offset_at(t, p.applied))
    }

    /// What should be persisted now; `None` when nothing is old enough. Removes nothing. Without entries it says that all
    /// records before `durable_through` have been superseded: features that are always put anew before they age must not
    /// keep the queue, and the log, growing.
    pub fn aged(&self, partition: PartitionId, limits: AgeLimits) -> Option<Aged> {
        let p = &self.partitions[partition as usize];
        let evict_limit = self.expired_through(partition, limits);
        let durable_limit = p.dirty.offset_at(limits.dirty_before_ms, p.applied).max(evict_limit);
        let mut entries: Vec<Entry> = Vec::new();
        let mut durable_through = durable_limit;
        let mut superseded = false;
        for (dirty_since, slot) in p.dirty.iter() {
            if dirty_since >= durable_limit {
                break;
            }
            let at_its_place = |e: &&Entry| e.partition == partition && e.dirty_since == dirty_since;
            let Some(entry) = self.slots[slot as usize].as_ref().filter(at_its_place) else {
                superseded = true;
                continue;
            };
            // Clean, and too young to leave: there is nothing to do for it.
            if entry.version < dirty_since && entry.version >= evict_limit {
                continue;
            }
            let same_record_as_last = entries.last().is_some_and(|e| e.dirty_since == dirty_since);
            if entries.len() >= limits.batch && !same_record_as_last {
                durable_through = dirty_since;
                break;
            }
            entries.push(Entry { base: entry.feature(), tail: None, ..entry.clone() });
        }
        (superseded || !entries.is_empty()).then(|| Aged {
            entries,
            durable_through,
            evict_through: evict_limit.min(durable_through),
        })
    }

    /// The age of the oldest change that is not persisted, by the log's clock.
    pub fn oldest_dirty_ms(&self, partition: PartitionId) -> Option<i64> {
        let p = &self.partitions[partition as usize];
        let (oldest, _) = p.dirty.iter().find(|(dirty_since, slot)| {
            self.slots[*slot as usize]
                .as_ref()
                .is_some_and(|e| e.dirty_since == *dirty_since && e.partition == partition)
        })?;
        p.dirty.time_at(oldest)
    }

    /// Announces a reader of both tiers: what it must not see in the delegate is remembered until the ticket is dropped.
    pub fn reader(&self) -> ReaderTicket {
        self.readers.begin(self.generation, self.step)
    }

    /// True when a delegate row of this id is hidden from that reader: the id was here when the reader began.
    pub fn hides(&self, reader: &ReaderTicket, id: &str) -> bool {
        if off(Safeguard::Masking) {
            return false;
        }
        match self.get(id) {
            Some(entry) if entry.entered <= reader.step() || off(Safeguard::OwnMoment) => true,
            _ => self.readers.was_evicted_from(reader, id),
        }
    }

    /// Every id that is hidden from that reader, tombstones included.
    pub fn hidden_from(&self, reader: &ReaderTicket) -> Vec<FeatureId> {
        let here = self.slots.iter().flatten().filter(|e| e.entered <= reader.step()).map(|e| e.id.clone());
        here.chain(self.readers.evicted_from(reader)).collect()
    }

    /// What matches, in no particular order. Uses the best index that the filter allows.
    pub fn select(&self, filter: &Filter) -> Vec<Match> {
        let mut matches = Vec::new();
        let (boxes, rest) = filter.boxes_and_rest();
        // Most of what a box finds lies in it whole: then the geometry need not be looked at.
        let selects = |entry: &Entry, feature: &Feature| match &entry.bounds {
            Some(b) if boxes.iter().all(|r| r.contains(b)) => rest.iter().all(|f| evaluate::matches(f, feature)),
            _ => evaluate::matches(filter, feature),
        };
        let mut check = |slot: u32| {
            if let Some(entry) = &self.slots[slot as usize]
                && let Some(feature) = entry.feature()
                && selects(entry, &feature)
            {
                matches.push(Match { feature, version: entry.version });
            }
        };
        if let Some(ids) = filter.id_set() {
            ids.list.iter().filter_map(|id| self.by_id.get(id)).for_each(|slot| check(*slot));
        } else if let Some(bounds) = filter.bounds_of_located() {
            self.by_space.query(&bounds, &mut check);
            if filter.may_lack_geometry() {
                self.without_geometry.iter().for_each(|slot| check(*slot));
            }
        } else if let Some((index, value)) = self.equality(filter) {
            index.equal_to(value).for_each(check);
        } else {
            (0..self.slots.len() as u32).for_each(check);
        }
        matches
    }

    /// The envelope of the features here.
    pub fn bounds(&self) -> Option<Rect> {
        self.by_space.bounds()
    }

    /// An equality in the filter that a property's index answers.
    fn equality<'a>(&'a self, filter: &'a Filter) -> Option<(&'a ByValue, &'a crate::model::Value)> {
        match filter {
            Filter::And(all) => all.iter().find_map(|f| self.equality(f)),
            Filter::Compare {
                op: CompareOp::Equal,
                left: Operand::Property(p),
                right: Operand::Literal(v),
                match_case: true,
            }
            | Filter::Compare {
                op: CompareOp::Equal,
                left: Operand::Literal(v),
                right: Operand::Property(p),
                match_case: true,
            } => self.by_value.iter().find(|(slot, _)| slot == p).map(|(_, index)| (index, v)),
            _ => None,
        }
    }

    /// Puts a new state of a feature in its place.
    fn set(&mut self, step: Step, id: &FeatureId, feature: Option<Arc<Feature>>, full: bool) {
        let bounds = feature.as_ref().and_then(|f| f.geometry.as_ref()).and_then(|g| g.bounds());
        self.bytes += feature.as_ref().map_or(0, |f| f.heap_bytes());
        self.tombstones += usize::from(feature.is_none());
        let slot = match self.by_id.get(id) {
            Some(slot) => *slot,
            None => self.new_slot(step, id),
        };
        let Some(entry) = self.slots[slot as usize].as_mut() else { return };
        let fresh = entry.version == Offset::MAX;
        let old_bounds = std::mem::replace(&mut entry.bounds, bounds);
        let old_bytes = entry.heap_bytes();
        let old = std::mem::replace(&mut entry.base, feature);
        entry.tail = None;
        let queue_again = (fresh || full || off(Safeguard::DirtySince)) && entry.dirty_since != step.since;
        entry.version = step.offset;
        if queue_again {
            entry.dirty_since = step.since;
            self.partitions[step.partition as usize].dirty.push(step.since, slot);
        }
        if !fresh {
            self.bytes -= old_bytes;
            self.tombstones -= usize::from(old.is_none());
        }
        match (old_bounds, bounds) {
            (Some(o), Some(n)) => self.by_space.update(o, n, slot),
            (Some(o), None) => self.by_space.remove(o, slot),
            (None, Some(n)) => self.by_space.insert(n, slot),
            (None, None) => {}
        }
        let new = self.slots[slot as usize].as_ref().and_then(|e| e.base.as_deref());
        if bounds.is_none() && new.is_some() {
            self.without_geometry.insert(slot);
        } else if old_bounds.is_none() {
            self.without_geometry.remove(&slot);
        }
        for (property, index) in &mut self.by_value {
            index.replace(old.as_deref().map(|f| f.value(*property)), new.map(|f| f.value(*property)), slot);
        }
    }

    fn new_slot(&mut self, step: Step, id: &FeatureId) -> u32 {
        let entry = Entry {
            id: id.clone(),
            base: None,
            tail: None,
            version: Offset::MAX,
            dirty_since: Offset::MAX,
            persisted: 0,
            partition: step.partition,
            entered: self.step,
            bounds: None,
        };
        self.bytes += size_of::<Entry>() + 64;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(entry);
        self.by_id.insert(id.clone(), slot);
        slot
    }

    fn evict(&mut self, slot: u32) {
        let Some(entry) = self.slots[slot as usize].take() else { return };
        self.by_id.remove(&entry.id);
        self.free.push(slot);
        self.bytes -= size_of::<Entry>() + 64 + entry.heap_bytes();
        self.tombstones -= usize::from(entry.base.is_none());
        if let Some(bounds) = entry.bounds {
            self.by_space.remove(bounds, slot);
        } else {
            self.without_geometry.remove(&slot);
        }
        for (property, index) in &mut self.by_value {
            index.replace(entry.base.as_deref().map(|f| f.value(*property)), None, slot);
        }
        self.readers.evicted(entry.id, entry.entered, self.step);
    }
}

impl std::fmt::Debug for TransientIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransientIndex").field("entries", &self.len()).field("applied", &self.applied()).finish()
    }
}

#[cfg(test)]
mod tests;
