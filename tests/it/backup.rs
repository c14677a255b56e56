//! `alluvium backup` of a server that is written to meanwhile, and `alluvium restore` of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

use crate::app::{Server, wait_until_ready};

/// Features age within a moment, and the log is cut at once behind them: the tiers move as much as they can.
const SHIPS: &str = r#"
[store]
sweep_interval = 0.02
log_window = 0
[[feature_types]]
name = "ships"
geometry = { type = "Point" }
expiry = 0.1
partitions = 2
properties = [{ name = "n", type = "int64" }]
[[feature_types]]
name = "quiet"
expiry = "never"
properties = [{ name = "n", type = "int64" }]
"#;

const IDS: u64 = 40;

/// The number of each id, of both collections.
type Numbers = [Vec<u64>; 2];

async fn alluvium(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let run = move || Command::new(env!("CARGO_BIN_EXE_alluvium")).args(arguments).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[track_caller]
fn succeeded(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn failed(output: Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(why), "{said}");
}

/// Writes rising numbers into features in turn until told to stop; what was answered is in the journal.
async fn write(server: &Server, collection: &str, journal: &[AtomicU64], stop: &AtomicBool) {
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let id = n % IDS;
        let feature = json!({ "type": "Feature", "geometry": null, "properties": { "n": n } }).to_string();
        let path = format!("/collections/{collection}/items/f{id}");
        server.send("PUT", &path, &[("content-type", "application/geo+json")], feature).await.expect(204);
        journal[id as usize].store(n, Ordering::SeqCst);
    }
}

