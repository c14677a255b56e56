//! Persisting: one batch of one partition in one transaction, the watermark first.
//!
//! A batch that the table's own constraints refuse as a whole is tried again in parts, each behind a savepoint, until it is
//! known which rows are at fault. So a batch without fault, which nearly every one is, pays nothing for that.

use rustc_hash::FxHashMap;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, Row as _};

use super::PostGisSettings;
use super::catalogue::{WATERMARK_COLUMNS, check_version, read_watermarks, select_version, select_watermarks, table};
use super::connection::{Connection, blames_a_row, parsed_at, text_at};
use super::existing;
use super::row::{Array, keys};
use super::tail;
use crate::delegate::dead_letter::{DeadLetter, KEPT};
use crate::delegate::literal::{literal, text};
use crate::delegate::sql::{Bind, VERSION, quoted};
use crate::delegate::{DelegateError, PersistBatch, PersistEntry, Persisting, Refused, refused as kept};
use crate::model::feature_type::GEOMETRY;
use crate::model::{FeatureId, FeatureType, PropertyType, Watermark};
use crate::sabotage::{Safeguard, off};

/// What [`stored_version`](crate::delegate::sql::stored_version) makes of a version of the batch.
pub const STORED_VERSION: &str = "CASE u.version WHEN 0 THEN -1 ELSE u.version END";

/// What one statement takes at most.
const CHUNK_ROWS: usize = 5000;
const CHUNK_BYTES: usize = 8 << 20;

pub async fn persist(
    connection: &mut Connection,
    settings: &PostGisSettings,
    t: &FeatureType,
    mut batch: PersistBatch,
) -> Result<Persisting, DelegateError> {
    newest_of_each_id(&mut batch.entries);
    let misfits = take_misfits(t, &mut batch.entries);
    let writer = Writer { table: table(settings, &t.name), t, batch: &batch, misfits: &misfits };
    match writer.run(connection, Care::All).await {
        Err(Failure::Sql(e)) if blames_a_row(&e) => {
            connection.run("ROLLBACK".into()).await?;
            Ok(writer.run(connection, Care::Parts).await?)
        }
        result => Ok(result?),
    }
}

/// The watermark is as it was.
async fn unfit(connection: &mut Connection) -> Result<Persisting, Failure> {
    connection.run("ROLLBACK".into()).await?;
    Ok(Persisting::Unfit)
}

/// One statement cannot write a row twice.
fn newest_of_each_id(entries: &mut Vec<PersistEntry>) {
    let mut newest: FxHashMap<FeatureId, usize> = FxHashMap::default();
    let mut doubles = false;
    for (i, entry) in entries.iter().enumerate() {
        match newest.get_mut(&entry.id) {
            Some(other) => {
                doubles = true;
                if entries[*other].version <= entry.version {
                    *other = i;
                }
            }
            None => drop(newest.insert(entry.id.clone(), i)),
        }
    }
    if doubles {
        let mut i = 0;
        entries.retain(|entry| {
            i += 1;
            newest.get(&entry.id) == Some(&(i - 1))
        });
    }
}

/// Takes out what has a value of another type than its column, which the binary format would garble.
fn take_misfits(t: &FeatureType, entries: &mut Vec<PersistEntry>) -> Vec<(PersistEntry, String)> {
    let misfit = |entry: &PersistEntry| {
        if let Some(Err(e)) = t.table.as_ref().map(|table| table.key_type.check(&entry.id)) {
            return Some(e.what);
        }
        let feature = entry.feature.as_ref()?;
        let wrong = t.properties.iter().enumerate().find(|(slot, p)| !feature.value(*slot).is_of(p.kind));
        wrong.map(|(_, p)| format!("property '{}' is of type {}", p.name, p.kind.name()))
    };
    if entries.iter().all(|entry| misfit(entry).is_none()) {
        return Vec::new();
    }
    let (mut good, mut misfits) = (Vec::new(), Vec::new());
    for entry in entries.drain(..) {
        match misfit(&entry) {
            Some(reason) => misfits.push((entry, reason)),
            None => good.push(entry),
        }
    }
    *entries = good;
    misfits
}

