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
