//! The long-term store in PostGIS: one plain table per feature type, which any other tool may read and write, and a schema
//! `alluvium` with the bookkeeping (`migrations/`).
//!
//! It owns connections, tables and their SQL; what a filter means in SQL is [`super::sql`]'s. Rows that other tools write
//! have no version. Needs PostgreSQL 12 and PostGIS 3 or newer.
//!
//! Rooms: `connection` has the pool's discipline and the kinds of failure, `migrate` the schema, `catalogue` types and tables,
//! `existing` the tables that were there before, `import` what these say of themselves, `persist` and `read` the two ways,
//! `row` and `copy` the values and the rows in the binary format, `tail` what tracks have got since their line was written.

mod alter;
mod catalogue;
mod connection;
mod copy;
mod existing;
mod import;
mod migrate;
mod persist;
mod read;
mod row;
mod tail;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection as _, PgPool};

use self::connection::{Connection, uncancelled};
use super::dead_letter::DeadLetter;
use super::{Bases, Delegate, DelegateError, PersistBatch, Persisting, Refused, Snapshot};
use crate::model::{FeatureId, FeatureType, Offset, PartitionId, Watermark};

/// How to reach PostgreSQL, and how much of it to use.
#[derive(Clone, Debug)]
pub struct PostGisSettings {
    /// `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=...`
    pub url: String,
    /// Every open read holds one.
    pub max_connections: u32,
    /// How long to wait for a free connection.
    pub acquire_timeout: Duration,
    /// The server ends a statement that takes longer. Of a long read each batch is a statement; one of very many rows may
    /// take as long as its reader likes, but no longer than this until the next of them come.
    pub statement_timeout: Duration,
    /// Where the tables of the feature types are. It must exist.
    pub schema: String,
    /// Further settings of the session, as `SET` knows them.
    pub options: Vec<(String, String)>,
}

impl Default for PostGisSettings {
    fn default() -> Self {
        PostGisSettings {
            url: "postgres://localhost/alluvium".into(),
            max_connections: 32,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(60),
            schema: "public".into(),
            options: Vec::new(),
        }
    }
}

impl PostGisSettings {
    /// How long to wait for the answer to a statement; longer, and the server cannot be there any more.
    fn patience(&self) -> Duration {
        self.statement_timeout + Duration::from_secs(5)
    }

