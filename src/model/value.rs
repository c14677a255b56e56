//! Property values and their types. Values are canonical from the moment they are parsed, so that both tiers compare,
//! sort and print them alike: instants in UTC microseconds, dates in days, finite numbers, text without U+0000, JSON normalised.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// The type of a property. The names are those of the settings and of `POST /collections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PropertyType {
    String,
    /// Integers of 32 bits.
    Int32,
    /// Integers of 64 bits.
    #[serde(alias = "integer")]
    Int64,
    /// IEEE 754 double; NaN and infinities are refused.
    Number,
    Boolean,
    /// A calendar day of the years 1 to 9999, which every store and format has.
    Date,
    /// An instant of the years 1 to 9999, in UTC, to the microsecond.
    DateTime,
    Uuid,
    /// Any JSON value, kept in normalised text.
    Json,
    Bytes,
}

/// A property's value. `Null` stands for 'not there' in every type.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    /// Both integer types.
    Int(i64),
    Number(f64),
    String(Box<str>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00Z.
    DateTime(i64),
    Uuid([u8; 16]),
    /// Normalised JSON text: no insignificant white space, members sorted by name.
    Json(Box<str>),
    Bytes(Box<[u8]>),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Microseconds since the epoch.
    pub fn as_date_time(&self) -> Option<i64> {
        if let Value::DateTime(micros) = self { Some(*micros) } else { None }
    }

    /// True when this value may stand in a property of type `kind`; `Null` may stand anywhere.
    pub fn is_of(&self, kind: PropertyType) -> bool {
        match (self, kind) {
            (Value::Null, _)
            | (Value::Bool(_), PropertyType::Boolean)
            | (Value::Int(_), PropertyType::Int64)
            | (Value::String(_), PropertyType::String)
            | (Value::Uuid(_), PropertyType::Uuid)
            | (Value::Json(_), PropertyType::Json)
            | (Value::Bytes(_), PropertyType::Bytes) => true,
            (Value::Date(days), PropertyType::Date) => DAYS.contains(days),
            (Value::DateTime(micros), PropertyType::DateTime) => MICROS.contains(micros),
            (Value::Int(n), PropertyType::Int32) => i32::try_from(*n).is_ok(),
            (Value::Number(n), PropertyType::Number) => n.is_finite(),
            _ => false,
        }
    }

    /// As a value of `kind`, to which its own type widens; any other one as it is.
    pub fn widened(self, kind: PropertyType) -> Value {
        match (self, kind) {
            (Value::Int(n), PropertyType::Number) if i32::try_from(n).is_ok() => Value::Number(n as f64),
            (value, _) => value,
        }
    }

    /// The order of two values of one property type: nulls last, text by the bytes of its UTF-8 (`COLLATE "C"`).
    /// Integers compare with numbers by value, for literals in filters.
    pub fn sort_cmp(&self, other: &Value) -> Ordering {
        use Value::*;
        match (self, other) {
            (Null, Null) => Ordering::Equal,
            (Null, _) => Ordering::Greater,
            (_, Null) => Ordering::Less,
            _ => self.compare(other).unwrap_or(Ordering::Equal),
        }
    }

    /// How two values compare in a filter; `None` when either is null or the types do not compare.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        use Value::*;
        match (self, other) {
            (Bool(a), Bool(b)) => Some(a.cmp(b)),
            (Int(a), Int(b)) => Some(a.cmp(b)),
            (Number(a), Number(b)) => a.partial_cmp(b),
            (Int(a), Number(b)) => (*a as f64).partial_cmp(b),
            (Number(a), Int(b)) => a.partial_cmp(&(*b as f64)),
            (String(a), String(b)) | (Json(a), Json(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Date(a), Date(b)) => Some(a.cmp(b)),
            (DateTime(a), DateTime(b)) => Some(a.cmp(b)),
            (Date(a), DateTime(b)) => Some(day_start(*a).cmp(b)),
            (DateTime(a), Date(b)) => Some(a.cmp(&day_start(*b))),
            (Uuid(a), Uuid(b)) => Some(a.cmp(b)),
            (Bytes(a), Bytes(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// Bytes this value holds on the heap; for the index's account of its memory.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::String(s) | Value::Json(s) => s.len(),
            Value::Bytes(b) => b.len(),
            _ => 0,
        }
    }
}

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// 0001-01-01 to 9999-12-31.
const DAYS: RangeInclusive<i32> = -719_162..=2_932_896;
/// The instants of those days.
const MICROS: RangeInclusive<i64> = -719_162 * MICROS_PER_DAY..=2_932_897 * MICROS_PER_DAY - 1;

fn day_start(days: i32) -> i64 {
    i64::from(days) * MICROS_PER_DAY
}

impl PropertyType {
    pub const ALL: [PropertyType; 10] = {
        use PropertyType::*;
        [String, Int32, Int64, Number, Boolean, Date, DateTime, Uuid, Json, Bytes]
    };

    /// Reads a value from text, as XML, CSV and query strings carry it (XSD's lexical forms, with the tolerance clients
    /// need: `t`/`1`/`yes` for booleans, `5.0` for integers, a date-time where a date is asked, a missing zone meaning UTC).
    /// Empty text is null in every type but `String`. The error says what was expected.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        if self == PropertyType::String {
            if text.contains('\0') {
                return Err("text may not contain U+0000".into());
            }
            return Ok(Value::String(text.into()));
        }
        let t = text.trim();
        if t.is_empty() {
            return Ok(Value::Null);
        }
        match self {
            PropertyType::String => unreachable!("handled above"),
            PropertyType::Int32 => parse_integer(t)
                .filter(|n| i32::try_from(*n).is_ok())
                .map(Value::Int)
                .ok_or_else(|| format!("'{t}' is not a 32-bit integer")),
            PropertyType::Int64 => {
                parse_integer(t).map(Value::Int).ok_or_else(|| format!("'{t}' is not a 64-bit integer"))
            }
            PropertyType::Number => t
                .parse::<f64>()
                .ok()
                .filter(|n| n.is_finite())
                // Zero has no sign: SQLite keeps none.
                .map(|n| Value::Number(n + 0.0))
                .ok_or_else(|| format!("'{t}' is not a finite number")),
            PropertyType::Boolean => match t.to_ascii_lowercase().as_str() {
                "true" | "t" | "1" | "yes" => Ok(Value::Bool(true)),
                "false" | "f" | "0" | "no" => Ok(Value::Bool(false)),
                _ => Err(format!("'{t}' is not a boolean")),
            },
            PropertyType::Date => {
                parse_date(t).map(Value::Date).ok_or_else(|| format!("'{t}' is not a date (YYYY-MM-DD)"))
            }
            PropertyType::DateTime => parse_instant(t)
                .map(Value::DateTime)
                .ok_or_else(|| format!("'{t}' is not an ISO 8601 date-time (YYYY-MM-DDThh:mm:ssZ)")),
            PropertyType::Uuid => {
                uuid::Uuid::try_parse(t).map(|u| Value::Uuid(*u.as_bytes())).map_err(|_| format!("'{t}' is not a UUID"))
            }
            PropertyType::Json => match serde_json::from_str::<serde_json::Value>(t) {
                Ok(v) if has_nul(&v) => Err("JSON may not contain U+0000 here".into()),
                Ok(v) => Ok(Value::Json(v.to_string().into())),
                Err(e) => Err(format!("not JSON: {e}")),
            },
            PropertyType::Bytes => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD
                    .decode(t)
                    .map(|b| Value::Bytes(b.into()))
                    .map_err(|_| "not base64".to_string())
            }
        }
    }

    /// True when each value of this type is one of `wider` too, exactly: what was written under the one is read under the other.
    pub fn widens_to(self, wider: PropertyType) -> bool {
        matches!((self, wider), (PropertyType::Int32, PropertyType::Int64 | PropertyType::Number))
    }

    /// The name of this type in settings, `POST /collections` and messages.
    pub fn name(self) -> &'static str {
        match self {
            PropertyType::String => "string",
            PropertyType::Int32 => "int32",
            PropertyType::Int64 => "int64",
            PropertyType::Number => "number",
            PropertyType::Boolean => "boolean",
            PropertyType::Date => "date",
            PropertyType::DateTime => "date-time",
            PropertyType::Uuid => "uuid",
            PropertyType::Json => "json",
            PropertyType::Bytes => "bytes",
        }
    }
}

