//! The heart, where the tiers meet: the catalogue, transactions, the merged read, the tailers and the sweepers.
//!
//! It sees the traits of log, delegate, coordination and clock only. Nothing but the log is written on the way of a write;
//! nothing but the log changes the index.

pub mod api;
mod backup;
mod catalogue;
mod conditional;
pub mod dead_letters;
mod derived;
mod join;
mod locks;
mod memory;
mod merge;
mod progress;
mod resolver;
mod state;
pub mod status;
mod stored_queries;
mod sweeper;
mod tailer;
mod transaction;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::Instant;

pub use api::*;
pub use backup::Backup;
pub use join::{JoinError, PairQuery, Pairs};
use locks::{Claim, Locks, Pass};
use memory::Memory;
pub use memory::{MemoryLimits, MemoryStatus};
pub use merge::Reading;
use state::TypeState;

use crate::clock::Clock;
use crate::coordination::Coordinator;
use crate::delegate::Delegate;
use crate::log::{FeatureLog, LogError, NewRecord};
use crate::model::{FeatureId, FeatureType, Offset, PartitionId, Position, Rect};
use crate::query::{Filter, Query};
use crate::sabotage::{Safeguard, off};
use crate::task::{Tasks, uncancelled};
use crate::transient::TransientIndex;

/// What a store is made of.
#[derive(Clone)]
pub struct Parts {
    pub log: Arc<dyn FeatureLog>,
    pub delegate: Arc<dyn Delegate>,
    pub coordinator: Arc<dyn Coordinator>,
    pub clock: Arc<dyn Clock>,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// How often each partition's sweeper looks.
    pub sweep_interval: Duration,
    /// Features persisted in one transaction of the delegate, about.
    pub sweep_batch: usize,
    /// How often a batch of what the long-term store refuses is tried again, unchanged.
    pub refused_interval: Duration,
    /// How long records stay in the log after they are durable in the long-term store.
    pub log_window: Duration,
    /// How long after a track has left the index its line is put together with what stands apart of it.
    pub track_rest: Duration,
    /// How often the catalogue is looked at for what other instances did.
    pub catalogue_interval: Duration,
    /// How long a write waits until it is visible here, before it answers 'accepted'.
    pub apply_wait: Duration,
    /// How long a read waits for the position that it needs.
    pub read_wait: Duration,
    pub memory: MemoryLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sweep_interval: Duration::from_secs(1),
            sweep_batch: 5_000,
            refused_interval: Duration::from_secs(60),
            log_window: Duration::from_secs(3600),
            track_rest: Duration::from_secs(3600),
            catalogue_interval: Duration::from_millis(500),
            apply_wait: Duration::from_secs(5),
            read_wait: Duration::from_secs(5),
            memory: MemoryLimits::NONE,
        }
    }
}

/// One instance's store.
pub struct Store {
    log: Arc<dyn FeatureLog>,
    delegate: Arc<dyn Delegate>,
    coordinator: Arc<dyn Coordinator>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    memory: Arc<Memory>,
    types: RwLock<BTreeMap<String, Arc<TypeState>>>,
    /// As of the catalogue that was seen last.
    stored_queries: RwLock<Arc<BTreeMap<String, String>>>,
    locks: Arc<Locks>,
    /// Held while the set of types changes.
    catalogue: tokio::sync::Mutex<catalogue::Seen>,
    /// Held by those who cut logs, and against them while a backup is made.
    cutting: Arc<tokio::sync::RwLock<()>>,
    tasks: Tasks,
}

