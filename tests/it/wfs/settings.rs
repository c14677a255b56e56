//! What the settings of a feature type and of the service say of answers, and what a request may say instead.

use serde_json::{Value, json};

use super::*;

const DECIMALS: &str = r#"
[server]
allow_anonymous_writes = true
decimals = 3
[[feature_types]]
name = "ships"
geometry = { type = "Point" }
decimals = 1
[[feature_types]]
name = "roads"
geometry = { type = "LineString", epsg = 3857, dimension = "XYZ" }
"#;

/// The coordinates of the one feature of an answer in GeoJSON.
fn coordinates(answer: &Value) -> Value {
    answer["features"][0]["geometry"]["coordinates"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinates_have_so_many_decimals() {
    let server = Server::with(DECIMALS).await;
    let web = &server.0;
    for (collection, geometry) in [
        ("ships", json!({ "type": "Point", "coordinates": [24.123456789, -0.00000001] })),
        ("roads", json!({ "type": "LineString", "coordinates": [[24.123456789, 60.1, 1.23456], [25, 61, 2]] })),
    ] {
        let feature = json!({ "type": "Feature", "id": "a", "geometry": geometry, "properties": {} });
        web.post(&format!("/collections/{collection}/items"), &feature).await.expect(201);
    }
    let ask = async |query: &str| server.get(&format!("request=GetFeature&typeNames={query}")).await;

    // The type's own setting, in every format of text.
    let texts = [
        ("GML32", "<gml:pos>0 24.1</gml:pos>"),
        ("csv", "POINT (24.1 0)"),
        ("kml", "<coordinates>24.1,0</coordinates>"),
    ];
    for (format, expected) in texts {
        let text = ask(&format!("ships&outputFormat={format}")).await.text;
        assert!(text.contains(expected), "{format}: {text}");
    }
    let json = ask("ships&outputFormat=application/json").await.json();
    assert_eq!(coordinates(&json), json!([24.1, 0.0]));
    assert_eq!(coordinates(&web.get("/collections/ships/items").await.json()), json!([24.1, 0.0]));
    let one = web.get("/collections/ships/items/a").await.json();
    assert_eq!(one["geometry"]["coordinates"], json!([24.1, 0.0]));

    // The service's, in another CRS than the stored one, with Z.
    let road = coordinates(&web.get("/collections/roads/items").await.json());
    assert_eq!(road, json!([[24.123, 60.1, 1.235], [25.0, 61.0, 2.0]]));

    // The request's, which shows that nothing is lost.
    for (decimals, pos) in [(0, "0 24"), (4, "0 24.1235"), (15, "-0.00000001 24.123456789")] {
        let text = ask(&format!("ships&format_options=filename:x;decimals:{decimals}")).await.text;
        assert!(text.contains(&format!("<gml:pos>{pos}</gml:pos>")), "{text}");
    }
    for bad in ["16", "-1", "many", ""] {
        let answer = ask(&format!("ships&format_options=decimals:{bad}")).await;
        exception(&answer, 400, "InvalidParameterValue", "format_options");
    }

    // The type's can be changed; without it the service's holds.
    let merge = [("content-type", "application/merge-patch+json")];
    let change = async |decimals: Value| {
        web.send("PATCH", "/collections/ships", &merge, json!({ "decimals": decimals }).to_string()).await
    };
    change(Value::Null).await.expect(200);
    assert!(ask("ships").await.text.contains("<gml:pos>0 24.123</gml:pos>"));
    let refused = change(json!(16)).await.expect(400).text();
    assert!(refused.contains("decimals"), "{refused}");
}

const LIMITS: &str = r#"
[server]
allow_anonymous_writes = true
default_limit = 3
max_limit = 4
[[feature_types]]
name = "ships"
default_limit = 1
max_limit = 2
[[feature_types]]
name = "roads"
max_limit = 2
[[feature_types]]
name = "notes"
max_limit = 5
[[feature_types]]
name = "others"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_as_long_as_their_type_allows() {
    let server = Server::with(LIMITS).await;
    let web = &server.0;
    for collection in ["ships", "roads", "notes", "others"] {
        let feature = |n| json!({ "type": "Feature", "id": format!("{n}"), "geometry": null, "properties": {} });
        let features = json!({ "type": "FeatureCollection", "features": (0..6).map(feature).collect::<Vec<_>>() });
        assert!(web.post(&format!("/collections/{collection}/items"), &features).await.status.is_success());
    }
    // When the client does not say, and at most.
    for (collection, default, most) in [("ships", 1, 2), ("roads", 2, 2), ("notes", 3, 5), ("others", 3, 4)] {
        for (query, expected) in [("", default), ("?limit=100", most)] {
            let answer = web.get(&format!("/collections/{collection}/items{query}")).await.json();
            assert_eq!(answer["numberReturned"], expected, "{collection}{query}");
        }
    }
    // WFS has the longest page when the client does not say; several types have that of the strictest.
    let server = &server;
    let returned = async |query: &str| {
        let answer = server.get(&format!("request=GetFeature&typeNames={query}")).await;
        let root = answer.xml();
        assert!(root.attribute("next").is_some(), "{}", answer.text);
        root.attribute("numberReturned").map(str::to_owned).unwrap()
    };
    for (query, expected) in [
        ("ships", "2"),
        ("ships&count=1", "1"),
        ("notes", "5"),
        ("notes&count=100", "5"),
        ("others", "4"),
        ("(notes)(roads)", "2"),
        ("(notes,roads)", "2"),
        ("(roads,notes)&count=100", "2"),
    ] {
        assert_eq!(returned(query).await, expected, "{query}");
    }
    // Before 2.0 there is no next page.
    let text = server.ask("1.1.0", "request=GetFeature&typeName=ships").await.text;
    assert!(text.contains("numberOfFeatures=\"6\""), "{text}");

    let merge = [("content-type", "application/merge-patch+json")];
    let change = async |patch: Value| web.send("PATCH", "/collections/ships", &merge, patch.to_string()).await;
    change(json!({ "max_limit": 6, "default_limit": null })).await.expect(200);
    assert_eq!(web.get("/collections/ships/items").await.json()["numberReturned"], 3);
    assert_eq!(web.get("/collections/ships/items?limit=9").await.json()["numberReturned"], 6);
    for (patch, word) in
        [(json!({ "max_limit": 0 }), "max_limit"), (json!({ "default_limit": 7 }), "greater than max_limit")]
    {
        let refused = change(patch).await.expect(400).text();
        assert!(refused.contains(word), "{refused}");
    }
}
