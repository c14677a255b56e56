//! `/api`: the API's definition in OpenAPI 3.0, made when asked, from templates of paths: it stays small however many
//! collections there are, and clients fetch it for each layer that they open.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use super::bulk::{NDJSON, SEQUENCE};
use super::{GEOJSON, JSON, JSON_SCHEMA, OPENAPI, fresh_json, json_only};
use crate::format::flatgeobuf::MEDIA_TYPE as FLATGEOBUF;
use crate::model::feature_type::MAX_DECIMALS;
use crate::model::{GeometryKind, PropertyType};
use crate::web::Web;
use crate::web::access::Caller;
use crate::web::problem::Result;
use crate::web::request::{BaseUrl, Params};

/// `GET /api`.
pub async fn document(
    State(web): State<Arc<Web>>,
    caller: Caller,
    base: BaseUrl,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    json_only(&params, &headers, &["f"])?;
    let names: Vec<String> = web.feature_types(&caller).iter().map(|t| t.name.clone()).collect();
    Ok(fresh_json(OPENAPI, &definition(&web, &base, &names)))
}

fn definition(web: &Web, base: &BaseUrl, collections: &[String]) -> Value {
    let mut contact = json!({ "name": web.service.contact_name.as_ref().unwrap_or(&web.service.provider) });
    for (key, value) in [("email", &web.service.contact_email), ("url", &web.service.contact_url)] {
        if let Some(value) = value {
            contact[key] = json!(value);
        }
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": web.service.title,
            "description": web.service.description,
            "version": env!("CARGO_PKG_VERSION"),
            "contact": contact,
        },
        "servers": [{ "url": base.to_string() }],
        "paths": paths(),
        "components": {
            "parameters": parameters(web, collections),
            "responses": responses(),
            "schemas": schemas(),
            "securitySchemes": {
                "basic": { "type": "http", "scheme": "basic" },
                "apiKey": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
            },
        },
        "security": [{}, { "basic": [] }, { "apiKey": [] }],
    })
}

fn paths() -> Value {
    let mut paths = serde_json::Map::new();
    for (path, id, summary, parameters, media_type) in [
        ("/", "getLandingPage", "The landing page", &[][..], JSON),
        ("/conformance", "getConformance", "The conformance classes", &[], JSON),
        ("/api", "getApi", "This definition", &[], OPENAPI),
        ("/functions", "getFunctions", "The functions that filters may call", &[], JSON),
        ("/collections", "getCollections", "The collections", &[], JSON),
        ("/collections/{collectionId}", "describeCollection", "A collection", &["collectionId"], JSON),
        (
            "/collections/{collectionId}/schema",
            "getSchema",
            "The schema of a collection's features",
            &["collectionId"],
            JSON_SCHEMA,
        ),
        (
            "/collections/{collectionId}/queryables",
            "getQueryables",
            "What filters may name",
            &["collectionId"],
            JSON_SCHEMA,
        ),
        (
            "/collections/{collectionId}/items",
            "getFeatures",
            "Features of a collection",
            &[
                "collectionId",
                "limit",
                "bbox",
                "bbox-crs",
                "datetime",
                "filter",
                "filter-lang",
                "filter-crs",
                "crs",
                "sortby",
                "properties",
                "skipGeometry",
                "tier",
                "cursor",
                "f",
                "filters",
            ],
            GEOJSON,
        ),
        (
            "/collections/{collectionId}/items/{featureId}",
            "getFeature",
            "A feature",
            &["collectionId", "featureId", "crs"],
            GEOJSON,
        ),
    ] {
        let schema = match id {
            "getFeatures" => "featureCollection",
            "getFeature" => "feature",
            _ => "object",
        };
        let mut content = json!({ media_type: { "schema": reference("schemas", schema) } });
        if id == "getFeatures" {
            content[FLATGEOBUF] = json!({ "schema": { "type": "string", "format": "binary" } });
        }
        let responses = json!({
            "200": { "description": summary, "content": content },
            "default": reference("responses", "problem"),
        });
        paths.insert(path.into(), json!({ "get": operation(id, summary, parameters, responses) }));
    }
    add_writes(&mut paths);
    Value::Object(paths)
}

/// An operation that writes.
struct Write {
    path: &'static str,
    method: &'static str,
    id: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    /// Media types with the schema of each.
    body: &'static [(&'static str, &'static str)],
    /// Statuses of success, with what they say.
    done: &'static [(&'static str, &'static str)],
}

