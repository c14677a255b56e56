//! Filters as clients write them, and what they select.

use super::*;
use crate::query::evaluate::matches;
use crate::query::sample::{aurora, ships};

fn bound(text: &str, crs: &str) -> Result<Filter, CqlError> {
    let ft = ships();
    let is_type = |t: &str| t == "ships" || t == "roads";
    let context = Context { ft: &ft, crs: CrsRef::parse(crs).unwrap(), target: Crs::WGS84, is_type: &is_type };
    let read = if text.starts_with('{') { Expression::from_json(text) } else { Expression::from_text(text) };
    read?.bind(&context)
}

#[track_caller]
fn selects(text: &str) -> bool {
    matches(&bound(text, "EPSG:4326").unwrap_or_else(|e| panic!("{text}: {e}")), &aurora())
}

#[test]
fn what_is_true_is_selected() {
    for text in [
        "name = 'Aurora'",
        "'L''Aurora' = 'L\\'Aurora'",
        "'Aurora' = \"name\"",
        "app:speed > 12 AND speed <= 1.25e1",
        "speed <> -3 and crew != 8",
        "crew = '7'",
        "crew BETWEEN 5 AND 10",
        "crew NOT BETWEEN 8 AND 10",
        "NOT crew = 8",
        "not not afloat",
        "afloat = TRUE",
        "afloat",
        "crew_max IS NULL AND name IS NOT NULL",
        "name LIKE 'A_r%'",
        "name ILIKE 'a_R%' AND name NOT LIKE 'a%'",
        "CASEI(name) LIKE CASEI('aURORA')",
        "CASEI(name) = CASEI('AURORA')",
        "CASEI(name) IN (CASEI('turku'), casei('AURORA')) AND CASEI('Straße') = CASEI('STRASSE')",
        "ACCENTI(name) = ACCENTI('Áürora')",
        "casei(accenti(name)) LIKE casei(accenti('ÁU%'))",
        "name IN ('Turku', 'Aurora')",
        "id = 'a:1' AND id IN ('a:1', 'b') AND id <> 'b' AND id LIKE 'a%'",
        "crew NOT IN (1, 2)",
        "IN ('ships.a_x3A_1', 'ships.2')",
        "crew * 2 + 1 = 15 AND (crew + 1) * 2 = 16 AND crew - 1 - 1 = 5 AND 14 / crew = 2",
        "- crew < -6 AND crew > - 1",
        "crew % 2 = 1 AND crew DIV 2 = 3 AND crew ^ 2 = 49 AND 2 * 2 ^ 3 = 16 AND -2 ^ 2 = 4",
        "8 BETWEEN crew AND speed",
        "strLength(name) = 6 AND strToUpperCase(name) = 'AURORA'",
        "(crew = 1 OR crew = 7) AND INCLUDE",
        "1 < 2 AND 'a' < 'b'",
        "isPoint(geom)",
        // Space.
        "BBOX(geom, 23, 59, 25, 61)",
        "BBOX(geom, 23, 59, 25, 61, 'EPSG:4326')",
        "BBOX(geom, 59, 23, 61, 25, 'urn:ogc:def:crs:EPSG::4326')",
        "INTERSECTS(geom, POLYGON((23 59, 25 59, 25 61, 23 61, 23 59)))",
        "S_INTERSECTS(geom, BBOX(23, 59, 25, 61))",
        "S_WITHIN(geom, ENVELOPE(23, 25, 59, 61))",
        "S_CONTAINS(BBOX(-23, 59, 25, 61), geom)",
        "S_INTERSECTS(geom, BBOX(23, 59, 0, 25, 61, 100))",
        "S_INTERSECTS(BBOX(20, -90, -150, 90), geom)",
        "S_WITHIN(geom, POLYGON((23 59 1, 25 59 1, 25 61 1, 23 61 1, 23 59 1)))",
        "S_INTERSECTS(geom, geom) AND NOT S_TOUCHES(geom, geom)",
        "S_CROSSES(LINESTRING(0 0, 2 2), LINESTRING(0 2, 2 0))",
        "EQUALS(geom, POINT(24 60)) AND EQUALS(POINT Z (24 60 3), geom)",
        "DISJOINT(geom, MULTIPOINT(1 2, 3 4)) AND DISJOINT(geom, MULTIPOINT((1 2), (3 4)))",
        "DISJOINT(geom, GEOMETRYCOLLECTION(POINT(1 2), LINESTRING(1 2, 3 4), MULTIPOLYGON(((1 1, 2 1, 2 2, 1 1)))))",
        "DISJOINT(geom, POINT EMPTY)",
        "DWITHIN(geom, POINT(24 60.01), 1115, meters)",
        "DWITHIN(geom, POINT(24 60.01), 1, statute miles)",
        "BEYOND(geom, POINT(24 60.01), 1.113, 'km')",
        // Time.
        "seen = '2026-01-02T05:04:05+02:00' AND seen > TIMESTAMP('2026-01-02T03:04:04Z')",
        "seen AFTER 2026-01-01T00:00:00Z AND seen BEFORE 2026-01-03",
        "seen DURING 2026-01-01T00:00:00Z/2026-01-03T00:00:00-02:00",
        "seen BEFORE OR DURING 2026-01-01T00:00:00Z/2026-01-03T00:00:00Z",
        "seen TEQUALS 2026-01-02T03:04:05Z",
        "T_AFTER(seen, DATE('2026-01-01')) AND T_INTERSECTS(seen, INTERVAL('2026-01-01', '..'))",
        "T_DURING(INTERVAL(built, seen), INTERVAL('2001-01-01', '2026-02-01'))",
        "T_OVERLAPS(INTERVAL(built, seen), INTERVAL('2010-01-01', '..'))",
        "T_OVERLAPPEDBY(INTERVAL('2010-01-01', '..'), INTERVAL(built, seen))",
        "T_METBY(INTERVAL(built, seen), INTERVAL('1990-01-01', built))",
        "T_CONTAINS(INTERVAL('..', '..'), INTERVAL(built, seen))",
        "T_STARTS(INTERVAL(built, seen), INTERVAL('2001-02-03', '2027-01-01'))",
        "T_FINISHEDBY(INTERVAL(built, seen), INTERVAL('2026-01-01', '2026-01-02T03:04:05Z'))",
        "T_AFTER(DATE('2026-02-01'), seen) AND T_EQUALS(built, DATE('2001-02-03'))",
        "T_DURING(seen, INTERVAL('..', '2026-01-03')) AND NOT T_BEFORE(seen, INTERVAL('..', '2026-01-03'))",
    ] {
        assert!(selects(text), "{text}");
    }
}

