//! Ageing: what a sweeper should persist, and what its markers make leave.

use rustc_hash::FxHashSet;

use super::{Entry, TransientIndex};
use crate::model::{FeatureId, Growth, Offset, PartitionId, Persisted};
use crate::sabotage::{Safeguard, off};

/// What a sweeper should persist: all that is dirty since before `durable_through`, but for what stands refused.
#[derive(Clone, Debug, Default)]
pub struct Aged {
    pub entries: Vec<Entry>,
    /// Of tracks, what the delegate does not have.
    pub growths: Vec<Growth>,
    pub durable_through: Offset,
    pub evict_through: Offset,
    /// So many were taken that there may be more.
    pub more: bool,
}

impl Aged {
    /// Of all of these.
    pub fn ids(&self) -> impl Iterator<Item = &FeatureId> {
        self.entries.iter().map(|e| &e.id).chain(self.growths.iter().map(|g| &g.id))
    }
}

/// When entries of a type age.
#[derive(Clone, Copy, Debug)]
pub struct AgeLimits {
    /// Changed before this time of the log's clock: leaves. `None`: never.
    pub expired_before_ms: Option<i64>,
    /// Dirty since before this time: persisted in its present state.
    pub dirty_before_ms: i64,
    /// What is durable: when more than that has been superseded, it is worth saying.
    pub durable_through: Offset,
    /// Take about this many at once.
    pub batch: usize,
    /// Tracks are persisted by what is new of them, as long as that is little beside their lines.
    pub tails: bool,
}

/// What is taken of an entry.
enum Taken {
    Whole(Entry),
    Growth(Growth),
}

impl Entry {
    /// `tails`: of a track what is new of it, where that will do. `None`: the delegate has all of it, and it need only leave.
    fn taken(&self, tails: bool) -> Option<Taken> {
        let whole = || Taken::Whole(self.whole());
        match self.tail.as_ref().zip(self.base.as_deref()).filter(|_| tails) {
            Some((tail, _)) if !self.is_dirty() && tail.is_persisted(self.version) => None,
            Some((tail, base)) => Some(tail.growth(base, self.version).map_or_else(whole, Taken::Growth)),
            None => Some(whole()),
        }
    }
}

impl TransientIndex {
    /// Applies a sweeper's marker: evicts what was last changed before `evict_through`, and what stays is dirty since
    /// `durable_through` at the earliest, or since what this instance has persisted of it.
    pub fn apply_persisted(&mut self, partition: PartitionId, offset: Offset, marker: &Persisted) {
        self.step += 1;
        let (mut refused, mut persisted) = (Vec::new(), Vec::new());
        let except: FxHashSet<&FeatureId> = marker.except.iter().collect();
        // Behind the last change there are markers only, which no sweeper waits for.
        let changed_through = self.changed_through(partition);
        while let Some((dirty_since, slot)) =
            self.partitions[partition as usize].dirty.pop_before(marker.durable_through)
        {
            let Some(Some(entry)) = self.slots.get_mut(slot as usize) else { continue };
            if entry.partition != partition || entry.dirty_since != dirty_since {
                continue;
            }
            if except.contains(&entry.id) && !off(Safeguard::Refused) {
                refused.push((dirty_since, slot));
            } else if entry.version < marker.evict_through {
                self.evict(slot);
            } else {
                self.refused.remove(&slot);
                self.bytes -= entry.heap_bytes();
                if let Some(tail) = &mut entry.tail {
                    // Whoever did so may have written the line anew.
                    tail.note_persisted(marker.durable_through, entry.version, false);
                }
                self.bytes += entry.heap_bytes();
                entry.dirty_since = marker.durable_through.max(entry.persisted).min(changed_through);
                persisted.push((entry.dirty_since, slot));
            }
        }
        let p = &mut self.partitions[partition as usize];
        p.dirty.insert(persisted);
        p.dirty.put_back(refused);
        p.applied = p.applied.max(offset + 1);
        self.give_back();
    }