const WRITES: &[Write] = &[
    Write {
        path: "/collections",
        method: "post",
        id: "createCollection",
        summary: "Makes a collection",
        parameters: &[],
        body: &[(JSON, "declaration")],
        done: &[("201", "Created")],
    },
    Write {
        path: "/collections/{collectionId}",
        method: "patch",
        id: "changeCollection",
        summary: "Changes a collection's schema or settings by a merge patch",
        parameters: &["collectionId"],
        body: &[("application/merge-patch+json", "collectionChange")],
        done: &[("200", "Changed; the collection as it is now")],
    },
    Write {
        path: "/collections/{collectionId}",
        method: "delete",
        id: "removeCollection",
        summary: "Removes a collection; its table stays unless purge is true",
        parameters: &["collectionId", "purge"],
        body: &[],
        done: &[("204", "Removed")],
    },
    Write {
        path: "/collections/{collectionId}/items",
        method: "post",
        id: "createFeatures",
        summary: "Creates a Feature or, all or none, those of a FeatureCollection; or writes a stream of them, one a line",
        parameters: &["collectionId", "Content-Crs"],
        body: &[(GEOJSON, "features"), (NDJSON, "feature"), (SEQUENCE, "feature")],
        done: &[("200", LINES_READ), ("201", "Created"), ACCEPTED],
    },
    Write {
        path: "/collections/{collectionId}/items/{featureId}",
        method: "put",
        id: "replaceFeature",
        summary: "Creates or replaces a feature",
        parameters: &["collectionId", "featureId", "Content-Crs"],
        body: &[(GEOJSON, "feature")],
        done: &[("204", "Written"), ACCEPTED],
    },
    Write {
        path: "/collections/{collectionId}/items/{featureId}",
        method: "patch",
        id: "updateFeature",
        summary: "Changes a feature by a merge patch",
        parameters: &["collectionId", "featureId", "Content-Crs"],
        body: &[("application/merge-patch+json", "object")],
        done: &[("204", "Written"), ACCEPTED],
    },
    Write {
        path: "/collections/{collectionId}/items/{featureId}",
        method: "delete",
        id: "deleteFeature",
        summary: "Deletes a feature",
        parameters: &["collectionId", "featureId"],
        body: &[],
        done: &[("204", "Deleted"), ACCEPTED],
    },
    Write {
        path: "/collections/{collectionId}/items/{featureId}/track",
        method: "post",
        id: "appendFixes",
        summary: "Adds fixes to a track; the first makes the track",
        parameters: &["collectionId", "featureId", "Content-Crs"],
        body: &[(JSON, "fixes")],
        done: &[("204", "Written"), ACCEPTED],
    },
    Write {
        path: "/collections/{collectionId}/track",
        method: "post",
        id: "appendFixesToTracks",
        summary: "Adds fixes to tracks, those of one track a line, each with the track's id",
        parameters: &["collectionId", "Content-Crs"],
        body: &[(NDJSON, "fixes"), (SEQUENCE, "fixes")],
        done: &[("200", LINES_READ)],
    },
];

const LINES_READ: &str = "The lines have been read; the answer counts them";
const ACCEPTED: (&str, &str) = ("202", "Written for good, and not yet shown by this instance");

fn add_writes(paths: &mut serde_json::Map<String, Value>) {
    for write in WRITES {
        let mut responses = json!({ "default": reference("responses", "problem") });
        for (status, what) in write.done {
            responses[status] = json!({ "description": what });
            if *status == "201" {
                responses[status]["headers"] =
                    json!({ "Location": { "schema": { "type": "string", "format": "uri" } } });
            }
        }
        let mut operation = operation(write.id, write.summary, write.parameters, responses);
        if !write.body.is_empty() {
            let content =
                write.body.iter().map(|(media, s)| (media.to_string(), json!({ "schema": reference("schemas", s) })));
            operation["requestBody"] = json!({ "required": true, "content": serde_json::Map::from_iter(content) });
        }
        paths.entry(write.path).or_insert_with(|| json!({}))[write.method] = operation;
    }
}

