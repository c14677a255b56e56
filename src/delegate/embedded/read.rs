//! Reading: what is known of some ids, and snapshots with their scans.
//!
//! Invariant: a scan holds its snapshot's connection from its first row to its last, or until its stream is dropped.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::connection::Reader;
use super::tail::Tails;
use super::{blocking, row, schema};
use crate::delegate::dead_letter::DeadLetter;
use crate::delegate::sql::{Dialect, Meaning, SqlWriter, quoted};
use crate::delegate::{Base, Bases, DelegateError, PersistEntry, Refused, Row, Rows, Scan, Snapshot, refused as kept};
use crate::model::{FeatureId, FeatureType, Rect, Watermark};
use crate::query::Filter;

const ROWS_PER_BATCH: u64 = 512;

/// Batches read ahead of who takes them.
const BATCHES_AHEAD: usize = 2;

/// Steps of SQLite's machine after which a scan looks whether anybody still wants it.
const STEPS: i32 = 20_000;

/// How long the end of a scan whose stream was dropped may take.
const SCAN_END: Duration = Duration::from_secs(10);

/// See [`crate::delegate::Delegate::load`].
pub fn load(connection: &Connection, feature_type: &FeatureType, ids: &[FeatureId]) -> Result<Bases, DelegateError> {
    let watermarks = schema::watermarks(connection, feature_type)?;
    schema::check_version(connection, feature_type)?;
    let mut live = connection.prepare_cached(&format!("{} WHERE id = ?1", select(feature_type)))?;
    let mut tails = Tails::of(connection, feature_type)?;
    let mut deleted = connection
        .prepare_cached("SELECT version FROM gpkgext_alluvium_deleted WHERE feature_type = ?1 AND id = ?2")?;
    let mut times = connection
        .prepare_cached("SELECT event_time FROM gpkgext_alluvium_deleted_time WHERE feature_type = ?1 AND id = ?2")?;
    let mut bases = Vec::with_capacity(ids.len());
    for id in ids {
        let mut rows = live.query([&**id])?;
        bases.push(match rows.next()? {
            Some(r) => Some(Base::Row(row::read_whole(r, feature_type, &mut tails)?)),
            None => {
                let number = |of: &mut rusqlite::CachedStatement<'_>| {
                    of.query_row(params![feature_type.name, id], |r| r.get::<_, i64>(0)).optional()
                };
                let version = number(&mut deleted)?;
                let time = if feature_type.event_time.is_some() { number(&mut times)? } else { None };
                let known = version.is_some() || time.is_some();
                known.then(|| Base::Deleted(version.map(|v| v as u64), time))
            }
        });
    }
    Ok(Bases { bases, watermarks })
}

/// See [`crate::delegate::Delegate::dead_letters`].
pub fn dead_letters(connection: &Connection, name: &str) -> Result<Vec<DeadLetter>, DelegateError> {
    let mut statement =
        connection.prepare_cached("SELECT letter FROM gpkgext_alluvium_dead_letters WHERE feature_type = ?1")?;
    let texts: Vec<String> = statement.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
    texts.iter().map(|text| DeadLetter::from_json(text)).collect()
}

/// See [`crate::delegate::Delegate::refused`].
pub fn refused(connection: &Connection, feature_type: &FeatureType) -> Result<Vec<Refused>, DelegateError> {
    schema::watermarks(connection, feature_type)?;
    schema::check_version(connection, feature_type)?;
    let mut statement = connection.prepare(
        "SELECT id, partition, version, reason, geometry, properties FROM gpkgext_alluvium_refused
         WHERE feature_type = ?1",
    )?;
    let mut rows = statement.query([&feature_type.name])?;
    let mut refused = Vec::new();
    while let Some(row) = rows.next()? {
        let id: FeatureId = row.get(0)?;
        let (wkb, texts): (Option<Vec<u8>>, Option<String>) = (row.get(4)?, row.get(5)?);
        let feature = kept::feature(feature_type, &id, wkb.as_deref(), texts.as_deref())?;
        let entry = PersistEntry { id, feature, version: row.get::<_, i64>(2)? as u64, event_time: None };
        refused.push(Refused { partition: row.get(1)?, entry, reason: row.get(3)? });
    }
    Ok(refused)
}

fn select(feature_type: &FeatureType) -> String {
    format!("SELECT {} FROM {}", row::columns(feature_type).join(", "), quoted(&feature_type.name))
}

