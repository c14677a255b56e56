//! What is PostGIS's own, beside the conformance suite of the long-term store: other tools at the same tables, a server that
//! goes away, the bookkeeping.

use std::sync::Arc;
use std::time::Duration;

use alluvium::delegate::postgis::{PostGis, PostGisSettings};
use alluvium::delegate::{Base, Delegate, DelegateError, PersistBatch, PersistEntry, Persisting, Scan};
use alluvium::model::{Feature, FeatureId, FeatureType, Geometry, Rect, Value, Watermark};
use alluvium::query::Filter;
use futures::StreamExt;

use crate::delegate::{Subject, drain, persist, scan, ships};
use crate::postgres::{Database, database};

fn settings(database: &Database) -> PostGisSettings {
    // The suite opens 20 snapshots at once.
    PostGisSettings { url: database.url.clone(), max_connections: 25, ..PostGisSettings::default() }
}

pub async fn open() -> Option<Subject> {
    let database = database().await?;
    let delegate = Arc::new(PostGis::connect(settings(&database)).await.unwrap());
    Some(Subject { delegate, _keep: Box::new(database) })
}

async fn with_ships() -> Option<(Database, PostGis, Arc<FeatureType>)> {
    let database = database().await?;
    let postgis = PostGis::connect(settings(&database)).await.unwrap();
    let ships = ships();
    postgis.create(&ships).await.unwrap();
    Some((database, postgis, ships))
}

fn ship(id: &str, name: &str, version: u64) -> PersistEntry {
    let properties = vec![Value::String(name.into()), Value::Null];
    let feature = Feature { id: id.into(), geometry: Geometry::point(1.0, 2.0).ok(), properties };
    PersistEntry { id: feature.id.clone(), feature: Some(Arc::new(feature)), version }
}

fn tombstone(id: &str, version: u64) -> PersistEntry {
    PersistEntry { id: id.into(), feature: None, version }
}

fn mark(n: u64) -> Watermark {
    Watermark { durable_through: n, evict_through: n, as_of: n }
}

/// Persists from one watermark to the next; what was refused.
async fn refused(d: &dyn Delegate, t: &FeatureType, from: u64, entries: Vec<PersistEntry>) -> Vec<(FeatureId, String)> {
    let (expected, next) = (mark(from), mark(from + 1));
    let batch = PersistBatch { partition: 0, expected, next, entries, forget_deleted_before: 0 };
    let Persisting::Committed { refused } = d.persist(t, batch).await.unwrap() else { panic!("a conflict") };
    refused
}

#[tokio::test]
async fn postgis_rows_of_other_tools_are_read_and_overwritten() {
    let Some((database, d, ships)) = with_ships().await else { return };
    persist(&d, &ships, vec![ship("ours", "Anna", 7), tombstone("gone", 8)]).await;
    database
        .run(
            "INSERT INTO ships (id, geom, name, \"Speed\") VALUES \
             ('theirs', ST_SetSRID(ST_MakePoint(3, 4), 4326), 'Berta', 'NaN'), ('gone', NULL, 'back', 1)",
        )
        .await;
    let ids: Vec<FeatureId> = ["theirs", "gone", "ours"].map(Into::into).into();
    let bases = d.load(&ships, &ids).await.unwrap().bases;
    let Some(Base::Row(theirs)) = &bases[0] else { panic!("{bases:?}") };
    assert_eq!((theirs.version, &theirs.feature.geometry), (0, &Geometry::point(3.0, 4.0).ok()));
    assert_eq!(theirs.feature.properties, [Value::String("Berta".into()), Value::Null], "not a number is no value");
    // It is there, and has outlived every record up to the one that deleted it.
    assert!(matches!(&bases[1], Some(Base::Row(row)) if row.version == 8));
    assert!(matches!(&bases[2], Some(Base::Row(row)) if row.version == 7));

    persist(&d, &ships, vec![ship("theirs", "Clara", 9)]).await;
    let rows = scan(
        &mut d.snapshot(&ships).await.unwrap(),
        Scan { filter: Filter::ids(["theirs".into()]), ..Scan::default() },
    )
    .await;
    assert_eq!((rows[0].version, rows[0].feature.value(0)), (9, &Value::String("Clara".into())));
}

