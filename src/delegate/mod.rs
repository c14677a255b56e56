//! SEAM: the long-term store. PostGIS tables (clustered) or a GeoPackage file (embedded): plain tables, one per feature type,
//! which any other tool may read; and the catalogue of feature types, the watermarks and the versions of deleted features.
//!
//! It knows nothing of logs and indexes beyond the numbers that it keeps for them, and no rule of the merge.
//!
//! Contract, checked on every implementation by `tests/it/delegate.rs`:
//! - [`Delegate::persist`] is one transaction with a compare-and-set on the watermark: all of it or nothing of it.
//! - A [`Snapshot`] is one moment: watermarks and rows belong together however long the scan takes.
//! - A scan may deliver rows that do not match the filter (the caller evaluates it again) but never leaves one out.

pub mod dead_letter;
pub mod embedded;
pub mod literal;
pub mod memory;
#[cfg(feature = "cluster")]
pub mod postgis;
mod refused;
pub mod sql;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use self::dead_letter::DeadLetter;
use crate::model::{Feature, FeatureId, FeatureType, Growth, Offset, PartitionId, Rect, Watermark};
use crate::query::{Cursor, Filter, SortKey};

/// A feature in the delegate, or the memory of a deleted one.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub feature: Arc<Feature>,
    /// The offset of the last change that this row includes, in its partition; `None` where another tool wrote the row, which
    /// is older than any record.
    pub version: Option<Offset>,
    /// How many of a track's fixes, which are in the feature here, stand apart from the line in the table.
    pub apart: usize,
}

impl Row {
    /// A row that is in the table as it is here.
    pub fn new(feature: Arc<Feature>, version: Option<Offset>) -> Row {
        Row { feature, version, apart: 0 }
    }
}

/// What the delegate has under an id.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    Row(Row),
    /// Deleted by the record at this offset (`None` where that is forgotten), at this event time, microseconds.
    Deleted(Option<Offset>, Option<i64>),
}

/// One state to persist.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistEntry {
    pub id: FeatureId,
    /// `None`: a tombstone.
    pub feature: Option<Arc<Feature>>,
    pub version: Offset,
    /// Of a tombstone of a type with event times: that of what was deleted, microseconds since the epoch.
    pub event_time: Option<i64>,
}

/// A state that the delegate's own constraints did not take.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    pub partition: PartitionId,
    /// As it was to be persisted; of a deletion that was refused without a feature.
    pub entry: PersistEntry,
    /// In the delegate's words.
    pub reason: String,
}

/// What a sweeper wants done for one partition, in one transaction.
#[derive(Clone, Debug)]
pub struct PersistBatch {
    pub partition: PartitionId,
    /// The watermark that the sweeper started from.
    pub expected: Watermark,
    pub next: Watermark,
    pub entries: Vec<PersistEntry>,
    /// Tracks of which only what is new is to be written; none of them is among `entries`. Only of types that keep tails.
    pub growths: Vec<Growth>,
    /// Memories of deleted features whose version is before this may be forgotten: the log has been cut past them.
    pub forget_deleted_before: Offset,
    /// By the sweeper's clock, milliseconds since the epoch: when event times of deleted features begin to be remembered, and
    /// which are no longer.
    pub now_ms: i64,
}

impl PersistBatch {
    /// The features that are deleted, with their event times, if they had one.
    fn deleted_times(&self) -> impl Iterator<Item = (&FeatureId, Option<i64>)> {
        self.entries.iter().filter(|e| e.feature.is_none()).map(|e| (&e.id, e.event_time))
    }

