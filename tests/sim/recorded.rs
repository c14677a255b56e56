//! What happened in a run, as those were told who took part. The invariants are held against it when all is over.

use std::collections::BTreeMap;
use std::ops::Range;

use alluvium::delegate::Base;
use alluvium::model::{Feature, FeatureId, Offset, PartitionId, Watermark};
use alluvium::query::{Query, TierChoice};

use crate::oracle::{Features, Logs};
use crate::plan::Plan;

/// The version of a feature, which only the log gives: nobody else writes into the tables.
pub fn of_ours(version: Option<Offset>) -> Offset {
    version.unwrap()
}

/// Offsets per partition, by feature type.
pub type Ends = BTreeMap<String, Vec<Offset>>;

pub struct Recorded {
    pub plan: Plan,
    pub logs: Logs,
    pub events: Events,
}

#[derive(Default)]
pub struct Events {
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    pub commits: Vec<Commit>,
    /// So many of them had been when the delegate was put back to an earlier state.
    pub put_back: Option<usize>,
    pub looks: Vec<Look>,
    pub rest: Option<Rest>,
}

/// A write. Each has a number, which stands in the features and patches that it wrote.
#[derive(Debug)]
pub struct Write {
    pub number: i64,
    /// Made one change if its feature was as expected, and was told to have done it if it was told to be written.
    pub conditional: bool,
    /// It gives features its number; one that only deletes does not.
    pub leaves_number: bool,
    pub what: String,
    pub told: Told,
}

#[derive(Debug)]
pub enum Told {
    Written {
        /// By feature type.
        ids: BTreeMap<String, Vec<FeatureId>>,
        ends: Ends,
        /// Said to be visible at once; then how far the instance had come.
        applied: Option<Ends>,
    },
    NotWritten(String),
    /// The feature of a conditional change was not as expected.
    NotAsExpected,
    /// By the store, or because the instance crashed before it answered.
    Unknown,
}

/// A read that was answered to its end.
#[derive(Debug)]
pub struct Read {
    pub client: u64,
    pub at: usize,
    pub query: Query,
    pub promised: Vec<Offset>,
    pub position: Vec<Offset>,
    pub items: Vec<(Feature, Offset)>,
    /// What was counted before and behind the items.
    pub counts: Vec<u64>,
}

impl Read {
    pub fn is_merged(&self) -> bool {
        self.query.tier == TierChoice::Merged
    }

    /// All that matches, not a page of it.
    pub fn is_whole(&self) -> bool {
        self.query.start == 0 && self.query.limit.is_none() && self.query.after.is_none()
    }

    pub fn features(&self) -> Features {
        self.items.iter().map(|(f, version)| (f.id.to_string(), (f.clone(), *version))).collect()
    }
}

/// What one sweeper's transaction did in the delegate.
#[derive(Debug)]
pub struct Commit {
    pub at_ms: u64,
    pub feature_type: String,
    pub partition: PartitionId,
    pub before: Watermark,
    pub after: Watermark,
    /// All that the delegate knows of the partition's features afterwards.
    pub known: BTreeMap<String, Base>,
    /// What it has refused, of all partitions, with the version.
    pub refused: BTreeMap<String, Offset>,
}

/// A look at what must not grow, while all goes well.
#[derive(Debug)]
pub struct Look {
    pub at_ms: u64,
    pub feature_type: String,
    pub partition: PartitionId,
    pub durable_through: Offset,
}

/// How it was when everything had become quiet.
#[derive(Debug, Default)]
pub struct Rest {
    /// What had not aged in time.
    pub unrest: Option<String>,
    pub types: BTreeMap<String, TypeAtRest>,
}

#[derive(Debug, Default)]
pub struct TypeAtRest {
    pub rows: Features,
    /// Tracks whose line in the table, which others read, is not whole.
    pub tails: usize,
    /// Of each instance.
    pub answers: Vec<Features>,
    /// Features and tombstones in each instance's index.
    pub index: Vec<u64>,
    pub watermarks: Vec<Watermark>,
    /// What the log still has, by partition.
    pub log: Vec<Range<Offset>>,
}
