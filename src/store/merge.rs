//! The merged read: one consistent answer out of two tiers.
//!
//! The index is looked at first and the delegate second; a delegate row is hidden when its id was in the index at the step
//! at which the read began, whether or not its newer version matches. See [`crate::transient::ReaderTicket`] for what happens
//! to entries that come and go meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::api::{Item, ReadError, Tier};
use super::memory::{Memory, Share};
use super::state::{PutBack, TypeState};
use crate::delegate::{Delegate, DelegateError, Row, Rows, Scan, Snapshot};
use crate::model::{FeatureType, Offset, Position, Rect, Watermark};
use crate::query::{self, Filter, Query, SortKey, TierChoice, evaluate};
use crate::sabotage::{Safeguard, off};
use crate::transient::{Match, ReaderTicket, TransientIndex};

/// Past so many ids in the index, a count looks at the rows rather than asking for each hidden one.
const HIDDEN_LOOKUPS: usize = 20_000;

/// How such a row was before, where this instance stands, nobody can tell any more.
const BEHIND_ROWS: &str = "the long-term store is ahead of what this instance has read of the log";
const UNRESOLVED: &str = "features have changed, and the long-term store, which has the rest of them, is away";

/// Both tiers at one moment.
struct Moment {
    feature_type: Arc<FeatureType>,
    /// The index at this step, and the position that it had applied.
    matches: Vec<Match>,
    position: Vec<Offset>,
    ticket: ReaderTicket,
    /// Features of the index of which nobody can say yet whether they match: of a read of the index alone.
    left_out: usize,
    /// Of the matches: what they point to is counted with the index.
    _handles: Share,
    /// `None` when the delegate is not asked.
    snapshot: Option<Box<dyn Snapshot>>,
}

impl From<DelegateError> for ReadError {
    fn from(e: DelegateError) -> Self {
        ReadError::Unavailable(e.to_string())
    }
}

impl From<PutBack> for ReadError {
    fn from(e: PutBack) -> Self {
        ReadError::Unavailable(e.to_string())
    }
}

/// Takes the index first and the delegate second, again and again until this instance is not behind what the delegate shows.
async fn moment(
    state: &Arc<TypeState>,
    delegate: &Arc<dyn Delegate>,
    filter: &Filter,
    tier: TierChoice,
    wait: Duration,
    memory: &Arc<Memory>,
) -> Result<Moment, ReadError> {
    let deadline = Instant::now() + wait;
    loop {
        if !state.wait_until(deadline, TransientIndex::may_serve).await {
            return Err(ReadError::Unavailable(BEHIND_ROWS.into()));
        }
        resolved(state, filter, tier, deadline).await?;
        let early =
            if off(Safeguard::IndexFirst) { Some(delegate.snapshot(&state.feature_type()).await?) } else { None };
        let (ticket, position, matches, left_out, feature_type, all_here) = {
            let index = state.index.read();
            if !index.may_serve() || !is_resolved(&index, filter, tier) {
                continue;
            }
            let left_out = if index.is_unknown(filter) { index.unresolved_len() } else { 0 };
            let matches = if tier == TierChoice::Persistent { Vec::new() } else { index.select(filter) };
            // Rows of what is here are hidden, so for those alone the delegate need not be asked.
            let all_here = filter.id_set().is_some_and(|ids| ids.list.iter().all(|id| index.get(id).is_some()));
            (index.reader(), index.applied(), matches, left_out, state.feature_type(), all_here)
        };
        let handles = memory.share(matches.capacity() * size_of::<Match>());
        if tier == TierChoice::Transient || all_here || !feature_type.persist {
            return Ok(Moment { feature_type, matches, position, ticket, left_out, _handles: handles, snapshot: None });
        }
        let snapshot = match early {
            Some(snapshot) => snapshot,
            None => {
                let least = state.least();
                let snapshot = delegate.snapshot(&feature_type).await?;
                state.check_not_put_back(&least, snapshot.watermarks())?;
                snapshot
            }
        };
        let seen: Vec<Watermark> = snapshot.watermarks().to_vec();
        if position.iter().zip(&seen).all(|(p, w)| *p >= w.as_of) || off(Safeguard::AsOf) {
            let snapshot = Some(snapshot);
            return Ok(Moment { feature_type, matches, position, ticket, left_out, _handles: handles, snapshot });
        }
        drop(snapshot);
        let caught_up =
            state.wait_until(deadline, |index| index.applied().iter().zip(&seen).all(|(p, w)| *p >= w.as_of)).await;
        if !caught_up {
            return Err(ReadError::Unavailable(BEHIND_ROWS.into()));
        }
    }
}