    /// Until when they are to be remembered, milliseconds since the epoch.
    fn remember_until(&self, feature_type: &FeatureType) -> i64 {
        let remember = feature_type.event_time.as_ref().map_or(0, |e| e.remember_deleted.as_millis() as i64);
        self.now_ms.saturating_add(remember)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persisting {
    Committed {
        /// Rows that the delegate's own constraints refused; everything else was written. They stay in the index, and
        /// [`Delegate::refused`] lists them from now on.
        refused: Vec<(FeatureId, String)>,
    },
    /// The watermark was not the expected one: nothing was written.
    Conflict(Watermark),
    /// The store has not what one of the growths builds on, or does not take it: nothing was written. Whole they go.
    Unfit,
}

#[derive(Clone, Debug)]
pub struct Bases {
    /// In the order asked; `None`: nothing known of this id.
    pub bases: Vec<Option<Base>>,
    /// Of every partition, read in the same moment.
    pub watermarks: Vec<Watermark>,
}

/// A delegate in a file.
#[derive(Debug)]
pub struct DelegateBackup {
    /// Gone when it is closed.
    pub file: std::fs::File,
    /// What is in it: each type with the watermark of each partition.
    pub types: Vec<(FeatureType, Vec<Watermark>)>,
}

/// What a scan selects. All parts hold together.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// As much of it as the delegate can say; see the contract.
    pub filter: Filter,
    /// `None`: in any order. Some: by these keys, nulls last, then by the bytes of the id.
    pub order: Option<Vec<SortKey>>,
    /// Only what comes after, in that order.
    pub after: Option<Cursor>,
    /// The caller will hardly take more than this; a hint that lets the delegate choose a plan. Not a limit.
    pub expected_rows: Option<u64>,
    /// The caller reads to the end, or has no more use for the snapshot: it need not survive a scan that is broken off.
    pub to_end: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum DelegateError {
    /// Nothing was changed; the same may work later.
    #[error("the long-term store is not available: {0}")]
    Unavailable(String),
    #[error("the long-term store has no feature type '{0}'")]
    NotFound(String),
    #[error("the long-term store already has '{0}'")]
    Exists(String),
    /// It is there and cannot be used: credentials, a database or an extension are wrong. Waiting does not mend it.
    #[error("the long-term store cannot be used: {0}")]
    Unusable(String),
    /// The tables are not what the catalogue says.
    #[error("the long-term store does not go with the catalogue: {0}")]
    Mismatch(String),
}

impl DelegateError {
    /// The caller's feature type is of another incarnation than the catalogue's: their offsets must not meet.
    pub fn wrong_incarnation(asked: &FeatureType, have: &str) -> DelegateError {
        DelegateError::Mismatch(format!(
            "feature type '{}' is of incarnation '{have}' there, not '{}'",
            asked.name, asked.incarnation
        ))
    }

    /// The caller's feature type is of another version than the catalogue's: a row written or a base read under it would miss
    /// properties.
    pub fn wrong_schema(asked: &FeatureType, have: u32) -> DelegateError {
        DelegateError::Mismatch(format!(
            "feature type '{}' is at schema version {have} there, this instance is at {}",
            asked.name, asked.schema_version
        ))
    }

    /// A type over a table of others, where there can be none.
    pub fn no_tables_of_others(feature_type: &FeatureType) -> DelegateError {
        let what = "only the clustered stack, with PostGIS, has types over tables that were there before";
        DelegateError::Mismatch(format!("feature type '{}': {what}", feature_type.name))
    }

    pub fn no_partition(feature_type: &FeatureType, partition: PartitionId) -> DelegateError {
        DelegateError::Mismatch(format!("feature type '{}' has no partition {partition}", feature_type.name))
    }
}

/// True when a table made for `a` can be taken as it is for `b`.
pub fn same_columns(a: &FeatureType, b: &FeatureType) -> bool {
    a.geometry == b.geometry
        && a.properties.len() == b.properties.len()
        && a.properties
            .iter()
            .zip(&b.properties)
            .all(|(p, q)| p.name == q.name && p.kind == q.kind && p.nullable == q.nullable)
}

#[async_trait]
pub trait Delegate: Send + Sync + 'static {
    /// A short name for people: "PostGIS", "GeoPackage".
    fn kind(&self) -> &'static str;

    /// The feature types, with a number that rises with every change of the catalogue.
    async fn catalogue(&self) -> Result<(u64, Vec<FeatureType>), DelegateError>;

    /// Enters a type and makes its table; watermarks of 0 for every partition. `Exists` when the name is taken, by a type or
    /// by a table that is not ours.
    async fn create(&self, feature_type: &FeatureType) -> Result<(), DelegateError>;

    /// Moves a type of the catalogue from one version to the next, its table with it, in one transaction; false, and nothing
    /// done, when the catalogue has not `from` any more. `to` is what [`FeatureType::changed_to`] makes of it. A table of others is
    /// never altered, only looked at: `Mismatch` when it has not what the next version says. `Unavailable` when readers kept
    /// the table busy for too long.
    ///
    /// From then on [`Self::persist`], [`Self::load`] and [`Self::refused`] are `Mismatch` to callers with another version; a
    /// [`Snapshot`] may be one of an earlier version still, and reads what that has.
    async fn alter(&self, from: &FeatureType, to: &FeatureType) -> Result<bool, DelegateError>;

    /// Takes a type, its watermarks and its bookkeeping out of the catalogue; `purge` drops its table too. One that is gone
    /// is no error. Without `purge` a later `create` of that name with the same columns takes the table as it is, its rows
    /// without versions.
    async fn remove(&self, name: &str, purge: bool) -> Result<(), DelegateError>;

    /// The stored queries: id and text, which is the business of those who made them.
    async fn stored_queries(&self) -> Result<BTreeMap<String, String>, DelegateError>;

    /// Keeps all of these, or none and gives the first id that is taken. The catalogue's number rises.
    async fn keep_stored_queries(&self, queries: &[(String, String)]) -> Result<Option<String>, DelegateError>;

    /// Forgets one; false when there was none. The catalogue's number rises.
    async fn drop_stored_query(&self, id: &str) -> Result<bool, DelegateError>;

    /// The watermark of each partition.
    async fn watermarks(&self, feature_type: &FeatureType) -> Result<Vec<Watermark>, DelegateError>;

    /// Upserts, deletes what is tombstoned and remembers its version, never over a row or a memory of a newer version, and
    /// moves the watermark: in one transaction, and only if the watermark is the expected one. An equal version is written
    /// again: it is the same state. A row without a version, which another tool wrote, is overwritten by any.
    ///
    /// A growth is written where the row's version is not before what it builds on and not after its own. The fixes may stand
    /// apart from the line, at a cost that does not depend on its length; whoever asks here gets them together, and whoever
    /// reads the table by other means gets them with the next whole state, or after [`Self::fold`].
    async fn persist(&self, feature_type: &FeatureType, batch: PersistBatch) -> Result<Persisting, DelegateError>;

    /// Puts together what stands apart of some tracks of a partition whose versions are before this one; how many they were. It
    /// changes nothing that is read here.
    async fn fold(
        &self,
        _feature_type: &FeatureType,
        _partition: PartitionId,
        _before: Offset,
    ) -> Result<usize, DelegateError> {
        Ok(0)
    }

    /// What constraints refused of this type, whole, in no order: the newest such state of each feature, until a state of the
    /// same or a later version is persisted, a deletion too. A starting instance asks after it has read the watermarks: what is
    /// refused later than those still is in the log after them.
    async fn refused(&self, feature_type: &FeatureType) -> Result<Vec<Refused>, DelegateError>;

    /// Keeps records that no feature could be made of; one that is kept already stays as it is. Of each type at least the newest
    /// [`dead_letter::KEPT`] stay.
    async fn keep_dead_letters(
        &self,
        feature_type: &FeatureType,
        letters: Vec<DeadLetter>,
    ) -> Result<(), DelegateError>;

    /// What is kept of them, in no order.
    async fn dead_letters(&self, feature_type: &FeatureType) -> Result<Vec<DeadLetter>, DelegateError>;

    /// What is known of these ids, and the watermarks of the same moment.
    async fn load(&self, feature_type: &FeatureType, ids: &[FeatureId]) -> Result<Bases, DelegateError>;

    /// Ids for new features of a type whose table gives them (integer keys of a table of others): each is given once.
    /// `Mismatch` where it has none to give.
    async fn reserve_ids(&self, feature_type: &FeatureType, _count: usize) -> Result<Vec<FeatureId>, DelegateError> {
        Err(DelegateError::Mismatch(format!("'{}' has no table that gives ids", feature_type.name)))
    }

    /// A copy of everything, of one moment, made while others read and write. `Mismatch` where the store has tools of its own
    /// for that.
    async fn backup(&self) -> Result<DelegateBackup, DelegateError> {
        Err(DelegateError::Mismatch(format!("{} is backed up with tools of its own", self.kind())))
    }

    /// A consistent view of one type. Held until dropped.
    async fn snapshot(&self, feature_type: &Arc<FeatureType>) -> Result<Box<dyn Snapshot>, DelegateError>;
}

/// Rows in batches.
pub type Rows = BoxStream<'static, Result<Vec<Row>, DelegateError>>;

#[async_trait]
pub trait Snapshot: Send + Sync {
    /// The watermark of each partition at this moment.
    fn watermarks(&self) -> &[Watermark];

    /// The rows of a scan. Bounded memory: the stream is pulled. One scan of a snapshot at a time.
    async fn scan(&mut self, scan: Scan) -> Result<Rows, DelegateError>;

    /// How many rows match the filter exactly, `None` when the delegate cannot say all of the filter (the caller then counts
    /// the rows itself).
    async fn count(&mut self, filter: &Filter) -> Result<Option<u64>, DelegateError>;

    /// The envelope of all rows, at least; `None` when there are none.
    async fn bounds(&mut self) -> Result<Option<Rect>, DelegateError>;
}
