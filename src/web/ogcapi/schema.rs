//! What the features of a collection are like, as JSON Schema: all of it (Part 5), and what filters may name (Part 3).

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::params::temporal_property;
use super::{JSON_SCHEMA, fresh_json, json_only};
use crate::model::feature_type::GEOMETRY;
use crate::model::{FeatureType, GeometryKind, PropertyType};
use crate::web::Web;
use crate::web::access::Caller;
use crate::web::problem::Result;
use crate::web::request::{BaseUrl, Params, Path};

/// `GET /collections/{collection}/schema` (Part 5).
pub async fn schema(
    State(web): State<Arc<Web>>,
    Path(collection): Path<String>,
    caller: Caller,
    base: BaseUrl,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    json_only(&params, &headers, &["f"])?;
    let ft = web.feature_type(&caller, &collection)?;
    let required: Vec<&str> = (ft.geometry.filter(|g| !g.nullable).map(|_| GEOMETRY).into_iter())
        .chain(ft.properties.iter().filter(|p| !p.nullable).map(|p| p.name.as_str()))
        .collect();
    let mut schema = document(&ft, &format!("{base}/collections/{collection}/schema"), properties(&ft));
    schema["required"] = json!(required);
    Ok(fresh_json(JSON_SCHEMA, &schema))
}

/// `GET /collections/{collection}/queryables` (Part 3): all that the schema has.
pub async fn queryables(
    State(web): State<Arc<Web>>,
    Path(collection): Path<String>,
    caller: Caller,
    base: BaseUrl,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    json_only(&params, &headers, &["f"])?;
    let ft = web.feature_type(&caller, &collection)?;
    let mut properties = properties(&ft);
    let json = ft.properties.iter().filter(|p| p.kind == PropertyType::Json);
    for property in json {
        // A queryable has a type.
        properties[&property.name]["type"] = json!(["object", "array", "string", "number", "boolean"]);
    }
    Ok(fresh_json(JSON_SCHEMA, &document(&ft, &format!("{base}/collections/{collection}/queryables"), properties)))
}

fn document(ft: &FeatureType, id: &str, properties: Map<String, Value>) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": id,
        "type": "object",
        "title": ft.title(),
        "description": ft.description,
        "properties": properties,
        "additionalProperties": false,
    })
}

/// The logical schema of a feature type: flat, with the id and the geometry among the properties.
fn properties(ft: &FeatureType) -> Map<String, Value> {
    let mut properties = Map::new();
    properties.insert(
        "id".into(),
        json!({ "type": "string", "x-ogc-role": "id", "x-ogc-propertySeq": 1, "minLength": 1, "maxLength": 256 }),
    );
    if let Some(column) = &ft.geometry {
        // Parts 3 and 5 want `format` alone, without `type` or `$ref`.
        let geometry = json!({
            "title": "Geometry",
            "x-ogc-role": "primary-geometry",
            "x-ogc-propertySeq": 2,
            "format": geometry_format(column.kind),
        });
        properties.insert(GEOMETRY.into(), geometry);
    }
    let temporal = temporal_property(ft);
    for (slot, property) in ft.properties.iter().enumerate() {
        let mut schema = type_of(property.kind);
        schema["x-ogc-propertySeq"] = json!(slot + 3);
        if let Some(title) = &property.title {
            schema["title"] = json!(title);
        }
        if temporal == Some(slot) {
            schema["x-ogc-role"] = json!("primary-instant");
        }
        properties.insert(property.name.clone(), schema);
    }
    properties
}

fn type_of(kind: PropertyType) -> Value {
    match kind {
        PropertyType::String => json!({ "type": "string" }),
        PropertyType::Int32 => json!({ "type": "integer", "format": "int32" }),
        PropertyType::Int64 => json!({ "type": "integer", "format": "int64" }),
        PropertyType::Number => json!({ "type": "number", "format": "double" }),
        PropertyType::Boolean => json!({ "type": "boolean" }),
        PropertyType::Date => json!({ "type": "string", "format": "date" }),
        PropertyType::DateTime => json!({ "type": "string", "format": "date-time" }),
        PropertyType::Uuid => json!({ "type": "string", "format": "uuid" }),
        PropertyType::Json => json!({}),
        PropertyType::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
    }
}

fn geometry_format(kind: GeometryKind) -> &'static str {
    match kind {
        GeometryKind::Geometry => "geometry-any",
        GeometryKind::Point => "geometry-point",
        GeometryKind::LineString => "geometry-linestring",
        GeometryKind::Polygon => "geometry-polygon",
        GeometryKind::MultiPoint => "geometry-multipoint",
        GeometryKind::MultiLineString => "geometry-multilinestring",
        GeometryKind::MultiPolygon => "geometry-multipolygon",
        GeometryKind::GeometryCollection => "geometry-geometrycollection",
    }
}
