//! A feature's row: the table's columns, their types, and values in PostgreSQL's binary format to and from ours.

use std::sync::Arc;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgRow, PgTypeInfo, Postgres};
use sqlx::{Row as _, ValueRef};

use super::tail::TAIL;
use crate::delegate::sql::{VERSION, quoted, version_of};
use crate::delegate::{PersistEntry, Row};
use crate::model::feature_type::GEOMETRY;
use crate::model::{Dimension, Feature, FeatureType, Geometry, GeometryColumn, PropertyType, Value};

/// PostgreSQL counts days and microseconds from 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// `NAME TYPE [NOT NULL]` of every column, as `CREATE TABLE` has them.
pub fn column_definitions(t: &FeatureType) -> String {
    let mut columns = vec!["id text COLLATE \"C\" PRIMARY KEY".to_owned()];
    let not_null = |nullable: bool| if nullable { "" } else { " NOT NULL" };
    if let Some(g) = &t.geometry {
        columns.push(format!("{GEOMETRY} {}{}", geometry_type(g), not_null(g.nullable)));
    }
    for p in &t.properties {
        columns.push(format!("{} {}{}", quoted(&p.name), column_type(p.kind), not_null(p.nullable)));
    }
    columns.push(format!("{VERSION} bigint NOT NULL DEFAULT 0"));
    columns.join(", ")
}

fn geometry_type(g: &GeometryColumn) -> String {
    let dimension = match g.dimension {
        Dimension::XY => "",
        Dimension::XYZ => "Z",
        Dimension::XYM => "M",
        Dimension::XYZM => "ZM",
    };
    format!("geometry({}{dimension},{})", g.kind.name(), g.epsg)
}

/// JSON is kept as text in its normal form (`json`, not `jsonb`, which orders members in its own way), so that both tiers
/// compare it by the same bytes; other tools still see JSON.
pub fn column_type(kind: PropertyType) -> &'static str {
    match kind {
        PropertyType::String => "text COLLATE \"C\"",
        PropertyType::Int32 => "integer",
        PropertyType::Int64 => "bigint",
        PropertyType::Number => "double precision",
        PropertyType::Boolean => "boolean",
        PropertyType::Date => "date",
        PropertyType::DateTime => "timestamptz",
        PropertyType::Uuid => "uuid",
        PropertyType::Json => "json",
        PropertyType::Bytes => "bytea",
    }
}

/// What `SELECT` asks for, in the order in which [`read`] takes it.
pub fn select_list(t: &FeatureType) -> String {
    let mut columns = vec!["id".to_owned(), VERSION.to_owned()];
    columns.extend(t.geometry.map(|_| GEOMETRY.to_owned()));
    columns.extend(t.properties.iter().map(|p| match p.kind {
        // It may have been widened since this reader's version of the schema, under which its rows have the integers still.
        PropertyType::Int32 => format!("{}::int4", quoted(&p.name)),
        _ => quoted(&p.name),
    }));
    columns.extend(t.keeps_tails().then(|| TAIL.to_owned()));
    columns.join(", ")
}

/// A column of a row in the binary format; `None`: null.
pub fn column_at(row: &PgRow, column: usize) -> Result<Option<&[u8]>, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() { Ok(None) } else { value.as_bytes().map(Some).map_err(sqlx::Error::Decode) }
}

/// Reads a row of [`select_list`], whose columns `next` gives one after the other in the binary format.
pub fn read<'a>(
    t: &FeatureType,
    mut next: impl FnMut() -> Result<Option<&'a [u8]>, sqlx::Error>,
) -> Result<Row, sqlx::Error> {
    let id: Arc<str> = utf8(next()?.unwrap_or_default())?.into();
    let version = next()?.map(|b| fixed(b).map(i64::from_be_bytes)).transpose()?.and_then(version_of);
    let mut geometry = match t.geometry {
        Some(_) => next()?.and_then(|ewkb| read_geometry(t, &id, ewkb)),
        None => None,
    };
    let mut properties = Vec::with_capacity(t.properties.len());
    for p in &t.properties {
        properties.push(match next()? {
            Some(bytes) => read_value(p.kind, bytes)?,
            None => Value::Null,
        });
    }
    let mut apart = 0;
    if let Some(shape) = t.track_shape().filter(|_| t.keeps_tails())
        && let Some(ewkb) = next()?
    {
        let fixes = Geometry::from_wkb(ewkb).map_err(|e| sqlx::Error::Decode(e.into()))?;
        apart = shape.count(&fixes);
        geometry = shape.grown(geometry.as_ref(), &fixes);
    }
    let feature = Arc::new(Feature { id, geometry, properties });
    Ok(Row { feature, version, apart })
}

