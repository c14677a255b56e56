//! Rows of a feature table, to and from the model: columns and values are those of any GeoPackage ([`crate::format::geopackage`]).
//! Every value comes back as it was, but -0.0 as 0.0.

use rusqlite::types::{Value as SqlValue, ValueRef};

use super::tail::Tails;
use crate::delegate::sql::{Bind, VERSION, quoted, version_of};
use crate::delegate::{DelegateError, Row};
use crate::format::geopackage::blob;
pub use crate::format::geopackage::value::encode;
use crate::format::geopackage::value::{date_text, instant_text};
use crate::model::{Feature, FeatureId, FeatureType, PropertyType, Value, value};

/// The columns that [`read`] reads and the upsert writes, in that order: id, version, geometry if the type has one, properties.
pub fn columns(feature_type: &FeatureType) -> Vec<String> {
    let mut columns = vec![quoted("id"), quoted(VERSION)];
    columns.extend(feature_type.geometry.map(|_| quoted("geom")));
    columns.extend(feature_type.properties.iter().map(|p| quoted(&p.name)));
    columns
}

/// Reads a row of [`columns`], a track's without its tail.
pub fn read(row: &rusqlite::Row<'_>, feature_type: &FeatureType) -> Result<Row, DelegateError> {
    read_whole(row, feature_type, &mut None)
}

/// Reads a row of [`columns`].
pub fn read_whole(
    row: &rusqlite::Row<'_>,
    feature_type: &FeatureType,
    tails: &mut Option<Tails<'_>>,
) -> Result<Row, DelegateError> {
    let id: FeatureId = row.get_ref(0)?.as_str().map_err(|_| unreadable(feature_type, "?", "id", "not text"))?.into();
    let version = version_of(row.get(1)?);
    let mut column = 2;
    let mut geometry = None;
    if feature_type.geometry.is_some() {
        if let ValueRef::Blob(bytes) = row.get_ref(column)? {
            geometry = Some(blob::decode(bytes).map_err(|e| unreadable(feature_type, &id, "geom", &e))?);
        }
        column += 1;
    }
    let mut apart = 0;
    if let Some(tails) = tails {
        (geometry, apart) = tails.line(&id, version.unwrap_or(0), geometry)?;
    }
    let mut properties = Vec::with_capacity(feature_type.properties.len());
    for (i, property) in feature_type.properties.iter().enumerate() {
        let stored = row.get_ref(column + i)?;
        let value = decode(property.kind, stored)
            .ok_or_else(|| unreadable(feature_type, &id, &property.name, &format!("not a {}", property.kind.name())))?;
        properties.push(value);
    }
    Ok(Row { feature: Feature { id, geometry, properties }.into(), version, apart })
}

fn unreadable(feature_type: &FeatureType, id: &str, column: &str, why: &str) -> DelegateError {
    DelegateError::Mismatch(format!("column '{column}' of '{id}' in table '{}': {why}", feature_type.name))
}

/// A stored value, also in the spellings of other tools.
fn decode(kind: PropertyType, stored: ValueRef<'_>) -> Option<Value> {
    let text = || stored.as_str().ok();
    Some(match (kind, stored) {
        (_, ValueRef::Null) => Value::Null,
        (PropertyType::String, _) => Value::String(text()?.into()),
        (PropertyType::Int32 | PropertyType::Int64, ValueRef::Integer(n)) => Value::Int(n),
        // Of a column that has been widened since this reader's version of the schema; it has the integers still.
        (PropertyType::Int32, ValueRef::Real(x)) if x.fract() == 0.0 => Value::Int(x as i64),
        (PropertyType::Number, ValueRef::Real(x)) => Value::Number(x),
        (PropertyType::Number, ValueRef::Integer(n)) => Value::Number(n as f64),
        (PropertyType::Boolean, ValueRef::Integer(n)) => Value::Bool(n != 0),
        (PropertyType::Date, _) => Value::Date(value::parse_date(text()?)?),
        (PropertyType::DateTime, _) => Value::DateTime(value::parse_instant(text()?)?),
        (PropertyType::Uuid, _) => Value::Uuid(*uuid::Uuid::try_parse(text()?).ok()?.as_bytes()),
        (PropertyType::Json, _) => Value::Json(text()?.into()),
        (PropertyType::Bytes, ValueRef::Blob(b)) => Value::Bytes(b.into()),
        _ => return None,
    })
}

/// A value for a placeholder.
pub fn bound(bind: &Bind) -> SqlValue {
    // Sorts as what it stands for does: before or after every year that a column can have.
    let beyond = |before: bool| String::from(if before { "" } else { "~" });
    match bind {
        Bind::Bool(b) => SqlValue::Integer(i64::from(*b)),
        Bind::Int(n) => SqlValue::Integer(*n),
        Bind::Number(x) => SqlValue::Real(*x),
        Bind::Text(s) | Bind::Json(s) => SqlValue::Text(s.clone()),
        Bind::Date(days) => SqlValue::Text(date_text(*days).unwrap_or_else(|| beyond(*days < 0))),
        Bind::Instant(micros) => SqlValue::Text(instant_text(*micros).unwrap_or_else(|| beyond(*micros < 0))),
        Bind::Uuid(u) => SqlValue::Text(uuid::Uuid::from_bytes(*u).to_string()),
        Bind::Bytes(b) => SqlValue::Blob(b.clone()),
        Bind::Ids(ids) => {
            let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
            SqlValue::Text(serde_json::Value::from(ids).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil;

    use super::*;

    #[test]
    fn instants_are_text_in_the_order_of_time() {
        let year =
            |y: i16| civil::date(y, 1, 1).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_microsecond();
        let times = [year(0), year(999), -1, 0, 1, 999_999, 1_000_000, year(9999)];
        let texts: Vec<String> = times.iter().map(|t| instant_text(*t).unwrap()).collect();
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts[3], "1970-01-01T00:00:00.000000Z");
        assert_eq!(instant_text(year(-1)), None);
        assert_eq!((date_text(i32::MAX), date_text(-1).as_deref()), (None, Some("1969-12-31")));
        let before = bound(&Bind::Instant(year(-1)));
        assert_eq!(before, SqlValue::Text(String::new()));
        assert!(encode(PropertyType::DateTime, &Value::DateTime(year(-1))).is_err());
    }
}
