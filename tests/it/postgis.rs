//! What is PostGIS's own, beside the conformance suite of the long-term store: other tools at the same tables, a server that
//! goes away, the bookkeeping.

use std::sync::Arc;
use std::time::Duration;

use alluvium::delegate::postgis::{PostGis, PostGisSettings};
use alluvium::delegate::{Base, Delegate, DelegateError, PersistBatch, PersistEntry, Persisting, Scan};
use alluvium::model::{Feature, FeatureId, FeatureType, Geometry, Value, Watermark};
use alluvium::query::Filter;
use futures::StreamExt;

use crate::delegate::{Subject, drain, persist, scan, ships};
use crate::postgres::{Database, database};

pub fn settings(database: &Database) -> PostGisSettings {
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
    PersistEntry { id: feature.id.clone(), feature: Some(Arc::new(feature)), version, event_time: None }
}

pub fn tombstone(id: &str, version: u64) -> PersistEntry {
    PersistEntry { id: id.into(), feature: None, version, event_time: None }
}

pub fn mark(n: u64) -> Watermark {
    Watermark { durable_through: n, evict_through: n, as_of: n }
}

/// Persists from one watermark to the next; what was refused.
async fn refused(d: &dyn Delegate, t: &FeatureType, from: u64, entries: Vec<PersistEntry>) -> Vec<(FeatureId, String)> {
    let (expected, next) = (mark(from), mark(from + 1));
    let batch =
        PersistBatch { partition: 0, expected, next, entries, growths: vec![], forget_deleted_before: 0, now_ms: 0 };
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
    assert_eq!((theirs.version, &theirs.feature.geometry), (None, &Geometry::point(3.0, 4.0).ok()));
    assert_eq!(theirs.feature.properties, [Value::String("Berta".into()), Value::Null], "not a number is no value");
    // It is there, and has outlived every record up to the one that deleted it.
    assert!(matches!(&bases[1], Some(Base::Row(row)) if row.version == Some(8)));
    assert!(matches!(&bases[2], Some(Base::Row(row)) if row.version == Some(7)));

    persist(&d, &ships, vec![ship("theirs", "Clara", 9)]).await;
    let rows = scan(
        &mut d.snapshot(&ships).await.unwrap(),
        Scan { filter: Filter::ids(["theirs".into()]), ..Scan::default() },
    )
    .await;
    assert_eq!((rows[0].version, rows[0].feature.value(0)), (Some(9), &Value::String("Clara".into())));
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
    let batch = PersistBatch {
        partition: 0,
        expected: current,
        next: mark(50),
        entries,
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
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
    // More than what is on its way at a time.
    let long = "x".repeat(10_000);
    persist(&d, &ships, (0..5000).map(|i| ship(&format!("s{i}"), &long, 1)).collect()).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for to_end in [false, true] {
        let other = PostGis::connect(settings(&database)).await.unwrap();
        let mut snapshot = other.snapshot(&ships).await.unwrap();
        let mut rows = snapshot.scan(Scan { to_end, ..Scan::default() }).await.unwrap();
        rows.next().await.unwrap().unwrap();
        database.run(cut).await;
        let mut outcome = Ok(());
        while let Some(batch) = rows.next().await {
            outcome = batch.map(drop);
        }
        assert!(matches!(outcome, Err(DelegateError::Unavailable(_))), "{outcome:?}");
        assert!(matches!(snapshot.count(&Filter::All).await, Err(DelegateError::Unavailable(_))));
    }
    // What the pool still holds is dead too; at most each of them fails once.
    database.run(cut).await;
    let mut failures = 0;
    let mut again = loop {
        match d.snapshot(&ships).await {
            Ok(snapshot) => break snapshot,
            Err(e) => assert!(matches!(e, DelegateError::Unavailable(_)), "{e:?}"),
        }
        failures += 1;
        assert!(failures <= 25);
    };
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
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
    assert!(matches!(d.persist(&ships, batch).await, Err(DelegateError::Mismatch(_))));
    assert!(matches!(d.load(&ships, &["a".into()]).await, Err(DelegateError::Mismatch(_))));
    assert_eq!(d.watermarks(&ships).await.unwrap()[0], current);
}