/// Another tool may have put a curve or a surface where the column takes any geometry: no simple feature, so read as none.
fn read_geometry(t: &FeatureType, id: &str, ewkb: &[u8]) -> Option<Geometry> {
    let read = match ewkb {
        // By far the most common, a point with its SRID: without it, it is in our form.
        [1, 1, 0, 0, 0x20, _, _, _, _, xy @ ..] if xy.len() == 16 => {
            let mut wkb = [0; 21];
            wkb[0..2].copy_from_slice(&[1, 1]);
            wkb[5..].copy_from_slice(xy);
            Geometry::from_wkb(&wkb)
        }
        _ => Geometry::from_wkb(ewkb),
    };
    read.inspect_err(|e| tracing::warn!(feature_type = t.name, id, "a geometry in PostGIS is read as null: {e}")).ok()
}

fn read_value(kind: PropertyType, bytes: &[u8]) -> Result<Value, sqlx::Error> {
    Ok(match kind {
        PropertyType::String => Value::String(utf8(bytes)?.into()),
        PropertyType::Int32 => Value::Int(i32::from_be_bytes(fixed(bytes)?).into()),
        PropertyType::Int64 => Value::Int(i64::from_be_bytes(fixed(bytes)?)),
        // What is not finite is no value of ours, in numbers and in times.
        PropertyType::Number => match f64::from_be_bytes(fixed(bytes)?) {
            x if x.is_finite() => Value::Number(x),
            _ => Value::Null,
        },
        PropertyType::Boolean => Value::Bool(u8::from_be_bytes(fixed(bytes)?) != 0),
        PropertyType::Date => match i32::from_be_bytes(fixed(bytes)?) {
            i32::MIN | i32::MAX => Value::Null,
            days => Value::Date(days.saturating_add(EPOCH_DAYS)),
        },
        PropertyType::DateTime => match i64::from_be_bytes(fixed(bytes)?) {
            i64::MIN | i64::MAX => Value::Null,
            micros => Value::DateTime(micros.saturating_add(EPOCH_MICROS)),
        },
        PropertyType::Uuid => Value::Uuid(fixed(bytes)?),
        PropertyType::Json => normal_json(utf8(bytes)?),
        PropertyType::Bytes => Value::Bytes(bytes.into()),
    })
}

/// JSON that another tool wrote need not be in the normal form.
fn normal_json(text: &str) -> Value {
    PropertyType::Json.parse(text).unwrap_or(Value::Null)
}

fn utf8(bytes: &[u8]) -> Result<&str, sqlx::Error> {
    std::str::from_utf8(bytes).map_err(|e| sqlx::Error::Decode(e.into()))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], sqlx::Error> {
    let wrong = |_| sqlx::Error::Decode(format!("a value of {} bytes where {N} are expected", bytes.len()).into());
    bytes.try_into().map_err(wrong)
}

/// An array parameter in the binary format: one column of a batch of rows.
pub struct Array {
    oid: u32,
    bytes: Vec<u8>,
    length: i32,
}