impl Store {
    /// Takes up all types of the catalogue, declaring those of `declared` that it does not have; tailing begins at once. See
    /// [`Self::is_ready`] for when it answers.
    pub async fn start(
        parts: Parts,
        settings: Settings,
        declared: Vec<FeatureType>,
    ) -> Result<Arc<Store>, CatalogueError> {
        let tasks = Tasks::of(parts.coordinator.instance());
        let store = Arc::new(Store {
            log: parts.log,
            delegate: parts.delegate,
            locks: Arc::new(Locks::new(parts.coordinator.clone(), parts.clock.clone())),
            coordinator: parts.coordinator,
            clock: parts.clock,
            memory: Memory::new(settings.memory),
            settings,
            types: RwLock::default(),
            stored_queries: RwLock::default(),
            catalogue: tokio::sync::Mutex::default(),
            cutting: Arc::default(),
            tasks,
        });
        let up = async {
            store.refresh_catalogue().await?;
            for feature_type in declared {
                store.declare(feature_type).await?;
            }
            Ok(())
        };
        // What it has begun to tail would go on.
        let up: Result<(), CatalogueError> = up.await;
        up.inspect_err(|_| store.abort())?;
        store.watch_locks();
        store.watch_catalogue();
        store.watch_foreign();
        Ok(store)
    }

    /// The types by name.
    pub fn feature_types(&self) -> Vec<Arc<FeatureType>> {
        self.types.read().values().map(|t| t.feature_type()).collect()
    }

    pub fn feature_type(&self, name: &str) -> Option<Arc<FeatureType>> {
        self.state(name).map(|t| t.feature_type())
    }

    /// Answers a query.
    pub async fn read(&self, query: Query) -> Result<Reading, ReadError> {
        let state = self.state_to_read(&query.feature_type)?;
        self.merged(state, query).await
    }

    async fn merged(&self, state: Arc<TypeState>, query: Query) -> Result<Reading, ReadError> {
        merge::read(state, &self.delegate, query, self.settings.read_wait, &self.memory).await
    }

    /// How many features match the query's filter in its tier, exactly, whatever its page; `None` past the budget.
    pub async fn count(&self, query: &Query, budget: Option<Duration>) -> Result<Option<u64>, ReadError> {
        let query = Query { limit: Some(0), ..query.clone() };
        merge::within(budget, async { self.read(query).await?.count_all().await }).await
    }

    /// One feature, and the position at which it stands so.
    pub async fn get(
        &self,
        feature_type: &str,
        id: &str,
        at_least: &Position,
    ) -> Result<Option<(Item, Position)>, ReadError> {
        let query = Query {
            feature_type: feature_type.to_owned(),
            filter: Filter::ids([id.into()]),
            limit: Some(1),
            any_order: true,
            at_least: at_least.clone(),
            ..Query::default()
        };
        let mut reading = self.read(query).await?;
        let item = reading.next().await.transpose()?;
        Ok(item.map(|item| (item, reading.position)))
    }

    /// The envelope of a type's features in its stored CRS, at least; `None` when there are none.
    pub async fn bounds(&self, feature_type: &str) -> Result<Option<Rect>, ReadError> {
        merge::bounds(&self.state_to_read(feature_type)?, &self.delegate, self.settings.read_wait).await
    }

    /// Writes, all or nothing. When it returns the changes are durable and, if `Written::applied`, visible here.
    pub async fn write(&self, transaction: Transaction) -> Result<Written, WriteError> {
        self.check_room()?;
        self.write_with(transaction, Claim::None).await
    }

    /// The same under a lock: its features may be changed, and it is released when they are.
    pub async fn write_under(&self, transaction: Transaction, lock: &UnderLock) -> Result<Written, WriteError> {
        self.check_room()?;
        self.write_with(transaction, Claim::Lock(lock)).await
    }

    async fn write_with(&self, transaction: Transaction, claim: Claim<'_>) -> Result<Written, WriteError> {
        let types: Vec<String> = transaction.actions.iter().map(|a| a.feature_type.clone()).collect();
        let resolved = transaction::resolve(self, transaction, claim).await?;
        let changes_nothing = resolved.records.is_empty();
        let offsets = self.append(resolved.records, resolved.pass).await?;
        let written = self.visible(&types, resolved.ids, &resolved.places, &offsets).await;
        if let Claim::Lock(lock) = claim
            && let Err(e) = self.locks.release(lock, &resolved.touched).await
        {
            if changes_nothing {
                return Err(WriteError::Unavailable(e.to_string()));
            }
            tracing::warn!(lock = lock.id, error = %e, "a lock is not released before its time is over");
        }
        Ok(written)
    }