/// Waits until it is known what matches.
async fn resolved(state: &TypeState, filter: &Filter, tier: TierChoice, deadline: Instant) -> Result<(), ReadError> {
    let known = state.wait_until(deadline, |index| is_resolved(index, filter, tier)).await;
    if known { Ok(()) } else { Err(ReadError::Unavailable(UNRESOLVED.into())) }
}

/// True when it is known what matches. A read of the index alone is a look at what is there: it leaves out what nobody can say
/// yet, and says so, but for what it asks for by its id.
fn is_resolved(index: &TransientIndex, filter: &Filter, tier: TierChoice) -> bool {
    !index.is_unknown(filter) || (tier == TierChoice::Transient && filter.id_set().is_none())
}

/// Opens the answer to a query: fixes its moment.
pub async fn read(
    state: Arc<TypeState>,
    delegate: &Arc<dyn Delegate>,
    query: Query,
    wait: Duration,
    memory: &Arc<Memory>,
) -> Result<Reading, ReadError> {
    state.wait_for_position(&query.at_least, wait).await?;
    let moment = moment(&state, delegate, &query.filter, query.tier, wait, memory).await?;
    Ok(Reading {
        feature_type: moment.feature_type.clone(),
        position: state.position_of(&moment.position),
        left_out: moment.left_out,
        matched_here: moment.matches.len() as u64,
        query,
        state,
        moment,
        again: false,
        items: None,
    })
}

/// One consistent answer: its features, as they are asked for, and how many there are in all, both of one moment.
pub struct Reading {
    pub feature_type: Arc<FeatureType>,
    /// The position at which the answer holds.
    pub position: Position,
    /// Of a read of the transient tier alone: how many features it leaves out, whether or not they match, because the long-term
    /// store, which has the rest of them, is away.
    pub left_out: usize,
    query: Query,
    state: Arc<TypeState>,
    moment: Moment,
    /// How many features of the index match, on whatever page.
    matched_here: u64,
    /// They begin anew, after the count: now they are read to the end.
    again: bool,
    /// `None`: not begun.
    items: Option<Items>,
}

/// How far the ordered merge of what the index had and what the delegate has has come.
struct Items {
    /// `None`: in any order.
    sort: Option<Vec<SortKey>>,
    /// The next of the moment's matches.
    here: usize,
    rows: Option<Rows>,
    /// Rows that are not hidden and match.
    buffered: VecDeque<Row>,
    to_skip: u64,
    to_give: u64,
}

impl Items {
    /// The next feature, whatever the page.
    async fn next(&mut self, state: &TypeState, moment: &Moment, filter: &Filter) -> Result<Option<Item>, ReadError> {
        let here = moment.matches.get(self.here);
        // In any order, what is in memory goes first: the delegate's rows come meanwhile.
        let wait_for_rows = here.is_none() || self.sort.is_some();
        while wait_for_rows
            && self.buffered.is_empty()
            && let Some(rows) = &mut self.rows
        {
            match rows.next().await {
                None => self.rows = None,
                Some(batch) => self.buffered.extend(visible(state, &moment.ticket, filter, batch?)?),
            }
        }
        let row_first = match (here, self.buffered.front(), &self.sort) {
            (None, None, _) => return Ok(None),
            (None, Some(_), _) => true,
            (Some(_), None, _) | (Some(_), _, None) => false,
            (Some(m), Some(row), Some(sort)) => query::compare(&row.feature, &m.feature, sort).is_lt(),
        };
        if row_first {
            return Ok(self.buffered.pop_front().map(persistent_item));
        }
        self.here += 1;
        Ok(here.map(transient_item))
    }
}

impl Reading {
    /// Another page of the same answer; to be chosen before the first item is asked for.
    pub fn page(&mut self, start: u64, limit: u64) {
        debug_assert!(self.items.is_none(), "what lies behind the first page may have been let go of");
        (self.query.start, self.query.limit) = (start, Some(limit));
    }