/// The name of the array's type, its OID and that of its elements. They are part of PostgreSQL's protocol and never change.
fn array_type(kind: PropertyType) -> (&'static str, u32, u32) {
    match kind {
        PropertyType::String => ("text[]", 1009, 25),
        PropertyType::Int32 => ("int4[]", 1007, 23),
        PropertyType::Int64 => ("int8[]", 1016, 20),
        PropertyType::Number => ("float8[]", 1022, 701),
        PropertyType::Boolean => ("bool[]", 1000, 16),
        PropertyType::Date => ("date[]", 1182, 1082),
        PropertyType::DateTime => ("timestamptz[]", 1185, 1184),
        PropertyType::Uuid => ("uuid[]", 2951, 2950),
        PropertyType::Json => ("json[]", 199, 114),
        PropertyType::Bytes => ("bytea[]", 1001, 17),
    }
}

impl Array {
    pub fn type_name(kind: PropertyType) -> &'static str {
        array_type(kind).0
    }

    pub fn new(kind: PropertyType) -> Array {
        let (_, oid, element) = array_type(kind);
        let mut bytes = Vec::new();
        // One dimension, nulls possible; the length is filled in at the end; the first index is 1.
        for n in [1, 1, element as i32, 0, 1] {
            bytes.extend_from_slice(&n.to_be_bytes());
        }
        Array { oid, bytes, length: 0 }
    }

    pub fn push(&mut self, value: Option<&[u8]>) {
        let length = value.map_or(-1, |v| v.len() as i32);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.length += 1;
    }

    /// A value that is of the array's type.
    pub fn push_value(&mut self, kind: PropertyType, value: &Value) {
        match value {
            Value::Null => self.push(None),
            Value::Bool(b) => self.push(Some(&[u8::from(*b)])),
            Value::Int(n) if kind == PropertyType::Int32 => self.push(Some(&(*n as i32).to_be_bytes())),
            Value::Int(n) => self.push(Some(&n.to_be_bytes())),
            Value::Number(x) => self.push(Some(&x.to_be_bytes())),
            Value::String(s) | Value::Json(s) => self.push(Some(s.as_bytes())),
            Value::Date(days) => self.push(Some(&days.saturating_sub(EPOCH_DAYS).to_be_bytes())),
            Value::DateTime(micros) => self.push(Some(&micros.saturating_sub(EPOCH_MICROS).to_be_bytes())),
            Value::Uuid(u) => self.push(Some(u)),
            Value::Bytes(b) => self.push(Some(b)),
        }
    }
}

impl sqlx::Type<Postgres> for Array {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(array_type(PropertyType::Bytes).1))
    }
}

impl sqlx::Encode<'_, Postgres> for Array {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        const LENGTH_AT: usize = 12;
        buffer.extend_from_slice(&self.bytes[..LENGTH_AT]);
        buffer.extend_from_slice(&self.length.to_be_bytes());
        buffer.extend_from_slice(&self.bytes[LENGTH_AT + 4..]);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.oid)))
    }

    fn size_hint(&self) -> usize {
        self.bytes.len()
    }
}

/// Ids and versions of a batch: the first two parameters of every statement that writes one.
pub fn keys(entries: &[&PersistEntry]) -> (Array, Array) {
    let (mut ids, mut versions) = (Array::new(PropertyType::String), Array::new(PropertyType::Int64));
    for entry in entries {
        ids.push(Some(entry.id.as_bytes()));
        versions.push(Some(&(entry.version as i64).to_be_bytes()));
    }
    (ids, versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_tools_write_is_read_as_best_it_can() {
        let number = |x: f64| read_value(PropertyType::Number, &x.to_be_bytes()).unwrap();
        assert_eq!(number(f64::NAN), Value::Null);
        assert_eq!(number(f64::NEG_INFINITY), Value::Null);
        assert_eq!(read_value(PropertyType::Date, &i32::MAX.to_be_bytes()).unwrap(), Value::Null);
        assert_eq!(read_value(PropertyType::DateTime, &i64::MIN.to_be_bytes()).unwrap(), Value::Null);
        assert_eq!(
            read_value(PropertyType::Json, b"{ \"b\": 1, \"a\": 2 }").unwrap(),
            Value::Json("{\"a\":2,\"b\":1}".into())
        );
        assert!(read_value(PropertyType::Int32, &[0; 8]).is_err());
        assert!(read_value(PropertyType::String, &[0xff]).is_err());
    }
}