/// What a server has of a collection, by the number of the id.
async fn numbers(server: &Server, collection: &str) -> Vec<u64> {
    let mut numbers = vec![0; IDS as usize];
    let all = server.get(&format!("/collections/{collection}/items?limit=1000")).await.expect(200).json();
    for feature in all["features"].as_array().unwrap() {
        let id: usize = feature["id"].as_str().unwrap()[1..].parse().unwrap();
        numbers[id] = feature["properties"]["n"].as_u64().unwrap();
    }
    numbers
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_every_write_that_was_answered_before_it_began() {
    let server = Arc::new(Server::start(SHIPS).await);
    let keep = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let journals: [Vec<AtomicU64>; 2] = std::array::from_fn(|_| (0..IDS).map(|_| AtomicU64::new(0)).collect());
    let snapshot = || journals.each_ref().map(|j| j.iter().map(|n| n.load(Ordering::SeqCst)).collect::<Vec<_>>());
    let backups = async {
        let mut taken: Vec<(PathBuf, Numbers, Numbers)> = Vec::new();
        // So that every feature is there, and has been swept and cut away more than once.
        let swept = || server.app.store().status().iter().map(|p| p.swept_features).sum::<u64>();
        while swept() < 3 * IDS || journals.iter().flatten().any(|n| n.load(Ordering::SeqCst) == 0) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        for n in 0..3 {
            let file = keep.path().join(format!("{n}.backup"));
            let before = snapshot();
            succeeded(alluvium(&["backup", text(&file), "--server", &server.url("")]).await);
            taken.push((file, before, snapshot()));
        }
        stop.store(true, Ordering::SeqCst);
        taken
    };
    let (taken, (), ()) = tokio::join!(
        backups,
        write(&server, "ships", &journals[0], &stop),
        write(&server, "quiet", &journals[1], &stop)
    );
    assert!(server.app.store().status().iter().any(|p| p.durable_through > 0));
    for (file, before, after) in &taken {
        let dir = tempfile::tempdir().unwrap();
        succeeded(alluvium(&["restore", text(file), "--data-dir", text(dir.path())]).await);
        failed(alluvium(&["restore", text(file), "--data-dir", text(dir.path())]).await, "there is data");
        let restored = Server::start_in(dir, SHIPS).await;
        wait_until_ready(&restored).await;
        for (collection, (before, after)) in ["ships", "quiet"].iter().zip(before.iter().zip(after)) {
            let found = numbers(&restored, collection).await;
            // One write may be under way for each writer when the journal is looked at.
            let fits = |(found, (before, after)): (&u64, (&u64, &u64))| found >= before && *found <= after + IDS;
            assert!(
                found.iter().zip(before.iter().zip(after)).all(fits),
                "{collection}: {found:?}, {before:?} before, {after:?} after"
            );
        }
        let feature = json!({ "type": "Feature", "geometry": null, "properties": { "n": 7 } }).to_string();
        let path = "/collections/ships/items/f0";
        restored.send("PUT", path, &[("content-type", "application/geo+json")], feature).await.expect(204);
        assert_eq!(restored.get(path).await.expect(200).json()["properties"]["n"], 7);
        restored.app.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_backup_is_not_restored() {
    let server = Server::start(SHIPS).await;
    let dir = tempfile::tempdir().unwrap();
    let url = server.url("");
    succeeded(alluvium(&["backup", text(dir.path()), "--server", &url]).await);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    let [file] = names.as_slice() else { panic!("{names:?}") };
    assert!(text(file).ends_with(".backup"), "{names:?}");
    let whole = std::fs::read(file).unwrap();
    let half = dir.path().join("half");
    std::fs::write(&half, &whole[..whole.len() - 1]).unwrap();
    let data = dir.path().join("data");
    failed(alluvium(&["restore", text(&half), "--data-dir", text(&data)]).await, "cut short");
    assert!(!data.join("alluvium.gpkg").exists() && !data.join("log").exists());
    // What it left is in nobody's way.
    succeeded(alluvium(&["restore", text(file), "--data-dir", text(&data)]).await);
    failed(alluvium(&["backup", text(&half), "--server", "http://127.0.0.1:9"]).await, "not available");
    assert_eq!(std::fs::read(&half).unwrap().len(), whole.len() - 1, "a backup that fails takes nothing away");
    server.app.shutdown().await;
}

/// A clustered store whose database is put back to an earlier dump, with a log that still has what came after, or has not.
#[cfg(feature = "cluster")]
mod of_the_database {
    use alluvium::clock::SystemClock;
    use alluvium::coordination::local::LocalCoordinator;
    use alluvium::delegate::postgis::PostGis;
    use alluvium::log::FeatureLog;
    use alluvium::log::memory::MemoryLog;
    use alluvium::store::Parts;

    use super::*;
    use crate::postgis::settings;
    use crate::postgres::{Database, database};

    const BUOYS: &str = r#"
[store]
sweep_interval = 0.02
[[feature_types]]
name = "buoys"
expiry = 0.05
properties = [{ name = "n", type = "int64" }]
"#;

    async fn parts(database: &Database, log: &Arc<MemoryLog>) -> Parts {
        Parts {
            log: log.clone(),
            delegate: Arc::new(PostGis::connect(settings(database)).await.unwrap()),
            coordinator: Arc::new(LocalCoordinator::new("one")),
            clock: Arc::new(SystemClock),
        }
    }

    async fn put(server: &Server, id: &str, n: u64) {
        let feature = json!({ "type": "Feature", "geometry": null, "properties": { "n": n } }).to_string();
        let path = format!("/collections/buoys/items/{id}");
        server.send("PUT", &path, &[("content-type", "application/geo+json")], feature).await.expect(204);
    }

    async fn settled(server: &Server) {
        for _ in 0..400 {
            let young = server.get("/collections/buoys/items?tier=transient").await.expect(200);
            if young.json()["numberMatched"] == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        panic!("not persisted in time: {}", server.get("/admin/status").await.text());
    }

    async fn tool(program: &'static str, arguments: Vec<String>) {
        let run = move || Command::new(program).args(arguments).output().unwrap();
        succeeded(tokio::task::spawn_blocking(run).await.unwrap());
    }

    /// Restores the dump into a new database.
    async fn restored(dump: &str) -> Database {
        let database = database().await.unwrap();
        tool("pg_restore", vec!["--dbname".into(), database.url.clone(), dump.into()]).await;
        database
    }

    async fn state(server: &Server) -> Vec<(String, u64)> {
        wait_until_ready(server).await;
        let all = server.get("/collections/buoys/items").await.expect(200).json();
        let one = |f: &serde_json::Value| (f["id"].as_str().unwrap().into(), f["properties"]["n"].as_u64().unwrap());
        all["features"].as_array().unwrap().iter().map(one).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn goes_on_with_what_the_log_has_and_tells_what_it_has_not() {
        let Some(database) = database().await else { return };
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let server = Server::over(parts(&database, &log).await, BUOYS).await;
        put(&server, "a", 1).await;
        put(&server, "b", 1).await;
        settled(&server).await;
        let dir = tempfile::tempdir().unwrap();
        let dump = text(&dir.path().join("dump")).to_owned();
        tool("pg_dump", vec!["--format=custom".into(), format!("--file={dump}"), database.url.clone()]).await;
        put(&server, "a", 2).await;
        server.send("DELETE", "/collections/buoys/items/b", &[], "").await.expect(204);
        settled(&server).await;
        put(&server, "c", 3).await;
        settled(&server).await;
        let expected = state(&server).await;
        assert_eq!(expected, [("a".into(), 2), ("c".into(), 3)]);
        let name = server.app.store().feature_type("buoys").unwrap().log_name();
        server.app.shutdown().await;

        // The log has it all: nothing is missing.
        let early = restored(&dump).await;
        let server = Server::over(parts(&early, &log).await, BUOYS).await;
        assert_eq!(state(&server).await, expected);
        server.app.shutdown().await;

        // What came first after the dump has been cut away: the server says so, and does not go on as if it had it.
        let early = restored(&dump).await;
        let end = log.range(&name, 0).await.unwrap().end;
        let postgis = PostGis::connect(settings(&early)).await.unwrap();
        let ft = alluvium::delegate::Delegate::catalogue(&postgis).await.unwrap().1.remove(0);
        let watermark = alluvium::delegate::Delegate::watermarks(&postgis, &ft).await.unwrap()[0];
        let start = watermark.durable_through + 2;
        assert!(start < end);
        log.cut(&name, 0, start).await.unwrap();
        let server = Server::over(parts(&early, &log).await, BUOYS).await;
        let missing = format!("offsets {} to {} are in neither", watermark.durable_through, start - 1);
        let told = server.get("/health/ready").await.expect(503).text();
        assert!(told.contains(&missing) && told.contains(&format!("from {start} to {}", end - 1)), "{told}");
        let refused = server.get("/collections/buoys/items").await.expect(503).text();
        assert!(refused.contains(&missing), "{refused}");

        // Whoever accepts that says so in the bookkeeping, and has what the log still has.
        let accept = format!(
            "UPDATE alluvium.watermark SET durable_through = {start}, evict_through = {start} WHERE feature_type = 'buoys'"
        );
        early.run(&accept).await;
        let found = state(&server).await;
        assert!(found.contains(&("c".into(), 3)), "{found:?}");
        server.app.shutdown().await;
    }
}