#[tokio::test]
async fn postgis_geometry_that_is_none_of_ours_is_null() {
    let Some((database, d, _)) = with_ships().await else { return };
    let any: FeatureType =
        serde_json::from_str(r#"{"name": "any", "incarnation": "i", "geometry": {"type": "Geometry"}}"#).unwrap();
    d.create(&any).await.unwrap();
    database
        .run(
            "INSERT INTO \"any\" (id, geom) VALUES \
             ('arc', ST_GeomFromText('CIRCULARSTRING(0 0, 1 1, 2 0)', 4326)), \
             ('line', ST_GeomFromText('LINESTRING(0 0, 1 1)', 4326))",
        )
        .await;
    let mut snapshot = d.snapshot(&Arc::new(any)).await.unwrap();
    let rows = scan(&mut snapshot, Scan { order: Some(vec![]), ..Scan::default() }).await;
    let has: Vec<_> = rows.iter().map(|r| (&*r.feature.id, r.feature.geometry.is_some())).collect();
    assert_eq!(has, [("arc", false), ("line", true)]);
}

/// Many rows, two of which break a rule that somebody else made, one of them in a deletion.
#[tokio::test]
async fn postgis_refused_features_are_kept_whole_until_mended() {
    let Some((database, d, ships)) = with_ships().await else { return };
    persist(&d, &ships, vec![ship("harbour", "H", 1)]).await;
    database
        .run(
            "ALTER TABLE ships ADD CONSTRAINT polite CHECK (name <> 'rude'); \
             CREATE TABLE crew (ship text COLLATE \"C\" REFERENCES ships (id) DEFERRABLE INITIALLY DEFERRED); \
             INSERT INTO crew VALUES ('harbour')",
        )
        .await;
    let current = d.watermarks(&ships).await.unwrap()[0];
    let mut entries: Vec<_> = (0..6000).map(|i| ship(&format!("s{i}"), "fine", 5)).collect();
    entries[4321] = ship("bad", "rude", 6);
    entries.push(tombstone("harbour", 7));
    // Of another type than its column: told before the database is asked.
    let mut wrong = ship("wrong", "x", 8);
    wrong.feature = wrong.feature.map(|f| Arc::new(Feature { properties: vec![Value::Int(1)], ..(*f).clone() }));
    entries.push(wrong);
    let batch = PersistBatch { partition: 0, expected: current, next: mark(50), entries, forget_deleted_before: 0 };
    let Persisting::Committed { refused: mut names } = d.persist(&ships, batch).await.unwrap() else { panic!() };
    names.sort();
    let reasons: Vec<_> =
        names.iter().map(|(id, reason)| (&**id, reason.contains("polite"), reason.contains("crew"))).collect();
    assert_eq!(reasons, [("bad", true, false), ("harbour", false, true), ("wrong", false, false)], "{names:?}");
    assert_eq!(d.snapshot(&ships).await.unwrap().count(&Filter::All).await.unwrap(), Some(6000));
    let kept = "DO $$ BEGIN ASSERT (SELECT count(*) = 3 FROM alluvium.refused WHERE feature_type = 'ships' AND partition = 0); \
                ASSERT (SELECT version = 6 AND properties ->> 'name' = 'rude' AND ST_X(ST_GeomFromWKB(geom)) = 1 \
                        FROM alluvium.refused WHERE id = 'bad'); END $$";
    database.run(kept).await;

    let mut listed: Vec<PersistEntry> = d.refused(&ships).await.unwrap().into_iter().map(|r| r.entry).collect();
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    // The last of them has a value of its column's type now.
    assert_eq!(listed, [ship("bad", "rude", 6), tombstone("harbour", 7), ship("wrong", "1", 8)]);

    database.run("DELETE FROM crew").await;
    let mended = vec![ship("bad", "kind", 9), tombstone("harbour", 10), ship("wrong", "right", 11)];
    assert_eq!(refused(&d, &ships, 50, mended).await, []);
    database.run("DO $$ BEGIN ASSERT (SELECT count(*) = 0 FROM alluvium.refused); END $$").await;
}

#[tokio::test]
async fn postgis_comes_back_after_its_connections_are_cut() {
    let Some((database, d, ships)) = with_ships().await else { return };
    persist(&d, &ships, (0..5000).map(|i| ship(&format!("s{i}"), "x", 1)).collect()).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let mut snapshot = d.snapshot(&ships).await.unwrap();
    let mut rows = snapshot.scan(Scan::default()).await.unwrap();
    rows.next().await.unwrap().unwrap();
    database.run(cut).await;
    let mut outcome = Ok(());
    while let Some(batch) = rows.next().await {
        outcome = batch.map(drop);
    }
    assert!(matches!(outcome, Err(DelegateError::Unavailable(_))), "{outcome:?}");
    assert!(matches!(snapshot.count(&Filter::All).await, Err(DelegateError::Unavailable(_))));
    // What the pool still holds is dead too; at most each of them fails once.
    database.run(cut).await;
    let mut failures = 0;
    while let Err(e) = d.watermarks(&ships).await {
        assert!(matches!(e, DelegateError::Unavailable(_)), "{e:?}");
        failures += 1;
        assert!(failures <= 25);
    }
    let mut again = d.snapshot(&ships).await.unwrap();
    assert_eq!(drain(again.scan(Scan::default()).await.unwrap()).await.len(), 5000);
}

/// Whoever asked goes away: connections are neither lost nor left with a transaction in them.
#[tokio::test]
async fn postgis_connections_outlive_those_who_lose_patience() {
    let Some(database) = database().await else { return };
    let few = PostGisSettings { max_connections: 3, ..settings(&database) };
    let d = PostGis::connect(few).await.unwrap();
    let ships = ships();
    d.create(&ships).await.unwrap();
    persist(&d, &ships, (0..3000).map(|i| ship(&format!("s{i}"), "x", 1)).collect()).await;
    for micros in (0..6000).step_by(40) {
        let reading = async {
            let mut snapshot = d.snapshot(&ships).await?;
            drain(snapshot.scan(Scan::default()).await?).await;
            d.load(&ships, &["s1".into()]).await
        };
        let _ = tokio::time::timeout(Duration::from_micros(micros), reading).await;
    }
    persist(&d, &ships, vec![tombstone("s0", 2)]).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(d.snapshot(&ships).await.unwrap());
    }
    for snapshot in &mut all {
        assert_eq!(scan(snapshot, Scan::default()).await.len(), 2999);
    }
}

