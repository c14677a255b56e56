//! A feature: an id, a geometry, and its values by property id.

use std::sync::Arc;

use super::{Geometry, Value};

/// A feature's id within its type. Validated by [`check_id`]; cheap to clone.
pub type FeatureId = Arc<str>;

/// The whole of a feature at one version. `properties[i]` belongs to the type's property of id `i`; a vector shorter than the
/// schema means nulls at its end, so that records written before a property was added still read.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    pub id: FeatureId,
    pub geometry: Option<Geometry>,
    pub properties: Vec<Value>,
}

impl Feature {
    /// The value of property `slot`; null when the feature has none.
    pub fn value(&self, slot: usize) -> &Value {
        const NULL: &Value = &Value::Null;
        self.properties.get(slot).unwrap_or(NULL)
    }

    /// The time in property `slot`, microseconds since the epoch.
    pub fn event_time(&self, slot: usize) -> Option<i64> {
        self.value(slot).as_date_time()
    }

    /// Rough size in memory, bytes.
    pub fn heap_bytes(&self) -> usize {
        let values: usize = self.properties.iter().map(|v| size_of::<Value>() + v.heap_bytes()).sum();
        size_of::<Self>() + self.id.len() + values + self.geometry.as_ref().map_or(0, |g| g.wkb().len())
    }
}

/// Why a text cannot be a feature id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("a feature id may not be empty")]
    Empty,
    #[error("a feature id has at most 256 bytes, this one has {0}")]
    TooLong(usize),
    #[error("a feature id may not contain control characters")]
    Control,
}

/// Any UTF-8 text of 1 to 256 bytes without control characters is an id.
pub fn check_id(text: &str) -> Result<FeatureId, IdError> {
    match text.len() {
        0 => Err(IdError::Empty),
        n if n > 256 => Err(IdError::TooLong(n)),
        _ if text.chars().any(char::is_control) => Err(IdError::Control),
        _ => Ok(text.into()),
    }
}

/// Stands for an id until the store has made one: what a client sends without an id bears it on its way.
pub fn no_id() -> FeatureId {
    "".into()
}

/// A fresh id: UUIDv7, so that ids made later sort later.
pub fn new_id() -> FeatureId {
    uuid::Uuid::now_v7().to_string().into()
}
