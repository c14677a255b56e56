//! What is asked of the store: a query, its filter with one meaning, and where a page begins and ends.
//!
//! The filter has one AST, [`filter::Filter`], whose meaning in memory is [`evaluate`]; delegates may say as much of it as
//! they can in SQL. Its spellings ([`fes`], [`cql`]) parse into it.

pub mod cql;
pub mod distance;
pub mod evaluate;
pub mod fes;
pub mod filter;
pub mod foreign_box;
pub mod function;
pub mod join;
#[cfg(test)]
mod sample;
pub mod temporal;

use std::cmp::Ordering;

use crate::model::{Feature, FeatureId, Position, Value};
pub use filter::{CompareOp, Filter, IdSet, Operand, SpatialOp};

/// A query over one feature type. Coordinates in the filter are x,y in the stored CRS.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub feature_type: String,
    pub filter: Filter,
    /// Sort keys; the feature id is always the last one. Empty: by id.
    pub sort: Vec<SortKey>,
    /// The answer's order does not matter (a whole export): the tiers may deliver as it suits them. Only without `sort`,
    /// `start` and `after`.
    pub any_order: bool,
    /// Features to skip.
    pub start: u64,
    /// Features at most; `None`: all.
    pub limit: Option<u64>,
    /// Only what sorts after this.
    pub after: Option<Cursor>,
    pub tier: TierChoice,
    /// Wait until this position is applied here.
    pub at_least: Position,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TierChoice {
    #[default]
    Merged,
    /// What the index holds.
    Transient,
    /// The delegate's rows that the index does not hide.
    Persistent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    pub property: usize,
    pub descending: bool,
}

/// The last feature of a page: its sort values and its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    pub values: Vec<Value>,
    pub id: FeatureId,
}

impl Cursor {
    pub fn of(feature: &Feature, sort: &[SortKey]) -> Cursor {
        Cursor { values: sort.iter().map(|k| feature.value(k.property).clone()).collect(), id: feature.id.clone() }
    }
}

/// The order of an answer: by the sort keys, nulls last in either direction, then by the bytes of the id.
pub fn compare(a: &Feature, b: &Feature, sort: &[SortKey]) -> Ordering {
    compare_keys(sort, |k| (a.value(k), b.value(k))).then_with(|| a.id.as_bytes().cmp(b.id.as_bytes()))
}

/// True when `feature` comes after the cursor.
pub fn is_after(feature: &Feature, cursor: &Cursor, sort: &[SortKey]) -> bool {
    let by_keys = sort
        .iter()
        .zip(&cursor.values)
        .map(|(k, v)| key_order(feature.value(k.property), v, k.descending))
        .find(|o| o.is_ne());
    by_keys.unwrap_or_else(|| feature.id.as_bytes().cmp(cursor.id.as_bytes())).is_gt()
}

fn compare_keys<'a>(sort: &[SortKey], values: impl Fn(usize) -> (&'a Value, &'a Value)) -> Ordering {
    sort.iter()
        .map(|k| {
            let (a, b) = values(k.property);
            key_order(a, b, k.descending)
        })
        .find(|o| o.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn key_order(a: &Value, b: &Value, descending: bool) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (false, false) if descending => a.sort_cmp(b).reverse(),
        _ => a.sort_cmp(b),
    }
}
