//! GetFeature and GetPropertyValue: formats, CRS, selection, paging, and what is wrong in a request.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn features_are_read_in_both_formats() {
    let server = Server::with_ships().await;
    let answer = server.get("request=GetFeature&typeNames=app:ships&resourceId=ships.s2").await;
    assert!(answer.position.is_some());
    let (head, member) = answer.text.split_once(">\n<wfs:member>").unwrap();
    assert!(head.contains("numberMatched=\"1\" numberReturned=\"1\"") && !head.contains("next="), "{head}");
    assert_eq!(
        member,
        format!(
            "<app:ships gml:id=\"ships.s2\"><app:geom><gml:Point gml:id=\"G.ships.s2\" srsName=\"{URN}\" srsDimension=\"2\">\
             <gml:pos>60 21</gml:pos></gml:Point></app:geom><app:name>R&amp;D 2</app:name><app:sog>2.5</app:sog>\
             <app:crew>0</app:crew><app:seen>2026-01-02T00:00:00Z</app:seen></app:ships></wfs:member>\n</wfs:FeatureCollection>\n"
        )
    );
    let schema = server.get("request=DescribeFeatureType").await.text;
    validate(&answer.text, WFS_20, Some(&schema));
    validate(
        &server.get("request=GetFeature&typeNames=(app:ships)(app:notes)(app:roads)").await.text,
        WFS_20,
        Some(&schema),
    );

    let answer = server.get("request=GetFeature&typeNames=ships&resourceId=s2,s3&outputFormat=application/json").await;
    assert_eq!(answer.content_type, "application/json");
    let json = answer.json();
    assert_eq!((&json["numberMatched"], &json["numberReturned"]), (&2.into(), &2.into()));
    assert_eq!(json["features"][0]["id"], "ships.s2");
    assert_eq!(json["features"][0]["geometry"]["coordinates"], serde_json::json!([21.0, 60.0]));
    assert_eq!(json["features"][1]["properties"]["name"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_follow_the_crs_that_is_asked_for() {
    let server = Server::with_ships().await;
    for (srs_name, pos) in [
        (URN, "60 21"),
        ("EPSG:4326", "21 60"),
        ("urn:ogc:def:crs:OGC:1.3:CRS84", "21 60"),
        ("http://www.opengis.net/def/crs/EPSG/0/4326", "60 21"),
        ("http://www.opengis.net/gml/srs/epsg.xml#4326", "21 60"),
    ] {
        let query = format!("request=GetFeature&typeNames=ships&resourceId=ships.s2&srsName={srs_name}");
        let text = server.get(&query).await.text;
        assert!(
            text.contains(&format!("srsName=\"{srs_name}\"")) && text.contains(&format!("<gml:pos>{pos}</gml:pos>")),
            "{text}"
        );
    }
    let text = server.get("request=GetFeature&typeNames=ships&resourceId=ships.s2&srsName=EPSG:3857").await.text;
    assert!(text.contains("<gml:pos>2337709.3"), "{text}");
    let json =
        server.get("request=GetFeature&typeNames=ships&resourceId=s2&srsName=EPSG:3857&outputFormat=json").await.json();
    assert!(json["features"][0]["geometry"]["coordinates"][0].as_f64().unwrap() > 2e6);
    exception(
        &server.get("request=GetFeature&typeNames=ships&srsName=EPSG:1").await,
        400,
        "InvalidParameterValue",
        "srsName",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_select_sort_and_page() {
    let server = Server::with_ships().await;
    let all = ["ships.s1", "ships.s2", "ships.s3", "ships.s4", "ships.s5"];
    assert_eq!(server.ids("").await, all);
    assert_eq!(
        server.ids("sortBy=crew+DESC,app:sog+D").await,
        ["ships.s5", "ships.s3", "ships.s1", "ships.s4", "ships.s2"]
    );
    assert_eq!(server.ids("bbox=59,20.5,61,22").await, ["ships.s2", "ships.s3"]);
    assert_eq!(server.ids("bbox=20.5,59,22,61,EPSG:4326").await, ["ships.s2", "ships.s3"]);
    let filter = "<fes:Filter xmlns:fes='http://www.opengis.net/fes/2.0'><fes:PropertyIsNull><fes:ValueReference>name\
                  </fes:ValueReference></fes:PropertyIsNull></fes:Filter>";
    assert_eq!(server.ids(&format!("filter={filter}")).await, ["ships.s3"]);
    assert!(server.ids("resourceId=ships.nobody").await.is_empty());

    let page = server.get("request=GetFeature&typeNames=ships&count=2&startIndex=2&sortBy=sog").await;
    let root = page.xml();
    let ids: Vec<_> = root.children.iter().map(|m| m.children[0].attribute("id").unwrap()).collect();
    assert_eq!(ids, ["ships.s3", "ships.s4"]);
    assert_eq!((root.attribute("numberMatched"), root.attribute("numberReturned")), (Some("5"), Some("2")));
    for (link, expected) in [("next", vec!["ships.s5"]), ("previous", vec!["ships.s1", "ships.s2"])] {
        let href = root.attribute(link).unwrap();
        let query = href.split_once('?').unwrap().1;
        let linked = server.send("GET", &format!("?{query}"), "").await.xml();
        let ids: Vec<_> = linked.children.iter().map(|m| m.children[0].attribute("id").unwrap()).collect();
        assert_eq!(ids, expected, "{link}");
        assert_eq!(linked.attribute(link), None);
    }

    let hits = server.get("request=GetFeature&typeNames=ships&resultType=hits&count=2").await.xml();
    assert_eq!(
        (hits.attribute("numberMatched"), hits.attribute("numberReturned"), hits.children.len()),
        (Some("5"), Some("0"), 0)
    );
    let first = hits.attribute("next").unwrap().split_once('?').unwrap().1.to_owned();
    assert_eq!(server.send("GET", &format!("?{first}"), "").await.xml().children.len(), 2);

    let two = server.get("request=GetFeature&typeNames=(ships)(ships)&filter=(<Filter><ResourceId rid='ships.s1'/></Filter>)()&count=3&startIndex=1").await;
    let root = two.xml();
    assert_eq!(root.attribute("numberMatched"), Some("6"));
    let ids: Vec<_> = root.children.iter().map(|m| m.children[0].attribute("id").unwrap()).collect();
    assert_eq!(ids, ["ships.s1", "ships.s2", "ships.s3"]);

    let few =
        server.get("request=GetFeature&typeNames=ships&resourceId=ships.s1&propertyName=app:name,seen").await.text;
    assert!(
        few.contains("<app:name>")
            && few.contains("<app:seen>")
            && !few.contains("<app:geom>")
            && !few.contains("<app:sog>")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_may_be_text() {
    let server = Server::with_ships().await;
    assert_eq!(server.ids("cql_filter=sog = 2.5 AND name LIKE 'R%25'").await, ["ships.s2"]);
    assert_eq!(server.ids("CQL_FILTER=DWITHIN(geom, POINT(21 60), 1, km)").await, ["ships.s2"]);
    assert_eq!(server.ids("cql_filter=name IS NULL&bbox=-90,-180,90,180").await, ["ships.s3"]);
    let each = "request=GetFeature&typeNames=ships,ships&cql_filter=name=';';IN('s1')&outputFormat=json";
    assert_eq!(server.get(each).await.json()["numberMatched"], 1);
    let wrong = server.get("request=GetFeature&typeNames=ships&cql_filter=sog = 1 AND colour = 2").await;
    exception(&wrong, 400, "InvalidParameterValue", "cql_filter");
    assert!(wrong.text.contains("at character 13"), "{}", wrong.text);
    let too_many = server.get("request=GetFeature&typeNames=ships&cql_filter=sog = 1;sog = 2").await;
    exception(&too_many, 400, "InvalidParameterValue", "cql_filter");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_placemarks_are_read() {
    let server = Server::with_ships().await;
    let csv = server.get("request=GetFeature&typeNames=ships&outputFormat=csv&propertyName=geom,name&count=2").await;
    assert_eq!(csv.content_type, "text/csv");
    let rows: Vec<&str> = csv.text.split("\r\n").collect();
    assert_eq!((rows[0], rows[2]), ("FID,geom,name", "ships.s2,\"POINT (21 60)\",R&D 2"));
    let mercator = server.get("request=GetFeature&typeNames=ships&outputFormat=csv&srsName=EPSG:3857").await;
    assert!(mercator.text.contains("\"POINT (2337709.3"), "{}", mercator.text);

    let kml =
        server.get("request=GetFeature&typeNames=ships&outputFormat=application/vnd.google-earth.kml%2Bxml").await;
    let root = kml.xml();
    assert_eq!((&*root.local, &*root.ns), ("kml", "http://www.opengis.net/kml/2.2"));
    let placemarks: Vec<_> = root.child("Document").unwrap().children_named("Placemark").collect();
    assert_eq!(placemarks[1].attribute("id"), Some("ships.s2"));
    assert_eq!(placemarks[1].child("Point").unwrap().child("coordinates").unwrap().trimmed(), "21,60");

    for query in [
        "request=GetFeature&typeNames=ships&outputFormat=csv&resultType=hits",
        "request=GetFeature&typeNames=ships&outputFormat=kml&resultType=hits",
        "request=GetFeature&typeNames=ships&outputFormat=flatgeobuf&resultType=hits",
    ] {
        exception(&server.get(query).await, 400, "InvalidParameterValue", "resultType");
    }
    for query in [
        "request=GetFeature&typeNames=ships,roads&outputFormat=csv",
        "request=GetFeature&typeNames=ships,roads&outputFormat=application/flatgeobuf",
        "request=GetFeature&storedQuery_Id=urn:ogc:def:query:OGC-WFS::GetFeatureById&id=ships.s1&outputFormat=csv",
        "request=GetFeature&typeNames=ships&outputFormat=dxf",
    ] {
        exception(&server.get(query).await, 400, "InvalidParameterValue", "outputFormat");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn posted_queries_link_to_their_other_pages() {
    let server = Server::with_ships().await;
    let body = "<wfs:GetFeature service='WFS' version='2.0.0' count='1' startIndex='1' xmlns:wfs='http://www.opengis.net/wfs/2.0' \
                xmlns:fes='http://www.opengis.net/fes/2.0' xmlns:n='urn:alluvium:app'><wfs:Query typeNames='n:ships'>\
                <wfs:PropertyName>n:sog</wfs:PropertyName><fes:Filter><fes:PropertyIsGreaterThan><fes:ValueReference>n:sog</fes:ValueReference>\
                <fes:Literal>2</fes:Literal></fes:PropertyIsGreaterThan></fes:Filter><fes:SortBy><fes:SortProperty>\
                <fes:ValueReference>n:sog</fes:ValueReference><fes:SortOrder>DESC</fes:SortOrder></fes:SortProperty></fes:SortBy>\
                </wfs:Query></wfs:GetFeature>";
    // What the query string says besides does not matter.
    let answer = server.send("POST", "?SERVICE=WFS&request=GetCapabilities", body).await;
    let root = answer.xml();
    assert_eq!(root.attribute("numberMatched"), Some("4"), "{}", answer.text);
    assert_eq!(root.children[0].children[0].attribute("id"), Some("ships.s4"));
    let next = root.attribute("next").unwrap().split_once('?').unwrap().1.to_owned();
    let next = server.send("GET", &format!("?{next}"), "").await;
    assert_eq!(next.xml().children[0].children[0].attribute("id"), Some("ships.s3"), "{}", next.text);
    assert!(!next.text.contains("<app:crew>"));
    let form = server.send("POST", "", "service=WFS&request=GetFeature&typeNames=ships&resultType=hits").await;
    assert_eq!(form.xml().attribute("numberMatched"), Some("5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn single_features_and_values_are_read() {
    let server = Server::with_ships().await;
    for id in ["urn:ogc:def:query:OGC-WFS::GetFeatureById", "http://www.opengis.net/def/query/OGC-WFS/0/GetFeatureById"]
    {
        let answer = server.get(&format!("request=GetFeature&storedQuery_Id={id}&ID=ships.s4")).await;
        let root = answer.xml();
        assert_eq!((&*root.ns, &*root.local, root.attribute("id")), ("urn:alluvium:app", "ships", Some("ships.s4")));
    }
    for id in ["ships.nobody", "nobody", "planes.1"] {
        let query = format!("request=GetFeature&storedQuery_Id=urn:ogc:def:query:OGC-WFS::GetFeatureById&id={id}");
        exception(&server.get(&query).await, 404, "NotFound", "id");
    }
    let stored = "<GetFeature service='WFS' version='2.0.0' xmlns='http://www.opengis.net/wfs/2.0'><StoredQuery \
                  id='urn:ogc:def:query:OGC-WFS::GetFeatureById'><Parameter name='id'>ships.s1</Parameter></StoredQuery></GetFeature>";
    assert_eq!(server.post(stored).await.xml().attribute("id"), Some("ships.s1"));
    validate(&server.get("request=ListStoredQueries").await.text, WFS_20, None);
    validate(&server.get("request=DescribeStoredQueries").await.text, WFS_20, None);
    exception(
        &server.get("request=GetFeature&storedQuery_Id=urn:x").await,
        400,
        "InvalidParameterValue",
        "storedQuery_Id",
    );

    let values = server.get("request=GetPropertyValue&typeNames=ships&valueReference=app:name").await;
    validate(&values.text, WFS_20, None);
    let root = values.xml();
    assert_eq!(root.attribute("numberMatched"), Some("4"));
    let texts: Vec<&str> = root.children.iter().map(|m| m.text.as_str()).collect();
    assert_eq!(texts, ["R&D 1", "R&D 2", "R&D 4", "R&D 5"]);
    let ids = server.get("request=GetPropertyValue&typeNames=ships&valueReference=@gml:id&count=1").await.xml();
    assert_eq!(ids.children[0].text, "ships.s1");
    let points = server.get("request=GetPropertyValue&typeNames=ships&valueReference=geom").await;
    assert_eq!(points.text.matches("<wfs:member><gml:Point").count(), 5);
    for query in ["valueReference=", "valueReference=colour"] {
        let answer = server.get(&format!("request=GetPropertyValue&typeNames=ships&{query}")).await;
        exception(&answer, 400, "InvalidParameterValue", "valueReference");
    }
    let answer = server.get("request=GetPropertyValue&typeNames=ships").await;
    exception(&answer, 400, "MissingParameterValue", "valueReference");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_in_an_exception_report() {
    let server = Server::with_ships().await;
    for (query, code, locator) in [
        ("typeNames=planes", "InvalidParameterValue", "typeName"),
        ("x=y", "MissingParameterValue", "typeNames"),
        ("typeNames=ships&count=many", "InvalidParameterValue", "count"),
        ("typeNames=ships&resultType=some", "InvalidParameterValue", "resultType"),
        ("typeNames=ships&outputFormat=rtf", "InvalidParameterValue", "outputFormat"),
        ("typeNames=ships&bbox=1,2,3", "InvalidParameterValue", "bbox"),
        ("typeNames=notes&bbox=1,2,3,4", "InvalidParameterValue", "bbox"),
        ("typeNames=ships&propertyName=colour", "InvalidParameterValue", "propertyName"),
        ("typeNames=ships&sortBy=colour", "InvalidParameterValue", "colour"),
        ("typeNames=ships&resourceId=roads.1", "InvalidParameterValue", "resourceid"),
        ("typeNames=ships&filter=<Filter>", "OperationParsingFailed", "filter"),
        ("typeNames=(ships,roads,notes)", "OptionNotSupported", "typeNames"),
        (
            "typeNames=ships&filter=<Filter><PropertyIsNull><ValueReference>colour</ValueReference></PropertyIsNull></Filter>",
            "InvalidParameterValue",
            "colour",
        ),
    ] {
        exception(&server.get(&format!("request=GetFeature&{query}")).await, 400, code, locator);
    }
    let answer = server.ask("1.2.0", "request=GetFeature&typeNames=ships").await;
    exception(&answer, 400, "InvalidParameterValue", "version");
    let bomb = "<!DOCTYPE a [<!ENTITY b 'c'>]><GetFeature/>";
    let answer = server.post(bomb).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("OperationParsingFailed") && answer.text.contains("DOCTYPE"), "{}", answer.text);
    let answer = server.post(&format!("<a>{}", "x".repeat(20_000_001))).await;
    assert_eq!(answer.status, 413);
    assert!(answer.text.contains("<ows:ExceptionReport"));
    let head = server.send("HEAD", "?service=WFS&request=GetCapabilities", "").await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert_eq!(server.send("OPTIONS", "", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_beyond_the_end_are_empty_however_far() {
    let server = Server::with_ships().await;
    for start in ["5", "100", "18446744073709551615", "99999999999999999999999"] {
        for query in ["", "&count=2", "&resultType=hits&count=2", "&count=99999999999999999999999"] {
            let answer = server.get(&format!("request=GetFeature&typeNames=ships&startIndex={start}{query}")).await;
            assert_eq!(answer.status, 200, "{start} {query}: {}", answer.text);
            let root = answer.xml();
            assert_eq!((root.attribute("numberMatched"), root.children.len()), (Some("5"), 0), "{start} {query}");
            assert_eq!(root.attribute("next"), None, "{start} {query}");
        }
        let body = format!(
            "<GetFeature service='WFS' version='2.0.0' startIndex='{start}' count='{start}' \
             xmlns='http://www.opengis.net/wfs/2.0'><Query typeNames='ships'/></GetFeature>"
        );
        assert_eq!(server.post(&body).await.xml().attribute("numberReturned"), Some("0"), "{start}");
    }
    assert_eq!(server.ids("count=99999999999999999999999").await.len(), 5);
}

/// Whatever the id is: what one answer says is understood in the next request.
#[tokio::test(flavor = "multi_thread")]
async fn ids_have_one_spelling_in_both_formats() {
    let server = Server::with_ships().await;
    let ship = r#"{"type":"Feature","id":"a/b,_x2F_ü\"","geometry":null,"properties":{"name":"odd"}}"#;
    server.0.send("POST", "/collections/ships/items", &[], ship).await.expect(201);
    let odd = "request=GetFeature&typeNames=ships&filter=<Filter><PropertyIsEqualTo><ValueReference>name</ValueReference>\
               <Literal>odd</Literal></PropertyIsEqualTo></Filter>";
    let gml = server.get(odd).await.xml();
    let id = gml.children[0].children[0].attribute("id").unwrap();
    assert_eq!(id, "ships.a_x2F_b_x2C__x5F_x2F__xFC__x22_");
    let json = server.get(&format!("{odd}&outputFormat=application/json")).await.json();
    assert_eq!(json["features"][0]["id"], id);
    assert_eq!(server.ids(&format!("resourceId={id}")).await, [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_may_call_its_type_otherwise() {
    let server = Server::with_ships().await;
    let crew = "<PropertyIsEqualTo><PropertyName>s/app:crew</PropertyName><Literal>1</Literal></PropertyIsEqualTo>";
    for (version, names) in [("2.0.0", "typeNames=app:ships&aliases=s"), ("1.1.0", "typeName=app:ships=s")] {
        let query = format!("{names}&filter=<Filter>{crew}</Filter>&sortBy=s/app:sog+D&propertyName=s/name");
        let text = server.ask(version, &format!("request=GetFeature&{query}")).await.text;
        let found: Vec<&str> = text.split("gml:id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(found, ["ships.s5", "ships.s3", "ships.s1"], "{text}");
        assert!(text.contains("<app:name>") && !text.contains("<app:sog>"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_name_the_types_that_they_are_of() {
    let server = Server::with_ships().await;
    let note = "<wfs:Insert idgen=\"UseExisting\"><app:notes gml:id=\"notes.n1\"/></wfs:Insert>";
    assert_eq!(server.transaction(note).await.status, 200);
    let answer = server.get("request=GetFeature&resourceId=ships.s2,notes.n1,ships.s1,ships.none").await;
    let found: Vec<_> =
        answer.xml().children.iter().map(|m| m.children[0].attribute("id").unwrap().to_owned()).collect();
    assert_eq!(found, ["ships.s1", "ships.s2", "notes.n1"], "{}", answer.text);
    exception(
        &server.get("request=GetFeature&resourceId=ships.s2,n1").await,
        400,
        "MissingParameterValue",
        "typeNames",
    );
    exception(
        &server.get("request=GetFeature&resourceId=ships.s2,planes.1").await,
        400,
        "InvalidParameterValue",
        "typeName",
    );
}
