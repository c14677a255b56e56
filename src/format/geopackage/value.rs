//! Columns of a table: their types, and how each value is written in SQLite.
//!
//! Invariant: within a column the order of SQLite (`BINARY`) is that of [`Value::sort_cmp`]. Instants and days are text of a
//! fixed width, which holds for the years 0 to 9999; others are refused.

use jiff::civil;
use jiff::tz::Offset as Zone;
use rusqlite::types::{ToSqlOutput, Value as SqlValue, ValueRef};

use crate::model::{PropertyType, Value};

/// The type of a property's column (OGC 12-128r17, table 1).
pub fn column_type(kind: PropertyType) -> &'static str {
    match kind {
        PropertyType::String | PropertyType::Uuid | PropertyType::Json => "TEXT",
        PropertyType::Int32 => "MEDIUMINT",
        PropertyType::Int64 => "INTEGER",
        PropertyType::Number => "DOUBLE",
        PropertyType::Boolean => "BOOLEAN",
        PropertyType::Date => "DATE",
        PropertyType::DateTime => "DATETIME",
        PropertyType::Bytes => "BLOB",
    }
}

/// A value for its column. The error says why this column cannot have it.
pub fn encode(kind: PropertyType, value: &Value) -> Result<ToSqlOutput<'_>, String> {
    if !value.is_of(kind) {
        return Err(format!("not of type {}", kind.name()));
    }
    let borrowed = ToSqlOutput::Borrowed;
    let owned = |s: String| ToSqlOutput::Owned(SqlValue::Text(s));
    Ok(match value {
        Value::Null => borrowed(ValueRef::Null),
        Value::Bool(b) => borrowed(ValueRef::Integer(i64::from(*b))),
        Value::Int(n) => borrowed(ValueRef::Integer(*n)),
        Value::Number(x) => borrowed(ValueRef::Real(*x)),
        Value::String(s) | Value::Json(s) => borrowed(ValueRef::Text(s.as_bytes())),
        Value::Date(days) => owned(date_text(*days).ok_or("the year is not between 0 and 9999")?),
        Value::DateTime(micros) => owned(instant_text(*micros).ok_or("the year is not between 0 and 9999")?),
        Value::Uuid(u) => owned(uuid::Uuid::from_bytes(*u).to_string()),
        Value::Bytes(b) => borrowed(ValueRef::Blob(b)),
    })
}

/// A day as the format has it; `None` of a year before 0 or after 9999.
pub fn date_text(days: i32) -> Option<String> {
    let day = civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok()?;
    (day.year() >= 0).then(|| format!("{:04}-{:02}-{:02}", day.year(), day.month(), day.day()))
}

/// An instant likewise, with six digits of the second.
pub fn instant_text(micros: i64) -> Option<String> {
    let t = Zone::UTC.to_datetime(jiff::Timestamp::from_microsecond(micros).ok()?);
    (t.year() >= 0).then(|| {
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            t.year(),
            t.month(),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.subsec_nanosecond() / 1000
        )
    })
}
