//! Reading in 1.0.0 and 1.1.0: each request is answered in its own version, and its coordinates are in the order of that.

use super::*;

const OLD: &str =
    "xmlns='http://www.opengis.net/wfs' xmlns:ogc='http://www.opengis.net/ogc' xmlns:gml='http://www.opengis.net/gml'";

#[tokio::test(flavor = "multi_thread")]
async fn features_are_read_in_1_1_0() {
    let server = Server::with_ships().await;
    let answer = server.ask("1.1.0", "request=GetFeature&typeName=app:ships&featureId=ships.s2").await;
    assert_eq!(answer.content_type, "text/xml; subtype=gml/3.1.1");
    let (head, rest) = answer.text.split_once(">\n<gml:featureMember>").unwrap();
    assert!(head.contains("numberOfFeatures=\"1\"") && head.contains("version=1.1.0&amp;"), "{head}");
    assert_eq!(
        rest,
        format!(
            "<app:ships gml:id=\"ships.s2\"><app:geom><gml:Point srsName=\"{URN}\" srsDimension=\"2\">\
             <gml:pos>60 21</gml:pos></gml:Point></app:geom><app:name>R&amp;D 2</app:name><app:sog>2.5</app:sog>\
             <app:crew>0</app:crew><app:seen>2026-01-02T00:00:00Z</app:seen></app:ships></gml:featureMember>\n</wfs:FeatureCollection>\n"
        )
    );
    let schema = server.ask("1.1.0", "request=DescribeFeatureType&typeName=app:ships").await.text;
    validate(&answer.text, WFS_11, Some(&schema));

    let object = server.ask("1.1.0", "request=GetGmlObject&gmlObjectId=ships.s2").await;
    assert_eq!((&*object.xml().local, object.xml().attribute("id")), ("ships", Some("ships.s2")), "{}", object.text);
    validate(&object.text, WFS_11, Some(&schema));
    let posted = format!(
        "<GetGmlObject service='WFS' version='1.1.0' {OLD}><ogc:GmlObjectId gml:id='ships.s4'/></GetGmlObject>"
    );
    assert_eq!(server.post(&posted).await.xml().attribute("id"), Some("ships.s4"));
    exception(&server.ask("1.1.0", "request=GetGmlObject&gmlObjectId=ships.s9").await, 200, "NotFound", "id");

    // Hits tell how many features there would be.
    for (query, hits) in [("", "5"), ("&maxFeatures=2", "2"), ("&featureId=ships.s9", "0")] {
        let answer = server.ask("1.1.0", &format!("request=GetFeature&typeName=ships&resultType=hits{query}")).await;
        let root = answer.xml();
        assert_eq!((root.attribute("numberOfFeatures"), root.children.len()), (Some(hits), 0), "{query}");
    }
    assert_eq!(old_ids(&server, "1.1.0", "sortBy=crew%20D,seen%20A&maxFeatures=3").await, ["s1", "s3", "s5"]);
    let body = format!(
        "<GetFeature service='WFS' version='1.1.0' maxFeatures='2' {OLD}><Query typeName='x:ships' xmlns:x='urn:alluvium:app'>\
         <PropertyName>x:name</PropertyName><ogc:Filter><ogc:And><ogc:PropertyIsLike wildCard='*' singleChar='.' escapeChar='!'>\
         <ogc:PropertyName>x:name</ogc:PropertyName><ogc:Literal>R*</ogc:Literal></ogc:PropertyIsLike><ogc:BBOX>\
         <ogc:PropertyName>geom</ogc:PropertyName><gml:Envelope srsName='{URN}'><gml:lowerCorner>59 20.5</gml:lowerCorner>\
         <gml:upperCorner>61 24</gml:upperCorner></gml:Envelope></ogc:BBOX></ogc:And></ogc:Filter><ogc:SortBy><ogc:SortProperty>\
         <ogc:PropertyName>sog</ogc:PropertyName><ogc:SortOrder>DESC</ogc:SortOrder></ogc:SortProperty></ogc:SortBy></Query></GetFeature>"
    );
    let answer = server.post(&body).await;
    validate(&answer.text, WFS_11, Some(&schema));
    assert_eq!(ids_of(&answer), ["s5", "s4"]);
    assert!(answer.text.contains("<app:name>R&amp;D 5</app:name></app:ships>"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn features_are_read_in_1_0_0() {
    let server = Server::with_ships().await;
    let answer = server.ask("1.0.0", "request=GetFeature&typeName=app:ships&featureId=ships.s2").await;
    assert_eq!(answer.content_type, "text/xml; subtype=gml/2.1.2");
    let (head, rest) = answer.text.split_once("<gml:boundedBy>").unwrap();
    assert!(!head.contains("number") && head.contains("version=1.0.0&amp;"), "{head}");
    assert_eq!(
        rest,
        "<gml:null>unknown</gml:null></gml:boundedBy>\n<gml:featureMember>\
         <app:ships fid=\"ships.s2\"><app:geom><gml:Point srsName=\"EPSG:4326\"><gml:coordinates>21,60</gml:coordinates></gml:Point>\
         </app:geom><app:name>R&amp;D 2</app:name><app:sog>2.5</app:sog><app:crew>0</app:crew>\
         <app:seen>2026-01-02T00:00:00Z</app:seen></app:ships></gml:featureMember>\n</wfs:FeatureCollection>\n"
    );
    let schema = server.ask("1.0.0", "request=DescribeFeatureType&typeName=app:ships").await.text;
    validate(&answer.text, WFS_10, Some(&schema));
    // All boxes and literals are x,y.
    for query in ["bbox=20.5,59,22.5,61", "bbox=20.5,59,22.5,61,urn:ogc:def:crs:EPSG::4326"] {
        assert_eq!(old_ids(&server, "1.0.0", query).await, ["s2", "s3"], "{query}");
    }
    let body = format!(
        "<GetFeature service='WFS' version='1.0.0' {OLD}><Query typeName='ships'><ogc:Filter><ogc:Or><ogc:Intersects>\
         <ogc:PropertyName>geom</ogc:PropertyName><gml:Polygon srsName='{URN}'><gml:outerBoundaryIs><gml:LinearRing><gml:coordinates>\
         20.5,59 21.5,59 21,61 20.5,59</gml:coordinates></gml:LinearRing></gml:outerBoundaryIs></gml:Polygon></ogc:Intersects>\
         <ogc:BBOX><ogc:PropertyName>geom</ogc:PropertyName><gml:Box><gml:coordinates>23.5,59 25,61</gml:coordinates></gml:Box></ogc:BBOX>\
         <ogc:FeatureId fid='ships.s1'/><ogc:PropertyIsLike wildCard='%' singleChar='_' escape='!'><ogc:PropertyName>name</ogc:PropertyName>\
         <ogc:Literal>%4</ogc:Literal></ogc:PropertyIsLike></ogc:Or></ogc:Filter></Query></GetFeature>"
    );
    let answer = server.post(&body).await;
    validate(&answer.text, WFS_10, Some(&schema));
    assert_eq!(ids_of(&answer), ["s1", "s2", "s4", "s5"], "{}", answer.text);
}

/// Which ordinate comes first is a matter of the request's version and of how it spells the CRS, and of nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn coordinates_are_in_the_order_of_the_version_and_the_spelling() {
    let settings = "[[feature_types]]\nname = \"degrees\"\ngeometry = { type = \"Point\" }\nproperties = []\n\
                    [[feature_types]]\nname = \"metres\"\ngeometry = { type = \"Point\", epsg = 3035 }\nproperties = []\n";
    let server = Server::with(settings).await;
    let insert = |name: &str, x: u32, y: u32| {
        format!(
            "<Insert><{name} xmlns='urn:alluvium:app'><geom><gml:Point><gml:coordinates>{x},{y}</gml:coordinates></gml:Point>\
             </geom></{name}></Insert>"
        )
    };
    let (x, y) = (4_320_000, 3_210_000);
    let both = insert("degrees", 24, 60) + &insert("metres", x, y);
    let done = server.post(&format!("<Transaction service='WFS' version='1.0.0' {OLD}>{both}</Transaction>")).await;
    assert!(done.text.contains("SUCCESS"), "{}", done.text);
    // The CRS's own order is northing first in both.
    for (version, spelling, echoed, swapped) in [
        ("1.0.0", "", "EPSG:", false),
        ("1.0.0", "EPSG:", "EPSG:", false),
        ("1.0.0", "urn:ogc:def:crs:EPSG::", "urn:ogc:def:crs:EPSG::", false),
        ("1.1.0", "", "urn:ogc:def:crs:EPSG::", true),
        ("1.1.0", "EPSG:", "EPSG:", false),
        ("1.1.0", "urn:ogc:def:crs:EPSG::", "urn:ogc:def:crs:EPSG::", true),
        ("1.1.0", "urn:x-ogc:def:crs:EPSG:", "urn:x-ogc:def:crs:EPSG:", true),
        ("1.1.0", "http://www.opengis.net/gml/srs/epsg.xml#", "http://www.opengis.net/gml/srs/epsg.xml#", false),
        ("2.0.0", "", "urn:ogc:def:crs:EPSG::", true),
        ("2.0.0", "EPSG:", "EPSG:", false),
        ("2.0.0", "http://www.opengis.net/def/crs/EPSG/0/", "http://www.opengis.net/def/crs/EPSG/0/", true),
    ] {
        for (name, code, x, y) in [("degrees", 4326, 24, 60), ("metres", 3035, x, y)] {
            let asked = if spelling.is_empty() { String::new() } else { format!("&srsName={spelling}{code}") };
            for (format, separator) in [("GML2", ','), ("GML3", ' '), ("GML32", ' ')] {
                let query = format!("request=GetFeature&typeName={name}{asked}&outputFormat={format}");
                let answer = server.ask(version, &query).await;
                let (first, second) = if swapped { (y, x) } else { (x, y) };
                let expected = format!(">{first}{separator}{second}<");
                assert!(answer.text.contains(&expected), "{version} {query}: {}", answer.text);
                assert!(
                    answer.text.contains(&format!("srsName=\"{echoed}{code}\"")),
                    "{version} {query}: {}",
                    answer.text
                );
            }
            let (a, b) = if swapped { (y, x) } else { (x, y) };
            let bbox = format!("{},{},{},{}", a - 1, b - 1, a + 1, b + 1);
            let crs = if spelling.is_empty() { String::new() } else { format!(",{spelling}{code}") };
            let found = server.ask(version, &format!("request=GetFeature&typeName={name}&bbox={bbox}{crs}")).await;
            assert!(found.text.contains(&format!("<app:{name} ")), "{version} {bbox}{crs}: {}", found.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_is_there_in_every_version() {
    let server = Server::with_ships().await;
    for version in ["1.0.0", "1.1.0", "2.0.0"] {
        for (format, schema, root) in [("GML2", WFS_10, "old"), ("GML3", WFS_11, "old"), ("GML32", WFS_20, "new")] {
            let described =
                server.ask(version, &format!("request=DescribeFeatureType&outputFormat={format}")).await.text;
            let query = format!("request=GetFeature&typeName=ships&outputFormat={format}");
            let answer = server.ask(version, &query).await;
            let is_old = &*answer.xml().ns == "http://www.opengis.net/wfs";
            assert_eq!(is_old, root == "old", "{version} {query}: {}", answer.text);
            validate(&answer.text, schema, Some(&described));
        }
        let json = server.ask(version, "request=GetFeature&typeName=ships&outputFormat=json").await.json();
        assert_eq!(json["features"].as_array().unwrap().len(), 5);
    }
}

/// No later answer could bring what an answer of 1.x leaves out.
#[tokio::test(flavor = "multi_thread")]
async fn answers_without_pages_are_whole() {
    let server = Server::with(&SETTINGS.replace("[server]\n", "[server]\nmax_limit = 2\ndefault_limit = 2\n")).await;
    for n in 1..=5 {
        let ship = r#"{"type":"Feature","geometry":null,"properties":{}}"#;
        server.0.send("PUT", &format!("/collections/ships/items/s{n}"), &[], ship).await.expect(204);
    }
    assert_eq!(server.ids("").await.len(), 2);
    for version in ["1.0.0", "1.1.0"] {
        assert_eq!(old_ids(&server, version, "").await.len(), 5, "{version}");
        assert_eq!(old_ids(&server, version, "maxFeatures=4").await.len(), 4, "{version}");
    }
    let json = server.ask("1.0.0", "request=GetFeature&typeName=ships&outputFormat=json").await.json();
    assert_eq!((&json["numberReturned"], json["links"].as_array().unwrap().len()), (&5.into(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_in_the_version_of_the_request() {
    let server = Server::with_ships().await;
    for (query, code, locator) in [
        ("request=GetFeature&typeName=planes", "InvalidParameterValue", "typeName"),
        ("request=GetFeature&typeName=ships&outputFormat=DUMMYFORMAT", "InvalidParameterValue", "outputFormat"),
        ("request=GetFeature&typeName=ships&srsName=EPSG:0", "InvalidParameterValue", "srsName"),
        ("request=GetPropertyValue&typeName=ships&valueReference=name", "OperationNotSupported", "request"),
        ("request=ListStoredQueries", "OperationNotSupported", "request"),
        ("request=DescribeFeatureType&typeName=planes", "InvalidParameterValue", "typeName"),
    ] {
        exception(&server.ask("1.1.0", query).await, 200, code, locator);
        let answer = server.ask("1.0.0", query).await;
        assert_eq!((answer.status.as_u16(), answer.content_type.as_str()), (200, "text/xml; charset=UTF-8"));
        validate(&answer.text, OGC_10, None);
        let root = answer.xml();
        assert_eq!((&*root.local, root.attribute("version")), ("ServiceExceptionReport", Some("1.2.0")));
        let e = &root.children[0];
        assert_eq!((e.attribute("code"), e.attribute("locator")), (Some(code), Some(locator)), "{}", answer.text);
    }
    // A collection of 1.0 has no place for a count; another format has.
    let hits = "request=GetFeature&typeName=ships&resultType=hits";
    assert!(server.ask("1.0.0", hits).await.text.contains("code=\"InvalidParameterValue\" locator=\"resultType\""));
    let hits = server.ask("1.0.0", &format!("{hits}&outputFormat=GML3")).await;
    assert_eq!(hits.xml().attribute("numberOfFeatures"), Some("5"));
    let posted = format!("<GetFeature service='WFS' version='1.1.0' {OLD}><Query typeName='planes'/></GetFeature>");
    exception(&server.post(&posted).await, 200, "InvalidParameterValue", "typeName");
    exception(&server.get("request=GetGmlObject&gmlObjectId=ships.s1").await, 400, "OperationNotSupported", "request");
}

/// The keys of the ships in an answer of 1.x.
fn ids_of(answer: &Answer) -> Vec<String> {
    let root = answer.xml();
    let features = root.children_named("featureMember").map(|member| &member.children[0]);
    let id = |f: &Element| f.attribute("fid").or(f.attribute("id")).unwrap().trim_start_matches("ships.").to_owned();
    features.map(id).collect()
}

async fn old_ids(server: &Server, version: &str, query: &str) -> Vec<String> {
    ids_of(&server.ask(version, &format!("request=GetFeature&typeName=app:ships&{query}")).await)
}
