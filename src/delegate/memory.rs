//! A delegate in memory, for simulations and tests: deterministic, exact, and gone with the process.
//!
//! It owns nothing but maps behind a mutex. Clones share them, so that several instances can stand on one store.
//! A snapshot holds the maps as they were; the next [`Delegate::persist`] copies what a snapshot still holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;

use super::dead_letter::DeadLetter;
use super::{
    Base, Bases, Delegate, DelegateError, PersistBatch, PersistEntry, Persisting, Refused, Row, Rows, Scan, Snapshot,
    same_columns,
};
use crate::model::{Feature, FeatureId, FeatureType, Geometry, Growth, Offset, PartitionId, Rect, Watermark};
use crate::query::{Filter, compare, evaluate, is_after};
use crate::sabotage::{Safeguard, off};

const ROWS_PER_BATCH: usize = 256;

#[derive(Clone, Default)]
pub struct MemoryDelegate {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    revision: u64,
    types: BTreeMap<String, Table>,
    /// Tables whose type was removed without `purge`.
    detached: BTreeMap<String, Table>,
    stored_queries: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Table {
    feature_type: FeatureType,
    watermarks: Vec<Watermark>,
    rows: Arc<BTreeMap<FeatureId, Stored>>,
    deleted: BTreeMap<FeatureId, (PartitionId, Offset)>,
    /// Event times of deleted features, and until when they are remembered.
    deleted_times: BTreeMap<FeatureId, (i64, i64)>,
    refused: BTreeMap<FeatureId, Refused>,
    dead_letters: BTreeMap<(PartitionId, Offset), DeadLetter>,
}

/// A row of the table, and what stands apart of its line.
#[derive(Clone)]
struct Stored {
    partition: PartitionId,
    row: Row,
    tail: Vec<Geometry>,
}

impl Stored {
    /// A row that is in the table as it is here.
    fn new(partition: PartitionId, row: Row) -> Stored {
        Stored { partition, row, tail: Vec::new() }
    }

    /// As it is read.
    fn read(&self, feature_type: &FeatureType) -> Row {
        if self.tail.is_empty() || off(Safeguard::Tails) { self.row.clone() } else { self.whole(feature_type) }
    }

    fn whole(&self, feature_type: &FeatureType) -> Row {
        let Some(shape) = feature_type.track_shape() else { return self.row.clone() };
        let grown = |line: Option<Geometry>, fixes: &Geometry| shape.grown(line.as_ref(), fixes);
        let geometry = self.tail.iter().fold(self.row.feature.geometry.clone(), grown);
        let feature = Arc::new(Feature { geometry, ..(*self.row.feature).clone() });
        Row { feature, apart: self.tail.iter().map(|fixes| shape.count(fixes)).sum(), ..self.row }
    }

    /// With the tail in its line.
    fn folded(&self, feature_type: &FeatureType) -> Stored {
        let Row { feature, version, .. } = self.whole(feature_type);
        Stored::new(self.partition, Row::new(feature, version))
    }
}

impl MemoryDelegate {
    /// How many tracks of a type have a line that is not whole, as others would read it.
    pub fn tails(&self, feature_type: &FeatureType) -> usize {
        let state = self.state.lock();
        let stored = state.types.get(&feature_type.name).into_iter().flat_map(|t| t.rows.values());
        stored.filter(|s| !s.tail.is_empty()).count()
    }

    /// All that it has, apart from it: what a dump is to a database.
    pub fn dump(&self) -> MemoryDelegate {
        MemoryDelegate { state: Arc::new(Mutex::new(self.state.lock().clone())) }
    }

    /// Puts all back as it was, under whoever uses it.
    pub fn put_back(&self, dump: &MemoryDelegate) {
        let then = dump.state.lock().clone();
        *self.state.lock() = then;
    }
}

impl State {
    fn table(&mut self, feature_type: &FeatureType) -> Result<&mut Table, DelegateError> {
        let name = &feature_type.name;
        let table = self.types.get_mut(name).ok_or_else(|| DelegateError::NotFound(name.clone()))?;
        if table.feature_type.incarnation != feature_type.incarnation {
            return Err(DelegateError::wrong_incarnation(feature_type, &table.feature_type.incarnation));
        }
        Ok(table)
    }

