//! `/functions`: the functions that filters may call (CQL2, conformance class Functions).

use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use super::{JSON, fresh_json, json_only};
use crate::model::PropertyType;
use crate::query::function::{NAMED, Signature};
use crate::web::problem::Result;
use crate::web::request::Params;

/// `GET /functions`.
pub async fn functions(params: Params, headers: HeaderMap) -> Result<Response> {
    json_only(&params, &headers, &["f"])?;
    let functions: Vec<Value> = NAMED.iter().map(describe).collect();
    Ok(fresh_json(JSON, &json!({ "functions": functions })))
}

fn describe(s: &Signature) -> Value {
    let arguments: Vec<Value> =
        s.arguments.iter().map(|kind| json!({ "type": [kind.map_or("geometry", type_of)] })).collect();
    json!({ "name": s.name, "returns": [type_of(s.returns)], "arguments": arguments })
}

/// By the standard's names.
fn type_of(kind: PropertyType) -> &'static str {
    match kind {
        PropertyType::Int32 | PropertyType::Int64 => "integer",
        PropertyType::Number => "number",
        PropertyType::Boolean => "boolean",
        PropertyType::Date | PropertyType::DateTime => "datetime",
        _ => "string",
    }
}
