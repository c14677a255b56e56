//! One batch of a sweeper, in one transaction.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, Transaction, params};

use super::{row, schema, tail};
use crate::delegate::dead_letter::{DeadLetter, KEPT};
use crate::delegate::sql::{VERSION, quoted, stored_version};
use crate::delegate::{DelegateError, PersistBatch, PersistEntry, Persisting, refused};
use crate::format::geopackage::blob;
use crate::model::{Feature, FeatureType, PartitionId, Rect};

/// See [`crate::delegate::Delegate::persist`].
pub fn persist(
    connection: &mut Connection,
    feature_type: &FeatureType,
    batch: &PersistBatch,
) -> Result<Persisting, DelegateError> {
    let tx = schema::begin(connection)?;
    let watermarks = schema::watermarks(&tx, feature_type)?;
    let watermark = watermarks
        .get(batch.partition as usize)
        .ok_or_else(|| DelegateError::no_partition(feature_type, batch.partition))?;
    if *watermark != batch.expected {
        return Ok(Persisting::Conflict(*watermark));
    }
    schema::check_version(&tx, feature_type)?;
    schema::set_watermark(&tx, feature_type, batch.partition, &batch.next)?;

    let mut writer = RowWriter::new(&tx, feature_type, batch.partition)?;
    let mut refused = Vec::new();
    for entry in &batch.entries {
        if let Err(Refusal(why)) = writer.write(entry)? {
            writer.keep_refused(entry, &why)?;
            refused.push((entry.id.clone(), why));
        }
    }
    let mut grown = writer.grown;
    drop(writer);
    if !tail::grow(&tx, feature_type, batch, &mut grown)? {
        return Ok(Persisting::Unfit);
    }
    describe_contents(&tx, feature_type, grown)?;
    tx.prepare_cached(
        "DELETE FROM gpkgext_alluvium_deleted WHERE feature_type = ?1 AND partition = ?2 AND version < ?3",
    )?
    .execute(params![feature_type.name, batch.partition, batch.forget_deleted_before as i64])?;
    if feature_type.event_time.is_some() {
        remember_times(&tx, feature_type, batch)?;
    }
    tx.commit()?;
    Ok(Persisting::Committed { refused })
}

fn remember_times(tx: &Transaction<'_>, feature_type: &FeatureType, batch: &PersistBatch) -> rusqlite::Result<()> {
    let name = &feature_type.name;
    tx.prepare_cached("DELETE FROM gpkgext_alluvium_deleted_time WHERE feature_type = ?1 AND until < ?2")?
        .execute(params![name, batch.now_ms])?;
    let mut forget =
        tx.prepare_cached("DELETE FROM gpkgext_alluvium_deleted_time WHERE feature_type = ?1 AND id = ?2")?;
    let mut remember = tx.prepare_cached("INSERT INTO gpkgext_alluvium_deleted_time VALUES (?1, ?2, ?3, ?4)")?;
    for (id, event_time) in batch.deleted_times() {
        forget.execute(params![name, id])?;
        if event_time.is_some() {
            remember.execute(params![name, id, event_time, batch.remember_until(feature_type)])?;
        }
    }
    Ok(())
}

