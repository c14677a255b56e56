//! Writing in each form: a Feature, a FeatureCollection, lines, packed bodies, conditions.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{CRS84, ITEMS, TYPES, collection, seven, ship};
use crate::app::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_feature_is_written_and_read() {
    let server = Server::start(TYPES).await;
    let sent =
        ship("a/ü \"1\"", 1.5, 50.25, json!({ "mmsi": 7, "name": "<Ada & Co>", "time": "2022-01-03T01:00:00+01:00" }));
    let created = server.post(ITEMS, &sent).await.expect(201);
    let location = created.header("location").to_owned();
    assert_eq!(location, server.url(&format!("{ITEMS}/a%2F%C3%BC%20%221%22")));
    assert!(created.body.is_empty());
    let path = location.strip_prefix(&server.url("")).unwrap();
    let read = server.get(path).await.expect(200);
    assert_eq!(read.header("content-type"), "application/geo+json");
    assert_eq!(read.header("content-crs"), format!("<{CRS84}>"));
    assert_eq!(read.header("alluvium-tier"), "transient");
    let own = server.url("");
    assert_eq!(
        read.text(),
        format!(
            concat!(
                r#"{{"type":"Feature","id":"a/ü \"1\"","geometry":{{"type":"Point","coordinates":[1.5,50.25]}},"#,
                r#""properties":{{"mmsi":7,"name":"<Ada & Co>","sog":null,"time":"2022-01-03T00:00:00Z"}},"#,
                r#""links":[{{"href":"{location}","rel":"self","title":"This feature","type":"application/geo+json"}},"#,
                r#"{{"href":"{own}/collections/ships","rel":"collection","title":"The collection","type":"application/json"}}]}}"#
            ),
            location = location,
            own = own
        )
    );

    // The same id again is refused by POST and taken by PUT.
    server.post(ITEMS, &sent).await.expect(409);
    let json_type = [("content-type", "application/geo+json")];
    let moved = ship("ignored", 2.0, 51.0, json!({ "mmsi": 8 }));
    server.send("PUT", path, &json_type, moved.to_string()).await.expect(204);
    let after = server.get(path).await.expect(200).json();
    assert_eq!(after["geometry"]["coordinates"], json!([2.0, 51.0]));
    assert_eq!(after["properties"], json!({ "mmsi": 8, "name": null, "sog": null, "time": null }));
    let only_new = [json_type[0], ("if-none-match", "*")];
    server.send("PUT", path, &only_new, moved.to_string()).await.expect(412);

    // A patch leaves the rest alone, in GeoJSON's shape and flat.
    let patch = [("content-type", "application/merge-patch+json")];
    server.send("PATCH", path, &patch, r#"{"properties":{"name":"Ada","mmsi":null}}"#).await.expect(204);
    server.send("PATCH", path, &patch, r#"{"sog":3,"geom":{"type":"Point","coordinates":[3,52]}}"#).await.expect(204);
    let after = server.get(path).await.expect(200).json();
    assert_eq!(after["geometry"]["coordinates"], json!([3.0, 52.0]));
    assert_eq!(after["properties"], json!({ "mmsi": null, "name": "Ada", "sog": 3.0, "time": null }));

    let gone = server.send("DELETE", path, &[], "").await.expect(204);
    assert!(!gone.header("alluvium-position").is_empty());
    server.get(path).await.expect(404);
    server.send("DELETE", path, &[], "").await.expect(404);
    server.send("PATCH", path, &patch, "{}").await.expect(404);
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_entity_tags() {
    let server = seven().await;
    let path = &format!("{ITEMS}/s1");
    let etag = server.get(path).await.expect(200).header("etag").to_owned();
    let same = server.send("GET", path, &[("if-none-match", &etag)], "").await.expect(304);
    assert!(same.body.is_empty());
    let patch = "application/merge-patch+json";
    let conditional = |tag: &'static str| [("content-type", patch), ("if-match", tag)];
    server.send("PATCH", path, &conditional("\"other\""), r#"{"sog":1}"#).await.expect(412);
    let patched = server.send("PATCH", path, &[("content-type", patch), ("if-match", &etag)], r#"{"sog":1}"#).await;
    let next = server.get(path).await.expect(200).header("etag").to_owned();
    assert_ne!(next, etag);
    assert_eq!(patched.expect(204).header("etag"), next);
    let made = server.post(ITEMS, &ship("made", 1.0, 1.0, json!({}))).await.expect(201);
    assert_eq!(made.header("etag"), server.get(&format!("{ITEMS}/made")).await.header("etag"));
    server.send("DELETE", path, &[("if-match", &etag)], "").await.expect(412);
    server.send("GET", path, &[("if-none-match", &etag)], "").await.expect(200);
    server
        .send("PUT", &format!("{ITEMS}/nobody"), &[("if-match", "*")], ship("x", 0.0, 0.0, json!({})).to_string())
        .await
        .expect(412);
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feature_collection_is_written_as_a_whole_or_not_at_all() {
    let server = seven().await;
    let good = || ship("new", 1.0, 1.0, json!({}));
    for (bad, status, pointer) in [
        (ship("bad", 1.0, 1.0, json!({ "mmsi": "x" })), 400, "/features/1/properties/mmsi"),
        (ship("bad", 1.0, 100.0, json!({})), 400, "/features/1/geometry"),
        (ship("s3", 1.0, 1.0, json!({})), 409, ""),
        (ship("new", 1.0, 1.0, json!({})), 409, ""),
    ] {
        let answer = server.post(ITEMS, &collection(vec![good(), bad])).await.expect(status);
        let body = answer.json();
        assert_eq!(body["pointer"].as_str().unwrap_or_default(), pointer, "{body}");
        server.get(&format!("{ITEMS}/new")).await.expect(404);
    }
    let mut nameless = good();
    nameless.as_object_mut().unwrap().remove("id");
    let answer = server.post(ITEMS, &collection(vec![good(), nameless])).await.expect(201);
    let summary = answer.json();
    assert_eq!((&summary["inserted"], &summary["ids"][0]), (&json!(2), &json!("new")));
    let made = summary["ids"][1].as_str().unwrap();
    server.get(&format!("{ITEMS}/{made}")).await.expect(200);
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_written_in_their_order() {
    let server = Server::start(TYPES).await;
    let lines = [("content-type", "application/x-ndjson")];
    let mut body = String::new();
    // Each id several times, in different batches: the last one stays.
    for n in 0..3500 {
        let _ = writeln!(body, "{}", ship(&format!("s{}", n % 700), 1.0, 2.0, json!({ "mmsi": n })));
    }
    body.push_str("\n{\"type\":\"Feature\"\n");
    body.push_str(&ship("long", 1.0, 1.0, json!({ "name": "x".repeat(3000) })).to_string());
    body.push('\n');
    body.push_str(&ship("last", 1.0, 1.0, json!({ "speed": 1 })).to_string());
    let answer = server.send("POST", ITEMS, &lines, body).await.expect(200);
    let report = answer.json();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(3500), &json!(3)));
    let told: Vec<&Value> = report["errors"].as_array().unwrap().iter().map(|e| &e["line"]).collect();
    assert_eq!(told, [3502, 3503, 3504]);
    assert_eq!(report["errors"][2]["pointer"], "/properties/speed");
    assert_eq!(server.get(&format!("{ITEMS}?limit=1")).await.json()["numberMatched"], 700);
    assert_eq!(server.get(&format!("{ITEMS}/s699")).await.json()["properties"]["mmsi"], 3499);
    assert_eq!(server.get(&format!("{ITEMS}/s0")).await.json()["properties"]["mmsi"], 2800);

    // The thousandth error is told and the rest counted.
    let report = server.send("POST", ITEMS, &lines, "x\n".repeat(1250)).await.expect(200).json();
    assert_eq!((&report["rejected"], &report["errorsTruncated"]), (&json!(1250), &json!(true)));
    assert_eq!(report["errors"].as_array().unwrap().len(), 1000);

    let sequence = [("content-type", "application/geo+json-seq")];
    let pretty = serde_json::to_string_pretty(&ship("seq", 1.0, 1.0, json!({}))).unwrap();
    let body = format!("\u{1e}{pretty}\n\u{1e}{pretty}\n");
    let report = server.send("POST", ITEMS, &sequence, body).await.expect(200).json();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(2), &json!(0)));
    server.get(&format!("{ITEMS}/seq")).await.expect(200);
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_come_packed() {
    use std::io::Write as _;
    let server = Server::start(TYPES).await;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(ship("packed", 1.0, 1.0, json!({})).to_string().as_bytes()).unwrap();
    let headers = [("content-type", "application/geo+json"), ("content-encoding", "gzip")];
    server.send("POST", ITEMS, &headers, packer.finish().unwrap()).await.expect(201);
    let packed = server.send("GET", ITEMS, &[("accept-encoding", "gzip")], "").await.expect(200);
    assert_eq!(packed.header("content-encoding"), "gzip");

    // A bomb does not unfold beyond the limit.
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vec![b' '; 10_000_000]).unwrap();
    server.send("POST", ITEMS, &headers, packer.finish().unwrap()).await.expect(413);
    server.app.shutdown().await;
}
