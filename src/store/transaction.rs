//! From actions to changes in the log: schema, ids and filters are resolved first, all of them; only then is anything
//! appended, and that all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

use super::api::{Action, ActionKind, Existing, FeatureChanges, Transaction, WriteError};
use super::locks::{Claim, Pass};
use super::state::TypeState;
use super::{Store, derived};
use crate::delegate::DelegateError;
use crate::format::record;
use crate::log::NewRecord;
use crate::model::table::KeyType;
use crate::model::{
    Append, Change, Feature, FeatureId, FeatureType, Offset, PartitionId, Position, SchemaError, new_id, partition_of,
};
use crate::query::{Filter, Query, evaluate};

/// How often a table's sequence is asked again because it gave ids that are taken.
const ROUNDS_FOR_IDS: usize = 16;

/// Everything that a transaction will append, and what it will answer.
pub(super) struct Resolved {
    pub ids: Vec<Vec<FeatureId>>,
    pub records: Vec<NewRecord>,
    /// The type and partition of each record.
    pub places: Vec<(Arc<TypeState>, PartitionId)>,
    /// To be held until all is appended.
    pub pass: Pass,
    /// What it changes, by the names of logs; only of one under a lock.
    pub touched: Vec<(String, FeatureId)>,
}

pub(super) async fn resolve(store: &Store, transaction: Transaction, claim: Claim<'_>) -> Result<Resolved, WriteError> {
    let mut resolver = Resolver {
        store,
        at_least: transaction.at_least,
        types: BTreeMap::new(),
        overlays: transaction.actions.iter().any(needs_look_up),
    };
    let mut actions = transaction.actions;
    for (n, action) in actions.iter_mut().enumerate() {
        resolver.make_ids(n, action).await?;
    }
    resolver.prefetch(&actions).await?;
    let mut ids = Vec::with_capacity(actions.len());
    for (n, action) in actions.into_iter().enumerate() {
        ids.push(resolver.action(n, action).await?);
    }
    resolver.finish(ids, claim)
}

struct Resolver<'a> {
    store: &'a Store,
    at_least: Position,
    types: BTreeMap<String, TypeWork>,
    /// Later actions must see what earlier ones did.
    overlays: bool,
}

/// What a transaction does to one feature type.
struct TypeWork {
    state: Arc<TypeState>,
    /// What its changes were checked against: their property ids and values are of this version of the schema.
    feature_type: Arc<FeatureType>,
    changes: Vec<Change>,
    /// Features that the actions name by id, as they stood before this transaction.
    known: FxHashMap<FeatureId, Arc<Feature>>,
    /// What this transaction has made of features so far; `None`: deleted.
    overlay: FxHashMap<FeatureId, Option<Arc<Feature>>>,
}

fn needs_look_up(action: &Action) -> bool {
    !matches!(action.kind, ActionKind::Insert { existing: Existing::Replace, .. } | ActionKind::Append { .. })
}

