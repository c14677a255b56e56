use super::*;
use crate::model::{Feature, Geometry};
use crate::query::evaluate;

fn ships() -> FeatureType {
    serde_json::from_value(serde_json::json!({
        "name": "ships",
        "geometry": { "type": "Point" },
        "properties": [
            { "name": "name", "type": "string" },
            { "name": "sog", "type": "number" },
            { "name": "time", "type": "date-time" },
            { "name": "day", "type": "date" },
            { "name": "more", "type": "json" },
        ],
    }))
    .unwrap()
}

fn params(query: &[(&str, &str)]) -> Params {
    let text: Vec<String> = query.iter().map(|(n, v)| format!("{n}={}", crate::web::request::encoded(v))).collect();
    Params::parse(&text.join("&")).unwrap()
}

fn read(query: &[(&str, &str)]) -> Result<ItemsRequest> {
    ItemsRequest::read(&ships(), &params(query), PageSize { default: 10, most: 100 }, Position::default())
}

fn ship(x: f64, y: f64, time: &str) -> Feature {
    let time = PropertyType::DateTime.parse(time).unwrap();
    Feature {
        id: "a".into(),
        geometry: Some(Geometry::point(x, y).unwrap()),
        properties: vec![Value::String("A b".into()), Value::Number(0.1), time],
    }
}

fn selects(query: &[(&str, &str)], feature: &Feature) -> bool {
    evaluate::matches(&read(query).unwrap().query.filter, feature)
}

#[test]
fn limits_are_clamped_but_not_mended() {
    assert_eq!(read(&[]).unwrap().limit, 10);
    assert_eq!(read(&[("limit", "100000")]).unwrap().limit, 100);
    for bad in ["0", "-1", "unlimited", "", "1.5"] {
        assert!(read(&[("limit", bad)]).is_err(), "{bad}");
    }
}

#[test]
fn a_box_selects_what_lies_in_it() {
    let at = |x, y| ship(x, y, "");
    for (bbox, x, y, inside) in [
        ("0,0,10,10", 5.0, 5.0, true),
        ("0,0,10,10", 10.0, 0.0, true),
        ("0,0,10,10", 11.0, 5.0, false),
        ("0,0,-5,10,10,5", 5.0, 5.0, true),
        // Over the antimeridian, written in each of the ways that clients have.
        ("177,65,-177,70", 179.0, 66.0, true),
        ("177,65,-177,70", -179.0, 66.0, true),
        ("177,65,-177,70", 0.0, 66.0, false),
        ("177,65,183,70", -179.0, 66.0, true),
        ("-183,65,-177,70", 179.0, 66.0, true),
        ("-200,-100,200,100", 179.0, 66.0, true),
    ] {
        assert_eq!(selects(&[("bbox", bbox)], &at(x, y)), inside, "{bbox} {x} {y}");
    }
    let swapped = [("bbox", "10,100,20,110"), ("bbox-crs", "http://www.opengis.net/def/crs/EPSG/0/4326")];
    assert!(selects(&swapped, &at(105.0, 15.0)));
    let mercator = [("bbox", "0,0,200000,200000"), ("bbox-crs", "http://www.opengis.net/def/crs/EPSG/0/3857")];
    assert!(selects(&mercator, &at(1.0, 1.0)));
    assert!(!selects(&mercator, &at(3.0, 1.0)));
    let nowhere = Feature { geometry: None, ..at(0.0, 0.0) };
    assert!(selects(&[("bbox", "5,5,6,6")], &nowhere), "no geometry matches every box");
    for bad in ["1,2,3", "a,b,c,d", "0,10,10,0", "0,0,inf,10", "1,2,3,4,5", "", "NaN,0,1,1"] {
        assert!(read(&[("bbox", bad)]).is_err(), "{bad}");
    }
    assert!(read(&[("bbox", "0,0,1,1"), ("bbox-crs", "http://www.opengis.net/def/crs/0/unsupported")]).is_err());
    assert!(read(&[("bbox", "5,0,1,1"), mercator[1]]).is_err(), "no antimeridian on a plane");
}

