//! Which feature types there are: kept in the delegate, followed by every instance, and for each of them the tasks that keep
//! its index and sweep it.

use std::sync::Arc;

use super::state::TypeState;
use super::sweeper::Sweeper;
use super::tailer::{self, Start, TailError};
use super::{Store, resolver};
use crate::coordination::Lease;
use crate::delegate::DelegateError;
use crate::log::LogError;
use crate::model::{FeatureType, GeometryKind, PartitionId, SchemaError};
use crate::store::CatalogueError;

/// How often a change is tried anew because somebody else's came first.
const ROUNDS_FOR_CHANGES: usize = 8;

/// What this instance has seen of the catalogue.
#[derive(Debug, Default)]
pub struct Seen {
    revision: Option<u64>,
}

impl From<DelegateError> for CatalogueError {
    fn from(e: DelegateError) -> Self {
        match e {
            DelegateError::Exists(name) => CatalogueError::Exists(name),
            DelegateError::NotFound(name) => CatalogueError::UnknownType(name),
            DelegateError::Mismatch(what) => CatalogueError::Invalid(SchemaError::new("delegate", what)),
            DelegateError::Unavailable(why) => CatalogueError::Unavailable(why),
            DelegateError::Unusable(_) => CatalogueError::Unservable(e.to_string()),
        }
    }
}

impl From<LogError> for CatalogueError {
    fn from(e: LogError) -> Self {
        match e {
            LogError::Mismatch { .. } | LogError::TooLarge { .. } => CatalogueError::Unservable(e.to_string()),
            LogError::Unavailable(_) | LogError::OutcomeUnknown(_) | LogError::NotFound(_) => {
                CatalogueError::Unavailable(e.to_string())
            }
        }
    }
}

impl From<TailError> for CatalogueError {
    fn from(e: TailError) -> Self {
        match e {
            TailError::Log(e) => e.into(),
            // Somebody has removed it a moment ago.
            TailError::Delegate(DelegateError::NotFound(_)) => CatalogueError::Unavailable(e.to_string()),
            TailError::Delegate(e) => e.into(),
            e => CatalogueError::Unservable(e.to_string()),
        }
    }
}

impl Store {
    /// Creates a feature type; other instances take it up within their catalogue interval.
    pub async fn create_feature_type(&self, mut feature_type: FeatureType) -> Result<Arc<FeatureType>, CatalogueError> {
        feature_type.check_declaration()?;
        self.check_points(&feature_type).await?;
        feature_type.incarnation = new_incarnation();
        feature_type.schema_version = 1;
        let name = feature_type.name.clone();
        if self.state(&name).is_some() {
            return Err(CatalogueError::Exists(name));
        }
        // The log first: a type of the catalogue always has its log, and a log that no type knows harms nobody.
        self.log.create(&feature_type.log_name(), feature_type.partitions).await?;
        if let Err(e) = self.delegate.create(&feature_type).await {
            if let Err(left) = self.log.remove(&feature_type.log_name()).await {
                tracing::warn!(log = feature_type.log_name(), error = %left, "a log without a type was left behind");
            }
            return Err(e.into());
        }
        self.refresh_catalogue().await?;
        self.feature_type(&name).ok_or(CatalogueError::UnknownType(name))
    }

    /// What tracks are made of has to be there and be points: else they would never grow, and nobody would be told.
    async fn check_points(&self, tracks: &FeatureType) -> Result<(), CatalogueError> {
        let Some(name) = &tracks.track_of else { return Ok(()) };
        // It may have been made on another instance a moment ago.
        self.refresh_catalogue().await?;
        match self.feature_type(name).and_then(|t| t.geometry) {
            Some(column) if matches!(column.kind, GeometryKind::Point | GeometryKind::Geometry) => Ok(()),
            _ => Err(SchemaError::new("track_of", format!("there is no feature type '{name}' of points")).into()),
        }
    }

    /// Takes a feature type out of the catalogue. Its table stays, unless `purge`.
    pub async fn remove_feature_type(&self, name: &str, purge: bool) -> Result<(), CatalogueError> {
        let state = self.state(name).ok_or_else(|| CatalogueError::UnknownType(name.to_owned()))?;
        self.delegate.remove(name, purge).await?;
        self.refresh_catalogue().await?;
        self.log.remove(&state.log_name).await?;
        Ok(())
    }