#[test]
fn what_is_false_or_unknown_is_not() {
    for text in [
        "name = 'aurora'",
        "crew_max = 1 OR NOT crew_max = 1 OR crew_max IN (1) OR crew_max NOT IN (1)",
        "crew / 0 = 1 OR NOT crew / 0 = 1",
        "crew IN (1, 2)",
        "id = 'b' OR id IN ('b', 'c')",
        "name = 'AURORA' OR name LIKE CASEI('A%')",
        "crew_max % 2 = 0 OR NOT crew_max % 2 = 0 OR crew % 0 = 1 OR NOT crew DIV 0 = 1",
        "T_MEETS(seen, INTERVAL('2026-01-02T03:04:05Z', '2027-01-01'))",
        "T_DURING(INTERVAL(built, seen), INTERVAL('2001-02-03', '2026-02-01'))",
        "T_CONTAINS(INTERVAL(built, seen), INTERVAL('2010-01-01', '..'))",
        "S_INTERSECTS(geom, BBOX(25, -90, -150, 90))",
        "S_CONTAINS(POINT(1 2), POINT(3 4))",
        "IN ('ships.2')",
        "EXCLUDE",
        "seen DURING 2026-01-02T03:04:05Z/2026-01-03T00:00:00Z",
        "DWITHIN(geom, POINT(24 60.01), 1113, meters)",
        "TOUCHES(geom, BBOX(23, 59, 25, 61))",
        "crew = 7 AND crew = 8 OR crew = 9",
    ] {
        assert!(!selects(text), "{text}");
    }
}

