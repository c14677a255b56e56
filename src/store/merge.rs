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

use super::api::{Item, ReadError, Reading, Tier};
use super::state::TypeState;
use crate::delegate::{Delegate, DelegateError, Row, Rows, Scan, Snapshot};
use crate::model::{Offset, Rect, Watermark};
use crate::query::{self, Filter, Query, SortKey, TierChoice, evaluate};
use crate::sabotage::{Safeguard, off};
use crate::transient::{Match, ReaderTicket, TransientIndex};

/// Past so many ids in the index, a count looks at the rows rather than asking for each hidden one.
const HIDDEN_LOOKUPS: usize = 20_000;

/// Both tiers at one moment.
struct Moment {
    /// The index at this step, and the position that it had applied.
    matches: Vec<Match>,
    position: Vec<Offset>,
    ticket: ReaderTicket,
    /// `None` when the delegate is not asked.
    snapshot: Option<Box<dyn Snapshot>>,
}

impl From<DelegateError> for ReadError {
    fn from(e: DelegateError) -> Self {
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
) -> Result<Moment, ReadError> {
    let deadline = Instant::now() + wait;
    loop {
        if !state.wait_until(deadline, |index| index.may_serve()).await {
            return Err(ReadError::Behind);
        }
        let (ticket, position, matches) = {
            let index = state.index.read();
            if !index.may_serve() {
                continue;
            }
            let matches = if tier == TierChoice::Persistent { Vec::new() } else { index.select(filter) };
            (index.reader(), index.applied(), matches)
        };
        if tier == TierChoice::Transient || !state.feature_type.persist {
            return Ok(Moment { matches, position, ticket, snapshot: None });
        }
        let snapshot = delegate.snapshot(&state.feature_type).await?;
        let seen: Vec<Watermark> = snapshot.watermarks().to_vec();
        if position.iter().zip(&seen).all(|(p, w)| *p >= w.as_of) || off(Safeguard::AsOf) {
            return Ok(Moment { matches, position, ticket, snapshot: Some(snapshot) });
        }
        drop(snapshot);
        let caught_up =
            state.wait_until(deadline, |index| index.applied().iter().zip(&seen).all(|(p, w)| *p >= w.as_of)).await;
        if !caught_up {
            return Err(ReadError::Behind);
        }
    }
}

/// Answers a query.
pub async fn read(
    state: Arc<TypeState>,
    delegate: &Arc<dyn Delegate>,
    query: Query,
    wait: Duration,
) -> Result<Reading, ReadError> {
    state.wait_for_position(&query.at_least, wait).await?;
    let mut moment = moment(&state, delegate, &query.filter, query.tier, wait).await?;
    let ordered = !query.any_order || query.start > 0 || query.after.is_some() || !query.sort.is_empty();
    let rows = match &mut moment.snapshot {
        None => None,
        Some(snapshot) => {
            let scan = Scan {
                filter: query.filter.clone(),
                order: ordered.then(|| query.sort.clone()),
                after: query.after.clone(),
                expected_rows: query.limit.map(|l| l.saturating_add(query.start)),
            };
            Some(snapshot.scan(scan).await?)
        }
    };
    let position = state.position_of(&moment.position);
    let feature_type = state.feature_type.clone();
    let mut matches = moment.matches;
    if let Some(cursor) = &query.after {
        matches.retain(|m| query::is_after(&m.feature, cursor, &query.sort));
    }
    let start = usize::try_from(query.start).unwrap_or(usize::MAX);
    let limit = query.limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(usize::MAX));
    if ordered {
        sort_up_to(&mut matches, start.saturating_add(limit), &query.sort);
    }
    let merge = Merge {
        state,
        ticket: moment.ticket,
        _snapshot: moment.snapshot,
        transient: matches.into(),
        rows,
        buffered: VecDeque::new(),
        filter: query.filter,
        sort: ordered.then_some(query.sort),
    };
    let items = futures::stream::unfold(merge, |mut merge| async move { merge.next().await.map(|item| (item, merge)) });
    Ok(Reading { feature_type, position, items: items.skip(start).take(limit).boxed() })
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

/// The ordered merge of what the index had and what the delegate has.
struct Merge {
    state: Arc<TypeState>,
    ticket: ReaderTicket,
    /// Kept open while its rows are read.
    _snapshot: Option<Box<dyn Snapshot>>,
    transient: VecDeque<Match>,
    rows: Option<Rows>,
    /// Rows that are not hidden and match.
    buffered: VecDeque<Row>,
    filter: Filter,
    /// `None`: in any order.
    sort: Option<Vec<SortKey>>,
}

impl Merge {
    async fn next(&mut self) -> Option<Result<Item, ReadError>> {
        if self.sort.is_none()
            && let Some(m) = self.transient.pop_front()
        {
            return Some(Ok(transient_item(m)));
        }
        while self.buffered.is_empty()
            && let Some(rows) = &mut self.rows
        {
            match rows.next().await {
                None => self.rows = None,
                Some(batch) => {
                    if let Err(e) = batch.map_err(ReadError::from).and_then(|rows| self.take_visible(rows)) {
                        self.rows = None;
                        self.transient.clear();
                        return Some(Err(e));
                    }
                }
            }
        }
        let row_first = match (&self.sort, self.transient.front(), self.buffered.front()) {
            (_, None, None) => return None,
            (_, None, Some(_)) => true,
            (_, Some(_), None) => false,
            (sort, Some(m), Some(row)) => {
                query::compare(&row.feature, &m.feature, sort.as_deref().unwrap_or_default()).is_lt()
            }
        };
        if row_first {
            self.buffered.pop_front().map(|row| Ok(persistent_item(row)))
        } else {
            self.transient.pop_front().map(|m| Ok(transient_item(m)))
        }
    }