fn operation(id: &str, summary: &str, parameters: &[&str], responses: Value) -> Value {
    json!({
        "operationId": id,
        "summary": summary,
        "parameters": parameters.iter().map(|p| reference("parameters", p)).collect::<Vec<_>>(),
        "responses": responses,
    })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// QGIS takes its page size from the parameter of the name `limit`; the official tests want `explode: false` and all three
/// bounds of it.
fn parameters(web: &Web, collections: &[String]) -> Value {
    let query = |name: &str, description: &str, schema: Value| {
        json!({
            "name": name, "in": "query", "required": false, "style": "form", "explode": false,
            "description": description, "schema": schema,
        })
    };
    let path = |name: &str, schema: Value| json!({ "name": name, "in": "path", "required": true, "schema": schema });
    let names = |what: &str| json!({ "type": "array", "items": { "type": "string" }, "description": what });
    let mut collection = json!({ "type": "string" });
    if !collections.is_empty() {
        collection["enum"] = json!(collections);
    }
    json!({
        "collectionId": path("collectionId", collection),
        "featureId": path("featureId", json!({ "type": "string" })),
        "limit": query("limit", "Features on the page at most; a greater number is taken for the maximum, of which a collection may have its own.", json!({
            "type": "integer", "minimum": 1, "maximum": web.server.max_limit, "default": web.server.default_limit,
        })),
        "bbox": query("bbox", "Features whose geometry meets this box, and those without geometry.", json!({
            "type": "array", "minItems": 4, "maxItems": 6, "items": { "type": "number" },
        })),
        "bbox-crs": query("bbox-crs", "The CRS of bbox, one of the collection's.", json!({ "type": "string", "format": "uri" })),
        "datetime": query("datetime", "An instant, or an interval a/b, ../b, a/..", json!({ "type": "string" })),
        "filter": query("filter", "What the features are to be, in CQL2.", json!({ "type": "string" })),
        "filter-lang": query("filter-lang", "The encoding of filter.", json!({
            "type": "string", "enum": ["cql2-text", "cql2-json"], "default": "cql2-text",
        })),
        "filter-crs": query(
            "filter-crs",
            "The CRS of the geometries in filter, one of the collection's.",
            json!({ "type": "string", "format": "uri" }),
        ),
        "crs": query("crs", "The CRS of the answer, one of the collection's.", json!({ "type": "string", "format": "uri" })),
        "sortby": query("sortby", "Properties to sort by, each with a minus in front for descending.", names("sort keys")),
        "properties": query("properties", "The properties to answer with.", names("property names")),
        "skipGeometry": query("skipGeometry", "Answer without geometries.", json!({ "type": "boolean", "default": false })),
        "tier": query("tier", "Only what is in the transient index, or only what the long-term store alone has.", json!({
            "type": "string", "enum": ["transient", "persistent"],
        })),
        "cursor": query("cursor", "Where the page begins: from the link 'next'.", json!({ "type": "string" })),
        "filters": {
            "name": "filters", "in": "query", "required": false, "style": "form", "explode": true,
            "description": "Queryables of the collection by their names, with the value that they must have.",
            "schema": { "type": "object", "additionalProperties": { "type": "string" } },
        },
        "f": query("f", "Goes before Accept. In FlatGeobuf all features come, or as many as limit says, without a maximum.", json!({
            "type": "string", "enum": ["geojson", "json", "flatgeobuf"],
        })),
        "purge": query("purge", "Drop the table too.", json!({ "type": "boolean", "default": false })),
        "Content-Crs": {
            "name": "Content-Crs", "in": "header", "required": false,
            "description": "The CRS of the body's coordinates; CRS84 if there is none.", "schema": { "type": "string" },
        },
    })
}

fn responses() -> Value {
    json!({
        "problem": {
            "description": "An error (RFC 9457)",
            "content": { "application/problem+json": { "schema": reference("schemas", "problem") } },
        },
    })
}

/// What makes a collection: the keys of config/default.toml.
fn declaration() -> Value {
    let seconds = |what: &str| json!({ "type": "number", "description": what });
    json!({
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": { "type": "string", "pattern": "^[a-z][a-z0-9_]*$" },
            "title": { "type": "string" },
            "description": { "type": "string" },
            "geometry": {
                "type": "object",
                "description": "Without it the features have no geometry",
                "required": ["type"],
                "properties": {
                    "type": { "type": "string", "enum": GeometryKind::ALL.map(GeometryKind::name) },
                    "epsg": { "type": "integer", "default": 4326 },
                    "dimension": { "type": "string", "enum": ["XY", "XYZ", "XYM", "XYZM"], "default": "XY" },
                    "nullable": { "type": "boolean", "default": true },
                },
            },
            "properties": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "type"],
                    "properties": {
                        "name": { "type": "string" },
                        "type": { "type": "string", "enum": PropertyType::ALL.map(PropertyType::name) },
                        "nullable": { "type": "boolean", "default": true },
                        "index": { "type": "boolean", "default": false },
                        "title": { "type": "string" },
                    },
                },
            },
            "expiry": {
                "description": "Seconds without a change after which a feature is persisted and leaves the index, or \"never\"",
                "oneOf": [{ "type": "number" }, { "type": "string", "enum": ["never"] }],
            },
            "max_dirty": seconds("After which a feature that never rests is persisted all the same"),
            "default_limit": { "type": "integer", "minimum": 1, "description": "Features on a page when the client does not say" },
            "max_limit": { "type": "integer", "minimum": 1, "description": "Features on a page at most" },
            "decimals": {
                "type": "integer", "minimum": 0, "maximum": MAX_DECIMALS,
                "description": "Of coordinates in answers of text, at most; what is stored keeps all of them",
            },
            "event_time": {
                "type": "object",
                "description": "Changes are ordered by a time of their own: one that is older than what is there does nothing",
                "required": ["property"],
                "properties": {
                    "property": { "type": "string", "description": "The property of type date-time that has it" },
                    "remember_deleted": seconds("For which the time of a deleted feature is remembered, 86400 by default"),
                },
            },
            "partitions": { "type": "integer", "minimum": 1, "default": 1 },
            "persist": { "type": "boolean", "default": true },
            "track": {
                "type": "object",
                "description": "The features are tracks",
                "properties": {
                    "gap_seconds": seconds("A longer silence begins a new part"),
                    "gap_metres": { "type": "number", "description": "A farther leap begins a new part" },
                },
            },
            "track_of": { "type": "string", "description": "The collection of points whose positions the tracks are made of" },
            "table": {
                "type": "object",
                "description": "The table or view of PostGIS that was there before; alluvium import-table prints this",
                "required": ["name", "key"],
                "properties": {
                    "schema": { "type": "string", "default": "public" },
                    "name": { "type": "string" },
                    "key": { "type": "string", "description": "The column of ids" },
                    "key_type": { "type": "string", "enum": ["text", "integer", "uuid"], "default": "text" },
                    "geometry": { "type": "string", "description": "The column of geometries", "default": "geom" },
                    "columns": {
                        "type": "object",
                        "description": "Columns of other names than their properties, by property",
                        "additionalProperties": { "type": "string" },
                    },
                    "read_only": { "type": "boolean", "default": false },
                },
            },
        },
    })
}

