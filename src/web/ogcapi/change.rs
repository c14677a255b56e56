//! `PATCH /collections/{collection}`: changes of a collection's schema and settings. No standard has an operation for it; this is
//! a merge patch of what makes a collection, and what may change is decided by [`FeatureType::changed_to`].

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::collections::describe;
use super::write::{MERGE_PATCH, media_type, unsupported};
use super::{JSON, fresh_json};
use crate::config::layers;
use crate::model::{FeatureType, Property, SchemaError};
use crate::web::Web;
use crate::web::access::{Caller, Role};
use crate::web::problem::{Problem, Result};
use crate::web::request::{BaseUrl, Params, Path, whole_body};

type Changed<T> = std::result::Result<T, SchemaError>;

/// Answers with the collection as it is now.
pub async fn change(
    State(web): State<Arc<Web>>,
    Path(collection): Path<String>,
    caller: Caller,
    base: BaseUrl,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    params.only(&[])?;
    caller.may(Role::Admin, None)?;
    let media_type = media_type(&headers);
    if ![MERGE_PATCH, JSON, ""].contains(&media_type.as_str()) {
        return Err(unsupported(&media_type, HeaderName::from_static("accept-patch"), MERGE_PATCH));
    }
    let body = whole_body(body, web.server.max_body_bytes, web.server.idle_timeout).await?;
    let patch: Map<String, Value> =
        serde_json::from_slice(&body).map_err(|e| Problem::bad_request(format!("not a JSON object: {e}")))?;
    let ft = web.store.change_feature_type(&collection, |known| patched(known, &patch)).await?;
    Ok(fresh_json(JSON, &describe(&web, &base, &ft).await))
}

/// The declaration of `known` with a merge patch (RFC 7396) applied. `properties` may be the whole list, or an object by names,
/// whose members are merged into the properties that they name.
fn patched(known: &FeatureType, patch: &Map<String, Value>) -> Changed<FeatureType> {
    let properties = match patch.get("properties") {
        None => known.properties.clone(),
        Some(Value::Object(by_name)) => patched_properties(known, by_name)?,
        Some(list) => read(list, "properties")?,
    };
    let mut declaration = json_of(known)?;
    for (key, value) in patch.iter().filter(|(key, _)| *key != "properties") {
        let key = if key == "id" { "name" } else { key };
        merge(&mut declaration, &json!({ key: value }));
    }
    Ok(FeatureType { properties, ..read(&declaration, "")? })
}

fn patched_properties(known: &FeatureType, by_name: &Map<String, Value>) -> Changed<Vec<Property>> {
    let mut properties = known.properties.clone();
    for (name, patch) in by_name {
        let at = format!("properties.{name}");
        let there = properties.iter_mut().find(|p| p.name == *name);
        let mut declaration = match &there {
            Some(property) => json_of(property)?,
            None => json!({ "name": name }),
        };
        if patch.is_null() {
            return Err(SchemaError::new(at, format!("property '{name}' cannot be removed")));
        }
        merge(&mut declaration, patch);
        if declaration["name"] != *name {
            return Err(SchemaError::new(at, format!("property '{name}' cannot be renamed")));
        }
        let property = read(&declaration, &at)?;
        match there {
            Some(there) => *there = property,
            None => properties.push(property),
        }
    }
    Ok(properties)
}

fn json_of(thing: &impl serde::Serialize) -> Changed<Value> {
    serde_json::to_value(thing).map_err(|e| SchemaError::new("", e.to_string()))
}

/// RFC 7396, 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let mut members = match target.take() {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (key, value) in patch {
        if value.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key).or_insert(Value::Null), value);
        }
    }
    *target = Value::Object(members);
}

/// `at`: where it stands, dotted.
fn read<T: DeserializeOwned>(json: &Value, at: &str) -> Changed<T> {
    let read = layers::from_json(json.to_string().as_bytes()).and_then(T::deserialize);
    read.map_err(|e| {
        SchemaError::new(format!("{at}{}", e.pointer().replace('/', ".")).trim_start_matches('.'), e.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Expiry, PropertyType};

    fn patched(patch: Value) -> Changed<FeatureType> {
        let ships = json!({
            "name": "ships", "title": "Ships", "expiry": 5, "schema_version": 1, "incarnation": "i",
            "properties": [{ "name": "n", "type": "int32", "index": true }, { "name": "name", "type": "string" }],
        });
        super::patched(&serde_json::from_value(ships).unwrap(), patch.as_object().unwrap())
    }

    #[test]
    fn what_is_named_changes_and_the_rest_stays() {
        assert_eq!(patched(json!({})), patched(json!({ "id": "ships" })));
        let next = patched(json!({
            "title": null, "expiry": "never",
            "properties": { "n": { "type": "int64" }, "draught": { "type": "number", "title": "Draught" } },
        }))
        .unwrap();
        assert_eq!((next.title.as_str(), next.expiry, next.schema_version), ("", Expiry::Never, 1));
        let told: Vec<_> = next.properties.iter().map(|p| (p.name.as_str(), p.kind, p.index)).collect();
        let expected = [
            ("n", PropertyType::Int64, true),
            ("name", PropertyType::String, false),
            ("draught", PropertyType::Number, false),
        ];
        assert_eq!(told, expected);
        let list = patched(json!({ "properties": [{ "name": "name", "type": "string" }] })).unwrap();
        assert_eq!(list.properties.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (patch, locator) in [
            (json!({ "properties": { "n": null } }), "properties.n"),
            (json!({ "properties": { "n": { "name": "m" } } }), "properties.n"),
            (json!({ "properties": { "n": { "type": "text" } } }), "properties.n.type"),
            (json!({ "properties": { "new": {} } }), "properties.new.type"),
            (json!({ "properties": { "new": { "type": "string", "unique": true } } }), "properties.new.unique"),
            (json!({ "properties": 5 }), "properties"),
            (json!({ "colour": "red" }), "colour"),
            (json!({ "expiry": "soon" }), "expiry"),
            (json!({ "name": null }), "name"),
        ] {
            assert_eq!(patched(patch.clone()).unwrap_err().locator, locator, "{patch}");
        }
    }
}
