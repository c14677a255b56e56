//! Transactions in the form of WFS 2.0.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_2_0_transaction_inserts_updates_replaces_and_deletes() {
    let server = Server::with_ships().await;
    let answer = server
        .transaction(
            "<wfs:Insert handle=\"new &amp; old\"><app:ships gml:id=\"x\"><app:name>Neu</app:name></app:ships>\
             <app:notes gml:id=\"y\"><app:text>a &lt; b</app:text></app:notes></wfs:Insert>\
             <wfs:Update typeName=\"app:ships\"><wfs:Property><wfs:ValueReference>app:sog</wfs:ValueReference><wfs:Value>0</wfs:Value>\
             </wfs:Property><wfs:Property><wfs:ValueReference>seen</wfs:ValueReference></wfs:Property>\
             <fes:Filter><fes:PropertyIsEqualTo><fes:ValueReference>crew</fes:ValueReference><fes:Literal>0</fes:Literal>\
             </fes:PropertyIsEqualTo></fes:Filter></wfs:Update>\
             <wfs:Replace><app:ships gml:id=\"z\"><app:name>Ersatz</app:name></app:ships>\
             <fes:Filter><fes:ResourceId rid=\"ships.s1\"/></fes:Filter></wfs:Replace>\
             <wfs:Delete typeName=\"app:ships\"><fes:Filter><fes:BBOX><gml:Envelope srsName=\"EPSG:4326\"><gml:lowerCorner>21.5 59</gml:lowerCorner>\
             <gml:upperCorner>22.5 61</gml:upperCorner></gml:Envelope></fes:BBOX></fes:Filter></wfs:Delete>",
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.position.is_some());
    validate(&answer.text, WFS_20, None);
    let root = answer.xml();
    let totals: Vec<String> = root.children[0].children.iter().map(|c| format!("{} {}", c.local, c.text)).collect();
    assert_eq!(totals, ["totalInserted 2", "totalUpdated 2", "totalReplaced 1", "totalDeleted 1"]);
    let inserted = root.child("InsertResults").unwrap();
    assert_eq!(inserted.children[0].attribute("handle"), Some("new & old"));
    let rid = inserted.children[0].children[0].attribute("rid").unwrap();
    let note = inserted.children[1].children[0].attribute("rid").unwrap();
    assert!(rid.starts_with("ships.") && rid != "ships.x" && note.starts_with("notes."));
    assert_eq!(root.child("ReplaceResults").unwrap().children[0].children[0].attribute("rid"), Some("ships.s1"));
    let features = server
        .get(&format!("request=GetFeature&typeNames=ships&resourceId=ships.s1,ships.s2,ships.s3,{rid}"))
        .await
        .text;
    assert!(features.contains("<app:ships gml:id=\"ships.s1\"><app:name>Ersatz</app:name></app:ships>"), "{features}");
    assert!(
        features.contains("<app:sog>0</app:sog><app:crew>0</app:crew></app:ships>") && !features.contains("ships.s3\"")
    );
    assert!(features.contains("<app:name>Neu</app:name>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn inserted_features_keep_their_ids_where_they_can() {
    let server = Server::with_ships().await;
    let ship = |id: &str| format!("<app:ships gml:id=\"{id}\"><app:name>{id}</app:name></app:ships>");
    let insert = |attributes: &str, ships: &str| format!("<wfs:Insert {attributes}>{ships}</wfs:Insert>");
    let rids = |answer: &Answer| -> Vec<String> {
        let root = answer.xml();
        let features = &root.child("InsertResults").unwrap_or_else(|| panic!("{}", answer.text)).children;
        features.iter().map(|f| f.children[0].attribute("rid").unwrap().to_owned()).collect()
    };
    let all = ["ships.new", "_1", "ships.s1", "ships.new", "ships.a_x20_b"].map(ship).concat();
    let given = rids(&server.transaction(&insert("", &all)).await);
    assert_eq!((given[0].as_str(), given[4].as_str()), ("ships.new", "ships.a_x20_b"));
    assert!(given[1..4].iter().all(|id| id.len() == "ships.".len() + 36), "{given:?}");
    assert_eq!(server.ids("").await.len(), 10);
    let text = server.get(&format!("request=GetFeature&resourceId={}", given[2])).await.text;
    assert!(text.contains("<app:name>ships.s1</app:name>"), "{text}");

    let fresh = rids(&server.transaction(&insert("idgen=\"GenerateNew\"", &ship("ships.other"))).await);
    assert_ne!(fresh, ["ships.other"]);
    assert_eq!(rids(&server.transaction(&insert("idgen=\"UseExisting\"", &ship("bare"))).await), ["ships.bare"]);
    let taken = server.transaction(&insert("idgen=\"UseExisting\"", &ship("ships.bare"))).await;
    exception(&taken, 409, "InvalidValue", "gml:id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_wrong_changes_nothing_and_says_where() {
    let server = Server::with_ships().await;
    let insert = |ship: &str| format!("<wfs:Insert handle=\"h\">\n<app:ships>{ship}</app:ships></wfs:Insert>");
    let filter = "<fes:Filter><fes:ResourceId rid=\"ships.s1\"/></fes:Filter>";
    let update =
        |p: &str| format!("<wfs:Update typeName=\"ships\"><wfs:Property>{p}</wfs:Property>{filter}</wfs:Update>");
    for (actions, code, locator) in [
        (insert("<app:crew>many</app:crew>"), "InvalidValue", "crew"),
        (insert("<app:colour>red</app:colour>"), "InvalidValue", "colour"),
        (
            insert("<app:geom><gml:LineString><gml:posList>1 2 3 4</gml:posList></gml:LineString></app:geom>"),
            "InvalidValue",
            "geom",
        ),
        (
            insert("<app:geom><gml:Point srsName=\"EPSG:4326\"><gml:pos>60 124</gml:pos></gml:Point></app:geom>"),
            "InvalidValue",
            "geom",
        ),
        ("<wfs:Insert><app:planes/></wfs:Insert>".into(), "InvalidValue", "planes"),
        (
            "<wfs:Insert idgen=\"UseExisting\"><app:ships gml:id=\"ships.s1\"/></wfs:Insert>".into(),
            "InvalidValue",
            "gml:id",
        ),
        ("<wfs:Insert><app:roads/></wfs:Insert>".into(), "InvalidValue", "name"),
        (update("<wfs:ValueReference>colour</wfs:ValueReference>"), "InvalidParameterValue", "colour"),
        (update("<wfs:ValueReference>gml:boundedBy</wfs:ValueReference>"), "InvalidValue", "gml:boundedBy"),
        ("<wfs:Delete typeName=\"ships\"/>".into(), "MissingParameterValue", "Filter"),
        (format!("<wfs:Delete>{filter}</wfs:Delete>"), "MissingParameterValue", "typeName"),
        ("<wfs:Native vendorId=\"x\" safeToIgnore=\"false\"/>".into(), "InvalidParameterValue", "Native"),
    ] {
        let delete = format!("<wfs:Delete typeName=\"ships\">{}</wfs:Delete>", filter.replace("s1", "s2"));
        let answer = server.transaction(&format!("{delete}{actions}")).await;
        let status = if locator == "gml:id" { 409 } else { 400 };
        exception(&answer, status, code, locator);
    }
    assert_eq!(server.ids("").await.len(), 5);
    let nothing = server.transaction("<wfs:Native vendorId=\"x\" safeToIgnore=\"true\"/>").await;
    assert!(nothing.text.contains("<wfs:totalInserted>0</wfs:totalInserted>"));
    validate(&nothing.text, WFS_20, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_features_come_in_and_go_out_as_streams() {
    const N: usize = 20_000;
    let server = Server::start().await;
    let ships: String = (0..N)
        .map(|n| format!("<app:ships gml:id=\"ships.{n:06}\"><app:geom><gml:Point><gml:pos>{} 7</gml:pos></gml:Point></app:geom></app:ships>", n % 80))
        .collect();
    let answer = server.transaction(&format!("<wfs:Insert idgen=\"UseExisting\">{ships}</wfs:Insert>")).await;
    assert!(answer.text.contains(&format!("<wfs:totalInserted>{N}</wfs:totalInserted>")), "{:.300}", answer.text);
    let answer = server.get("request=GetFeature&typeNames=ships").await;
    let root = answer.xml();
    assert_eq!((root.attribute("numberMatched"), root.attribute("numberReturned")), (Some("20000"), Some("10000")));
    assert_eq!(root.children.len(), 10_000);
    let rest = root.attribute("next").unwrap().split_once('?').unwrap().1.to_owned();
    let rest = server.send("GET", &format!("?{rest}"), "").await.xml();
    assert_eq!(rest.children.last().unwrap().children[0].attribute("id"), Some("ships.019999"));

    // A feature that has no place in the CRS asked for: at the beginning an exception, later the end of what can be said.
    let pole = "<wfs:Update typeName=\"ships\"><wfs:Property><wfs:ValueReference>geom</wfs:ValueReference><wfs:Value><gml:Point><gml:pos>90 7\
                </gml:pos></gml:Point></wfs:Value></wfs:Property><fes:Filter><fes:ResourceId rid=\"ships.009000\"/></fes:Filter></wfs:Update>";
    assert_eq!(server.transaction(pole).await.status, 200);
    let query = "request=GetFeature&typeNames=ships&srsName=EPSG:3857";
    exception(&server.get(&format!("{query}&startIndex=9000")).await, 400, "InvalidParameterValue", "srsName");
    let answer = server.get(query).await;
    assert_eq!(answer.status, 200);
    let root = answer.xml();
    let last = root.children.last().unwrap();
    assert_eq!((root.children.len(), &*last.local), (9001, "truncatedResponse"));
    assert!(answer.text.contains("feature '009000' has no place in EPSG:3857"));
    validate(&answer.text, WFS_20, Some(&server.get("request=DescribeFeatureType").await.text));
    server.0.app.shutdown().await;
}