    /// What a write takes of memory is known when it is applied: the limit is passed by as much as is under way.
    fn check_room(&self) -> Result<(), WriteError> {
        if self.memory.is_full() {
            let what = "memory is at its limit (memory.hard_limit) until more of the index is persisted";
            return Err(WriteError::Unavailable(what.to_owned()));
        }
        Ok(())
    }

    /// Waits until memory has room for more writes; false when it has none in time.
    pub async fn room(&self, wait: Duration) -> bool {
        self.memory.room(wait).await
    }

    pub fn memory(&self) -> MemoryStatus {
        self.memory.status()
    }

    async fn append(&self, records: Vec<NewRecord>, pass: Pass) -> Result<Vec<Offset>, WriteError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let log = self.log.clone();
        // A client that goes away must not break off an append.
        let append = async move {
            let appended = log.append(records).await;
            drop(pass);
            appended
        };
        let appended = uncancelled(append).await;
        Ok(appended.unwrap_or_else(|| Err(LogError::OutcomeUnknown("the append was broken off".into())))?)
    }

    /// Waits until records at these offsets of these places are visible here; of each action with its type's name the ids. The
    /// tracks that grow by the way are not waited for when nobody can say yet what they were.
    async fn visible(
        &self,
        types: &[String],
        ids: Vec<Vec<FeatureId>>,
        places: &[(Arc<TypeState>, PartitionId)],
        offsets: &[Offset],
    ) -> Written {
        let mut written = Written { ids, position: Position::default(), applied: true };
        let deadline = Instant::now() + self.settings.apply_wait;
        for (state, ends) in transaction::ends(places, offsets) {
            written.position.merge(&state.position_of(&ends));
            let feature_type = state.feature_type();
            let own = types.iter().zip(&written.ids).filter(|(name, _)| **name == feature_type.name);
            let own: Vec<&FeatureId> = own.flat_map(|(_, ids)| ids).collect();
            let reached = |index: &TransientIndex| {
                index.applied().iter().zip(&ends).all(|(a, e)| a >= e)
                    && !(index.has_unresolved() && own.iter().any(|id| index.is_unresolved(id)))
            };
            written.applied &= off(Safeguard::OwnWrites) || state.wait_until(deadline, reached).await;
        }
        written
    }

    /// True when every type has caught up with what its log and its watermarks were at the start.
    pub fn is_ready(&self) -> bool {
        self.types.read().values().all(|t| t.is_ready())
    }

    pub fn status(&self) -> Vec<PartitionStatus> {
        let now_ms = self.clock.now_ms();
        self.types.read().values().flat_map(|t| t.status(now_ms)).collect()
    }

    pub fn delegate_kind(&self) -> &'static str {
        self.delegate.kind()
    }

    /// The tasks that end with it and are shown with its own.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Ends the background work in order; what is in the log is safe.
    pub async fn shutdown(&self) {
        self.tasks.shutdown().await;
        let types: Vec<_> = self.types.read().values().cloned().collect();
        for t in types {
            t.tasks.shutdown().await;
        }
    }

    /// Ends everything at once, as a crash would.
    pub fn abort(&self) {
        self.tasks.abort();
        self.types.read().values().for_each(|t| t.tasks.abort());
    }

    fn state(&self, name: &str) -> Option<Arc<TypeState>> {
        self.types.read().get(name).cloned()
    }

    fn state_to_read(&self, name: &str) -> Result<Arc<TypeState>, ReadError> {
        self.state(name).ok_or_else(|| ReadError::UnknownType(name.to_owned()))
    }
}

impl Drop for Store {
    /// Its tasks hold the states of the types, and these the tasks: a store that was let go of, one whose start failed too, would
    /// go on sweeping, and never hear of another change of the catalogue.
    fn drop(&mut self) {
        self.abort();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("types", &self.types.read().keys()).finish()
    }
}

impl From<LogError> for WriteError {
    fn from(e: LogError) -> Self {
        match e {
            LogError::OutcomeUnknown(what) => WriteError::OutcomeUnknown(what),
            LogError::TooLarge { .. } => WriteError::TooLarge(e.to_string()),
            LogError::Unavailable(_) | LogError::NotFound(_) | LogError::Mismatch { .. } => {
                WriteError::Unavailable(e.to_string())
            }
        }
    }
}