    /// For what must not be done under another version of the schema.
    fn table_as_known(&mut self, feature_type: &FeatureType) -> Result<&mut Table, DelegateError> {
        let table = self.table(feature_type)?;
        match table.feature_type.schema_version {
            have if have == feature_type.schema_version => Ok(table),
            have => Err(DelegateError::wrong_schema(feature_type, have)),
        }
    }
}

impl Table {
    fn new(feature_type: &FeatureType, rows: BTreeMap<FeatureId, Stored>) -> Table {
        Table {
            feature_type: feature_type.clone(),
            watermarks: vec![Watermark::default(); feature_type.partitions as usize],
            rows: Arc::new(rows),
            deleted: BTreeMap::new(),
            deleted_times: BTreeMap::new(),
            refused: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
        }
    }

    fn keep_refused(&mut self, refused: Refused) {
        let known = self.refused.get(&refused.entry.id);
        if known.is_none_or(|k| k.entry.version <= refused.entry.version) {
            self.refused.insert(refused.entry.id.clone(), refused);
        }
    }

    fn upsert_or_delete(&mut self, partition: PartitionId, entry: PersistEntry) {
        if self.refused.get(&entry.id).is_some_and(|r| r.entry.version <= entry.version) {
            self.refused.remove(&entry.id);
        }
        let row_version = self.rows.get(&entry.id).and_then(|r| r.row.version);
        let deleted_version = self.deleted.get(&entry.id).map(|(_, version)| *version);
        if row_version.max(deleted_version) > Some(entry.version) {
            return;
        }
        let rows = Arc::make_mut(&mut self.rows);
        match entry.feature {
            Some(feature) => {
                let row = Row::new(feature, Some(entry.version));
                rows.insert(entry.id.clone(), Stored::new(partition, row));
                self.deleted.remove(&entry.id);
            }
            None => {
                rows.remove(&entry.id);
                self.deleted.insert(entry.id, (partition, entry.version));
            }
        }
    }

    fn grown(&self, feature_type: &FeatureType, growth: &Growth) -> Option<Stored> {
        let fitting = growth.builds_on..=growth.version;
        let stored = self.rows.get(&growth.id).filter(|s| s.row.version.is_some_and(|v| fitting.contains(&v)))?;
        let geometry = stored.row.feature.geometry.clone();
        let mut feature = Feature { id: growth.id.clone(), geometry, properties: growth.properties.clone() };
        feature_type.check(&mut feature).ok()?;
        // The same again is there already.
        let new = (stored.row.version < Some(growth.version)).then_some(&growth.fixes);
        let tail = stored.tail.iter().chain(new).cloned().collect();
        Some(Stored { row: Row::new(feature.into(), Some(growth.version)), tail, ..*stored })
    }

    fn base(&self, id: &FeatureId) -> Option<Base> {
        let deleted = || {
            let (version, time) = (self.deleted.get(id), self.deleted_times.get(id));
            (version.is_some() || time.is_some())
                .then(|| Base::Deleted(version.map(|(_, version)| *version), time.map(|(time, _)| *time)))
        };
        self.rows.get(id).map(|s| Base::Row(s.read(&self.feature_type))).or_else(deleted)
    }
}

#[async_trait]
impl Delegate for MemoryDelegate {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn catalogue(&self) -> Result<(u64, Vec<FeatureType>), DelegateError> {
        let state = self.state.lock();
        Ok((state.revision, state.types.values().map(|t| t.feature_type.clone()).collect()))
    }

    async fn create(&self, feature_type: &FeatureType) -> Result<(), DelegateError> {
        if feature_type.table.is_some() {
            return Err(DelegateError::no_tables_of_others(feature_type));
        }
        let mut state = self.state.lock();
        let name = &feature_type.name;
        let adopted = match state.detached.get(name) {
            _ if state.types.contains_key(name) => return Err(DelegateError::Exists(name.clone())),
            Some(table) if !same_columns(&table.feature_type, feature_type) => {
                return Err(DelegateError::Exists(name.clone()));
            }
            Some(table) => {
                let left = |s: &Stored| {
                    let whole = s.folded(&table.feature_type);
                    Stored { row: Row { version: None, ..whole.row }, ..whole }
                };
                table.rows.iter().map(|(id, s)| (id.clone(), left(s))).collect()
            }
            None => BTreeMap::new(),
        };
        state.detached.remove(name);
        state.types.insert(name.clone(), Table::new(feature_type, adopted));
        state.revision += 1;
        Ok(())
    }