    /// Changes a feature type, its table with it: `change` makes the declaration that is wanted of the present one, perhaps more
    /// than once. When it returns, the catalogue has it and this instance goes by it; others follow within their catalogue
    /// interval. What may change, see [`FeatureType::changed_to`].
    pub async fn change_feature_type(
        &self,
        name: &str,
        change: impl Fn(&FeatureType) -> Result<FeatureType, SchemaError>,
    ) -> Result<Arc<FeatureType>, CatalogueError> {
        for _ in 0..ROUNDS_FOR_CHANGES {
            // It may have been changed on another instance a moment ago.
            self.refresh_catalogue().await?;
            let known = self.feature_type(name).ok_or_else(|| CatalogueError::UnknownType(name.to_owned()))?;
            let next = known.changed_to(&change(&known)?)?;
            if next == *known {
                return Ok(known);
            }
            if self.delegate.alter(&known, &next).await? {
                self.refresh_catalogue().await?;
                return self.feature_type(name).ok_or_else(|| CatalogueError::UnknownType(name.to_owned()));
            }
        }
        Err(CatalogueError::Unavailable(format!("feature type '{name}' is being changed by others")))
    }

    /// A type of the settings: made when the catalogue has none of that name, else changed to what is declared, but that
    /// nothing is taken away. What cannot be changed is an error that says where the two differ.
    pub(super) async fn declare(&self, declared: FeatureType) -> Result<(), CatalogueError> {
        let known = match self.feature_type(&declared.name) {
            Some(known) => known,
            None => match self.create_feature_type(declared.clone()).await {
                // Another instance was faster.
                Err(CatalogueError::Exists(name)) => {
                    self.refresh_catalogue().await?;
                    self.feature_type(&name).ok_or(CatalogueError::Exists(name))?
                }
                made => made?,
            },
        };
        let name = &known.name;
        match self.change_feature_type(name, |known| Ok(declared.clone().caught_up_with(known))).await {
            Ok(_) => Ok(()),
            Err(CatalogueError::Invalid(e)) => {
                let what = format!("feature type '{name}' is declared otherwise than in the catalogue: {e}");
                Err(SchemaError::new(name, what).into())
            }
            Err(e) => Err(e),
        }
    }

    /// Looks at the catalogue now and then.
    pub(super) fn watch_catalogue(self: &Arc<Self>) {
        let (store, interval) = (Arc::downgrade(self), self.settings.catalogue_interval);
        let look = move || {
            let store = store.clone();
            async move {
                tokio::time::sleep(interval).await;
                match store.upgrade() {
                    Some(store) => store.refresh_catalogue().await,
                    None => Ok(()),
                }
            }
        };
        self.tasks.supervise("catalogue", look, |e| tracing::warn!(error = %e, "the catalogue could not be read"));
    }

    /// Grows tracks by what other programs put into the log of the points, as often as the sweepers look.
    pub(super) fn watch_foreign(self: &Arc<Self>) {
        let (store, interval) = (Arc::downgrade(self), self.settings.sweep_interval);
        let look = move || {
            let store = store.clone();
            async move {
                tokio::time::sleep(interval).await;
                match store.upgrade() {
                    Some(store) => store.derive_foreign().await,
                    None => Ok(()),
                }
            }
        };
        self.tasks.supervise("derived tracks", look, |e| {
            tracing::warn!(error = %e, "tracks could not be grown by what others put");
        });
    }

    /// Takes up types that are new, follows those that have changed and lets go of those that are gone.
    pub(super) async fn refresh_catalogue(&self) -> Result<(), CatalogueError> {
        let mut seen = self.catalogue.lock().await;
        let (revision, types) = self.delegate.catalogue().await?;
        if seen.revision == Some(revision) {
            return Ok(());
        }
        // No older than the revision; of what is newer the next one will tell again.
        self.take_stored_queries().await?;
        let gone: Vec<Arc<TypeState>> = {
            let mut known = self.types.write();
            let is_gone = |state: &TypeState| !types.iter().any(|t| t.incarnation == state.feature_type().incarnation);
            let names: Vec<String> = known.iter().filter(|(_, s)| is_gone(s)).map(|(n, _)| n.clone()).collect();
            names.iter().filter_map(|n| known.remove(n)).collect()
        };
        for state in gone {
            state.tasks.shutdown().await;
        }
        for feature_type in types {
            match self.state(&feature_type.name) {
                Some(state) => state.follow(feature_type),
                None => {
                    let state = self.take_up(feature_type).await?;
                    self.types.write().insert(state.feature_type().name.clone(), state);
                }
            }
        }
        seen.revision = Some(revision);
        Ok(())
    }

