//! Part 3: filters in CQL2, and what tells clients what they may ask. What a filter means is tested where it is read; here, that it
//! is asked.

use std::io::Write;
use std::path::Path;

use alluvium::query::cql::Expression;
use serde_json::json;

use super::{EPSG_4326, ITEMS, TYPES, ids, link, seven};
use crate::app::Server;

fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select() {
    let server = seven().await;
    let in_4326 = format!("&filter-crs={EPSG_4326}");
    for (filter, more, expected) in [
        ("mmsi > 4", "", &["s5", "s6"][..]),
        ("name = 'ship 1' AND NOT sog >= 2", "", &["s1", "s3"]),
        ("mmsi >= 2", "&mmsi=4", &["s4"]),
        ("CASEI(name) LIKE casei('SHIP 0')", "&bbox=1,0,3,90&filter-lang=cql2-text", &["s2"]),
        (r#"{"op":"in","args":[{"property":"mmsi"},[6,0]]}"#, "&filter-lang=cql2-json", &["s0", "s6"]),
        ("S_INTERSECTS(geom, POINT(2 52))", "", &["s2"]),
        ("S_INTERSECTS(geom, POINT(52 2))", &in_4326, &["s2"]),
        ("T_AFTER(time, TIMESTAMP('2022-01-03T12:00:00Z'))", "", &[]),
        ("id IN ('s3', 's4', 'nobody') AND sog + 1 > 2.5", "", &["s4"]),
    ] {
        let answer = server.get(&format!("{ITEMS}?filter={}{more}", encoded(filter))).await.expect(200);
        assert_eq!(ids(&answer), expected, "{filter}");
        assert_eq!(answer.json()["numberMatched"], expected.len(), "{filter}");
    }
    assert_eq!(ids(&server.get(&format!("{ITEMS}?id=s3")).await), ["s3"]);
    // The next page is one of the same filter.
    let page = server.get(&format!("{ITEMS}?limit=2&filter={}", encoded("mmsi > 3"))).await.json();
    let next = link(&page, "next").unwrap()["href"].as_str().unwrap().strip_prefix(&server.url("")).unwrap().to_owned();
    assert_eq!(ids(&server.get(&next).await), ["s6"]);
    // Which parameter is at fault is told by its name, and where in it.
    let wrong = server.get(&format!("{ITEMS}?filter=sog%3E")).await.expect(400).json();
    assert_eq!(wrong["parameter"], "filter");
    assert!(wrong["detail"].as_str().unwrap().contains("at character 5"), "{wrong}");
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_asked_is_told() {
    let server = Server::start(TYPES).await;
    let answer = server.get("/collections/ships/queryables").await.expect(200);
    assert_eq!(answer.header("content-type"), "application/schema+json");
    let queryables = answer.json();
    assert_eq!(queryables["$id"], server.url("/collections/ships/queryables"));
    assert_eq!(queryables["additionalProperties"], false);
    for (name, property) in queryables["properties"].as_object().unwrap() {
        // Part 3, /req/queryables/get-queryables-response: a geometry by its format alone, all else with a type.
        assert_eq!(property.get("type").is_some(), name != "geom", "{name}");
        let filter = encoded(&format!("\"{name}\" IS NULL"));
        assert_eq!(ids(&server.get(&format!("{ITEMS}?filter={filter}")).await.expect(200)), [""; 0], "{name}");
    }
    assert_eq!(queryables["properties"]["geom"]["format"], "geometry-point");
    assert_eq!(queryables["properties"]["time"]["format"], "date-time");

    let landing = server.get("/").await.json();
    assert!(link(&landing, "http://www.opengis.net/def/rel/ogc/1.0/functions").is_some());
    let functions = server.get("/functions").await.expect(200).json();
    let length = json!({ "name": "strLength", "returns": ["integer"], "arguments": [{ "type": ["string"] }] });
    assert!(functions["functions"].as_array().unwrap().contains(&length), "{functions}");
    server.app.shutdown().await;
}

/// The standard's examples: all are read, and say the same in both encodings.
#[test]
fn the_examples_of_the_standard_are_read() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cql2-examples");
    if !examples.is_dir() {
        let why = "the standard's examples are missing: tests/stack/install clients";
        let _ = writeln!(std::io::stderr(), "skipped: ogcapi::the_examples_of_the_standard_are_read: {why}");
        return;
    }
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let (mut texts, mut pairs) = (0, 0);
    for entry in std::fs::read_dir(examples.join("text")).unwrap() {
        let path = entry.unwrap().path();
        let from_text = Expression::from_text(&read(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        texts += 1;
        let json = examples.join("json").join(path.with_extension("json").file_name().unwrap());
        if json.exists() {
            let from_json = Expression::from_json(&read(&json)).unwrap_or_else(|e| panic!("{}: {e}", json.display()));
            assert_eq!(from_text, from_json, "{}", path.display());
            pairs += 1;
        }
    }
    assert!(texts >= 100 && pairs >= 100, "{texts} texts, {pairs} with their JSON");
}