/// See [`crate::delegate::Delegate::keep_dead_letters`].
pub async fn keep_dead_letters(
    connection: &mut Connection,
    t: &FeatureType,
    letters: &[DeadLetter],
) -> Result<(), DelegateError> {
    let name = text(&t.name);
    let row = |l: &DeadLetter| {
        let json = text(&l.to_json()?);
        Ok(format!("({name}, {}, {}, {}, {json})", l.partition, l.offset, l.append_time_ms))
    };
    let rows: Vec<String> = letters.iter().map(row).collect::<Result<_, DelegateError>>()?;
    if rows.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "BEGIN; INSERT INTO alluvium.dead_letters (feature_type, partition, place, append_time_ms, letter) \
         VALUES {} ON CONFLICT DO NOTHING; \
         DELETE FROM alluvium.dead_letters WHERE feature_type = {name} AND append_time_ms < \
             (SELECT append_time_ms FROM alluvium.dead_letters WHERE feature_type = {name} \
              ORDER BY append_time_ms DESC LIMIT 1 OFFSET {}); COMMIT",
        rows.join(", "),
        KEPT - 1
    );
    connection.run(sql).await?;
    Ok(())
}

/// See [`crate::delegate::Delegate::dead_letters`].
pub async fn dead_letters(connection: &mut Connection, t: &FeatureType) -> Result<Vec<DeadLetter>, DelegateError> {
    let sql = format!("SELECT letter FROM alluvium.dead_letters WHERE feature_type = {}", text(&t.name));
    let rows = connection.rows(sql).await?;
    rows.iter().map(|row| DeadLetter::from_json(text_at(row, 0)?.unwrap_or_default())).collect()
}

/// See [`crate::delegate::Delegate::refused`].
pub async fn refused(connection: &mut Connection, t: &FeatureType) -> Result<Vec<Refused>, DelegateError> {
    let sql = format!(
        "{}; {}; SELECT id, partition, version, reason, geom, properties FROM alluvium.refused WHERE feature_type = {}",
        select_watermarks(t),
        select_version(t),
        text(&t.name)
    );
    let rows = connection.rows(sql).await?;
    let (watermarks, refused): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.len() == WATERMARK_COLUMNS);
    read_watermarks(t, &watermarks)?;
    check_version(t, &refused)?;
    refused.iter().filter(|row| row.len() > 1).map(|row| read_refused(t, row)).collect()
}

fn read_refused(t: &FeatureType, row: &PgRow) -> Result<Refused, DelegateError> {
    let id: FeatureId = text_at(row, 0)?.unwrap_or_default().into();
    let wkb: Option<Vec<u8>> = row.try_get(4)?;
    let feature = kept::feature(t, &id, wkb.as_deref(), text_at(row, 5)?)?;
    let entry = PersistEntry { id, feature, version: parsed_at(row, 2)?, event_time: None };
    Ok(Refused { partition: parsed_at(row, 1)?, entry, reason: text_at(row, 3)?.unwrap_or_default().to_owned() })
}

#[derive(Clone, Copy, PartialEq)]
enum Care {
    /// The whole batch or an error.
    All,
    /// What can be written; the rest is refused.
    Parts,
}

enum Failure {
    Sql(sqlx::Error),
    Other(DelegateError),
}

impl From<sqlx::Error> for Failure {
    fn from(e: sqlx::Error) -> Failure {
        Failure::Sql(e)
    }
}

impl From<Failure> for DelegateError {
    fn from(failure: Failure) -> DelegateError {
        match failure {
            Failure::Sql(e) => e.into(),
            Failure::Other(e) => e,
        }
    }
}

type Refusals<'a> = Vec<(&'a PersistEntry, String)>;

struct Writer<'a> {
    table: String,
    t: &'a FeatureType,
    batch: &'a PersistBatch,
    misfits: &'a [(PersistEntry, String)],
}