    /// The next feature of the page; `None` behind the last one, and behind an error.
    pub async fn next(&mut self) -> Option<Result<Item, ReadError>> {
        let next = self.next_of_page().await.transpose();
        if let (Some(Err(_)), Some(items)) = (&next, &mut self.items) {
            (items.rows, items.to_give) = (None, 0);
        }
        next
    }

    async fn next_of_page(&mut self) -> Result<Option<Item>, ReadError> {
        if self.items.is_none() {
            self.items = Some(self.begin().await?);
        }
        let Some(items) = &mut self.items else { return Ok(None) };
        while items.to_give > 0 {
            let Some(item) = items.next(&self.state, &self.moment, &self.query.filter).await? else { break };
            if items.to_skip == 0 {
                items.to_give -= 1;
                return Ok(Some(item));
            }
            items.to_skip -= 1;
        }
        Ok(None)
    }

    /// How many features match the filter in the query's tier, exactly, whatever the page; `None` past the budget, and where
    /// some are left out. The items begin anew, but only once: not to be asked when some have been read since.
    pub async fn count(&mut self, budget: Option<Duration>) -> Result<Option<u64>, ReadError> {
        // The delegate's snapshot has one scan at a time.
        self.again = self.items.take().is_some();
        within(budget, self.count_all()).await
    }

    /// The whole page, where it is known to be small.
    pub async fn all(mut self) -> Result<Vec<Item>, ReadError> {
        let mut all = Vec::new();
        while let Some(item) = self.next().await {
            all.push(item?);
        }
        Ok(all)
    }

    async fn begin(&mut self) -> Result<Items, ReadError> {
        let query = &self.query;
        let ordered = !query.any_order || query.start > 0 || query.after.is_some() || !query.sort.is_empty();
        let matches = &mut self.moment.matches;
        if let Some(cursor) = &query.after {
            matches.retain(|m| query::is_after(&m.feature, cursor, &query.sort));
        }
        let end = query.limit.map_or(u64::MAX, |l| l.saturating_add(query.start));
        if ordered {
            sort_up_to(matches, usize::try_from(end).unwrap_or(usize::MAX), &query.sort);
        }
        let rows = match &mut self.moment.snapshot {
            None => None,
            Some(snapshot) => {
                let scan = Scan {
                    filter: query.filter.clone(),
                    order: ordered.then(|| query.sort.clone()),
                    after: query.after.clone(),
                    expected_rows: query.limit.map(|_| end),
                    to_end: self.again,
                };
                Some(snapshot.scan(scan).await?)
            }
        };
        Ok(Items {
            sort: ordered.then(|| query.sort.clone()),
            here: 0,
            rows,
            buffered: VecDeque::new(),
            to_skip: query.start,
            to_give: query.limit.unwrap_or(u64::MAX),
        })
    }

    pub(super) async fn count_all(&mut self) -> Result<Option<u64>, ReadError> {
        if self.left_out > 0 {
            return Ok(None);
        }
        let Moment { ticket, snapshot, .. } = &mut self.moment;
        let (state, filter) = (&self.state, &self.query.filter);
        let Some(snapshot) = snapshot else { return Ok(Some(self.matched_here)) };
        let hidden = state.index.read().hidden_from(ticket);
        let all_rows = if hidden.len() <= HIDDEN_LOOKUPS { snapshot.count(filter).await? } else { None };
        let persistent = match all_rows {
            Some(n) if hidden.is_empty() => n,
            Some(n) => {
                let hidden = Filter::ids(hidden).and(filter.clone());
                n.saturating_sub(count_rows(&mut **snapshot, hidden, |_| true).await?)
            }
            None => {
                let visible = |row: &Row| !state.index.read().hides(ticket, &row.feature.id);
                count_rows(&mut **snapshot, filter.clone(), visible).await?
            }
        };
        check_known(&state.index.read(), ticket)?;
        Ok(Some(self.matched_here + persistent))
    }
}

