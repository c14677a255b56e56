//! Collections that are made, changed and removed at run time.

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

#[tokio::test(flavor = "multi_thread")]
async fn collections_change_while_they_are_used() {
    let server = Server::start("").await;
    let declaration = json!({
        "id": "lakes", "geometry": { "type": "Point" }, "expiry": 5,
        "properties": [{ "name": "depth", "type": "int32", "nullable": false }],
    });
    server.post("/collections", &declaration).await.expect(201);
    let lake = |id: &str, properties: serde_json::Value| json!({ "type": "Feature", "id": id, "geometry": null, "properties": properties });
    let items = "/collections/lakes/items";
    server.post(items, &lake("old", json!({ "depth": 7 }))).await.expect(201);
    let merge_patch = [("content-type", "application/merge-patch+json")];
    let patch = async |patch: &serde_json::Value| {
        server.send("PATCH", "/collections/lakes", &merge_patch, patch.to_string()).await
    };
    let changed = patch(&json!({
        "title": "Lakes", "expiry": "never",
        "properties": {
            "depth": { "type": "number", "nullable": true }, "name": { "type": "string", "index": true, "title": "Name" },
        },
    }))
    .await
    .expect(200);
    assert_eq!(changed.json()["title"], "Lakes");
    // At once, in every protocol.
    let schema = server.get("/collections/lakes/schema").await.expect(200).json();
    assert_eq!(schema["properties"]["depth"]["type"], "number");
    assert_eq!((&schema["properties"]["name"]["title"], &schema["required"]), (&json!("Name"), &json!([])));
    let gml =
        server.get("/wfs?service=WFS&version=2.0.0&request=DescribeFeatureType&typeNames=lakes").await.expect(200);
    assert!(gml.text().contains(r#"name="name""#), "{}", gml.text());
    server.post(items, &lake("new", json!({ "depth": 0.5, "name": "Walden" }))).await.expect(201);
    let old = server.get("/collections/lakes/items/old").await.expect(200).json();
    assert_eq!(old["properties"], json!({ "depth": 7.0, "name": null }));
    let found = server.get("/collections/lakes/items?name=Walden").await.expect(200).json();
    assert_eq!(found["features"][0]["properties"], json!({ "depth": 0.5, "name": "Walden" }));

    for (bad, pointer, word) in [
        (json!({ "properties": { "name": null } }), "/properties/name", "removed"),
        (json!({ "properties": [] }), "/properties/depth", "removed"),
        (json!({ "properties": { "depth": { "type": "int32" } } }), "/properties/depth/type", "depth"),
        (json!({ "properties": { "depth": { "nullable": false } } }), "/properties/depth/nullable", "depth"),
        (
            json!({ "properties": { "area": { "type": "number", "nullable": false } } }),
            "/properties/area/nullable",
            "area",
        ),
        (json!({ "properties": { "area": { "type": "acre" } } }), "/properties/area/type", "acre"),
        (json!({ "properties": { "name": { "name": "names" } } }), "/properties/name", "renamed"),
        (json!({ "geometry": { "type": "Polygon" } }), "/geometry", "cannot become"),
        (json!({ "geometry": null }), "/geometry", "cannot become"),
        (json!({ "partitions": 2 }), "/partitions", "cannot become"),
        (json!({ "persist": false }), "/persist", "cannot become"),
        (json!({ "id": "ponds" }), "/name", "ponds"),
        (json!({ "colour": 1 }), "/colour", "colour"),
        (json!({ "expiry": "soon" }), "/expiry", "soon"),
    ] {
        let answer = patch(&bad).await.expect(400);
        assert_eq!(answer.json()["pointer"], pointer, "{bad}: {}", answer.text());
        assert!(answer.text().contains(word), "{bad}: {}", answer.text());
    }
    let after = server.get("/collections/lakes/schema").await.expect(200).json();
    assert_eq!(after, schema, "what was refused changed nothing");
    patch(&json!([])).await.expect(400);
    server.send("PATCH", "/collections/lakes", &[("content-type", "text/plain")], "{}").await.expect(415);
    server.send("PATCH", "/collections/ponds", &merge_patch, "{}").await.expect(404);
    assert!(server.send("OPTIONS", "/collections/lakes", &[], "").await.expect(200).header("allow").contains("PATCH"));
    server.app.shutdown().await;
}
