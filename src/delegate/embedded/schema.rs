//! The file's tables: what every GeoPackage has, the catalogue of feature types, and the making and dropping of their tables.
//!
//! Invariant: every attached type of the catalogue has its table, its watermarks, its lines in `gpkg_contents` and
//! `gpkg_geometry_columns`, and its R-tree.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::tail;
use crate::delegate::sql::{VERSION, quoted};
use crate::delegate::{DelegateError, same_columns};
pub use crate::format::geopackage::rtree;
use crate::format::geopackage::value::column_type;
use crate::format::geopackage::{self, APPLICATION_ID};
use crate::model::{FeatureType, PartitionId, Property, Watermark};

/// Of the bookkeeping tables. Files of format 1 have no tails.
const FORMAT: i64 = 2;

/// Makes an empty file a GeoPackage, or sees to it that the file is one that this program understands.
pub fn prepare(connection: &mut Connection) -> Result<(), DelegateError> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    let application: i64 = connection.query_row("PRAGMA application_id", [], |r| r.get(0))?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(DelegateError::Mismatch("the file is an SQLite database but not a GeoPackage".into()));
    }
    if tables == 0 {
        // Before there is a write-ahead log: other programs look for these in the file itself.
        geopackage::declare(connection)?;
    }
    let journal: String = connection.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0))?;
    if journal != "wal" {
        return Err(DelegateError::Mismatch(format!(
            "the file's journal mode is {journal} and cannot be changed to wal"
        )));
    }
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    let tx = begin(connection)?;
    geopackage::prepare(&tx)?;
    tx.execute_batch(include_str!("bookkeeping.sql"))?;
    tx.execute("UPDATE gpkgext_alluvium_state SET format = 2 WHERE format = 1", [])?;
    let format: i64 = tx.query_row("SELECT format FROM gpkgext_alluvium_state", [], |r| r.get(0))?;
    if format != FORMAT {
        return Err(DelegateError::Mismatch(format!(
            "the file's bookkeeping is of format {format}, this program understands {FORMAT}"
        )));
    }
    for feature_type in catalogue(&tx)?.1 {
        check_table(&tx, &feature_type)?;
    }
    tx.commit()?;
    Ok(())
}

/// A transaction that writes.
pub fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
}

fn check_table(connection: &Connection, feature_type: &FeatureType) -> Result<(), DelegateError> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let have: Vec<String> = statement.query_map([&feature_type.name], |r| r.get(0))?.collect::<Result<_, _>>()?;
    let properties = feature_type.properties.iter().map(|p| p.name.as_str());
    let missing = ["fid", "id", VERSION].into_iter().chain(feature_type.geometry.map(|_| "geom")).chain(properties);
    match missing.into_iter().find(|name| !have.iter().any(|h| h == name)) {
        None => Ok(()),
        Some(name) => {
            Err(DelegateError::Mismatch(format!("table '{}' of the file has no column '{name}'", feature_type.name)))
        }
    }
}

