//! How a delegate keeps the properties of a feature that its own constraints refused: as a JSON object of texts by name, which
//! people can read and mend, and from which every value comes back as it was.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use super::DelegateError;
use crate::model::value::{format_date, format_instant};
use crate::model::{Feature, FeatureId, FeatureType, Geometry, PropertyType, Value};

/// The properties of a feature, each as [`PropertyType::parse`] reads it.
pub fn to_texts(feature_type: &FeatureType, feature: &Feature) -> String {
    let texts = feature_type.properties.iter().enumerate().map(|(slot, property)| {
        let text = match feature.value(slot) {
            Value::Null => None,
            Value::Bool(b) => Some(b.to_string()),
            Value::Int(n) => Some(n.to_string()),
            Value::Number(x) => Some(x.to_string()),
            Value::String(s) | Value::Json(s) => Some(s.to_string()),
            Value::Date(days) => Some(format_date(*days)),
            Value::DateTime(micros) => Some(format_instant(*micros)),
            Value::Uuid(u) => Some(uuid::Uuid::from_bytes(*u).to_string()),
            Value::Bytes(b) => Some(STANDARD.encode(b)),
        };
        (property.name.clone(), text.into())
    });
    Json::Object(texts.collect()).to_string()
}

/// The feature `id` out of what was kept of it: well-known binary, and what [`to_texts`] has made under this or an earlier
/// schema of the type; no texts: a deletion. A value that its property cannot have, which no record of the log leads to, is
/// an error: nothing of a feature is dropped silently.
pub fn feature(
    feature_type: &FeatureType,
    id: &FeatureId,
    wkb: Option<&[u8]>,
    texts: Option<&str>,
) -> Result<Option<Arc<Feature>>, DelegateError> {
    let Some(texts) = texts else { return Ok(None) };
    let unreadable = |why: String| DelegateError::Mismatch(format!("the refused feature '{id}': {why}"));
    let texts: Map<String, Json> = serde_json::from_str(texts).map_err(|e| unreadable(e.to_string()))?;
    let values = feature_type.properties.iter().map(|p| value(p.kind, texts.get(&p.name)));
    let properties = values.collect::<Result<_, _>>().map_err(unreadable)?;
    let geometry = wkb.map(Geometry::from_wkb).transpose().map_err(|e| unreadable(e.to_string()))?;
    Ok(Some(Arc::new(Feature { id: id.clone(), geometry, properties })))
}

fn value(kind: PropertyType, text: Option<&Json>) -> Result<Value, String> {
    match text {
        None | Some(Json::Null) => Ok(Value::Null),
        // Parsing takes it for null.
        Some(Json::String(text)) if text.is_empty() && kind == PropertyType::Bytes => Ok(Value::Bytes(Box::default())),
        Some(Json::String(text)) => kind.parse(text),
        Some(other) => Err(format!("{other} is not a text")),
    }
}
