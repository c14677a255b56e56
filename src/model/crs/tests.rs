use super::*;

fn crs(epsg: u32) -> Crs {
    Crs::from_epsg(epsg).unwrap_or_else(|| panic!("EPSG:{epsg} is not known"))
}

/// A line of points.tsv.
struct Sample {
    epsg: u32,
    lon: f64,
    lat: f64,
    x: f64,
    y: f64,
    /// Where PROJ's way back ends: a datum shift drops the height that it makes.
    back: (f64, f64),
}

fn samples(text: &str) -> Vec<Sample> {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let epsg = fields.next()?.parse().ok()?;
        let mut number = || fields.next()?.parse().ok();
        Some(Sample { epsg, lon: number()?, lat: number()?, x: number()?, y: number()?, back: (number()?, number()?) })
    };
    text.lines().filter(|l| !l.starts_with('#')).map(|l| line(l).unwrap_or_else(|| panic!("{l}"))).collect()
}

/// A degree of latitude is 111 km.
const MILLIMETRE_IN_DEGREES: f64 = 9e-9;
/// Nearly all agree to a thousandth of a millimetre.
const EXACT_MM: f64 = 1.0;

/// How far two coordinate pairs are apart, in millimetres.
fn millimetres(a: (f64, f64), b: (f64, f64), unit: f64) -> f64 {
    (a.0 - b.0).abs().max((a.1 - b.1).abs()) / unit
}

fn turned(lon: f64) -> f64 {
    (lon + 180.0).rem_euclid(360.0) - 180.0
}

#[test]
fn coordinates_agree_with_proj_to_a_millimetre() {
    let samples = samples(include_str!("points.tsv"));
    let mut systems: Vec<u32> = samples.iter().map(|s| s.epsg).collect();
    systems.dedup();
    assert!(samples.len() >= 180 && systems.len() >= 60, "{} points of {} CRS", samples.len(), systems.len());
    for s in &samples {
        let unit = if crs(s.epsg).is_geographic() { MILLIMETRE_IN_DEGREES } else { 0.001 };
        let Some(there) = Transform::between(Crs::WGS84, crs(s.epsg)) else { continue };
        let off = millimetres(there.point(s.lon, s.lat).unwrap(), (s.x, s.y), unit);
        assert!(off <= EXACT_MM, "EPSG:{} at {} {}: {off} mm", s.epsg, s.lon, s.lat);
        let back = Transform::between(crs(s.epsg), Crs::WGS84).unwrap();
        let (lon, lat) = back.point(s.x, s.y).unwrap();
        // At a pole every longitude is right.
        let off = millimetres(
            (turned(lon - s.back.0) * s.lat.to_radians().cos(), lat),
            (0.0, s.back.1),
            MILLIMETRE_IN_DEGREES,
        );
        assert!(off <= EXACT_MM, "EPSG:{} back from {} {}: {off} mm", s.epsg, s.x, s.y);
    }
}

/// A step of generate.py: writes how many millimetres the points in a directory are off, with candidates for the table.
#[cfg(crs_candidates)]
#[test]
fn candidates() {
    use proj4rs::{Proj, adaptors::transform_xy};

    let Ok(dir) = std::env::var("CRS_CANDIDATES") else { return };
    let read = |name: &str| std::fs::read_to_string(format!("{dir}/{name}")).unwrap();
    let table = table::parse(read("table.tsv").leak());
    let wgs84 = Proj::from_proj_string("+proj=longlat +datum=WGS84").unwrap();
    let mut lines = String::new();
    for s in samples(&read("points.tsv")) {
        let definition = &table[table.binary_search_by_key(&s.epsg, |d| d.epsg).unwrap()];
        let deviation = definition.projection().map_or(f64::INFINITY, |projection| {
            let latlong = projection.is_latlong();
            let unit = if latlong { MILLIMETRE_IN_DEGREES } else { 0.001 / projection.to_meter() };
            let (out, input) =
                (|v: f64| if latlong { v.to_degrees() } else { v }, |v: f64| if latlong { v.to_radians() } else { v });
            let there = transform_xy(&wgs84, projection, s.lon.to_radians(), s.lat.to_radians())
                .map_or(f64::INFINITY, |(x, y)| millimetres((out(x), out(y)), (s.x, s.y), unit));
            let back = transform_xy(projection, &wgs84, input(s.x), input(s.y)).map_or(f64::INFINITY, |(lon, lat)| {
                let east = turned(lon.to_degrees() - s.back.0) * s.lat.to_radians().cos();
                millimetres((east, lat.to_degrees()), (0.0, s.back.1), MILLIMETRE_IN_DEGREES)
            });
            if there.is_nan() || back.is_nan() { f64::INFINITY } else { there.max(back) }
        });
        lines += &format!("{}\t{deviation}\n", s.epsg);
    }
    std::fs::write(format!("{dir}/deviations.tsv"), lines).unwrap();
}