/// The catalogue's revision and the attached types.
pub fn catalogue(connection: &Connection) -> Result<(u64, Vec<FeatureType>), DelegateError> {
    let revision: i64 = connection.query_row("SELECT revision FROM gpkgext_alluvium_state", [], |r| r.get(0))?;
    let mut statement =
        connection.prepare("SELECT feature_type FROM gpkgext_alluvium_catalogue WHERE attached ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut types = Vec::new();
    while let Some(row) = rows.next()? {
        types.push(from_json(row.get_ref(0)?.as_str().unwrap_or_default())?);
    }
    Ok((revision as u64, types))
}

fn from_json(text: &str) -> Result<FeatureType, DelegateError> {
    serde_json::from_str(text).map_err(|e| DelegateError::Mismatch(format!("a feature type in the catalogue: {e}")))
}

fn to_json(feature_type: &FeatureType) -> Result<String, DelegateError> {
    serde_json::to_string(feature_type).map_err(|e| DelegateError::Mismatch(e.to_string()))
}

/// See [`crate::delegate::Delegate::stored_queries`].
pub fn stored_queries(connection: &Connection) -> Result<BTreeMap<String, String>, DelegateError> {
    let mut statement = connection.prepare("SELECT id, definition FROM gpkgext_alluvium_stored_queries")?;
    let queries = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(queries.collect::<Result<_, _>>()?)
}

/// See [`crate::delegate::Delegate::keep_stored_queries`].
pub fn keep_stored_queries(
    connection: &mut Connection,
    queries: &[(String, String)],
) -> Result<Option<String>, DelegateError> {
    let tx = begin(connection)?;
    for (id, definition) in queries {
        let sql = "INSERT OR IGNORE INTO gpkgext_alluvium_stored_queries VALUES (?1, ?2)";
        if tx.execute(sql, [id, definition])? == 0 {
            return Ok(Some(id.clone()));
        }
    }
    changed(&tx)?;
    tx.commit()?;
    Ok(None)
}

/// See [`crate::delegate::Delegate::drop_stored_query`].
pub fn drop_stored_query(connection: &mut Connection, id: &str) -> Result<bool, DelegateError> {
    let tx = begin(connection)?;
    let dropped = tx.execute("DELETE FROM gpkgext_alluvium_stored_queries WHERE id = ?1", [id])? > 0;
    changed(&tx)?;
    tx.commit()?;
    Ok(dropped)
}

/// The watermark of each partition, of the type as the caller knows it.
pub fn watermarks(connection: &Connection, feature_type: &FeatureType) -> Result<Vec<Watermark>, DelegateError> {
    let mut statement = connection.prepare_cached(
        "SELECT incarnation, durable_through, evict_through, as_of FROM gpkgext_alluvium_watermarks
         WHERE feature_type = ?1 ORDER BY partition",
    )?;
    let mut rows = statement.query([&feature_type.name])?;
    let mut watermarks = Vec::new();
    while let Some(row) = rows.next()? {
        let incarnation: String = row.get(0)?;
        if incarnation != feature_type.incarnation {
            return Err(DelegateError::wrong_incarnation(feature_type, &incarnation));
        }
        let offset = |column| row.get::<_, i64>(column).map(|n| n as u64);
        watermarks.push(Watermark { durable_through: offset(1)?, evict_through: offset(2)?, as_of: offset(3)? });
    }
    if watermarks.is_empty() {
        return Err(DelegateError::NotFound(feature_type.name.clone()));
    }
    Ok(watermarks)
}

pub fn set_watermark(
    tx: &Transaction<'_>,
    feature_type: &FeatureType,
    partition: PartitionId,
    to: &Watermark,
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO gpkgext_alluvium_watermarks VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(
        params![
            feature_type.name,
            partition,
            feature_type.incarnation,
            to.durable_through as i64,
            to.evict_through as i64,
            to.as_of as i64
        ],
    )?;
    Ok(())
}

/// Enters a type, with a new table or with the one that a type of that name and those columns has left.
pub fn create(connection: &mut Connection, feature_type: &FeatureType) -> Result<(), DelegateError> {
    if feature_type.table.is_some() {
        return Err(DelegateError::no_tables_of_others(feature_type));
    }
    let tx = begin(connection)?;
    let name = &feature_type.name;
    let exists = || DelegateError::Exists(name.clone());
    let entry: Option<(bool, String)> = tx
        .query_row("SELECT attached, feature_type FROM gpkgext_alluvium_catalogue WHERE name = ?1", [name], |r| {
            Ok((r.get(0)?, r.get(1)?))
        })
        .optional()?;
    let table_is_there = has_table(&tx, name)?;
    match entry {
        Some((true, _)) => return Err(exists()),
        Some((false, left)) if table_is_there => {
            if !same_columns(&from_json(&left)?, feature_type) {
                return Err(exists());
            }
            check_table(&tx, feature_type)?;
            tx.execute(&format!("UPDATE {} SET {VERSION} = 0", quoted(name)), [])?;
        }
        _ if table_is_there || ["sqlite_", "gpkg", "rtree_"].iter().any(|p| name.starts_with(p)) => {
            return Err(exists());
        }
        _ => create_table(&tx, feature_type)?,
    }
    create_indexes(&tx, feature_type)?;
    let json = to_json(feature_type)?;
    tx.execute("INSERT OR REPLACE INTO gpkgext_alluvium_catalogue VALUES (?1, ?2, TRUE)", [name, &json])?;
    for partition in 0..feature_type.partitions {
        set_watermark(&tx, feature_type, partition, &Watermark::default())?;
    }
    changed(&tx)?;
    Ok(tx.commit()?)
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE lower(name) = ?1)", [name], |r| r.get(0))
}

