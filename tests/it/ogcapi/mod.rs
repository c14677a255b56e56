//! OGC API - Features over HTTP: golden answers, what clients look for in them, writing in each form, and a table of bad
//! requests.

mod collections;
mod discovery;
mod filtering;
mod reading;
mod refusals;
mod writing;

use serde_json::{Value, json};

use crate::app::{Answer, Server};

const CRS84: &str = "http://www.opengis.net/def/crs/OGC/1.3/CRS84";
const EPSG_4326: &str = "http://www.opengis.net/def/crs/EPSG/0/4326";
const EPSG_3857: &str = "http://www.opengis.net/def/crs/EPSG/0/3857";

const TYPES: &str = r#"
[server]
default_limit = 3
max_limit = 50
max_body_bytes = 100000
max_line_bytes = 2000
[[feature_types]]
name = "ships"
title = "Ships"
geometry = { type = "Point" }
expiry = 3600
properties = [
  { name = "mmsi", type = "int64", index = true },
  { name = "name", type = "string" },
  { name = "sog", type = "number", title = "Speed" },
  { name = "time", type = "date-time" },
]
[[feature_types]]
name = "plans"
geometry = { type = "Polygon", epsg = 3857, dimension = "XYZ", nullable = false }
properties = [{ name = "day", type = "date", nullable = false }]
[[feature_types]]
name = "notes"
properties = [{ name = "text", type = "string" }]
"#;

const ITEMS: &str = "/collections/ships/items";

fn ship(id: &str, x: f64, y: f64, properties: Value) -> Value {
    json!({ "type": "Feature", "id": id, "geometry": { "type": "Point", "coordinates": [x, y] }, "properties": properties })
}

fn collection(features: Vec<Value>) -> Value {
    json!({ "type": "FeatureCollection", "features": features })
}

/// Seven ships, `s0` to `s6`, at (n, 50 + n).
async fn seven() -> Server {
    let server = Server::start(TYPES).await;
    let features = (0..7).map(|n| {
        let properties = json!({ "mmsi": n, "name": format!("ship {}", n % 2), "sog": f64::from(n) / 2.0 });
        ship(&format!("s{n}"), f64::from(n), 50.0 + f64::from(n), properties)
    });
    server.post(ITEMS, &collection(features.collect())).await.expect(201);
    server
}

fn ids(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    body["features"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap().to_owned()).collect()
}

fn link<'a>(body: &'a Value, rel: &str) -> Option<&'a Value> {
    body["links"].as_array()?.iter().find(|l| l["rel"] == rel)
}
