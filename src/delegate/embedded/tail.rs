//! Tails: what tracks have got since their line was written, in `gpkgext_alluvium_tails`, so that a long line is not written for a
//! few fixes. The row has the track's version and properties always, and its place in the R-tree takes in the tail.
//!
//! Invariant: line and tail are one state together. Both are written through one connection.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, params};

use super::persist::refusal;
use super::{row, schema};
use crate::delegate::sql::{VERSION, quoted};
use crate::delegate::{DelegateError, PersistBatch};
use crate::format::geopackage::blob;
use crate::model::{FeatureType, Fixes, Geometry, Growth, Offset, PartitionId, Rect, TrackShape};

/// Lines that are written in one transaction.
const FOLDED_AT_ONCE: usize = 16;

/// Reads tails; `None` for types that have none.
pub struct Tails<'c> {
    shape: TrackShape,
    name: &'c str,
    select: CachedStatement<'c>,
}

impl<'c> Tails<'c> {
    pub fn of(connection: &'c Connection, t: &'c FeatureType) -> rusqlite::Result<Option<Tails<'c>>> {
        let Some(shape) = t.track_shape().filter(|_| t.keeps_tails()) else { return Ok(None) };
        let select = connection.prepare_cached(
            "SELECT fixes FROM gpkgext_alluvium_tails WHERE feature_type = ?1 AND id = ?2 AND version <= ?3 ORDER BY version",
        )?;
        Ok(Some(Tails { shape, name: &t.name, select }))
    }

    /// The line with its tail, and how many fixes that has.
    pub fn line(
        &mut self,
        id: &str,
        version: Offset,
        line: Option<Geometry>,
    ) -> Result<(Option<Geometry>, usize), DelegateError> {
        let mut rows = self.select.query(params![self.name, id, version as i64])?;
        let (mut fixes, mut apart) = (Fixes::default(), 0);
        while let Some(row) = rows.next()? {
            let unreadable = |e| DelegateError::Mismatch(format!("the tail of '{id}' in table '{}': {e}", self.name));
            let points = Geometry::from_wkb(row.get_ref(0)?.as_blob().unwrap_or_default()).map_err(unreadable)?;
            points.reader().each_coord(&mut |fix| fixes.set(fix));
            apart += self.shape.count(&points);
        }
        let line = if apart > 0 { self.shape.line(line.as_ref(), &fixes) } else { line };
        Ok((line, apart))
    }
}

/// Writes what is new of tracks, and where that is; false when one of them does not fit.
pub fn grow(
    tx: &Transaction<'_>,
    t: &FeatureType,
    batch: &PersistBatch,
    grown: &mut Option<Rect>,
) -> Result<bool, DelegateError> {
    if batch.growths.is_empty() {
        return Ok(true);
    }
    let set: Vec<String> =
        t.properties.iter().enumerate().map(|(slot, p)| format!(", {} = ?{}", quoted(&p.name), slot + 4)).collect();
    let mut update = tx.prepare_cached(&format!(
        "UPDATE {} SET {VERSION} = ?1{} WHERE id = ?2 AND {VERSION} <> 0 AND max({VERSION}, 0) BETWEEN ?3 AND ?1",
        quoted(&t.name),
        set.concat()
    ))?;
    let mut keep = tx.prepare_cached(
        "INSERT INTO gpkgext_alluvium_tails (feature_type, id, partition, version, fixes, newest)
         VALUES (?1, ?2, ?3, ?4, ?5, TRUE) ON CONFLICT DO NOTHING",
    )?;
    let mut older = tx.prepare_cached(
        "UPDATE gpkgext_alluvium_tails SET newest = FALSE
         WHERE feature_type = ?1 AND id = ?2 AND version < ?3 AND newest",
    )?;
    let mut widen = tx.prepare_cached(&format!(
        "UPDATE {} SET minx = min(minx, ?2), maxx = max(maxx, ?3), miny = min(miny, ?4), maxy = max(maxy, ?5)
         WHERE id = (SELECT fid FROM {} WHERE id = ?1)",
        quoted(&schema::rtree(&t.name)),
        quoted(&t.name)
    ))?;
    let mut mend = tx
        .prepare_cached("DELETE FROM gpkgext_alluvium_refused WHERE feature_type = ?1 AND id = ?2 AND version <= ?3")?;
    for growth in &batch.growths {
        let version = growth.version as i64;
        if !update_row(&mut update, t, growth)? {
            return Ok(false);
        }
        older.execute(params![t.name, growth.id, version])?;
        keep.execute(params![t.name, growth.id, batch.partition, version, growth.fixes.wkb()])?;
        let Some(r) = growth.fixes.bounds() else { return Ok(false) };
        // Not there: another program has taken the line away.
        if widen.execute(params![growth.id, r.min_x, r.max_x, r.min_y, r.max_y])? == 0 {
            return Ok(false);
        }
        mend.execute(params![t.name, growth.id, version])?;
        *grown = Some(grown.map_or(r, |g| g.union(&r)));
    }
    Ok(true)
}

