//! Filters as clients write them, and what they select.

use super::*;
use crate::format::xml;
use crate::model::crs::{Crs, CrsRef};
use crate::query::evaluate::matches;
use crate::query::sample::{aurora, ships};

fn parse(filter: &str) -> Result<Filter, FesError> {
    let ft = ships();
    let axes = Axes { default: CrsRef::urn(Crs::WGS84), always_xy: false, target: Crs::WGS84 };
    let context = Context { ft: &ft, axes: &axes, is_type: &|t| t == "ships" || t == "roads" };
    let document = format!("<Filter>{filter}</Filter>");
    parse_filter(&xml::parse(document.as_bytes(), Default::default()).unwrap(), &context)
}

#[track_caller]
fn selects(filter: &str) -> bool {
    matches(&parse(filter).unwrap_or_else(|e| panic!("{filter}: {e:?}")), &aurora())
}

fn refused(filter: &str) -> FesError {
    parse(filter).expect_err(filter)
}

fn compare(op: &str, left: &str, right: &str) -> String {
    format!("<PropertyIs{op}>{left}{right}</PropertyIs{op}>")
}

fn property(name: &str) -> String {
    format!("<ValueReference>{name}</ValueReference>")
}

fn literal(text: &str) -> String {
    format!("<Literal>{text}</Literal>")
}

#[test]
fn comparisons_work_with_operands_in_either_order() {
    for (op, value, expected) in [
        ("EqualTo", "12.5", true),
        ("NotEqualTo", "12.5", false),
        ("LessThan", "13", true),
        ("LessThanOrEqualTo", "12.5", true),
        ("GreaterThan", "12.5", false),
        ("GreaterThanOrEqualTo", "12.5", true),
        ("GreaterThanEqualTo", "1e1", true),
    ] {
        assert_eq!(selects(&compare(op, &property("speed"), &literal(value))), expected, "{op}");
    }
    assert!(selects(&compare("LessThan", &literal("10"), &property("speed"))));
    assert!(!selects(&compare("GreaterThan", &literal("10"), &property("speed"))));
    assert!(selects(&compare("LessThan", &property("crew"), &property("speed"))));
    assert!(selects(&compare("EqualTo", &literal("1.0"), &literal("1"))));
}

#[test]
fn literals_take_the_type_of_the_property() {
    assert!(selects(&compare("EqualTo", &property("afloat"), &literal("TRUE"))));
    assert!(selects(&compare("EqualTo", &property("seen"), &literal("2026-01-02T12:04:05+09:00"))));
    assert!(selects(&compare("LessThan", &property("crew"), &literal("7.5"))));
    assert!(selects(&compare("EqualTo", &property("built"), &literal("2001-02-03Z"))));
    assert!(selects(&compare("LessThan", &property("built"), &literal("2001-02-03T12:00:00Z"))));
    assert!(selects(
        "<PropertyIsEqualTo matchCase='false'><PropertyName>name</PropertyName><Literal>AURORA</Literal></PropertyIsEqualTo>"
    ));
    for (name, text) in [("speed", "fast"), ("crew", ""), ("seen", "Tue Sep 13 1983"), ("afloat", "maybe")] {
        let e = refused(&compare("EqualTo", &property(name), &literal(text)));
        assert_eq!((e.code, e.locator.as_str()), (Code::InvalidParameterValue, text), "{name}");
    }
    assert_eq!(refused(&compare("EqualTo", &property("speed"), &property("name"))).code, Code::InvalidParameterValue);
}

#[test]
fn properties_are_found_in_every_spelling() {
    for name in [
        "speed",
        "app:speed",
        "x:ships/x:speed",
        "/app:ships/app:speed",
        "./speed",
        "speed[1]",
        "schema-element(a:ships)/a:speed",
    ] {
        assert!(selects(&compare("EqualTo", &property(name), &literal("12.5"))), "{name}");
    }
    for name in ["colour", "gml:colour", "roads/speed", "ships/a/speed", "", "@speed", "speed[2]"] {
        let e = refused(&compare("EqualTo", &property(name), &literal("1")));
        assert_eq!((e.code, e.locator.as_str()), (Code::InvalidParameterValue, name));
    }
    assert_eq!(refused(&compare("EqualTo", &property("geom"), &literal("1"))).code, Code::InvalidParameterValue);
    assert_eq!(
        refused(&compare("EqualTo", &property("gml:boundedBy"), &literal("1"))).code,
        Code::OperationProcessingFailed
    );
}

