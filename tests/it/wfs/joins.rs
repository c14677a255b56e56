//! Queries over two feature types, answered with tuples.

use super::*;

const HARBOUR: &str = r#"
[[feature_types]]
name = "ships"
geometry = { type = "Point" }
properties = [
  { name = "name", type = "string" },
  { name = "home", type = "string" },
  { name = "length", type = "int32" },
  { name = "seen", type = "date-time" },
]
[[feature_types]]
name = "docks"
geometry = { type = "Polygon", epsg = 3857 }
properties = [
  { name = "name", type = "string" },
  { name = "longest", type = "number" },
  { name = "opened", type = "date" },
]
[[feature_types]]
name = "notes"
properties = [{ name = "about", type = "string" }, { name = "written", type = "date-time" }]
"#;

/// Ships at 1°, 2° .. 5° E, docks around 1° to 3° E.
async fn harbour() -> Server {
    let server = Server::with(HARBOUR).await;
    let ships: String = (1..=5)
        .map(|n| {
            format!(
                "<app:ships gml:id=\"ships.s{n}\"><app:geom><gml:Point><gml:pos>60 {n}</gml:pos></gml:Point></app:geom>\
                 <app:name>ship {n}</app:name><app:home>Dock {}</app:home><app:length>{n}0</app:length>\
                 <app:seen>2026-01-0{n}T00:00:00Z</app:seen></app:ships>",
                n % 3
            )
        })
        .collect();
    let docks: String = (1..=3)
        .map(|n| {
            let (west, east) = (f64::from(n) - 0.25, f64::from(n) + 0.25);
            format!(
                "<app:docks gml:id=\"docks.d{n}\"><app:geom><gml:Polygon srsName=\"EPSG:4326\"><gml:exterior><gml:LinearRing>\
                 <gml:posList>{west} 59.9 {east} 59.9 {east} 60.1 {west} 60.1 {west} 59.9</gml:posList></gml:LinearRing>\
                 </gml:exterior></gml:Polygon></app:geom><app:name>dock {n}</app:name><app:longest>{n}5.5</app:longest>\
                 <app:opened>2026-01-0{n}</app:opened></app:docks>"
            )
        })
        .collect();
    let notes = "<app:notes gml:id=\"notes.n1\"><app:about>ships.s2</app:about><app:written>2026-01-02T00:00:00Z</app:written>\
                 </app:notes><app:notes gml:id=\"notes.n2\"/>";
    let insert = format!("<wfs:Insert idgen=\"UseExisting\">{ships}{docks}{notes}</wfs:Insert>");
    let answer = server.transaction(&insert).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    server
}

/// A GetFeature with one query.
fn get_feature(attributes: &str, query: &str, content: &str) -> String {
    format!(
        "<wfs:GetFeature service=\"WFS\" version=\"2.0.0\" {attributes} xmlns:wfs=\"http://www.opengis.net/wfs/2.0\" \
         xmlns:fes=\"http://www.opengis.net/fes/2.0\" xmlns:gml=\"http://www.opengis.net/gml/3.2\" \
         xmlns:app=\"urn:alluvium:app\"><wfs:Query {query}>{content}</wfs:Query></wfs:GetFeature>"
    )
}

fn condition(operator: &str, left: &str, right: &str) -> String {
    let reference = |name: &str| format!("<fes:ValueReference>{name}</fes:ValueReference>");
    format!("<fes:{operator}>{}{}</fes:{operator}>", reference(left), reference(right))
}

fn filter(content: &str) -> String {
    format!("<fes:Filter>{content}</fes:Filter>")
}

