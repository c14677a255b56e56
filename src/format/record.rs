//! The log's records as bytes.
//!
//! Owns the layout below and its versions; the log adds its own frame and checksum. Invariant: whatever [`encode`] gave,
//! [`decode`] of this or any later release reads as the same record; anything else is an error, never a panic.
//!
//! | part | layout |
//! |---|---|
//! | record | magic `A1`, version `01` or `02`, kind: `01` changes, `02` persisted; then its body and nothing more |
//! | changes | varints: version of the schema, part of the run, parts of the run; of more than one: 8 bytes, the run's id; varint: number of changes; then the changes |
//! | change | tag: `01` put, `02` patch, `03` delete, `04` append (from version 2); id as text; its body. Or tag `05`, conditional (from version 2): what is expected, then a change |
//! | expected | `00` absent, `01` present, `02` one of some versions: their number and they themselves, as varints |
//! | put | geometry, number of values, the values by property id |
//! | patch | `00` geometry stays, `01` goes, `02` is set and follows; number of properties; each its id and its value |
//! | append | varint of twice the number of fixes, plus 1 where they have a z; each 8 bytes little-endian: time in seconds since the epoch, x, y, and z; number of properties; each its id and its value |
//! | persisted | varints: durable through, evict through, number of ids; the ids as texts |
//! | geometry | text of WKB; empty: none |
//! | value | tag: `00` null, `01` false, `02` true, `03` integer, `04` number, `05` string, `06` date, `07` date-time, `08` UUID, `09` JSON, `0a` bytes; then zigzag varint (integers, days, microseconds), 8 bytes little-endian (numbers), 16 bytes (UUID), or a text |
//! | text | varint length, bytes |
//! | varint | LEB128 of an unsigned 64-bit number |
//!
//! The ids of properties and the values are those of the schema's version that the record names. Under a later one, missing
//! values are null, and values are widened as their properties were.
//!
//! `A1` begins no UTF-8 text, so a JSON value of a foreign producer is told apart by its first byte. The version is that of the
//! oldest reader that understands the record: a new kind or tag raises it in the records that use it.

use std::sync::Arc;

use bytes::Bytes;

use crate::format::geojson::{FeatureReader, Unknown};
use crate::model::geometry::Coord;
use crate::model::{
    Append, Change, Expected, Feature, FeatureId, FeatureType, Geometry, Patch, Persisted, Record, Run, Value, check_id,
};

const MAGIC: u8 = 0xa1;
/// The newest that this release reads.
const VERSION: u8 = 2;

const CHANGES: u8 = 1;
const PERSISTED: u8 = 2;

const PUT: u8 = 1;
const PATCH: u8 = 2;
const DELETE: u8 = 3;
const APPEND: u8 = 4;
const IF: u8 = 5;

const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
const ONE_OF: u8 = 2;

const KEEP: u8 = 0;
const REMOVE: u8 = 1;
const SET: u8 = 2;

/// The longest head of a record of changes: magic, version, kind, four varints of at most 10 bytes, and the id of a run.
const MAX_HEAD: usize = 3 + 4 * 10 + 8;

/// Why a value of the log is not a record that this release can apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Ours, by a later release. Never to be skipped: this instance must stop here until it is upgraded.
    #[error("a record of format version {version}, this release knows {VERSION}: upgrade it")]
    Newer { version: u8 },
    /// Ours, under a later schema than the feature type at hand. Never to be skipped: read the catalogue again.
    #[error("a record under schema version {version}, known is {known}")]
    NewerSchema { version: u32, known: u32 },
    /// Nothing that could ever be applied; to be set aside, said loudly, and passed over.
    #[error("not a record: {what}")]
    Poison { why: Poison, what: String },
}

/// Why nothing can be made of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// Neither a record of ours nor JSON.
    Unreadable,
    /// A feature, or a change of one, that the feature type does not take.
    Misfit,
    /// No key, or one that is no id.
    Key,
    /// The feature type is read-only.
    ReadOnly,
    /// Its key belongs in another partition, where changes of that feature are in order.
    WrongPartition,
}

