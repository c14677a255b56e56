//! The table that was there before: what a feature type says of it when it stands on a table of others instead of one of its
//! own. Such a table is never altered and never dropped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::feature_type::{GEOMETRY, SchemaError};

/// Where a type's features are, and which columns are its own; other columns are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExistingTable {
    #[serde(default = "public")]
    pub schema: String,
    /// A table, a foreign table or a view.
    pub name: String,
    /// The column whose text is the feature's id. Unique, unless `read_only`.
    pub key: String,
    #[serde(default)]
    pub key_type: KeyType,
    /// The column of the geometry.
    #[serde(default = "geom")]
    pub geometry: String,
    /// The columns of properties that bear another name than these, by property.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// Nobody may write: a view, say.
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// `text` or `varchar`; the server makes UUIDs.
    #[default]
    Text,
    /// Of any size; new ones come from the column's sequence.
    Integer,
    Uuid,
}

impl ExistingTable {
    /// The column of a property.
    pub fn column<'a>(&'a self, property: &'a str) -> &'a str {
        self.columns.get(property).map_or(property, String::as_str)
    }
}

impl KeyType {
    /// An id of a table is the text that PostgreSQL has for its key, so that each key has one id.
    pub fn check(self, id: &str) -> Result<(), SchemaError> {
        let is_key = match self {
            KeyType::Text => true,
            KeyType::Integer => id.parse::<i64>().is_ok_and(|n| n.to_string() == id),
            KeyType::Uuid => uuid::Uuid::try_parse(id).is_ok_and(|u| u.hyphenated().to_string() == id),
        };
        let form = match self {
            KeyType::Integer => "an integer",
            _ => "a UUID in lower case with hyphens",
        };
        if is_key {
            Ok(())
        } else {
            Err(SchemaError::new("id", format!("the id '{id}' is not {form}, as the table's key is")))
        }
    }
}

fn public() -> String {
    "public".into()
}

fn geom() -> String {
    GEOMETRY.into()
}
