//! The feature types, their tables and their watermarks.

use std::collections::BTreeMap;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::PostGisSettings;
use super::connection::{Connection, parsed_at, text_at};
use super::existing;
use super::row::column_definitions;
use super::tail;
use crate::delegate::literal::text;
use crate::delegate::sql::{VERSION, quoted};
use crate::delegate::{DelegateError, same_columns};
use crate::model::feature_type::GEOMETRY;
use crate::model::{FeatureType, Watermark};

/// Changes of the catalogue follow one another.
pub const ONE_AT_A_TIME: &str = "BEGIN; UPDATE alluvium.revision SET revision = revision + 1";

/// What stands after `FROM` in a query over a type.
pub fn relation(settings: &PostGisSettings, t: &FeatureType) -> String {
    match &t.table {
        Some(existing) => existing::relation(t, existing),
        None if t.keeps_tails() => tail::relation_with(&table(settings, &t.name), t),
        None => table(settings, &t.name),
    }
}

/// The table that a type of this name has made.
pub fn table(settings: &PostGisSettings, name: &str) -> String {
    format!("{}.{}", quoted(&settings.schema), quoted(name))
}

pub async fn read(connection: &mut Connection) -> Result<(u64, Vec<FeatureType>), DelegateError> {
    // One statement sees one moment; without types there is still the revision.
    let sql = "SELECT r.revision, c.definition FROM alluvium.revision r LEFT JOIN alluvium.catalogue c ON true \
               ORDER BY c.name";
    let rows = connection.rows(sql.into()).await?;
    let revision = rows.first().map(|row| parsed_at(row, 0)).transpose()?.unwrap_or(0);
    let definitions: Vec<Option<&str>> = rows.iter().map(|row| text_at(row, 1)).collect::<Result<_, _>>()?;
    let types = definitions.into_iter().flatten().map(parse_definition).collect::<Result<_, _>>()?;
    Ok((revision, types))
}

pub fn parse_definition(json: &str) -> Result<FeatureType, DelegateError> {
    serde_json::from_str(json).map_err(|e| DelegateError::Mismatch(format!("a feature type cannot be read: {e}")))
}

pub async fn create(
    connection: &mut Connection,
    settings: &PostGisSettings,
    t: &FeatureType,
) -> Result<(), DelegateError> {
    let (name, table) = (text(&t.name), table(settings, &t.name));
    connection.run(ONE_AT_A_TIME.into()).await?;
    let sql = format!(
        "SELECT EXISTS (SELECT FROM alluvium.catalogue WHERE name = {name}), \
                to_regclass({}) IS NOT NULL, \
                (SELECT definition FROM alluvium.detached WHERE name = {name})",
        text(&table)
    );
    let rows = connection.rows(sql).await?;
    let Some(row) = rows.first() else { return Err(DelegateError::Unavailable("an empty answer".into())) };
    let (entered, there) = (text_at(row, 0)? == Some("t"), text_at(row, 1)? == Some("t"));
    let detached = text_at(row, 2)?.map(parse_definition).transpose()?;
    if let Some(existing) = t.table.as_ref().filter(|_| !entered) {
        existing::check(connection, t, existing).await?;
    }
    let make_table = match detached {
        _ if entered => return Err(DelegateError::Exists(t.name.clone())),
        _ if t.table.is_some() => "SELECT".to_owned(),
        // No row has a version then, without a rewrite of the table.
        Some(old) if there && same_columns(&old, t) => {
            format!("ALTER TABLE {table} DROP COLUMN {VERSION}, ADD COLUMN {VERSION} bigint NOT NULL DEFAULT 0")
        }
        _ if there => return Err(DelegateError::Exists(t.name.clone())),
        _ => format!("CREATE TABLE {table} ({})", column_definitions(t)),
    };
    let definition = serde_json::to_string(t).map_err(|e| DelegateError::Mismatch(e.to_string()))?;
    // A table that a type of this name left stays ours, whatever another one of that name stands on meanwhile.
    let forget = match t.table {
        Some(_) => String::new(),
        None => format!("DELETE FROM alluvium.detached WHERE name = {name}; "),
    };
    let sql = format!(
        "{make_table}; {indexes}{forget}\
         INSERT INTO alluvium.catalogue (name, definition) VALUES ({name}, {definition}); \
         INSERT INTO alluvium.watermark (feature_type, partition, incarnation) \
             SELECT {name}, p, {incarnation} FROM generate_series(0, {last}) p; \
         COMMIT",
        indexes = if t.table.is_some() { String::new() } else { create_indexes(&table, t) },
        definition = text(&definition),
        incarnation = text(&t.incarnation),
        last = t.partitions.saturating_sub(1),
    );
    connection.run(sql).await?;
    Ok(())
}

