//! What a GeoPackage has to be beyond the suite: a file that other programs open.

use std::path::{Path, PathBuf};
use std::process::Command;

use alluvium::model::Expiry;
use rusqlite::Connection;

use super::*;

fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alluvium.gpkg");
    (directory, path)
}

/// The output of a program; `None`, having said so, when it is not installed.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments:?}: {errors}");
            Some(String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
        }
        Err(_) => {
            eprintln!("SKIPPED: {program} is not installed");
            None
        }
    }
}

#[tokio::test]
async fn other_programs_read_the_file_while_it_is_open() {
    let (_directory, path) = file();
    let delegate = GeoPackage::open(&path).unwrap();
    let (ships, t) = (ships(), everything(GeometryKind::Geometry, Dimension::XYZ));
    delegate.create(&ships).await.unwrap();
    delegate.create(&t).await.unwrap();
    let mut snapshot = delegate.snapshot(&ships).await.unwrap();
    persist(
        &delegate,
        &ships,
        (0..300).map(|i| put(ship(&format!("s{i}"), f64::from(i) / 10.0, "é & <"), 1)).collect(),
    )
    .await;
    let mut g = Generator::new(7);
    let features = (0..100)
        .map(|i| put(Arc::new(g.feature(&everything(GeometryKind::Point, Dimension::XY), &format!("e{i}"))), 1));
    persist(&delegate, &t, features.collect()).await;
    persist(&delegate, &ships, vec![tombstone("s0", 2)]).await;
    assert_eq!(scan(&mut snapshot, Scan::default()).await.len(), 0);

    let file = path.to_str().unwrap();
    let Some(layers) = output_of("ogrinfo", &["-ro", "-q", file]) else { return };
    let layers: Vec<&str> = layers.lines().filter(|l| l.contains(": ")).collect();
    assert_eq!(layers.len(), 2, "only the feature tables are layers: {layers:?}");
    let summary = output_of("ogrinfo", &["-ro", "-so", file, "ships"]).unwrap();
    for part in [
        "Geometry: Point",
        "Feature Count: 299",
        "Extent: (0.000000, 50.000000) - (29.900000, 50.000000)",
        "WGS 84",
        "id: String (0.0) UNIQUE NOT NULL",
        "Speed: Real (0.0)",
    ] {
        assert!(summary.contains(part), "no '{part}' in {summary}");
    }
    let columns = output_of("ogrinfo", &["-ro", "-so", file, "everything"]).unwrap();
    for part in [
        "3D Unknown",
        "p_1: Integer (0.0)",
        "p_2: Integer64",
        "p_4: Integer(Boolean)",
        "p_5: Date",
        "p_6: DateTime",
        "p_9: Binary",
    ] {
        assert!(columns.contains(part), "no '{part}' in {columns}");
    }
    let within = output_of("ogrinfo", &["-ro", "-q", "-spat", "1", "49", "2", "51", file, "ships"]).unwrap();
    assert_eq!(within.matches("OGRFeature").count(), 11);

    let copy = path.with_extension("geojson");
    output_of("ogr2ogr", &["-f", "GeoJSON", copy.to_str().unwrap(), file, "everything"]).unwrap();
    let copy: serde_json::Value = serde_json::from_slice(&std::fs::read(copy).unwrap()).unwrap();
    let copied = copy["features"].as_array().unwrap();
    assert_eq!(copied.len(), 100);
    // Every value, as another program understands it.
    let rows = scan(&mut delegate.snapshot(&t).await.unwrap(), Scan::default()).await;
    for feature in rows.iter().map(|r| &r.feature) {
        let other = &copied.iter().find(|c| c["properties"]["id"] == *feature.id).unwrap()["properties"];
        assert_eq!(other["p_2"].as_i64().map_or(Value::Null, Value::Int), *feature.value(2));
        assert_eq!(other["p_0"].as_str().map_or(Value::Null, |s| Value::String(s.into())), *feature.value(0));
        // It rounds to milliseconds, at times to a 60th second.
        if !matches!(feature.value(6), Value::DateTime(micros) if micros % 1000 != 0) {
            let instant = other["p_6"].as_str().map_or(Value::Null, |s| PropertyType::DateTime.parse(s).unwrap());
            assert_eq!(instant, *feature.value(6));
        }
    }
}