impl Resolver<'_> {
    /// Gives ids to the inserted features that have none: UUIDs, or what the table's sequence gives.
    async fn make_ids(&self, n: usize, action: &mut Action) -> Result<(), WriteError> {
        let name = &action.feature_type;
        let ft = self.store.feature_type(name).ok_or_else(|| WriteError::UnknownType(name.clone()))?;
        ft.check_writable().map_err(|error| WriteError::Invalid { action: n, error })?;
        let ActionKind::Insert { features, .. } = &mut action.kind else { return Ok(()) };
        let nameless = features.iter().filter(|f| f.id.is_empty()).count();
        if nameless == 0 {
            return Ok(());
        }
        let mut ids = match &ft.table {
            Some(table) if table.key_type == KeyType::Integer => self.unused_ids(n, name, nameless).await?,
            _ => std::iter::repeat_with(new_id).take(nameless).collect(),
        }
        .into_iter();
        for feature in features.iter_mut().filter(|f| f.id.is_empty()) {
            feature.id = ids.next().ok_or_else(|| WriteError::Unavailable("too few ids".into()))?;
        }
        Ok(())
    }

    /// Ids of the table's sequence, less those that somebody has taken without asking it.
    async fn unused_ids(&self, n: usize, name: &str, count: usize) -> Result<Vec<FeatureId>, WriteError> {
        let state = self.store.state(name).ok_or_else(|| WriteError::UnknownType(name.to_owned()))?;
        let mut ids = Vec::with_capacity(count);
        for _ in 0..ROUNDS_FOR_IDS {
            let given = self.store.delegate.reserve_ids(&state.feature_type(), count - ids.len()).await;
            let given = given.map_err(|e| no_ids(n, e))?;
            let taken = self.read(&state, Filter::ids(given.iter().cloned())).await?;
            let taken: FxHashSet<&FeatureId> = taken.iter().map(|f| &f.id).collect();
            ids.extend(given.into_iter().filter(|id| !taken.contains(id)));
            if ids.len() == count {
                return Ok(ids);
            }
        }
        let what = "the sequence of the table's key gives what is taken already: set it past the greatest key (setval)";
        Err(WriteError::Invalid { action: n, error: SchemaError::new("id", what) })
    }

    /// Asks once for all features that the actions name by id.
    async fn prefetch(&mut self, actions: &[Action]) -> Result<(), WriteError> {
        let mut wanted: BTreeMap<&str, FxHashSet<FeatureId>> = BTreeMap::new();
        for action in actions {
            let ids = wanted.entry(&action.feature_type).or_default();
            match &action.kind {
                ActionKind::Insert { features, existing: Existing::Refuse } => {
                    ids.extend(features.iter().map(|f| f.id.clone()));
                }
                ActionKind::Append { appends } if self.overlays => ids.extend(appends.iter().map(|a| a.id.clone())),
                ActionKind::Insert { .. } | ActionKind::Append { .. } => {}
                ActionKind::Update { filter, .. }
                | ActionKind::Replace { filter, .. }
                | ActionKind::Delete { filter } => {
                    if let Filter::Ids(set) = filter {
                        ids.extend(set.list.iter().cloned());
                    }
                }
            }
        }
        for (name, ids) in wanted {
            let state = self.store.state(name).ok_or_else(|| WriteError::UnknownType(name.to_owned()))?;
            let mut work = TypeWork::new(state);
            if !ids.is_empty() {
                let found = self.read(&work.state, Filter::ids(ids.iter().cloned())).await?;
                work.known = found.into_iter().map(|f| (f.id.clone(), f)).collect();
            }
            self.types.insert(name.to_owned(), work);
        }
        Ok(())
    }

    async fn read(&self, state: &Arc<TypeState>, filter: Filter) -> Result<Vec<Arc<Feature>>, WriteError> {
        let query = Query { filter, any_order: true, at_least: self.at_least.clone(), ..Query::default() };
        let reading = self.store.merged(state.clone(), query).await?;
        Ok(reading.all().await?.into_iter().map(|item| item.feature).collect())
    }

    /// The features that match, with the effect of the actions before.
    async fn matching(&self, feature_type: &str, filter: &Filter) -> Result<Vec<Arc<Feature>>, WriteError> {
        let Some(work) = self.types.get(feature_type) else { return Err(WriteError::UnknownType(feature_type.into())) };
        if let Filter::Ids(set) = filter {
            let now = |id| work.overlay.get(id).cloned().unwrap_or_else(|| work.known.get(id).cloned());
            return Ok(set.list.iter().filter_map(now).collect());
        }
        let mut found = self.read(&work.state, filter.clone()).await?;
        found.retain(|f| !work.overlay.contains_key(&f.id));
        found.extend(work.overlay.values().flatten().filter(|f| evaluate::matches(filter, f)).cloned());
        found.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    async fn action(&mut self, n: usize, action: Action) -> Result<Vec<FeatureId>, WriteError> {
        let invalid = |error: SchemaError| WriteError::Invalid { action: n, error };
        let name = action.feature_type;
        let matching = match &action.kind {
            ActionKind::Insert { .. } | ActionKind::Append { .. } => Vec::new(),
            ActionKind::Update { filter, .. } | ActionKind::Replace { filter, .. } | ActionKind::Delete { filter } => {
                self.matching(&name, filter).await?
            }
        };
        let Some(work) = self.types.get_mut(&name) else { return Err(WriteError::UnknownType(name)) };
        let ft = work.feature_type.clone();
        let ids = match action.kind {
            ActionKind::Insert { features, existing } => {
                let mut ids = Vec::with_capacity(features.len());
                for mut feature in features {
                    ft.check(&mut feature).map_err(invalid)?;
                    if existing == Existing::Refuse && work.has(&feature.id) {
                        return Err(WriteError::Exists { feature_type: name, id: feature.id });
                    }
                    ids.push(feature.id.clone());
                    work.put(feature, self.overlays);
                }
                return Ok(ids);
            }
            ActionKind::Append { appends } => {
                let mut ids = Vec::with_capacity(appends.len());
                for mut append in appends {
                    append.properties.iter_mut().for_each(|(slot, value)| ft.widen(usize::from(*slot), value));
                    ft.check_append(&append).map_err(invalid)?;
                    ids.push(append.id.clone());
                    work.append(append, self.overlays);
                }
                return Ok(ids);
            }
            ActionKind::Update { mut changes, .. } => {
                check_changes(&ft, &mut changes).map_err(invalid)?;
                for feature in &matching {
                    work.patch(feature, &changes, self.overlays);
                }
                matching
            }
            ActionKind::Replace { feature, .. } => {
                let mut whole = feature;
                ft.check(&mut whole).map_err(invalid)?;
                for old in &matching {
                    work.put(Feature { id: old.id.clone(), ..whole.clone() }, self.overlays);
                }
                matching
            }
            ActionKind::Delete { .. } => {
                for feature in &matching {
                    work.changes.push(Change::Delete(feature.id.clone()));
                    if self.overlays {
                        work.overlay.insert(feature.id.clone(), None);
                    }
                }
                matching
            }
        };
        Ok(ids.into_iter().map(|f| f.id.clone()).collect())
    }

    /// Adds what the positions written here mean for the types that are tracks of them.
    fn derive(&mut self) {
        let now_ms = self.store.clock.now_ms();
        for tracks in self.store.feature_types() {
            let Some(points) = tracks.track_of.as_ref().and_then(|name| self.types.get(name)) else { continue };
            let Some(state) = self.store.state(&tracks.name) else { continue };
            // Its other changes here may be of an earlier version, and all of them are written under one.
            let before = self.types.get(&tracks.name).map(|work| work.feature_type.clone());
            let feature_type = before.unwrap_or_else(|| state.feature_type());
            let appends = derived::appends(&points.feature_type, &feature_type, &points.changes, now_ms);
            if appends.is_empty() {
                continue;
            }
            let work = self.types.entry(feature_type.name.clone());
            let work = work.or_insert_with(|| TypeWork { feature_type, ..TypeWork::new(state) });
            work.changes.extend(appends.into_iter().map(Change::Append));
        }
    }

    fn finish(mut self, ids: Vec<Vec<FeatureId>>, claim: Claim<'_>) -> Result<Resolved, WriteError> {
        self.derive();
        let locks = &self.store.locks;
        let pass = locks.enter();
        if let Claim::Lock(under) = claim {
            locks.check_lock(&pass, &under.id)?;
        }
        let mut resolved = Resolved { ids, records: Vec::new(), places: Vec::new(), pass, touched: Vec::new() };
        for work in self.types.into_values() {
            if let Some(why) = work.state.stopped() {
                return Err(WriteError::Unavailable(why));
            }
            locks.check(&resolved.pass, &work.feature_type, work.changes.iter().map(Change::id), claim)?;
            if let Claim::Lock(_) = claim {
                let log = work.state.log_name.to_string();
                resolved.touched.extend(work.changes.iter().map(|change| (log.clone(), change.id().clone())));
            }
            let ft = &work.feature_type;
            let mut by_partition: BTreeMap<PartitionId, Vec<Change>> = BTreeMap::new();
            for change in work.changes {
                by_partition.entry(partition_of(change.id(), ft.partitions)).or_default().push(change);
            }
            for (partition, changes) in by_partition {
                // A single change bears its feature's id as the key, for other readers of the log.
                let key = match changes.as_slice() {
                    [one] => Bytes::copy_from_slice(one.id().as_bytes()),
                    _ => Bytes::new(),
                };
                let run_id = || uuid::Uuid::now_v7().as_u64_pair().1;
                let records = record::split(changes, self.store.log.max_value_bytes(), run_id)
                    .map_err(|e| WriteError::TooLarge(e.to_string()))?;
                for r in records {
                    let value = record::encode(&r, ft.schema_version);
                    let log = work.state.log_name.clone();
                    resolved.records.push(NewRecord { log, partition, key: key.clone(), value });
                    resolved.places.push((work.state.clone(), partition));
                }
            }
        }
        Ok(resolved)
    }
}