impl<'a> Writer<'a> {
    async fn run(&self, connection: &mut Connection, care: Care) -> Result<Persisting, Failure> {
        let (moving, version) = (self.move_watermark(), select_version(self.t));
        // Behind the lock on the watermark no other version comes: a change of the schema takes it too.
        let (affected, rows) = connection.run_for_rows(format!("BEGIN; {moving}; {version}")).await?;
        if affected.get(1) != Some(&1) {
            return self.conflict(connection).await.map_err(Failure::Other);
        }
        if let Err(e) = check_version(self.t, &rows) {
            connection.run("ROLLBACK".into()).await?;
            return Err(Failure::Other(e));
        }
        if !tail::grow(connection, &self.table, self.t, self.batch).await? {
            return unfit(connection).await;
        }
        let mut refused: Refusals<'a> = self.misfits.iter().map(|(entry, reason)| (entry, reason.clone())).collect();
        match care {
            Care::All => {
                for chunk in chunks(&self.batch.entries) {
                    self.write(connection, chunk).await?;
                }
            }
            Care::Parts => {
                // A deferred constraint must speak up while it is known of whom.
                connection.run("SET CONSTRAINTS ALL IMMEDIATE".into()).await?;
                self.write_parts(connection, &mut refused).await?;
            }
        }
        let note = refused.iter().map(|(entry, reason)| self.note_refused(entry, reason)).collect::<String>();
        connection.run(format!("{note}{}{}COMMIT", self.forget(), self.remember_times())).await?;
        Ok(Persisting::Committed {
            refused: refused.into_iter().map(|(entry, reason)| (entry.id.clone(), reason)).collect(),
        })
    }

    fn move_watermark(&self) -> String {
        let PersistBatch { partition, expected, next, .. } = self.batch;
        let set = |w: &Watermark, joint: &str| {
            let Watermark { durable_through: d, evict_through: e, as_of: a } = w;
            format!("durable_through = {d}{joint}evict_through = {e}{joint}as_of = {a}")
        };
        let unmoved = if off(Safeguard::CompareAndSet) { "true".to_owned() } else { set(expected, " AND ") };
        format!(
            "UPDATE alluvium.watermark SET {} WHERE feature_type = {} AND partition = {partition} AND incarnation = {} AND {unmoved}",
            set(next, ", "),
            text(&self.t.name),
            text(&self.t.incarnation),
        )
    }

    async fn conflict(&self, connection: &mut Connection) -> Result<Persisting, DelegateError> {
        let rows = connection.rows(format!("ROLLBACK; {}", select_watermarks(self.t))).await?;
        let watermarks = read_watermarks(self.t, &rows)?;
        match watermarks.get(self.batch.partition as usize) {
            Some(current) => Ok(Persisting::Conflict(*current)),
            None => Err(DelegateError::no_partition(self.t, self.batch.partition)),
        }
    }

    fn forget(&self) -> String {
        match self.batch.forget_deleted_before {
            0 => String::new(),
            before => format!(
                "DELETE FROM alluvium.deleted WHERE feature_type = {} AND partition = {} AND version < {before}; ",
                text(&self.t.name),
                self.batch.partition
            ),
        }
    }

    fn remember_times(&self) -> String {
        if self.t.event_time.is_none() {
            return String::new();
        }
        let (name, until) = (text(&self.t.name), self.batch.remember_until(self.t));
        let ids: Vec<FeatureId> = self.batch.deleted_times().map(|(id, _)| id.clone()).collect();
        let times: Vec<String> = (self.batch.deleted_times())
            .filter_map(|(id, time)| Some(format!("({name}, {}, {}, {until})", text(id), time?)))
            .collect();
        let forget = format!(
            "DELETE FROM alluvium.deleted_time WHERE feature_type = {name} AND (until < {} OR id = ANY({})); ",
            self.batch.now_ms,
            literal(&Bind::Ids(ids))
        );
        match times.is_empty() {
            true => forget,
            false => format!("{forget}INSERT INTO alluvium.deleted_time VALUES {}; ", times.join(", ")),
        }
    }

