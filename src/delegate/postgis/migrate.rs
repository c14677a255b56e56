//! Brings the schema `alluvium` up to date: every file of `migrations/` once, in order, by one instance at a time.

use super::connection::{Connection, parsed_at};
use crate::delegate::DelegateError;
use crate::delegate::literal::text;

/// Only ever added to: what was applied somewhere must stay as it was.
const MIGRATIONS: [(&str, &str); 6] = [
    ("0001_bookkeeping", include_str!("../../../migrations/0001_bookkeeping.sql")),
    ("0002_tables_of_others", include_str!("../../../migrations/0002_tables_of_others.sql")),
    ("0003_event_times", include_str!("../../../migrations/0003_event_times.sql")),
    ("0004_dead_letters", include_str!("../../../migrations/0004_dead_letters.sql")),
    ("0005_stored_queries", include_str!("../../../migrations/0005_stored_queries.sql")),
    ("0006_tails", include_str!("../../../migrations/0006_tails.sql")),
];

/// The key of the advisory lock: 'alluvium' in ASCII.
const LOCK: i64 = i64::from_be_bytes(*b"alluvium");

/// Runs what has not been run. `Mismatch` when the database was migrated by a newer program, or by an altered one.
pub async fn migrate(connection: &mut Connection) -> Result<(), DelegateError> {
    // Of the transaction: gone with it, however it ends.
    connection.run(format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK})")).await?;
    connection.run("CREATE EXTENSION IF NOT EXISTS postgis".into()).await.map_err(|e| match e {
        sqlx::Error::Database(why) => DelegateError::Unusable(format!(
            "the database has no extension postgis, and this user cannot add it: {}",
            why.message()
        )),
        other => other.into(),
    })?;
    connection
        .run(
            "CREATE SCHEMA IF NOT EXISTS alluvium; CREATE TABLE IF NOT EXISTS alluvium.migrations \
             (name text PRIMARY KEY, checksum bigint NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
                .into(),
        )
        .await?;
    let applied = connection.rows("SELECT name, checksum FROM alluvium.migrations ORDER BY name".into()).await?;
    let applied: Vec<(String, u32)> =
        applied.iter().map(|row| Ok((parsed_at(row, 0)?, parsed_at(row, 1)?))).collect::<Result<_, sqlx::Error>>()?;
    if let Some((unknown, _)) = applied.iter().find(|(name, _)| !MIGRATIONS.iter().any(|(known, _)| known == name)) {
        return Err(DelegateError::Mismatch(format!("migration '{unknown}' was run by a newer version of Alluvium")));
    }
    for (name, sql) in MIGRATIONS {
        let checksum = crc32c::crc32c(sql.as_bytes());
        match applied.iter().find(|(done, _)| done == name) {
            Some((_, was)) if *was == checksum => {}
            Some(_) => {
                return Err(DelegateError::Mismatch(format!("migration '{name}' is not the one that was run here")));
            }
            None => {
                let name = text(name);
                let note = format!("INSERT INTO alluvium.migrations (name, checksum) VALUES ({name}, {checksum})");
                connection.run(format!("{sql};{note}")).await?;
            }
        }
    }
    connection.run("COMMIT".into()).await?;
    Ok(())
}
