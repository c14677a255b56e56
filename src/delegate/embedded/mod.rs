//! The delegate of the embedded server: one GeoPackage file (OGC 12-128r17), which QGIS and ogr2ogr open while it is served.
//!
//! It owns the file: a feature table with an R-tree per type, and its bookkeeping in tables named `gpkgext_alluvium_...`.
//! Other programs may read it meanwhile; that they write to it meanwhile is not supported.
//! Invariant: all writing goes through one connection, in transactions that are on disk when they are committed
//! (`synchronous = FULL`); every snapshot has a connection of its own (WAL), so that neither waits for the other.

mod backup;
mod connection;
mod persist;
mod read;
mod row;
mod schema;
mod tail;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};

use self::connection::Readers;
use super::dead_letter::DeadLetter;
use super::{Bases, Delegate, DelegateBackup, DelegateError, PersistBatch, Persisting, Refused, Snapshot};
use crate::model::{FeatureId, FeatureType, Offset, PartitionId, Watermark};

pub struct GeoPackage {
    writer: Arc<Mutex<Connection>>,
    readers: Arc<Readers>,
    /// Held while the file is copied.
    backing_up: Arc<Mutex<()>>,
}

impl GeoPackage {
    /// Opens the file, or makes it. Blocks. `Mismatch`: it is no GeoPackage, is damaged, is of a newer program, or a table has
    /// been changed.
    pub fn open(path: &Path) -> Result<GeoPackage, DelegateError> {
        let named = |e: DelegateError| match e {
            DelegateError::Mismatch(why) => DelegateError::Mismatch(format!("{}: {why}", path.display())),
            DelegateError::Unavailable(why) => DelegateError::Unavailable(format!("{}: {why}", path.display())),
            other => other,
        };
        let mut writer = connection::writer(path).map_err(|e| named(e.into()))?;
        schema::prepare(&mut writer).map_err(named)?;
        Ok(GeoPackage {
            writer: Arc::new(Mutex::new(writer)),
            readers: Arc::new(Readers::new(path.to_owned())),
            backing_up: Arc::default(),
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, DelegateError> + Send + 'static,
    ) -> Result<T, DelegateError> {
        let writer = self.writer.clone();
        blocking(move || work(&mut writer.lock())).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, DelegateError> + Send + 'static,
    ) -> Result<T, DelegateError> {
        let readers = self.readers.clone();
        blocking(move || work(&*readers.begin()?)).await
    }
}

/// Runs what waits for the disk where it keeps nobody else waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DelegateError> + Send + 'static,
) -> Result<T, DelegateError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(panicked) => Err(DelegateError::Unavailable(panicked.to_string())),
    }
}

impl From<rusqlite::Error> for DelegateError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => DelegateError::Mismatch(format!("not a GeoPackage: {text}")),
            // 'No such table' and the like have no code of their own.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) => DelegateError::Mismatch(text),
            _ => DelegateError::Unavailable(text),
        }
    }
}

#[async_trait]
impl Delegate for GeoPackage {
    fn kind(&self) -> &'static str {
        "GeoPackage"
    }

    async fn catalogue(&self) -> Result<(u64, Vec<FeatureType>), DelegateError> {
        self.read(schema::catalogue).await
    }

    async fn create(&self, feature_type: &FeatureType) -> Result<(), DelegateError> {
        let feature_type = feature_type.clone();
        self.write(move |connection| schema::create(connection, &feature_type)).await
    }

    async fn alter(&self, from: &FeatureType, to: &FeatureType) -> Result<bool, DelegateError> {
        let (from, to) = (from.clone(), to.clone());
        self.write(move |connection| schema::alter(connection, &from, &to)).await
    }

    async fn remove(&self, name: &str, purge: bool) -> Result<(), DelegateError> {
        let name = name.to_owned();
        self.write(move |connection| schema::remove(connection, &name, purge)).await
    }

    async fn stored_queries(&self) -> Result<BTreeMap<String, String>, DelegateError> {
        self.read(schema::stored_queries).await
    }

    async fn keep_stored_queries(&self, queries: &[(String, String)]) -> Result<Option<String>, DelegateError> {
        let queries = queries.to_vec();
        self.write(move |connection| schema::keep_stored_queries(connection, &queries)).await
    }

    async fn drop_stored_query(&self, id: &str) -> Result<bool, DelegateError> {
        let id = id.to_owned();
        self.write(move |connection| schema::drop_stored_query(connection, &id)).await
    }

    async fn watermarks(&self, feature_type: &FeatureType) -> Result<Vec<Watermark>, DelegateError> {
        let feature_type = feature_type.clone();
        self.read(move |connection| schema::watermarks(connection, &feature_type)).await
    }

    async fn persist(&self, feature_type: &FeatureType, batch: PersistBatch) -> Result<Persisting, DelegateError> {
        let feature_type = feature_type.clone();
        self.write(move |connection| persist::persist(connection, &feature_type, &batch)).await
    }

    async fn fold(
        &self,
        feature_type: &FeatureType,
        partition: PartitionId,
        before: Offset,
    ) -> Result<usize, DelegateError> {
        let feature_type = feature_type.clone();
        self.write(move |connection| tail::fold(connection, &feature_type, partition, before)).await
    }

    async fn refused(&self, feature_type: &FeatureType) -> Result<Vec<Refused>, DelegateError> {
        let feature_type = feature_type.clone();
        self.read(move |connection| read::refused(connection, &feature_type)).await
    }

    async fn keep_dead_letters(
        &self,
        feature_type: &FeatureType,
        letters: Vec<DeadLetter>,
    ) -> Result<(), DelegateError> {
        let name = feature_type.name.clone();
        self.write(move |connection| persist::keep_dead_letters(connection, &name, &letters)).await
    }

    async fn dead_letters(&self, feature_type: &FeatureType) -> Result<Vec<DeadLetter>, DelegateError> {
        let name = feature_type.name.clone();
        self.read(move |connection| read::dead_letters(connection, &name)).await
    }

    async fn load(&self, feature_type: &FeatureType, ids: &[FeatureId]) -> Result<Bases, DelegateError> {
        let (feature_type, ids) = (feature_type.clone(), ids.to_vec());
        self.read(move |connection| read::load(connection, &feature_type, &ids)).await
    }

    async fn backup(&self) -> Result<DelegateBackup, DelegateError> {
        let (readers, one_at_a_time) = (self.readers.clone(), self.backing_up.clone());
        blocking(move || {
            let _alone = one_at_a_time.lock();
            let from = readers.begin()?;
            backup::copy(&from, readers.path())
        })
        .await
    }

    async fn snapshot(&self, feature_type: &Arc<FeatureType>) -> Result<Box<dyn Snapshot>, DelegateError> {
        let (readers, feature_type) = (self.readers.clone(), feature_type.clone());
        let snapshot = blocking(move || read::GeoPackageSnapshot::new(readers.begin()?, feature_type)).await?;
        Ok(Box::new(snapshot))
    }
}