#[tokio::test]
async fn the_file_is_a_valid_geopackage() {
    let (_directory, path) = file();
    let delegate = GeoPackage::open(&path).unwrap();
    let ships = ships();
    delegate.create(&ships).await.unwrap();
    persist(&delegate, &ships, vec![put(ship("a", 1.0, "A"), 1)]).await;
    let header = std::fs::read(&path).unwrap();
    assert_eq!(&header[68..72], b"GPKG");
    let c = Connection::open(&path).unwrap();
    let one = |sql: &str| c.query_row(sql, [], |r| r.get::<_, rusqlite::types::Value>(0)).unwrap();
    let number = |sql: &str| match one(sql) {
        rusqlite::types::Value::Integer(n) => n,
        other => panic!("{sql}: {other:?}"),
    };
    assert_eq!(number("PRAGMA user_version"), 10_300);
    assert_eq!(one("PRAGMA integrity_check"), rusqlite::types::Value::Text("ok".into()));
    assert_eq!(one("PRAGMA journal_mode"), rusqlite::types::Value::Text("wal".into()));
    assert_eq!(number("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    assert_eq!(number("SELECT count(*) FROM gpkg_spatial_ref_sys WHERE srs_id IN (-1, 0, 4326, 3857)"), 4);
    assert_eq!(number("SELECT count(*) FROM rtree_ships_geom"), 1);
    // Every table that is none of the standard's is a layer or registered as an extension.
    let strays = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'
        AND name NOT LIKE 'gpkg\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite%' AND name NOT LIKE 'rtree%'
        AND name NOT IN (SELECT table_name FROM gpkg_contents) AND name NOT IN (SELECT table_name FROM gpkg_extensions)";
    assert_eq!(number(strays), 0);
    assert_eq!(number("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'ships'"), 7);

    delegate.remove("ships", true).await.unwrap();
    assert_eq!(number("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%ships%'"), 0);
    assert_eq!(number("SELECT count(*) FROM gpkg_contents"), 0);
    // A table of somebody else is left alone.
    c.execute_batch("CREATE TABLE ships (fid INTEGER PRIMARY KEY, id TEXT)").unwrap();
    assert!(matches!(delegate.create(&ships).await, Err(DelegateError::Exists(_))));
    delegate.remove("ships", true).await.unwrap();
    assert_eq!(number("SELECT count(*) FROM ships"), 0);
    let named = |name: &str| FeatureType { name: name.into(), ..(*ships).clone() };
    assert!(matches!(delegate.create(&named("gpkg_contents")).await, Err(DelegateError::Exists(_))));
    assert!(matches!(delegate.create(&named("sqlite_x")).await, Err(DelegateError::Exists(_))));
}

#[tokio::test]
async fn a_changed_table_is_as_if_it_had_been_made_so() {
    let (_directory, path) = file();
    let declaration = |kind: &str, nullable: bool| {
        let n = json!({"name": "n", "type": kind, "nullable": nullable, "index": true});
        let m = json!({"name": "m", "type": "int32", "nullable": nullable});
        FeatureType { incarnation: "i1".into(), ..(*feature_type(json!({"name": "t", "properties": [m, n]}))).clone() }
    };
    let first = declaration("int32", false);
    let mut second = FeatureType { schema_version: 1, ..declaration("number", true) };
    second.properties.push(serde_json::from_value(json!({"name": "new", "type": "date"})).unwrap());
    {
        let delegate = GeoPackage::open(&path).unwrap();
        delegate.create(&first).await.unwrap();
        let row = |id: &str, n| {
            let properties = vec![Value::Int(1), Value::Int(n)];
            put(Arc::new(Feature { id: id.into(), geometry: None, properties }), 1)
        };
        persist(&delegate, &first, (0..500).map(|n| row(&format!("r{n:03}"), n)).collect()).await;
        assert!(delegate.alter(&first, &second).await.unwrap());
    }
    let delegate = GeoPackage::open(&path).unwrap();
    let r007 = load(&delegate, &second, "r007").await;
    assert!(matches!(&r007, Some(Base::Row(row)) if row.feature.value(1) == &Value::Number(7.0)), "{r007:?}");
    let file = Connection::open(&path).unwrap();
    let text = |sql: &str| -> String { file.query_row(sql, [], |r| r.get(0)).unwrap() };
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    let columns = "SELECT group_concat(name || ' ' || type || ' ' || \"notnull\", ', ') FROM pragma_table_info('t')";
    let expected = "fid INTEGER 1, id TEXT 1, m MEDIUMINT 0, n DOUBLE 0, alluvium_version INTEGER 1, new DATE 0";
    assert_eq!(text(columns), expected);
    assert_eq!(text("SELECT typeof(n) FROM t WHERE n = 7"), "real");
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let (_directory, path) = file();
    let ships = Arc::new(FeatureType { expiry: Expiry::Never, ..(*ships()).clone() });
    let revision = {
        let delegate = GeoPackage::open(&path).unwrap();
        delegate.create(&ships).await.unwrap();
        persist(&delegate, &ships, vec![put(ship("a", 1.0, "A"), 5), tombstone("b", 6)]).await;
        delegate.catalogue().await.unwrap().0
    };
    let delegate = GeoPackage::open(&path).unwrap();
    assert_eq!(delegate.catalogue().await.unwrap(), (revision, vec![(*ships).clone()]));
    let bases = delegate.load(&ships, &["a".into(), "b".into()]).await.unwrap();
    let a = Base::Row(Row::new(ship("a", 1.0, "A"), Some(5)));
    assert_eq!((bases.bases, bases.watermarks[0]), (vec![Some(a), Some(Base::Deleted(Some(6), None))], mark(1)));
}

#[tokio::test]
async fn a_refused_feature_is_kept_whole_until_it_is_mended() {
    let (_directory, path) = file();
    let delegate = GeoPackage::open(&path).unwrap();
    let ships = ships();
    delegate.create(&ships).await.unwrap();
    let c = Connection::open(&path).unwrap();
    c.execute_batch(
        "CREATE TRIGGER slow BEFORE INSERT ON ships WHEN new.Speed > 50 BEGIN SELECT RAISE(ABORT, 'too fast'); END",
    )
    .unwrap();
    let batch = PersistBatch {
        partition: 0,
        expected: Watermark::default(),
        next: mark(1),
        entries: vec![put(ship("a", 51.0, "A"), 1), put(ship("b", 49.0, "B"), 2)],
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
    let outcome = delegate.persist(&ships, batch).await.unwrap();
    assert_eq!(outcome, Persisting::Committed { refused: vec![("a".into(), "too fast".into())] });
    let kept = |c: &Connection| {
        c.prepare("SELECT id, properties, geometry FROM gpkgext_alluvium_refused")
            .unwrap()
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect::<Vec<(String, String, Vec<u8>)>>()
    };
    let wkb = ship("a", 51.0, "A").geometry.as_ref().unwrap().wkb().to_vec();
    assert_eq!(kept(&c), [("a".into(), "{\"Speed\":\"51\",\"name\":\"A\"}".into(), wkb)]);
    persist(&delegate, &ships, vec![put(ship("a", 50.0, "A"), 3)]).await;
    assert_eq!(kept(&c), []);
}

#[test]
fn what_is_no_geopackage_is_a_clear_error() {
    let refusal = |write: &dyn Fn(&Path)| {
        let (_directory, path) = file();
        write(&path);
        let before = std::fs::read(&path).unwrap();
        let error = GeoPackage::open(&path).err().expect("not a GeoPackage of ours");
        assert_eq!(std::fs::read(&path).unwrap(), before, "a file that is not ours is not touched");
        assert!(matches!(error, DelegateError::Mismatch(_)) && error.to_string().contains("alluvium.gpkg"), "{error}");
        error.to_string()
    };
    let text = refusal(&|path| std::fs::write(path, "name,lon,lat\n".repeat(500)).unwrap());
    assert!(text.contains("not a GeoPackage"), "{text}");
    let text = refusal(&|path| Connection::open(path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap());
    assert!(text.contains("not a GeoPackage"), "{text}");

    let (_directory, path) = file();
    drop(GeoPackage::open(&path).unwrap());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(GeoPackage::open(&path), Err(DelegateError::Mismatch(_))), "half a file");

    std::fs::write(&path, &whole).unwrap();
    Connection::open(&path).unwrap().execute_batch("UPDATE gpkgext_alluvium_state SET format = 99").unwrap();
    let newer = GeoPackage::open(&path).err().unwrap().to_string();
    assert!(newer.contains("format 99"), "{newer}");
    assert!(GeoPackage::open(Path::new("/nowhere/at/all.gpkg")).is_err());
}

#[tokio::test]
async fn a_table_that_lost_a_column_is_a_clear_error() {
    let (_directory, path) = file();
    let delegate = GeoPackage::open(&path).unwrap();
    delegate.create(&ships()).await.unwrap();
    drop(delegate);
    Connection::open(&path).unwrap().execute_batch("ALTER TABLE ships DROP COLUMN Speed").unwrap();
    let error = GeoPackage::open(&path).err().unwrap().to_string();
    assert!(error.contains("table 'ships'") && error.contains("'Speed'"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_nobody_wants_ends_nothing_else() {
    let (_directory, path) = file();
    let delegate = GeoPackage::open(&path).unwrap();
    let ships = ships();
    delegate.create(&ships).await.unwrap();
    persist(&delegate, &ships, (0..5_000).map(|i| put(ship(&format!("s{i}"), 1.0, "A"), 1)).collect()).await;
    let mut snapshot = delegate.snapshot(&ships).await.unwrap();
    let slow = Filter::Not(Box::new(Filter::Bbox(Rect { min_x: 50.0, min_y: 50.0, max_x: 51.0, max_y: 51.0 })));
    for n in 0..300 {
        let mut rows = snapshot.scan(Scan::default()).await.unwrap();
        rows.next().await.unwrap().unwrap();
        drop(rows);
        let all = snapshot.scan(Scan { filter: slow.clone(), ..Scan::default() }).await.unwrap();
        let batches: Vec<_> = all.collect().await;
        let rows: usize = batches.into_iter().map(|b| b.unwrap_or_else(|e| panic!("round {n}: {e}")).len()).sum();
        assert_eq!(rows, 5_000);
        assert_eq!(snapshot.count(&Filter::All).await.unwrap(), Some(5_000), "round {n}");
    }
}

#[tokio::test]
async fn what_stands_apart_of_a_track_is_found_and_put_together() {
    let (_directory, path) = file();
    let (delegate, t) = (GeoPackage::open(&path).unwrap(), tracks());
    delegate.create(&t).await.unwrap();
    let line: Vec<(i32, f64)> = (0..300).map(|m| (m, 1.0)).collect();
    let first = track(&t, None, &line, 1);
    persist(&delegate, &t, vec![put(Arc::new(first.clone()), 1)]).await;
    let connection = Connection::open(&path).unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |r| r.get::<_, f64>(0)).unwrap();
    let (length, east) = ("SELECT length(geom) FROM tracks", "SELECT maxx FROM rtree_tracks_geom");
    let before = number(length);
    let far = [(400, 50.0), (401, 1.0)];
    let committed = Persisting::Committed { refused: vec![] };
    assert_eq!(grow(&delegate, &t, vec![], vec![growth(&t, [1, 2], &far, 2)]).await, committed);
    assert_eq!((number(length), number(east)), (before, 50.0), "the line is as it was, and is found where its tail is");
    assert_eq!(number("SELECT n FROM tracks"), 2.0);
    assert_eq!(delegate.fold(&t, 0, 3).await.unwrap(), 1);
    assert_eq!((number(length), number(east)), (before + 48.0, 50.0));
    assert_eq!(number("SELECT count(*) FROM gpkgext_alluvium_tails"), 0.0);
}
