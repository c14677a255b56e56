//! Where settings come from: a TOML file, then the environment over it, as one tree that serde reads. Declarations of feature
//! types in JSON are read through the same tree.
//!
//! `ALLUVIUM__SECTION__KEY` sets `section.key`; what the text means is decided by the type of the key that it is read into.
//! In the strings of the file, `${NAME}` stands for an environment variable and `${file:PATH}` for a file's content without
//! its last line break; a string with one of these is read like the environment's text. Every error names its key.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::de::value::StringDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

/// The environment variables of settings begin so.
pub const PREFIX: &str = "ALLUVIUM__";

/// One setting or a section of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Table(BTreeMap<String, Node>),
    List(Vec<Node>),
    /// A value of the file, of its own type.
    Value(toml::Value),
    /// Text whose type is that of the key it is for.
    Text(String),
}

/// What is wrong with the settings, and where.
#[derive(Debug, PartialEq)]
pub struct Error {
    /// The keys from the root: `["server", "listen"]`.
    path: Vec<String>,
    what: String,
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.path.join("."), self.what) }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: Display>(what: T) -> Self {
        Error { path: Vec::new(), what: what.to_string() }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Error { path: vec![field.to_owned()], what: format!("there is no such key; there are {}", expected.join(", ")) }
    }

    fn missing_field(field: &'static str) -> Self {
        Error { path: vec![field.to_owned()], what: "this key is required".to_owned() }
    }
}

impl Error {
    /// An error of the key at `path`, dotted.
    pub fn at(path: &str, what: impl Into<String>) -> Error {
        Error { path: path.split('.').map(str::to_owned).collect(), what: what.into() }
    }

    /// Where, as a JSON pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        self.path.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect()
    }

    fn under(mut self, key: &str) -> Error {
        self.path.insert(0, key.to_owned());
        self
    }

    /// The environment variable that set the key at fault, if one did.
    pub fn variable(&self, variables: &[(String, String)]) -> Option<String> {
        let name = format!("{PREFIX}{}", self.path.join("__").to_ascii_uppercase());
        variables.iter().any(|(n, _)| n.eq_ignore_ascii_case(&name)).then_some(name)
    }
}

/// Reads a file's text.
pub fn from_toml(text: &str, lookup: &dyn Fn(&str) -> Result<String, String>) -> Result<Node, Error> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| Error { path: vec![], what: e.to_string() })?;
    node(toml::Value::Table(table), lookup)
}

/// Reads a JSON document, which may use the same keys; null stands for a key that is not there.
pub fn from_json(text: &[u8]) -> Result<Node, Error> {
    let json = serde_json::from_slice(text).map_err(|e| <Error as de::Error>::custom(format!("not JSON: {e}")))?;
    Ok(of_json(json))
}

