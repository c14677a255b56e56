//! Requests in the shape in which Leaflet-WFST sends them, and what of the answers it looks at. They come as `text/plain`: it
//! sends a string.

use super::*;

const TYPES: &str = r#"
[server]
allow_anonymous_writes = true
[[feature_types]]
name = "ships"
geometry = { type = "Point" }
properties = [
  { name = "name", type = "string" },
  { name = "crew", type = "int32" },
  { name = "afloat", type = "boolean" },
]
[[feature_types]]
name = "areas"
geometry = { type = "MultiPolygon" }
[[feature_types]]
name = "lines"
geometry = { type = "MultiLineString" }
"#;

const DESCRIBE: &str = include_str!("../../fixtures/requests/leaflet-wfst/describe.xml");
const READ: &str = include_str!("../../fixtures/requests/leaflet-wfst/read.xml");
const INSERT: &str = include_str!("../../fixtures/requests/leaflet-wfst/insert.xml");
const UPDATE: &str = include_str!("../../fixtures/requests/leaflet-wfst/update.xml");
const DELETE: &str = include_str!("../../fixtures/requests/leaflet-wfst/delete.xml");

#[tokio::test(flavor = "multi_thread")]
async fn leaflet_wfst_reads_and_edits() {
    let server = Server::with(TYPES).await;
    let send = async |body: &str| {
        let text =
            server.0.send("POST", "/wfs", &[("content-type", "text/plain;charset=UTF-8")], body.to_owned()).await;
        text.expect(200).text()
    };
    // The first complex type's sequence has the fields.
    let described = send(DESCRIBE).await;
    let schema = xml::parse(described.as_bytes(), Default::default()).unwrap();
    let content =
        schema.child("complexType").and_then(|t| t.child("complexContent")?.child("extension")?.child("sequence"));
    let fields: Vec<_> =
        content.unwrap().children.iter().filter_map(|e| Some((e.attribute("name")?, e.attribute("type")?))).collect();
    let expected =
        [("geom", "gml:PointPropertyType"), ("name", "xsd:string"), ("crew", "xsd:int"), ("afloat", "xsd:boolean")];
    assert_eq!(fields, expected, "{described}");

    // It looks for ids under the prefixes that the root declares, in the order of what it sent.
    let inserted = send(INSERT).await;
    validate(&inserted, WFS_11, None);
    let (root, rest) = inserted.split_once("<wfs:TransactionSummary").unwrap();
    assert!(root.contains("xmlns:wfs=\"http://www.opengis.net/wfs\"") && root.contains("xmlns:ogc="), "{inserted}");
    let ids: Vec<&str> = rest.split("<ogc:FeatureId fid=\"").skip(1).filter_map(|id| id.split('"').next()).collect();
    assert_eq!(
        ids.iter().map(|id| id.split('.').next().unwrap()).collect::<Vec<_>>(),
        ["ships", "ships", "areas", "lines"]
    );
    assert!(rest.contains("<wfs:InsertResults><wfs:Feature"), "{inserted}");

    // In x,y order both ways, and the first child of a geometry property is the geometry.
    let read = send(READ).await;
    validate(&read, WFS_11, Some(&server.ask("1.1.0", "request=DescribeFeatureType").await.text));
    assert_eq!(read.matches("<app:ships gml:id=").count(), 1, "{read}");
    assert!(read.contains(&format!("gml:id=\"{}\"", ids[0])) && read.contains("<app:geom><gml:Point"), "{read}");
    let pos = |text: &str| -> Vec<f64> {
        let pos = text.split_once("<gml:pos>").unwrap().1.split_once('<').unwrap().0;
        pos.split(' ').map(|n| n.parse().unwrap()).collect()
    };
    let near = |found: &[f64], expected: [f64; 2]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.001);
    assert!(near(&pos(&read), [2_671_667.778_2, 8_399_737.889_8]), "{read}");
    let items = async |collection: &str| server.0.get(&format!("/collections/{collection}/items")).await.json();
    for (collection, parts) in [("areas", 2), ("lines", 2)] {
        let geometry = items(collection).await["features"][0]["geometry"]["coordinates"].clone();
        assert_eq!(geometry.as_array().map(Vec::len), Some(parts), "{collection}: {geometry}");
    }

    // Of an edit it takes an empty value for none.
    let updated = send(&UPDATE.replace("\"ID\"", &format!("\"{}\"", ids[0]))).await;
    assert!(updated.contains("<wfs:totalUpdated>1</wfs:totalUpdated>"), "{updated}");
    let read = send(&READ.replace("A#a*", "A#a* co")).await;
    assert!(
        read.contains("<app:name>Ava &amp; co</app:name>") && near(&pos(&read), [2_671_667.778_2, 8_400_000.0]),
        "{read}"
    );
    assert!(!read.contains("app:crew") && !read.contains("app:afloat"), "{read}");
    let deleted = send(&DELETE.replace("\"ID\"", &format!("\"{}\"", ids[0]))).await;
    assert!(deleted.contains("<wfs:totalDeleted>1</wfs:totalDeleted>"), "{deleted}");
    assert_eq!(items("ships").await["numberMatched"], 1);
    // What went wrong is read from the report.
    let failed = send(&DELETE.replace("app:ships", "app:planes")).await;
    assert!(failed.contains("ExceptionText") && failed.contains("planes"), "{failed}");
}