#[test]
fn every_line_of_the_table_is_a_projection() {
    let text = include_str!("table.tsv");
    assert_eq!(table::all().len(), text.lines().filter(|l| !l.starts_with('#')).count());
    assert!(table::all().is_sorted_by(|a, b| a.epsg < b.epsg));
    for d in table::all() {
        assert!(d.projection().is_some(), "EPSG:{}", d.epsg);
        let area = d.area();
        assert!(area.min_y < area.max_y && !d.name.is_empty(), "EPSG:{}", d.epsg);
    }
}

#[test]
fn the_axis_order_is_the_registrys() {
    for (epsg, northing_first, geographic) in [
        (4326, true, true),
        (4258, true, true),
        (3857, false, false),
        (25832, false, false),
        (32633, false, false),
        (3035, true, false),
        (2193, true, false),
        (31468, true, false),
        (27700, false, false),
        (3413, false, false),
        (32661, true, false),
    ] {
        assert_eq!(
            (crs(epsg).northing_first(), crs(epsg).is_geographic()),
            (northing_first, geographic),
            "EPSG:{epsg}"
        );
    }
    assert_eq!(crs(25832).name(), "ETRS89 / UTM zone 32N");
    for unknown in [0, 1, 4979, 5773, 99_999] {
        assert_eq!(Crs::from_epsg(unknown), None, "EPSG:{unknown}");
    }
}

#[test]
fn every_spelling_has_its_axis_order() {
    let short = ["EPSG:{}", "epsg:{}", " EPSG:{} ", "http://www.opengis.net/gml/srs/epsg.xml#{}"];
    let registry = [
        "urn:ogc:def:crs:EPSG::{}",
        "urn:ogc:def:crs:EPSG:9.8.1:{}",
        "urn:x-ogc:def:crs:EPSG:{}",
        "urn:x-ogc:def:crs:EPSG:6.9:{}",
        "URN:OGC:DEF:CRS:EPSG::{}",
        "http://www.opengis.net/def/crs/EPSG/0/{}",
        "https://www.opengis.net/def/crs/EPSG/9.8.1/{}",
        "http://opengis.net/def/crs/EPSG/0/{}",
    ];
    for (epsg, northing_first) in
        [(4326, true), (2193, true), (31468, true), (3035, true), (3857, false), (25832, false)]
    {
        let spelled = |pattern: &str| {
            let text = pattern.replace("{}", &epsg.to_string());
            let r = CrsRef::parse(&text).unwrap();
            assert_eq!((r.crs, &*r.spelling), (crs(epsg), text.trim()));
            r
        };
        for pattern in short {
            assert!(!spelled(pattern).swap, "{pattern} {epsg}");
        }
        for pattern in registry {
            assert_eq!(spelled(pattern).swap, northing_first, "{pattern} {epsg}");
            assert!(!spelled(pattern).in_xy_order().swap);
        }
        for made in [CrsRef::short(crs(epsg)), CrsRef::urn(crs(epsg)), CrsRef::uri(crs(epsg))] {
            assert_eq!(CrsRef::parse(&made.spelling), Ok(made));
        }
    }
    for text in [
        "CRS:84",
        "OGC:CRS84",
        "urn:ogc:def:crs:OGC:1.3:CRS84",
        "urn:ogc:def:crs:OGC::CRS84",
        "urn:ogc:def:crs:OGC:2:84",
        "http://www.opengis.net/def/crs/OGC/1.3/CRS84",
        "http://www.opengis.net/def/crs/OGC/0/CRS84h",
    ] {
        assert_eq!(CrsRef::parse(text), Ok(CrsRef { crs: Crs::WGS84, spelling: text.into(), swap: false }));
    }
    assert_eq!(CrsRef::parse("EPSG:900913").unwrap().crs, Crs::WEB_MERCATOR);
    for text in [
        "",
        "4326",
        "EPSG:",
        "EPSG:0",
        "EPSG:-1",
        "EPSG:4326x",
        "urn:ogc:def:crs:EPSG",
        "http://www.opengis.net/def/crs/EPSG/0",
        "WGS84",
    ] {
        assert_eq!(CrsRef::parse(text), Err(UnknownCrs(text.into())));
    }
}

