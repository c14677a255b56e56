//! Tables that were there before: read and written as if they were ours, without touching anything but rows and mapped columns.
//!
//! To readers such a table is a subquery with the columns of a table of ours, which PostgreSQL takes apart again, so that the
//! indexes on geometry and key serve. The versions are in `alluvium.version`.

use super::connection::{Connection, parsed_at, text_at};
use super::persist::STORED_VERSION;
use super::row::Array;
use crate::delegate::DelegateError;
use crate::delegate::literal::text;
use crate::delegate::sql::{KEY, VERSION, quoted};
use crate::model::feature_type::GEOMETRY;
use crate::model::table::{ExistingTable, KeyType};
use crate::model::{FeatureId, FeatureType, PropertyType};

/// The table's name with its schema, quoted.
pub fn name(table: &ExistingTable) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}

/// The key as it is compared: of any integer type as the largest, of any text type as text.
fn key_cast(key_type: KeyType) -> &'static str {
    match key_type {
        KeyType::Text => "text",
        KeyType::Integer => "int8",
        KeyType::Uuid => "uuid",
    }
}

/// What a property's column is read as.
fn read_as(kind: PropertyType) -> &'static str {
    match kind {
        PropertyType::String => "::text COLLATE \"C\"",
        PropertyType::Int32 => "::int4",
        PropertyType::Int64 => "::int8",
        PropertyType::Number => "::float8",
        PropertyType::Boolean => "::bool",
        PropertyType::Date => "::date",
        PropertyType::DateTime => "::timestamptz",
        PropertyType::Uuid => "::uuid",
        PropertyType::Json => "::json",
        PropertyType::Bytes => "::bytea",
    }
}

/// Id, key, geometry and properties, under the names that a table of ours has.
fn columns(t: &FeatureType, table: &ExistingTable) -> Vec<String> {
    let key = quoted(&table.key);
    let mut columns = vec![format!("x.{key}::text COLLATE \"C\" AS id"), format!("x.{key} AS {KEY}")];
    columns.extend(t.geometry.map(|_| format!("x.{} AS {GEOMETRY}", quoted(&table.geometry))));
    columns.extend(
        t.properties
            .iter()
            .map(|p| format!("(x.{}{}) AS {}", quoted(table.column(&p.name)), read_as(p.kind), quoted(&p.name))),
    );
    columns
}

/// What stands after `FROM`.
pub fn relation(t: &FeatureType, table: &ExistingTable) -> String {
    format!(
        "(SELECT {}, COALESCE(v.version, 0) AS {VERSION} FROM {} x \
          LEFT JOIN alluvium.version v ON v.feature_type = {} AND v.id = x.{}::text COLLATE \"C\") t",
        columns(t, table).join(", "),
        name(table),
        text(&t.name),
        quoted(&table.key)
    )
}

/// What both ways of writing begin with: the batch, less what is known in a newer version.
fn fresh(t: &FeatureType, arrays: &str, aliases: &str) -> String {
    let name = text(&t.name);
    format!(
        "WITH u AS MATERIALIZED (SELECT * FROM unnest({arrays}) AS u({aliases})), \
              fresh AS MATERIALIZED (SELECT u.* FROM u WHERE NOT EXISTS (SELECT FROM alluvium.version v \
                                     WHERE v.feature_type = {name} AND v.id = u.id AND v.version > u.version) \
                                     AND NOT EXISTS (SELECT FROM alluvium.deleted d \
                                     WHERE d.feature_type = {name} AND d.id = u.id AND d.version > u.version)), \
              mended AS (DELETE FROM alluvium.refused r USING u \
                         WHERE r.feature_type = {name} AND r.id = u.id AND r.version <= u.version)"
    )
}