impl Poison {
    /// In one word, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Poison::Unreadable => "unreadable",
            Poison::Misfit => "misfit",
            Poison::Key => "key",
            Poison::ReadOnly => "read-only",
            Poison::WrongPartition => "wrong-partition",
        }
    }
}

/// A change that does not fit into a record by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("feature '{id}' has {bytes} bytes, a record of the log takes {limit}")]
pub struct TooLarge {
    pub id: FeatureId,
    pub bytes: usize,
    pub limit: usize,
}

/// A record as the log's value. `schema_version` is that of the type whose property ids the changes use.
pub fn encode(record: &Record, schema_version: u32) -> Bytes {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&[MAGIC, version_of(record)]);
    match record {
        Record::Changes { run, changes } => {
            out.push(CHANGES);
            put_varint(&mut out, schema_version.into());
            put_varint(&mut out, run.part.into());
            put_varint(&mut out, run.of.into());
            if run.of > 1 {
                out.extend_from_slice(&run.id.to_le_bytes());
            }
            put_varint(&mut out, changes.len() as u64);
            changes.iter().for_each(|c| put_change(&mut out, c));
        }
        Record::Persisted(p) => {
            out.push(PERSISTED);
            put_varint(&mut out, p.durable_through);
            put_varint(&mut out, p.evict_through);
            put_varint(&mut out, p.except.len() as u64);
            p.except.iter().for_each(|id| put_text(&mut out, id.as_bytes()));
        }
    }
    out.into()
}

/// That of the oldest reader that understands it.
fn version_of(record: &Record) -> u8 {
    match record {
        Record::Changes { changes, .. } if changes.iter().any(|c| matches!(c, Change::Append(_) | Change::If(..))) => 2,
        _ => 1,
    }
}

/// Distributes changes, in their order, over a run of as few records as the log's largest value allows. `id` gives the run's, one
/// that no other run has; it is asked where there is more than one record.
pub fn split(changes: Vec<Change>, max_value_bytes: usize, id: impl FnOnce() -> u64) -> Result<Vec<Record>, TooLarge> {
    let limit = max_value_bytes.saturating_sub(MAX_HEAD);
    let mut parts: Vec<Vec<Change>> = Vec::new();
    let mut room = 0;
    let mut scratch = Vec::new();
    for change in changes {
        scratch.clear();
        put_change(&mut scratch, &change);
        let bytes = scratch.len();
        if bytes > limit {
            return Err(TooLarge { id: change.id().clone(), bytes, limit });
        }
        match parts.last_mut() {
            Some(part) if bytes <= room => part.push(change),
            _ => {
                parts.push(vec![change]);
                room = limit;
            }
        }
        room -= bytes;
    }
    let of = parts.len() as u32;
    let id = if of > 1 { id() } else { Run::WHOLE.id };
    Ok((1..).zip(parts).map(|(part, changes)| Record::Changes { run: Run { part, of, id }, changes }).collect())
}

/// Reads a record of the log of `ft`. Of foreign producers: a JSON object is a GeoJSON Feature, the put of `key`; no value at
/// all is the delete of `key`.
pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>, ft: &FeatureType) -> Result<Record, RecordError> {
    let Some(value) = value else {
        ft.check_writable().map_err(|e| poisoned(Poison::ReadOnly, e))?;
        let id = foreign_id(key)?;
        ft.check_key(&id).map_err(|e| poisoned(Poison::Key, e))?;
        return Ok(whole(Change::Delete(id)));
    };
    match *value {
        [MAGIC, 1..=VERSION, kind, ref body @ ..] => {
            let mut source = Source { rest: body };
            let record = match kind {
                CHANGES => take_changes(&mut source, ft)?,
                PERSISTED => Record::Persisted(take_persisted(&mut source)?),
                _ => return Err(poison("an unknown kind of record")),
            };
            if source.rest.is_empty() { Ok(record) } else { Err(poison("bytes left over")) }
        }
        [MAGIC, version, ..] if version > VERSION => Err(RecordError::Newer { version }),
        _ if value.trim_ascii_start().first() == Some(&b'{') => Ok(whole(foreign_put(key, value, ft)?)),
        _ => Err(poison("neither a record of ours nor a JSON object")),
    }
}

