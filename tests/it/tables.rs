//! Tables that were there before: the conformance suite of the long-term store over such tables, what a table says of itself,
//! and the server over them while other tools go on using them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use alluvium::clock::SystemClock;
use alluvium::coordination::local::LocalCoordinator;
use alluvium::delegate::dead_letter::DeadLetter;
use alluvium::delegate::postgis::PostGis;
use alluvium::delegate::{
    Base, Bases, Delegate, DelegateError, PersistBatch, PersistEntry, Persisting, Refused, Scan, Snapshot,
};
use alluvium::log::memory::MemoryLog;
use alluvium::model::table::KeyType;
use alluvium::model::{ExistingTable, Feature, FeatureId, FeatureType, PropertyType, Rect, Value, Watermark};
use alluvium::query::Filter;
use alluvium::store::Parts;
use async_trait::async_trait;
use serde_json::json;

use crate::app::Server;
use crate::delegate::{Subject, scan};
use crate::postgis::{mark, settings, tombstone};
use crate::postgres::{Database, database};

/// PostGIS with every type over a table that somebody else has made for it, under names of their own.
struct OverTables {
    postgis: PostGis,
    database: Database,
}

pub async fn open() -> Option<Subject> {
    let database = database().await?;
    let postgis = PostGis::connect(settings(&database)).await.unwrap();
    Some(Subject { delegate: Arc::new(OverTables { postgis, database }), _keep: Box::new(()) })
}

/// The type, over its table.
fn over(t: &FeatureType) -> FeatureType {
    let table = ExistingTable {
        schema: "public".into(),
        name: format!("their \"{}\"", t.name),
        key: "Their Key".into(),
        key_type: KeyType::Text,
        geometry: "the geom".into(),
        columns: t.properties.iter().map(|p| (p.name.clone(), format!("their {}", p.name))).collect(),
        read_only: false,
    };
    FeatureType { table: Some(table), ..t.clone() }
}

/// As somebody would make it who knows nothing of us.
fn create_table(t: &FeatureType) -> String {
    let column = |kind| match kind {
        PropertyType::String => "varchar",
        PropertyType::Int32 => "integer",
        PropertyType::Int64 => "bigint",
        PropertyType::Number => "double precision",
        PropertyType::Boolean => "boolean",
        PropertyType::Date => "date",
        PropertyType::DateTime => "timestamp with time zone",
        PropertyType::Uuid => "uuid",
        PropertyType::Json => "json",
        PropertyType::Bytes => "bytea",
    };
    let properties = t
        .properties
        .iter()
        .map(|p| format!(", \"their {}\" {}{}", p.name, column(p.kind), if p.nullable { "" } else { " NOT NULL" }));
    format!(
        "CREATE TABLE IF NOT EXISTS public.\"their \"\"{}\"\"\" (more integer NOT NULL DEFAULT 7, \"Their Key\" varchar(256) PRIMARY KEY{}{})",
        t.name,
        if t.geometry.is_some() { ", \"the geom\" geometry" } else { "" },
        properties.collect::<String>(),
    )
}

