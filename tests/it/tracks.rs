//! Tracks over HTTP: appending, late and repeated fixes, parts, many at once, both tiers; and PostGIS's word on what is stored.

use std::time::Duration;

use serde_json::{Value, json};

use crate::app::{Answer, Server};

const TYPES: &str = r#"
[store]
sweep_interval = 0.05
[[feature_types]]
name = "tracks"
geometry = { type = "LineString", dimension = "XYM" }
track = {}
expiry = 0.3
properties = [{ name = "name", type = "string" }, { name = "speed", type = "number" }]
[[feature_types]]
name = "trips"
geometry = { type = "MultiLineString", dimension = "XYZM" }
track = { gap_seconds = 60 }
expiry = 3600
properties = [{ name = "driver", type = "string", nullable = false }]
[[feature_types]]
name = "points"
geometry = { type = "Point", epsg = 3857 }
expiry = 3600
properties = [{ name = "name", type = "string" }, { name = "seen", type = "date-time" }]
[[feature_types]]
name = "paths"
geometry = { type = "LineString", dimension = "XYM" }
track = {}
track_of = "points"
expiry = 3600
properties = [{ name = "name", type = "string" }]
"#;

fn fix(time: i64, x: f64) -> Value {
    json!({ "time": time, "coordinates": [x, 50.0] })
}

async fn append_to(server: &Server, path: &str, body: &Value) -> Answer {
    server.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
}

async fn line(server: &Server, path: &str) -> Value {
    floats(&server.get(path).await.expect(200).json()["geometry"]["coordinates"])
}