    /// Halves what is refused until it is one row.
    async fn write_parts(&self, connection: &mut Connection, refused: &mut Refusals<'a>) -> Result<(), sqlx::Error> {
        let mut parts: Vec<&'a [PersistEntry]> = chunks(&self.batch.entries);
        parts.reverse();
        while let Some(part) = parts.pop() {
            connection.run("SAVEPOINT part".into()).await?;
            match (self.write(connection, part).await, part) {
                (Ok(()), _) => {
                    connection.run("RELEASE part".into()).await?;
                }
                (Err(e), part) if blames_a_row(&e) => {
                    connection.run("ROLLBACK TO part; RELEASE part".into()).await?;
                    if let [entry] = part {
                        let reason = e.as_database_error().map_or_else(|| e.to_string(), |d| d.message().to_owned());
                        tracing::warn!(
                            feature_type = self.t.name,
                            id = &*entry.id,
                            "PostGIS refuses a feature: {reason}"
                        );
                        refused.push((entry, reason));
                    } else {
                        let (front, back) = part.split_at(part.len() / 2);
                        parts.extend([back, front]);
                    }
                }
                (Err(e), _) => return Err(e),
            }
        }
        Ok(())
    }

    async fn write(&self, connection: &mut Connection, entries: &[PersistEntry]) -> Result<(), sqlx::Error> {
        let (live, dead): (Vec<&PersistEntry>, Vec<_>) = entries.iter().partition(|e| e.feature.is_some());
        if !live.is_empty() {
            connection.run_prepared(self.upsert_sql(), self.upsert_arguments(&live)?).await?;
        }
        if !dead.is_empty() {
            let mut arguments = PgArguments::default();
            let (ids, versions) = keys(&dead);
            add(&mut arguments, ids)?;
            add(&mut arguments, versions)?;
            connection.run_prepared(self.delete_sql(), arguments).await?;
        }
        Ok(())
    }

