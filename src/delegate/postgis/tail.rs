//! Tails: what tracks have got since their line was written, in `alluvium.tail`, so that a long line is not written for a few
//! fixes. The row has the track's version and properties always.
//!
//! Invariant: whoever writes a tail, or takes one away, holds the row of the partition's watermark; so line and tail are one
//! state together. Fixes of a later version than the row's are of another row of that id, which another tool has taken away.

use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Row as _};

use super::PostGisSettings;
use super::catalogue::{relation, table};
use super::connection::{Connection, blames_a_row, text_at};
use super::row::{Array, column_at, read, select_list};
use crate::delegate::literal::{literal, text};
use crate::delegate::sql::{Bind, VERSION, quoted};
use crate::delegate::{DelegateError, PersistBatch};
use crate::model::feature_type::GEOMETRY;
use crate::model::{FeatureId, FeatureType, Growth, Offset, PartitionId, PropertyType};

/// The column with the fixes that the line has not.
pub const TAIL: &str = "alluvium_tail";

/// Lines that are in memory at once.
const FOLDED_AT_ONCE: usize = 16;

/// A type's table with the tails.
pub fn relation_with(table: &str, t: &FeatureType) -> String {
    format!(
        "(SELECT t.*, (SELECT ST_Collect(k.fixes ORDER BY k.version) FROM alluvium.tail k \
                       WHERE k.feature_type = {} AND k.id = t.id AND k.version <= t.{VERSION}) AS {TAIL} FROM {table} t) t",
        text(&t.name)
    )
}

/// What an extent is of besides the lines, as a further part of a union.
pub fn extents(t: &FeatureType) -> String {
    format!(" UNION ALL SELECT fixes FROM alluvium.tail WHERE feature_type = {}", text(&t.name))
}

/// Takes the tails away of rows that are written whole, or go, by a statement whose `u` has ids and versions.
pub fn superseded(table: &str, t: &FeatureType) -> String {
    if !t.keeps_tails() {
        return String::new();
    }
    format!(
        ", untailed AS (DELETE FROM alluvium.tail k USING u WHERE k.feature_type = {} AND k.id = u.id \
                        AND NOT EXISTS (SELECT FROM {table} t WHERE t.id = u.id AND t.{VERSION} > u.version))",
        text(&t.name)
    )
}

