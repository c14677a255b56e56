//! Changes of a type's schema: the table's columns and the catalogue in one transaction.
//!
//! Locks are waited for shortly only, again and again: behind an `ALTER TABLE` that waits for a long reader every other reader
//! and sweeper would wait too. A sweep and a change of the same type never overlap, since both hold the rows of its watermarks.

use std::time::Duration;

use super::PostGisSettings;
use super::catalogue::{ONE_AT_A_TIME, create_indexes, index_name, parse_definition, table};
use super::connection::{Connection, is_lock_timeout, text_at};
use super::existing;
use super::row::column_type;
use crate::delegate::DelegateError;
use crate::delegate::literal::text;
use crate::delegate::sql::quoted;
use crate::model::FeatureType;

/// How often, and how long each time, the locks are waited for.
const ATTEMPTS: usize = 5;
/// Longer than PostgreSQL's `deadlock_timeout`, after which it has an autovacuum give up that is in the way.
const LOCK_TIMEOUT: Duration = Duration::from_millis(1200);
/// Between two attempts those have their turn who came meanwhile.
const PAUSE: Duration = Duration::from_millis(500);
/// PostgreSQL writes the whole table anew when a column gets another type.
const REWRITE: Duration = Duration::from_secs(6 * 3600);

/// See [`crate::delegate::Delegate::alter`].
pub async fn alter(
    connection: &mut Connection,
    settings: &PostGisSettings,
    from: &FeatureType,
    to: &FeatureType,
) -> Result<bool, DelegateError> {
    connection.allow(REWRITE);
    for _ in 0..ATTEMPTS {
        match attempt(connection, settings, from, to).await {
            Err(Failure::Locked) => {
                connection.run("ROLLBACK".into()).await?;
                tokio::time::sleep(PAUSE).await;
            }
            Err(Failure::Other(e)) => return Err(e),
            Ok(done) => return Ok(done),
        }
    }
    let what =
        format!("table '{}' is being read, or written, for too long to be altered: nothing was changed", from.name);
    Err(DelegateError::Unavailable(what))
}

enum Failure {
    Locked,
    Other(DelegateError),
}

impl From<sqlx::Error> for Failure {
    fn from(e: sqlx::Error) -> Failure {
        if is_lock_timeout(&e) { Failure::Locked } else { Failure::Other(e.into()) }
    }
}

impl From<DelegateError> for Failure {
    fn from(e: DelegateError) -> Failure {
        Failure::Other(e)
    }
}

async fn attempt(
    connection: &mut Connection,
    settings: &PostGisSettings,
    from: &FeatureType,
    to: &FeatureType,
) -> Result<bool, Failure> {
    let name = text(&from.name);
    let sql = format!(
        "{ONE_AT_A_TIME}; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = 0; \
         SELECT definition FROM alluvium.catalogue WHERE name = {name}",
        LOCK_TIMEOUT.as_millis()
    );
    let rows = connection.rows(sql).await?;
    let known = rows.first().map(|row| text_at(row, 0)).transpose()?.flatten().map(parse_definition).transpose()?;
    if known.as_ref() != Some(from) {
        connection.run("ROLLBACK".into()).await?;
        return Ok(false);
    }
    // First the watermarks: a sweep that holds one goes on to the table.
    let lock = format!("SELECT FROM alluvium.watermark WHERE feature_type = {name} FOR UPDATE");
    connection.run(lock).await?;
    if let Some(others) = &to.table {
        existing::check(connection, to, others).await?;
    }
    let definition = serde_json::to_string(to).map_err(|e| DelegateError::Mismatch(e.to_string()))?;
    let sql = format!(
        "{}UPDATE alluvium.catalogue SET definition = {} WHERE name = {name}; COMMIT",
        alter_table(settings, from, to),
        text(&definition)
    );
    connection.run(sql).await?;
    Ok(true)
}

/// The statements, each with its `;`.
fn alter_table(settings: &PostGisSettings, from: &FeatureType, to: &FeatureType) -> String {
    if to.table.is_some() {
        return String::new();
    }
    let table = table(settings, &from.name);
    let (mut actions, mut sql) = (Vec::new(), String::new());
    for (slot, (old, new)) in from.properties.iter().zip(&to.properties).enumerate() {
        let column = quoted(&new.name);
        if old.kind != new.kind {
            actions.push(format!("ALTER COLUMN {column} TYPE {}", column_type(new.kind)));
        }
        if old.nullable != new.nullable {
            actions.push(format!("ALTER COLUMN {column} DROP NOT NULL"));
        }
        if old.index && !new.index {
            sql += &format!("DROP INDEX IF EXISTS {}.{}; ", quoted(&settings.schema), index_name(to, slot));
        }
    }
    let added = &to.properties[from.properties.len()..];
    actions.extend(added.iter().map(|p| format!("ADD COLUMN {} {}", quoted(&p.name), column_type(p.kind))));
    if !actions.is_empty() {
        sql += &format!("ALTER TABLE {table} {}; ", actions.join(", "));
    }
    let is_new = |slot: usize| from.properties.get(slot).is_none_or(|p| !p.index);
    // Even where it is there already, making an index waits for others.
    if to.properties.iter().enumerate().any(|(slot, p)| p.index && is_new(slot)) {
        sql += &create_indexes(&table, to);
    }
    sql
}
