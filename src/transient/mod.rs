//! The in-memory index of features written and not yet aged off: by id, by space, by the order in which they became dirty,
//! and by indexed properties.
//!
//! A pure data structure, sync and without tasks: a function of the log, and of the rows that some records build on. Readers
//! take what matches at one step and hold a [`ReaderTicket`] while they look at the delegate; what is evicted meanwhile is
//! remembered for them.
//!
//! Invariants: every entry stands in the queue of its partition at its `dirty_since`; whoever has left the index did so by a
//! `Persisted` record, or turned out to have nothing that the delegate has not (see `unresolved`).

mod ageing;
mod applying;
mod by_value;
mod decisions;
mod quadtree;
mod queue;
mod readers;
mod selecting;
mod track;
mod unresolved;
mod widening;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{Feature, FeatureId, FeatureType, Offset, PartitionId, Rect, TrackShape, crs::Crs};
use crate::sabotage::{Safeguard, off};
pub use ageing::{AgeLimits, Aged};
use by_value::ByValue;
pub use decisions::Decision;
use decisions::Decisions;
use quadtree::QuadTree;
use queue::DirtyQueue;
pub use queue::Step;
pub use readers::ReaderTicket;
use readers::Readers;
pub use selecting::Match;
use track::Tail;
use unresolved::Unresolved;

/// What is known of a feature since it entered the index.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: FeatureId,
    /// `None`: a tombstone, or not known yet. Of a track without its tail.
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
    /// Of a tombstone of a type with event times: that of what was deleted.
    pub deleted_time: Option<i64>,
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

    /// With what was appended in its place.
    fn whole(&self) -> Entry {
        Entry { base: self.feature(), tail: None, ..self.clone() }
    }

    /// Changed since it was last persisted.
    fn is_dirty(&self) -> bool {
        self.version >= self.dirty_since
    }

    /// What its feature takes, with the counters and headers of its allocations.
    fn heap_bytes(&self) -> usize {
        let base = self.base.as_ref().map_or(0, |f| f.heap_bytes() + FEATURE_OVERHEAD);
        // Put together for a reader it is there twice, until the next append.
        base + self.tail.as_ref().map_or(0, |tail| base + tail.heap_bytes())
    }

    /// What it takes besides: its id here and in the features that came later.
    fn own_bytes(&self) -> usize {
        self.id.len() + ID_OVERHEAD
    }
}

/// Estimates, bytes, checked against the process by a test: of a feature, for its counters and the headers of its three
/// allocations; of an id, the same; and of what a place in the quadtree takes with the slack of its node.
const FEATURE_OVERHEAD: usize = 64;
const ID_OVERHEAD: usize = 32;
const PLACE_IN_SPACE: usize = 64;
/// A place in `by_id`, at the least load of its table.
const PLACE_BY_ID: usize = 2 * (size_of::<(FeatureId, u32)>() + 1);

/// What a base load said of an id, to apply a patch to.
#[derive(Clone, Debug)]
pub enum Known {
    /// A row, with its version (`None`: another program's, older than any record), and how many of a track's fixes stand apart
    /// from its line.
    Row(Arc<Feature>, Option<Offset>, usize),
    /// Deleted at this version (`None`: long ago), and this event time.
    Deleted(Option<Offset>, Option<i64>),
    Nothing,
    /// The delegate could not be asked: the change is kept until it can.
    Away,
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
    /// Features here of which nobody can say yet what they are.
    unresolved: BTreeMap<FeatureId, Unresolved>,
    by_space: QuadTree,
    /// Features that have none.
    without_geometry: FxHashSet<u32>,
    by_value: Vec<(usize, ByValue)>,
    partitions: Vec<Partition>,
    /// In which versions the delegate has refused entries, as far as this instance knows.
    refused: FxHashMap<u32, Offset>,
    /// Features that were taken up in these versions, before the log has been read so far.
    restored: FxHashMap<FeatureId, Offset>,
    /// Of a type whose features are tracks.
    track: Option<TrackShape>,
    /// The property by whose time the changes of a feature are ordered.
    event_time: Option<usize>,
    /// Counts how often the index was begun anew.
    generation: u64,
    /// Counts the steps applied.
    step: u64,
    readers: Readers,
    tombstones: usize,
    /// Of the entries' features and ids.
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
            unresolved: BTreeMap::new(),
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
            refused: FxHashMap::default(),
            restored: FxHashMap::default(),
            track: feature_type.track_shape(),
            event_time: feature_type.event_time_slot(),
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

