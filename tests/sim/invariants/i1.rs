//! I1: an acknowledged write is never lost, and one that was told not to be written, or to have found another version than it
//! expected, was not or did.
//!
//! The log is what is durable: an answer names the write's place in it, and there the write must stand, each at its own. That
//! the log's changes reach index and delegate is for the invariants of reading and of rest.

use std::collections::{BTreeMap, BTreeSet};

use alluvium::model::{Change, FeatureId, Offset, PartitionId, Value, partition_of};

use crate::clients::number;
use crate::oracle::{Logged, TypeLog};
use crate::recorded::{Recorded, Told};

pub fn check(recorded: &Recorded) -> Result<(), String> {
    let (numbers, done) = (numbers(recorded), done(recorded));
    let mut claimed = BTreeMap::new();
    for write in &recorded.events.writes {
        match &write.told {
            Told::Written { ids, ends, .. } => {
                if write.conditional && write.leaves_number && !done.contains(&write.number) {
                    return Err(format!("told to be done, and its feature was not as expected: {}", write.what));
                }
                let mut appends = BTreeSet::new();
                for (name, ids) in ids {
                    let log = recorded.logs.of(name);
                    appends.extend(append_of(log, ends.get(name).map_or(&[][..], Vec::as_slice), ids)?);
                }
                if appends.len() > 1 {
                    return Err(format!("told to stand at {ends:?}, which is several appends: {}", write.what));
                }
                if let Some(append) = appends.first()
                    && let Some(other) = claimed.insert(*append, write.number)
                {
                    return Err(format!("write {other} was told the same place {ends:?}: {}", write.what));
                }
            }
            Told::NotWritten(why) if numbers.contains(&write.number) => {
                return Err(format!("told not to be written ({why}), and is in the log: {}", write.what));
            }
            Told::NotAsExpected if done.contains(&write.number) => {
                return Err(format!("told that nothing was done, and it was: {}", write.what));
            }
            Told::NotWritten(_) | Told::NotAsExpected | Told::Unknown => {}
        }
    }
    Ok(())
}

/// The append that has these ids' changes where the answer said.
fn append_of(log: &TypeLog, ends: &[Offset], ids: &[FeatureId]) -> Result<Option<usize>, String> {
    let at = |partition: PartitionId, offset: Offset| {
        log.records.iter().find(|r| r.partition == partition && r.offset == offset)
    };
    let mut append = None;
    for id in ids {
        let partition = partition_of(id, log.ft.partitions);
        let end = ends.get(partition as usize).copied().unwrap_or(0);
        let lost =
            || format!("'{id}' of {} was acknowledged before offset {end} of partition {partition}", log.ft.name);
        let last = end.checked_sub(1).and_then(|offset| at(partition, offset)).ok_or_else(lost)?;
        let of_write = |r: &&Logged| r.append == last.append && r.partition == partition;
        if !log.records.iter().filter(of_write).any(|r| r.changes.iter().any(|c| c.id() == id)) {
            return Err(format!("{}, where another write stands", lost()));
        }
        append = Some(last.append);
    }
    Ok(append)
}

/// The numbers that the log's changes have given features.
fn done(recorded: &Recorded) -> BTreeSet<i64> {
    let assigned = recorded.logs.types.values().flat_map(|log| log.assigned.values().flatten());
    assigned.filter(|a| a.slot > 0).filter_map(|a| number(&a.value)).collect()
}

/// The numbers of the writes that have left one in the log.
fn numbers(recorded: &Recorded) -> BTreeSet<i64> {
    let of = |slot: usize, value: &Value| number(value).filter(|_| slot > 0);
    let of_change = |change: &Change| -> Vec<i64> {
        match if let Change::If(_, change) = change { change } else { change } {
            Change::Put(f) => f.properties.iter().enumerate().filter_map(|(s, v)| of(s, v)).collect(),
            Change::Patch(p) => p.properties.iter().filter_map(|(s, v)| of((*s).into(), v)).collect(),
            Change::Append(a) => a.properties.iter().filter_map(|(s, v)| of((*s).into(), v)).collect(),
            Change::Delete(_) | Change::If(..) => Vec::new(),
        }
    };
    let records = recorded.logs.types.values().flat_map(|log| &log.records);
    records.flat_map(|r| &r.changes).flat_map(of_change).collect()
}