/// Parameters: ids, versions, geometries, then each property, as arrays. What is there is updated, so that columns without a
/// default which are not ours do not matter to it; the rest is inserted.
pub fn upsert_sql(t: &FeatureType, table: &ExistingTable) -> String {
    let (target, key, cast) = (name(table), quoted(&table.key), key_cast(table.key_type));
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    let (mut arrays, mut aliases) =
        (vec!["$1::text[]".to_owned(), "$2::int8[]".into()], vec!["id".to_owned(), "version".into()]);
    if let Some(g) = &t.geometry {
        columns.push(quoted(&table.geometry));
        values.push(format!("ST_GeomFromWKB(u.geom, {})", g.epsg));
        arrays.push("$3::bytea[]".into());
        aliases.push("geom".into());
    }
    for (slot, p) in t.properties.iter().enumerate() {
        columns.push(quoted(table.column(&p.name)));
        values.push(format!("u.p{slot}"));
        arrays.push(format!("${}::{}", arrays.len() + 1, Array::type_name(p.kind)));
        aliases.push(format!("p{slot}"));
    }
    let set: Vec<String> = columns.iter().zip(&values).map(|(c, v)| format!("{c} = {v}")).collect();
    let excluded: Vec<String> = columns.iter().map(|c| format!("{c} = excluded.{c}")).collect();
    // A type of nothing but keys has nothing to update.
    let updated = match set.is_empty() {
        true => String::new(),
        false => {
            format!("updated AS (UPDATE {target} x SET {} FROM fresh u WHERE x.{key} = u.id::{cast}), ", set.join(", "))
        }
    };
    // Another tool may have inserted the same key a moment ago.
    let on_conflict = match set.is_empty() {
        true => "DO NOTHING".to_owned(),
        false => format!("DO UPDATE SET {}", excluded.join(", ")),
    };
    columns.insert(0, key.clone());
    values.insert(0, format!("u.id::{cast}"));
    let name = text(&t.name);
    format!(
        "{fresh}, reborn AS (DELETE FROM alluvium.deleted d USING fresh u WHERE d.feature_type = {name} AND d.id = u.id), \
                  {updated}\
                  inserted AS (INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM fresh u \
                               WHERE NOT EXISTS (SELECT FROM {target} x WHERE x.{key} = u.id::{cast}) \
                               ON CONFLICT ({key}) {on_conflict}) \
         INSERT INTO alluvium.version (feature_type, id, version) SELECT {name}, u.id, {STORED_VERSION} FROM fresh u \
         ON CONFLICT (feature_type, id) DO UPDATE SET version = excluded.version",
        fresh = fresh(t, &arrays.join(", "), &aliases.join(", ")),
        columns = columns.join(", "),
        values = values.join(", "),
    )
}

/// Parameters: ids and versions, as arrays.
pub fn delete_sql(t: &FeatureType, table: &ExistingTable, partition: u32) -> String {
    let (target, key, cast, name) = (self::name(table), quoted(&table.key), key_cast(table.key_type), text(&t.name));
    format!(
        "{fresh}, dead AS (DELETE FROM {target} x USING fresh u WHERE x.{key} = u.id::{cast}), \
                  without AS (DELETE FROM alluvium.version v USING fresh u WHERE v.feature_type = {name} AND v.id = u.id) \
         INSERT INTO alluvium.deleted AS d (feature_type, id, partition, version) \
         SELECT {name}, id, {partition}, version FROM fresh \
         ON CONFLICT (feature_type, id) DO UPDATE SET partition = excluded.partition, version = excluded.version",
        fresh = fresh(t, "$1::text[], $2::int8[]", "id, version"),
    )
}

/// Sees to it that the table is there and is as the declaration has it.
pub async fn check(connection: &mut Connection, t: &FeatureType, table: &ExistingTable) -> Result<(), DelegateError> {
    let mismatch = |what: String| Err(DelegateError::Mismatch(format!("table {}: {what}", name(table))));
    let columns = columns(t, table).join(", ");
    connection.run(format!("SELECT {columns} FROM {} x LIMIT 0", name(table))).await?;
    if let Some(g) = &t.geometry {
        let column = quoted(&table.geometry);
        let sql = format!("SELECT ST_SRID({column}) FROM {} WHERE {column} IS NOT NULL LIMIT 1", name(table));
        let rows = connection.rows(sql).await?;
        let srid: Option<u32> = rows.first().map(|row| parsed_at(row, 0)).transpose()?;
        if let Some(srid) = srid.filter(|srid| *srid != g.epsg) {
            return mismatch(format!("the geometries are of SRID {srid}, the type's are of EPSG:{}", g.epsg));
        }
    }
    if table.read_only {
        return Ok(());
    }
    let unique = format!(
        "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
         WHERE i.indrelid = {}::regclass AND i.indisunique AND i.indimmediate AND i.indpred IS NULL \
         AND i.indnkeyatts = 1 AND a.attname = {})",
        text(&name(table)),
        text(&table.key)
    );
    let rows = connection.rows(unique).await?;
    let is_unique = rows.first().map(|row| text_at(row, 0)).transpose()?.flatten() == Some("t");
    if is_unique {
        Ok(())
    } else {
        mismatch(format!("nothing keeps the key '{}' unique: declare it read_only", table.key))
    }
}

/// New ids out of the key's own sequence.
pub async fn reserve_ids(
    connection: &mut Connection,
    table: &ExistingTable,
    count: usize,
) -> Result<Vec<FeatureId>, DelegateError> {
    let find = format!("SELECT pg_get_serial_sequence({}, {})", text(&name(table)), text(&table.key));
    let rows = connection.rows(find).await?;
    let Some(sequence) = rows.first().map(|row| text_at(row, 0)).transpose()?.flatten() else {
        let what = format!("the key '{}' of {} has no sequence: give each new feature an id", table.key, name(table));
        return Err(DelegateError::Mismatch(what));
    };
    let next = format!("SELECT nextval({}::regclass) FROM generate_series(1, {count})", text(sequence));
    let rows = connection.rows(next).await?;
    rows.iter().map(|row| Ok(text_at(row, 0)?.unwrap_or_default().into())).collect()
}