#[test]
fn like_null_and_between() {
    let like = |attributes: &str, pattern: &str| {
        format!("<PropertyIsLike {attributes}>{}{}</PropertyIsLike>", property("name"), literal(pattern))
    };
    assert!(selects(&like("wildCard='%' singleChar='_' escapeChar='\\'", "A_rora%")));
    assert!(selects(&like("wildCard='*' singleChar='#' escape='!' matchCase='false'", "aU#ora")));
    assert!(!selects(&like("wildCard='*' singleChar='#' escapeChar='!'", "aurora")));
    assert!(!selects(&like("wildCard='*' singleChar='#' escapeChar='!'", "Auror!*")));
    let on_number = format!("<PropertyIsLike>{}{}</PropertyIsLike>", property("speed"), literal("1*"));
    assert_eq!(refused(&on_number).locator, "speed");
    assert!(selects(&format!("<PropertyIsNull>{}</PropertyIsNull>", property("crew_max"))));
    // GML gives every feature a name, and ours none.
    assert!(selects(&format!("<PropertyIsNull>{}</PropertyIsNull>", property("gml:name"))));
    assert!(!selects(&format!("<Not>{}</Not>", compare("EqualTo", &property("gml:name"), &literal("Aurora")))));
    assert!(!selects(&format!("<PropertyIsNil nilReason='x'>{}</PropertyIsNil>", property("geom"))));
    let between = |low: &str, high: &str| {
        format!(
            "<PropertyIsBetween>{}<LowerBoundary>{low}</LowerBoundary><UpperBoundary>{high}</UpperBoundary></PropertyIsBetween>",
            property("crew")
        )
    };
    assert!(selects(&between(&literal("7"), &literal("7"))));
    assert!(!selects(&between(&literal("8"), &property("speed"))));
    assert_eq!(refused(&between(&property("name"), &literal("7"))).locator, "name");
}

#[test]
fn logic_nests() {
    let yes = compare("EqualTo", &property("crew"), &literal("7"));
    let no = compare("EqualTo", &property("crew"), &literal("8"));
    assert!(selects(&format!("<And>{yes}<Or>{no}{yes}</Or><Not>{no}</Not></And>")));
    assert!(!selects(&format!("<And>{yes}{no}</And>")));
    assert!(selects(&format!("<Or>{yes}</Or>")));
    for bad in ["<And/>", "<Not/>", "", &format!("{yes}{no}"), "<PropertyIsEqualTo/>", "<Literal>1</Literal>x"] {
        assert!(matches!(refused(bad).code, Code::OperationParsingFailed | Code::OperationNotSupported), "{bad}");
    }
}

#[test]
fn spatial_operators_follow_axis_order_and_operand_order() {
    let envelope = "<gml:Envelope xmlns:gml='http://www.opengis.net/gml/3.2'><gml:lowerCorner>59 23</gml:lowerCorner>\
                    <gml:upperCorner>61 25</gml:upperCorner></gml:Envelope>";
    let flipped =
        "<Envelope srsName='EPSG:4326'><lowerCorner>59 23</lowerCorner><upperCorner>61 25</upperCorner></Envelope>";
    assert!(selects(&format!("<BBOX>{envelope}</BBOX>")));
    assert!(selects(&format!("<BBOX>{}{envelope}</BBOX>", property("app:geom"))));
    assert!(selects(&format!("<BBOX>{}{envelope}</BBOX>", property("gml:boundedBy"))));
    assert!(!selects(&format!("<BBOX>{flipped}</BBOX>")));
    let polygon = "<Polygon srsName='EPSG:4326'><exterior><LinearRing><posList>23 59 25 59 25 61 23 61 23 59</posList></LinearRing></exterior></Polygon>";
    let geom = property("geom");
    for (op, left, right, expected) in [
        ("Intersects", &*geom, polygon, true),
        ("Within", &geom, polygon, true),
        ("Contains", polygon, &geom, true),
        ("Contains", &geom, polygon, false),
        ("Disjoint", &geom, polygon, false),
        ("Equals", &geom, "<Point><pos>60 24</pos></Point>", true),
        ("Touches", &geom, polygon, false),
    ] {
        assert_eq!(selects(&format!("<{op}>{left}{right}</{op}>")), expected, "{op}");
    }
    assert_eq!(
        refused(&format!("<Intersects>{}{polygon}</Intersects>", property("crew"))).code,
        Code::InvalidParameterValue
    );
    assert!(refused(&format!("<BBOX>{}</BBOX>", flipped.replace("61 25", "1 1"))).message.contains("lower corner"));
}

