//! Connections: taken from the pool, given back only when they are as they were, and every failure by its kind.
//!
//! Invariant: a connection goes back to the pool by [`Connection::give_back`] alone. One that is dropped before, after an
//! error or in the middle of an answer, is closed: so the pool never holds one with a transaction or an answer left in it.

use std::future::Future;
use std::time::Duration;

use futures::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::{AssertSqlSafe, Either, PgPool, Row, ValueRef};
use tokio::sync::mpsc;

use crate::delegate::DelegateError;

/// Where [`Connection::copy_out`] sends to.
pub type Pieces = mpsc::Sender<Result<Vec<u8>, DelegateError>>;

pub struct Connection {
    /// `None` only while it is dropped.
    pooled: Option<PoolConnection<Postgres>>,
    /// No statement is waited for longer; the server's own limit is a little shorter.
    limit: Duration,
}

impl Connection {
    /// Must not be cancelled: see [`uncancelled`].
    pub async fn take(pool: &PgPool, limit: Duration) -> Result<Connection, sqlx::Error> {
        Ok(Connection { pooled: Some(pool.acquire().await?), limit })
    }

    /// For what may take longer than statements do.
    pub fn allow(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// For a connection outside of any transaction.
    pub fn give_back(mut self) {
        drop(self.pooled.take());
    }

    /// Runs statements, separated by `;`, and hands each row to `each`. Values are in the text format, but for those of
    /// binary cursors.
    pub async fn each_row(
        &mut self,
        sql: String,
        mut each: impl FnMut(PgRow) -> Result<(), sqlx::Error>,
    ) -> Result<(), sqlx::Error> {
        let Some(pooled) = &mut self.pooled else { return Err(sqlx::Error::PoolClosed) };
        let run = async {
            let mut rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch(&mut **pooled);
            while let Some(row) = rows.try_next().await? {
                each(row)?;
            }
            Ok(())
        };
        within(self.limit, run).await
    }

    pub async fn rows(&mut self, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut rows = Vec::new();
        self.each_row(sql, |row| {
            rows.push(row);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Runs statements, separated by `;`; how many rows each of them affected.
    pub async fn run(&mut self, sql: String) -> Result<Vec<u64>, sqlx::Error> {
        self.run_for_rows(sql).await.map(|(affected, _)| affected)
    }

    /// The same, with the rows that they gave.
    pub async fn run_for_rows(&mut self, sql: String) -> Result<(Vec<u64>, Vec<PgRow>), sqlx::Error> {
        let Some(pooled) = &mut self.pooled else { return Err(sqlx::Error::PoolClosed) };
        let run = async {
            let (mut affected, mut rows) = (Vec::new(), Vec::new());
            let mut results = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(&mut **pooled);
            while let Some(result) = results.try_next().await? {
                match result {
                    Either::Left(done) => affected.push(done.rows_affected()),
                    Either::Right(row) => rows.push(row),
                }
            }
            Ok((affected, rows))
        };
        within(self.limit, run).await
    }

    /// Runs a query by `COPY` in the binary format and sends what comes, in pieces that may end anywhere. False when nobody
    /// took them any more: then the connection is not to be given back.
    pub async fn copy_out(&mut self, query: &str, pieces: &Pieces) -> Result<bool, sqlx::Error> {
        const PIECE_BYTES: usize = 64 << 10;
        let Some(pooled) = &mut self.pooled else { return Err(sqlx::Error::PoolClosed) };
        let statement = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
        let mut messages = within(self.limit, pooled.copy_out_raw(&statement)).await?;
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES + (PIECE_BYTES >> 3));
            let gather = async {
                while piece.len() < PIECE_BYTES {
                    let Some(message) = messages.try_next().await? else { return Ok(true) };
                    piece.extend_from_slice(&message);
                }
                Ok(false)
            };
            let ended = tokio::select! {
                ended = within(self.limit, gather) => ended?,
                () = pieces.closed() => return Ok(false),
            };
            if pieces.send(Ok(piece)).await.is_err() {
                return Ok(false);
            }
            if ended {
                return Ok(true);
            }
        }
    }

    /// Runs a statement with parameters, which the connection keeps prepared; how many rows it affected.
    pub async fn run_prepared(&mut self, sql: String, arguments: PgArguments) -> Result<u64, sqlx::Error> {
        let Some(pooled) = &mut self.pooled else { return Err(sqlx::Error::PoolClosed) };
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        within(self.limit, query.execute(&mut **pooled)).await.map(|done| done.rows_affected())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            drop(pooled.detach());
        }
    }
}

async fn within<T>(limit: Duration, statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(limit, statement).await {
        Ok(result) => result,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {} s", limit.as_secs()),
        ))),
    }
}

/// Runs work on a connection to its end in a task of its own, whatever becomes of the caller: in sqlx 0.9 a connection whose
/// user was cancelled at the wrong moment goes back to the pool with a transaction open.
pub async fn uncancelled<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, DelegateError>
where
    T: Send + 'static,
    E: Into<DelegateError> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(e) => Err(DelegateError::Unavailable(e.to_string())),
    }
}

impl From<sqlx::Error> for DelegateError {
    fn from(e: sqlx::Error) -> DelegateError {
        match &e {
            sqlx::Error::Database(d) => {
                let message = d.message().to_owned();
                match d.code().as_deref() {
                    // undefined_table, undefined_column, datatype_mismatch, undefined_object, undefined_function
                    // invalid_schema_name, feature_not_supported (a prepared statement whose table was altered, a column that a
                    // view shows), duplicate_column
                    Some("42P01" | "42703" | "42804" | "42704" | "42883" | "3F000" | "0A000" | "42701") => {
                        DelegateError::Mismatch(message)
                    }
                    // invalid_catalog_name, insufficient_privilege
                    Some("3D000" | "42501") => DelegateError::Unusable(message),
                    // invalid_authorization_specification, invalid_password
                    Some(code) if code.starts_with("28") => DelegateError::Unusable(message),
                    _ => DelegateError::Unavailable(message),
                }
            }
            sqlx::Error::Configuration(_) => DelegateError::Unusable(e.to_string()),
            sqlx::Error::Decode(_) | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
                DelegateError::Mismatch(e.to_string())
            }
            _ => DelegateError::Unavailable(e.to_string()),
        }
    }
}

/// True of what a row can be to blame for: its values, or what the table's constraints and triggers say of them. The classes
/// are data exceptions, constraint violations, views' check options, limits (an index entry that is too long), and what a
/// function or PostGIS raises.
pub fn blames_a_row(e: &sqlx::Error) -> bool {
    let code = e.as_database_error().and_then(|d| d.code());
    code.is_some_and(|c| ["22", "23", "44", "54", "P0"].iter().any(|class| c.starts_with(class)) || c == "XX000")
}

/// True of a lock that was not to be had within `lock_timeout`.
pub fn is_lock_timeout(e: &sqlx::Error) -> bool {
    e.as_database_error().and_then(|d| d.code()).is_some_and(|c| c == "55P03")
}

/// A value in the text format; `None`: null.
pub fn text_at(row: &PgRow, column: usize) -> Result<Option<&str>, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() { Ok(None) } else { value.as_str().map(Some).map_err(sqlx::Error::Decode) }
}

/// A value in the text format, read as `T`; null is an error.
pub fn parsed_at<T: std::str::FromStr>(row: &PgRow, column: usize) -> Result<T, sqlx::Error> {
    let text = text_at(row, column)?.unwrap_or_default();
    text.parse().map_err(|_| sqlx::Error::Decode(format!("column {column}: '{text}'").into()))
}