pub struct GeoPackageSnapshot {
    feature_type: Arc<FeatureType>,
    reader: Arc<Mutex<Reader>>,
    watermarks: Vec<Watermark>,
}

impl GeoPackageSnapshot {
    /// Reading the watermarks fixes the reader's moment.
    pub fn new(reader: Reader, feature_type: Arc<FeatureType>) -> Result<GeoPackageSnapshot, DelegateError> {
        let watermarks = schema::watermarks(&reader, &feature_type)?;
        Ok(GeoPackageSnapshot { feature_type, reader: Arc::new(Mutex::new(reader)), watermarks })
    }

    /// Runs a query on the snapshot's connection.
    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection, &FeatureType) -> Result<T, DelegateError> + Send + 'static,
    ) -> Result<T, DelegateError> {
        let (reader, feature_type) = (self.reader.clone(), self.feature_type.clone());
        blocking(move || query(&*locked(&reader)?, &feature_type)).await
    }
}

fn locked(reader: &Mutex<Reader>) -> Result<MutexGuard<'_, Reader>, DelegateError> {
    let busy = || DelegateError::Unavailable("another scan of this snapshot has not ended".into());
    reader.try_lock_for(SCAN_END).ok_or_else(busy)
}

#[async_trait]
impl Snapshot for GeoPackageSnapshot {
    fn watermarks(&self) -> &[Watermark] {
        &self.watermarks
    }

    async fn scan(&mut self, scan: Scan) -> Result<Rows, DelegateError> {
        let (rows, stream) = mpsc::channel(BATCHES_AHEAD);
        let (reader, feature_type) = (self.reader.clone(), self.feature_type.clone());
        tokio::task::spawn_blocking(move || {
            let outcome = locked(&reader).and_then(|mut reader| {
                let wanted = rows.clone();
                reader.progress_handler(STEPS, Some(move || wanted.is_closed()))?;
                let outcome = run(&reader, &feature_type, &scan, &rows);
                // Whatever the connection is asked next must not end for this one's sake.
                reader.progress_handler(0, None::<fn() -> bool>)?;
                outcome
            });
            if let Err(error) = outcome {
                // Nobody hears it when the stream was dropped, which is an error here too.
                let _ = rows.blocking_send(Err(error));
            }
        });
        Ok(ReceiverStream::new(stream).boxed())
    }

    async fn count(&mut self, filter: &Filter) -> Result<Option<u64>, DelegateError> {
        let filter = filter.clone();
        self.query(move |connection, feature_type| {
            let select = format!("SELECT count(*) FROM {} WHERE ", quoted(&feature_type.name));
            let mut query = SqlWriter::new(Dialect::Sqlite, feature_type, select);
            if query.filter(&filter) == Meaning::Superset {
                return Ok(None);
            }
            let binds = query.binds.iter().map(row::bound);
            let rows: i64 = connection.prepare_cached(&query.sql)?.query_row(params_from_iter(binds), |r| r.get(0))?;
            Ok(Some(rows as u64))
        })
        .await
    }

    async fn bounds(&mut self) -> Result<Option<Rect>, DelegateError> {
        self.query(|connection, feature_type| match feature_type.geometry {
            Some(_) => root_envelope(connection, &feature_type.name),
            None => Ok(None),
        })
        .await
    }
}

/// Sends the rows of a scan until they end or nobody takes them.
fn run(
    reader: &Connection,
    feature_type: &FeatureType,
    scan: &Scan,
    to: &mpsc::Sender<Result<Vec<Row>, DelegateError>>,
) -> Result<(), DelegateError> {
    let query = scan_query(feature_type, scan);
    let mut tails = Tails::of(reader, feature_type)?;
    let mut statement = reader.prepare_cached(&query.sql)?;
    let mut rows = statement.query(params_from_iter(query.binds.iter().map(row::bound)))?;
    let size = scan.expected_rows.unwrap_or(ROWS_PER_BATCH).clamp(32, ROWS_PER_BATCH) as usize;
    let mut batch = Vec::with_capacity(size);
    while let Some(r) = rows.next()? {
        batch.push(row::read_whole(r, feature_type, &mut tails)?);
        if batch.len() == size && to.blocking_send(Ok(std::mem::replace(&mut batch, Vec::with_capacity(size)))).is_err()
        {
            return Ok(());
        }
    }
    if !batch.is_empty() {
        // A stream that was dropped does not want them.
        let _ = to.blocking_send(Ok(batch));
    }
    Ok(())
}