    /// Size in memory, bytes, within about a quarter: of the entries and all orders in which they stand, and of what those who
    /// are reading keep from going.
    pub fn bytes(&self) -> usize {
        let located = self.by_id.len().saturating_sub(self.tombstones + self.without_geometry.len());
        let places = self.slots.len() * size_of::<Option<Entry>>()
            + self.by_id.len() * PLACE_BY_ID
            + located * PLACE_IN_SPACE
            + self.by_value.iter().map(|(_, index)| index.bytes()).sum::<usize>()
            + self.partitions.iter().map(|p| p.dirty.bytes()).sum::<usize>();
        self.bytes + places + self.readers.bytes()
    }

    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.by_id.get(id).and_then(|slot| self.slots[*slot as usize].as_ref())
    }

    /// Moves past records that change nothing here.
    pub fn advance(&mut self, partition: PartitionId, next: Offset) {
        let p = &mut self.partitions[partition as usize];
        p.applied = p.applied.max(next);
    }

    /// The position behind the last record of changes; what follows are markers.
    pub fn changed_through(&self, partition: PartitionId) -> Offset {
        self.partitions[partition as usize].changed_through
    }

    /// Puts a new state of a feature in its place.
    fn set(&mut self, step: Step, id: &FeatureId, feature: Option<Arc<Feature>>, full: bool) {
        let bounds = feature.as_ref().and_then(|f| f.geometry.as_ref()).and_then(|g| g.bounds());
        self.tombstones += usize::from(feature.is_none());
        let slot = match self.by_id.get(id) {
            Some(slot) => *slot,
            None => self.new_slot(step, id),
        };
        let Some(entry) = self.slots[slot as usize].as_mut() else { return };
        let fresh = entry.version == Offset::MAX;
        let old_bounds = std::mem::replace(&mut entry.bounds, bounds);
        self.bytes -= entry.heap_bytes();
        let old = std::mem::replace(&mut entry.base, feature);
        (entry.tail, entry.deleted_time) = (None, None);
        self.bytes += entry.heap_bytes();
        let queue_again = (fresh || full || off(Safeguard::DirtySince)) && entry.dirty_since != step.since;
        entry.version = step.offset;
        if queue_again {
            entry.dirty_since = step.since;
            self.partitions[step.partition as usize].dirty.push(step.since, slot);
        }
        if !fresh {
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
        self.readers.lets_go(old, self.step);
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
            deleted_time: None,
            entered: self.step,
            bounds: None,
        };
        self.bytes += entry.own_bytes();
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
        self.forget(&entry.id);
        self.free.push(slot);
        self.refused.remove(&slot);
        self.bytes -= entry.own_bytes() + entry.heap_bytes();
        self.tombstones -= usize::from(entry.base.is_none());
        if let Some(bounds) = entry.bounds {
            self.by_space.remove(bounds, slot);
        } else {
            self.without_geometry.remove(&slot);
        }
        for (property, index) in &mut self.by_value {
            index.replace(entry.base.as_deref().map(|f| f.value(*property)), None, slot);
        }
        self.readers.lets_go(entry.base, self.step);
        self.readers.evicted(entry.id, entry.entered, self.step);
    }

    /// Gives back the room of what has left, once that is most of it.
    fn give_back(&mut self) {
        /// Not worth looking at.
        const FEW: usize = 4096;
        if self.by_id.is_empty() {
            (self.slots, self.free, self.by_id) = Default::default();
            self.by_space.clear();
        } else if self.slots.len() > FEW && self.free.len() > self.slots.len() / 4 * 3 {
            let used = self.slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            if used < self.slots.len() / 2 {
                self.slots.truncate(used);
                self.slots.shrink_to_fit();
                self.free.retain(|slot| (*slot as usize) < used);
                self.by_id.shrink_to_fit();
            }
        }
    }
}

impl std::fmt::Debug for TransientIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransientIndex").field("entries", &self.len()).field("applied", &self.applied()).finish()
    }
}

#[cfg(test)]
mod tests;
