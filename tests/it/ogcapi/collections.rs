//! Collections that are made and removed at run time.

use serde_json::json;

use crate::app::Server;

#[tokio::test(flavor = "multi_thread")]
async fn collections_come_and_go() {
    let server = Server::start("").await;
    let declaration = json!({
        "id": "lakes", "title": "Lakes", "geometry": { "type": "MultiPolygon", "epsg": 3857 },
        "properties": [{ "name": "depth", "type": "number" }, { "name": "seen", "type": "date", "nullable": false }],
        "expiry": 5,
    });
    let created = server.post("/collections", &declaration).await.expect(201);
    assert_eq!(created.header("location"), server.url("/collections/lakes"));
    assert_eq!(server.get("/collections/lakes").await.expect(200).json()["title"], "Lakes");
    server.post("/collections", &declaration).await.expect(409);
    let pond = json!({
        "type": "Feature", "id": "pond", "properties": { "seen": "2022-01-03" },
        "geometry": { "type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]] },
    });
    server.post("/collections/lakes/items", &pond).await.expect(201);
    let read = server.get("/collections/lakes/items/pond").await.expect(200).json();
    assert_eq!(read["geometry"]["type"], "MultiPolygon");
    for (bad, pointer, word) in [
        (json!({ "id": "Lakes" }), "/name", "Lakes"),
        (json!({ "title": "x" }), "/name", "required"),
        (json!({ "id": "a", "colour": 1 }), "/colour", "colour"),
        (json!({ "id": "a", "title": null, "properties": [null] }), "/properties/0", "properties.0"),
        (json!({ "id": "a", "properties": [{ "name": "b", "type": "text" }] }), "/properties/0/type", "text"),
        (json!({ "id": "a", "properties": [{ "name": "b c", "type": "date" }] }), "/properties/0/name", "b c"),
        (json!({ "id": "a", "geometry": { "type": "Point", "epsg": 1 } }), "/geometry/epsg", "EPSG:1"),
        (json!({ "id": "a", "geometry": { "type": "Point", "epsg": -1 } }), "/geometry/epsg", "-1"),
        (json!({ "id": "a", "expiry": "soon" }), "/expiry", "soon"),
        (json!({ "id": "a", "partitions": 0 }), "/partitions", "partitions"),
        (
            json!({ "id": "a", "geometry": { "type": "LineString", "dimension": "XYM" }, "track": {}, "track_of": "nothing" }),
            "/track_of",
            "nothing",
        ),
        (json!([]), "", "not a feature type"),
    ] {
        let answer = server.post("/collections", &bad).await.expect(400);
        assert_eq!(answer.json()["pointer"], pointer, "{bad}: {}", answer.text());
        assert!(answer.text().contains(word), "{bad}: {}", answer.text());
    }
    server.send("DELETE", "/collections/lakes?purge=true", &[], "").await.expect(204);
    server.get("/collections/lakes").await.expect(404);
    server.send("DELETE", "/collections/lakes", &[], "").await.expect(404);
    server.app.shutdown().await;
}