#[tokio::test]
async fn postgis_server_away_is_unavailable() {
    let nobody = PostGisSettings {
        url: "postgres://nobody@127.0.0.1:1/none".into(),
        acquire_timeout: Duration::from_millis(500),
        ..PostGisSettings::default()
    };
    assert!(matches!(PostGis::connect(nobody).await.err(), Some(DelegateError::Unavailable(_))));
}

#[tokio::test]
async fn postgis_migrations_run_once_and_are_held_against_what_was_run() {
    let Some((database, d, ships)) = with_ships().await else { return };
    let opened = (0..4).map(|_| PostGis::connect(settings(&database)));
    for again in futures::future::join_all(opened).await {
        assert_eq!(again.unwrap().catalogue().await.unwrap().1, [(*ships).clone()]);
    }
    database.run("UPDATE alluvium.migrations SET checksum = checksum + 1").await;
    assert!(matches!(PostGis::connect(settings(&database)).await.err(), Some(DelegateError::Mismatch(_))));
    database.run("UPDATE alluvium.migrations SET checksum = checksum - 1").await;
    database.run("INSERT INTO alluvium.migrations VALUES ('9999_later', 0)").await;
    assert!(matches!(PostGis::connect(settings(&database)).await.err(), Some(DelegateError::Mismatch(_))));
    assert!(d.catalogue().await.is_ok());
}

#[tokio::test]
async fn postgis_tables_of_others_are_left_alone() {
    let Some(database) = database().await else { return };
    database.run("CREATE TABLE ships (id text, alluvium_version bigint)").await;
    let d = PostGis::connect(settings(&database)).await.unwrap();
    assert!(matches!(d.create(&ships()).await, Err(DelegateError::Exists(_))));
    d.remove("ships", true).await.unwrap();
    database.run("SELECT alluvium_version FROM ships").await;
}

#[tokio::test]
async fn postgis_table_that_was_altered_is_a_mismatch() {
    let Some((database, d, ships)) = with_ships().await else { return };
    persist(&d, &ships, vec![ship("a", "Anna", 1)]).await;
    database.run("ALTER TABLE ships DROP COLUMN \"Speed\"").await;
    let current = d.watermarks(&ships).await.unwrap()[0];
    let batch = PersistBatch {
        partition: 0,
        expected: current,
        next: mark(9),
        entries: vec![ship("b", "x", 2)],
        forget_deleted_before: 0,
    };
    assert!(matches!(d.persist(&ships, batch).await, Err(DelegateError::Mismatch(_))));
    assert!(matches!(d.load(&ships, &["a".into()]).await, Err(DelegateError::Mismatch(_))));
    assert_eq!(d.watermarks(&ships).await.unwrap()[0], current);
}