/// What a count comes to, if it does within the budget.
pub async fn within(
    budget: Option<Duration>,
    count: impl Future<Output = Result<Option<u64>, ReadError>>,
) -> Result<Option<u64>, ReadError> {
    match budget {
        None => count.await,
        Some(budget) => tokio::time::timeout(budget, count).await.unwrap_or(Ok(None)),
    }
}

/// Of a batch of rows, those that the index does not hide and that match.
fn visible(
    state: &TypeState,
    ticket: &ReaderTicket,
    filter: &Filter,
    mut batch: Vec<Row>,
) -> Result<Vec<Row>, ReadError> {
    let index = state.index.read();
    check_known(&index, ticket)?;
    let matches_here =
        |id: &str| index.get(id).and_then(|e| e.feature()).is_some_and(|f| evaluate::matches(filter, &f));
    let hides = |id: &str| index.hides(ticket, id) && (!off(Safeguard::MaskingOfAll) || matches_here(id));
    batch.retain(|row| !hides(&row.feature.id) && evaluate::matches(filter, &row.feature));
    Ok(batch)
}

/// Sorts, and lets go of what comes behind the page's end: a page of ten need not have a million entries sorted.
fn sort_up_to(matches: &mut Vec<Match>, end: usize, sort: &[SortKey]) {
    let order = |a: &Match, b: &Match| query::compare(&a.feature, &b.feature, sort);
    if end < matches.len() {
        matches.select_nth_unstable_by(end, order);
        matches.truncate(end);
    }
    matches.sort_unstable_by(order);
}

/// A read cannot go on when the index has forgotten what it must not see.
fn check_known(index: &TransientIndex, ticket: &ReaderTicket) -> Result<(), ReadError> {
    if index.knows(ticket) {
        Ok(())
    } else {
        Err(ReadError::Unavailable("this instance had to read its log anew".into()))
    }
}

fn transient_item(m: &Match) -> Item {
    Item { feature: m.feature.clone(), version: Some(m.version), tier: Tier::Transient }
}

fn persistent_item(row: Row) -> Item {
    Item { feature: row.feature, version: row.version, tier: Tier::Persistent }
}

async fn count_rows(
    snapshot: &mut dyn Snapshot,
    filter: Filter,
    counts: impl Fn(&Row) -> bool,
) -> Result<u64, ReadError> {
    let mut rows = snapshot.scan(Scan { filter: filter.clone(), to_end: true, ..Scan::default() }).await?;
    let mut n = 0;
    while let Some(batch) = rows.next().await {
        n += batch?.iter().filter(|row| counts(row) && evaluate::matches(&filter, &row.feature)).count() as u64;
    }
    Ok(n)
}

/// The envelope of both tiers, in the stored CRS; perhaps larger than it need be.
pub async fn bounds(
    state: &Arc<TypeState>,
    delegate: &Arc<dyn Delegate>,
    wait: Duration,
) -> Result<Option<Rect>, ReadError> {
    resolved(state, &Filter::All, TierChoice::Merged, Instant::now() + wait).await?;
    let (here, feature_type) = (state.index.read().bounds(), state.feature_type());
    let there = if feature_type.persist { delegate.snapshot(&feature_type).await?.bounds().await? } else { None };
    Ok(match (here, there) {
        (Some(a), Some(b)) => Some(a.union(&b)),
        (a, b) => a.or(b),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Feature, Value};

    #[test]
    fn a_page_has_the_first_ones_in_order() {
        let sort = [SortKey { property: 0, descending: true }];
        let matches: Vec<Match> = (0..100_i64)
            .map(|n| {
                let (id, value) = (format!("f{:02}", n * 37 % 100).into(), Value::Int(n * 61 % 10));
                Match { feature: Arc::new(Feature { id, geometry: None, properties: vec![value] }), version: 0 }
            })
            .collect();
        let ids = |matches: &[Match]| matches.iter().map(|m| m.feature.id.clone()).collect::<Vec<_>>();
        let mut all = matches.clone();
        all.sort_by(|a, b| query::compare(&a.feature, &b.feature, &sort));
        for end in [0, 1, 37, 99, 100, 101, usize::MAX] {
            let mut page = matches.clone();
            sort_up_to(&mut page, end, &sort);
            assert_eq!(ids(&page), ids(&all[..end.min(100)]), "up to {end}");
        }
    }
}
