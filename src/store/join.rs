//! Pairs of features of two types: both sides are merged reads.
//!
//! Each side is exact, at a moment of its own: the two types have a log each. A type that is joined with itself has one moment,
//! and is read once. The second side is held in memory, within [`HELD_BYTES`]; the first passes by, and of what it gives one
//! page is kept, while all of it is counted.

use std::sync::Arc;

use super::Store;
use super::api::ReadError;
use super::memory::Share;
use crate::model::{Feature, GeometryError, Position};
use crate::query::join::{Held, Join};
use crate::query::{Filter, Query, evaluate};

/// What the held side may take, about.
const HELD_BYTES: usize = 128 << 20;
/// How many pairs may have to be looked at: some ten seconds.
const MAX_COMPARED: u64 = 50_000_000;
/// How many are looked at between two breaths: other requests get their turn.
const BREATH: u64 = 1_000;

/// A join of two queries, whose pages do not matter; pairs come in the order of the first, and of the second for each of its
/// features.
pub struct PairQuery {
    pub first: Query,
    pub second: Query,
    pub join: Join,
    /// Pairs to skip.
    pub start: u64,
    /// Pairs at most.
    pub limit: u64,
}

/// A page of pairs.
pub struct Pairs {
    pub page: Vec<[Arc<Feature>; 2]>,
    /// How many there are in all.
    pub matched: u64,
    /// At which each side holds.
    pub position: Position,
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(
        "the features of '{0}' that the join has to hold in memory take more than {limit} MB: narrow them by conditions of \
         their own, or name the smaller type last",
        limit = HELD_BYTES >> 20
    )]
    TooMuchHeld(String),
    #[error(
        "more than {limit} pairs would have to be compared: join by an equality, or narrow either side",
        limit = MAX_COMPARED
    )]
    TooManyCompared,
    #[error("feature '{id}' of '{feature_type}' has no place in the CRS of the other type: {error}")]
    NoPlace { feature_type: String, id: String, error: GeometryError },
}

impl Store {
    /// Answers a join.
    pub async fn pairs(&self, query: PairQuery) -> Result<Pairs, JoinError> {
        let PairQuery { first, second, join, start, limit } = query;
        let mut holding = Holding { held: Held::new(&join), share: self.memory.share(0), of: &second.feature_type };
        let mut pairing = Pairing { start, limit, compared: 0, rested: 0, page: Vec::new(), matched: 0 };
        let mut position;
        if first.feature_type == second.feature_type {
            let either = match (&first.filter, &second.filter) {
                (Filter::All, _) | (_, Filter::All) => Filter::All,
                (a, b) => Filter::Or(vec![a.clone(), b.clone()]),
            };
            let mut reading = self.read(Query { filter: either, ..first.clone() }).await?;
            let (mut firsts, mut bytes) = (Vec::new(), 0);
            while let Some(item) = reading.next().await {
                let feature = item?.feature;
                bytes += feature.heap_bytes();
                if evaluate::matches(&first.filter, &feature) {
                    firsts.push(feature.clone());
                }
                if evaluate::matches(&second.filter, &feature) {
                    holding.hold(feature)?;
                }
                holding.check(bytes)?;
            }
            position = reading.position.clone();
            holding.held.index();
            pairing.foresee(&holding.held, firsts.len() as u64)?;
            for feature in &firsts {
                pairing.pair(feature, &holding.held).await?;
            }
        } else {
            let mut of_first = self.read(first).await?;
            let mut of_second = self.read(second.clone()).await?;
            position = of_first.position.clone();
            position.merge(&of_second.position);
            while let Some(item) = of_second.next().await {
                holding.hold(item?.feature)?;
                holding.check(0)?;
            }
            holding.held.index();
            if holding.held.looked_at().is_some() {
                pairing.foresee(&holding.held, of_first.count(None).await?.unwrap_or_default())?;
            }
            while let Some(item) = of_first.next().await {
                pairing.pair(&item?.feature, &holding.held).await?;
            }
        }
        Ok(Pairs { page: pairing.page, matched: pairing.matched, position })
    }
}

/// The side that is held, as it comes in.
struct Holding<'q> {
    held: Held<'q>,
    share: Share,
    /// The name of its type.
    of: &'q str,
}

impl Holding<'_> {
    fn hold(&mut self, feature: Arc<Feature>) -> Result<(), JoinError> {
        let id = feature.id.clone();
        self.held.push(feature).map_err(|error| JoinError::NoPlace {
            feature_type: self.of.to_owned(),
            id: id.to_string(),
            error,
        })
    }

    /// With `more` bytes held besides.
    fn check(&mut self, more: usize) -> Result<(), JoinError> {
        let bytes = self.held.bytes() + more;
        self.share.set(bytes);
        if bytes > HELD_BYTES { Err(JoinError::TooMuchHeld(self.of.to_owned())) } else { Ok(()) }
    }
}

/// The first side, as it passes by.
struct Pairing {
    start: u64,
    limit: u64,
    compared: u64,
    /// How many had been compared at the last breath.
    rested: u64,
    page: Vec<[Arc<Feature>; 2]>,
    matched: u64,
}

impl Pairing {
    /// An error where so many features of the first side would be too many: before all the work, not after it.
    fn foresee(&self, held: &Held<'_>, firsts: u64) -> Result<(), JoinError> {
        match held.looked_at() {
            Some(each) if each.saturating_mul(firsts) > MAX_COMPARED => Err(JoinError::TooManyCompared),
            _ => Ok(()),
        }
    }

    async fn pair(&mut self, first: &Arc<Feature>, held: &Held<'_>) -> Result<(), JoinError> {
        for second in held.partners(first, &mut self.compared) {
            if self.matched >= self.start && (self.page.len() as u64) < self.limit {
                self.page.push([first.clone(), second]);
            }
            self.matched += 1;
        }
        if self.compared > MAX_COMPARED {
            return Err(JoinError::TooManyCompared);
        }
        if self.compared - self.rested > BREATH {
            self.rested = self.compared;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