    async fn alter(&self, from: &FeatureType, to: &FeatureType) -> Result<bool, DelegateError> {
        let mut state = self.state.lock();
        let Some(table) = state.types.get_mut(&from.name).filter(|t| t.feature_type == *from) else { return Ok(false) };
        table.feature_type = to.clone();
        let rows = Arc::make_mut(&mut table.rows).values_mut().map(|s| &mut s.row.feature);
        let refused = table.refused.values_mut().filter_map(|r| r.entry.feature.as_mut());
        for feature in rows.chain(refused) {
            for (value, property) in Arc::make_mut(feature).properties.iter_mut().zip(&to.properties) {
                *value = std::mem::take(value).widened(property.kind);
            }
        }
        state.revision += 1;
        Ok(true)
    }

    async fn remove(&self, name: &str, purge: bool) -> Result<(), DelegateError> {
        let mut state = self.state.lock();
        if let Some(table) = state.types.remove(name) {
            state.detached.insert(name.to_owned(), table);
            state.revision += 1;
        }
        if purge {
            state.detached.remove(name);
        }
        Ok(())
    }

    async fn stored_queries(&self) -> Result<BTreeMap<String, String>, DelegateError> {
        Ok(self.state.lock().stored_queries.clone())
    }

    async fn keep_stored_queries(&self, queries: &[(String, String)]) -> Result<Option<String>, DelegateError> {
        let mut state = self.state.lock();
        if let Some((taken, _)) = queries.iter().find(|(id, _)| state.stored_queries.contains_key(id)) {
            return Ok(Some(taken.clone()));
        }
        state.stored_queries.extend(queries.iter().cloned());
        state.revision += 1;
        Ok(None)
    }

    async fn drop_stored_query(&self, id: &str) -> Result<bool, DelegateError> {
        let mut state = self.state.lock();
        let dropped = state.stored_queries.remove(id).is_some();
        state.revision += u64::from(dropped);
        Ok(dropped)
    }

    async fn watermarks(&self, feature_type: &FeatureType) -> Result<Vec<Watermark>, DelegateError> {
        Ok(self.state.lock().table(feature_type)?.watermarks.clone())
    }

    async fn persist(&self, feature_type: &FeatureType, batch: PersistBatch) -> Result<Persisting, DelegateError> {
        let mut state = self.state.lock();
        let table = state.table_as_known(feature_type)?;
        let watermark = table
            .watermarks
            .get(batch.partition as usize)
            .ok_or_else(|| DelegateError::no_partition(feature_type, batch.partition))?;
        if *watermark != batch.expected && !off(Safeguard::CompareAndSet) {
            return Ok(Persisting::Conflict(*watermark));
        }
        let Some(grown) = batch.growths.iter().map(|g| table.grown(feature_type, g)).collect::<Option<Vec<Stored>>>()
        else {
            return Ok(Persisting::Unfit);
        };
        table.watermarks[batch.partition as usize] = batch.next;
        for stored in grown {
            let id = &stored.row.feature.id;
            table.refused.remove(id);
            Arc::make_mut(&mut table.rows).insert(id.clone(), stored);
        }
        table.deleted_times.retain(|_, (_, until)| *until >= batch.now_ms);
        for (id, time) in batch.deleted_times() {
            table.deleted_times.remove(id);
            table.deleted_times.extend(time.map(|time| (id.clone(), (time, batch.remember_until(feature_type)))));
        }
        let mut refused = Vec::new();
        for entry in batch.entries {
            match entry.feature.as_ref().and_then(|f| feature_type.check(&mut (**f).clone()).err()) {
                Some(error) => {
                    let reason = error.to_string();
                    refused.push((entry.id.clone(), reason.clone()));
                    table.keep_refused(Refused { partition: batch.partition, entry, reason });
                }
                None => table.upsert_or_delete(batch.partition, entry),
            }
        }
        table.deleted.retain(|_, (p, version)| *p != batch.partition || *version >= batch.forget_deleted_before);
        Ok(Persisting::Committed { refused })
    }