/// See [`crate::delegate::Delegate::keep_dead_letters`].
pub fn keep_dead_letters(connection: &mut Connection, name: &str, letters: &[DeadLetter]) -> Result<(), DelegateError> {
    let tx = schema::begin(connection)?;
    {
        let mut keep = tx.prepare_cached(
            "INSERT INTO gpkgext_alluvium_dead_letters VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        )?;
        for l in letters {
            keep.execute(params![name, l.partition, l.offset as i64, l.append_time_ms, l.to_json()?])?;
        }
        tx.prepare_cached(
            "DELETE FROM gpkgext_alluvium_dead_letters WHERE feature_type = ?1 AND append_time_ms <
             (SELECT append_time_ms FROM gpkgext_alluvium_dead_letters WHERE feature_type = ?1
              ORDER BY append_time_ms DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![name, KEPT as i64 - 1])?;
    }
    Ok(tx.commit()?)
}

/// Why the table does not take a row. The statement is undone, the transaction goes on.
pub struct Refusal(String);

/// The statements of one batch.
struct RowWriter<'a> {
    feature_type: &'a FeatureType,
    partition: PartitionId,
    upsert: CachedStatement<'a>,
    delete: CachedStatement<'a>,
    remember: CachedStatement<'a>,
    is_newer_deleted: CachedStatement<'a>,
    forget: CachedStatement<'a>,
    keep_refused: CachedStatement<'a>,
    mend_refused: CachedStatement<'a>,
    /// Of types that keep tails.
    untail: Option<CachedStatement<'a>>,
    /// False while there is nothing to look up, which spares most batches a query per row.
    some_deleted: bool,
    some_refused: bool,
    /// The envelope of what was written.
    grown: Option<Rect>,
}

impl<'a> RowWriter<'a> {
    fn new(
        tx: &'a Transaction<'_>,
        feature_type: &'a FeatureType,
        partition: PartitionId,
    ) -> rusqlite::Result<RowWriter<'a>> {
        let table = quoted(&feature_type.name);
        let some = |bookkeeping: &str| {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM gpkgext_alluvium_{bookkeeping} WHERE feature_type = ?1)");
            tx.query_row(&sql, [&feature_type.name], |r| r.get::<_, bool>(0))
        };
        Ok(RowWriter {
            feature_type,
            partition,
            upsert: tx.prepare_cached(&upsert(feature_type))?,
            delete: tx.prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1 AND {VERSION} <= ?2"))?,
            remember: tx.prepare_cached(&format!(
                "INSERT INTO gpkgext_alluvium_deleted (feature_type, id, partition, version)
                 SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE id = ?2)
                 ON CONFLICT DO UPDATE SET partition = excluded.partition, version = excluded.version
                 WHERE excluded.version > version"
            ))?,
            is_newer_deleted: tx.prepare_cached(
                "SELECT 1 FROM gpkgext_alluvium_deleted WHERE feature_type = ?1 AND id = ?2 AND version > ?3",
            )?,
            forget: tx.prepare_cached("DELETE FROM gpkgext_alluvium_deleted WHERE feature_type = ?1 AND id = ?2")?,
            keep_refused: tx.prepare_cached(
                "INSERT INTO gpkgext_alluvium_refused VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT DO UPDATE SET partition = excluded.partition, version = excluded.version,
                 reason = excluded.reason, geometry = excluded.geometry, properties = excluded.properties
                 WHERE excluded.version >= version",
            )?,
            mend_refused: tx.prepare_cached(
                "DELETE FROM gpkgext_alluvium_refused WHERE feature_type = ?1 AND id = ?2 AND version <= ?3",
            )?,
            untail: match feature_type.keeps_tails() {
                true => {
                    let sql = "DELETE FROM gpkgext_alluvium_tails WHERE feature_type = ?1 AND id = ?2";
                    Some(tx.prepare_cached(sql)?)
                }
                false => None,
            },
            some_deleted: some("deleted")?,
            some_refused: some("refused")?,
            grown: None,
        })
    }

    fn write(&mut self, entry: &PersistEntry) -> Result<Result<(), Refusal>, DelegateError> {
        let written = match &entry.feature {
            Some(feature) => self.upsert(feature, entry)?,
            None => self.delete(entry)?,
        };
        if written.is_ok() && self.some_refused {
            self.mend_refused.execute(params![self.feature_type.name, entry.id, entry.version as i64])?;
        }
        Ok(written)
    }

    fn upsert(&mut self, feature: &Feature, entry: &PersistEntry) -> Result<Result<(), Refusal>, DelegateError> {
        let name = &self.feature_type.name;
        if self.some_deleted && self.is_newer_deleted.exists(params![name, entry.id, entry.version as i64])? {
            return Ok(Ok(()));
        }
        if let Err(why) = bind_row(&mut self.upsert, self.feature_type, feature, entry)? {
            return Ok(Err(Refusal(why)));
        }
        match refusal(self.upsert.raw_execute())? {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(0) => return Ok(Ok(())),
            Ok(_) => {}
        }
        self.untail(entry)?;
        if self.some_deleted {
            self.forget.execute(params![name, entry.id])?;
        }
        let written = feature.geometry.as_ref().and_then(|g| g.bounds());
        self.grown = self.grown.into_iter().chain(written).reduce(|a, b| a.union(&b));
        Ok(Ok(()))
    }

    fn delete(&mut self, entry: &PersistEntry) -> Result<Result<(), Refusal>, DelegateError> {
        let version = entry.version as i64;
        match refusal(self.delete.execute(params![entry.id, version]))? {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(0) => {}
            Ok(_) => self.untail(entry)?,
        }
        self.remember.execute(params![self.feature_type.name, entry.id, self.partition, version])?;
        self.some_deleted = true;
        Ok(Ok(()))
    }

    /// What stood apart of a row goes with it.
    fn untail(&mut self, entry: &PersistEntry) -> rusqlite::Result<()> {
        if let Some(untail) = &mut self.untail {
            untail.execute(params![self.feature_type.name, entry.id])?;
        }
        Ok(())
    }

    fn keep_refused(&mut self, entry: &PersistEntry, why: &str) -> rusqlite::Result<()> {
        let feature = entry.feature.as_deref();
        self.keep_refused.execute(params![
            self.feature_type.name,
            entry.id,
            self.partition,
            entry.version as i64,
            why,
            feature.and_then(|f| f.geometry.as_ref()).map(|g| g.wkb()),
            feature.map(|f| refused::to_texts(self.feature_type, f)),
        ])?;
        self.some_refused = true;
        Ok(())
    }
}

