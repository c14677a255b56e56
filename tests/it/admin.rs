//! What those see who run the server: records that could not be used, background tasks that fail, who may ask.

use std::sync::Arc;
use std::time::Duration;

use alluvium::clock::SystemClock;
use alluvium::coordination::local::LocalCoordinator;
use alluvium::delegate::memory::MemoryDelegate;
use alluvium::log::memory::MemoryLog;
use alluvium::log::{FeatureLog, NewRecord};
use alluvium::model::partition_of;
use alluvium::store::Parts;
use serde_json::{Value, json};

use crate::app::Server;

const SHIPS: &str = r#"
[[feature_types]]
name = "ships"
geometry = { type = "Point" }
partitions = 2
properties = [{ name = "name", type = "string", nullable = false }]
"#;

/// A server, and its log for another producer.
async fn with_log() -> (Server, Arc<MemoryLog>) {
    let clock = Arc::new(SystemClock);
    let log = Arc::new(MemoryLog::new(clock.clone()));
    let parts = Parts {
        log: log.clone(),
        delegate: Arc::new(MemoryDelegate::default()),
        coordinator: Arc::new(LocalCoordinator::new("one")),
        clock,
    };
    (Server::over(parts, SHIPS).await, log)
}

fn log_name(server: &Server) -> String {
    server.app.store().feature_type("ships").unwrap().log_name()
}