/// The row's version and properties; false when it is not there as it should be, or the table does not take them.
fn update_row(update: &mut CachedStatement<'_>, t: &FeatureType, growth: &Growth) -> Result<bool, DelegateError> {
    update.raw_bind_parameter(1, growth.version as i64)?;
    update.raw_bind_parameter(2, &*growth.id)?;
    update.raw_bind_parameter(3, growth.builds_on as i64)?;
    for (slot, property) in t.properties.iter().enumerate() {
        let Ok(value) = row::encode(property.kind, growth.value(slot)) else { return Ok(false) };
        update.raw_bind_parameter(slot + 4, value)?;
    }
    Ok(matches!(refusal(update.raw_execute())?, Ok(1)))
}

/// See [`crate::delegate::Delegate::fold`].
pub fn fold(
    connection: &mut Connection,
    t: &FeatureType,
    partition: PartitionId,
    before: Offset,
) -> Result<usize, DelegateError> {
    let tx = schema::begin(connection)?;
    schema::watermarks(&tx, t)?;
    let folded = fold_some(&tx, t, Some((partition, before)))?;
    tx.commit()?;
    Ok(folded)
}

/// Puts some tracks together; those of a partition before a version, or any.
pub fn fold_some(
    tx: &Transaction<'_>,
    t: &FeatureType,
    those: Option<(PartitionId, Offset)>,
) -> Result<usize, DelegateError> {
    let Some(mut tails) = Tails::of(tx, t)? else { return Ok(0) };
    let (partition, before) = those.map_or((None, i64::MAX), |(p, before)| (Some(p), before as i64));
    let ids: Vec<String> = tx
        .prepare_cached(
            "SELECT id FROM gpkgext_alluvium_tails
             WHERE feature_type = ?1 AND partition = ifnull(?2, partition) AND version < ?3 AND newest LIMIT ?4",
        )?
        .query_map(params![t.name, partition, before, FOLDED_AT_ONCE as i64], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    // Whatever its properties are, they stay.
    let line_only = FeatureType { properties: Vec::new(), ..t.clone() };
    let (table, columns) = (quoted(&t.name), row::columns(&line_only).join(", "));
    let mut select = tx.prepare_cached(&format!("SELECT {columns} FROM {table} WHERE id = ?1"))?;
    let mut update = tx.prepare_cached(&format!("UPDATE {table} SET geom = ?2 WHERE id = ?1"))?;
    let mut untail = tx.prepare_cached("DELETE FROM gpkgext_alluvium_tails WHERE feature_type = ?1 AND id = ?2")?;
    let srs_id = t.geometry.map_or(0, |g| g.epsg as i32);
    for id in &ids {
        let found = select.query_row([id], |r| Ok(row::read(r, &line_only))).optional()?.transpose()?;
        if let Some(found) = found
            && let (Some(line), _) = tails.line(id, found.version.unwrap_or(0), found.feature.geometry.clone())?
        {
            update.execute(params![id, blob::encode(&line, srs_id)])?;
        }
        untail.execute(params![t.name, id])?;
    }
    Ok(ids.len())
}