#[test]
fn a_time_selects_what_falls_in_it() {
    let feature = ship(0.0, 0.0, "2022-01-03T12:00:00Z");
    for (datetime, inside) in [
        ("2022-01-03T12:00:00Z", true),
        ("2022-01-03T12:00:01Z", false),
        ("2022-01-03", true),
        ("2022-01-04", false),
        ("2022-01-03/2022-01-03", true),
        ("2022-01-03T13:00:00+01:00/..", true),
        ("../2022-01-03T11:59:59Z", false),
        ("/2022-01-03", true),
        ("2022-01-04/", false),
        ("../..", true),
    ] {
        assert_eq!(selects(&[("datetime", datetime)], &feature), inside, "{datetime}");
    }
    assert!(selects(&[("datetime", "1999-01-01")], &ship(0.0, 0.0, "")), "no time matches every time");
    for bad in ["yesterday", "2022-13-01", "2022-01-04/2022-01-03", "", "/", "2022-01-01/2022-01-02/2022-01-03"] {
        assert!(read(&[("datetime", bad)]).is_err(), "{bad}");
    }
}

#[test]
fn properties_select_by_equality() {
    let feature = ship(0.0, 0.0, "2022-01-03T12:00:00Z");
    assert!(selects(&[("name", "A b"), ("sog", "0.10")], &feature));
    assert!(!selects(&[("name", "a b")], &feature));
    assert!(selects(&[("time", "2022-01-03T13:00:00+01:00")], &feature));
    assert!(read(&[("sog", "fast")]).is_err());
    assert!(read(&[("sog", "")]).is_err());
    assert!(read(&[("speed", "1")]).is_err());
}

#[test]
fn a_cursor_comes_back_as_it_was() {
    let request = read(&[("sortby", " sog,-time,name")]).unwrap();
    assert_eq!(request.query.sort.iter().map(|k| k.descending).collect::<Vec<_>>(), [false, true, false]);
    // A number that a careless reader takes for its neighbour.
    let mut feature = ship(0.0, 0.0, "2022-01-03T12:00:00.000001Z");
    feature.properties[1] = Value::Number(-5.762_189_385_943_862e-17);
    feature.id = "a/\"ü".into();
    let cursor = Cursor::of(&feature, &request.query.sort);
    let text = encode_cursor(&cursor);
    assert_eq!(decode_cursor(&ships(), &request.query.sort, &text).unwrap(), cursor);
    assert!(read(&[("cursor", &text)]).is_err(), "of another sorting");
    for bad in ["", "x", "W10", "bnVsbA"] {
        assert!(read(&[("cursor", bad)]).is_err(), "{bad}");
    }
}

#[test]
fn one_sorts_by_what_has_an_order() {
    for bad in ["more", "speed", "sog,sog", "", "sog,-sog"] {
        assert!(read(&[("sortby", bad)]).is_err(), "{bad}");
    }
}

#[test]
fn crs_are_those_of_the_collection() {
    assert_eq!(read(&[]).unwrap().crs, CrsRef::crs84());
    assert!(read(&[("crs", "http://www.opengis.net/def/crs/EPSG/0/4326")]).unwrap().crs.swap);
    for bad in ["EPSG:99999", "http://www.opengis.net/def/crs/0/unsupported", ""] {
        assert!(read(&[("crs", bad)]).is_err(), "{bad}");
    }
    let mut deep = ships();
    deep.geometry.as_mut().unwrap().dimension = crate::model::Dimension::XYZ;
    let offered: Vec<String> = offered_crs(&deep).into_iter().map(|c| c.spelling).collect();
    assert_eq!(offered[0], "http://www.opengis.net/def/crs/OGC/0/CRS84h");
    assert!(offered.contains(&CrsRef::crs84().spelling));
}
