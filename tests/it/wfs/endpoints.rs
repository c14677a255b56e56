//! Where the service is found: one feature type at an address of its own, and the addresses that answers tell.

use super::{SETTINGS, Server, exception};
use crate::app;

#[tokio::test(flavor = "multi_thread")]
async fn one_type_has_an_address_of_its_own() {
    let server = Server::with_ships().await;
    let here = server.0.url("/wfs/ships");
    for version in ["2.0.0", "1.1.0", "1.0.0"] {
        let query = |rest: &str| format!("/ships?service=WFS&version={version}&request={rest}");
        let capabilities = server.send("GET", &query("GetCapabilities"), "").await.text;
        assert!(
            capabilities.contains("app:ships<") && !capabilities.contains("app:roads<"),
            "{version}: {capabilities}"
        );
        let service = server.0.url("/wfs");
        let mut addresses = capabilities.match_indices(&service).map(|(at, _)| &capabilities[at + service.len()..]);
        assert!(addresses.clone().count() > 2 && addresses.all(|rest| rest.starts_with("/ships")), "{capabilities}");
        let schema = server.send("GET", &query("DescribeFeatureType"), "").await.text;
        assert!(schema.contains("\"ships\"") && !schema.contains("\"roads\""), "{version}: {schema}");
        let features = server.send("GET", &query("GetFeature&typeName=ships"), "").await.text;
        assert!(
            features.contains("ships.s5") && features.contains(&format!("{here}?service=WFS")),
            "{version}: {features}"
        );
    }
    let page =
        server.send("GET", "/ships?service=WFS&version=2.0.0&request=GetFeature&typeNames=ships&count=2", "").await;
    assert!(page.xml().attribute("next").unwrap().starts_with(&format!("{here}?")));

    let others = "/ships?service=WFS&version=2.0.0&request=GetFeature&typeNames=roads";
    exception(&server.send("GET", others, "").await, 400, "InvalidParameterValue", "typeName");
    let nothing = "/planes?service=WFS&version=2.0.0&request=GetCapabilities";
    assert_eq!(server.send("GET", nothing, "").await.status, 404);
    let transaction = |type_name: &str| {
        format!(
            "<wfs:Transaction service='WFS' version='2.0.0' xmlns:wfs='http://www.opengis.net/wfs/2.0' \
             xmlns:fes='http://www.opengis.net/fes/2.0'><wfs:Delete typeName='{type_name}'><fes:Filter>\
             <fes:ResourceId rid='{type_name}.s1'/></fes:Filter></wfs:Delete></wfs:Transaction>"
        )
    };
    let refused = server.send("POST", "/ships", &transaction("roads")).await;
    assert!(refused.status == 400 && refused.text.contains("at this address"), "{}", refused.text);
    let deleted = server.send("POST", "/ships", &transaction("ships")).await;
    assert!(deleted.text.contains("<wfs:totalDeleted>1<"), "{}", deleted.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_is_the_one_that_clients_use() {
    let requests = [
        "/wfs?service=WFS&request=GetCapabilities",
        "/wfs?service=WFS&request=GetCapabilities&version=1.1.0",
        "/wfs?service=WFS&request=GetCapabilities&version=1.0.0",
        "/wfs/ships?service=WFS&request=GetCapabilities",
        "/wfs?service=WFS&version=2.0.0&request=GetFeature&typeNames=ships&count=1",
        "/wfs?service=WFS&version=2.0.0&request=GetFeature&typeNames=ships&count=1&outputFormat=json",
        "/wfs?service=WFS&version=1.0.0&request=GetFeature&typeName=ships",
        "/collections/ships/items?limit=1",
        "/collections",
        "/api",
    ];
    let forwarded = [("forwarded", "proto=https;host=geo.example"), ("x-forwarded-prefix", "/f")];
    for (setting, headers, address) in [
        ("public_url = 'https://maps.example/a/'", &[][..], "https://maps.example/a"),
        ("trusted_proxies = ['127.0.0.0/8']", &forwarded[..], "https://geo.example/f"),
    ] {
        let server = format!("[server]\nallow_anonymous_writes = true\n{setting}\n");
        let server = app::Server::start(&SETTINGS.replace("[server]\n", &server)).await;
        let ships: Vec<_> = (0..3)
            .map(|n| serde_json::json!({"type": "Feature", "id": format!("s{n}"), "geometry": null, "properties": {}}))
            .collect();
        let ships = serde_json::json!({"type": "FeatureCollection", "features": ships});
        server.post("/collections/ships/items", &ships).await.expect(201);
        for path in requests {
            let answer = server.send("GET", path, headers, "").await.expect(200).text();
            assert!(answer.contains(address), "{path}: {answer}");
            assert!(!answer.contains(&server.url("")), "{path}: {answer}");
        }
        server.app.shutdown().await;
    }
}
