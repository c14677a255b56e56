use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::crs::{Crs, CrsRef};
use crate::model::geometry::{Coord, Writer};
use crate::model::{Dimension, Feature, FeatureType, Geometry, GeometryKind, Value};

/// A property of every kind, the geometry as asked.
fn ft(dimension: Dimension) -> FeatureType {
    serde_json::from_value(json!({
        "name": "t",
        "geometry": {"type": "Geometry", "dimension": dimension},
        "properties": [
            {"name": "text", "type": "string"},
            {"name": "small", "type": "int32"},
            {"name": "large", "type": "int64"},
            {"name": "speed", "type": "number"},
            {"name": "on", "type": "boolean"},
            {"name": "day", "type": "date"},
            {"name": "at", "type": "date-time"},
            {"name": "key", "type": "uuid"},
            {"name": "tree", "type": "json"},
            {"name": "blob", "type": "bytes"}
        ]
    }))
    .unwrap()
}

fn full() -> Feature {
    Feature {
        id: "a\"\\\u{e9}/1".into(),
        geometry: Some(Geometry::point(7.1, -50.25).unwrap()),
        properties: vec![
            Value::String("l1\nl2 \u{1}\u{1f6a2}".into()),
            Value::Int(-3),
            Value::Int(i64::MAX),
            Value::Number(0.1),
            Value::Bool(true),
            Value::Date(19_723),
            Value::DateTime(1_641_168_000_250_000),
            Value::Uuid([0xab; 16]),
            Value::Json(r#"{"a":[1,null]}"#.into()),
            Value::Bytes([0, 255].into()),
        ],
    }
}

fn written(ft: &FeatureType, feature: &Feature, options: &Options<'_>) -> String {
    let mut out = Vec::new();
    FeatureWriter::new(ft, options).write(&mut out, feature, None).unwrap();
    String::from_utf8(out).unwrap()
}

fn read(text: &str) -> Result<ParsedFeature, ParseError> {
    FeatureReader::new(&ft(Dimension::XYZ), None, Unknown::Refuse).feature(text.as_bytes())
}

/// The pointer and the message of what is wrong with a feature that has this geometry and these properties.
fn wrong(geometry: &str, properties: &str) -> (String, String) {
    let e = read(&format!(r#"{{"type":"Feature","geometry":{geometry},"properties":{properties}}}"#)).unwrap_err();
    (e.pointer, e.message)
}

#[test]
fn a_feature_is_written_with_every_property() {
    let text = written(&ft(Dimension::XY), &full(), &Options { wfs_ids: true, ..Options::default() });
    let expected = json!({
        "type": "Feature", "id": "t.a_x22__x5C__xE9__x2F_1",
        "geometry": {"type": "Point", "coordinates": [7.1, -50.25]},
        "properties": {
            "text": "l1\nl2 \u{1}\u{1f6a2}", "small": -3, "large": i64::MAX, "speed": 0.1, "on": true,
            "day": "2024-01-01", "at": "2022-01-03T00:00:00.25Z", "key": "abababab-abab-abab-abab-abababababab",
            "tree": {"a": [1, null]}, "blob": "AP8="
        }
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
    let bare = Feature { id: "b".into(), geometry: None, properties: vec![] };
    let text = written(&ft(Dimension::XY), &bare, &Options { properties: Some(&[3, 0]), ..Options::default() });
    assert_eq!(text, r#"{"type":"Feature","id":"b","geometry":null,"properties":{"speed":null,"text":null}}"#);
}

#[test]
fn the_crs_asked_for_and_its_axis_order_are_written() {
    let ft = ft(Dimension::XY);
    let coordinates = |crs: &CrsRef| {
        let text = written(&ft, &full(), &Options { crs: Some(crs), properties: Some(&[]), ..Options::default() });
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["geometry"]["coordinates"].clone()
    };
    assert_eq!(coordinates(&CrsRef::short(Crs::WGS84)), json!([7.1, -50.25]));
    assert_eq!(coordinates(&CrsRef::uri(Crs::WGS84)), json!([-50.25, 7.1]));
    let mercator = coordinates(&CrsRef::uri(Crs::WEB_MERCATOR));
    assert!((mercator[0].as_f64().unwrap() - 790_368.384).abs() < 0.001, "{mercator}");
    let pole = Feature { geometry: Some(Geometry::point(0.0, 90.0).unwrap()), ..full() };
    let writer =
        FeatureWriter::new(&ft, &Options { crs: Some(&CrsRef::short(Crs::WEB_MERCATOR)), ..Options::default() });
    let mut out = b"before".to_vec();
    assert!(writer.write(&mut out, &pole, None).is_err());
    assert_eq!(out, b"before");
}

#[test]
fn the_frame_counts() {
    let mut out = Vec::new();
    let mut frame = CollectionFrame::open(&mut out);
    let ft = ft(Dimension::XY);
    let writer = FeatureWriter::new(&ft, &Options::default());
    for _ in 0..2 {
        frame.next(&mut out);
        writer.write(&mut out, &full(), Some("transient")).unwrap();
    }
    let links = [json!({"rel": "next", "href": "/x?a=1&b=2"})];
    frame.close(&mut out, &Closing { number_matched: Some(7), time_stamp_ms: Some(1), links: &links });
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["features"].as_array().unwrap().len(), 2);
    assert_eq!(json["features"][1]["tier"], "transient");
    assert_eq!((&json["numberMatched"], &json["numberReturned"]), (&json!(7), &json!(2)));
    assert_eq!((&json["timeStamp"], &json["links"]), (&json!("1970-01-01T00:00:00.001Z"), &json!(links)));

    let mut out = Vec::new();
    CollectionFrame::open(&mut out).close(&mut out, &Closing::default());
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json, json!({"type": "FeatureCollection", "features": [], "numberReturned": 0}));
}

#[test]
fn values_are_read_as_clients_write_them() {
    let parsed = read(
        r#"{"properties":{"small":5.0,"large":1e3,"speed":7,"day":"2024-01-01T00:00:00Z","tree":{"b":1,"a":[ ]},
            "at":"2022-01-03T01:00:00+01:00","text":"\u00e9","on":null},
            "id":17,"bbox":[1,2,3,4],"type":"Feature","links":[{"a":{}}]}"#,
    )
    .unwrap();
    assert_eq!(parsed.id.as_deref(), Some("17"));
    assert_eq!(parsed.geometry, None);
    assert_eq!(
        parsed.properties,
        [
            Value::String("\u{e9}".into()),
            Value::Int(5),
            Value::Int(1000),
            Value::Number(7.0),
            Value::Null,
            Value::Date(19_723),
            Value::DateTime(1_641_168_000_000_000),
            Value::Null,
            Value::Json(r#"{"a":[],"b":1}"#.into()),
            Value::Null,
        ]
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (geometry, properties, pointer, message) in [
        ("null", r#"{"sped":3}"#, "/properties/sped", "feature type 't' has no property 'sped'"),
        ("null", r#"{"a/b~":3}"#, "/properties/a~1b~0", "feature type 't' has no property 'a/b~'"),
        ("null", r#"{"small":"5"}"#, "/properties/small", "a 32-bit integer is expected, this is a string"),
        ("null", r#"{"small":3000000000}"#, "/properties/small", "'3000000000' is not a 32-bit integer"),
        ("null", r#"{"small":5.5}"#, "/properties/small", "'5.5' is not a 32-bit integer"),
        ("null", r#"{"text":5}"#, "/properties/text", "a string is expected, this is a number"),
        ("null", r#"{"text":{}}"#, "/properties/text", "a string is expected, this is an object"),
        ("null", r#"{"on":0}"#, "/properties/on", "a boolean is expected, this is a number"),
        ("null", r#"{"speed":1e999}"#, "/properties/speed", "'1e999' is not a finite number"),
        ("null", r#"{"text":"a\u0000"}"#, "/properties/text", "text may not contain U+0000"),
        ("null", r#"{"text":"\ud800"}"#, "/properties/text", "the text has half a surrogate pair"),
        ("null", r#"{"speed":1,"speed":2}"#, "/properties/speed", "the member is given twice"),
        ("{}", "{}", "/geometry", "a geometry needs a member \"type\""),
        (r#"{"type":"Point","type":"Point"}"#, "{}", "/geometry/type", "the member is given twice"),
        (r#"{"type":"Circle"}"#, "{}", "/geometry/type", "\"Circle\" is not a GeoJSON geometry type"),
        (r#"{"type":"Point"}"#, "{}", "/geometry", "a Point needs \"coordinates\""),
        (
            r#"{"type":"Point","coordinates":[1]}"#,
            "{}",
            "/geometry/coordinates",
            "a position needs two numbers, this one has one",
        ),
        (r#"{"type":"Point","coordinates":[1,"2"]}"#, "{}", "/geometry/coordinates/1", "a number is expected"),
        (r#"{"type":"Point","coordinates":[1,1e999]}"#, "{}", "/geometry/coordinates/1", "the number is too large"),
        (
            r#"{"type":"LineString","coordinates":[[1,2],3]}"#,
            "{}",
            "/geometry/coordinates/1",
            "a position is expected: an array of numbers",
        ),
        (
            r#"{"type":"Polygon","coordinates":[[[0,0],[1,1],[0,1],[2,2]]]}"#,
            "{}",
            "/geometry",
            "a ring does not end where it begins",
        ),
        (
            r#"{"type":"GeometryCollection","geometries":[{"type":"Point","coordinates":[]},{"type":"Polygon","coordinates":[[0,0]]}]}"#,
            "{}",
            "/geometry/geometries/1/coordinates/0/0",
            "a position is expected: an array of numbers",
        ),
    ] {
        assert_eq!(wrong(geometry, properties), (pointer.to_owned(), message.to_owned()));
    }
    assert_eq!(read(r#"{"type":"Point"}"#).unwrap_err().pointer, "/type");
    assert_eq!(read(r#"{"type":"Feature","id":1.5}"#).unwrap_err().pointer, "/id");
    assert_eq!(read(r#"{"type":"Feature","id":""}"#).unwrap_err().message, "a feature id may not be empty");
    assert!(read("{\"type\":\"Feature\",}").unwrap_err().message.contains("line 1 column 19"));
    let reader = ft(Dimension::XY);
    let reader = FeatureReader::new(&reader, None, Unknown::Ignore);
    assert_eq!(reader.feature(b"{\"type\":\"Fe\xff").unwrap_err().message, "not UTF-8 at byte 11");
    assert!(reader.feature(br#"{"type":"Feature","properties":{"sped":3}}"#).is_ok());
}

#[test]
fn deep_and_long_input_is_refused() {
    let nested = |n: usize| {
        format!(
            r#"{}{{"type":"Point","coordinates":[1,2]}}{}"#,
            r#"{"type":"GeometryCollection","geometries":["#.repeat(n),
            "]}".repeat(n)
        )
    };
    assert!(read(&format!(r#"{{"type":"Feature","geometry":{}}}"#, nested(16))).is_ok());
    let e = read(&format!(r#"{{"type":"Feature","geometry":{}}}"#, nested(17))).unwrap_err();
    assert!(e.message.contains("16 deep"), "{e}");
    let arrays = "[".repeat(100_000);
    assert!(read(&format!(r#"{{"type":"Feature","geometry":{{"type":"Point","coordinates":{arrays}"#)).is_err());
    let tree = format!(r#"{{"type":"Feature","properties":{{"tree":{}{}}}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(read(&tree).unwrap_err().pointer, "/properties/tree");
}

#[test]
fn a_collection_is_read_feature_by_feature() {
    let ft = ft(Dimension::XY);
    let reader = FeatureReader::new(&ft, None, Unknown::Refuse);
    let collect = |text: &str| {
        let mut speeds = Vec::new();
        let done = reader.collection(text.as_bytes(), |i, f| {
            assert_eq!(i, speeds.len());
            speeds.push(f.properties[3].clone());
            Ok(())
        });
        done.map(|()| speeds)
    };
    let feature = |speed: &str| format!(r#"{{"type":"Feature","properties":{{"speed":{speed}}}}}"#);
    let text = format!(r#"{{"features":[{},{}],"type":"FeatureCollection"}}"#, feature("1"), feature("2"));
    assert_eq!(collect(&text).unwrap(), [Value::Number(1.0), Value::Number(2.0)]);
    assert_eq!(collect(&feature("3")).unwrap(), [Value::Number(3.0)]);
    let text = format!(r#"{{"type":"FeatureCollection","features":[{},{}]}}"#, feature("1"), feature("true"));
    assert_eq!(collect(&text).unwrap_err().pointer, "/features/1/properties/speed");
    for (text, message) in [
        (r#"{"type":"FeatureCollection"}"#, "needs \"features\""),
        (r#"{"type":"FeatureCollection","features":{}}"#, "expected an array of features"),
        (r#"{"type":"FeatureCollection","features":[]} x"#, "trailing characters"),
        (r#"{"type":"Topology"}"#, "\"FeatureCollection\" or \"Feature\" is expected"),
        (r#"[]"#, "expected a FeatureCollection"),
    ] {
        let e = collect(text).unwrap_err();
        assert!(e.message.contains(message), "{text}: {e}");
    }
}

#[test]
fn the_old_crs_member_may_repeat_the_crs_and_not_change_it() {
    let with =
        |name: &str| read(&format!(r#"{{"type":"Feature","crs":{{"type":"name","properties":{{"name":"{name}"}}}}}}"#));
    assert!(with("urn:ogc:def:crs:OGC:1.3:CRS84").is_ok());
    assert_eq!(with("urn:ogc:def:crs:EPSG::3857").unwrap_err().pointer, "/crs");
}

#[test]
fn coordinates_come_in_the_crs_and_order_that_was_agreed() {
    let ft = ft(Dimension::XY);
    let point = |crs: &CrsRef, x: f64, y: f64| {
        let text = json!({"type": "Point", "coordinates": [x, y]}).to_string();
        let reader = FeatureReader::new(&ft, Some(crs), Unknown::Refuse);
        reader.geometry(text.as_bytes()).unwrap().unwrap().bounds().unwrap()
    };
    assert_eq!(point(&CrsRef::uri(Crs::WGS84), 50.0, 7.0).min_x, 7.0);
    let from_mercator = point(&CrsRef::uri(Crs::WEB_MERCATOR), 779_236.435_552_9, 6_446_275.841_017_2);
    assert!((from_mercator.min_x - 7.0).abs() < 1e-9 && (from_mercator.min_y - 50.0).abs() < 1e-9);
}

#[test]
fn merge_patches_of_both_shapes() {
    let ft = ft(Dimension::XY);
    let reader = FeatureReader::new(&ft, None, Unknown::Refuse);
    let changes = |text: &str| reader.changes(text.as_bytes());
    let expected = ParsedChanges {
        id: None,
        geometry: Some(Some(Geometry::point(1.0, 2.0).unwrap())),
        properties: vec![(3, Value::Number(4.5)), (0, Value::Null)],
    };
    let point = r#"{"type":"Point","coordinates":[1,2]}"#;
    let nested = format!(r#"{{"type":"Feature","geometry":{point},"properties":{{"speed":4.5,"text":null}}}}"#);
    assert_eq!(changes(&nested).unwrap(), expected);
    assert_eq!(changes(&format!(r#"{{"geom":{point},"speed":4.5,"text":null}}"#)).unwrap(), expected);
    assert_eq!(changes(r#"{"geometry":null}"#).unwrap().geometry, Some(None));
    assert_eq!(changes(r#"{"properties":null}"#).unwrap().properties.len(), 10);
    assert_eq!(changes(r#"{"id":"x"}"#).unwrap().id.as_deref(), Some("x"));
    for (text, pointer) in [
        (r#"{"sped":1}"#, "/sped"),
        (r#"{"properties":{"sped":1}}"#, "/properties/sped"),
        (r#"{"speed":1,"speed":1}"#, "/speed"),
        (r#"{"geometry":{"type":"X"}}"#, "/geometry/type"),
        (r#"3"#, ""),
    ] {
        assert_eq!(changes(text).unwrap_err().pointer, pointer, "{text}");
    }
}

fn ordinate() -> impl Strategy<Value = f64> {
    prop_oneof![-180.0..180.0, (-90i32..90).prop_map(f64::from)]
}

/// Short enough for the other reader, which does not round the last bit of long decimals correctly.
fn short_ordinate() -> impl Strategy<Value = f64> {
    (-184_320..184_320).prop_map(|n| f64::from(n) / 1024.0)
}

fn coords(n: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<Coord>> {
    let coord = (short_ordinate(), short_ordinate(), short_ordinate()).prop_map(|(x, y, z)| Coord { x, y, z, m: 0.0 });
    proptest::collection::vec(coord, n)
}

/// Lists of rings, from which a geometry of any kind can be made.
fn geometry(dimension: Dimension) -> impl Strategy<Value = Geometry> {
    let rings = proptest::collection::vec(coords(3..6), 0..3);
    (proptest::collection::vec(rings, 0..3), 0..7usize).prop_map(move |(polygons, kind)| {
        let mut w = Writer::new(dimension);
        let line = |w: &mut Writer, cs: &[Coord], close: bool| {
            w.count(cs.len() as u32 + u32::from(close));
            cs.iter().for_each(|c| w.coord(*c));
            if close {
                w.coord(cs[0]);
            }
        };
        let polygon = |w: &mut Writer, rings: &[Vec<Coord>]| {
            w.begin(GeometryKind::Polygon);
            w.count(rings.len() as u32);
            rings.iter().for_each(|r| line(w, r, true));
        };
        let lines: Vec<&Vec<Coord>> = polygons.iter().flatten().collect();
        let first = lines.first().map_or(&[][..], |l| &l[..]);
        let point = |w: &mut Writer, c: Coord| {
            w.begin(GeometryKind::Point);
            w.coord(c);
        };
        match kind {
            0 => point(
                &mut w,
                first.first().copied().unwrap_or(Coord { x: f64::NAN, y: f64::NAN, z: f64::NAN, m: f64::NAN }),
            ),
            1 => {
                w.begin(GeometryKind::LineString);
                line(&mut w, first, false);
            }
            2 => polygon(&mut w, polygons.first().map_or(&[][..], |p| &p[..])),
            3 => {
                w.begin(GeometryKind::MultiPoint);
                w.count(first.len() as u32);
                first.iter().for_each(|c| point(&mut w, *c));
            }
            4 => {
                w.begin(GeometryKind::MultiLineString);
                w.count(lines.len() as u32);
                for l in &lines {
                    w.begin(GeometryKind::LineString);
                    line(&mut w, l, false);
                }
            }
            5 => {
                w.begin(GeometryKind::MultiPolygon);
                w.count(polygons.len() as u32);
                polygons.iter().for_each(|p| polygon(&mut w, p));
            }
            _ => {
                w.begin(GeometryKind::GeometryCollection);
                w.count(polygons.len() as u32 + 1);
                polygons.iter().for_each(|p| polygon(&mut w, p));
                w.begin(GeometryKind::GeometryCollection);
                w.count(0);
            }
        }
        w.checked().unwrap()
    })
}

proptest! {
    #[test]
    fn geometries_round_trip_and_others_read_them(
        g in prop_oneof![geometry(Dimension::XY), geometry(Dimension::XYZ)]
    ) {
        let ft = ft(g.dimension());
        let mut out = Vec::new();
        FeatureWriter::new(&ft, &Options::default()).geometry(&mut out, &g).unwrap();
        let back = FeatureReader::new(&ft, None, Unknown::Refuse).geometry(&out).unwrap().unwrap();
        prop_assert_eq!(back.wkb(), g.wkb());
        // The other reader stumbles over empty parts, which RFC 7946 §3.1 allows.
        let text = String::from_utf8(out).unwrap();
        if !text.contains("[]") {
            let other: geojson::Geometry = text.parse().unwrap();
            let other: geo_types::Geometry<f64> = other.try_into().unwrap();
            prop_assert_eq!(Some(other), g.to_geo());
        }
    }

    #[test]
    fn broken_text_is_an_error_and_no_panic(flip in any::<usize>(), cut in any::<usize>()) {
        let ft = ft(Dimension::XY);
        let reader = FeatureReader::new(&ft, None, Unknown::Refuse);
        let text = written(&ft, &full(), &Options::default()).into_bytes();
        prop_assert!(reader.feature(&text[..cut % text.len()]).is_err());
        let mut flipped = text;
        let at = flip / 8 % flipped.len();
        flipped[at] ^= 1 << (flip % 8);
        let _ = reader.feature(&flipped);
        let _ = reader.changes(&flipped);
        let _ = reader.collection(&flipped, |_, _| Ok(()));
    }

    #[test]
    fn features_round_trip(x in ordinate(), y in ordinate(), n in any::<i64>(), d in ordinate(), at in 0i64..4_000_000_000_000_000, s in "[^\0]{0,20}") {
        let ft = ft(Dimension::XY);
        let mut feature = full();
        feature.geometry = Some(Geometry::point(x, y).unwrap());
        feature.properties[0] = Value::String(s.into());
        feature.properties[2] = Value::Int(n);
        feature.properties[3] = Value::Number(d);
        feature.properties[6] = Value::DateTime(at);
        let text = written(&ft, &feature, &Options::default());
        let parsed = FeatureReader::new(&ft, None, Unknown::Refuse).feature(text.as_bytes()).unwrap();
        let id = parsed.id.clone().unwrap();
        prop_assert_eq!(parsed.into_feature(id), feature);
    }
}

#[test]
fn no_bytes_are_not_null() {
    let bytes = |text: &str| {
        let body = format!(r#"{{"type":"Feature","geometry":null,"properties":{{"blob":{text}}}}}"#);
        read(&body).unwrap().properties.pop().unwrap()
    };
    assert_eq!(bytes("\"\""), Value::Bytes([].into()));
    assert_eq!(bytes("null"), Value::Null);
}