fn upsert(feature_type: &FeatureType) -> String {
    let columns = row::columns(feature_type);
    let places: Vec<String> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
    let set: Vec<String> = columns.iter().skip(1).map(|c| format!("{c} = excluded.{c}")).collect();
    format!(
        "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {} WHERE max(excluded.{VERSION}, 0) >= {VERSION}",
        quoted(&feature_type.name),
        columns.join(", "),
        places.join(", "),
        set.join(", ")
    )
}

/// Binds the columns in the order of [`row::columns`]. The inner error says which value has no place in its column.
fn bind_row(
    statement: &mut CachedStatement<'_>,
    feature_type: &FeatureType,
    feature: &Feature,
    entry: &PersistEntry,
) -> rusqlite::Result<Result<(), String>> {
    statement.raw_bind_parameter(1, &*entry.id)?;
    statement.raw_bind_parameter(2, stored_version(entry.version))?;
    let mut place = 3;
    if let Some(column) = &feature_type.geometry {
        let blob = feature.geometry.as_ref().map(|g| blob::encode(g, column.epsg as i32));
        statement.raw_bind_parameter(place, blob)?;
        place += 1;
    }
    for (slot, property) in feature_type.properties.iter().enumerate() {
        match row::encode(property.kind, feature.value(slot)) {
            // Binding null is the most of the time on wide and sparse tables.
            Ok(ToSqlOutput::Borrowed(ValueRef::Null)) => statement.raw_bind_parameter(place, rusqlite::types::Null)?,
            Ok(value) => statement.raw_bind_parameter(place, value)?,
            Err(why) => return Ok(Err(format!("property '{}': {why}", property.name))),
        }
        place += 1;
    }
    Ok(Ok(()))
}

/// Tells a row that the table does not take from a store that does not work.
pub fn refusal(outcome: rusqlite::Result<usize>) -> Result<Result<usize, Refusal>, DelegateError> {
    match outcome {
        Ok(rows) => Ok(Ok(rows)),
        Err(e) => match e.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                Ok(Err(Refusal(e.to_string())))
            }
            _ => Err(e.into()),
        },
    }
}

/// Keeps the extent that other tools show: it grows with what is written, and never shrinks.
fn describe_contents(tx: &Transaction<'_>, feature_type: &FeatureType, grown: Option<Rect>) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE gpkg_contents SET last_change = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
         min_x = min(ifnull(min_x, ?2), ifnull(?2, min_x)), min_y = min(ifnull(min_y, ?3), ifnull(?3, min_y)),
         max_x = max(ifnull(max_x, ?4), ifnull(?4, max_x)), max_y = max(ifnull(max_y, ?5), ifnull(?5, max_y))
         WHERE table_name = ?1",
    )?
    .execute(params![
        feature_type.name,
        grown.map(|r| r.min_x),
        grown.map(|r| r.min_y),
        grown.map(|r| r.max_x),
        grown.map(|r| r.max_y)
    ])?;
    Ok(())
}