/// Their names come from the table's, so that those of a table that is taken over are known again.
pub fn create_indexes(table: &str, t: &FeatureType) -> String {
    let mut sql = String::new();
    if t.geometry.is_some() {
        let name = index_name(t, "geom");
        sql += &format!("CREATE INDEX IF NOT EXISTS {name} ON {table} USING gist ({GEOMETRY}); ");
    }
    for (slot, p) in t.properties.iter().enumerate().filter(|(_, p)| p.index) {
        let column = match p.kind {
            // The type has no order of its own.
            crate::model::PropertyType::Json => format!("({}::text) COLLATE \"C\"", quoted(&p.name)),
            _ => quoted(&p.name),
        };
        sql += &format!("CREATE INDEX IF NOT EXISTS {} ON {table} ({column}); ", index_name(t, slot));
    }
    sql
}

/// `of`: the property's id.
pub fn index_name(t: &FeatureType, of: impl std::fmt::Display) -> String {
    quoted(&format!("alluvium_{:08x}_{of}", crc32c::crc32c(t.name.as_bytes())))
}

pub async fn remove(
    connection: &mut Connection,
    settings: &PostGisSettings,
    name: &str,
    purge: bool,
) -> Result<(), DelegateError> {
    let (table, name) = (table(settings, name), text(name));
    let sql = format!(
        "{ONE_AT_A_TIME}; SELECT EXISTS (SELECT FROM alluvium.catalogue WHERE name = {name}), \
                                 EXISTS (SELECT FROM alluvium.detached WHERE name = {name}), \
                                 (SELECT definition FROM alluvium.catalogue WHERE name = {name})"
    );
    let rows = connection.rows(sql).await?;
    let is = |column| rows.first().map_or(Ok(false), |row| text_at(row, column).map(|v| v == Some("t")));
    let (entered, detached) = (is(0)?, is(1)?);
    let t = rows.first().map(|row| text_at(row, 2)).transpose()?.flatten().map(parse_definition).transpose()?;
    let of_others = t.as_ref().is_some_and(|t| t.table.is_some());
    let nothing_to_do = !(entered || purge && detached);
    if nothing_to_do {
        connection.run("ROLLBACK".into()).await?;
        return Ok(());
    }
    if let Some(t) = t.filter(|t| t.keeps_tails() && !purge) {
        // The table is the whole of what stays.
        tail::fold_all(connection, settings, &t).await?;
    }
    let keep = match purge {
        // It was never ours.
        _ if of_others => String::new(),
        // Never a table that is not ours: there is a bookkeeping of it, as entered or as detached.
        true => format!("DROP TABLE IF EXISTS {table}; DELETE FROM alluvium.detached WHERE name = {name}; "),
        false => format!("INSERT INTO alluvium.detached SELECT * FROM alluvium.catalogue WHERE name = {name}; "),
    };
    let sql = format!(
        "{keep}DELETE FROM alluvium.catalogue WHERE name = {name}; \
         DELETE FROM alluvium.watermark WHERE feature_type = {name}; \
         DELETE FROM alluvium.deleted WHERE feature_type = {name}; \
         DELETE FROM alluvium.deleted_time WHERE feature_type = {name}; \
         DELETE FROM alluvium.version WHERE feature_type = {name}; \
         DELETE FROM alluvium.tail WHERE feature_type = {name}; \
         DELETE FROM alluvium.refused WHERE feature_type = {name}; \
         DELETE FROM alluvium.dead_letters WHERE feature_type = {name}; \
         COMMIT"
    );
    connection.run(sql).await?;
    Ok(())
}