fn of_json(json: serde_json::Value) -> Node {
    use serde_json::Value as Json;
    Node::Value(match json {
        Json::Object(members) => {
            let there = members.into_iter().filter(|(_, value)| !value.is_null());
            return Node::Table(there.map(|(key, value)| (key, of_json(value))).collect());
        }
        Json::Array(list) => return Node::List(list.into_iter().map(of_json).collect()),
        Json::Null => return Node::Text(String::new()),
        Json::Bool(b) => toml::Value::Boolean(b),
        Json::String(text) => toml::Value::String(text),
        Json::Number(n) => match n.as_i64() {
            Some(n) => toml::Value::Integer(n),
            None => toml::Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
    })
}

fn node(value: toml::Value, lookup: &dyn Fn(&str) -> Result<String, String>) -> Result<Node, Error> {
    Ok(match value {
        toml::Value::Table(t) => Node::Table(
            t.into_iter()
                .map(|(k, v)| node(v, lookup).map(|n| (k.clone(), n)).map_err(|e| e.under(&k)))
                .collect::<Result<_, _>>()?,
        ),
        toml::Value::Array(a) => Node::List(
            a.into_iter()
                .enumerate()
                .map(|(i, v)| node(v, lookup).map_err(|e| e.under(&i.to_string())))
                .collect::<Result<_, _>>()?,
        ),
        toml::Value::String(s) if s.contains("${") => {
            Node::Text(substitute(&s, lookup).map_err(|what| Error { path: vec![], what })?)
        }
        other => Node::Value(other),
    })
}

fn substitute(text: &str, lookup: &dyn Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or_else(|| format!("'${{' without '}}' in '{text}'"))?;
        out.push_str(before);
        out.push_str(&lookup(name)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// What `${name}` stands for.
pub fn system_lookup(name: &str) -> Result<String, String> {
    match name.strip_prefix("file:") {
        Some(path) => std::fs::read_to_string(path)
            .map(|s| s.strip_suffix('\n').map_or(s.clone(), |t| t.trim_end_matches('\r').to_owned()))
            .map_err(|e| format!("${{{name}}}: {e}")),
        None => std::env::var(name).map_err(|_| format!("the environment variable {name} is not set")),
    }
}

impl Node {
    pub fn empty() -> Node {
        Node::Table(BTreeMap::new())
    }

    /// Puts the variables that begin with [`PREFIX`] over this tree.
    pub fn overlay(&mut self, variables: &[(String, String)]) {
        for (name, value) in variables {
            if let Some(path) = name.strip_prefix(PREFIX) {
                let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
                self.set(&keys, Node::Text(value.clone()));
            }
        }
    }

    /// Sets the node at `keys`, making the tables on the way.
    pub fn set(&mut self, keys: &[String], value: Node) {
        let Some((first, rest)) = keys.split_first() else {
            *self = value;
            return;
        };
        if !matches!(self, Node::Table(_)) {
            *self = Node::empty();
        }
        if let Node::Table(table) = self {
            table.entry(first.clone()).or_insert_with(Node::empty).set(rest, value);
        }
    }
}

/// Text into what is asked: `parse::<T>()` with an error that shows the text.
macro_rules! scalar {
    ($($method:ident => $visit:ident: $type:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self {
                Node::Text(t) => match t.trim().parse::<$type>() {
                    Ok(v) => visitor.$visit(v),
                    Err(_) => Err(de::Error::custom(format!(concat!("'{}' is not ", $what), t))),
                },
                other => other.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Table(table) => visitor.visit_map(Entries { rest: table.into_iter(), value: None }),
            Node::List(list) => visitor.visit_seq(Elements { rest: list.into_iter().enumerate() }),
            Node::Value(v) => {
                v.deserialize_any(visitor).map_err(|e| Error { path: vec![], what: e.message().to_owned() })
            }
            // A number or a word, where either is allowed (`expiry`).
            Node::Text(t) => match t.parse::<f64>() {
                Ok(n) => visitor.visit_f64(n),
                Err(_) => visitor.visit_string(t),
            },
        }
    }

    scalar! {
        deserialize_bool => visit_bool: bool, "true or false";
        deserialize_i8 => visit_i64: i64, "an integer";
        deserialize_i16 => visit_i64: i64, "an integer";
        deserialize_i32 => visit_i64: i64, "an integer";
        deserialize_i64 => visit_i64: i64, "an integer";
        deserialize_u8 => visit_u64: u64, "an integer that is not negative";
        deserialize_u16 => visit_u64: u64, "an integer that is not negative";
        deserialize_u32 => visit_u64: u64, "an integer that is not negative";
        deserialize_u64 => visit_u64: u64, "an integer that is not negative";
        deserialize_f32 => visit_f64: f64, "a number";
        deserialize_f64 => visit_f64: f64, "a number";
        deserialize_string => visit_string: String, "a text";
        deserialize_str => visit_string: String, "a text";
        deserialize_identifier => visit_string: String, "a text";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Text(t) if t.is_empty() => visitor.visit_none(),
            other => visitor.visit_some(other),
        }
    }

    /// Text is a list separated by commas.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Text(t) => {
                let parts = t.split(',').map(str::trim).filter(|p| !p.is_empty());
                let list: Vec<Node> = parts.map(|p| Node::Text(p.to_owned())).collect();
                visitor.visit_seq(Elements { rest: list.into_iter().enumerate() })
            }
            other => other.deserialize_any(visitor),
        }
    }

    /// Text is `key=value` pairs separated by commas.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Text(t) => {
                let pairs = t.split(',').map(str::trim).filter(|p| !p.is_empty()).map(|pair| {
                    let (key, value) = pair
                        .split_once('=')
                        .ok_or_else(|| <Error as de::Error>::custom(format!("'{pair}' is not a pair key=value")))?;
                    Ok((key.trim().to_owned(), Node::Text(value.trim().to_owned())))
                });
                let table: BTreeMap<String, Node> = pairs.collect::<Result<_, Error>>()?;
                visitor.visit_map(Entries { rest: table.into_iter(), value: None })
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Node::Table(_) => self.deserialize_any(visitor),
            _ => Err(de::Error::custom("this is a section with keys of its own, not a value")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Node::Text(t) | Node::Value(toml::Value::String(t)) => visitor.visit_enum(Word(t)),
            _ => Err(de::Error::custom("a word is expected")),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct ignored_any
    }
}

struct Entries {
    rest: std::collections::btree_map::IntoIter<String, Node>,
    value: Option<(String, Node)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some((key.clone(), value));
        seed.deserialize(StringDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (key, value) = self.value.take().ok_or_else(|| <Error as de::Error>::custom("a value without its key"))?;
        seed.deserialize(value).map_err(|e| e.under(&key))
    }
}

struct Elements {
    rest: std::iter::Enumerate<std::vec::IntoIter<Node>>,
}

impl<'de> SeqAccess<'de> for Elements {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((i, node)) = self.rest.next() else { return Ok(None) };
        seed.deserialize(node).map(Some).map_err(|e| e.under(&i.to_string()))
    }
}

struct Word(String);

impl<'de> EnumAccess<'de> for Word {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(StringDeserializer::<Error>::new(self.0.clone()))?, self))
    }
}

/// Words carry no data.
impl<'de> VariantAccess<'de> for Word {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(de::Error::custom("a word is expected"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("a word is expected"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("a word is expected"))
    }
}