/// So that 1 is 1.0.
fn floats(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.iter().map(floats).collect(),
        number => json!(number.as_f64()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fixes_make_a_line_whatever_their_order_and_tier() {
    let server = Server::start(TYPES).await;
    let track = "/collections/tracks/items/t1";
    let append = format!("{track}/track");
    append_to(
        &server,
        &append,
        &json!({ "time": "1970-01-01T00:01:40Z", "coordinates": [1, 50], "properties": { "name": "Ada", "speed": 3 } }),
    )
    .await
    .expect(204);
    assert_eq!(line(&server, track).await, floats(&json!([[1, 50], [1, 50]])), "a single fix stands twice");
    append_to(&server, &append, &fix(300, 3.0)).await.expect(204);
    let two = json!({ "fixes": [fix(200, 2.0), fix(300, 3.5)], "properties": { "speed": 7 } });
    append_to(&server, &append, &two).await.expect(204);
    let whole = floats(&json!([[1, 50], [2, 50], [3.5, 50]]));
    assert_eq!(line(&server, track).await, whole);
    let found = server.get("/collections/tracks/items?bbox=1.9,49,2.1,51&speed=7").await.expect(200).json();
    assert_eq!(
        (found["numberMatched"].clone(), found["features"][0]["properties"]["name"].clone()),
        (json!(1), json!("Ada"))
    );

    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while server.get(track).await.expect(200).header("alluvium-tier") != "persistent" {
        assert!(tokio::time::Instant::now() < deadline, "never persisted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(line(&server, track).await, whole);
    append_to(&server, &append, &fix(200, 2.0)).await.expect(204);
    assert_eq!(line(&server, track).await, whole, "the same fix again changes nothing");
    append_to(&server, &append, &fix(150, 1.5)).await.expect(204);
    assert_eq!(
        line(&server, track).await,
        floats(&json!([[1, 50], [1.5, 50], [2, 50], [3.5, 50]])),
        "built on its base"
    );
}

/// Vertices of the line that other programs see in the file, and the fixes that stand apart from it, in how many pieces. (A line's
/// header, envelope and counts are 49 bytes, a vertex 24; a piece's header is 9, a fix 29.)
fn in_the_file(server: &Server) -> (usize, usize, usize) {
    let file = rusqlite::Connection::open(server.data_dir().join("alluvium.gpkg")).unwrap();
    let number = |sql: &str| file.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap_or(0) as usize;
    let tails = "FROM gpkgext_alluvium_tails";
    (
        number("SELECT length(geom) - 49 FROM long") / 24,
        number(&format!("SELECT sum(length(fixes) - 9) {tails}")) / 29,
        number(&format!("SELECT count(*) {tails}")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_long_track_that_grows_only_what_is_new_is_persisted() {
    const LONG: &str = r#"
        store.sweep_interval = 0.05
        store.track_rest = 0.5
        [[feature_types]]
        name = "long"
        geometry = { type = "LineString", dimension = "XYM" }
        track = {}
        expiry = 2
        properties = [{ name = "speed", type = "number" }]
    "#;
    let server = Server::start(LONG).await;
    let track = "/collections/long/items/t";
    let fixes: Vec<Value> = (0..2000).map(|n| fix(n, n as f64 / 100.0)).collect();
    append_to(&server, &format!("{track}/track"), &json!({ "fixes": fixes })).await.expect(204);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let mut n = 2000;
    let more = async |server: &Server, n: &mut i64| {
        let body = json!({ "fixes": [fix(*n, 30.0)], "properties": { "speed": *n } });
        append_to(server, &format!("{track}/track"), &body).await.expect(204);
        *n += 1;
    };
    while in_the_file(&server).2 < 2 {
        assert!(tokio::time::Instant::now() < deadline, "nothing stands apart: {:?}", in_the_file(&server));
        more(&server, &mut n).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (vertices, apart, _) = in_the_file(&server);
    assert!(vertices < n as usize && vertices + apart <= n as usize, "{vertices} and {apart} of {n}");
    // Whoever begins now has the line of them, and the tail.
    let server = server.restart(LONG).await;
    crate::app::wait_until_ready(&server).await;
    assert_eq!(line(&server, track).await.as_array().unwrap().len() as i64, n);
    let found =
        server.get(&format!("/collections/long/items?bbox=29,49,31,51&speed={}", n - 1)).await.expect(200).json();
    assert_eq!(found["numberMatched"], 1);
    more(&server, &mut n).await;
    // At rest the table has it all.
    while in_the_file(&server) != (n as usize, 0, 0) {
        assert!(tokio::time::Instant::now() < deadline, "not whole: {:?} of {n}", in_the_file(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while server.get(track).await.header("alluvium-tier") != "persistent" {
        assert!(tokio::time::Instant::now() < deadline, "whole in the table, and still in the index");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(line(&server, track).await.as_array().unwrap().len() as i64, n);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_track_that_leaves_after_each_fix_only_that_is_persisted() {
    let settings = |rest: f64| {
        format!(
            r#"
        store.sweep_interval = 0.02
        store.track_rest = {rest}
        [[feature_types]]
        name = "long"
        geometry = {{ type = "LineString", dimension = "XYM" }}
        track = {{}}
        expiry = 0.02
        properties = [{{ name = "speed", type = "number" }}]
    "#
        )
    };
    let server = Server::start(&settings(3600.0)).await;
    let track = "/collections/long/items/t";
    let left = async |server: &Server| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while server.get(track).await.header("alluvium-tier") != "persistent" {
            assert!(tokio::time::Instant::now() < deadline, "it does not leave the index");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let fixes: Vec<Value> = (0..40).map(|n| fix(n, 1.0)).collect();
    append_to(&server, &format!("{track}/track"), &json!({ "fixes": fixes })).await.expect(204);
    left(&server).await;
    assert_eq!(in_the_file(&server), (40, 0, 0));
    // Until more than a quarter of it stands apart.
    for n in 1..=15_usize {
        let body = json!({ "fixes": [fix(39 + n as i64, 30.0)], "properties": { "speed": n } });
        append_to(&server, &format!("{track}/track"), &body).await.expect(204);
        left(&server).await;
        let expected = if n < 14 { (40, n, n) } else { (54, n - 14, n - 14) };
        assert_eq!(in_the_file(&server), expected);
        assert_eq!(line(&server, track).await.as_array().unwrap().len(), 40 + n);
        for part in ["bbox=29,49,31,51", "bbox=0,49,2,51"] {
            let found = server.get(&format!("/collections/long/items?{part}&speed={n}")).await.expect(200).json();
            assert_eq!((&found["numberMatched"], &found["numberReturned"]), (&json!(1), &json!(1)), "{part}");
        }
    }
    // At rest the table has it all, whoever swept it.
    let server = server.restart(&settings(0.1)).await;
    crate::app::wait_until_ready(&server).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while in_the_file(&server) != (55, 0, 0) {
        assert!(tokio::time::Instant::now() < deadline, "not whole: {:?}", in_the_file(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(line(&server, track).await.as_array().unwrap().len(), 55);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_begins_a_part() {
    let server = Server::start(TYPES).await;
    let trip = "/collections/trips/items/a";
    let append = format!("{trip}/track");
    let fixes = [(0, 0.0), (30, 1.0), (200, 2.0)].map(|(t, x)| json!({ "time": t, "coordinates": [x, 50, 7] }));
    append_to(&server, &append, &json!({ "fixes": fixes, "properties": { "driver": "Bob" } })).await.expect(204);
    assert_eq!(line(&server, trip).await, floats(&json!([[[0, 50, 7], [1, 50, 7]], [[2, 50, 7], [2, 50, 7]]])));
    let late = [90, 150].map(|t| json!({ "time": t, "coordinates": [1.5, 50, 7] }));
    append_to(&server, &append, &json!({ "fixes": late, "properties": { "driver": "Bob" } })).await.expect(204);
    assert_eq!(line(&server, trip).await.as_array().unwrap().len(), 1, "late fixes have joined the parts");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tracks_grow_by_lines() {
    let server = Server::start(TYPES).await;
    let mut lines = String::new();
    for n in 0..2500 {
        let mut one = fix(n, n as f64 / 100.0);
        one["id"] = json!(format!("t{}", n % 5));
        lines += &format!("{one}\n");
    }
    lines += "{\"id\":\"t9\",\"time\":\"yesterday\",\"coordinates\":[1,2]}\n";
    let answer = server
        .send("POST", "/collections/tracks/track", &[("content-type", "application/x-ndjson")], lines)
        .await
        .expect(200)
        .json();
    assert_eq!((answer["accepted"].clone(), answer["rejected"].clone()), (json!(2500), json!(1)));
    assert_eq!(
        (answer["errors"][0]["line"].clone(), answer["errors"][0]["pointer"].clone()),
        (json!(2501), json!("/time"))
    );
    for n in 0..5 {
        let vertices = line(&server, &format!("/collections/tracks/items/t{n}")).await;
        assert_eq!(vertices.as_array().unwrap().len(), 500);
        assert_eq!(vertices[1][0], json!(f64::from(n + 5) / 100.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_written_in_any_way_grow_the_track() {
    let server = Server::start(TYPES).await;
    let point = "/collections/points/items/p";
    let at = |x: f64, second: u32| {
        json!({ "type": "Feature", "id": "p", "geometry": { "type": "Point", "coordinates": [x, 0] },
                "properties": { "name": format!("n{second}"), "seen": format!("2026-01-01T00:00:{second:02}Z") } })
    };
    let geojson = &[("content-type", "application/geo+json")];
    server.send("PUT", point, geojson, at(1.0, 1).to_string()).await.expect(204);
    let lines = format!("{}\n{}\n", at(4.0, 4), at(3.0, 3));
    server
        .send("POST", "/collections/points/items", &[("content-type", "application/x-ndjson")], lines)
        .await
        .expect(200);
    let patch = json!({ "geometry": { "type": "Point", "coordinates": [2, 0] }, "properties": { "seen": "2026-01-01T00:00:02Z" } });
    server
        .send("PATCH", point, &[("content-type", "application/merge-patch+json")], patch.to_string())
        .await
        .expect(204);
    let renamed = json!({ "properties": { "name": "moored" } });
    server
        .send("PATCH", point, &[("content-type", "application/merge-patch+json")], renamed.to_string())
        .await
        .expect(204);
    let transaction = r#"<wfs:Transaction service="WFS" version="2.0.0" xmlns:wfs="http://www.opengis.net/wfs/2.0" xmlns:fes="http://www.opengis.net/fes/2.0">
      <wfs:Update typeName="points"><wfs:Property><wfs:ValueReference>geom</wfs:ValueReference><wfs:Value>
      <gml:Point xmlns:gml="http://www.opengis.net/gml/3.2" srsName="urn:ogc:def:crs:OGC:1.3:CRS84"><gml:pos>5 0</gml:pos></gml:Point></wfs:Value></wfs:Property>
      <wfs:Property><wfs:ValueReference>seen</wfs:ValueReference><wfs:Value>2026-01-01T00:00:05Z</wfs:Value></wfs:Property>
      <fes:Filter><fes:ResourceId rid="points.p"/></fes:Filter></wfs:Update></wfs:Transaction>"#;
    server.send("POST", "/wfs", &[("content-type", "text/xml")], transaction).await.expect(200);
    let path = server.get("/collections/paths/items/p").await.expect(200).json();
    let vertices = path["geometry"]["coordinates"].as_array().unwrap().clone();
    let longitudes: Vec<f64> = vertices.iter().map(|v| v[0].as_f64().unwrap().round()).collect();
    assert_eq!(longitudes, [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(path["properties"]["name"], "n3", "the last position that named it");
    server.send("DELETE", point, &[], "").await.expect(204);
    server.get("/collections/paths/items/p").await.expect(200);
}

/// What is read can be written again.
#[tokio::test(flavor = "multi_thread")]
async fn the_times_of_whole_tracks_are_read_and_written() {
    let server = Server::start(TYPES).await;
    let json_type = [("content-type", "application/geo+json")];
    for (collection, times, expected) in [
        ("tracks", &[100.5][..], json!(["1970-01-01T00:01:40.5Z", "1970-01-01T00:01:40.5Z"])),
        ("tracks", &[300.0, 100.000001], json!(["1970-01-01T00:01:40.000001Z", "1970-01-01T00:05:00Z"])),
        (
            "trips",
            &[0.0, 1.0, 100.0],
            json!([["1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z"], ["1970-01-01T00:01:40Z", "1970-01-01T00:01:40Z"]]),
        ),
    ] {
        let items = format!("/collections/{collection}/items");
        let id = times.len();
        let fixes: Vec<Value> = times.iter().map(|t| json!({ "time": t, "coordinates": [t / 100.0, 50.0] })).collect();
        let properties = if collection == "trips" { json!({ "driver": "Ada" }) } else { json!({}) };
        let body = json!({ "fixes": fixes, "properties": properties });
        append_to(&server, &format!("{items}/{id}/track"), &body).await.expect(204);
        let read = server.get(&format!("{items}/{id}")).await.expect(200);
        assert_eq!(read.json()["datetimes"], expected);
        server.send("PUT", &format!("{items}/copy{id}"), &json_type, read.text()).await.expect(204);
        let copy = server.get(&format!("{items}/copy{id}")).await.expect(200).json();
        assert_eq!((&copy["geometry"], &copy["datetimes"]), (&read.json()["geometry"], &expected));
        let lean = server.get(&format!("{items}?skipGeometry=true")).await.expect(200).json();
        assert_eq!(lean["features"][0].get("datetimes"), None);
    }
    for (datetimes, word) in [
        (json!(["2026-01-01T00:00:00Z"]), "1 times for 2 positions"),
        (json!(["2026-01-01T00:00:00Z", "soon"]), "soon"),
        (json!("2026-01-01T00:00:00Z"), "a time for each position"),
    ] {
        let body = json!({ "type": "Feature", "properties": {}, "datetimes": datetimes,
            "geometry": { "type": "LineString", "coordinates": [[1, 2], [3, 4]] } });
        let answer =
            server.send("PUT", "/collections/tracks/items/bad", &json_type, body.to_string()).await.expect(400).json();
        assert_eq!(answer["pointer"], "/datetimes", "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(word), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_fix_is_told() {
    let server = Server::start(TYPES).await;
    let tracks = "/collections/tracks/items/t/track";
    for (path, body, status, word) in [
        (tracks, json!({ "coordinates": [1, 2] }), 400, "\"time\" and \"coordinates\""),
        (tracks, json!({ "time": "soon", "coordinates": [1, 2] }), 400, "soon"),
        (tracks, json!({ "time": 1, "coordinates": [1] }), 400, "two numbers"),
        (tracks, json!({ "time": 1, "coordinates": [1, 200] }), 400, "outside the CRS"),
        (tracks, json!({ "fixes": [] }), 400, "no fix"),
        (tracks, json!({ "id": "u", "time": 1, "coordinates": [1, 2] }), 400, "path"),
        (tracks, json!({ "time": 1, "coordinates": [1, 2], "properties": { "mood": 1 } }), 400, "mood"),
        ("/collections/trips/items/t/track", fix(1, 1.0), 400, "driver"),
        ("/collections/points/items/t/track", fix(1, 1.0), 404, "no tracks"),
        ("/collections/nothing/items/t/track", fix(1, 1.0), 404, "nothing"),
    ] {
        let answer = append_to(&server, path, &body).await.expect(status).json();
        assert!(answer["detail"].as_str().unwrap().contains(word), "{body}: {answer}");
    }
    let flat = json!({ "type": "Feature", "geometry": { "type": "LineString", "coordinates": [[1, 2], [3, 4]] }, "properties": {} });
    let answer = server
        .send("PUT", "/collections/tracks/items/t", &[("content-type", "application/geo+json")], flat.to_string())
        .await
        .expect(400)
        .json();
    assert!(answer["detail"].as_str().unwrap().contains("must rise"), "{answer}");
}

#[cfg(feature = "cluster")]
mod postgis {
    use std::sync::Arc;

    use alluvium::delegate::postgis::{PostGis, PostGisSettings};
    use alluvium::delegate::sql::{Dialect, SqlWriter};
    use alluvium::delegate::{Base, Delegate, PersistBatch, PersistEntry, Persisting};
    use alluvium::model::geometry::Coord;
    use alluvium::model::{Append, FeatureType, Growth, Rect, Watermark};
    use alluvium::query::Filter;

    use crate::delegate::persist;
    use crate::postgres::database;

    #[tokio::test]
    async fn postgis_takes_tracks_for_trajectories() {
        let Some(database) = database().await else { return };
        let settings = PostGisSettings { url: database.url.clone(), max_connections: 4, ..PostGisSettings::default() };
        let d = PostGis::connect(settings).await.unwrap();
        let t: FeatureType =
            serde_json::from_str(r#"{"name":"tracks","geometry":{"type":"LineString","dimension":"XYZM"},"track":{}}"#)
                .unwrap();
        d.create(&t).await.unwrap();
        let track = |id: &str, n: u32| {
            let fix = |i| Coord { x: f64::from(i), y: 1.0, z: 2.0, m: 1.7e9 + f64::from(i) };
            let append = Append { id: id.into(), fixes: (0..n).map(fix).collect(), properties: Vec::new() };
            let feature = Arc::new(append.apply(None, &t.track_shape().unwrap()));
            PersistEntry { id: id.into(), feature: Some(feature), version: 1, event_time: None }
        };
        let entries = vec![track("one", 1), track("ten", 10)];
        persist(&d, &t, entries.clone()).await;
        database
            .run(
                "DO $$ BEGIN
                   ASSERT (SELECT count(*) FROM tracks WHERE ST_IsValidTrajectory(geom)) = 2, 'not trajectories';
                   ASSERT (SELECT ST_NPoints(geom) FROM tracks WHERE id = 'ten') = 10;
                   ASSERT (SELECT ST_X(ST_GeometryN(ST_LocateAlong(geom, 1.7e9 + 4.5), 1)) FROM tracks WHERE id = 'ten') = 4.5;
                   ASSERT (SELECT abs(ST_ClosestPointOfApproach(a.geom, b.geom) - 1.7e9) < 1
                           FROM tracks a, tracks b WHERE a.id = 'one' AND b.id = 'ten');
                 END $$",
            )
            .await;
        let bases = d.load(&t, &["one".into(), "ten".into()]).await.unwrap().bases;
        for (base, entry) in bases.into_iter().zip(entries) {
            let Some(Base::Row(row)) = base else { panic!("no row") };
            assert_eq!(Some(row.feature), entry.feature);
        }
        // What is new stands apart; the line that others read is as it was, until it is put together.
        let shape = t.track_shape().unwrap();
        let fixes = [20.0, 30.0].map(|m| Coord { x: 50.0, y: 1.0, z: 2.0, m: 1.7e9 + m });
        let growth = Growth {
            id: "ten".into(),
            version: 2,
            builds_on: 1,
            properties: Vec::new(),
            fixes: shape.points(fixes.into_iter()).unwrap(),
        };
        let expected = d.watermarks(&t).await.unwrap()[0];
        let next = Watermark { durable_through: 3, evict_through: 3, as_of: 3 };
        let (growths, entries) = (vec![growth], vec![]);
        let batch =
            PersistBatch { partition: 0, expected, next, entries, growths, forget_deleted_before: 0, now_ms: 0 };
        assert_eq!(d.persist(&t, batch).await.unwrap(), Persisting::Committed { refused: vec![] });
        let has = |vertices: u32, tails: u32| {
            format!(
                "DO $$ BEGIN
                   ASSERT (SELECT ST_NPoints(geom) = {vertices} AND alluvium_version = 2 FROM tracks WHERE id = 'ten'), 'the line';
                   ASSERT (SELECT count(*) = {tails} FROM alluvium.tail), 'the tail';
                   ASSERT (SELECT count(*) = 2 FROM tracks WHERE ST_IsValidTrajectory(geom)), 'not trajectories';
                 END $$"
            )
        };
        database.run(&has(10, 1)).await;
        let ten = async || match d.load(&t, &["ten".into()]).await.unwrap().bases.remove(0) {
            Some(Base::Row(row)) => (row.feature, row.version, row.apart),
            _ => panic!("no row"),
        };
        let (whole, version, apart) = ten().await;
        assert_eq!((whole.geometry.as_ref().unwrap().wkb().len(), version, apart), (9 + 12 * 32, Some(2), 2));
        assert_eq!(d.fold(&t, 0, 3).await.unwrap(), 1);
        database.run(&has(12, 0)).await;
        assert_eq!(ten().await, (whole, version, 0));
    }

    /// Both indexes serve a box: the one on the lines, and that on the tails.
    #[tokio::test]
    async fn boxes_over_tracks_are_looked_up() {
        let Some(database) = database().await else { return };
        let settings = PostGisSettings { url: database.url.clone(), max_connections: 4, ..PostGisSettings::default() };
        let d = PostGis::connect(settings).await.unwrap();
        let t: FeatureType =
            serde_json::from_str(r#"{"name":"tracks","geometry":{"type":"LineString","dimension":"XYM"},"track":{}}"#)
                .unwrap();
        d.create(&t).await.unwrap();
        let mut writer = SqlWriter::new(Dialect::Postgres, &t, "EXPLAIN SELECT id FROM tracks WHERE ");
        writer.filter(&Filter::Bbox(Rect { min_x: 1.0, min_y: 1.0, max_x: 1.01, max_y: 1.01 }));
        let explain = writer.sql.replace('\'', "''");
        database
            .run(&format!(
                "INSERT INTO tracks (id, geom) SELECT 't' || n, ST_SetSRID(ST_MakeLine(ST_MakePointM(n % 300, n % 70, 1),
                   ST_MakePointM(n % 300 + 0.1, n % 70, 2)), 4326) FROM generate_series(1, 20000) n;
                 INSERT INTO alluvium.tail SELECT 'tracks', 't' || n, 0, 1, ST_SetSRID(ST_MakePointM(n % 300, n % 70, 3), 4326), true
                   FROM generate_series(1, 20000, 10) n;
                 ANALYZE tracks; ANALYZE alluvium.tail;
                 DO $$ DECLARE step text; plan text := ''; BEGIN
                   FOR step IN EXECUTE '{explain}' LOOP plan := plan || step || E'\n'; END LOOP;
                   ASSERT plan LIKE '%BitmapOr%' AND plan LIKE '%tail_by_place%' AND plan NOT LIKE '%Seq Scan%', plan;
                 END $$"
            ))
            .await;
    }
}