    /// Parameters: ids, versions, geometries, then each property, as arrays.
    fn upsert_sql(&self) -> String {
        let Writer { table, t, .. } = self;
        if let Some(existing) = &t.table {
            return existing::upsert_sql(t, existing);
        }
        let (mut names, mut values) =
            (vec!["id".to_owned(), VERSION.to_owned()], vec!["u.id".to_owned(), STORED_VERSION.into()]);
        let (mut arrays, mut aliases) =
            (vec!["$1::text[]".to_owned(), "$2::int8[]".into()], vec!["id".to_owned(), "version".into()]);
        if let Some(g) = &t.geometry {
            names.push(GEOMETRY.into());
            values.push(format!("ST_GeomFromWKB(u.geom, {})", g.epsg));
            arrays.push("$3::bytea[]".into());
            aliases.push("geom".into());
        }
        for (slot, p) in t.properties.iter().enumerate() {
            names.push(quoted(&p.name));
            values.push(format!("u.p{slot}"));
            arrays.push(format!("${}::{}", arrays.len() + 1, Array::type_name(p.kind)));
            aliases.push(format!("p{slot}"));
        }
        let set: Vec<String> = names[1..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
        format!(
            "WITH u AS MATERIALIZED (SELECT * FROM unnest({arrays}) AS u({aliases})), \
                  reborn AS (DELETE FROM alluvium.deleted d USING u \
                             WHERE d.feature_type = {name} AND d.id = u.id AND d.version <= u.version), \
                  mended AS (DELETE FROM alluvium.refused r USING u \
                             WHERE r.feature_type = {name} AND r.id = u.id AND r.version <= u.version){folded} \
             INSERT INTO {table} AS t ({names}) SELECT {values} FROM u \
             WHERE NOT EXISTS (SELECT FROM alluvium.deleted d \
                               WHERE d.feature_type = {name} AND d.id = u.id AND d.version > u.version) \
             ON CONFLICT (id) DO UPDATE SET {set} WHERE t.{VERSION} <= GREATEST(excluded.{VERSION}, 0)",
            arrays = arrays.join(", "),
            aliases = aliases.join(", "),
            name = text(&t.name),
            folded = tail::superseded(table, t),
            names = names.join(", "),
            values = values.join(", "),
            set = set.join(", "),
        )
    }

    fn upsert_arguments(&self, entries: &[&PersistEntry]) -> Result<PgArguments, sqlx::Error> {
        let mut arguments = PgArguments::default();
        let (ids, versions) = keys(entries);
        add(&mut arguments, ids)?;
        add(&mut arguments, versions)?;
        let features = || entries.iter().filter_map(|entry| entry.feature.as_deref());
        if self.t.geometry.is_some() {
            let mut geometries = Array::new(PropertyType::Bytes);
            features().for_each(|f| geometries.push(f.geometry.as_ref().map(|g| g.wkb())));
            add(&mut arguments, geometries)?;
        }
        for (slot, p) in self.t.properties.iter().enumerate() {
            let mut column = Array::new(p.kind);
            features().for_each(|f| column.push_value(p.kind, f.value(slot)));
            add(&mut arguments, column)?;
        }
        Ok(arguments)
    }

    /// Parameters: ids and versions, as arrays.
    fn delete_sql(&self) -> String {
        if let Some(existing) = &self.t.table {
            return existing::delete_sql(self.t, existing, self.batch.partition);
        }
        let (table, name, partition) = (&self.table, text(&self.t.name), self.batch.partition);
        format!(
            "WITH u AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::int8[]) AS u(id, version)), \
                  dead AS (DELETE FROM {table} t USING u WHERE t.id = u.id AND t.{VERSION} <= u.version), \
                  mended AS (DELETE FROM alluvium.refused r USING u \
                             WHERE r.feature_type = {name} AND r.id = u.id AND r.version <= u.version){folded} \
             INSERT INTO alluvium.deleted AS d (feature_type, id, partition, version) \
             SELECT {name}, u.id, {partition}, u.version FROM u \
             WHERE NOT EXISTS (SELECT FROM {table} t WHERE t.id = u.id AND t.{VERSION} > u.version) \
             ON CONFLICT (feature_type, id) DO UPDATE SET partition = excluded.partition, version = excluded.version \
             WHERE d.version <= excluded.version",
            folded = tail::superseded(table, self.t),
        )
    }

    fn note_refused(&self, entry: &PersistEntry, reason: &str) -> String {
        let null = || "NULL".to_owned();
        let feature = entry.feature.as_deref();
        let geometry = feature.and_then(|f| f.geometry.as_ref());
        let properties = feature.map(|f| kept::to_texts(self.t, f));
        format!(
            "INSERT INTO alluvium.refused AS r (feature_type, id, partition, version, reason, geom, properties) \
             VALUES ({}, {}, {}, {}, {}, {}, {}) ON CONFLICT (feature_type, id) DO UPDATE SET \
             partition = excluded.partition, version = excluded.version, reason = excluded.reason, \
             refused_at = excluded.refused_at, geom = excluded.geom, properties = excluded.properties \
             WHERE r.version <= excluded.version; ",
            text(&self.t.name),
            text(&entry.id),
            self.batch.partition,
            entry.version,
            text(reason),
            geometry.map_or_else(null, |g| literal(&Bind::Bytes(g.wkb().to_vec()))),
            properties.map_or_else(null, |json| text(&json)),
        )
    }
}

fn add(arguments: &mut PgArguments, array: Array) -> Result<(), sqlx::Error> {
    arguments.add(array).map_err(sqlx::Error::Encode)
}

fn chunks(entries: &[PersistEntry]) -> Vec<&[PersistEntry]> {
    let mut chunks = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (i, entry) in entries.iter().enumerate() {
        if i - begin == CHUNK_ROWS || bytes > CHUNK_BYTES {
            chunks.push(&entries[begin..i]);
            (begin, bytes) = (i, 0);
        }
        bytes += entry.feature.as_ref().map_or(0, |f| f.heap_bytes());
    }
    chunks.push(&entries[begin..]);
    chunks
}