fn changed(tx: &Transaction<'_>) -> rusqlite::Result<usize> {
    tx.execute("UPDATE gpkgext_alluvium_state SET revision = revision + 1", [])
}

fn create_table(tx: &Transaction<'_>, feature_type: &FeatureType) -> rusqlite::Result<()> {
    let name = &feature_type.name;
    let mut columns = vec!["fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL".into(), "id TEXT NOT NULL UNIQUE".into()];
    if let Some(g) = &feature_type.geometry {
        columns.push(format!("geom {}{}", g.kind.name().to_uppercase(), not_null(g.nullable)));
    }
    columns.extend(feature_type.properties.iter().map(column_definition));
    columns.push(format!("{VERSION} INTEGER NOT NULL DEFAULT 0"));
    tx.execute_batch(&format!("CREATE TABLE {} ({})", quoted(name), columns.join(", ")))?;

    geopackage::enter(tx, name, feature_type.geometry.as_ref(), description(feature_type))
}

fn not_null(nullable: bool) -> &'static str {
    if nullable { "" } else { " NOT NULL" }
}

fn column_definition(property: &Property) -> String {
    format!("{} {}{}", quoted(&property.name), column_type(property.kind), not_null(property.nullable))
}

/// What other programs show of the table.
fn description(feature_type: &FeatureType) -> &str {
    if feature_type.description.is_empty() { feature_type.title() } else { &feature_type.description }
}

/// An index on each property that asks for one; the id makes it serve ordered pages too.
fn create_indexes(tx: &Transaction<'_>, feature_type: &FeatureType) -> rusqlite::Result<()> {
    feature_type.properties.iter().try_for_each(|p| {
        let index = quoted(&format!("{}.{}", feature_type.name, p.name));
        tx.execute_batch(&if p.index {
            format!("CREATE INDEX IF NOT EXISTS {index} ON {} ({}, id)", quoted(&feature_type.name), quoted(&p.name))
        } else {
            format!("DROP INDEX IF EXISTS {index}")
        })
    })
}

/// See [`crate::delegate::Delegate::alter`].
pub fn alter(connection: &mut Connection, from: &FeatureType, to: &FeatureType) -> Result<bool, DelegateError> {
    let tx = begin(connection)?;
    let name = &from.name;
    let known: Option<String> = tx
        .query_row("SELECT feature_type FROM gpkgext_alluvium_catalogue WHERE name = ?1 AND attached", [name], |r| {
            r.get(0)
        })
        .optional()?;
    if known.map(|json| from_json(&json)).transpose()?.as_ref() != Some(from) {
        return Ok(false);
    }
    for added in &to.properties[from.properties.len()..] {
        tx.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {}", quoted(name), column_definition(added)))?;
    }
    create_indexes(&tx, to)?;
    tx.execute("UPDATE gpkg_contents SET description = ?2 WHERE table_name = ?1", params![name, description(to)])?;
    tx.execute("UPDATE gpkgext_alluvium_catalogue SET feature_type = ?2 WHERE name = ?1", [name, &to_json(to)?])?;
    changed(&tx)?;
    redefine_columns(&tx, from, to)?;
    tx.commit()?;
    Ok(true)
}