/// Also what `EXPLAIN QUERY PLAN` is asked of, in tests.
pub(super) fn scan_query<'a>(feature_type: &'a FeatureType, scan: &Scan) -> SqlWriter<'a> {
    let sort = scan.order.as_deref().unwrap_or_default();
    let mut query = SqlWriter::new(Dialect::Sqlite, feature_type, format!("{} WHERE ", select(feature_type)));
    query.filter(&scan.filter);
    if let Some(cursor) = &scan.after {
        query.sql.push_str(" AND ");
        query.after(cursor, sort);
    }
    if scan.order.is_some() {
        query.sql.push_str(" ORDER BY ");
        query.order_by(sort);
    }
    query
}

/// The envelope of all that the R-tree holds, out of its root node alone: a depth and a count of 16 bits, then per child an
/// id of 64 bits and four edges in single precision, rounded outwards; all big-endian (https://sqlite.org/rtree.html, 6).
fn root_envelope(connection: &Connection, table: &str) -> Result<Option<Rect>, DelegateError> {
    let node = quoted(&format!("{}_node", schema::rtree(table)));
    let root: Vec<u8> = connection.query_row(&format!("SELECT data FROM {node} WHERE nodeno = 1"), [], |r| r.get(0))?;
    let count = root.get(2..4).map_or(0, |n| usize::from(u16::from_be_bytes([n[0], n[1]])));
    let cells = root.get(4..).unwrap_or_default().chunks_exact(24).take(count);
    let envelope = cells.map(|cell| {
        let edge = |i: usize| f64::from(f32::from_be_bytes([cell[i], cell[i + 1], cell[i + 2], cell[i + 3]]));
        Rect { min_x: edge(8), max_x: edge(12), min_y: edge(16), max_y: edge(20) }
    });
    Ok(envelope.reduce(|a, b| a.union(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;
    use crate::query::{CompareOp, Cursor, Operand};

    fn plan(scan: &Scan) -> String {
        let declaration = r#"{"name":"ships","geometry":{"type":"Point"},
            "properties":[{"name":"name","type":"string","index":true}]}"#;
        let ships: FeatureType = serde_json::from_str(declaration).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut connection = super::super::connection::writer(&directory.path().join("plan.gpkg")).unwrap();
        schema::prepare(&mut connection).unwrap();
        schema::create(&mut connection, &ships).unwrap();
        let query = scan_query(&ships, scan);
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", query.sql)).unwrap();
        let steps = statement.query_map(params_from_iter(query.binds.iter().map(row::bound)), |r| r.get(3)).unwrap();
        steps.map(Result::unwrap).collect::<Vec<String>>().join("\n")
    }

    #[test]
    fn scans_use_the_indexes() {
        let at = Rect { min_x: 0.0, min_y: 0.0, max_x: 1.0, max_y: 1.0 };
        let in_box = plan(&Scan { filter: Filter::Bbox(at), ..Scan::default() });
        assert!(in_box.contains("SCAN rtree_ships_geom VIRTUAL TABLE INDEX 2:"), "{in_box}");
        assert!(in_box.contains("SEARCH ships USING INTEGER PRIMARY KEY"), "{in_box}");

        let by_ids = plan(&Scan { filter: Filter::ids(["a".into(), "b".into()]), ..Scan::default() });
        assert!(by_ids.contains("SEARCH ships USING INDEX sqlite_autoindex_ships_1 (id=?)"), "{by_ids}");

        let filter = Filter::Compare {
            op: CompareOp::Equal,
            left: Operand::Property(0),
            right: Operand::Literal(Value::String("x".into())),
            match_case: true,
        };
        let after = Some(Cursor { values: vec![], id: "a".into() });
        let by_name = plan(&Scan { filter, order: Some(vec![]), after: after.clone(), ..Scan::default() });
        assert!(by_name.contains("USING INDEX ships.name (name=? AND id>?)"), "{by_name}");
        assert!(!by_name.contains("TEMP B-TREE"), "{by_name}");

        let page = plan(&Scan { order: Some(vec![]), after, ..Scan::default() });
        assert!(page.contains("(id>?)") && !page.contains("TEMP B-TREE"), "{page}");
    }
}