fn whole(change: Change) -> Record {
    Record::Changes { run: Run::WHOLE, changes: vec![change] }
}

/// A GeoJSON Feature in CRS84 that somebody else appended. Its id is the key; without one, the feature's own.
fn foreign_put(key: Option<&[u8]>, value: &[u8], ft: &FeatureType) -> Result<Change, RecordError> {
    serde_json::from_slice::<serde::de::IgnoredAny>(value).map_err(|e| poisoned(Poison::Unreadable, e))?;
    let parsed = FeatureReader::new(ft, None, Unknown::Refuse).feature(value);
    let parsed = parsed.map_err(|e| poisoned(Poison::Misfit, e))?;
    let id = match (key, parsed.id.clone()) {
        (Some(_), _) => foreign_id(key)?,
        (None, Some(id)) => id,
        (None, None) => return Err(poisoned(Poison::Key, "neither the record nor its feature has an id")),
    };
    let mut feature = parsed.into_feature(id);
    ft.check_writable().map_err(|e| poisoned(Poison::ReadOnly, e))?;
    ft.check(&mut feature).map_err(|e| poisoned(Poison::Misfit, e))?;
    Ok(Change::Put(Arc::new(feature)))
}

fn foreign_id(key: Option<&[u8]>) -> Result<FeatureId, RecordError> {
    let key = key.ok_or_else(|| poisoned(Poison::Key, "neither a key nor a value"))?;
    let text = std::str::from_utf8(key).map_err(|_| poisoned(Poison::Key, "the key is not UTF-8"))?;
    check_id(text).map_err(|e| poisoned(Poison::Key, format!("the key: {e}")))
}

fn poison(what: &str) -> RecordError {
    poisoned(Poison::Unreadable, what)
}

fn poisoned(why: Poison, what: impl std::fmt::Display) -> RecordError {
    RecordError::Poison { why, what: what.to_string() }
}

/// True of what another producer has written: a JSON object, or no value at all.
pub fn is_foreign(value: Option<&[u8]>) -> bool {
    value.is_none_or(|value| value.first() != Some(&MAGIC))
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_varint(out, ((n << 1) ^ (n >> 63)) as u64);
}

fn put_text(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_geometry(out: &mut Vec<u8>, geometry: Option<&Geometry>) {
    put_text(out, geometry.map_or(&[], Geometry::wkb));
}

fn put_change(out: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Put(feature) => {
            out.push(PUT);
            put_text(out, feature.id.as_bytes());
            put_geometry(out, feature.geometry.as_ref());
            put_varint(out, feature.properties.len() as u64);
            feature.properties.iter().for_each(|v| put_value(out, v));
        }
        Change::Patch(patch) => {
            out.push(PATCH);
            put_text(out, patch.id.as_bytes());
            match &patch.geometry {
                None => out.push(KEEP),
                Some(None) => out.push(REMOVE),
                Some(Some(geometry)) => {
                    out.push(SET);
                    put_geometry(out, Some(geometry));
                }
            }
            put_properties(out, &patch.properties);
        }
        Change::Append(append) => put_append(out, append),
        Change::Delete(id) => {
            out.push(DELETE);
            put_text(out, id.as_bytes());
        }
        Change::If(expected, change) => {
            out.push(IF);
            match expected {
                Expected::Absent => out.push(ABSENT),
                Expected::Present => out.push(PRESENT),
                Expected::OneOf(versions) => {
                    out.push(ONE_OF);
                    put_varint(out, versions.len() as u64);
                    versions.iter().for_each(|v| put_varint(out, *v));
                }
            }
            put_change(out, change);
        }
    }
}

fn put_properties(out: &mut Vec<u8>, properties: &[(u16, Value)]) {
    put_varint(out, properties.len() as u64);
    for (slot, value) in properties {
        put_varint(out, (*slot).into());
        put_value(out, value);
    }
}