impl TypeWork {
    fn new(state: Arc<TypeState>) -> TypeWork {
        let feature_type = state.feature_type();
        TypeWork {
            state,
            feature_type,
            changes: Vec::new(),
            known: FxHashMap::default(),
            overlay: FxHashMap::default(),
        }
    }

    fn has(&self, id: &FeatureId) -> bool {
        self.overlay.get(id).map_or_else(|| self.known.contains_key(id), Option::is_some)
    }

    fn put(&mut self, feature: Feature, overlay: bool) {
        let feature = Arc::new(feature);
        if overlay {
            self.overlay.insert(feature.id.clone(), Some(feature.clone()));
        }
        self.changes.push(Change::Put(feature));
    }

    fn append(&mut self, append: Append, overlay: bool) {
        if overlay && let Some(shape) = self.feature_type.track_shape() {
            let base = self.overlay.get(&append.id).cloned().unwrap_or_else(|| self.known.get(&append.id).cloned());
            self.overlay.insert(append.id.clone(), Some(Arc::new(append.apply(base.as_deref(), &shape))));
        }
        self.changes.push(Change::Append(append));
    }

    fn patch(&mut self, feature: &Arc<Feature>, changes: &FeatureChanges, overlay: bool) {
        let patch = changes.patch(feature.id.clone());
        if overlay {
            self.overlay.insert(feature.id.clone(), Some(Arc::new(patch.apply(feature))));
        }
        self.changes.push(Change::Patch(patch));
    }
}

