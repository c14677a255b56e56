//! CQL2's JSON encoding into the expressions that its text makes. Values stay slices of the text, which so tell where they stand
//! and keep their digits.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::{CqlError, Expr, Kind, MAX_DEPTH, call, edges_of};
use crate::format::geojson;

type Parsed = Result<Expr, CqlError>;

pub(super) fn parse(text: &str) -> Parsed {
    let document = serde_json::from_str::<&RawValue>(text).map_err(|e| {
        let line_begins: usize = text.split_inclusive('\n').take(e.line().saturating_sub(1)).map(str::len).sum();
        let before = text.floor_char_boundary(line_begins + e.column().saturating_sub(1));
        CqlError { at: text[..before].chars().count() + 1, what: format!("this is not JSON: {e}") }
    })?;
    Reader { text }.expression(document, 0)
}

struct Reader<'a> {
    text: &'a str,
}

impl<'a> Reader<'a> {
    /// The character at which a value begins.
    fn at(&self, value: &RawValue) -> usize {
        let begin = value.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        self.text.get(..begin).map_or(1, |before| before.chars().count() + 1)
    }

    fn error(&self, value: &RawValue, what: impl Into<String>) -> CqlError {
        CqlError { at: self.at(value), what: what.into() }
    }

    fn expression(&self, value: &'a RawValue, depth: usize) -> Parsed {
        if depth > MAX_DEPTH {
            return Err(self.error(value, format!("this is nested deeper than {MAX_DEPTH}")));
        }
        let kind = match value.get().as_bytes().first() {
            Some(b'{') => return self.object(value, depth),
            Some(b'[') => Kind::List(self.all(value, depth)?),
            Some(b'"') => Kind::Text(self.string(value)?),
            Some(b't') => Kind::Bool(true),
            Some(b'f') => Kind::Bool(false),
            Some(b'n') => return Err(self.error(value, "null is no value; isNull asks for it")),
            _ => Kind::Number(value.get().to_owned()),
        };
        Ok(Expr { at: self.at(value), kind })
    }

    fn object(&self, value: &'a RawValue, depth: usize) -> Parsed {
        let at = self.at(value);
        let members: HashMap<String, &'a RawValue> =
            serde_json::from_str(value.get()).map_err(|e| self.error(value, e.to_string()))?;
        let member = |name: &str| members.get(name).copied();
        let of = |kind| Ok(Expr { at, kind });
        if let Some(op) = member("op") {
            let name = self.string(op)?.to_ascii_lowercase();
            let arguments = member("args").ok_or_else(|| self.error(value, "\"args\" is missing"))?;
            return Ok(call(at, &name, self.arguments(&name, arguments, depth)?));
        }
        if let Some(name) = member("property") {
            return of(Kind::Property(self.string(name)?));
        }
        if let Some(instant) = member("date").or(member("timestamp")) {
            return of(Kind::Text(self.string(instant)?));
        }
        if let Some(ends) = member("interval") {
            return match <[Expr; 2]>::try_from(self.all(ends, depth)?) {
                Ok([begin, end]) => of(Kind::Period(begin.into(), end.into())),
                Err(_) => Err(self.error(ends, "an interval has two ends")),
            };
        }
        if let Some(numbers) = member("bbox") {
            let edges = serde_json::from_str::<Vec<f64>>(numbers.get()).ok().and_then(|n| edges_of(&n));
            return of(Kind::Box(edges.ok_or_else(|| self.error(numbers, "a box has four or six numbers"))?));
        }
        if member("type").is_some() {
            let geometry = geojson::geometry_as_written(value.get());
            return of(Kind::Geometry(geometry.map_err(|e| self.error(value, e.to_string()))?));
        }
        let wanted =
            "\"op\" with \"args\", \"property\", \"date\", \"timestamp\", \"interval\", \"bbox\" or a geometry";
        Err(self.error(value, format!("an object has {wanted}")))
    }

    /// The list of IN is part of its arguments, as in text.
    fn arguments(&self, name: &str, arguments: &'a RawValue, depth: usize) -> Result<Vec<Expr>, CqlError> {
        let mut all = self.all(arguments, depth)?;
        if name == "in" {
            match all.pop() {
                Some(Expr { kind: Kind::List(list), .. }) if all.len() == 1 => all.extend(list),
                _ => return Err(self.error(arguments, "in takes a value and an array of values")),
            }
        }
        Ok(all)
    }

    fn all(&self, list: &'a RawValue, depth: usize) -> Result<Vec<Expr>, CqlError> {
        let items: Vec<&'a RawValue> =
            serde_json::from_str(list.get()).map_err(|_| self.error(list, "an array is expected here"))?;
        items.into_iter().map(|item| self.expression(item, depth + 1)).collect()
    }

    fn string(&self, value: &RawValue) -> Result<String, CqlError> {
        serde_json::from_str(value.get()).map_err(|_| self.error(value, "a text is expected here"))
    }
}