    fn pool(&self) -> Result<PgPool, DelegateError> {
        let url = PgConnectOptions::from_str(&self.url)
            .map_err(|e| DelegateError::Unusable(format!("the URL of PostgreSQL cannot be read: {e}")))?;
        let own = [
            ("client_min_messages", "warning".to_owned()),
            ("statement_timeout", self.statement_timeout.as_millis().to_string()),
            // Digits that read back as the same double, and dates in ISO form.
            ("extra_float_digits", "1".to_owned()),
            ("datestyle", "ISO".to_owned()),
            // A plan for 5,000 rows and empty tables must not be kept for other days.
            ("plan_cache_mode", "force_custom_plan".to_owned()),
        ];
        let options = url
            .application_name("alluvium")
            .options(own)
            .options(self.options.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            // Values would stand in it.
            .disable_statement_logging();
        Ok(PgPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.acquire_timeout)
            // A round trip per use, saved for connections that were in use a moment ago.
            .test_before_acquire(false)
            .before_acquire(|connection, metadata| {
                Box::pin(async move {
                    if metadata.idle_for > Duration::from_secs(1) {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options))
    }
}

#[derive(Clone)]
pub struct PostGis {
    pool: PgPool,
    settings: PostGisSettings,
}

impl PostGis {
    /// Connects, and brings the bookkeeping up to date.
    pub async fn connect(settings: PostGisSettings) -> Result<PostGis, DelegateError> {
        let postgis = PostGis { pool: settings.pool()?, settings };
        postgis.with_connection(|connection, _| Box::pin(migrate::migrate(connection))).await?;
        Ok(postgis)
    }

    /// The declaration of a type over a table that is there; reads only, and needs no bookkeeping. `key` may name the column
    /// of the ids. `Mismatch` says why there can be none.
    pub async fn describe_table(
        settings: PostGisSettings,
        table: &str,
        collection: &str,
        key: Option<&str>,
    ) -> Result<FeatureType, DelegateError> {
        let schema = settings.schema.clone();
        let (table, collection, key) = (table.to_owned(), collection.to_owned(), key.map(str::to_owned));
        let postgis = PostGis { pool: settings.pool()?, settings };
        postgis
            .with_connection(move |connection, _| {
                Box::pin(
                    async move { import::describe(connection, &schema, &table, &collection, key.as_deref()).await },
                )
            })
            .await
    }

    /// Runs `work` to its end, on a connection that is given back when it succeeds.
    async fn with_connection<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Connection, &'c PostGisSettings) -> BoxFuture<'c, Result<T, DelegateError>>
        + Send
        + 'static,
    ) -> Result<T, DelegateError> {
        let PostGis { pool, settings } = self.clone();
        uncancelled(async move {
            let mut connection = Connection::take(&pool, settings.patience()).await?;
            let result = work(&mut connection, &settings).await?;
            connection.give_back();
            Ok::<_, DelegateError>(result)
        })
        .await
    }
}

#[async_trait]
impl Delegate for PostGis {
    fn kind(&self) -> &'static str {
        "PostGIS"
    }

    async fn catalogue(&self) -> Result<(u64, Vec<FeatureType>), DelegateError> {
        self.with_connection(|connection, _| Box::pin(catalogue::read(connection))).await
    }

    async fn create(&self, feature_type: &FeatureType) -> Result<(), DelegateError> {
        let t = feature_type.clone();
        self.with_connection(|connection, settings| {
            Box::pin(async move { catalogue::create(connection, settings, &t).await })
        })
        .await
    }

    async fn alter(&self, from: &FeatureType, to: &FeatureType) -> Result<bool, DelegateError> {
        let (from, to) = (from.clone(), to.clone());
        self.with_connection(|connection, settings| {
            Box::pin(async move { alter::alter(connection, settings, &from, &to).await })
        })
        .await
    }

    async fn remove(&self, name: &str, purge: bool) -> Result<(), DelegateError> {
        let name = name.to_owned();
        self.with_connection(move |connection, settings| {
            Box::pin(async move { catalogue::remove(connection, settings, &name, purge).await })
        })
        .await
    }

    async fn stored_queries(&self) -> Result<BTreeMap<String, String>, DelegateError> {
        self.with_connection(|connection, _| Box::pin(catalogue::stored_queries(connection))).await
    }

    async fn keep_stored_queries(&self, queries: &[(String, String)]) -> Result<Option<String>, DelegateError> {
        let queries = queries.to_vec();
        self.with_connection(|connection, _| {
            Box::pin(async move { catalogue::keep_stored_queries(connection, &queries).await })
        })
        .await
    }

    async fn drop_stored_query(&self, id: &str) -> Result<bool, DelegateError> {
        let id = id.to_owned();
        self.with_connection(|connection, _| {
            Box::pin(async move { catalogue::drop_stored_query(connection, &id).await })
        })
        .await
    }

    async fn watermarks(&self, feature_type: &FeatureType) -> Result<Vec<Watermark>, DelegateError> {
        let t = feature_type.clone();
        self.with_connection(|connection, _| {
            Box::pin(async move {
                let rows = connection.rows(catalogue::select_watermarks(&t)).await?;
                catalogue::read_watermarks(&t, &rows)
            })
        })
        .await
    }

    async fn persist(&self, feature_type: &FeatureType, batch: PersistBatch) -> Result<Persisting, DelegateError> {
        let t = feature_type.clone();
        self.with_connection(|connection, settings| {
            Box::pin(async move { persist::persist(connection, settings, &t, batch).await })
        })
        .await
    }

    async fn fold(
        &self,
        feature_type: &FeatureType,
        partition: PartitionId,
        before: Offset,
    ) -> Result<usize, DelegateError> {
        let t = feature_type.clone();
        self.with_connection(move |connection, settings| {
            Box::pin(async move { tail::fold(connection, settings, &t, partition, before).await })
        })
        .await
    }

    async fn refused(&self, feature_type: &FeatureType) -> Result<Vec<Refused>, DelegateError> {
        let t = feature_type.clone();
        self.with_connection(|connection, _| Box::pin(async move { persist::refused(connection, &t).await })).await
    }

    async fn keep_dead_letters(
        &self,
        feature_type: &FeatureType,
        letters: Vec<DeadLetter>,
    ) -> Result<(), DelegateError> {
        let t = feature_type.clone();
        self.with_connection(|connection, _| {
            Box::pin(async move { persist::keep_dead_letters(connection, &t, &letters).await })
        })
        .await
    }

    async fn dead_letters(&self, feature_type: &FeatureType) -> Result<Vec<DeadLetter>, DelegateError> {
        let t = feature_type.clone();
        self.with_connection(|connection, _| Box::pin(async move { persist::dead_letters(connection, &t).await })).await
    }

    async fn reserve_ids(&self, feature_type: &FeatureType, count: usize) -> Result<Vec<FeatureId>, DelegateError> {
        let Some(table) = feature_type.table.clone() else {
            return Err(DelegateError::Mismatch(format!("'{}' has no table that gives ids", feature_type.name)));
        };
        self.with_connection(move |connection, _| {
            Box::pin(async move { existing::reserve_ids(connection, &table, count).await })
        })
        .await
    }

    async fn load(&self, feature_type: &FeatureType, ids: &[FeatureId]) -> Result<Bases, DelegateError> {
        read::load(&self.pool, &self.settings, feature_type, ids).await
    }

    async fn snapshot(&self, feature_type: &Arc<FeatureType>) -> Result<Box<dyn Snapshot>, DelegateError> {
        Ok(Box::new(read::PostGisSnapshot::open(&self.pool, &self.settings, feature_type).await?))
    }
}