/// `s1 d1, s2 d2`: the keys of the tuples' members, in their order.
fn tuples(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let key = |member: &Element| member.children[0].attribute("id").unwrap().split_once('.').unwrap().1.to_owned();
    let tuple = |member: &Element| {
        assert_eq!((&*member.local, &*member.children[0].local), ("member", "Tuple"));
        member.children[0].children.iter().map(key).collect::<Vec<_>>().join(" ")
    };
    answer.xml().children.iter().map(tuple).collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_joined_by_their_values() {
    let server = harbour().await;
    let ask = async |query: &str, content: &str| server.post(&get_feature("", query, &filter(content))).await;
    let both = "typeNames=\"app:ships app:docks\"";
    let home = "<fes:PropertyIsEqualTo matchCase=\"false\"><fes:ValueReference>app:ships/app:home</fes:ValueReference>\
                <fes:ValueReference>/app:docks/app:name[1]</fes:ValueReference></fes:PropertyIsEqualTo>";
    let answer = ask(both, home).await;
    assert_eq!(tuples(&answer), "s1 d1, s2 d2, s4 d1, s5 d2");
    let root = answer.xml();
    assert_eq!((root.attribute("numberMatched"), root.attribute("numberReturned")), (Some("4"), Some("4")));
    assert!(answer.position.is_some_and(|p| p.contains("ships") && p.contains("docks")));
    assert_eq!(tuples(&ask(both, &home.replace(" matchCase=\"false\"", "")).await), "");

    // Conditions on one of them, and on values that are no equality.
    let long = "<fes:PropertyIsGreaterThan><fes:ValueReference>length</fes:ValueReference><fes:Literal>20</fes:Literal>\
                </fes:PropertyIsGreaterThan>";
    assert_eq!(tuples(&ask(both, &format!("<fes:And>{home}{long}</fes:And>")).await), "s4 d1, s5 d2");
    let fits = condition("PropertyIsLessThan", "docks/longest", "ships/length");
    assert_eq!(tuples(&ask(both, &fits).await), "s2 d1, s3 d1, s3 d2, s4 d1, s4 d2, s4 d3, s5 d1, s5 d2, s5 d3");
    let either = format!("<fes:And><fes:Or>{home}{long}</fes:Or><fes:ResourceId rid=\"docks.d3\"/></fes:And>");
    assert_eq!(tuples(&ask(both, &either).await), "s3 d3, s4 d3, s5 d3");
    let not = format!("<fes:And><fes:Not>{fits}</fes:Not><fes:ResourceId rid=\"docks.d2\"/></fes:And>");
    assert_eq!(tuples(&ask(both, &not).await), "s1 d2, s2 d2");

    // A key is what gml:id says.
    let about = condition("PropertyIsEqualTo", "notes/about", "ships/@gml:id");
    let answer = ask("typeNames=\"app:notes app:ships\"", &about).await;
    assert_eq!(tuples(&answer), "n1 s2");
    validate(&answer.text, WFS_20, Some(&server.get("request=DescribeFeatureType").await.text));

    // A type beside itself, of one moment.
    let twice = "typeNames=\"app:ships app:ships\" aliases=\"a b\"";
    let same_home = condition("PropertyIsEqualTo", "a/home", "b/app:home");
    let shorter = condition("PropertyIsLessThan", "a/length", "b/length");
    assert_eq!(tuples(&ask(twice, &format!("<fes:And>{same_home}{shorter}</fes:And>")).await), "s1 s4, s2 s5");
    let of_a = long.replace(">length<", ">a/length<");
    assert_eq!(
        tuples(&ask(twice, &format!("<fes:And>{same_home}{of_a}</fes:And>")).await),
        "s3 s3, s4 s1, s4 s4, s5 s2, s5 s5"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_joined_by_their_places() {
    let server = harbour().await;
    for (types, content, expected) in [
        ("ships docks", condition("Intersects", "ships/geom", "app:docks/app:geom"), "s1 d1, s2 d2, s3 d3"),
        ("docks ships", condition("Intersects", "ships/geom", "docks/geom"), "d1 s1, d2 s2, d3 s3"),
        ("ships docks", condition("Within", "ships/geom", "docks/geom"), "s1 d1, s2 d2, s3 d3"),
        ("ships docks", condition("Contains", "ships/geom", "docks/geom"), ""),
        ("ships docks", condition("Contains", "docks/geom", "ships/geom"), "s1 d1, s2 d2, s3 d3"),
        (
            "docks ships",
            format!(
                "<fes:And>{}{}</fes:And>",
                condition("Disjoint", "docks/geom", "ships/geom"),
                condition("PropertyIsLessThan", "docks/longest", "ships/length")
            ),
            "d1 s2, d1 s3, d1 s4, d1 s5, d2 s3, d2 s4, d2 s5, d3 s4, d3 s5",
        ),
    ] {
        let answer = server.post(&get_feature("", &format!("typeNames=\"{types}\""), &filter(&content))).await;
        assert_eq!(tuples(&answer), expected, "{types} {content}");
    }
    // A degree of longitude is 55.8 km there.
    let distance = |operator: &str| {
        let references = condition(operator, "a/geom", "b/geom");
        let end = format!("</fes:{operator}>");
        references.replace(&end, &format!("<fes:Distance uom=\"km\">60</fes:Distance>{end}"))
    };
    let twice = "typeNames=\"ships ships\" aliases=\"a b\"";
    let ordered = condition("PropertyIsLessThan", "a/length", "b/length");
    for (operator, expected) in
        [("DWithin", "s1 s2, s2 s3, s3 s4, s4 s5"), ("Beyond", "s1 s3, s1 s4, s1 s5, s2 s4, s2 s5, s3 s5")]
    {
        let content = filter(&format!("<fes:And>{}{ordered}</fes:And>", distance(operator)));
        assert_eq!(tuples(&server.post(&get_feature("", twice, &content)).await), expected, "{operator}");
    }
    // Each in its own CRS, or both in the one that is asked for.
    let inside = filter(&condition("Within", "ships/geom", "docks/geom"));
    let text = server.post(&get_feature("count=\"1\"", "typeNames=\"ships docks\"", &inside)).await.text;
    assert!(text.contains("EPSG::3857") && text.contains("<gml:pos>60 1</gml:pos>"), "{text}");
    let text = server.post(&get_feature("", "typeNames=\"ships docks\" srsName=\"EPSG:4326\"", &inside)).await.text;
    assert!(!text.contains("3857") && text.contains("<gml:pos>1 60</gml:pos>"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_joined_by_their_times() {
    let server = harbour().await;
    for (operator, expected) in [
        ("TEquals", "s1 d1, s2 d2, s3 d3"),
        ("AnyInteracts", "s1 d1, s2 d2, s3 d3"),
        ("Before", "s1 d2, s1 d3, s2 d3"),
        ("After", "s2 d1, s3 d1, s3 d2, s4 d1, s4 d2, s4 d3, s5 d1, s5 d2, s5 d3"),
        ("During", ""),
    ] {
        let content = filter(&condition(operator, "ships/seen", "docks/opened"));
        let answer = server.post(&get_feature("", "typeNames=\"ships docks\"", &content)).await;
        assert_eq!(tuples(&answer), expected, "{operator}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tuples_come_in_pages_and_are_counted() {
    let server = harbour().await;
    let fits = filter(&condition("PropertyIsLessThan", "d/longest", "s/length"));
    let query = "typeNames=\"app:ships app:docks\" aliases=\"s d\"";
    let sorted = format!(
        "<wfs:PropertyName>s/name</wfs:PropertyName>{fits}<fes:SortBy><fes:SortProperty><fes:ValueReference>s/length\
         </fes:ValueReference><fes:SortOrder>DESC</fes:SortOrder></fes:SortProperty></fes:SortBy>"
    );
    let mut answer = server.post(&get_feature("count=\"4\"", query, &sorted)).await;
    let mut seen = Vec::new();
    for (n, returned) in [4, 4, 1].into_iter().enumerate() {
        let root = answer.xml();
        assert_eq!(root.attribute("numberMatched"), Some("9"), "{}", answer.text);
        assert_eq!(root.attribute("numberReturned"), Some(returned.to_string().as_str()));
        assert_eq!(root.attribute("previous").is_some(), n > 0);
        assert!(answer.text.contains("<app:name>ship") && !answer.text.contains("<app:name>dock"), "{}", answer.text);
        assert!(!answer.text.contains("app:length") && !answer.text.contains("gml:Point"), "{}", answer.text);
        seen.push(tuples(&answer));
        let Some(next) = root.attribute("next").map(str::to_owned) else { break };
        answer = server.send("GET", &format!("?{}", next.split_once('?').unwrap().1), "").await;
    }
    assert_eq!(seen, ["s5 d1, s5 d2, s5 d3, s4 d1", "s4 d2, s4 d3, s3 d1, s3 d2", "s2 d1"]);
    let hits = server.post(&get_feature("resultType=\"hits\"", query, &fits)).await.xml();
    assert_eq!((hits.attribute("numberMatched"), hits.attribute("numberReturned")), (Some("9"), Some("0")));
    assert!(hits.children.is_empty());

    // As QGIS asks for its SQL layers.
    let fits = fits.replace("fes:", "");
    for query in ["typeNames=(app:ships,app:docks)&aliases=(s,d)", "typeNames=app:ships,app:docks&aliases=s,d"] {
        let answer = server.get(&format!("request=GetFeature&{query}&count=2&startIndex=1&filter=({fits})")).await;
        assert_eq!(tuples(&answer), "s3 d1, s3 d2", "{}", answer.text);
    }
    assert_eq!(
        tuples(&server.get("request=GetFeature&typeNames=(notes,docks)&count=4").await),
        "n1 d1, n1 d2, n1 d3, n2 d1"
    );
    let capabilities = server.get("request=GetCapabilities").await.text;
    for kind in ["Standard", "Spatial", "Temporal"] {
        let constraint = format!("\"Implements{kind}Joins\"><ows:NoValues/><ows:DefaultValue>TRUE<");
        assert!(capabilities.contains(&constraint), "{capabilities}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_join_cannot_mean_is_said() {
    let server = harbour().await;
    let both = "typeNames=\"ships docks\"";
    let near = condition("Intersects", "ships/geom", "docks/geom");
    for (query, content, code, locator) in [
        (both, condition("PropertyIsEqualTo", "name", "docks/name"), "InvalidParameterValue", "name"),
        (both, condition("PropertyIsEqualTo", "ships/colour", "docks/name"), "InvalidParameterValue", "colour"),
        (both, condition("PropertyIsEqualTo", "boats/name", "docks/name"), "InvalidParameterValue", "boats/name"),
        (both, condition("PropertyIsEqualTo", "ships/length", "docks/name"), "InvalidParameterValue", "docks.name"),
        (both, condition("Intersects", "ships/name", "docks/geom"), "InvalidParameterValue", "ships/name"),
        (both, condition("PropertyIsEqualTo", "ships/geom", "docks/name"), "InvalidParameterValue", "ships/geom"),
        (both, format!("<fes:Not>{near}</fes:Not>"), "OperationNotSupported", "Not"),
        (both, "<fes:BBOX><gml:Envelope/></fes:BBOX>".into(), "OperationParsingFailed", "BBOX"),
        (both, "<fes:ResourceId rid=\"s1\"/>".into(), "InvalidParameterValue", "resourceid"),
        ("typeNames=\"ships ships\"", near.clone(), "InvalidParameterValue", "aliases"),
        ("typeNames=\"ships docks\" aliases=\"a\"", near.clone(), "InvalidParameterValue", "aliases"),
        ("typeNames=\"ships docks notes\"", near.clone(), "OptionNotSupported", "typeNames"),
        ("typeNames=\"ships planes\"", near.clone(), "InvalidParameterValue", "typeName"),
    ] {
        let status = 400;
        exception(&server.post(&get_feature("", query, &filter(&content))).await, status, code, locator);
    }
    for (query, code, locator) in [
        ("typeNames=(ships,docks)&outputFormat=application/json", "InvalidParameterValue", "outputFormat"),
        ("typeNames=(ships,docks)&bbox=1,2,3,4", "OptionNotSupported", "bbox"),
        ("typeNames=(ships,docks)&sortBy=docks/name", "OptionNotSupported", "sortBy"),
        ("typeNames=(ships,docks)&propertyName=docks/colour", "InvalidParameterValue", "propertyName"),
        ("typeNames=(ships,docks)(notes)", "OptionNotSupported", "typeNames"),
    ] {
        exception(&server.get(&format!("request=GetFeature&{query}")).await, 400, code, locator);
    }
    let values = server.get("request=GetPropertyValue&typeNames=(ships,docks)&valueReference=ships/name").await;
    exception(&values, 400, "OptionNotSupported", "typeNames");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_would_take_too_much_is_refused() {
    let server = Server::with(HARBOUR).await;
    let add = async |ids: std::ops::Range<usize>, about: &str| {
        let note =
            |n| format!(r#"{{"type":"Feature","id":"{n}","geometry":null,"properties":{{"about":"{about}{n}"}}}}"#);
        let notes: Vec<String> = ids.map(note).collect();
        let notes = format!(r#"{{"type":"FeatureCollection","features":[{}]}}"#, notes.join(","));
        let answer =
            server.0.send("POST", "/collections/notes/items", &[("content-type", "application/geo+json")], notes).await;
        assert!(answer.status.is_success(), "{}", answer.text());
    };
    let twice = "typeNames=\"notes notes\" aliases=\"a b\"";
    let same = condition("PropertyIsEqualTo", "a/about", "b/about");
    let other = condition("PropertyIsNotEqualTo", "a/about", "b/about");
    let ask = async |condition: &str| server.post(&get_feature("count=\"2\"", twice, condition)).await;
    add(0..7_100, "").await;
    assert_eq!(tuples(&ask(&filter(&same)).await), "0 0, 1 1");
    for unbounded in [filter(&other), String::new()] {
        let answer = ask(&unbounded).await;
        exception(&answer, 403, "OperationProcessingFailed", "typeNames");
        assert!(answer.text.contains("more than 50000000 pairs"), "{}", answer.text);
    }
    add(10_000..10_050, &"x".repeat(1 << 20)).await;
    let answer = ask(&filter(&same)).await;
    exception(&answer, 403, "OperationProcessingFailed", "typeNames");
    assert!(answer.text.contains("'notes'") && answer.text.contains("more than 128 MB"), "{}", answer.text);
}
