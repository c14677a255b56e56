//! Reading: pages, parameters, coordinate systems, positions, both tiers.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CRS84, EPSG_3857, EPSG_4326, ITEMS, TYPES, ids, link, seven, ship};
use crate::app::{Answer, Server};

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other() {
    let server = seven().await;
    for query in ["?limit=2", "?sortby=-name&limit=2", "", "?bbox=-1,0,60,60&sortby=name,-sog"] {
        let mut seen = Vec::new();
        let mut path = format!("{ITEMS}{query}");
        loop {
            let page = server.get(&path).await.expect(200);
            let body = page.json();
            assert_eq!(body["numberMatched"], 7, "{path}");
            assert_eq!(body["numberReturned"], body["features"].as_array().unwrap().len());
            assert_eq!(link(&body, "self").unwrap()["href"], server.url(&path));
            seen.extend(ids(&page));
            let Some(next) = link(&body, "next") else { break };
            assert_eq!(next["type"], "application/geo+json");
            path = next["href"].as_str().unwrap().strip_prefix(&server.url("")).unwrap().to_owned();
        }
        let mut all = seen.clone();
        all.sort();
        assert_eq!(all, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"], "{query}: {seen:?}");
        match query {
            "?sortby=-name&limit=2" => assert_eq!(seen, ["s1", "s3", "s5", "s0", "s2", "s4", "s6"]),
            "?bbox=-1,0,60,60&sortby=name,-sog" => assert_eq!(seen, ["s6", "s4", "s2", "s0", "s5", "s3", "s1"]),
            _ => assert_eq!(seen, all),
        }
    }
    // A number of features that the server has not is no error, and a cursor goes with any limit.
    let all = server.get(&format!("{ITEMS}?limit=99999999999999999999999")).await.expect(200);
    assert_eq!(ids(&all).len(), 7);
    assert_eq!((all.header("ogc-numbermatched"), all.header("ogc-numberreturned")), ("7", "7"));
    let first = server.get(&format!("{ITEMS}?limit=1")).await.json();
    let next = link(&first, "next").unwrap()["href"].as_str().unwrap().replace("limit=1", "limit=50");
    let rest = server.get(next.strip_prefix(&server.url("")).unwrap()).await.expect(200);
    assert_eq!(ids(&rest), ["s1", "s2", "s3", "s4", "s5", "s6"]);
    assert_eq!(rest.json()["numberMatched"], 7);
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flatgeobuf_has_no_pages() {
    let server = seven().await;
    let features = |answer: &Answer| {
        assert_eq!(answer.header("content-type"), "application/flatgeobuf");
        assert_eq!(answer.header("content-disposition"), "attachment; filename=\"ships.fgb\"");
        assert!(!answer.header("alluvium-position").is_empty());
        let mut rest = answer.body.strip_prefix(b"fgb\x03fgb\x00").unwrap();
        // The head, and each feature, behind its size.
        std::iter::from_fn(|| {
            let size = u32::from_le_bytes(*rest.first_chunk()?) as usize;
            rest = rest[4..].split_at(size).1;
            Some(())
        })
        .count()
            - 1
    };
    for (query, number) in [("", 7), ("&limit=5", 5), ("&sortby=-name&mmsi=4", 1), ("&bbox=-9,-9,-8,-8", 0)] {
        assert_eq!(features(&server.get(&format!("{ITEMS}?f=flatgeobuf{query}")).await.expect(200)), number, "{query}");
    }
    for (accept, name) in [
        ("application/flatgeobuf", "application/flatgeobuf"),
        ("application/flatgeobuf;q=0.9, */*;q=0.1", "application/flatgeobuf"),
        ("application/flatgeobuf;q=0.5, application/geo+json", "application/geo+json"),
        ("*/*", "application/geo+json"),
    ] {
        let answer = server.send("GET", ITEMS, &[("accept", accept)], "").await.expect(200);
        assert_eq!(answer.header("content-type"), name, "{accept}");
    }
    let asked_by_name =
        server.send("GET", &format!("{ITEMS}?f=json"), &[("accept", "application/flatgeobuf")], "").await;
    assert_eq!(asked_by_name.expect(200).header("content-type"), "application/geo+json");
    server.app.shutdown().await;
}

/// Part 1, `/req/core/fc-bbox-response`, of features whose plane bends parallels, and has no place for what is far away.
#[tokio::test(flavor = "multi_thread")]
async fn boxes_keep_their_edges_in_every_crs() {
    let server = Server::start(TYPES).await;
    let plots = json!({ "id": "plots", "geometry": { "type": "Point", "epsg": 25832 }, "expiry": 3600 });
    server.post("/collections", &plots).await.expect(201);
    server.post("/collections/plots/items", &ship("p", 11.9, 50.0, json!({}))).await.expect(201);
    server
        .post("/collections/plots/items", &json!({ "type": "Feature", "id": "z", "geometry": null }))
        .await
        .expect(201);
    for (bbox, expected) in [
        ("11.9,50,12,50.1", &["p", "z"][..]),
        ("-180,-90,180,90", &["p", "z"]),
        ("6,50.001,12,51", &["z"]),
        ("177,65,-177,70", &["z"]),
        ("-180,85,180,90", &["z"]),
        ("-80,-5,-70,5", &["z"]),
    ] {
        let answer = server.get(&format!("/collections/plots/items?bbox={bbox}")).await.expect(200);
        assert_eq!(ids(&answer), expected, "{bbox}");
        assert_eq!(answer.json()["numberMatched"], expected.len(), "{bbox}");
    }
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_select() {
    let server = seven().await;
    server.post(ITEMS, &json!({ "type": "Feature", "id": "z", "geometry": null, "properties": { "time": "2022-01-03T12:00:00Z" } })).await.expect(201);
    for (query, expected) in [
        ("name=ship+1&limit=9", &["s1", "s3", "s5"][..]),
        ("mmsi=4", &["s4"]),
        ("mmsi=4&name=ship%201", &[]),
        ("bbox=0.5,50,2.5,60", &["s1", "s2", "z"]),
        ("bbox=50,0.5,60,2.5&bbox-crs=http://www.opengis.net/def/crs/EPSG/0/4326", &["s1", "s2", "z"]),
        ("bbox=100,0,-100,90", &["z"]),
        ("datetime=2022-01-03&mmsi=4", &["s4"]),
        ("datetime=2022-01-04/..&bbox=170,0,180,1", &[]),
        ("datetime=../2022-01-04&bbox=170,0,180,1", &["z"]),
        // A plus sign that the client has not encoded.
        ("datetime=2022-01-03T13:00:00+01:00&bbox=170,0,180,1", &["z"]),
        ("datetime=2022-01-03T13:00:00.5+01:00/2022-01-03T14:00:00+01:00&bbox=170,0,180,1", &[]),
        ("time=2022-01-03T13:00:00+01:00", &["z"]),
        ("tier=persistent", &[]),
        ("tier=transient&mmsi=4", &["s4"]),
        ("sortby=-mmsi&limit=2", &["s6", "s5"]),
    ] {
        assert_eq!(ids(&server.get(&format!("{ITEMS}?{query}")).await.expect(200)), expected, "{query}");
    }
    let lean = server.get(&format!("{ITEMS}?mmsi=4&properties=sog,mmsi&skipGeometry=true")).await.json();
    assert_eq!(lean["features"][0]["geometry"], Value::Null);
    assert_eq!(lean["features"][0]["properties"], json!({ "mmsi": 4, "sog": 2.0 }));
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinates_come_in_the_crs_asked_for() {
    let server = seven().await;
    for (crs, expected) in
        [(CRS84, [6.0, 56.0]), (EPSG_4326, [56.0, 6.0]), (EPSG_3857, [667_916.944_759_641_3, 7_558_415.656_081_783])]
    {
        for path in [format!("{ITEMS}/s6?crs={crs}"), format!("{ITEMS}?mmsi=6&crs={crs}")] {
            let answer = server.get(&path).await.expect(200);
            assert_eq!(answer.header("content-crs"), format!("<{crs}>"));
            let body = answer.json();
            let feature = body.pointer("/features/0").unwrap_or(&body);
            let have: [f64; 2] = serde_json::from_value(feature["geometry"]["coordinates"].clone()).unwrap();
            assert!(have.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{path}: {have:?}");
        }
        // And are taken in it, with brackets and without.
        for spelled in [crs.to_owned(), format!("<{crs}>")] {
            let headers = [("content-type", "application/geo+json"), ("content-crs", &spelled)];
            let body = ship("back", expected[0], expected[1], json!({})).to_string();
            server.send("PUT", &format!("{ITEMS}/back"), &headers, body).await.expect(204);
            let back = server.get(&format!("{ITEMS}/back")).await.json();
            let have: [f64; 2] = serde_json::from_value(back["geometry"]["coordinates"].clone()).unwrap();
            assert!((have[0] - 6.0).abs() < 1e-6 && (have[1] - 56.0).abs() < 1e-6, "{crs}: {have:?}");
        }
    }
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_position_that_it_carries() {
    let server = seven().await;
    let written =
        server.send("PUT", &format!("{ITEMS}/w"), &[], ship("w", 0.0, 0.0, json!({})).to_string()).await.expect(204);
    let position = written.header("alluvium-position").to_owned();
    for path in [ITEMS.to_owned(), format!("{ITEMS}/w")] {
        let answer = server.send("GET", &path, &[("alluvium-position", &position)], "").await.expect(200);
        assert!(!answer.header("alluvium-position").is_empty());
    }
    let (name, offset) = position.rsplit_once('=').unwrap();
    let future = format!("{name}={}", offset.parse::<u64>().unwrap() + 1000);
    let settings = TYPES.replace("[server]", "[store]\nwait_for_apply = 0.2\n[server]");
    let hasty = Server::start(&settings).await;
    let own = hasty.send("PUT", &format!("{ITEMS}/w"), &[], ship("w", 0.0, 0.0, json!({})).to_string()).await;
    let own = own.header("alluvium-position").replace("=1", "=1000");
    let behind = hasty.send("GET", ITEMS, &[("alluvium-position", &own)], "").await.expect(503);
    assert!(!behind.header("retry-after").is_empty());
    // A token of a collection that had this name before.
    let stale = future.replace('@', "@x");
    server.send("GET", ITEMS, &[("alluvium-position", &stale)], "").await.expect(400);
    server.send("GET", ITEMS, &[("alluvium-position", "nonsense")], "").await.expect(400);
    hasty.app.shutdown().await;
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn features_are_read_the_same_from_either_tier() {
    let settings =
        TYPES.replace("expiry = 3600", "expiry = 0.2").replace("[server]", "[store]\nsweep_interval = 0.05\n[server]");
    let server = Server::start(&settings).await;
    let sent = ship("a", 1.0, 2.0, json!({ "mmsi": 5, "time": "2022-01-03T00:00:00.000001Z" }));
    server.post(ITEMS, &ship("before", 1.0, 2.0, json!({}))).await.expect(201);
    server.post(ITEMS, &sent).await.expect(201);
    let fresh = server.get(&format!("{ITEMS}/a")).await.expect(200);
    for _ in 0..200 {
        if server.get(&format!("{ITEMS}/a")).await.header("alluvium-tier") == "persistent" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let kept = server.get(&format!("{ITEMS}/a")).await.expect(200);
    assert_eq!(kept.header("alluvium-tier"), "persistent");
    assert_eq!(kept.text(), fresh.text());
    assert!(!fresh.header("etag").is_empty());
    assert_eq!(kept.header("etag"), fresh.header("etag"));
    assert_eq!(ids(&server.get(&format!("{ITEMS}?tier=transient")).await), Vec::<String>::new());
    assert_eq!(ids(&server.get(&format!("{ITEMS}?tier=persistent&mmsi=5")).await), ["a"]);
    server.app.shutdown().await;
}