/// The ids of a snapshot's rows, with versions, in order.
async fn rows_of(d: &dyn Delegate, t: &Arc<FeatureType>) -> Vec<(String, u64)> {
    let mut snapshot = d.snapshot(t).await.unwrap();
    let rows = scan(&mut snapshot, Scan { order: Some(vec![]), ..Scan::default() }).await;
    rows.iter().map(|r| (r.feature.id.to_string(), r.version)).collect()
}

async fn described(database: &Database, table: &str, key: Option<&str>) -> Result<FeatureType, DelegateError> {
    let declared = PostGis::describe_table(settings(database), table, "roads", key).await?;
    Ok(FeatureType { incarnation: "i1".into(), ..declared })
}

/// A table as others make them: a sequence, another SRID, a column that is not ours and may not be null, an odd name.
const ROADS: &str = "CREATE TYPE surface AS ENUM ('gravel', 'tar'); \
    CREATE TABLE \"Road Net\" (gid serial PRIMARY KEY, \"the geom\" geometry(LineString, 25832), \"Full Name\" varchar(20), \
        id integer, lanes smallint NOT NULL CHECK (lanes > 0), width numeric(6, 2), built timestamp, extra jsonb, \
        surface surface NOT NULL DEFAULT 'tar', double_lanes integer GENERATED ALWAYS AS (lanes * 2) STORED); \
    INSERT INTO \"Road Net\" (\"the geom\", \"Full Name\", lanes, width, surface) VALUES \
        (ST_GeomFromText('LINESTRING(500000 5700000, 500100 5700000)', 25832), 'A 1', 4, 12.5, 'gravel'), \
        (ST_GeomFromText('LINESTRING(600000 5700000, 600100 5700000)', 25832), 'B 2', 2, NULL, 'tar')";

#[tokio::test]
async fn postgis_tables_that_were_there_before_are_served_as_they_are() {
    let Some(database) = database().await else { return };
    database.run(ROADS).await;
    let roads = Arc::new(described(&database, "Road Net", None).await.unwrap());
    let names: Vec<&str> = roads.properties.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["Full_Name", "_id", "lanes", "width", "built", "extra"]);
    assert!(roads.properties[0].nullable && !roads.properties[2].nullable);
    assert_eq!(roads.geometry.map(|g| g.epsg), Some(25832));
    let d = PostGis::connect(settings(&database)).await.unwrap();
    d.create(&roads).await.unwrap();
    assert_eq!(rows_of(&d, &roads).await, [("1".into(), 0), ("2".into(), 0)]);

    let near = Filter::Bbox(Rect { min_x: 499_000.0, min_y: 5_600_000.0, max_x: 501_000.0, max_y: 5_800_000.0 });
    let rows = scan(&mut d.snapshot(&roads).await.unwrap(), Scan { filter: near, ..Scan::default() }).await;
    assert_eq!(rows.len(), 1);
    let first = rows[0].feature.clone();
    assert_eq!((first.value(0), first.value(3)), (&Value::String("A 1".into()), &Value::Number(12.5)));

    // An update leaves what is not ours, an insert takes the defaults, a constraint refuses.
    let next = d.reserve_ids(&roads, 2).await.unwrap();
    assert_eq!(next, ["3".into(), "4".into()]);
    let built = Value::DateTime(1_700_000_000_000_000);
    let with = |id: &str, lanes: i64, version| {
        let properties = vec![
            Value::String("C".into()),
            Value::Null,
            Value::Int(lanes),
            Value::Number(7.25),
            built.clone(),
            Value::Json("{\"a\":1}".into()),
        ];
        let feature = Feature { id: id.into(), geometry: first.geometry.clone(), properties };
        PersistEntry { id: feature.id.clone(), feature: Some(Arc::new(feature)), version }
    };
    let entries = vec![with("1", 6, 5), with("3", 1, 6), with("4", 0, 7), with("no number", 1, 8), tombstone("2", 9)];
    let (expected, next) = (Watermark::default(), mark(20));
    let batch = PersistBatch { partition: 0, expected, next, entries, forget_deleted_before: 0 };
    let Persisting::Committed { mut refused } = d.persist(&roads, batch).await.unwrap() else { panic!("a conflict") };
    refused.sort();
    assert_eq!(refused.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["4", "no number"], "{refused:?}");
    assert_eq!(rows_of(&d, &roads).await, [("1".into(), 5), ("3".into(), 6)]);
    let bases = d.load(&roads, &["3".into(), "2".into(), "03".into(), "x".into()]).await.unwrap().bases;
    let written = with("3", 1, 6);
    assert!(
        matches!(&bases[0], Some(Base::Row(row)) if Some(&row.feature) == written.feature.as_ref() && row.version == 6)
    );
    assert_eq!(bases[1..], [Some(Base::Deleted(9)), None, None]);
    database
        .run(
            "DO $$ BEGIN \
             ASSERT (SELECT surface = 'gravel' AND lanes = 6 AND built = '2023-11-14 22:13:20' FROM \"Road Net\" WHERE gid = 1); \
             ASSERT (SELECT surface = 'tar' AND extra = '{\"a\": 1}' FROM \"Road Net\" WHERE gid = 3); END $$; \
             INSERT INTO \"Road Net\" (\"Full Name\", lanes) VALUES ('theirs', 1)",
        )
        .await;
    assert_eq!(rows_of(&d, &roads).await[2], ("5".into(), 0));
    // An older state changes nothing, nor does an older deletion.
    let stale = vec![with("1", 1, 4), tombstone("3", 3), with("2", 1, 8)];
    let batch = PersistBatch { partition: 0, expected: next, next: mark(21), entries: stale, forget_deleted_before: 0 };
    assert_eq!(d.persist(&roads, batch).await.unwrap(), Persisting::Committed { refused: vec![] });
    assert_eq!(rows_of(&d, &roads).await, [("1".into(), 5), ("3".into(), 6), ("5".into(), 0)]);

    // Never dropped, never altered; taken again, all versions are 0.
    d.remove("roads", true).await.unwrap();
    let again = Arc::new(FeatureType { incarnation: "i2".into(), ..(*roads).clone() });
    d.create(&again).await.unwrap();
    assert_eq!(rows_of(&d, &again).await, [("1".into(), 0), ("3".into(), 0), ("5".into(), 0)]);
    d.remove("roads", false).await.unwrap();
    d.remove("roads", true).await.unwrap();
    database.run("DO $$ BEGIN ASSERT (SELECT count(*) = 3 FROM \"Road Net\"); END $$").await;
}

