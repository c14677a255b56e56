//! Filters as clients write them, and what they select.

use super::*;
use crate::query::evaluate::matches;
use crate::query::sample::{aurora, ships};

fn bound(text: &str, crs: &str) -> Result<Filter, CqlError> {
    let ft = ships();
    let is_type = |t: &str| t == "ships" || t == "roads";
    filter(text, &Context { ft: &ft, crs: CrsRef::parse(crs).unwrap(), target: Crs::WGS84, is_type: &is_type })
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
        "name IN ('Turku', 'Aurora')",
        "crew NOT IN (1, 2)",
        "IN ('ships.a_x3A_1', 'ships.2')",
        "crew * 2 + 1 = 15 AND (crew + 1) * 2 = 16 AND crew - 1 - 1 = 5 AND 14 / crew = 2",
        "- crew < -6 AND crew > - 1",
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
fn depth_is_bounded() {
    let nested = |n: usize| format!("{}crew = 7{}", "(".repeat(n), ")".repeat(n));
    assert!(selects(&nested(40)));
    assert!(bound(&nested(100_000), "EPSG:4326").is_err());
    assert!(bound(&format!("crew = {}1", "1 + ".repeat(100_000)), "EPSG:4326").is_err());
    assert!(bound(&format!("{}crew = 7", "NOT ".repeat(100_000)), "EPSG:4326").is_ok());
    let collections =
        format!("INTERSECTS(geom, {}POINT(1 2){})", "GEOMETRYCOLLECTION(".repeat(10_000), ")".repeat(10_000));
    assert!(bound(&collections, "EPSG:4326").is_err());
}
