//! A record of a log that no feature could be made of, as it is kept beyond the log's cut.

use serde::{Deserialize, Serialize};

use super::DelegateError;
use crate::model::{Offset, PartitionId};

/// Kept per feature type; the newest.
pub const KEPT: usize = 500;

/// A record that was skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub feature_type: String,
    /// The log's name: in Kafka that of the topic, after the prefix.
    pub log: String,
    pub partition: PartitionId,
    pub offset: Offset,
    /// Milliseconds since the epoch, by the log's clock.
    pub append_time_ms: i64,
    pub key: Option<String>,
    /// One of [`crate::format::record::Poison::name`].
    pub reason: String,
    pub detail: String,
    /// Absent where the record has no value.
    pub value_bytes: Option<usize>,
    /// The value's first bytes, as text.
    pub value_begins: Option<String>,
}

impl DeadLetter {
    pub(super) fn to_json(&self) -> Result<String, DelegateError> {
        serde_json::to_string(self).map_err(|e| DelegateError::Mismatch(e.to_string()))
    }

    pub(super) fn from_json(text: &str) -> Result<DeadLetter, DelegateError> {
        serde_json::from_str(text).map_err(|e| DelegateError::Mismatch(format!("a kept dead letter: {e}")))
    }
}