fn put_append(out: &mut Vec<u8>, append: &Append) {
    out.push(APPEND);
    put_text(out, append.id.as_bytes());
    // A type's fixes all have a Z or none has; the encoder does not know the type, so it says which.
    let with_z = append.fixes.iter().any(|fix| fix.z != 0.0);
    put_varint(out, (append.fixes.len() as u64) << 1 | u64::from(with_z));
    for fix in &append.fixes {
        let ordinates = [fix.m, fix.x, fix.y, fix.z];
        ordinates[..3 + usize::from(with_z)].iter().for_each(|o| out.extend_from_slice(&o.to_le_bytes()));
    }
    put_properties(out, &append.properties);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0),
        Value::Bool(b) => out.push(1 + u8::from(*b)),
        Value::Int(n) => {
            out.push(3);
            put_signed(out, *n);
        }
        Value::Number(n) => {
            out.push(4);
            out.extend_from_slice(&n.to_le_bytes());
        }
        Value::String(s) => {
            out.push(5);
            put_text(out, s.as_bytes());
        }
        Value::Date(days) => {
            out.push(6);
            put_signed(out, (*days).into());
        }
        Value::DateTime(micros) => {
            out.push(7);
            put_signed(out, *micros);
        }
        Value::Uuid(u) => {
            out.push(8);
            out.extend_from_slice(u);
        }
        Value::Json(s) => {
            out.push(9);
            put_text(out, s.as_bytes());
        }
        Value::Bytes(b) => {
            out.push(10);
            put_text(out, b);
        }
    }
}

/// What is left of a value.
struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| poison("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| poison("it ends too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|[b]| b)
    }

    fn varint(&mut self) -> Result<u64, RecordError> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let b = self.byte()?;
            if shift == 63 && b > 1 {
                break;
            }
            n |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(n);
            }
        }
        Err(poison("a number has more than 64 bits"))
    }

    fn signed(&mut self) -> Result<i64, RecordError> {
        let n = self.varint()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, RecordError> {
        T::try_from(self.varint()?).map_err(|_| poison("a number is too large"))
    }

    /// A number of things to follow, each of at least one byte: so it never asks for more memory than there is input.
    fn count(&mut self) -> Result<usize, RecordError> {
        let n: usize = self.small()?;
        if n <= self.rest.len() { Ok(n) } else { Err(poison("it ends too early")) }
    }

    fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let n = self.small()?;
        self.take(n)
    }

    fn text(&mut self) -> Result<&'a str, RecordError> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| poison("a text is not UTF-8"))?;
        if text.contains('\0') { Err(poison("a text contains U+0000")) } else { Ok(text) }
    }

    fn id(&mut self) -> Result<FeatureId, RecordError> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| poison("an id is not UTF-8"))?;
        check_id(text).map_err(|e| poison(&e.to_string()))
    }

    fn geometry(&mut self) -> Result<Option<Geometry>, RecordError> {
        match self.bytes()? {
            [] => Ok(None),
            wkb => Geometry::from_wkb(wkb).map(Some).map_err(|e| poison(&e.to_string())),
        }
    }

    fn value(&mut self) -> Result<Value, RecordError> {
        Ok(match self.byte()? {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => Value::Int(self.signed()?),
            4 => match f64::from_le_bytes(self.array()?) {
                n if n.is_finite() => Value::Number(n),
                _ => return Err(poison("a number is not finite")),
            },
            5 => Value::String(self.text()?.into()),
            6 => Value::Date(i32::try_from(self.signed()?).map_err(|_| poison("a date is out of range"))?),
            7 => Value::DateTime(self.signed()?),
            8 => Value::Uuid(self.array()?),
            9 => Value::Json(self.text()?.into()),
            10 => Value::Bytes(self.bytes()?.into()),
            _ => return Err(poison("an unknown kind of value")),
        })
    }
}

fn take_changes(source: &mut Source<'_>, ft: &FeatureType) -> Result<Record, RecordError> {
    let version: u32 = source.small()?;
    if version > ft.schema_version {
        return Err(RecordError::NewerSchema { version, known: ft.schema_version });
    }
    let (part, of) = (source.small()?, source.small()?);
    if part < 1 || part > of {
        return Err(poison("its part is not of its run"));
    }
    let id = if of > 1 { u64::from_le_bytes(source.array()?) } else { Run::WHOLE.id };
    let run = Run { part, of, id };
    let n = source.count()?;
    let mut changes = Vec::new();
    for _ in 0..n {
        changes.push(take_change(source, ft, version)?);
    }
    Ok(Record::Changes { run, changes })
}