/// In a text or a member's name. PostgreSQL's JSON functions stop at it.
fn has_nul(json: &serde_json::Value) -> bool {
    use serde_json::Value::*;
    match json {
        Null | Bool(_) | Number(_) => false,
        String(text) => text.contains('\0'),
        Array(list) => list.iter().any(has_nul),
        Object(members) => members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
    }
}

fn parse_integer(t: &str) -> Option<i64> {
    // Clients that only know doubles write 5.0.
    t.parse::<i64>().ok().or_else(|| {
        let (whole, fraction) = t.split_once('.')?;
        fraction.bytes().all(|b| b == b'0').then(|| whole.parse().ok())?
    })
}

/// GDAL writes `2026/01/02 03:04:05+00` in WFS transactions.
fn with_dashes(t: &str) -> Cow<'_, str> {
    match t.as_bytes() {
        [_, _, _, _, b'/', _, _, b'/', ..] => Cow::Owned(t.replacen('/', "-", 2)),
        _ => Cow::Borrowed(t),
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`, with an optional zone or time after it, which are cut.
pub fn parse_date(t: &str) -> Option<i32> {
    let t = &*with_dashes(t);
    let day: jiff::civil::Date = t.get(..10)?.parse().ok()?;
    let rest = &t[10..];
    let zone_or_time = rest.is_empty() || rest == "Z" || rest.starts_with(['T', ' ', '+', '-']);
    let days = (day - jiff::civil::date(1970, 1, 1)).get_days();
    (zone_or_time && DAYS.contains(&days)).then_some(days)
}

/// Microseconds since the epoch of an ISO 8601 date-time or date; without a zone it is UTC. Leap seconds are clamped.
pub fn parse_instant(t: &str) -> Option<i64> {
    let t = &*with_dashes(t);
    let without_zone = || -> Option<jiff::Timestamp> {
        let civil: jiff::civil::DateTime = match t.parse() {
            Ok(civil) => civil,
            Err(_) => t.parse::<jiff::civil::Date>().ok()?.at(0, 0, 0, 0),
        };
        Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    let instant = t.parse::<jiff::Timestamp>().ok().or_else(without_zone)?;
    Some(instant.as_microsecond()).filter(|micros| MICROS.contains(micros))
}

/// `YYYY-MM-DD` of days since the epoch.
pub fn format_date(days: i32) -> String {
    jiff::civil::date(1970, 1, 1)
        .checked_add(jiff::Span::new().days(days))
        .map_or_else(|_| String::from("9999-12-31"), |d| d.to_string())
}

/// `YYYY-MM-DDThh:mm:ss[.ffffff]Z` of microseconds since the epoch.
pub fn format_instant(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| String::from("9999-12-31T23:59:59Z"), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_clients_write_it() {
        let ok = |t: PropertyType, s: &str| t.parse(s).unwrap();
        assert_eq!(ok(PropertyType::Int32, "5.0"), Value::Int(5));
        assert_eq!(ok(PropertyType::Boolean, "TRUE"), Value::Bool(true));
        assert_eq!(ok(PropertyType::Date, "1970-01-02Z"), Value::Date(1));
        assert_eq!(ok(PropertyType::DateTime, "1970-01-01T01:00:00+01:00"), Value::DateTime(0));
        assert_eq!(ok(PropertyType::DateTime, "1970-01-01T00:00:01.5"), Value::DateTime(1_500_000));
        assert_eq!(ok(PropertyType::DateTime, "1970/01/01 00:00:01.5+00"), Value::DateTime(1_500_000));
        assert_eq!(ok(PropertyType::Date, "1970/01/02"), Value::Date(1));
        assert_eq!(ok(PropertyType::Number, ""), Value::Null);
        assert_eq!(ok(PropertyType::String, ""), Value::String("".into()));
        assert_eq!(format!("{:?}", ok(PropertyType::Number, "-0.0")), "Number(0.0)");
        let json = r#"{"b":["\\u0000",1.7976931348623157e308,0.1000000000000000055],"a":-123456789.01234567}"#;
        let normal = r#"{"a":-123456789.01234567,"b":["\\u0000",1.7976931348623157e+308,0.1]}"#;
        assert_eq!(ok(PropertyType::Json, json), Value::Json(normal.into()));
        for (t, s) in [
            (PropertyType::Int32, "3000000000"),
            (PropertyType::Number, "NaN"),
            (PropertyType::Date, "2026-13-01"),
            (PropertyType::DateTime, "Tue Sep 13 1983"),
            (PropertyType::DateTime, "-000044-03-15T12:00:00Z"),
            (PropertyType::Date, "0000-12-31"),
            (PropertyType::String, "a\0b"),
            (PropertyType::Json, r#"["\u0000"]"#),
            (PropertyType::Json, r#"{"a":{"\u0000":1}}"#),
        ] {
            assert!(t.parse(s).is_err(), "{t:?} {s}");
        }
    }

    #[test]
    fn instants_print_as_they_are_read() {
        for s in ["2026-01-02T03:04:05Z", "1969-12-31T23:59:59.000001Z"] {
            assert_eq!(format_instant(parse_instant(s).unwrap()), s);
        }
        assert_eq!(format_date(parse_date("2024-02-29").unwrap()), "2024-02-29");
    }
}