/// See [`crate::delegate::Delegate::stored_queries`].
pub async fn stored_queries(connection: &mut Connection) -> Result<BTreeMap<String, String>, DelegateError> {
    let rows = connection.rows("SELECT id, definition FROM alluvium.stored_queries".into()).await?;
    let of = |row: &PgRow, column| text_at(row, column).map(|text| text.unwrap_or_default().to_owned());
    Ok(rows.iter().map(|row| Ok((of(row, 0)?, of(row, 1)?))).collect::<Result<_, sqlx::Error>>()?)
}

/// See [`crate::delegate::Delegate::keep_stored_queries`].
pub async fn keep_stored_queries(
    connection: &mut Connection,
    queries: &[(String, String)],
) -> Result<Option<String>, DelegateError> {
    let ids: Vec<String> = queries.iter().map(|(id, _)| text(id)).collect();
    let taken = format!("SELECT id FROM alluvium.stored_queries WHERE id IN ({}) LIMIT 1", ids.join(", "));
    let rows = connection.rows(format!("{ONE_AT_A_TIME}; {taken}")).await?;
    if let Some(row) = rows.first() {
        let taken = text_at(row, 0)?.unwrap_or_default().to_owned();
        connection.run("ROLLBACK".into()).await?;
        return Ok(Some(taken));
    }
    let values: Vec<String> =
        queries.iter().map(|(id, text_of_it)| format!("({}, {})", text(id), text(text_of_it))).collect();
    connection.run(format!("INSERT INTO alluvium.stored_queries VALUES {}; COMMIT", values.join(", "))).await?;
    Ok(None)
}

/// See [`crate::delegate::Delegate::drop_stored_query`].
pub async fn drop_stored_query(connection: &mut Connection, id: &str) -> Result<bool, DelegateError> {
    let sql = format!("{ONE_AT_A_TIME}; DELETE FROM alluvium.stored_queries WHERE id = {} RETURNING id", text(id));
    let dropped = !connection.rows(sql).await?.is_empty();
    connection.run("COMMIT".into()).await?;
    Ok(dropped)
}

/// The query whose rows [`read_watermarks`] takes.
pub fn select_watermarks(t: &FeatureType) -> String {
    format!(
        "SELECT incarnation, durable_through, evict_through, as_of FROM alluvium.watermark \
         WHERE feature_type = {} ORDER BY partition",
        text(&t.name)
    )
}

pub const WATERMARK_COLUMNS: usize = 4;

/// A query of one column whose row [`check_version`] takes.
pub fn select_version(t: &FeatureType) -> String {
    let version = "COALESCE((definition ->> 'schema_version')::bigint, 0)";
    format!("SELECT {version} FROM alluvium.catalogue WHERE name = {}", text(&t.name))
}

/// For what must not be done under another version of the schema. Rows of more columns are passed over.
pub fn check_version(t: &FeatureType, rows: &[PgRow]) -> Result<(), DelegateError> {
    match rows.iter().find(|row| row.len() == 1).map(|row| parsed_at(row, 0)).transpose()? {
        Some(have) if have != t.schema_version => Err(DelegateError::wrong_schema(t, have)),
        _ => Ok(()),
    }
}

pub fn read_watermarks(t: &FeatureType, rows: &[PgRow]) -> Result<Vec<Watermark>, DelegateError> {
    let mut watermarks = Vec::with_capacity(rows.len());
    for row in rows {
        let incarnation = text_at(row, 0)?.unwrap_or_default();
        if incarnation != t.incarnation {
            return Err(DelegateError::wrong_incarnation(t, incarnation));
        }
        watermarks.push(Watermark {
            durable_through: parsed_at(row, 1)?,
            evict_through: parsed_at(row, 2)?,
            as_of: parsed_at(row, 3)?,
        });
    }
    if watermarks.is_empty() { Err(DelegateError::NotFound(t.name.clone())) } else { Ok(watermarks) }
}