/// Writes what is new of tracks; false when one of them does not fit.
pub async fn grow(
    connection: &mut Connection,
    table: &str,
    t: &FeatureType,
    batch: &PersistBatch,
) -> Result<bool, sqlx::Error> {
    let growths = &batch.growths;
    let misfit = |g: &Growth| t.properties.iter().enumerate().any(|(slot, p)| !g.value(slot).is_of(p.kind));
    if growths.is_empty() {
        return Ok(true);
    }
    if growths.iter().any(misfit) {
        return Ok(false);
    }
    match connection.run_prepared(grow_sql(table, t, batch.partition), grow_arguments(t, growths)?).await {
        Ok(written) => Ok(written == growths.len() as u64),
        Err(e) if blames_a_row(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Parameters: ids, versions, what they build on, fixes, then each property, as arrays.
fn grow_sql(table: &str, t: &FeatureType, partition: PartitionId) -> String {
    let mut arrays = vec!["$1::text[]".to_owned(), "$2::int8[]".into(), "$3::int8[]".into(), "$4::bytea[]".into()];
    let mut aliases = vec!["id".to_owned(), "version".into(), "builds_on".into(), "fixes".into()];
    let mut set = vec![format!("{VERSION} = u.version")];
    for (slot, p) in t.properties.iter().enumerate() {
        arrays.push(format!("${}::{}", arrays.len() + 1, Array::type_name(p.kind)));
        aliases.push(format!("p{slot}"));
        set.push(format!("{} = u.p{slot}", quoted(&p.name)));
    }
    format!(
        "WITH u AS MATERIALIZED (SELECT * FROM unnest({arrays}) AS u({aliases})), \
              grown AS (UPDATE {table} t SET {set} FROM u \
                        WHERE t.id = u.id AND t.{VERSION} <> 0 \
                        AND greatest(t.{VERSION}, 0) BETWEEN u.builds_on AND u.version RETURNING t.id), \
              mended AS (DELETE FROM alluvium.refused r USING u \
                         WHERE r.feature_type = {name} AND r.id = u.id AND r.version <= u.version), \
              older AS (UPDATE alluvium.tail k SET newest = false FROM u \
                        WHERE k.feature_type = {name} AND k.id = u.id AND k.newest AND k.version < u.version) \
         INSERT INTO alluvium.tail AS k (feature_type, id, partition, version, fixes, newest) \
         SELECT {name}, u.id, {partition}, u.version, ST_GeomFromWKB(u.fixes, {epsg}), true FROM u JOIN grown ON grown.id = u.id \
         ON CONFLICT (feature_type, id, version) DO UPDATE SET version = excluded.version",
        arrays = arrays.join(", "),
        aliases = aliases.join(", "),
        set = set.join(", "),
        name = text(&t.name),
        epsg = t.geometry.map_or(0, |g| g.epsg),
    )
}

fn grow_arguments(t: &FeatureType, growths: &[Growth]) -> Result<PgArguments, sqlx::Error> {
    let (mut ids, mut fixes) = (Array::new(PropertyType::String), Array::new(PropertyType::Bytes));
    let (mut versions, mut builds_on) = (Array::new(PropertyType::Int64), Array::new(PropertyType::Int64));
    for growth in growths {
        ids.push(Some(growth.id.as_bytes()));
        versions.push(Some(&(growth.version as i64).to_be_bytes()));
        builds_on.push(Some(&(growth.builds_on as i64).to_be_bytes()));
        fixes.push(Some(growth.fixes.wkb()));
    }
    let mut columns = vec![ids, versions, builds_on, fixes];
    for (slot, p) in t.properties.iter().enumerate() {
        let mut column = Array::new(p.kind);
        growths.iter().for_each(|g| column.push_value(p.kind, g.value(slot)));
        columns.push(column);
    }
    let mut arguments = PgArguments::default();
    columns.into_iter().try_for_each(|column| arguments.add(column)).map_err(sqlx::Error::Encode)?;
    Ok(arguments)
}

/// See [`crate::delegate::Delegate::fold`].
pub async fn fold(
    connection: &mut Connection,
    settings: &PostGisSettings,
    t: &FeatureType,
    partition: PartitionId,
    before: Offset,
) -> Result<usize, DelegateError> {
    let grown = select_grown(t, &format!("partition = {partition} AND version < {before}"));
    if connection.rows(grown.clone()).await?.is_empty() {
        return Ok(0);
    }
    let lock = format!(
        "BEGIN; SELECT FROM alluvium.watermark WHERE feature_type = {} AND partition = {partition} AND incarnation = {} \
         FOR UPDATE",
        text(&t.name),
        text(&t.incarnation)
    );
    let held = connection.rows(lock).await?;
    let folded = if held.is_empty() { 0 } else { fold_some(connection, settings, t, grown).await? };
    connection.run("COMMIT".into()).await?;
    Ok(folded)
}

/// Folds all of a type, in a transaction that is open.
pub async fn fold_all(
    connection: &mut Connection,
    settings: &PostGisSettings,
    t: &FeatureType,
) -> Result<(), DelegateError> {
    connection.run(format!("SELECT FROM alluvium.watermark WHERE feature_type = {} FOR UPDATE", text(&t.name))).await?;
    while fold_some(connection, settings, t, select_grown(t, "true")).await? > 0 {}
    Ok(())
}

fn select_grown(t: &FeatureType, which: &str) -> String {
    let name = text(&t.name);
    format!("SELECT id FROM alluvium.tail WHERE feature_type = {name} AND newest AND {which} LIMIT {FOLDED_AT_ONCE}")
}

/// Puts the tracks together that a query names.
async fn fold_some(
    connection: &mut Connection,
    settings: &PostGisSettings,
    t: &FeatureType,
    grown: String,
) -> Result<usize, DelegateError> {
    let rows = connection.rows(grown).await?;
    let ids: Vec<FeatureId> =
        rows.iter().map(|row| Ok(text_at(row, 0)?.unwrap_or_default().into())).collect::<Result<_, sqlx::Error>>()?;
    if ids.is_empty() {
        return Ok(0);
    }
    // Whatever their properties are, they stay.
    let line = FeatureType { properties: Vec::new(), ..t.clone() };
    let these = literal(&Bind::Ids(ids.clone()));
    let select = format!("SELECT {} FROM {} WHERE id = ANY({these})", select_list(&line), relation(settings, t));
    let cursor = format!("DECLARE folded BINARY NO SCROLL CURSOR FOR {select}; FETCH ALL FROM folded; CLOSE folded");
    let (mut keys, mut lines) = (Array::new(PropertyType::String), Array::new(PropertyType::Bytes));
    for row in connection.rows(cursor).await? {
        let mut columns = 0..row.len();
        let whole = read(&line, || column_at(&row, columns.next().unwrap_or(row.len())))?;
        keys.push(Some(whole.feature.id.as_bytes()));
        lines.push(whole.feature.geometry.as_ref().map(|g| g.wkb()));
    }
    let mut arguments = PgArguments::default();
    [keys, lines].into_iter().try_for_each(|column| arguments.add(column)).map_err(sqlx::Error::Encode)?;
    let update = format!(
        "UPDATE {} t SET {GEOMETRY} = ST_GeomFromWKB(u.geom, {}) FROM unnest($1::text[], $2::bytea[]) AS u(id, geom) \
         WHERE t.id = u.id",
        table(settings, &t.name),
        t.geometry.map_or(0, |g| g.epsg)
    );
    connection.run_prepared(update, arguments).await?;
    connection
        .run(format!("DELETE FROM alluvium.tail WHERE feature_type = {} AND id = ANY({these})", text(&t.name)))
        .await?;
    Ok(ids.len())
}
