//! JSON tokens, appended to a buffer. For the writers that stream; whoever has a tree uses `serde_json`.

use std::io::Write;

use base64::Engine;

use crate::model::Value;
use crate::model::value::{format_date, format_instant};

/// `"text"`, escaped as RFC 8259 §7 demands and no further.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// The inside of a JSON string.
pub fn escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, b) in bytes.iter().enumerate() {
        let short = match b {
            b'"' | b'\\' => *b,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        if short == 0 {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (b >> 4), HEX[usize::from(b & 15)]]);
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

/// The shortest decimal that reads back as `n`; `null` of what is not finite.
pub fn number(out: &mut Vec<u8>, n: f64) {
    if n.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(n).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

pub fn integer(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// A property's value: dates `"YYYY-MM-DD"`, instants `"YYYY-MM-DDThh:mm:ss[.ffffff]Z"`, UUIDs as text, bytes as base64, JSON
/// as it is.
pub fn value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(n) => integer(out, *n),
        Value::Number(n) => number(out, *n),
        Value::String(s) => string(out, s),
        Value::Json(s) => out.extend_from_slice(s.as_bytes()),
        Value::Date(days) => {
            out.push(b'"');
            date(out, *days);
            out.push(b'"');
        }
        Value::DateTime(micros) => {
            out.push(b'"');
            instant(out, *micros);
            out.push(b'"');
        }
        Value::Uuid(u) => {
            let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
            string(out, uuid::Uuid::from_bytes(*u).hyphenated().encode_lower(&mut buffer));
        }
        Value::Bytes(b) => {
            out.push(b'"');
            out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(b).as_bytes());
            out.push(b'"');
        }
    }
}

/// Days of the years 0000 to 9999, which have four digits; what lies outside takes the slow way.
const FOUR_DIGIT_YEARS: std::ops::Range<i64> = -719_528..2_932_897;

/// `YYYY-MM-DD` of days since 1970-01-01.
pub fn date(out: &mut Vec<u8>, days: i32) {
    if FOUR_DIGIT_YEARS.contains(&days.into()) {
        plain_date(out, days.into());
    } else {
        out.extend_from_slice(format_date(days).as_bytes());
    }
}

/// `YYYY-MM-DDThh:mm:ss[.ffffff]Z` of microseconds since 1970-01-01, without the fraction's last zeros.
pub fn instant(out: &mut Vec<u8>, micros: i64) {
    const DAY: i64 = 86_400_000_000;
    let (days, in_day) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    if !FOUR_DIGIT_YEARS.contains(&days) {
        out.extend_from_slice(format_instant(micros).as_bytes());
        return;
    }
    plain_date(out, days);
    let (second, fraction) = (in_day / 1_000_000, in_day % 1_000_000);
    let [h1, h2] = two_digits(second / 3600);
    let [m1, m2] = two_digits(second / 60 % 60);
    let [s1, s2] = two_digits(second % 60);
    out.extend_from_slice(&[b'T', h1, h2, b':', m1, m2, b':', s1, s2]);
    if fraction != 0 {
        let _ = write!(out, ".{fraction:06}");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'Z');
}

/// The proleptic Gregorian date of a day with a year of four digits, counted in 400-year eras that begin on 1 March.
fn plain_date(out: &mut Vec<u8>, days: i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let ([c1, c2], [y1, y2]) = (two_digits(year / 100), two_digits(year % 100));
    let ([m1, m2], [d1, d2]) = (two_digits(month), two_digits(day));
    out.extend_from_slice(&[c1, c2, y1, y2, b'-', m1, m2, b'-', d1, d2]);
}

fn two_digits(n: i64) -> [u8; 2] {
    [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(f: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_borders_of_the_fast_dates() {
        for days in [-719_529, -719_528, -719_468, -1, 0, 59, 60, 11_016, 11_017, 2_932_896, 2_932_897] {
            assert_eq!(text(|o| date(o, days)), format_date(days), "{days}");
        }
    }

    /// `any::<String>()` has none of these.
    #[test]
    fn control_characters_are_escaped() {
        let all: String = ('\0'..='\u{a0}').collect();
        assert_eq!(serde_json::from_str::<String>(&text(|o| string(o, &all))).unwrap(), all);
    }

    proptest! {
        #[test]
        fn strings_are_json(s in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&text(|o| string(o, &s))).unwrap(), s);
        }

        #[test]
        fn numbers_round_trip(n in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let text = text(|o| number(o, n));
            prop_assert!(serde_json::from_str::<serde_json::Number>(&text).is_ok());
            prop_assert_eq!(text.parse::<f64>().unwrap(), n);
        }

        #[test]
        fn dates_and_instants_are_those_of_the_calendar(days in -800_000i32..3_000_000, micros in -70_000_000_000_000_000i64..260_000_000_000_000_000) {
            prop_assert_eq!(text(|o| date(o, days)), format_date(days));
            prop_assert_eq!(text(|o| instant(o, micros)), format_instant(micros));
        }
    }
}