/// Asks until the answer's text is as wanted.
async fn eventually(server: &Server, path: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut last = String::new();
    for _ in 0..400 {
        last = server.get(path).await.text();
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{path} does not come to it: {last}");
}

fn ship(name: Value) -> String {
    json!({ "type": "Feature", "geometry": { "type": "Point", "coordinates": [1, 2] }, "properties": { "name": name } })
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_records_are_passed_over_counted_and_listed() {
    let (server, log) = with_log().await;
    let at = partition_of("a", 2);
    let good = ship(json!("Anna"));
    let records: [(&str, String); 8] = [
        ("a", "no JSON at all".into()),
        ("a", "{\"type\": \"Feature\"".into()),
        ("a", ship(json!(null))),
        ("a", ship(json!("x")).replace("\"name\":\"x\"", "")),
        ("a", ship(json!("x")).replace("\"name\"", "\"nome\"")),
        ("", good.clone()),
        ("\u{1}", good.clone()),
        ("a", good.clone()),
    ];
    let name: Arc<str> = log_name(&server).into();
    let record = |partition, key: &str, value: &str| NewRecord {
        log: name.clone(),
        partition,
        key: key.to_owned().into(),
        value: value.to_owned().into(),
    };
    log.append(vec![record(1 - at, "a", &good)]).await.unwrap();
    log.append(records.iter().map(|(key, value)| record(at, key, value)).collect()).await.unwrap();

    // What stands after them is a feature; of the one in the wrong partition none was made.
    eventually(&server, "/collections/ships/items/a", |text| text.contains("Anna")).await;
    let listed =
        eventually(&server, "/admin/dead-letters?collection=ships", |text| text.contains("wrong-partition")).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let letters = listed["dead_letters"].as_array().unwrap();
    let mut here: Vec<(u64, &str)> = letters
        .iter()
        .filter(|l| l["partition"] == at)
        .map(|l| (l["offset"].as_u64().unwrap(), l["reason"].as_str().unwrap()))
        .collect();
    here.sort_unstable();
    let expected = ["unreadable", "unreadable", "misfit", "misfit", "misfit", "key", "key"];
    assert_eq!(here, (0..).zip(expected).collect::<Vec<_>>(), "{listed}");
    let first = letters.iter().find(|l| l["partition"] == at && l["offset"] == 0).unwrap();
    assert_eq!((&first["key"], &first["value_begins"]), (&json!("a"), &json!("no JSON at all")));
    assert_eq!((&first["value_bytes"], &first["log"]), (&json!(14), &json!(&*name)));
    assert!(first["append_time_ms"].as_i64().unwrap() > 0);
    for offset in [2, 3] {
        let null = letters.iter().find(|l| l["partition"] == at && l["offset"] == offset).unwrap();
        assert!(null["detail"].as_str().unwrap().contains("'name' may not be null"), "{null}");
    }

    let one = server.get("/admin/dead-letters?limit=1").await.expect(200).json();
    assert_eq!(one["dead_letters"].as_array().map(Vec::len), Some(1));
    let metrics = server.get("/metrics").await.expect(200).text();
    let counted = format!("alluvium_dead_letters_total{{type=\"ships\",partition=\"{at}\",reason=\"misfit\"}} 3");
    assert!(metrics.contains(&counted), "{metrics}");
    let status = server.get("/admin/status").await.expect(200).json();
    let partition = &status["partitions"][at as usize];
    assert_eq!((&partition["poison_records"], &partition["dead_letters"]["key"]), (&json!(7), &json!(2)));
    server.get("/admin/dead-letters?limit=many").await.expect(400);
    server.get("/admin/dead-letters?colection=ships").await.expect(400);
    server.get("/admin/dead-letters?collection=boats").await.expect(404);
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_records_stay_listed_when_the_log_is_cut_past_them() {
    let settings = "[store]\nsweep_interval = 0.02\nlog_window = 0\n[[feature_types]]\nname = 'ships'\nexpiry = 0.05";
    let clock = Arc::new(SystemClock);
    let log = Arc::new(MemoryLog::new(clock.clone()));
    let delegate = MemoryDelegate::default();
    let parts = |instance: &str| Parts {
        log: log.clone(),
        delegate: Arc::new(delegate.clone()),
        coordinator: Arc::new(LocalCoordinator::new(instance)),
        clock: clock.clone(),
    };
    let server = Server::over(parts("one"), settings).await;
    let name: Arc<str> = log_name(&server).into();
    let record = |value: String| NewRecord { log: name.clone(), partition: 0, key: "a".into(), value: value.into() };
    log.append(vec![record("no JSON at all".into())]).await.unwrap();
    log.append(vec![record(json!({ "type": "Feature", "geometry": null, "properties": {} }).to_string())])
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while log.range(&name, 0).await.unwrap().start == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the log is not cut");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.app.shutdown().await;
    let again = Server::over(parts("two"), settings).await;
    let listed = again.get("/admin/dead-letters?collection=ships").await.expect(200).json();
    let letters = listed["dead_letters"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "{listed}");
    assert_eq!((&letters[0]["offset"], &letters[0]["value_begins"]), (&json!(0), &json!("no JSON at all")));
    again.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_task_that_fails_is_begun_again_and_shown() {
    let (server, log) = with_log().await;
    let status = server.get("/admin/status").await.expect(200).json();
    let names: Vec<&str> = status["tasks"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    for name in ["catalogue", "metrics", "tailing ships/0", "tailing ships/1", "sweeping ships/0", "sweeping ships/1"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let partition = &status["partitions"][0];
    assert_eq!((&status["instance"], &status["instances"]), (&json!("one"), &json!(["one"])));
    assert_eq!((&partition["refused"], &partition["end"]), (&json!(0), &json!(0)));
    eventually(&server, "/admin/status", |text| text.contains("\"owned_by\":\"one\"")).await;

    // The log is gone: what tails it fails for ever.
    log.remove(&log_name(&server)).await.unwrap();
    eventually(&server, "/health/ready", |text| text.contains("tailing ships/1: backing off")).await;
    let again = |text: &str| {
        let status: Value = serde_json::from_str(text).unwrap();
        let task =
            status["tasks"].as_array().unwrap().iter().find(|t| t["name"] == "tailing ships/0").cloned().unwrap();
        task["restarts"].as_u64().unwrap() >= 2 && task["last_error"].is_string() && task["last_error_at"].is_string()
    };
    eventually(&server, "/admin/status", again).await;
    let metrics = server.get("/metrics").await.expect(200).text();
    assert!(metrics.contains("alluvium_task_restarts_total{task=\"tailing ships/0\"}"), "{metrics}");
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_the_state_over_the_network_by_accident() {
    let server = Server::start("[server]\npublic_url = 'https://maps.example/'").await;
    server.get("/collections").await.expect(200);
    for path in ["/admin/status", "/admin/dead-letters"] {
        server.get(path).await.expect(401);
    }
    server.app.shutdown().await;
}