/// What may be changed of one.
fn change() -> Value {
    json!({
        "type": "object",
        "properties": {
            "title": { "type": "string", "nullable": true },
            "description": { "type": "string", "nullable": true },
            "expiry": { "oneOf": [{ "type": "number" }, { "type": "string", "enum": ["never"] }] },
            "max_dirty": { "type": "number" },
            "default_limit": { "type": "integer", "nullable": true },
            "max_limit": { "type": "integer", "nullable": true },
            "decimals": { "type": "integer", "nullable": true },
            "properties": {
                "type": "object",
                "description": "By names: new properties, and changes of those that are there",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "type": {
                            "type": "string",
                            "enum": PropertyType::ALL.map(PropertyType::name),
                            "description": "Of one that is there: int32 may become int64 or number",
                        },
                        "nullable": { "type": "boolean", "description": "false may become true" },
                        "index": { "type": "boolean" },
                        "title": { "type": "string", "nullable": true },
                    },
                },
            },
        },
    })
}

fn schemas() -> Value {
    let fix = json!({
        "time": {
            "description": "ISO 8601, or seconds since the epoch",
            "oneOf": [{ "type": "string", "format": "date-time" }, { "type": "number" }],
        },
        "coordinates": { "type": "array", "minItems": 2, "items": { "type": "number" } },
    });
    json!({
        "object": { "type": "object" },
        "declaration": declaration(),
        "collectionChange": change(),
        "problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "code", "description"],
            "properties": {
                "type": { "type": "string" },
                "title": { "type": "string" },
                "status": { "type": "integer" },
                "detail": { "type": "string" },
                "pointer": { "type": "string", "description": "JSON pointer of the member at fault" },
                "parameter": { "type": "string", "description": "The query parameter at fault" },
                "code": { "type": "string" },
                "description": { "type": "string" },
            },
        },
        "feature": {
            "type": "object",
            "required": ["type", "geometry", "properties"],
            "properties": {
                "type": { "type": "string", "enum": ["Feature"] },
                "id": { "type": "string" },
                "geometry": { "type": "object", "nullable": true },
                "properties": { "type": "object", "nullable": true },
                "datetimes": {
                    "type": "array", "items": {},
                    "description": "Of a track: a time for each position of its coordinates, nested as these are",
                },
            },
        },
        "fix": {
            "type": "object",
            "required": ["time", "coordinates"],
            "properties": fix,
        },
        "fixes": {
            "type": "object",
            "description": "One fix, by time and coordinates, or several, by fixes",
            "properties": {
                "id": { "type": "string", "description": "The track, where the path does not name it" },
                "time": fix["time"],
                "coordinates": fix["coordinates"],
                "fixes": { "type": "array", "minItems": 1, "items": reference("schemas", "fix") },
                "properties": { "type": "object", "nullable": true, "description": "New values of the track's properties" },
            },
        },
        "features": { "oneOf": [reference("schemas", "feature"), reference("schemas", "featureCollection")] },
        "featureCollection": {
            "type": "object",
            "required": ["type", "features"],
            "properties": {
                "type": { "type": "string", "enum": ["FeatureCollection"] },
                "features": { "type": "array", "items": reference("schemas", "feature") },
                "links": { "type": "array", "items": { "type": "object" } },
                "numberMatched": { "type": "integer", "minimum": 0 },
                "numberReturned": { "type": "integer", "minimum": 0 },
                "timeStamp": { "type": "string", "format": "date-time" },
            },
        },
    })
}