    /// Begins to tail and to sweep a type, from its watermarks.
    async fn take_up(&self, feature_type: FeatureType) -> Result<Arc<TypeState>, CatalogueError> {
        let feature_type = Arc::new(feature_type);
        let (start, loss) = match tailer::start(&feature_type, &self.log, &self.delegate).await {
            Ok(start) => (start, None),
            // The others are served all the same.
            Err(e @ TailError::Loss { .. }) => (Start::nowhere(&feature_type), Some(e.to_string())),
            Err(e) => {
                tracing::error!(feature_type = %feature_type.name, error = %e, "the feature type cannot be served");
                return Err(e.into());
            }
        };
        let state = Arc::new(TypeState::new(feature_type, start, self.coordinator.instance(), &self.memory));
        if let Some(why) = loss {
            state.stop(why);
        }
        for partition in state.partition_ids() {
            self.tail(&state, partition);
            self.sweep(&state, partition);
        }
        self.resolve(&state);
        Ok(state)
    }

    fn tail(&self, state: &Arc<TypeState>, partition: PartitionId) {
        let (tailed, log, delegate) = (state.clone(), self.log.clone(), self.delegate.clone());
        let step = move || {
            let (state, log, delegate) = (tailed.clone(), log.clone(), delegate.clone());
            async move { tailer::run(&state, partition, &log, &delegate).await }
        };
        let name = format!("tailing {}/{partition}", state.feature_type().name);
        state.tasks.supervise(name, step, failure(state, partition, "tailing"));
    }

    fn resolve(&self, state: &Arc<TypeState>) {
        let (resolved, delegate) = (state.clone(), self.delegate.clone());
        let step = move || {
            let (state, delegate) = (resolved.clone(), delegate.clone());
            async move { resolver::run(&state, &delegate).await }
        };
        let name = format!("resolving {}", state.feature_type().name);
        state.tasks.supervise(name, step, failure(state, 0, "resolving"));
    }

    fn sweep(&self, state: &Arc<TypeState>, partition: PartitionId) {
        let sweeper = Arc::new(Sweeper {
            state: state.clone(),
            partition,
            log: self.log.clone(),
            delegate: self.delegate.clone(),
            coordinator: self.coordinator.clone(),
            clock: self.clock.clone(),
            memory: self.memory.clone(),
            batch: self.settings.sweep_batch,
            refused_interval: self.settings.refused_interval,
            retry: Default::default(),
            track_rest: self.settings.track_rest,
            resting: Default::default(),
            log_window: self.settings.log_window,
            cutting: self.cutting.clone(),
            durable: Default::default(),
        });
        let lease: Arc<tokio::sync::Mutex<Option<Box<dyn Lease>>>> = Arc::default();
        let interval = self.settings.sweep_interval;
        let step = move || {
            let (sweeper, lease) = (sweeper.clone(), lease.clone());
            async move {
                sweeper.memory.until_turn(interval).await;
                let outcome = sweeper.turn(&mut *lease.lock().await).await;
                if outcome.is_err() {
                    sweeper.state.partition(partition).sweep_failures += 1;
                }
                outcome
            }
        };
        let name = format!("sweeping {}/{partition}", state.feature_type().name);
        state.tasks.supervise(name, step, failure(state, partition, "sweeping"));
    }
}

/// Keeps the last error where `/admin/status` shows it, and logs it once.
fn failure(state: &Arc<TypeState>, partition: PartitionId, what: &'static str) -> impl Fn(&str) + Send + Sync + use<> {
    let weak = Arc::downgrade(state);
    move |e: &str| {
        if let Some(state) = weak.upgrade() {
            tracing::warn!(feature_type = %state.feature_type().name, partition, error = %e, "{what} failed, will be tried again");
            state.partition(partition).last_error = Some(format!("{what}: {e}"));
        }
    }
}

/// Eight letters and digits of a random UUID.
fn new_incarnation() -> String {
    let id = uuid::Uuid::now_v7().simple().to_string();
    id[id.len() - 8..].to_owned()
}
