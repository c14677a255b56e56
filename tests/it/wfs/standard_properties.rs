//! `gml:name`, `gml:description` and `gml:identifier`: kept by the types that declare them, refused by the others.

use super::*;

const SITES: &str = r#"
[[feature_types]]
name = "sites"
geometry = { type = "Point" }
properties = [
  { name = "gml_name", type = "string" },
  { name = "name", type = "string" },
  { name = "gml_name_codespace", type = "string" },
  { name = "gml_identifier", type = "string" },
  { name = "gml_identifier_codespace", type = "string" },
  { name = "gml_description", type = "string" },
]
[[feature_types]]
name = "places"
properties = [{ name = "gml_name", type = "string" }, { name = "gml_identifier", type = "string" }]
[[feature_types]]
name = "bare"
properties = [{ name = "name", type = "string" }]
"#;

const SITE: &str = "<gml:description>a &lt;tell&gt;</gml:description><gml:identifier codeSpace=\"http://x.example/?a=1&amp;b=2\">\
                    n/1</gml:identifier><gml:name codeSpace=\"urn:names\">Troy</gml:name>";

fn site(id: &str, content: &str) -> String {
    format!(
        "<wfs:Insert><app:sites gml:id=\"sites.{id}\">{content}<app:name>its own</app:name></app:sites></wfs:Insert>"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_properties_come_back_as_they_were_sent() {
    let server = Server::with(SITES).await;
    let answer = server.transaction(&(site("a", SITE) + &site("b", "<gml:name>Ur</gml:name>") + &site("c", ""))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let schema = server.get("request=DescribeFeatureType").await.text;
    assert!(!schema.contains("gml_"), "{schema}");
    let text = server.get("request=GetFeature&typeNames=sites").await.text;
    for (id, content) in [("a", SITE), ("b", "<gml:name>Ur</gml:name>"), ("c", "")] {
        let feature = format!("<app:sites gml:id=\"sites.{id}\">{content}<app:name>its own</app:name></app:sites>");
        assert!(text.contains(&feature), "{feature}\n{text}");
    }
    validate(&text, WFS_20, Some(&schema));

    // What a version of GML has no element for is one of the type's own.
    for (version, standard, own) in [
        (
            "1.1.0",
            "<gml:description>a &lt;tell&gt;</gml:description><gml:name codeSpace=\"urn:names\">Troy</gml:name>",
            "<app:gml_identifier>n/1</app:gml_identifier>\
             <app:gml_identifier_codespace>http://x.example/?a=1&amp;b=2</app:gml_identifier_codespace>",
        ),
        (
            "1.0.0",
            "<gml:description>a &lt;tell&gt;</gml:description><gml:name>Troy</gml:name>",
            "<app:gml_name_codespace>urn:names</app:gml_name_codespace><app:gml_identifier>n/1</app:gml_identifier>\
             <app:gml_identifier_codespace>http://x.example/?a=1&amp;b=2</app:gml_identifier_codespace>",
        ),
    ] {
        let text = server.ask(version, "request=GetFeature&typeName=sites&featureId=sites.a").await.text;
        assert!(text.contains(&format!("{standard}<app:name>its own</app:name>{own}</app:sites>")), "{text}");
        let schema = server.ask(version, "request=DescribeFeatureType&typeName=sites").await.text;
        validate(&text, if version == "1.1.0" { WFS_11 } else { WFS_10 }, Some(&schema));
    }
    let json = server.get("request=GetFeature&typeNames=sites&resourceId=a&outputFormat=json").await.json();
    let properties = &json["features"][0]["properties"];
    assert_eq!((&properties["gml_name"], &properties["name"]), (&"Troy".into(), &"its own".into()));
    assert_eq!(properties["gml_identifier_codespace"], "http://x.example/?a=1&b=2");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_properties_are_asked_for_and_changed_by_their_names() {
    let server = Server::with(SITES).await;
    let sites = site("a", SITE) + &site("b", "<gml:name>Ur</gml:name>") + &site("c", "");
    assert_eq!(server.transaction(&sites).await.status, 200);
    let text = async |query: &str| {
        let answer = server.get(&format!("request=GetFeature&typeNames=sites&{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.text
    };
    let found = async |query: &str| {
        let text = text(query).await;
        ["a", "b", "c"].into_iter().filter(|id| text.contains(&format!("\"sites.{id}\""))).collect::<String>()
    };
    let equal = |name: &str, value: &str| {
        format!(
            "filter=<Filter xmlns='http://www.opengis.net/fes/2.0'><PropertyIsEqualTo><ValueReference>{name}</ValueReference>\
             <Literal>{value}</Literal></PropertyIsEqualTo></Filter>"
        )
    };
    assert_eq!(found(&equal("gml:name", "Troy")).await, "a");
    assert_eq!(found(&equal("app:sites/gml:name[1]", "Ur")).await, "b");
    assert_eq!(found(&equal("name", "Troy")).await, "");
    assert_eq!(found(&equal("gml:name/@codeSpace", "urn:names")).await, "a");
    assert_eq!(found(&equal("/app:sites/gml:identifier/@codeSpace", "urn:names")).await, "");
    assert_eq!(
        found("filter=<Filter><PropertyIsNull><ValueReference>gml:name</ValueReference></PropertyIsNull></Filter>")
            .await,
        "c"
    );
    let sorted = text("sortBy=gml:name+D&propertyName=gml:name").await;
    assert!(sorted.find("sites.b") < sorted.find("sites.a") && !sorted.contains("gml:identifier"), "{sorted}");
    let values = server.get("request=GetPropertyValue&typeNames=sites&valueReference=gml:name/@codeSpace").await.text;
    assert!(values.contains("<wfs:member>urn:names</wfs:member>"), "{values}");

    let update = |name: &str, value: &str| {
        format!(
            "<wfs:Update typeName=\"sites\"><wfs:Property><wfs:ValueReference>{name}</wfs:ValueReference>{value}</wfs:Property>\
             <fes:Filter><fes:ResourceId rid=\"sites.a\"/></fes:Filter></wfs:Update>"
        )
    };
    let changes = update("gml:name[1]", "<wfs:Value>Ilion</wfs:Value>")
        + &update("gml:identifier/@codeSpace", "<wfs:Value>urn:b</wfs:Value>")
        + &update("gml:description", "");
    let answer = server.transaction(&changes).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let changed = "<gml:identifier codeSpace=\"urn:b\">n/1</gml:identifier><gml:name codeSpace=\"urn:names\">Ilion</gml:name><app:name>";
    let after = text("resourceId=a").await;
    assert!(after.contains(&format!("\"sites.a\">{changed}")), "{after}");
    let replace = "<wfs:Replace><app:sites gml:id=\"x\"><gml:name>Hisarlik</gml:name></app:sites><fes:Filter>\
                   <fes:ResourceId rid=\"sites.a\"/></fes:Filter></wfs:Replace>";
    assert_eq!(server.transaction(replace).await.status, 200);
    let after = text("resourceId=a").await;
    assert!(after.contains("\"sites.a\"><gml:name>Hisarlik</gml:name></app:sites>"), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_refuses_what_it_does_not_keep() {
    let server = Server::with(SITES).await;
    let insert = |name: &str, content: &str| format!("<wfs:Insert><app:{name}>{content}</app:{name}></wfs:Insert>");
    for (name, content, locator) in [
        ("bare", "<gml:name>n</gml:name>", "gml:name"),
        ("bare", "<gml:identifier codeSpace='x'>n</gml:identifier>", "gml:identifier"),
        ("places", "<gml:description>n</gml:description>", "gml:description"),
        ("places", "<gml:name codeSpace='x'>n</gml:name>", "gml:name"),
        ("places", "<gml:identifier codeSpace='x'>n</gml:identifier>", "gml:identifier"),
        ("sites", "<gml:name>n</gml:name><gml:name>m</gml:name>", "gml:name"),
        ("sites", "<gml:description xmlns:xlink='http://www.w3.org/1999/xlink' xlink:href='x'/>", "gml:description"),
        ("sites", "<gml:descriptionReference/>", "gml:descriptionReference"),
    ] {
        exception(&server.transaction(&insert(name, content)).await, 400, "InvalidValue", locator);
    }
    let update = "<wfs:Update typeName=\"bare\"><wfs:Property><wfs:ValueReference>gml:name</wfs:ValueReference>\
                  <wfs:Value>n</wfs:Value></wfs:Property></wfs:Update>";
    exception(&server.transaction(update).await, 400, "InvalidValue", "gml:name");

    // An identifier must have a code space: where none is kept, or was given, it is the service's own.
    let own = "<gml:identifier codeSpace=\"urn:alluvium:app\">n</gml:identifier>";
    assert_eq!(server.transaction(&insert("places", own)).await.status, 200);
    let properties = r#"{"type":"Feature","geometry":null,"properties":{"gml_identifier":"n"}}"#;
    server.0.send("PUT", "/collections/sites/items/s", &[], properties.to_owned()).await.expect(204);
    let schema = server.get("request=DescribeFeatureType").await.text;
    for name in ["places", "sites"] {
        let text = server.get(&format!("request=GetFeature&typeNames={name}")).await.text;
        assert!(text.contains(own), "{text}");
        validate(&text, WFS_20, Some(&schema));
    }
}