    fn take_visible(&mut self, batch: Vec<Row>) -> Result<(), ReadError> {
        let index = self.state.index.read();
        check_known(&index, &self.ticket)?;
        let visible = batch
            .into_iter()
            .filter(|row| !index.hides(&self.ticket, &row.feature.id) && evaluate::matches(&self.filter, &row.feature));
        self.buffered.extend(visible);
        Ok(())
    }
}

/// A read cannot go on when the index has forgotten what it must not see.
fn check_known(index: &TransientIndex, ticket: &ReaderTicket) -> Result<(), ReadError> {
    if index.knows(ticket) {
        Ok(())
    } else {
        Err(ReadError::Unavailable("this instance had to read its log anew".into()))
    }
}

fn transient_item(m: Match) -> Item {
    Item { feature: m.feature, version: m.version, tier: Tier::Transient }
}

fn persistent_item(row: Row) -> Item {
    Item { feature: row.feature, version: row.version, tier: Tier::Persistent }
}

/// How many features match, exactly.
pub async fn count(
    state: Arc<TypeState>,
    delegate: &Arc<dyn Delegate>,
    query: &Query,
    wait: Duration,
) -> Result<u64, ReadError> {
    state.wait_for_position(&query.at_least, wait).await?;
    let Moment { matches, ticket, snapshot, .. } = moment(&state, delegate, &query.filter, query.tier, wait).await?;
    let transient = matches.len() as u64;
    drop(matches);
    let Some(mut snapshot) = snapshot else { return Ok(transient) };
    let hidden = state.index.read().hidden_from(&ticket);
    let all_rows = if hidden.len() <= HIDDEN_LOOKUPS { snapshot.count(&query.filter).await? } else { None };
    let persistent = match all_rows {
        Some(n) if hidden.is_empty() => n,
        Some(n) => {
            let filter = Filter::ids(hidden).and(query.filter.clone());
            n.saturating_sub(count_rows(&mut *snapshot, filter, |_| true).await?)
        }
        None => {
            let visible = |row: &Row| !state.index.read().hides(&ticket, &row.feature.id);
            count_rows(&mut *snapshot, query.filter.clone(), visible).await?
        }
    };
    check_known(&state.index.read(), &ticket)?;
    Ok(transient + persistent)
}

async fn count_rows(
    snapshot: &mut dyn Snapshot,
    filter: Filter,
    counts: impl Fn(&Row) -> bool,
) -> Result<u64, ReadError> {
    let mut rows = snapshot.scan(Scan { filter: filter.clone(), ..Scan::default() }).await?;
    let mut n = 0;
    while let Some(batch) = rows.next().await {
        n += batch?.iter().filter(|row| counts(row) && evaluate::matches(&filter, &row.feature)).count() as u64;
    }
    Ok(n)
}

/// The envelope of both tiers, in the stored CRS; perhaps larger than it need be.
pub async fn bounds(state: &Arc<TypeState>, delegate: &Arc<dyn Delegate>) -> Result<Option<Rect>, ReadError> {
    let here = state.index.read().bounds();
    let there =
        if state.feature_type.persist { delegate.snapshot(&state.feature_type).await?.bounds().await? } else { None };
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
