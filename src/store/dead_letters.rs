//! Records of a log that no feature could be made of: counted by reason, and the newest of them kept to be looked at.
//!
//! The sweeper gives them to the delegate before the watermark passes them: then the log may be cut, and an instance that starts
//! does not read them. A record that is read again, after an error say, is counted once.

use std::collections::{BTreeMap, VecDeque};

use crate::delegate::dead_letter::{DeadLetter, KEPT};
use crate::format::record::Poison;
use crate::log::LogRecord;
use crate::model::{Offset, PartitionId};

/// Of a value and of a key, bytes.
const BEGINNING: usize = 4096;

#[derive(Debug, Default)]
pub struct DeadLetters {
    counts: BTreeMap<PartitionId, BTreeMap<&'static str, u64>>,
    newest: VecDeque<DeadLetter>,
    /// Per partition, what has been counted, and what the delegate has been given.
    through: BTreeMap<PartitionId, Offset>,
    given: BTreeMap<PartitionId, Offset>,
}

impl DeadLetters {
    /// Sets a record aside; false when it has been before.
    pub fn add(&mut self, place: (&str, &str, PartitionId), record: &LogRecord, why: Poison, detail: String) -> bool {
        let (feature_type, log, partition) = place;
        let through = self.through.entry(partition).or_default();
        if record.offset < *through {
            return false;
        }
        *through = record.offset + 1;
        *self.counts.entry(partition).or_default().entry(why.name()).or_default() += 1;
        if self.newest.len() == KEPT {
            self.newest.pop_front();
        }
        let begins = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(BEGINNING)]).into_owned();
        self.newest.push_back(DeadLetter {
            feature_type: feature_type.to_owned(),
            log: log.to_owned(),
            partition,
            offset: record.offset,
            append_time_ms: record.append_time_ms,
            key: record.key.as_deref().map(begins),
            reason: why.name().to_owned(),
            detail,
            value_bytes: record.value.as_deref().map(<[u8]>::len),
            value_begins: record.value.as_deref().map(begins),
        });
        true
    }

    /// How many there were of each reason since the start.
    pub fn counts(&self, partition: PartitionId) -> BTreeMap<&'static str, u64> {
        self.counts.get(&partition).cloned().unwrap_or_default()
    }

    /// Those before `before` that the delegate has not been given yet.
    pub fn to_give(&self, partition: PartitionId, before: Offset) -> Vec<DeadLetter> {
        let given = self.given.get(&partition).copied().unwrap_or(0);
        self.newest
            .iter()
            .filter(|l| l.partition == partition && (given..before).contains(&l.offset))
            .cloned()
            .collect()
    }

    pub fn note_given(&mut self, partition: PartitionId, before: Offset) {
        self.given.insert(partition, before);
    }

    /// What is remembered, the newest first.
    pub fn newest(&self) -> impl Iterator<Item = &DeadLetter> {
        self.newest.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_each_is_counted_once() {
        let mut letters = DeadLetters::default();
        let record = |offset| LogRecord {
            offset,
            append_time_ms: 5,
            key: None,
            value: Some(bytes::Bytes::from("ö".repeat(2500).into_bytes())),
        };
        let mut add = |offset| letters.add(("ships", "ships.i1", 1), &record(offset), Poison::Unreadable, "why".into());
        assert!((0..700).all(&mut add));
        assert!(!(100..700).any(&mut add), "read again");
        assert_eq!(letters.counts(1), BTreeMap::from([("unreadable", 700)]));
        assert!(letters.counts(0).is_empty());
        assert_eq!(letters.to_give(1, 202).iter().map(|l| l.offset).collect::<Vec<_>>(), [200, 201]);
        letters.note_given(1, 202);
        assert_eq!((letters.to_give(1, 203)[0].offset, letters.to_give(0, 700).len()), (202, 0));
        let offsets: Vec<Offset> = letters.newest().map(|l| l.offset).collect();
        assert_eq!((offsets.len(), offsets[0], offsets[499]), (KEPT, 699, 200));
        let first = letters.newest().next().unwrap();
        assert_eq!((first.value_bytes, first.value_begins.as_ref().map(String::len)), (Some(5000), Some(BEGINNING)));
    }
}