#[async_trait]
impl Delegate for OverTables {
    fn kind(&self) -> &'static str {
        "PostGIS over tables of others"
    }

    async fn catalogue(&self) -> Result<(u64, Vec<FeatureType>), DelegateError> {
        let (revision, types) = self.postgis.catalogue().await?;
        Ok((revision, types.into_iter().map(|t| FeatureType { table: None, ..t }).collect()))
    }

    async fn create(&self, t: &FeatureType) -> Result<(), DelegateError> {
        self.database.run(&create_table(t)).await;
        self.postgis.create(&over(t)).await
    }

    async fn alter(&self, from: &FeatureType, to: &FeatureType) -> Result<bool, DelegateError> {
        self.postgis.alter(&over(from), &over(to)).await
    }

    async fn remove(&self, name: &str, purge: bool) -> Result<(), DelegateError> {
        self.postgis.remove(name, purge).await
    }

    async fn stored_queries(&self) -> Result<BTreeMap<String, String>, DelegateError> {
        self.postgis.stored_queries().await
    }

    async fn keep_stored_queries(&self, queries: &[(String, String)]) -> Result<Option<String>, DelegateError> {
        self.postgis.keep_stored_queries(queries).await
    }

    async fn drop_stored_query(&self, id: &str) -> Result<bool, DelegateError> {
        self.postgis.drop_stored_query(id).await
    }

    async fn watermarks(&self, t: &FeatureType) -> Result<Vec<Watermark>, DelegateError> {
        self.postgis.watermarks(&over(t)).await
    }

    async fn persist(&self, t: &FeatureType, batch: PersistBatch) -> Result<Persisting, DelegateError> {
        self.postgis.persist(&over(t), batch).await
    }

    async fn refused(&self, t: &FeatureType) -> Result<Vec<Refused>, DelegateError> {
        self.postgis.refused(&over(t)).await
    }

    async fn keep_dead_letters(&self, t: &FeatureType, letters: Vec<DeadLetter>) -> Result<(), DelegateError> {
        self.postgis.keep_dead_letters(&over(t), letters).await
    }

    async fn dead_letters(&self, t: &FeatureType) -> Result<Vec<DeadLetter>, DelegateError> {
        self.postgis.dead_letters(&over(t)).await
    }

    async fn load(&self, t: &FeatureType, ids: &[FeatureId]) -> Result<Bases, DelegateError> {
        self.postgis.load(&over(t), ids).await
    }

    async fn snapshot(&self, t: &Arc<FeatureType>) -> Result<Box<dyn Snapshot>, DelegateError> {
        self.postgis.snapshot(&Arc::new(over(t))).await
    }
}

/// The ids of a snapshot's rows, with versions, in order.
async fn rows_of(d: &dyn Delegate, t: &Arc<FeatureType>) -> Vec<(String, Option<u64>)> {
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
async fn tables_that_were_there_before_are_served_as_they_are() {
    let Some(database) = database().await else { return };
    database.run(ROADS).await;
    let roads = Arc::new(described(&database, "Road Net", None).await.unwrap());
    let names: Vec<&str> = roads.properties.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["Full_Name", "_id", "lanes", "width", "built", "extra"]);
    assert!(roads.properties[0].nullable && !roads.properties[2].nullable);
    assert_eq!(roads.geometry.map(|g| g.epsg), Some(25832));
    let d = PostGis::connect(settings(&database)).await.unwrap();
    d.create(&roads).await.unwrap();
    assert_eq!(rows_of(&d, &roads).await, [("1".into(), None), ("2".into(), None)]);

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
        PersistEntry { id: feature.id.clone(), feature: Some(Arc::new(feature)), version, event_time: None }
    };
    let entries = vec![with("1", 6, 5), with("3", 1, 6), with("4", 0, 7), with("no number", 1, 8), tombstone("2", 9)];
    let (expected, next) = (Watermark::default(), mark(20));
    let batch =
        PersistBatch { partition: 0, expected, next, entries, growths: vec![], forget_deleted_before: 0, now_ms: 0 };
    let Persisting::Committed { mut refused } = d.persist(&roads, batch).await.unwrap() else { panic!("a conflict") };
    refused.sort();
    assert_eq!(refused.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["4", "no number"], "{refused:?}");
    assert_eq!(rows_of(&d, &roads).await, [("1".into(), Some(5)), ("3".into(), Some(6))]);
    let bases = d.load(&roads, &["3".into(), "2".into(), "03".into(), "x".into()]).await.unwrap().bases;
    let written = with("3", 1, 6);
    assert!(
        matches!(&bases[0], Some(Base::Row(row)) if Some(&row.feature) == written.feature.as_ref() && row.version == Some(6))
    );
    assert_eq!(bases[1..], [Some(Base::Deleted(Some(9), None)), None, None]);
    database
        .run(
            "DO $$ BEGIN \
             ASSERT (SELECT surface = 'gravel' AND lanes = 6 AND built = '2023-11-14 22:13:20' FROM \"Road Net\" WHERE gid = 1); \
             ASSERT (SELECT surface = 'tar' AND extra = '{\"a\": 1}' FROM \"Road Net\" WHERE gid = 3); END $$; \
             INSERT INTO \"Road Net\" (\"Full Name\", lanes) VALUES ('theirs', 1)",
        )
        .await;
    assert_eq!(rows_of(&d, &roads).await[2], ("5".into(), None));
    // An older state changes nothing, nor does an older deletion.
    let stale = vec![with("1", 1, 4), tombstone("3", 3), with("2", 1, 8)];
    let batch = PersistBatch {
        partition: 0,
        expected: next,
        next: mark(21),
        entries: stale,
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
    assert_eq!(d.persist(&roads, batch).await.unwrap(), Persisting::Committed { refused: vec![] });
    assert_eq!(rows_of(&d, &roads).await, [("1".into(), Some(5)), ("3".into(), Some(6)), ("5".into(), None)]);

    // Never dropped, never altered; taken again, there are no versions.
    d.remove("roads", true).await.unwrap();
    let again = Arc::new(FeatureType { incarnation: "i2".into(), ..(*roads).clone() });
    d.create(&again).await.unwrap();
    assert_eq!(rows_of(&d, &again).await, [("1".into(), None), ("3".into(), None), ("5".into(), None)]);
    d.remove("roads", false).await.unwrap();
    d.remove("roads", true).await.unwrap();
    database.run("DO $$ BEGIN ASSERT (SELECT count(*) = 3 FROM \"Road Net\"); END $$").await;
}

