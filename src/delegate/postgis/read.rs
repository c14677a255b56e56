//! Reading: a snapshot is a read-only transaction of its own connection, and a scan is a cursor in it, or `COPY`.
//!
//! A cursor, so that the reader sets the pace, and a scan that is broken off costs nothing and leaves the connection whole.
//! Opening a snapshot is one round trip, and so is a scan with its first rows; the end is not waited for. A scan of very many
//! rows that its reader means to see to the end is `COPY`: its rows come without being asked for, at less cost on both sides.
//!
//! Invariant: every use of the connection runs to its end in a task of its own ([`uncancelled`]), or the connection is closed.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use rustc_hash::FxHashMap;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::PostGisSettings;
use super::catalogue::{
    WATERMARK_COLUMNS, check_version, read_watermarks, relation, select_version, select_watermarks, table,
};
use super::connection::{Connection, Pieces, parsed_at, text_at, uncancelled};
use super::copy::CopyReader;
use super::row::{column_at, read, select_list};
use super::tail;
use crate::delegate::literal::literal;
use crate::delegate::sql::{Bind, Dialect, Meaning, SqlWriter};
use crate::delegate::{Base, Bases, DelegateError, Row, Rows, Scan, Snapshot};
use crate::model::feature_type::GEOMETRY;
use crate::model::{FeatureId, FeatureType, Offset, Rect, Watermark};
use crate::query::Filter;

/// Rows of the first batch, when the caller does not say how many it expects.
const FIRST_ROWS: u64 = 256;
const MOST_ROWS: u64 = 2048;
/// What a batch should not be much larger than.
const BATCH_BYTES: u64 = 1 << 20;
/// More than these are read by `COPY`.
const CURSOR_ROWS: u64 = 20_000;
/// Pieces of `COPY` that wait to be taken.
const PIECES_AHEAD: usize = 4;

/// A transaction that sees one moment.
struct Transaction {
    /// `None` once it has failed: an error in a transaction ends it.
    connection: Mutex<Option<Connection>>,
    /// Where its end is carried out, whoever drops it.
    runtime: Handle,
}