/// `version`: of the schema that it was written under, this one or an earlier one.
fn take_change(source: &mut Source<'_>, ft: &FeatureType, version: u32) -> Result<Change, RecordError> {
    let slots = ft.properties.len();
    let of_the_type = |slot: usize, value: Value| {
        let unsuitable = || poisoned(Poison::Misfit, format!("a value does not suit the property of id {slot}"));
        let kind = ft.properties.get(slot).ok_or_else(unsuitable)?.kind;
        let value = if version < ft.schema_version { value.widened(kind) } else { value };
        if value.is_of(kind) { Ok(value) } else { Err(unsuitable()) }
    };
    Ok(match source.byte()? {
        PUT => {
            let (id, geometry, n) = (source.id()?, source.geometry()?, source.count()?);
            if n > slots {
                return Err(poison("more values than the type has properties"));
            }
            let mut properties = Vec::with_capacity(n);
            for slot in 0..n {
                properties.push(of_the_type(slot, source.value()?)?);
            }
            Change::Put(Arc::new(Feature { id, geometry, properties }))
        }
        PATCH => {
            let id = source.id()?;
            let geometry = match source.byte()? {
                KEEP => None,
                REMOVE => Some(None),
                SET => Some(Some(source.geometry()?.ok_or_else(|| poison("a geometry is missing"))?)),
                _ => return Err(poison("an unknown kind of patch")),
            };
            Change::Patch(Patch { id, geometry, properties: take_properties(source, &of_the_type)? })
        }
        APPEND => {
            let append = Append {
                id: source.id()?,
                fixes: take_fixes(source)?,
                properties: take_properties(source, &of_the_type)?,
            };
            ft.check_append(&append).map_err(|e| poisoned(Poison::Misfit, e))?;
            Change::Append(append)
        }
        DELETE => Change::Delete(source.id()?),
        IF => {
            let expected = match source.byte()? {
                ABSENT => Expected::Absent,
                PRESENT => Expected::Present,
                ONE_OF => {
                    let n = source.count()?;
                    Expected::OneOf((0..n).map(|_| source.varint()).collect::<Result<_, _>>()?)
                }
                _ => return Err(poison("an unknown expectation")),
            };
            if source.rest.first() == Some(&IF) {
                return Err(poison("a condition within a condition"));
            }
            Change::If(expected, Box::new(take_change(source, ft, version)?))
        }
        _ => return Err(poison("an unknown kind of change")),
    })
}

fn take_fixes(source: &mut Source<'_>) -> Result<Vec<Coord>, RecordError> {
    let n = source.varint()?;
    let (n, with_z) = (n >> 1, n & 1 == 1);
    let mut fixes = Vec::new();
    for _ in 0..n {
        let mut next = || source.array().map(f64::from_le_bytes);
        let (m, x, y) = (next()?, next()?, next()?);
        fixes.push(Coord { x, y, z: if with_z { next()? } else { 0.0 }, m });
    }
    Ok(fixes)
}

fn take_properties(
    source: &mut Source<'_>,
    of_the_type: &impl Fn(usize, Value) -> Result<Value, RecordError>,
) -> Result<Vec<(u16, Value)>, RecordError> {
    let n = source.count()?;
    let mut properties = Vec::new();
    for _ in 0..n {
        let (slot, value): (u16, Value) = (source.small()?, source.value()?);
        properties.push((slot, of_the_type(slot.into(), value)?));
    }
    Ok(properties)
}

fn take_persisted(source: &mut Source<'_>) -> Result<Persisted, RecordError> {
    let (durable_through, evict_through, n) = (source.varint()?, source.varint()?, source.count()?);
    let except = (0..n).map(|_| source.id()).collect::<Result<_, _>>()?;
    Ok(Persisted { durable_through, evict_through, except })
}

#[cfg(test)]
mod tests;