/// Gives columns their wider types and lets them be null: in the text of the table's definition, which SQLite recommends where
/// nothing of what is stored changes (https://sqlite.org/lang_altertable.html, 7). Integers may stand in columns of either type.
fn redefine_columns(tx: &Transaction<'_>, from: &FeatureType, to: &FeatureType) -> Result<(), DelegateError> {
    let name = &from.name;
    let find = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let before: String = tx.query_row(find, [name], |r| r.get(0))?;
    let mut sql = before.clone();
    for (old, new) in from.properties.iter().zip(&to.properties) {
        let (old, new) = (column_definition(old), column_definition(new));
        if old == new {
            continue;
        }
        let Some((head, tail)) = sql.split_once(&old) else {
            let what =
                format!("table '{name}' of the file was made otherwise than by this server: it has no column {old}");
            return Err(DelegateError::Mismatch(what));
        };
        sql = format!("{head}{new}{tail}");
    }
    if sql == before {
        return Ok(());
    }
    let version: i64 = tx.query_row("PRAGMA schema_version", [], |r| r.get(0))?;
    tx.execute_batch("PRAGMA writable_schema = ON")?;
    let written = tx
        .execute("UPDATE sqlite_schema SET sql = ?2 WHERE type = 'table' AND name = ?1", [name, &sql])
        // Has every connection read the definitions again.
        .and_then(|_| tx.execute_batch(&format!("PRAGMA schema_version = {}", version + 1)));
    tx.execute_batch("PRAGMA writable_schema = RESET")?;
    Ok(written?)
}

/// What must not be done under another version of the schema than the catalogue's asks this first.
pub fn check_version(connection: &Connection, feature_type: &FeatureType) -> Result<(), DelegateError> {
    let have: Option<u32> = connection
        .prepare_cached(
            "SELECT ifnull(feature_type ->> 'schema_version', 0) FROM gpkgext_alluvium_catalogue
             WHERE name = ?1 AND attached",
        )?
        .query_row([&feature_type.name], |r| r.get(0))
        .optional()?;
    match have {
        Some(have) if have != feature_type.schema_version => Err(DelegateError::wrong_schema(feature_type, have)),
        _ => Ok(()),
    }
}

/// Takes a type out of the catalogue, with `purge` also the table, if we have made it.
pub fn remove(connection: &mut Connection, name: &str, purge: bool) -> Result<(), DelegateError> {
    let tx = begin(connection)?;
    if let Some(t) = catalogue(&tx)?.1.iter().find(|t| t.name == name && !purge) {
        // The table is the whole of what stays.
        while tail::fold_some(&tx, t, None)? > 0 {}
    }
    let detached =
        tx.execute("UPDATE gpkgext_alluvium_catalogue SET attached = FALSE WHERE name = ?1 AND attached", [name])?;
    if detached > 0 {
        for table in ["watermarks", "deleted", "deleted_time", "refused", "dead_letters", "tails"] {
            tx.execute(&format!("DELETE FROM gpkgext_alluvium_{table} WHERE feature_type = ?1"), [name])?;
        }
        changed(&tx)?;
    }
    if purge && tx.execute("DELETE FROM gpkgext_alluvium_catalogue WHERE name = ?1", [name])? > 0 {
        tx.execute_batch(&format!(
            "DROP TABLE IF EXISTS {}; DROP TABLE IF EXISTS {};",
            quoted(&rtree(name)),
            quoted(name)
        ))?;
        for table in ["gpkg_extensions", "gpkg_geometry_columns", "gpkg_contents"] {
            tx.execute(&format!("DELETE FROM {table} WHERE table_name = ?1"), [name])?;
        }
    }
    Ok(tx.commit()?)
}