#[test]
fn temporal_operators_take_instants_and_both_forms_of_periods() {
    let instant =
        |t: &str| format!("<gml:TimeInstant xmlns:gml='u'><gml:timePosition>{t}</gml:timePosition></gml:TimeInstant>");
    let period = |a: &str, b: &str| {
        format!("<TimePeriod><beginPosition>{a}</beginPosition><endPosition>{b}</endPosition></TimePeriod>")
    };
    let seen = property("seen");
    assert!(selects(&format!("<After>{seen}{}</After>", instant("2026-01-02T03:04:04Z"))));
    assert!(!selects(&format!("<After>{seen}{}</After>", period("2026-01-01", "2026-01-03"))));
    assert!(selects(&format!("<Before>{seen}{}</Before>", period("2026-01-03", "2026-01-04"))));
    assert!(selects(&format!("<During>{seen}{}</During>", period("2026-01-01", "2026-01-03"))));
    assert!(selects(&format!("<TEquals>{seen}{}</TEquals>", instant("2026-01-02T03:04:05.000Z"))));
    let from_then = period("2026-01-02T03:04:05Z", "2026-01-03");
    let until_then = period("2026-01-01", "2026-01-02T03:04:05Z");
    for (op, of_first, of_last) in [
        ("During", false, false),
        ("Begins", true, false),
        ("Ends", false, true),
        ("AnyInteracts", true, true),
        ("TContains", false, false),
        ("Meets", false, false),
        ("OverlappedBy", false, false),
    ] {
        assert_eq!(selects(&format!("<{op}>{seen}{from_then}</{op}>")), of_first, "{op}");
        assert_eq!(selects(&format!("<{op}>{seen}{until_then}</{op}>")), of_last, "{op}");
    }
    assert!(selects(&format!(
        "<During>{seen}<TimePeriod><begin>{}</begin><end>{}</end></TimePeriod></During>",
        instant("2026-01-01T00:00:00Z"),
        instant("2026-02-01T00:00:00Z")
    )));
    assert!(selects(&format!("<Before>{}{}</Before>", property("built"), instant("2001-02-04"))));
    assert_eq!(refused(&format!("<After>{}{}</After>", property("crew"), instant("2026-01-01"))).locator, "crew");
    assert_eq!(refused(&format!("<After>{seen}{}</After>", instant("soon"))).locator, "soon");
}

#[test]
fn ids_come_in_every_dialect() {
    for id in [
        "<fes:ResourceId xmlns:fes='http://www.opengis.net/fes/2.0' rid='ships.a_x3A_1'/>",
        "<ogc:FeatureId xmlns:ogc='http://www.opengis.net/ogc' fid='ships.a_x3A_1'/><ogc:FeatureId xmlns:ogc='u' fid='ships.2'/>",
        "<GmlObjectId xmlns:gml='u' gml:id='a:1'/>",
        "<PropertyIsEqualTo><ValueReference>@gml:id</ValueReference><Literal>ships.a_x3A_1</Literal></PropertyIsEqualTo>",
        "<Or><ResourceId rid='ships.9'/><ResourceId rid='ships.a_x3A_1'/></Or>",
    ] {
        assert!(selects(id), "{id}");
    }
    assert!(!selects("<ResourceId rid='ships.2'/>"));
    let foreign = refused("<ResourceId rid='roads.2'/>");
    assert_eq!((foreign.code, foreign.locator.as_str()), (Code::InvalidParameterValue, "resourceid"));
    assert_eq!(refused("<ResourceId/>").code, Code::OperationParsingFailed);
    assert_eq!(refused("<ResourceId rid='ships.2'/><PropertyIsNull/>").code, Code::OperationParsingFailed);
}

