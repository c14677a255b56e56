//! JSON text: what is wrong with it and where, and the members of an object, whose values stay text.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::SchemaError;
use crate::model::feature_type::GEOMETRY;

/// What is wrong with a body, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParseError {
    /// JSON pointer (RFC 6901) of the member at fault; empty: the whole.
    pub pointer: String,
    pub message: String,
}

impl ParseError {
    pub(super) fn new(message: impl Into<String>) -> ParseError {
        ParseError { pointer: String::new(), message: message.into() }
    }

    /// The same error, seen from the object or array that has it in `member`.
    pub(super) fn within(mut self, member: impl fmt::Display) -> ParseError {
        let member = member.to_string().replace('~', "~0").replace('/', "~1");
        self.pointer = format!("/{member}{}", self.pointer);
        self
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => f.write_str(&self.message),
            pointer => write!(f, "{pointer}: {}", self.message),
        }
    }
}

impl std::error::Error for ParseError {}

impl From<SchemaError> for ParseError {
    fn from(e: SchemaError) -> ParseError {
        match e.locator.as_str() {
            GEOMETRY => ParseError::new(e.what).within("geometry"),
            property => ParseError::new(e.what).within(property).within("properties"),
        }
    }
}

pub(super) fn text_of(bytes: &[u8]) -> Result<&str, ParseError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|e| ParseError::new(format!("not UTF-8 at byte {}", e.valid_up_to())))
}

/// A string that borrows where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) fn unescaped(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|t| t.0)
}

/// The members of an object, in order.
pub(super) fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, ParseError> {
    struct All;
    impl<'de> Visitor<'de> for All {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::with_capacity(8);
            while let Some((Text(name), value)) = map.next_entry()? {
                all.push((name, value));
            }
            Ok(all)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let all = json.deserialize_map(All).and_then(|all| json.end().map(|()| all));
    all.map_err(|e| ParseError::new(e.to_string()))
}

/// Those members of an object that have these names.
pub(super) fn named<'t, const N: usize>(
    text: &'t str,
    names: [&str; N],
) -> Result<[Option<&'t RawValue>; N], ParseError> {
    let mut found = [None; N];
    for (name, raw) in members(text)? {
        if let Some(i) = names.iter().position(|n| *n == name)
            && found[i].replace(raw).is_some()
        {
            return Err(ParseError::new("the member is given twice").within(name));
        }
    }
    Ok(found)
}
