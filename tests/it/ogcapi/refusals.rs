//! A table of bad requests.

use super::{ITEMS, seven};
use crate::app::Answer;

/// Each is answered with a problem that names what is wrong, and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_told_what_is_wrong() {
    let server = seven().await;
    let before = server.get(&format!("{ITEMS}?limit=50")).await.json()["features"].clone();
    let long = format!("/collections/ships/items?name={}&x=1", "y".repeat(5000));
    for (path, status, word) in [
        ("/collections/planes", 404, "planes"),
        ("/collections/planes/items", 404, "planes"),
        ("/collections/ships/items/nobody", 404, "nobody"),
        ("/collections/ships/sortables", 404, "/collections/ships/sortables"),
        ("/collections/planes/queryables", 404, "planes"),
        ("/collections/ships/items?limit=0", 400, "limit"),
        ("/collections/ships/items?limit=unlimited", 400, "limit"),
        ("/collections/ships/items?bbox=1,2,3", 400, "bbox"),
        ("/collections/ships/items?crs=http://www.opengis.net/def/crs/0/unsupported", 400, "crs"),
        ("/collections/ships/items?datetime=yesterday", 400, "datetime"),
        ("/collections/ships/items?mmsi=x", 400, "mmsi"),
        ("/collections/ships/items?unknownQueryParameter=1", 400, "unknownQueryParameter"),
        ("/collections/ships/items?LIMIT=1", 400, "LIMIT"),
        ("/collections/ships/items?limit=1&limit=2", 400, "limit"),
        ("/collections/ships/items?name=%FF", 400, "UTF-8"),
        ("/collections/ships/items/%FF", 400, "UTF-8"),
        ("/collections/ships/items?f=gml", 400, "gml"),
        ("/collections/ships/items?cursor=x", 400, "cursor"),
        ("/collections/ships/items?sortby=nothing", 400, "nothing"),
        ("/collections/ships/items?tier=warm", 400, "warm"),
        ("/collections/ships/items?filter=", 400, "at character 1"),
        ("/collections/ships/items?filter=sog%3E1%20AND%20colour=2", 400, "at character 11"),
        ("/collections/ships/items?filter=A_EQUALS(name,('a','b'))", 400, "arrays"),
        ("/collections/ships/items?filter=%7B%7D", 400, "at character 1"),
        ("/collections/ships/items?filter=%7B%7D&filter-lang=cql2-json", 400, "op"),
        ("/collections/ships/items?filter=true&filter-lang=cql", 400, "cql2-text"),
        ("/collections/ships/items?filter=true&filter-crs=EPSG:1", 400, "filter-crs"),
        ("/collections/ships/items?id=", 400, "id"),
        ("/collections/ships/items?skipGeometry=1", 400, "skipGeometry"),
        ("/collections?x=1", 400, "x"),
        ("/?f=xml", 400, "xml"),
        (&long, 400, "x"),
    ] {
        problem(server.get(path).await, status, word, path);
    }
    problem(server.send("GET", ITEMS, &[("accept", "image/png")], "").await, 406, "geo+json", "Accept");
    let json_type = ("content-type", "application/geo+json");
    let deep = "[".repeat(50_000);
    let huge = format!("\"{}\"", "x".repeat(200_000));
    for (method, path, headers, body, status, word) in [
        ("POST", ITEMS, vec![json_type], "", 400, "EOF"),
        ("POST", ITEMS, vec![json_type], "{", 400, "EOF"),
        ("POST", ITEMS, vec![json_type], "[]", 400, ""),
        ("POST", ITEMS, vec![json_type], deep.as_str(), 400, ""),
        ("POST", ITEMS, vec![json_type], huge.as_str(), 413, "100000"),
        ("POST", ITEMS, vec![json_type], r#"{"type":"Topology"}"#, 400, "/type"),
        (
            "POST",
            ITEMS,
            vec![json_type],
            r#"{"type":"Feature","geometry":{"type":"Point","coordinates":[1]},"properties":{}}"#,
            400,
            "/geometry/coordinates",
        ),
        (
            "POST",
            ITEMS,
            vec![json_type],
            r#"{"type":"Feature","geometry":null,"properties":{"speed":1}}"#,
            400,
            "speed",
        ),
        (
            "POST",
            ITEMS,
            vec![json_type],
            r#"{"type":"Feature","geometry":null,"properties":{"sog":"x"}}"#,
            400,
            "/properties/sog",
        ),
        ("POST", ITEMS, vec![json_type], r#"{"type":"Feature","id":"","geometry":null,"properties":{}}"#, 400, "/id"),
        (
            "POST",
            "/collections/plans/items",
            vec![json_type],
            r#"{"type":"Feature","geometry":null,"properties":{"day":"2022-01-01"}}"#,
            400,
            "/geometry",
        ),
        (
            "POST",
            "/collections/notes/items",
            vec![json_type],
            r#"{"type":"Feature","geometry":{"type":"Point","coordinates":[1,2]},"properties":{}}"#,
            400,
            "/geometry",
        ),
        ("POST", ITEMS, vec![("content-type", "text/csv")], "a,b", 415, "text/csv"),
        ("POST", ITEMS, vec![json_type, ("content-encoding", "br")], "x", 415, "br"),
        ("POST", ITEMS, vec![json_type, ("content-encoding", "gzip")], "x", 400, ""),
        ("POST", ITEMS, vec![json_type, ("content-crs", "EPSG:9")], "{}", 400, "EPSG:9"),
        ("POST", "/collections/ships/items?x=1", vec![json_type], "{}", 400, "x"),
        (
            "PUT",
            "/collections/ships/items/s1",
            vec![json_type],
            r#"{"type":"FeatureCollection","features":[]}"#,
            400,
            "Feature",
        ),
        (
            "PUT",
            "/collections/ships/items/a%07",
            vec![json_type],
            r#"{"type":"Feature","geometry":null,"properties":{}}"#,
            400,
            "control",
        ),
        ("PATCH", "/collections/ships/items/s1", vec![json_type], r#"{"id":"other"}"#, 400, "/id"),
        (
            "PATCH",
            "/collections/ships/items/s1",
            vec![json_type],
            r#"{"properties":{"speed":1}}"#,
            400,
            "/properties/speed",
        ),
        (
            "PATCH",
            "/collections/ships/items/s1",
            vec![("content-type", "application/json-patch+json")],
            "[]",
            415,
            "merge-patch",
        ),
    ] {
        let what = format!("{method} {path} {}", &body[..body.len().min(80)]);
        problem(server.send(method, path, &headers, body.to_owned()).await, status, word, &what);
    }
    assert_eq!(server.get(&format!("{ITEMS}?limit=50")).await.json()["features"], before);
    server.app.shutdown().await;
}

fn problem(answer: Answer, status: u16, word: &str, what: &str) {
    assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    let body = answer.json();
    assert_eq!(body["status"], status, "{what}");
    assert!(!body["title"].as_str().unwrap().is_empty());
    let told = format!("{} {} {}", body["detail"], body["pointer"], body["parameter"]);
    assert!(told.contains(word), "{what}: {word} is not in {told}");
    assert!(told.len() < 2000, "{what}: an endless message");
}
