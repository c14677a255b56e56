//! Transactions as QGIS and GDAL send them: in the words of earlier versions.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn qgis_writes_1_0_0_to_a_2_0_layer() {
    let server = Server::start().await;
    let transaction = |actions: &str| {
        format!(
            "<Transaction xmlns=\"http://www.opengis.net/wfs\" version=\"1.0.0\" service=\"WFS\" xmlns:app=\"urn:alluvium:app\" \
             xmlns:gml=\"http://www.opengis.net/gml\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
             xsi:schemaLocation=\"urn:alluvium:app http://127.0.0.1:1/none\">{actions}</Transaction>"
        )
    };
    let insert = |name: &str, x: f64| {
        format!(
            "<Insert xmlns=\"http://www.opengis.net/wfs\"><ships xmlns=\"urn:alluvium:app\"><name xmlns=\"urn:alluvium:app\">{name}</name>\
             <geom xmlns=\"urn:alluvium:app\"><gml:Point srsName=\"{URN}\"><gml:coordinates cs=\",\" ts=\" \">{x},60</gml:coordinates>\
             </gml:Point></geom></ships></Insert>"
        )
    };
    let answer = server.send("POST", "?SERVICE=WFS", &transaction(&(insert("a", 24.0) + &insert("b", 25.0)))).await;
    validate(&answer.text, WFS_10, None);
    let root = answer.xml();
    assert_eq!(
        (&*root.local, root.attribute("version")),
        ("WFS_TransactionResponse", Some("1.0.0")),
        "{}",
        answer.text
    );
    let fids: Vec<&str> =
        root.children_named("InsertResult").map(|r| r.children[0].attribute("fid").unwrap()).collect();
    assert_eq!(fids.len(), 2);
    assert!(root.child("TransactionResult").unwrap().children[0].child("SUCCESS").is_some());
    // Longitude, latitude, although it calls itself a URN; and the ids are in the order of the request.
    let text = server.get(&format!("request=GetFeature&typeNames=ships&resourceId={}", fids[1])).await.text;
    assert!(text.contains("<gml:pos>60 25</gml:pos>") && text.contains("<app:name>b</app:name>"), "{text}");
    let by_fid =
        |fid: &str| format!("<Filter xmlns=\"http://www.opengis.net/ogc\"><FeatureId fid=\"{fid}\"/></Filter>");
    let moved = format!(
        "<Update typeName=\"app:ships\"><Property><Name>app:geom</Name><Value><gml:Point srsName=\"{URN}\">\
         <gml:coordinates cs=\",\" ts=\" \">26,61</gml:coordinates></gml:Point></Value></Property>{}</Update>\
         <Update typeName=\"app:ships\"><Property><Name>app:name</Name></Property>{}</Update><Delete typeName=\"app:ships\">{}</Delete>",
        by_fid(fids[0]),
        by_fid(fids[0]),
        by_fid(fids[1])
    );
    assert!(server.post(&transaction(&moved)).await.text.contains("<wfs:SUCCESS/>"));
    let text = server.get("request=GetFeature&typeNames=ships").await.text;
    assert!(
        text.contains("numberMatched=\"1\"")
            && text.contains("<gml:pos>61 26</gml:pos>")
            && !text.contains("<app:name>")
    );
    // Errors with status 200, or the user would not be shown them.
    let wrong = server.post(&transaction("<Delete typeName=\"app:planes\"/>")).await;
    assert_eq!(wrong.status, 200);
    assert!(wrong.text.contains("<ServiceExceptionReport") && wrong.text.contains("app:planes"), "{}", wrong.text);
    // QGIS writes no geometry for a layer with Z: the update must not wipe it.
    let lost = "<Update typeName=\"app:roads\"><Property><Name>app:geom</Name><Value/></Property></Update>";
    assert!(server.post(&transaction(lost)).await.text.contains("ServiceException"));
}

#[tokio::test(flavor = "multi_thread")]
async fn gdal_and_1_1_0_are_answered_in_their_own_way() {
    let server = Server::start().await;
    let transaction = |version: &str, actions: &str| {
        format!(
            "<wfs:Transaction xmlns:wfs=\"http://www.opengis.net/wfs\" service=\"WFS\" version=\"{version}\" \
             xmlns:gml=\"http://www.opengis.net/gml\" xmlns:ogc=\"http://www.opengis.net/ogc\">{actions}</wfs:Transaction>"
        )
    };
    let ship = |name: &str| {
        format!(
            "<feature:ships xmlns:feature=\"urn:alluvium:app\"><feature:geom><gml:Point srsName=\"{URN}\"><gml:pos>60 24</gml:pos>\
             </gml:Point></feature:geom><feature:name>{name}</feature:name></feature:ships>"
        )
    };
    let answer =
        server.post(&transaction("2.0.0", &format!("<wfs:Insert>{}{}</wfs:Insert>", ship("a"), ship("b")))).await;
    let root = answer.xml();
    assert_eq!(
        (&*root.ns, root.attribute("version")),
        ("http://www.opengis.net/wfs", Some("1.1.0")),
        "{}",
        answer.text
    );
    let feature = &root.child("InsertResults").unwrap().children[0];
    let fid = feature.child("FeatureId").unwrap().attribute("fid").unwrap();
    assert_eq!(feature.child("ResourceId").unwrap().attribute("rid"), Some(fid));
    let update = format!(
        "<wfs:Update typeName=\"feature:ships\" xmlns:feature=\"urn:alluvium:app\"><wfs:Property><wfs:Name>crew</wfs:Name><wfs:Value>3</wfs:Value>\
         </wfs:Property><wfs:Property><wfs:Name>name</wfs:Name></wfs:Property><ogc:Filter><ogc:ResourceId rid=\"{fid}\"/></ogc:Filter></wfs:Update>"
    );
    let answer = server.post(&transaction("2.0.0", &update)).await;
    assert!(answer.text.contains("<wfs:totalUpdated>1</wfs:totalUpdated>"), "{}", answer.text);
    let text = server.get(&format!("request=GetFeature&typeNames=ships&resourceId={fid}")).await.text;
    assert!(
        text.contains("<gml:pos>60 24</gml:pos>") && text.contains("</app:geom><app:crew>3</app:crew></app:ships>"),
        "{text}"
    );

    let answer =
        server.post(&transaction("1.1.0", &format!("<wfs:Insert handle=\"i\">{}</wfs:Insert>", ship("c")))).await;
    validate(&answer.text, WFS_11, None);
    assert!(
        answer.text.contains("<wfs:Feature handle=\"i\"><ogc:FeatureId fid=\"ships.")
            && !answer.text.contains("ResourceId")
    );
    let delete = "<wfs:Delete typeName=\"ships\"><ogc:Filter><ogc:PropertyIsEqualTo><ogc:PropertyName>name</ogc:PropertyName>\
                  <ogc:Literal>c</ogc:Literal></ogc:PropertyIsEqualTo></ogc:Filter></wfs:Delete>";
    let answer = server.post(&transaction("1.1.0", delete)).await;
    assert!(answer.text.contains("<wfs:totalDeleted>1</wfs:totalDeleted>") && answer.text.contains("fid=\"none\""));
    let wrong = server.post(&transaction("1.1.0", "<wfs:Delete typeName=\"planes\"/>")).await;
    exception(&wrong, 200, "InvalidParameterValue", "typeName");
}