    async fn fold(
        &self,
        feature_type: &FeatureType,
        partition: PartitionId,
        before: Offset,
    ) -> Result<usize, DelegateError> {
        let mut state = self.state.lock();
        let table = state.table(feature_type)?;
        let mut folded = 0;
        for stored in Arc::make_mut(&mut table.rows).values_mut() {
            if stored.partition == partition && stored.row.version < Some(before) && !stored.tail.is_empty() {
                *stored = stored.folded(&table.feature_type);
                folded += 1;
            }
        }
        Ok(folded)
    }

    async fn refused(&self, feature_type: &FeatureType) -> Result<Vec<Refused>, DelegateError> {
        Ok(self.state.lock().table_as_known(feature_type)?.refused.values().cloned().collect())
    }

    async fn keep_dead_letters(
        &self,
        feature_type: &FeatureType,
        letters: Vec<DeadLetter>,
    ) -> Result<(), DelegateError> {
        let mut state = self.state.lock();
        let kept = &mut state.table(feature_type)?.dead_letters;
        for letter in letters {
            kept.entry((letter.partition, letter.offset)).or_insert(letter);
        }
        Ok(())
    }

    async fn dead_letters(&self, feature_type: &FeatureType) -> Result<Vec<DeadLetter>, DelegateError> {
        Ok(self.state.lock().table(feature_type)?.dead_letters.values().cloned().collect())
    }

    async fn load(&self, feature_type: &FeatureType, ids: &[FeatureId]) -> Result<Bases, DelegateError> {
        let mut state = self.state.lock();
        let table = state.table_as_known(feature_type)?;
        Ok(Bases { bases: ids.iter().map(|id| table.base(id)).collect(), watermarks: table.watermarks.clone() })
    }

    async fn snapshot(&self, feature_type: &Arc<FeatureType>) -> Result<Box<dyn Snapshot>, DelegateError> {
        let mut state = self.state.lock();
        let table = state.table(feature_type)?;
        Ok(Box::new(MemorySnapshot {
            feature_type: feature_type.clone(),
            watermarks: table.watermarks.clone(),
            rows: table.rows.clone(),
        }))
    }
}

struct MemorySnapshot {
    feature_type: Arc<FeatureType>,
    watermarks: Vec<Watermark>,
    rows: Arc<BTreeMap<FeatureId, Stored>>,
}

impl MemorySnapshot {
    fn rows(&self) -> impl Iterator<Item = Row> {
        self.rows.values().map(|s| s.read(&self.feature_type))
    }
}

#[async_trait]
impl Snapshot for MemorySnapshot {
    fn watermarks(&self) -> &[Watermark] {
        &self.watermarks
    }

    async fn scan(&mut self, scan: Scan) -> Result<Rows, DelegateError> {
        let sort = scan.order.as_deref().unwrap_or_default();
        let selected = |r: &Row| {
            evaluate::matches(&scan.filter, &r.feature)
                && scan.after.as_ref().is_none_or(|cursor| is_after(&r.feature, cursor, sort))
        };
        let mut rows: Vec<Row> = self.rows().filter(selected).collect();
        rows.sort_by(|a, b| compare(&a.feature, &b.feature, sort));
        Ok(futures::stream::iter(rows).chunks(ROWS_PER_BATCH).map(Ok).boxed())
    }

    async fn count(&mut self, filter: &Filter) -> Result<Option<u64>, DelegateError> {
        let matching = self.rows().filter(|r| evaluate::matches(filter, &r.feature)).count();
        Ok(Some(matching as u64))
    }

    async fn bounds(&mut self) -> Result<Option<Rect>, DelegateError> {
        let boxes = self.rows().filter_map(|r| r.feature.geometry.as_ref()?.bounds());
        Ok(boxes.reduce(|a, b| a.union(&b)))
    }
}
