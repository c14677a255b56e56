//! GetCapabilities and DescribeFeatureType: what they say, in which version.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_valid_and_say_what_holds() {
    let server = Server::with_ships().await;
    let answer = server.get("request=GetCapabilities").await;
    assert_eq!((answer.status.as_u16(), answer.content_type.as_str()), (200, "text/xml; charset=UTF-8"));
    validate(&answer.text, WFS_20, None);
    let root = answer.xml();
    assert_eq!((&*root.prefix, &*root.local, root.attribute("version")), ("wfs", "WFS_Capabilities", Some("2.0.0")));
    let names: Vec<&str> = root.children.iter().map(|c| &*c.local).collect();
    assert_eq!(
        names,
        ["ServiceIdentification", "ServiceProvider", "OperationsMetadata", "FeatureTypeList", "Filter_Capabilities"]
    );
    let operations: Vec<&str> =
        root.children[2].children_named("Operation").map(|o| o.attribute("name").unwrap()).collect();
    assert_eq!(
        operations,
        [
            "GetCapabilities",
            "DescribeFeatureType",
            "ListStoredQueries",
            "DescribeStoredQueries",
            "CreateStoredQuery",
            "DropStoredQuery",
            "GetFeature",
            "GetPropertyValue",
            "Transaction",
            "LockFeature",
            "GetFeatureWithLock"
        ]
    );
    let constraint = |name: &str| {
        let found = root.children[2].children_named("Constraint").find(|c| c.attribute("name") == Some(name));
        found.unwrap().child("DefaultValue").unwrap().text.clone()
    };
    for (name, value) in [
        ("ImplementsBasicWFS", "TRUE"),
        ("ImplementsTransactionalWFS", "TRUE"),
        ("ImplementsLockingWFS", "TRUE"),
        ("ImplementsResultPaging", "TRUE"),
        ("ManageStoredQueries", "TRUE"),
        ("CountDefault", "10000"),
    ] {
        assert_eq!(constraint(name), value, "{name}");
    }
    let href = format!("http://{}/wfs\"", server.0.app.addr());
    assert!(answer.text.contains(&format!("<ows:Get xlink:href=\"{href}")) && !answer.text.contains("wfs?"));
    assert!(answer.text.contains("<wfs:FeatureType xmlns:app=\"urn:alluvium:app\"><wfs:Name>app:ships</wfs:Name>"));
    assert!(answer.text.contains("<ows:LowerCorner>20 60</ows:LowerCorner><ows:UpperCorner>24 60</ows:UpperCorner>"));
    assert!(answer.text.contains("<wfs:DefaultCRS>urn:ogc:def:crs:EPSG::3857</wfs:DefaultCRS>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_negotiated() {
    let server = Server::start().await;
    let root = server.send("GET", "?SERVICE=wfs&REQUEST=getcapabilities&ACCEPTVERSIONS=10.0.0,2.0.0,1.1.0", "").await;
    assert_eq!(root.xml().attribute("version"), Some("2.0.0"));
    for (query, version) in [
        ("", "2.0.0"),
        ("&version=2.0.2", "2.0.0"),
        ("&version=1.1.0", "1.1.0"),
        ("&version=1.0.0", "1.0.0"),
        ("&version=0.1.2", "1.0.0"),
        ("&version=1.0.9", "1.0.0"),
        ("&version=1.5.0", "1.1.0"),
        ("&version=100.0.0", "2.0.0"),
        ("&acceptVersions=1.1.0", "1.1.0"),
        ("&acceptVersions=9.0.0,1.0.0,2.0.0&version=2.0.0", "1.0.0"),
    ] {
        let answer = server.send("GET", &format!("?service=WFS&request=GetCapabilities{query}"), "").await;
        assert_eq!(answer.xml().attribute("version"), Some(version), "{query}");
    }
    for (body, version) in [
        ("xmlns='http://www.opengis.net/wfs/2.0'/>", "2.0.0"),
        ("xmlns='http://www.opengis.net/wfs'/>", "1.1.0"),
        ("xmlns='http://www.opengis.net/wfs' version='1.0.0'/>", "1.0.0"),
        (
            "xmlns='http://www.opengis.net/wfs' xmlns:o='http://www.opengis.net/ows'><o:AcceptVersions>\
             <o:Version>2.0.0</o:Version><o:Version>1.1.0</o:Version></o:AcceptVersions></GetCapabilities>",
            "2.0.0",
        ),
    ] {
        let answer = server.post(&format!("<GetCapabilities service='WFS' {body}")).await;
        assert_eq!(answer.xml().attribute("version"), Some(version), "{body}");
    }
    let answer = server.get("request=GetCapabilities&sections=FeatureTypeList,ServiceProvider").await;
    let root = answer.xml();
    assert_eq!(root.children.iter().map(|c| &*c.local).collect::<Vec<_>>(), ["ServiceProvider", "FeatureTypeList"]);
    validate(&answer.text, WFS_20, None);
    let posted = server
        .post("<GetCapabilities service='WFS' xmlns='http://www.opengis.net/wfs/2.0' xmlns:o='http://www.opengis.net/ows/1.1'>\
               <o:Sections><o:Section>Filter_Capabilities</o:Section></o:Sections></GetCapabilities>")
        .await;
    assert_eq!(posted.xml().children.len(), 1);
    for (query, code, locator) in [
        ("?request=GetCapabilities", "MissingParameterValue", "service"),
        ("?service=WMS&request=GetCapabilities", "InvalidParameterValue", "service"),
        ("?service=WFS", "MissingParameterValue", "request"),
        ("?service=WFS&request=Dance", "OperationNotSupported", "request"),
        ("?service=WFS&request=GetCapabilities&acceptVersions=3.0.0", "VersionNegotiationFailed", "acceptVersions"),
        ("?service=WFS&request=GetCapabilities&version=new", "InvalidParameterValue", "version"),
        ("?service=WFS&request=GetCapabilities&sections=Weather", "InvalidParameterValue", "sections"),
    ] {
        let answer = server.send("GET", query, "").await;
        exception(&answer, 400, code, locator);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_of_older_versions_say_the_same_in_their_words() {
    let server = Server::with_ships().await;
    let answer = server.ask("1.1.0", "request=GetCapabilities").await;
    validate(&answer.text, WFS_11, None);
    let root = answer.xml();
    let operations: Vec<&str> = root
        .child("OperationsMetadata")
        .unwrap()
        .children_named("Operation")
        .map(|o| o.attribute("name").unwrap())
        .collect();
    let expected = [
        "GetCapabilities",
        "DescribeFeatureType",
        "GetFeature",
        "GetGmlObject",
        "Transaction",
        "LockFeature",
        "GetFeatureWithLock",
    ];
    assert_eq!(operations, expected);
    for part in [
        "<wfs:FeatureType xmlns:app=\"urn:alluvium:app\"><wfs:Name>app:ships</wfs:Name>",
        "<wfs:DefaultSRS>urn:ogc:def:crs:EPSG::3857</wfs:DefaultSRS>",
        "<wfs:OtherSRS>EPSG:3857</wfs:OtherSRS>",
        "<wfs:NoSRS/>",
        "<wfs:Operation>Insert</wfs:Operation>",
        "<ows:LowerCorner>20 60</ows:LowerCorner>",
        "<ows:ServiceTypeVersion>1.1.0</ows:ServiceTypeVersion>",
    ] {
        assert!(answer.text.contains(part), "{part}: {}", answer.text);
    }
    let some = server.ask("1.1.0", "request=GetCapabilities&sections=ServiceProvider").await;
    validate(&some.text, WFS_11, None);
    let names: Vec<String> = some.xml().children.iter().map(|c| c.local.to_string()).collect();
    assert_eq!(names, ["ServiceProvider", "Filter_Capabilities"]);

    let answer = server.ask("1.0.0", "request=GetCapabilities&sections=ServiceProvider").await;
    validate(&answer.text, CAPABILITIES_10, None);
    let root = answer.xml();
    assert_eq!((&*root.local, root.attribute("version")), ("WFS_Capabilities", Some("1.0.0")));
    for part in [
        "<Title>Ships &amp; more</Title>",
        "<FeatureType xmlns:app=\"urn:alluvium:app\"><Name>app:ships</Name>",
        "<SRS>EPSG:3857</SRS>",
        "<Operations><Query/><Insert/><Update/><Delete/><Lock/></Operations>",
        "<LatLongBoundingBox minx=\"20\" miny=\"60\" maxx=\"24\" maxy=\"60\"/>",
        "<ResultFormat><GML2/></ResultFormat>",
        "<ogc:Intersect/>",
    ] {
        assert!(answer.text.contains(part), "{part}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_described() {
    let server = Server::start().await;
    let answer = server
        .get("request=DescribeFeatureType&TYPENAME=x:ships&outputFormat=application/gml%2Bxml;%20version=3.2")
        .await;
    let root = answer.xml();
    assert_eq!(root.children_named("element").count(), 1);
    assert!(answer.text.contains("<xsd:element name=\"geom\" type=\"gml:PointPropertyType\""));
    assert_eq!(server.get("request=DescribeFeatureType").await.xml().children_named("complexType").count(), 3);
    let posted = "<DescribeFeatureType service='WFS' version='2.0.0' xmlns='http://www.opengis.net/wfs/2.0'>\
                  <TypeName xmlns=''>app:roads</TypeName></DescribeFeatureType>";
    assert!(server.post(posted).await.text.contains("gml:MultiCurvePropertyType"));
    for (version, format, property) in [
        ("1.0.0", "", "gml:MultiLineStringPropertyType"),
        ("1.0.0", "&outputFormat=XMLSCHEMA", "gml:MultiLineStringPropertyType"),
        ("1.0.0", "&outputFormat=GML3", "gml:MultiCurvePropertyType"),
        ("1.1.0", "&outputFormat=text/xml;%20subtype=gml/3.1.1", "gml:MultiCurvePropertyType"),
        ("2.0.0", "&outputFormat=GML2", "gml:MultiLineStringPropertyType"),
    ] {
        let answer = server.ask(version, &format!("request=DescribeFeatureType&typeName=app:roads{format}")).await;
        assert!(answer.text.contains(property), "{version} {format}: {}", answer.text);
        assert!(
            answer.text.contains("xmlns:gml=\"http://www.opengis.net/gml\"")
                && answer.text.contains("\"gml:_Feature\"")
        );
        assert!(answer.content_type.starts_with("text/xml"), "{}", answer.content_type);
    }
    exception(
        &server.get("request=DescribeFeatureType&typeNames=app:planes").await,
        400,
        "InvalidParameterValue",
        "typeName",
    );
    exception(
        &server.get("request=DescribeFeatureType&outputFormat=rtf").await,
        400,
        "InvalidParameterValue",
        "outputFormat",
    );
}
