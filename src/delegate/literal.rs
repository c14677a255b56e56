//! Values as PostgreSQL literals, for statements that take no parameters (`DECLARE CURSOR` in the simple protocol).
//!
//! Invariant: whatever the text, a literal is one constant. It holds under either setting of `standard_conforming_strings`,
//! and in UTF-8, which the connection is told to speak.

use std::fmt::Write;

use super::sql::Bind;
use crate::model::value::{format_date, format_instant};

/// PostgreSQL's first day, 4713-11-24 BC (Gregorian), in days since 1970-01-01. What lies before it is before everything.
const FIRST_DAY: i32 = -2_440_588;
/// 0001-01-01, the first day that is written without 'BC'.
const FIRST_DAY_AD: i32 = -719_162;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A constant expression of the value's type.
pub fn literal(value: &Bind) -> String {
    match value {
        Bind::Bool(b) => format!("'{b}'::bool"),
        Bind::Int(n) => format!("'{n}'::int8"),
        // The shortest digits that read back as the same double.
        Bind::Number(x) => format!("'{x:?}'::float8"),
        // JSON is sorted as text.
        Bind::Text(s) | Bind::Json(s) => format!("{}::text", text(s)),
        Bind::Date(days) => format!("'{}'::date", date(*days)),
        Bind::Instant(micros) => format!("'{}'::timestamptz", instant(*micros)),
        Bind::Uuid(bytes) => format!("'{}'::uuid", hex(bytes)),
        Bind::Bytes(bytes) => format!("{}::bytea", text(&format!("\\x{}", hex(bytes)))),
        Bind::Ids(ids) => {
            let ids: Vec<String> = ids.iter().map(|id| text(id)).collect();
            format!("ARRAY[{}]::text[]", ids.join(","))
        }
    }
}

/// A string constant. U+0000, which no text in PostgreSQL has and which would end the statement, is left out.
pub fn text(s: &str) -> String {
    let quoted = s.replace('\0', "").replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, b| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{b:02x}");
        hex
    })
}

fn date(days: i32) -> String {
    match days {
        ..FIRST_DAY => "-infinity".into(),
        FIRST_DAY..FIRST_DAY_AD => bc(days, ""),
        _ => format_date(days),
    }
}

fn instant(micros: i64) -> String {
    let days = micros.div_euclid(MICROS_PER_DAY) as i32;
    match days {
        ..FIRST_DAY => "-infinity".into(),
        FIRST_DAY..FIRST_DAY_AD => {
            // The time of day, on a day that needs no 'BC'.
            let time = format_instant(micros.rem_euclid(MICROS_PER_DAY));
            bc(days, &format!(" {}", &time[11..]))
        }
        _ => format_instant(micros),
    }
}

/// jiff counts years as ISO 8601 does: the year 0 is 1 BC.
fn bc(days: i32, time: &str) -> String {
    let day = jiff::civil::date(1970, 1, 1).saturating_add(jiff::Span::new().days(days));
    format!("{:04}-{:02}-{:02}{time} BC", 1 - day.year(), day.month(), day.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_quotes() {
        for (plain, quoted) in [
            ("a", "'a'"),
            ("", "''"),
            ("'; DROP TABLE ships; --", "'''; DROP TABLE ships; --'"),
            ("\\'; --", "E'\\\\''; --'"),
            ("\\", "E'\\\\'"),
            ("a\0'b", "'a''b'"),
            ("$1 $$ ?1 \u{2019}", "'$1 $$ ?1 \u{2019}'"),
        ] {
            assert_eq!(text(plain), quoted);
        }
        assert_eq!(literal(&Bind::Ids(vec!["a'".into(), "\\".into()])), "ARRAY['a''',E'\\\\']::text[]");
    }

    #[test]
    fn values_are_written_whole() {
        assert_eq!(literal(&Bind::Int(i64::MIN)), "'-9223372036854775808'::int8");
        assert_eq!(literal(&Bind::Number(-0.0)), "'-0.0'::float8");
        assert_eq!(literal(&Bind::Number(5e-324)), "'5e-324'::float8");
        assert_eq!(literal(&Bind::Bytes(vec![0, 255])), "E'\\\\x00ff'::bytea");
        assert_eq!(literal(&Bind::Date(0)), "'1970-01-01'::date");
        assert_eq!(literal(&Bind::Date(FIRST_DAY_AD)), "'0001-01-01'::date");
        assert_eq!(literal(&Bind::Date(FIRST_DAY_AD - 1)), "'0001-12-31 BC'::date");
        assert_eq!(literal(&Bind::Date(i32::MIN)), "'-infinity'::date");
        assert_eq!(literal(&Bind::Instant(-1)), "'1969-12-31T23:59:59.999999Z'::timestamptz");
        let before_christ = i64::from(FIRST_DAY_AD) * MICROS_PER_DAY - 1;
        assert_eq!(literal(&Bind::Instant(before_christ)), "'0001-12-31 23:59:59.999999Z BC'::timestamptz");
    }
}