#[test]
fn distances_have_units() {
    // A hundredth of a degree of latitude north of the ship: 1,114 m.
    let at = "<Point><pos>60.01 24</pos></Point>";
    let near = |op: &str, distance: &str| format!("<{op}>{}{at}{distance}</{op}>", property("geom"));
    for (distance, expected) in [
        ("<Distance uom='m'>1115</Distance>", true),
        ("<Distance uom='m'>1113</Distance>", false),
        ("<Distance units='kilometers'>1.2</Distance>", true),
        ("<Distance uom='urn:ogc:def:uom:EPSG::9001'>1113</Distance>", false),
        ("<Distance uom='http://www.opengis.net/def/uom/EPSG/0/9030'>0.6</Distance>", false),
        ("<Distance uom='deg'>0.0101</Distance>", true),
        ("<Distance>0.0099</Distance>", false),
    ] {
        assert_eq!(selects(&near("DWithin", distance)), expected, "{distance}");
        assert_eq!(selects(&near("Beyond", distance)), !expected, "{distance}");
    }
    assert_eq!(refused(&near("DWithin", "<Distance uom='parsec'>1</Distance>")).locator, "uom");
    for bad in ["", "<Distance uom='m'>-1</Distance>", "<Distance uom='m'>far</Distance>"] {
        assert_eq!(refused(&near("Beyond", bad)).code, Code::OperationParsingFailed, "{bad}");
    }
}

#[test]
fn functions_and_arithmetic_are_computed() {
    let function = |name: &str, arguments: &str| format!("<Function name='{name}'>{arguments}</Function>");
    let upper = function("strToUpperCase", &property("name"));
    assert!(selects(&compare("EqualTo", &upper, &literal("AURORA"))));
    assert!(selects(&compare("GreaterThan", &literal("7"), &function("strLength", &property("name")))));
    assert!(selects(&compare("EqualTo", &function("isPoint", &property("geom")), &literal("true"))));
    assert!(selects(&format!(
        "<PropertyIsLike wildCard='*' singleChar='.' escapeChar='!'>{upper}{}</PropertyIsLike>",
        literal("A*A")
    )));
    let sum = format!("<Add>{}<Mul>{}{}</Mul></Add>", property("crew"), property("speed"), literal("2"));
    assert!(selects(&compare("EqualTo", &sum, &literal("32"))));
    assert!(selects(&compare("LessThan", &property("crew"), &sum)));
    // What has no value is neither equal nor unequal.
    let none = format!("<Div>{}{}</Div>", property("crew"), literal("0"));
    assert!(!selects(&compare("NotEqualTo", &none, &literal("1"))));
    assert!(selects(&format!("<PropertyIsNull>{none}</PropertyIsNull>")));

    let of_one = |filter: &str| (refused(filter).code, refused(filter).locator);
    let unknown = function("strReverse", &property("name"));
    assert_eq!(
        of_one(&compare("EqualTo", &unknown, &literal("x"))),
        (Code::InvalidParameterValue, "strReverse".into())
    );
    let of_text = format!("<Add>{}{}</Add>", property("name"), literal("1"));
    assert_eq!(of_one(&compare("EqualTo", &of_text, &literal("1"))), (Code::InvalidParameterValue, "name".into()));
    assert_eq!(of_one(&compare("EqualTo", &function("abs", ""), &literal("1"))).0, Code::OperationParsingFailed);
    assert_eq!(of_one(&compare("EqualTo", "<Sub/>", &literal("1"))).0, Code::OperationParsingFailed);
}

#[test]
fn sort_keys_are_read_from_text_and_xml() {
    let ft = ships();
    let keys = sort_keys_of_text("app:name D, crew ASC,speed,@gml:id", &ft).unwrap();
    assert_eq!(
        keys.iter().map(|k| (k.property, k.descending)).collect::<Vec<_>>(),
        [(0, true), (2, false), (1, false)]
    );
    let document = "<SortBy><SortProperty><ValueReference>crew</ValueReference><SortOrder>DESC</SortOrder></SortProperty></SortBy>";
    let element = xml::parse(document.as_bytes(), Default::default()).unwrap();
    assert_eq!(sort_keys(&element, &ft).unwrap(), [crate::query::SortKey { property: 2, descending: true }]);
    for bad in ["colour", "name UP", "geom"] {
        assert!(sort_keys_of_text(bad, &ft).is_err(), "{bad}");
    }
}