#[tokio::test]
async fn postgis_tables_with_uuids_views_and_what_cannot_be_declared() {
    let Some(database) = database().await else { return };
    let uuid = "0193e4a5-0000-7000-8000-000000000001";
    database
        .run(&format!(
            "CREATE TABLE sites (key uuid PRIMARY KEY, geom geometry, name text); \
             INSERT INTO sites VALUES ('{uuid}', ST_GeomFromText('POINT(1 2)', 4326), 'S'); \
             CREATE VIEW site_view AS SELECT key, geom, name FROM sites; \
             CREATE TABLE nowhere (id text PRIMARY KEY, geom geometry(Point)); \
             CREATE TABLE keyless (a text, b text)"
        ))
        .await;
    let d = PostGis::connect(settings(&database)).await.unwrap();
    let sites = Arc::new(described(&database, "sites", None).await.unwrap());
    d.create(&sites).await.unwrap();
    assert_eq!(rows_of(&d, &sites).await, [(uuid.to_owned(), 0)]);
    let by_id = Scan { filter: Filter::ids([uuid.into(), "x".into()]), ..Scan::default() };
    assert_eq!(scan(&mut d.snapshot(&sites).await.unwrap(), by_id).await.len(), 1);
    assert!(matches!(d.reserve_ids(&sites, 1).await, Err(DelegateError::Mismatch(_))));
    let mut upper = Feature { id: uuid.to_uppercase().into(), geometry: None, properties: vec![] };
    assert!(sites.check(&mut upper).is_err(), "one feature has one id");
    d.remove("roads", true).await.unwrap();

    let view = Arc::new(described(&database, "site_view", Some("key")).await.unwrap());
    assert!(view.check_writable().unwrap_err().what.contains("read-only"));
    d.create(&view).await.unwrap();
    assert_eq!(rows_of(&d, &view).await, [(uuid.to_owned(), 0)]);

    let why = async |table: &str, key| described(&database, table, key).await.unwrap_err().to_string();
    assert!(why("site_view", None).await.contains("--key"));
    assert!(why("keyless", Some("a")).await.contains("unique"));
    assert!(why("keyless", Some("c")).await.contains("no column 'c'"));
    assert!(why("nowhere", None).await.contains("no SRID"));
    assert!(why("not_there", None).await.contains("not there"));
    // A declaration that does not go with its table is an error when the type is made.
    let mut wrong = (*sites).clone();
    wrong.name = "wrong".into();
    wrong.properties[0].name = "names".into();
    assert!(matches!(d.create(&wrong).await, Err(DelegateError::Mismatch(what)) if what.contains("names")));
}
