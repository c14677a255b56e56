//! Records of a log that no feature could be made of: counted by reason, and the newest of them kept to be looked at.
//!
//! In memory, for those who run the server: the log keeps the records themselves until it is cut. A record that is read again,
//! after an error say, is counted once.

use std::collections::{BTreeMap, VecDeque};

use crate::format::record::Poison;
use crate::log::LogRecord;
use crate::model::{Offset, PartitionId};

/// Kept per feature type; the newest.
const KEPT: usize = 500;
/// Of a value and of a key, bytes.
const BEGINNING: usize = 256;

/// A record that was skipped.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct DeadLetter {
    pub feature_type: String,
    /// The log's name: in Kafka that of the topic, after the prefix.
    pub log: String,
    pub partition: PartitionId,
    pub offset: Offset,
    /// Milliseconds since the epoch, by the log's clock.
    pub append_time_ms: i64,
    pub key: Option<String>,
    /// One of [`Poison::name`].
    pub reason: &'static str,
    pub detail: String,
    /// Absent where the record has no value.
    pub value_bytes: Option<usize>,
    /// The value's first bytes, as text.
    pub value_begins: Option<String>,
}

#[derive(Debug, Default)]
pub struct DeadLetters {
    counts: BTreeMap<PartitionId, BTreeMap<&'static str, u64>>,
    newest: VecDeque<DeadLetter>,
    /// Per partition, what has been counted.
    through: BTreeMap<PartitionId, Offset>,
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
            reason: why.name(),
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

    /// What is kept, the newest first.
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
            value: Some(bytes::Bytes::from("ö".repeat(200).into_bytes())),
        };
        let mut add = |offset| letters.add(("ships", "ships.i1", 1), &record(offset), Poison::Unreadable, "why".into());
        assert!((0..700).all(&mut add));
        assert!(!(100..700).any(&mut add), "read again");
        assert_eq!(letters.counts(1), BTreeMap::from([("unreadable", 700)]));
        assert!(letters.counts(0).is_empty());
        let offsets: Vec<Offset> = letters.newest().map(|l| l.offset).collect();
        assert_eq!((offsets.len(), offsets[0], offsets[499]), (KEPT, 699, 200));
        let first = letters.newest().next().unwrap();
        assert_eq!((first.value_bytes, first.value_begins.as_ref().map(String::len)), (Some(400), Some(BEGINNING)));
    }
}