impl Transaction {
    /// Begins, and runs a first query, whose rows are returned.
    async fn begin(
        pool: PgPool,
        settings: PostGisSettings,
        first: String,
    ) -> Result<(Arc<Transaction>, Vec<PgRow>), DelegateError> {
        uncancelled(async move {
            let mut connection = Connection::take(&pool, settings.patience()).await?;
            let rows = connection.rows(format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {first}")).await?;
            let transaction = Transaction { connection: Mutex::new(Some(connection)), runtime: Handle::current() };
            Ok::<_, sqlx::Error>((Arc::new(transaction), rows))
        })
        .await
    }

    async fn with_rows<T: Send>(
        &self,
        sql: String,
        mut each: impl FnMut(PgRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, DelegateError> {
        let mut guard = self.connection.lock().await;
        let mut connection = guard.take().ok_or_else(ended)?;
        let mut values = Vec::new();
        connection
            .each_row(sql, |row| {
                values.push(each(row)?);
                Ok(())
            })
            .await?;
        *guard = Some(connection);
        Ok(values)
    }

    /// Sends what `COPY` of a query gives, to its end or until nobody takes it.
    async fn copy(&self, query: &str, pieces: &Pieces) -> Result<(), DelegateError> {
        let mut guard = self.connection.lock().await;
        let mut connection = guard.take().ok_or_else(ended)?;
        // Its time is that of the reader.
        connection.run("SET LOCAL statement_timeout = 0".into()).await?;
        if connection.copy_out(query, pieces).await? {
            *guard = Some(connection);
        }
        Ok(())
    }

    async fn rows(self: &Arc<Self>, sql: String) -> Result<Vec<PgRow>, DelegateError> {
        let this = self.clone();
        uncancelled(async move { this.with_rows(sql, Ok).await }).await
    }
}

fn ended() -> DelegateError {
    DelegateError::Unavailable("the transaction has ended after an error".into())
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.get_mut().take() {
            self.runtime.spawn(async move {
                // Otherwise it is closed, which ends the transaction too.
                if connection.run("COMMIT".into()).await.is_ok() {
                    connection.give_back();
                }
            });
        }
    }
}

pub struct PostGisSnapshot {
    transaction: Arc<Transaction>,
    feature_type: Arc<FeatureType>,
    /// What stands after `FROM`.
    table: String,
    watermarks: Vec<Watermark>,
    cursors: u32,
}

impl PostGisSnapshot {
    pub async fn open(
        pool: &PgPool,
        settings: &PostGisSettings,
        t: &Arc<FeatureType>,
    ) -> Result<PostGisSnapshot, DelegateError> {
        let (snapshot, _) = PostGisSnapshot::open_with(pool, settings, t, "").await?;
        Ok(snapshot)
    }

    /// Also runs queries of fewer columns than [`select_watermarks`] has; returns their rows.
    async fn open_with(
        pool: &PgPool,
        settings: &PostGisSettings,
        t: &Arc<FeatureType>,
        query: &str,
    ) -> Result<(PostGisSnapshot, Vec<PgRow>), DelegateError> {
        // Before there is a snapshot: a table that is written anew, for a column of another type, is empty to earlier ones.
        let lock = match t.table {
            Some(_) => String::new(),
            None => format!("LOCK TABLE {} IN ACCESS SHARE MODE; ", table(settings, &t.name)),
        };
        let first = format!("{lock}{}; {query}", select_watermarks(t));
        let (transaction, rows) = Transaction::begin(pool.clone(), settings.clone(), first).await?;
        let (watermarks, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.len() == WATERMARK_COLUMNS);
        let watermarks = read_watermarks(t, &watermarks)?;
        let table = relation(settings, t);
        Ok((PostGisSnapshot { transaction, feature_type: t.clone(), table, watermarks, cursors: 0 }, others))
    }
}

/// What is known of ids: rows, or memories of deleted features.
pub async fn load(
    pool: &PgPool,
    settings: &PostGisSettings,
    t: &FeatureType,
    ids: &[FeatureId],
) -> Result<Bases, DelegateError> {
    let t = Arc::new(t.clone());
    let these = format!(
        "feature_type = {} AND id = ANY({})",
        literal(&Bind::Text(t.name.clone())),
        literal(&Bind::Ids(ids.to_vec()))
    );
    let deleted = match t.event_time {
        None => format!("{}; SELECT id, version, NULL FROM alluvium.deleted WHERE {these}", select_version(&t)),
        Some(_) => format!(
            "{}; SELECT id, version, event_time FROM (SELECT * FROM alluvium.deleted WHERE {these}) d \
             FULL JOIN (SELECT * FROM alluvium.deleted_time WHERE {these}) t USING (feature_type, id)",
            select_version(&t)
        ),
    };
    let (mut snapshot, deleted) = PostGisSnapshot::open_with(pool, settings, &t, &deleted).await?;
    check_version(&t, &deleted)?;
    let mut known: FxHashMap<FeatureId, Base> = FxHashMap::default();
    for row in deleted.iter().filter(|row| row.len() == 3) {
        let version = text_at(row, 1)?.map(|_| parsed_at(row, 1)).transpose()?;
        let event_time = text_at(row, 2)?.map(|_| parsed_at(row, 2)).transpose()?;
        known.insert(text_at(row, 0)?.unwrap_or_default().into(), Base::Deleted(version, event_time));
    }
    if !ids.is_empty() {
        let filter = Filter::ids(ids.iter().cloned());
        let mut rows = snapshot.scan(Scan { filter, expected_rows: Some(ids.len() as u64), ..Scan::default() }).await?;
        while let Some(batch) = rows.next().await {
            for row in batch? {
                let id = row.feature.id.clone();
                let version = row.version.max(deleted_version(known.get(&id)));
                known.insert(id, Base::Row(Row { version, ..row }));
            }
        }
    }
    let bases = ids.iter().map(|id| known.get(id).cloned()).collect();
    Ok(Bases { bases, watermarks: snapshot.watermarks.clone() })
}

/// A row that another tool wrote after the deletion has outlived every record up to that.
fn deleted_version(base: Option<&Base>) -> Option<Offset> {
    match base {
        Some(Base::Deleted(version, _)) => *version,
        _ => None,
    }
}

#[async_trait]
impl Snapshot for PostGisSnapshot {
    fn watermarks(&self) -> &[Watermark] {
        &self.watermarks
    }

    async fn scan(&mut self, scan: Scan) -> Result<Rows, DelegateError> {
        let query = select(&self.feature_type, &self.table, &scan);
        if scan.to_end && scan.expected_rows.is_none_or(|n| n > CURSOR_ROWS) {
            return copied(self.transaction.clone(), self.feature_type.clone(), query).await;
        }
        // A name of its own: a fetch of the scan before may still be under way.
        self.cursors += 1;
        let cursor = format!("scan_{}", self.cursors);
        let count = scan.expected_rows.unwrap_or(FIRST_ROWS).clamp(1, MOST_ROWS);
        // How much of the rows the plan is to be made for: a page wants its first rows soon.
        let fraction = if scan.expected_rows.is_some() { 0.1 } else { 1.0 };
        let fetch = Fetch {
            transaction: self.transaction.clone(),
            feature_type: self.feature_type.clone(),
            cursor: cursor.clone(),
            before: format!(
                "SET LOCAL cursor_tuple_fraction = {fraction}; DECLARE {cursor} BINARY NO SCROLL CURSOR FOR {query}; "
            ),
            count,
        };
        let first = uncancelled(fetch.run()).await?;
        Ok(stream(first))
    }

    async fn count(&mut self, filter: &Filter) -> Result<Option<u64>, DelegateError> {
        let before = format!("SELECT count(*) FROM {} WHERE ", self.table);
        let mut writer = SqlWriter::new(Dialect::Postgres, &self.feature_type, before);
        if writer.filter(filter) != Meaning::Exact {
            return Ok(None);
        }
        let rows = self.transaction.rows(writer.sql).await?;
        rows.first().map(|row| Ok(parsed_at(row, 0)?)).transpose()
    }

    async fn bounds(&mut self) -> Result<Option<Rect>, DelegateError> {
        if self.feature_type.geometry.is_none() {
            return Ok(None);
        }
        let tails = if self.feature_type.keeps_tails() { tail::extents(&self.feature_type) } else { String::new() };
        let sql = format!(
            "SELECT ST_XMin(e), ST_YMin(e), ST_XMax(e), ST_YMax(e) FROM \
             (SELECT ST_Extent(g)::box3d e FROM (SELECT {GEOMETRY} AS g FROM {}{tails}) y) x",
            self.table
        );
        let rows = self.transaction.rows(sql).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        if text_at(row, 0)?.is_none() {
            return Ok(None);
        }
        let [min_x, min_y, max_x, max_y] =
            [parsed_at(row, 0)?, parsed_at(row, 1)?, parsed_at(row, 2)?, parsed_at(row, 3)?];
        Ok(Some(Rect { min_x, min_y, max_x, max_y }))
    }
}

fn select(t: &FeatureType, table: &str, scan: &Scan) -> String {
    let mut writer = SqlWriter::new(Dialect::Postgres, t, format!("SELECT {} FROM {table} WHERE ", select_list(t)));
    writer.filter(&scan.filter);
    let sort = scan.order.as_deref().unwrap_or_default();
    if let Some(cursor) = &scan.after {
        writer.sql.push_str(" AND ");
        writer.after(cursor, sort);
    }
    if scan.order.is_some() {
        writer.sql.push_str(" ORDER BY ");
        writer.order_by(sort);
    }
    writer.sql
}

/// The rows of a query by `COPY`; the first ones have come, so that a query that fails does so here.
async fn copied(
    transaction: Arc<Transaction>,
    feature_type: Arc<FeatureType>,
    query: String,
) -> Result<Rows, DelegateError> {
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::spawn(async move {
        if let Err(e) = transaction.copy(&query, &sender).await {
            // Perhaps nobody listens any more.
            let _ = sender.send(Err(e)).await;
        }
    });
    let mut reader = CopyReader::new(feature_type);
    let mut rows = ReceiverStream::new(receiver).map(move |piece| Ok(reader.rows(piece?)?));
    let first = rows.next().await.transpose()?;
    Ok(futures::stream::iter(first.map(Ok)).chain(rows).boxed())
}

/// The next rows of a cursor.
struct Fetch {
    transaction: Arc<Transaction>,
    feature_type: Arc<FeatureType>,
    cursor: String,
    /// What is to be run first.
    before: String,
    count: u64,
}

struct Batch {
    rows: Vec<Row>,
    /// `None`: these were the last.
    next: Option<Fetch>,
}

impl Fetch {
    async fn run(self) -> Result<Batch, DelegateError> {
        let sql = format!("{}FETCH FORWARD {} FROM {}", self.before, self.count, self.cursor);
        let mut bytes = 0;
        let read = |row: PgRow| {
            let mut columns = 0..row.len();
            read(&self.feature_type, || {
                let column = column_at(&row, columns.next().unwrap_or(row.len()))?;
                bytes += column.map_or(0, <[u8]>::len) as u64;
                Ok(column)
            })
        };
        let rows = self.transaction.with_rows(sql, read).await?;
        let got = rows.len() as u64;
        let next = (got == self.count).then(|| {
            let fitting = BATCH_BYTES * got / bytes.max(1);
            Fetch { before: String::new(), count: fitting.clamp(16, MOST_ROWS), ..self }
        });
        Ok(Batch { rows, next })
    }
}

/// The first batch, then the others, fetched ahead while the caller works. They begin only when the second is asked for: a page
/// seldom needs it.
fn stream(first: Batch) -> Rows {
    let rows = futures::stream::once(std::future::ready(Ok(first.rows)));
    match first.next {
        None => rows.boxed(),
        Some(fetch) => rows.chain(futures::stream::once(async { fetched_ahead(fetch) }).flatten()).boxed(),
    }
}

fn fetched_ahead(fetch: Fetch) -> ReceiverStream<Result<Vec<Row>, DelegateError>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut next = Some(fetch);
        while let Some(fetch) = next {
            let rows = match fetch.run().await {
                Ok(batch) => {
                    next = batch.next;
                    Ok(batch.rows)
                }
                Err(e) => {
                    next = None;
                    Err(e)
                }
            };
            // Nobody listens any more.
            if sender.send(rows).await.is_err() {
                break;
            }
        }
    });
    ReceiverStream::new(receiver)
}
