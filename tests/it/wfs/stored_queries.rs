//! Stored queries over HTTP: made, listed, described, asked, dropped, and what is wrong with them.

use super::*;

const LANGUAGE: &str = "urn:ogc:def:queryLanguage:OGC-WFS::WFSQueryExpression";
/// Ships by name and by place.
const SHIPS_NEAR: &str = r#"<w:StoredQueryDefinition id="urn:x:ships-near&amp;called">
  <w:Title>Ships near a place</w:Title><w:Abstract xml:lang="en">Called so</w:Abstract>
  <w:Parameter name="name" type="xsd:string"><w:Title>Part of the name</w:Title></w:Parameter>
  <w:Parameter name="near" type="gml:EnvelopeType"/>
  <w:QueryExpressionText returnFeatureTypes="mine:ships" language="LANGUAGE" isPrivate="false">
    <w:Query typeNames="mine:ships" srsName="EPSG:4326"><f:Filter xmlns:f="http://www.opengis.net/fes/2.0"><f:And>
      <f:PropertyIsLike wildCard="*" singleChar="." escapeChar="!"><f:ValueReference>mine:name</f:ValueReference>
        <f:Literal>*${name}*</f:Literal></f:PropertyIsLike>
      <f:BBOX><f:ValueReference>mine:geom</f:ValueReference>${near}</f:BBOX>
    </f:And></f:Filter></w:Query>
  </w:QueryExpressionText>
</w:StoredQueryDefinition>"#;
const BY_TYPE: &str = r#"<w:StoredQueryDefinition id="by-type"><w:Parameter name="typeName" type="xsd:QName"/>
  <w:QueryExpressionText returnFeatureTypes="" language="LANGUAGE" isPrivate="true"><w:Query typeNames="${typeName}"/></w:QueryExpressionText>
</w:StoredQueryDefinition>"#;

async fn create(server: &Server, definitions: &str) -> Answer {
    let definitions = definitions.replace("LANGUAGE", LANGUAGE);
    server
        .post(&format!(
            "<w:CreateStoredQuery service='WFS' version='2.0.0' xmlns:w='http://www.opengis.net/wfs/2.0' \
             xmlns:xsd='http://www.w3.org/2001/XMLSchema' xmlns:gml='http://www.opengis.net/gml/3.2' \
             xmlns:mine='urn:alluvium:app'>{definitions}</w:CreateStoredQuery>"
        ))
        .await
}

async fn ask(server: &Server, id: &str, parameters: &str) -> Answer {
    server
        .post(&format!(
            "<GetFeature service='WFS' version='2.0.0' count='2' xmlns='http://www.opengis.net/wfs/2.0'>\
             <StoredQuery id='{id}'>{parameters}</StoredQuery></GetFeature>"
        ))
        .await
}