    /// Notes that the delegate now has these as of there. Whoever persisted them knows; that others had the same is not certain,
    /// since one that began later may know less of what an entry has gone through.
    pub fn note_persisted<'a>(&mut self, ids: impl Iterator<Item = &'a FeatureId>, as_of: Offset) {
        ids.for_each(|id| self.note_one_persisted(id, as_of, true));
    }

    /// The same of tracks that were persisted by what was new of them.
    pub fn note_grown<'a>(&mut self, ids: impl Iterator<Item = &'a FeatureId>, as_of: Offset) {
        ids.for_each(|id| self.note_one_persisted(id, as_of, false));
    }

    fn note_one_persisted(&mut self, id: &FeatureId, as_of: Offset, whole: bool) {
        if let Some(slot) = self.by_id.get(id)
            && let Some(entry) = self.slots[*slot as usize].as_mut()
        {
            entry.persisted = entry.persisted.max(as_of);
            self.refused.remove(slot);
            self.bytes -= entry.heap_bytes();
            if let Some(tail) = &mut entry.tail {
                tail.note_persisted(as_of, entry.version, whole);
            }
            self.bytes += entry.heap_bytes();
        }
    }

    /// Has these tracks be persisted whole the next time: the delegate has not what they build on.
    pub fn persist_whole<'a>(&mut self, ids: impl Iterator<Item = &'a FeatureId>) {
        for id in ids {
            if let Some(slot) = self.by_id.get(id)
                && let Some(tail) = self.slots[*slot as usize].as_mut().and_then(|e| e.tail.as_mut())
            {
                tail.persist_whole();
            }
        }
    }

    /// Notes what the delegate has just refused, in these versions: it is not tried again before it has changed, or
    /// [`Self::refused`] is asked. Whoever else takes over finds it out by trying once.
    pub fn note_refused<'a>(&mut self, entries: impl Iterator<Item = (&'a FeatureId, Offset)>) {
        for (id, version) in entries {
            if let Some(slot) = self.by_id.get(id) {
                self.refused.insert(*slot, version);
            }
        }
    }

    /// Of what stands refused, about `limit` entries, from `from` on in the order in which they became dirty.
    pub fn refused(&self, partition: PartitionId, from: Offset, limit: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        let standing =
            self.queued(partition).filter(|(slot, e)| e.dirty_since >= from && self.stands_refused(*slot, e));
        for (_, entry) in standing {
            let same_record_as_last = entries.last().is_some_and(|e| e.dirty_since == entry.dirty_since);
            if entries.len() >= limit && !same_record_as_last {
                break;
            }
            entries.push(entry.whole());
        }
        entries
    }

    /// What a marker must except that makes all before `durable_through` durable by persisting `taken`: the others that are
    /// dirty since before there. They stand refused, or did so when they changed.
    pub fn excepted<'a>(
        &self,
        partition: PartitionId,
        durable_through: Offset,
        taken: impl Iterator<Item = &'a FeatureId>,
    ) -> Vec<FeatureId> {
        let taken: FxHashSet<&FeatureId> = taken.collect();
        self.queued(partition)
            .map(|(_, entry)| entry)
            .take_while(|e| e.dirty_since < durable_through)
            .filter(|e| e.is_dirty() && !taken.contains(&e.id))
            .map(|e| e.id.clone())
            .collect()
    }

    /// The entries of a partition, in the order in which they became dirty.
    fn queued(&self, partition: PartitionId) -> impl Iterator<Item = (u32, &Entry)> {
        let p = &self.partitions[partition as usize];
        p.dirty.iter().filter_map(move |(dirty_since, slot)| Some((slot, self.at_place(partition, dirty_since, slot)?)))
    }

    /// The entry that has this place in the queue; `None` when it has been queued anew, or has left.
    fn at_place(&self, partition: PartitionId, dirty_since: Offset, slot: u32) -> Option<&Entry> {
        let entry = self.slots.get(slot as usize)?.as_ref()?;
        (entry.partition == partition && entry.dirty_since == dirty_since).then_some(entry)
    }

    /// The delegate has refused this state, and it has not changed since.
    fn stands_refused(&self, slot: u32, entry: &Entry) -> bool {
        self.refused.get(&slot) == Some(&entry.version)
    }

    /// Every record before this offset was appended so long ago that what it last changed may leave.
    pub fn expired_through(&self, partition: PartitionId, limits: AgeLimits) -> Offset {
        let p = &self.partitions[partition as usize];
        limits.expired_before_ms.map_or(0, |t| p.dirty.offset_at(t, p.applied))
    }

    /// What should be persisted now; `None` when nothing is old enough. Removes nothing. Without entries it says that all
    /// records before `durable_through` have been superseded: features that are always put anew before they age must not
    /// keep the queue, and the log, growing. What stands refused is passed over, so `durable_through` may be before the
    /// watermark only when a refused entry has changed.
    pub fn aged(&self, partition: PartitionId, limits: AgeLimits) -> Option<Aged> {
        let p = &self.partitions[partition as usize];
        let evict_limit = self.expired_through(partition, limits);
        let durable_limit = p.dirty.offset_at(limits.dirty_before_ms, p.applied).max(evict_limit);
        let mut taken: Vec<(Offset, Option<Taken>)> = Vec::new();
        let mut durable_through = durable_limit;
        // Nothing waits for what no change was behind.
        let mut superseded = limits.durable_through < durable_limit.min(p.changed_through);
        for (dirty_since, slot) in p.dirty.iter() {
            if dirty_since >= durable_limit {
                break;
            }
            let Some(entry) = self.at_place(partition, dirty_since, slot) else {
                superseded = true;
                continue;
            };
            // Nobody can say what to persist: nothing behind it is durable before it is known.
            if self.is_unresolved(&entry.id) && !off(Safeguard::DurableWhenResolved) {
                durable_through = dirty_since;
                while taken.pop_if(|(since, _)| *since == dirty_since).is_some() {}
                break;
            }
            // Clean, and too young to leave: there is nothing to do for it.
            let clean_and_young = !entry.is_dirty() && entry.version >= evict_limit;
            if clean_and_young || self.stands_refused(slot, entry) {
                continue;
            }
            let same_record_as_last = taken.last().is_some_and(|(since, _)| *since == dirty_since);
            if taken.len() >= limits.batch && !same_record_as_last {
                durable_through = dirty_since;
                break;
            }
            taken.push((dirty_since, entry.taken(limits.tails)));
        }
        let something = superseded || !taken.is_empty();
        let more = taken.len() >= limits.batch;
        let (mut entries, mut growths) = (Vec::new(), Vec::new());
        for one in taken.into_iter().filter_map(|(_, one)| one) {
            match one {
                Taken::Whole(entry) => entries.push(entry),
                Taken::Growth(growth) => growths.push(growth),
            }
        }
        let evict_through = evict_limit.min(durable_through);
        something.then_some(Aged { entries, growths, durable_through, evict_through, more })
    }

    /// The age of the oldest change that is not persisted, by the log's clock.
    pub fn oldest_dirty_ms(&self, partition: PartitionId) -> Option<i64> {
        let (_, oldest) = self.queued(partition).next()?;
        self.partitions[partition as usize].dirty.time_at(oldest.dirty_since)
    }
}
