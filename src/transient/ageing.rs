//! Ageing: what a sweeper should persist, and what its markers make leave.

use super::{Entry, TransientIndex};
use crate::model::{FeatureId, Offset, PartitionId, Persisted};
use crate::sabotage::{Safeguard, off};

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

impl TransientIndex {
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
}