#[test]
fn coordinates_follow_the_spelling_of_their_crs() {
    let at = |text: &str, crs: &str| matches(&bound(text, crs).unwrap(), &aurora());
    assert!(at("S_EQUALS(geom, POINT(60 24))", "http://www.opengis.net/def/crs/EPSG/0/4326"));
    assert!(at("S_EQUALS(geom, POINT(24 60))", "http://www.opengis.net/def/crs/OGC/1.3/CRS84"));
    assert!(at("S_WITHIN(geom, BBOX(2600000, 8300000, 2700000, 8500000))", "EPSG:3857"));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, at, word) in [
        ("", 1, "the end"),
        ("speed >", 8, "the end"),
        ("speed > 1 2", 11, "'2'"),
        ("speed > 'fast'", 9, "fast"),
        ("näme = 1", 1, "näme"),
        ("speed = 1 AND colour = 2", 15, "colour"),
        ("speed = # 1", 9, "'#'"),
        ("name = 'x", 8, "not closed"),
        ("name LIKE 5", 11, "pattern"),
        ("speed", 1, "predicate"),
        ("name = speed", 8, "number"),
        ("strReverse(name) = 'x'", 1, "strreverse"),
        ("strLength() = 1", 1, "takes 1"),
        ("INTERSECTS(name, POINT(1 2))", 12, "geometry"),
        ("INTERSECTS(geom, 5)", 18, "well-known text"),
        ("INTERSECTS(geom, POINT(1))", 25, "a number"),
        ("INTERSECTS(geom, LINESTRING(1 2))", 18, "line"),
        ("INTERSECTS(geom, BBOX(5, 1, 4, 2)", 34, "')'"),
        ("BBOX(geom, 5, 1, 4, 2)", 1, "corner"),
        ("S_INTERSECTS(geom, BBOX(1, 2, 3))", 24, "four or six"),
        ("S_INTERSECTS(geom, BBOX(4, 2, 5, 1))", 20, "corner"),
        ("S_INTERSECTS(geom, POINT(24 91))", 20, "pole"),
        ("S_INTERSECTS(geom)", 1, "takes 2"),
        ("A_CONTAINS(name, ('a', 'b'))", 1, "arrays"),
        ("speed = ('a', 'b')", 9, "single value"),
        ("T_AFTER(name, '2020-01-01')", 9, "time"),
        ("T_SOMETIMES(seen, seen)", 1, "sometimes"),
        (r#"{"op":"=","args":[{"property":"speed"},"fast"]}"#, 40, "fast"),
        (r#"{"op":"=","args":[1,null]}"#, 21, "isNull"),
        (r#"{"op":"not","args":[]}"#, 1, "takes 1"),
        (r#"{"op":"and"}"#, 1, "args"),
        (r#"{"op":"in","args":[{"property":"crew"},1]}"#, 19, "array"),
        (r#"{"what":1}"#, 1, "property"),
        (r#"{"op":"s_within","args":[{"property":"geom"},{"type":"Point","coordinates":[1]}]}"#, 46, "two numbers"),
        ("DWITHIN(geom, POINT(1 2), 5, parsec)", 30, "parsec"),
        ("IN ('roads.1')", 5, "roads.1"),
        ("crew AFTER 2026-01-01", 1, "time"),
        ("seen AFTER 2026-13-01", 12, "2026-13-01"),
        ("name IS 5", 9, "NULL"),
        ("(crew = 1", 10, "')'"),
    ] {
        let e = bound(text, "EPSG:4326").expect_err(text);
        assert!(e.at == at && e.what.contains(word), "{text}: {e}");
    }
}

#[test]
fn json_says_the_same_as_text() {
    for (text, json) in [
        ("crew % 2 = 1.0", r#"{"op":"=","args":[{"op":"%","args":[{"property":"crew"},2]},1]}"#),
        (
            "name NOT LIKE CASEI('a%') AND afloat",
            r#"{"op":"and","args":[{"op":"not","args":[{"op":"like","args":[
                {"property":"name"},{"op":"casei","args":["a%"]}]}]},{"property":"afloat"}]}"#,
        ),
        ("crew IN (7, 8)", r#"{"op":"in","args":[{"property":"crew"},[7,8]]}"#),
        ("crew_max IS NULL", r#"{"op":"isNull","args":[{"property":"crew_max"}]}"#),
        (
            "T_finishedBy(INTERVAL(built, '..'), TIMESTAMP('2026-01-02T03:04:05Z'))",
            r#"{"op":"t_finishedBy","args":[{"interval":[{"property":"built"},".."]},{"timestamp":"2026-01-02T03:04:05Z"}]}"#,
        ),
        (
            "S_INTERSECTS(geom, BBOX(1, 2, 3, 4)) OR S_WITHIN(POINT Z (1 2 3), geom)",
            r#"{"op":"or","args":[{"op":"s_intersects","args":[{"property":"geom"},{"bbox":[1,2,3,4]}]},
                {"op":"s_within","args":[{"type":"Point","coordinates":[1,2,3]},{"property":"geom"}]}]}"#,
        ),
        ("A_EQUALS(name, ('ä', TRUE))", r#"{"op":"a_equals","args":[{"property":"name"},["\u00e4",true]]}"#),
    ] {
        assert_eq!(Expression::from_text(text).unwrap(), Expression::from_json(json).unwrap(), "{text}");
    }
    assert!(selects(r#"{"op":">","args":[{"op":"+","args":[{"property":"speed"},1e0]},13]}"#));
    for bad in ["", "{", "[1,", r#"{"op":"and","args":[true,]}"#] {
        assert!(Expression::from_json(bad).unwrap_err().what.contains("not JSON"), "{bad}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |n: usize| format!("{}true{}", r#"{"op":"not","args":["#.repeat(n), "]}".repeat(n));
    assert!(selects(&nested(40)));
    assert!(bound(&nested(20_000), "EPSG:4326").is_err());
    assert!(Expression::from_json(&"[".repeat(100_000)).is_err());
    let nested = |n: usize| format!("{}crew = 7{}", "(".repeat(n), ")".repeat(n));
    assert!(selects(&nested(40)));
    assert!(bound(&nested(100_000), "EPSG:4326").is_err());
    assert!(bound(&format!("crew = {}1", "1 + ".repeat(100_000)), "EPSG:4326").is_err());
    assert!(bound(&format!("{}crew = 7", "NOT ".repeat(100_000)), "EPSG:4326").is_ok());
    let collections =
        format!("INTERSECTS(geom, {}POINT(1 2){})", "GEOMETRYCOLLECTION(".repeat(10_000), ")".repeat(10_000));
    assert!(bound(&collections, "EPSG:4326").is_err());
}