#[tokio::test]
async fn tables_with_uuids_views_and_what_cannot_be_declared() {
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
    assert_eq!(rows_of(&d, &sites).await, [(uuid.to_owned(), None)]);
    let by_id = Scan { filter: Filter::ids([uuid.into(), "x".into()]), ..Scan::default() };
    assert_eq!(scan(&mut d.snapshot(&sites).await.unwrap(), by_id).await.len(), 1);
    assert!(matches!(d.reserve_ids(&sites, 1).await, Err(DelegateError::Mismatch(_))));
    let mut upper = Feature { id: uuid.to_uppercase().into(), geometry: None, properties: vec![] };
    assert!(sites.check(&mut upper).is_err(), "one feature has one id");
    d.remove("roads", true).await.unwrap();

    let view = Arc::new(described(&database, "site_view", Some("key")).await.unwrap());
    assert!(view.check_writable().unwrap_err().what.contains("read-only"));
    d.create(&view).await.unwrap();
    assert_eq!(rows_of(&d, &view).await, [(uuid.to_owned(), None)]);

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

/// A server over these tables, with a log of its own.
async fn serving(database: &Database, settings: &str) -> Server {
    let clock = Arc::new(SystemClock);
    let parts = Parts {
        log: Arc::new(MemoryLog::new(clock.clone())),
        delegate: Arc::new(PostGis::connect(crate::postgis::settings(database)).await.unwrap()),
        coordinator: Arc::new(LocalCoordinator::new("one")),
        clock,
    };
    Server::over(parts, settings).await
}

const FAST: &str = "[store]\nsweep_interval = 0.05\n";

/// What `alluvium import-table` prints.
fn import_table(database: &Database, arguments: &[&str]) -> String {
    let program = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(["import-table", "--database", &database.url])
        .args(arguments)
        .output()
        .unwrap();
    assert!(program.status.success(), "{}", String::from_utf8_lossy(&program.stderr));
    String::from_utf8(program.stdout).unwrap()
}

/// Waits until nothing of a collection is in the transient index, no deletion either, which no read shows.
async fn settled(server: &Server, collection: &str) {
    for _ in 0..400 {
        let status = server.app.store().status();
        if status.iter().all(|p| p.feature_type != collection || p.index_features == 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("not persisted in time: {}", server.get("/admin/status").await.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_table_is_a_collection() {
    let Some(database) = database().await else { return };
    database.run(ROADS).await;
    let declaration = import_table(&database, &["Road Net", "--collection", "roads", "--json"]);
    let mut declaration: serde_json::Value = serde_json::from_str(&declaration).unwrap();
    declaration["expiry"] = json!(0.1);
    let server = serving(&database, FAST).await;
    server
        .send("POST", "/collections", &[("content-type", "application/json")], declaration.to_string())
        .await
        .expect(201);

    let all = server.get("/collections/roads/items?crs=http://www.opengis.net/def/crs/EPSG/0/25832").await.expect(200);
    let first = &all.json()["features"][0];
    assert_eq!((&first["id"], &first["properties"]["Full_Name"]), (&json!("1"), &json!("A 1")));
    assert_eq!(first["geometry"]["coordinates"], json!([[500000.0, 5700000.0], [500100.0, 5700000.0]]));

    let road = json!({ "type": "Feature", "geometry": null, "properties": { "Full_Name": "C", "lanes": 3 } });
    let made = server.post("/collections/roads/items", &road).await.expect(201);
    assert!(made.header("location").ends_with("/collections/roads/items/3"), "{}", made.header("location"));
    let patch = json!({ "properties": { "width": 9.5 } }).to_string();
    let merge = [("content-type", "application/merge-patch+json")];
    server.send("PATCH", "/collections/roads/items/1", &merge, patch.clone()).await.expect(204);
    server.send("DELETE", "/collections/roads/items/2", &[], "").await.expect(204);
    for key in ["x", "01", "99999999999999999999"] {
        let path = format!("/collections/roads/items/{key}");
        let answer = server.send("PUT", &path, &[("content-type", "application/geo+json")], road.to_string()).await;
        assert!(answer.expect(400).text().contains("not an integer"));
        server.get(&path).await.expect(404);
    }
    // Refused for want of what the table wants, before anything is written.
    let without = json!({ "type": "Feature", "geometry": null, "properties": { "Full_Name": "D" } });
    server.post("/collections/roads/items", &without).await.expect(400);

    settled(&server, "roads").await;
    database
        .run(
            "DO $$ BEGIN \
             ASSERT (SELECT surface = 'gravel' AND width = 9.5 AND lanes = 4 FROM \"Road Net\" WHERE gid = 1); \
             ASSERT (SELECT surface = 'tar' AND lanes = 3 FROM \"Road Net\" WHERE gid = 3); \
             ASSERT (SELECT count(*) = 2 FROM \"Road Net\"); END $$; \
             UPDATE \"Road Net\" SET \"Full Name\" = 'theirs' WHERE gid = 3; \
             INSERT INTO \"Road Net\" (gid, lanes) VALUES (4, 1), (5, 1)",
        )
        .await;
    let third = server.get("/collections/roads/items/3").await.expect(200).json();
    assert_eq!(third["properties"]["Full_Name"], "theirs");
    // Others have taken the sequence's next values without asking it: none of theirs is overwritten.
    let made = server.post("/collections/roads/items", &road).await.expect(201);
    assert!(made.header("location").ends_with("/6"), "{}", made.header("location"));
    let lines = format!("{road}\n{road}\n");
    let bulk =
        server.send("POST", "/collections/roads/items", &[("content-type", "application/x-ndjson")], lines).await;
    assert_eq!(bulk.expect(200).json()["accepted"], 2);
    let matched = server.get("/collections/roads/items?limit=1").await.expect(200).json();
    assert_eq!(matched["numberMatched"], 7, "1, 3 to 8");
    server.send("DELETE", "/collections/roads?purge=true", &[], "").await.expect(204);
    database.run("DO $$ BEGIN ASSERT (SELECT count(*) >= 4 FROM \"Road Net\"); END $$").await;
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_tables_in_the_settings_are_served_over_wfs() {
    let Some(database) = database().await else { return };
    database.run(ROADS).await;
    database
        .run(
            "CREATE TABLE sites (key uuid PRIMARY KEY DEFAULT gen_random_uuid(), geom geometry(Point, 4326), name text); \
             INSERT INTO sites (geom, name) VALUES (ST_SetSRID(ST_MakePoint(1, 2), 4326), 'S'); \
             CREATE VIEW site_names AS SELECT key, name FROM sites",
        )
        .await;
    let tables =
        [["Road Net", "--collection", "roads"], ["sites", "--schema", "public"], ["site_names", "--key", "key"]];
    let declared: String = tables.iter().map(|arguments| import_table(&database, arguments)).collect();
    let server = serving(&database, &format!("{FAST}{declared}")).await;
    let wfs = async |actions: &str| {
        let body = format!(
            "<wfs:Transaction service=\"WFS\" version=\"2.0.0\" xmlns:wfs=\"http://www.opengis.net/wfs/2.0\" \
             xmlns:fes=\"http://www.opengis.net/fes/2.0\" xmlns:gml=\"http://www.opengis.net/gml/3.2\" \
             xmlns:app=\"urn:alluvium:app\">{actions}</wfs:Transaction>"
        );
        server.send("POST", "/wfs", &[], body).await
    };
    let road = "<app:roads><app:Full_Name>W</app:Full_Name><app:lanes>2</app:lanes></app:roads>";
    let site = "<app:sites><app:name>T</app:name></app:sites>";
    let answer = wfs(&format!("<wfs:Insert>{road}{site}{road}</wfs:Insert>")).await.expect(200).text();
    assert!(answer.contains("rid=\"roads.3\"") && answer.contains("rid=\"roads.4\""), "{answer}");
    let renamed = "<wfs:Update typeName=\"app:roads\"><wfs:Property><wfs:ValueReference>app:Full_Name</wfs:ValueReference>\
                   <wfs:Value>U</wfs:Value></wfs:Property><fes:Filter><fes:ResourceId rid=\"roads.2\"/></fes:Filter></wfs:Update>";
    let answer = wfs(renamed).await.expect(200).text();
    assert!(answer.contains("<wfs:totalUpdated>1</wfs:totalUpdated>"), "{answer}");
    let get = |query: &str| format!("/wfs?service=WFS&version=2.0.0&request=GetFeature&{query}");
    let two = server.get(&get("resourceId=roads.2")).await.expect(200).text();
    assert!(two.contains(">U<") && two.contains("roads.2"), "{two}");
    let hits = server.get(&get("typeNames=app:sites&resultType=hits")).await.expect(200).text();
    assert!(hits.contains("numberMatched=\"2\""), "{hits}");

    let names = server.get("/collections/site_names/items").await.expect(200).json();
    assert_eq!(names["numberMatched"], 1, "the other site is not in its table yet");
    let refused = wfs("<wfs:Insert><app:site_names><app:name>N</app:name></app:site_names></wfs:Insert>").await;
    assert!(refused.expect(400).text().contains("read-only"));
    let feature = json!({ "type": "Feature", "geometry": null, "properties": { "name": "N" } });
    let refused = server.post("/collections/site_names/items", &feature).await.expect(403);
    assert!(refused.text().contains("read-only"), "{}", refused.text());
    let options = server.send("OPTIONS", "/collections/site_names/items", &[], "").await;
    assert_eq!(options.header("allow"), "GET, HEAD, OPTIONS");
    server.app.shutdown().await;
}

/// Another tool counts in a column that is not ours, and reads ours, while both tiers have the features.
#[tokio::test(flavor = "multi_thread")]
async fn other_tools_go_on_using_a_table_that_is_served() {
    let Some(database) = database().await else { return };
    database
        .run(
            "CREATE TABLE buoys (id text PRIMARY KEY, geom geometry(Point, 4326), state integer, theirs integer NOT NULL DEFAULT 0); \
             INSERT INTO buoys (id, state) SELECT 'b' || n, 0 FROM generate_series(0, 9) n",
        )
        .await;
    let declared = import_table(&database, &["buoys"]);
    assert!(declared.contains("theirs"), "{declared}");
    let mut declared: toml::Table = declared.parse().unwrap();
    declared["feature_types"][0]["expiry"] = toml::Value::Float(0.05);
    // Not declared: left alone.
    let properties = declared["feature_types"][0]["properties"].as_array_mut().unwrap();
    properties.retain(|p| p["name"].as_str() != Some("theirs"));
    let server = serving(&database, &format!("{FAST}{declared}")).await;
    let rounds = 60;
    let theirs = async {
        for _ in 0..rounds {
            database.run("UPDATE buoys SET theirs = theirs + 1").await;
        }
    };
    let ours = async {
        for n in 1..=rounds {
            let path = format!("/collections/buoys/items/b{}", n % 10);
            let patch = json!({ "properties": { "state": n } }).to_string();
            server.send("PATCH", &path, &[("content-type", "application/merge-patch+json")], patch).await.expect(204);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(theirs, ours);
    settled(&server, "buoys").await;
    database
        .run(&format!(
            "DO $$ BEGIN ASSERT (SELECT count(*) = 10 AND min(theirs) = {rounds} AND max(theirs) = {rounds} FROM buoys); \
             ASSERT (SELECT min(state) = {} AND max(state) = {rounds} FROM buoys); END $$",
            rounds - 9
        ))
        .await;
    server.app.shutdown().await;
}
