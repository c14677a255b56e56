//! What the protocols say to the store and what it answers. No rule lives here.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Append, Feature, FeatureId, Geometry, Offset, Patch, Position, SchemaError, Value};
use crate::query::Filter;

/// Changes that happen all or not at all, in order; an action sees the effect of those before it.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub actions: Vec<Action>,
    /// Resolve filters no earlier than this.
    pub at_least: Position,
}

#[derive(Clone, Debug)]
pub struct Action {
    /// The feature type's name.
    pub feature_type: String,
    pub kind: ActionKind,
}

#[derive(Clone, Debug)]
pub enum ActionKind {
    /// Features, whole. What may be there under their ids is treated as `existing` says.
    Insert {
        features: Vec<Feature>,
        existing: Existing,
    },
    /// Sets properties and perhaps the geometry of all features that match.
    Update {
        filter: Filter,
        changes: FeatureChanges,
    },
    /// Replaces the features that match by this one; each keeps its own id.
    Replace {
        filter: Filter,
        feature: Feature,
    },
    /// Adds fixes to tracks, making those that are not there: costs no query.
    Append {
        appends: Vec<Append>,
    },
    Delete {
        filter: Filter,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Overwrite, without asking: costs no query. For ids that are fresh, and for PUT.
    Replace,
    /// `WriteError::Exists` when one of the ids is there; costs a look-up.
    Refuse,
}

/// New values: property ids, and the geometry where it is named.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureChanges {
    pub geometry: Option<Option<Geometry>>,
    pub properties: Vec<(usize, Value)>,
}

impl FeatureChanges {
    /// As a change of that feature.
    pub fn patch(&self, id: FeatureId) -> Patch {
        let properties = self.properties.iter().map(|(slot, v)| (*slot as u16, v.clone())).collect();
        Patch { id, geometry: self.geometry.clone(), properties }
    }
}

/// How a transaction uses a lock.
#[derive(Clone, Debug)]
pub struct UnderLock {
    pub id: String,
    pub release: Release,
}

/// What becomes of a lock when the transaction that used it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// It ends.
    All,
    /// It ends for the features that the transaction has changed; for the others its time begins anew.
    Touched,
}

/// What is locked where some of what is wanted is locked already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockAction {
    /// Nothing.
    All,
    /// The rest.
    Some,
}

/// A lock. Features are given by the names of their types and their ids.
#[derive(Clone, Debug, Default)]
pub struct LockedFeatures {
    pub id: String,
    pub features: Vec<(String, FeatureId)>,
    /// Those that were wanted and are another lock's.
    pub others: Vec<(String, FeatureId)>,
    /// From there on the features do not change but under this lock.
    pub position: Position,
}

/// What a transaction did.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Per action, in order: the ids that it inserted, or that its filter matched, in the order of the request.
    pub ids: Vec<Vec<FeatureId>>,
    /// Where its changes stand in the log.
    pub position: Position,
    /// False: accepted and durable, but this instance had not applied it when the wait ended.
    pub applied: bool,
}

/// A feature as a read gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub feature: Arc<Feature>,
    /// The offset of its last change: the ETag, together with the incarnation. `None` of a row that another tool wrote, which
    /// may change without notice.
    pub version: Option<Offset>,
    pub tier: Tier,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Transient,
    Persistent,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Tier::Transient => "transient",
            Tier::Persistent => "persistent",
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no feature type '{0}'")]
    UnknownType(String),
    /// The instance has just started, or the delegate is away. Try again.
    #[error("not available at the moment: {0}")]
    Unavailable(String),
    /// The position asked for was not reached in time. Try again.
    #[error("this instance has not come up to the position asked for")]
    Behind,
    #[error(transparent)]
    StalePosition(#[from] crate::model::position::StalePosition),
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    #[error("there is no feature type '{0}'")]
    UnknownType(String),
    /// `action`: its index in the transaction, from 0.
    #[error("{error}")]
    Invalid { action: usize, error: SchemaError },
    #[error("feature type '{feature_type}' already has a feature '{id}'")]
    Exists { feature_type: String, id: FeatureId },
    /// Of a conditional change: nothing was done.
    #[error("feature '{id}' of '{feature_type}' is not, or no longer, as it was expected to be")]
    NotAsExpected { feature_type: String, id: FeatureId },
    /// Nothing was written.
    #[error("feature '{id}' of '{feature_type}' is locked")]
    Locked { feature_type: String, id: FeatureId },
    /// Nothing was written.
    #[error(transparent)]
    NoLock(#[from] NoLock),
    /// Nothing was written; try again after so many seconds.
    #[error("not available at the moment, nothing was written: {0}")]
    Unavailable(String),
    /// It may or may not have been written; the same ids again are safe.
    #[error("the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    #[error("the transaction is too large: {0}")]
    TooLarge(String),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why an id is not that of a lock.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoLock {
    #[error("there is no lock '{0}'")]
    Unknown(String),
    #[error("the lock '{0}' has expired, or was released")]
    Over(String),
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum LockError {
    #[error("there is no feature type '{0}'")]
    UnknownType(String),
    /// Nothing was locked.
    #[error("not all of the features can be locked: '{id}' of '{feature_type}' is locked already")]
    Taken { feature_type: String, id: FeatureId },
    #[error(transparent)]
    NoLock(#[from] NoLock),
    /// Nothing was locked.
    #[error(
        "too many features: all locks together take {} bytes at most, some 20,000 features",
        crate::coordination::MOST_AGREED
    )]
    TooMany,
    /// No lock was given; try again.
    #[error("not available at the moment: {0}")]
    Unavailable(String),
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("there is no feature type '{0}'")]
    UnknownType(String),
    #[error("there is already a feature type '{0}'")]
    Exists(String),
    #[error(transparent)]
    Invalid(#[from] SchemaError),
    #[error("not available at the moment: {0}")]
    Unavailable(String),
    /// The log, the long-term store and the catalogue do not go together. Waiting does not mend it.
    #[error("{0}")]
    Unservable(String),
}

/// The state of one partition of one feature type, for `/metrics`, `/health/ready` and the page.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PartitionStatus {
    pub feature_type: String,
    pub partition: u32,
    pub ready: bool,
    /// Where this instance has come in the log.
    pub applied: Offset,
    /// The log's end as far as known.
    pub end: Offset,
    pub durable_through: Offset,
    pub evict_through: Offset,
    pub as_of: Offset,
    /// This instance sweeps it.
    pub owner: bool,
    /// The instance that sweeps it, or should by fair spreading, as far as it was asked for.
    pub owned_by: Option<String>,
    /// Features and tombstones in the transient index, which is one for all partitions: told with the first.
    pub index_features: u64,
    /// Its rough size in memory; told with the first.
    pub index_bytes: u64,
    /// Age of the oldest change that is not persisted, milliseconds.
    pub oldest_unpersisted_ms: i64,
    /// Features of which nobody can say what they are until the long-term store tells what their changes build on.
    pub unresolved: u64,
    /// Features that the long-term store refused and that were not mended since; none where it was not asked or is away.
    pub refused: Option<u64>,
    /// Records that were skipped, since the start.
    pub poison_records: u64,
    /// The same by reason.
    pub dead_letters: BTreeMap<&'static str, u64>,
    /// States persisted by this instance since its start.
    pub swept_features: u64,
    /// Turns of the sweeper that failed since the start.
    pub sweep_failures: u64,
    pub last_error: Option<String>,
}