fn found(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.xml().children.iter().map(|m| m.children[0].attribute("id").unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_queries_are_made_described_asked_and_dropped() {
    let server = Server::with_ships().await;
    let made = create(&server, &format!("{SHIPS_NEAR}{BY_TYPE}")).await;
    assert_eq!(made.xml().attribute("status"), Some("OK"), "{}", made.text);
    validate(&made.text, WFS_20, None);

    let listed = server.get("request=ListStoredQueries").await;
    validate(&listed.text, WFS_20, None);
    let ids: Vec<String> = listed.xml().children.iter().map(|q| q.attribute("id").unwrap().to_owned()).collect();
    assert_eq!(ids, ["urn:ogc:def:query:OGC-WFS::GetFeatureById", "by-type", "urn:x:ships-near&called"]);
    let returned: Vec<usize> =
        listed.xml().children.iter().map(|q| q.children_named("ReturnFeatureType").count()).collect();
    assert_eq!(returned, [3, 3, 1]);

    // As they were written, in a document of other prefixes; but for what is private.
    let described = server.get("request=DescribeStoredQueries").await;
    validate(&described.text, WFS_20, None);
    assert!(described.text.contains("<f:Literal>*${name}*</f:Literal>") && !described.text.contains("${typeName}"));
    let one = server.get("request=DescribeStoredQueries&storedQuery_Id=by-type").await;
    assert_eq!(one.xml().children.len(), 1);

    // By key-value pairs with links to other pages, and as XML, elements among the parameters.
    let box_of = |from: u8, to: u8| {
        format!(
            "<gml:Envelope xmlns:gml='http://www.opengis.net/gml/3.2' srsName='EPSG:4326'>\
             <gml:lowerCorner>{from} 59</gml:lowerCorner><gml:upperCorner>{to} 61</gml:upperCorner></gml:Envelope>"
        )
    };
    let query =
        format!("request=GetFeature&storedQuery_Id=urn:x:ships-near%26called&name=R%26D&near={}", box_of(21, 24));
    assert_eq!(found(&server.get(&query).await), ["ships.s2", "ships.s4", "ships.s5"]);
    let page = server.get(&format!("{query}&count=2")).await;
    let next = page.xml().attribute("next").unwrap().split_once('?').unwrap().1.to_owned();
    assert_eq!(found(&server.send("GET", &format!("?{next}"), "").await), ["ships.s5"]);
    let parameters =
        format!("<Parameter name='near'>{}</Parameter><Parameter name='name'>D 1</Parameter>", box_of(0, 90));
    assert_eq!(found(&ask(&server, "urn:x:ships-near&amp;called", &parameters).await), ["ships.s1"]);
    let posted =
        ask(&server, "by-type", "<Parameter name='typeName' xmlns:n='urn:alluvium:app'>n:ships</Parameter>").await;
    let next = posted.xml().attribute("next").unwrap().split_once('?').unwrap().1.to_owned();
    assert_eq!(found(&server.send("GET", &format!("?{next}"), "").await), ["ships.s3", "ships.s4"]);
    let values = server.get("request=GetPropertyValue&valueReference=crew&storedQuery_Id=by-type&typeName=ships").await;
    assert_eq!(values.xml().attribute("numberReturned"), Some("5"), "{}", values.text);

    let dropped = server.get("request=DropStoredQuery&storedQuery_Id=by-type").await;
    validate(&dropped.text, WFS_20, None);
    assert_eq!(dropped.xml().attribute("status"), Some("OK"));
    let query = "request=GetFeature&storedQuery_Id=by-type&typeName=ships";
    exception(&server.get(query).await, 400, "InvalidParameterValue", "storedQuery_Id");
    let drop = "<DropStoredQuery service='WFS' version='2.0.0' xmlns='http://www.opengis.net/wfs/2.0' id='by-type'/>";
    exception(&server.post(drop).await, 400, "InvalidParameterValue", "id");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_stored_query_is_told_and_nothing_is_kept() {
    let server = Server::with_ships().await;
    create(&server, BY_TYPE).await;
    let with = |from: &str, to: &str| format!("{SHIPS_NEAR}{}", BY_TYPE.replace(from, to));
    for (definitions, status, code, locator) in [
        (with("", ""), 409, "DuplicateStoredQueryIdValue", "by-type"),
        (format!("{SHIPS_NEAR}{SHIPS_NEAR}"), 409, "DuplicateStoredQueryIdValue", "urn:x:ships-near&called"),
        (
            with("by-type", "urn:ogc:def:query:OGC-WFS::GetFeatureById"),
            409,
            "DuplicateStoredQueryIdValue",
            "urn:ogc:def:query:OGC-WFS::GetFeatureById",
        ),
        (with("LANGUAGE", "SQL"), 400, "InvalidParameterValue", "language"),
        (with("${typeName}", "${name}"), 400, "InvalidParameterValue", "name"),
        (with("<w:Query typeNames=\"${typeName}\"/>", ""), 400, "MissingParameterValue", "QueryExpressionText"),
        (String::new(), 400, "MissingParameterValue", "StoredQueryDefinition"),
    ] {
        exception(&create(&server, &definitions).await, status, code, locator);
    }
    assert_eq!(server.get("request=ListStoredQueries").await.xml().children.len(), 2);
    let query = "request=GetFeature&storedQuery_Id=by-type";
    exception(&server.get(query).await, 400, "MissingParameterValue", "typeName");
    exception(&server.get(&format!("{query}&typeName=planes")).await, 400, "InvalidParameterValue", "typeName");
    let built_in = "request=DropStoredQuery&storedQuery_Id=urn:ogc:def:query:OGC-WFS::GetFeatureById";
    exception(&server.get(built_in).await, 400, "InvalidParameterValue", "id");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_may_come_as_viewparams() {
    let server = Server::with_ships().await;
    assert_eq!(create(&server, BY_TYPE).await.status, 200);
    let query = "request=GetFeature&storedQuery_Id=by-type&count=2&viewparams=other:x;TypeName:app%3Aships";
    assert_eq!(found(&server.get(query).await), ["ships.s1", "ships.s2"]);
    let missing = server.get("request=GetFeature&storedQuery_Id=by-type&viewparams=other:x").await;
    exception(&missing, 400, "MissingParameterValue", "typeName");
}