#[test]
fn what_lies_outside_is_said() {
    let utm = Transform::between(Crs::WGS84, crs(25832)).unwrap();
    assert!(utm.point(9.0, 95.0).is_err());
    assert!(utm.point(f64::NAN, 50.0).is_err());
    assert!(Transform::between(Crs::WGS84, Crs::WEB_MERCATOR).unwrap().point(0.0, 90.0).is_err());
    assert!(Transform::between(Crs::WGS84, Crs::WGS84).is_none());
}

#[test]
fn two_national_systems_meet_in_wgs84() {
    let there = Transform::between(crs(31467), crs(25832)).unwrap();
    let by_way =
        (Transform::between(crs(31467), Crs::WGS84).unwrap(), Transform::between(Crs::WGS84, crs(25832)).unwrap());
    let (lon, lat) = by_way.0.point(3_500_000.0, 5_600_000.0).unwrap();
    let off = millimetres(there.point(3_500_000.0, 5_600_000.0).unwrap(), by_way.1.point(lon, lat).unwrap(), 0.001);
    assert!(off < 1.0, "{off} mm");
}

#[test]
fn a_transformed_box_holds_what_was_inside() {
    let rect = |min_x, min_y, max_x, max_y| Rect { min_x, min_y, max_x, max_y };
    for (epsg, r) in [
        (25832, rect(6.0, 47.0, 12.0, 55.0)),
        (3035, rect(-10.0, 35.0, 30.0, 70.0)),
        (3035, rect(-180.0, -90.0, 180.0, 90.0)),
        (2193, rect(166.0, -47.0, 179.0, -34.0)),
        (3413, rect(-180.0, 60.0, 180.0, 90.0)),
        (32601, rect(-180.0, 10.0, -174.0, 80.0)),
        (3857, rect(-180.0, -90.0, 180.0, 90.0)),
    ] {
        let there = Transform::between(Crs::WGS84, crs(epsg)).unwrap();
        let whole = there.rect(r).unwrap();
        for i in 1..40 {
            for j in 1..40 {
                let (f, g) = (f64::from(i) / 40.0, f64::from(j) / 40.0);
                let (lon, lat) = (r.min_x + f * (r.max_x - r.min_x), r.min_y + g * (r.max_y - r.min_y));
                let Ok((x, y)) = there.point(lon, lat) else { continue };
                // An edge in 20 steps may bend out between two of them by a little.
                let slack = 0.001 * (whole.max_x / 2.0 - whole.min_x / 2.0).min(1e9);
                let inside = x >= whole.min_x - slack
                    && x <= whole.max_x + slack
                    && y >= whole.min_y - slack
                    && y <= whole.max_y + slack;
                assert!(inside, "EPSG:{epsg} {lon} {lat} -> {x} {y} not in {whole:?}");
            }
        }
    }
    let back = Transform::between(crs(3413), Crs::WGS84).unwrap();
    let around_the_pole = back.rect(rect(-100_000.0, -100_000.0, 200_000.0, 200_000.0)).unwrap();
    assert_eq!((around_the_pole.max_y, around_the_pole.min_x, around_the_pole.max_x), (90.0, -180.0, 180.0));
    assert!(around_the_pole.min_y > 85.0);
}