fn no_ids(action: usize, e: DelegateError) -> WriteError {
    match e {
        DelegateError::Mismatch(what) => WriteError::Invalid { action, error: SchemaError::new("id", what) },
        other => WriteError::Unavailable(other.to_string()),
    }
}

fn check_changes(ft: &FeatureType, changes: &mut FeatureChanges) -> Result<(), SchemaError> {
    if let Some(geometry) = &mut changes.geometry {
        ft.check_geometry(geometry)?;
    }
    changes.properties.iter_mut().try_for_each(|(slot, value)| {
        ft.widen(*slot, value);
        ft.check_value(*slot, value)
    })
}

/// The offsets that this instance must have applied for the records to be visible here.
pub(super) fn ends(places: &[(Arc<TypeState>, PartitionId)], offsets: &[Offset]) -> Vec<(Arc<TypeState>, Vec<Offset>)> {
    let mut ends: BTreeMap<Arc<str>, (Arc<TypeState>, Vec<Offset>)> = BTreeMap::new();
    for ((state, partition), offset) in places.iter().zip(offsets) {
        let (_, of_type) =
            ends.entry(state.log_name.clone()).or_insert_with(|| (state.clone(), vec![0; state.partitions.len()]));
        let end = &mut of_type[*partition as usize];
        *end = (*end).max(offset + 1);
    }
    ends.into_values().collect()
}
