//! The commands that are clients of a server, against a whole embedded one.

use std::time::Duration;

use alluvium::app::App;
use alluvium::client::Client;
use alluvium::config::{Config, DEMO};
use alluvium::ingest::{self, IngestArgs};
use alluvium::replay::{self, ReplayOptions};
use clap::Parser;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: IngestArgs,
}

async fn demo(dir: &std::path::Path) -> App {
    let mut config = Config::read("demo", DEMO, &[]).unwrap();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    config.store.data_dir = dir.join("data");
    App::start(config).await.unwrap()
}

async fn matched(client: &Client, collection: &str) -> u64 {
    loop {
        let page = client.get(&format!("/collections/{collection}/items?limit=1")).await.unwrap();
        // A machine that is busy with something else may not count in time.
        if let Some(matched) = page["numberMatched"].as_u64() {
            return matched;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_loaded_and_what_is_rejected_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let app = demo(dir.path()).await;
    let server = format!("http://{}", app.addr());
    let file = dir.path().join("ships.csv");
    let mut rows = String::from("MMSI,Lat,Lon,id,sog\n");
    for i in 0..2500 {
        let sog = if i % 1000 == 7 { "fast" } else { "3.5" };
        rows += &format!("{i},{},{},s{i},{sog}\n", i % 80, i % 180);
    }
    std::fs::write(&file, rows).unwrap();
    let file = file.display().to_string();
    let command = Command::parse_from(["ingest", &file, "--collection", "ships", "--server", &server]);
    let error = ingest::run(command.args).await.unwrap_err().to_string();
    assert!(error.starts_with("3 lines were rejected"), "{error}");
    let rejected = std::fs::read_to_string(format!("{file}.rejected.ndjson")).unwrap();
    let rejected: Vec<serde_json::Value> = rejected.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let lines: Vec<u64> = rejected.iter().map(|r| r["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [9, 1009, 2009]);
    assert_eq!(rejected[0]["pointer"], "/properties/sog");
    let client = Client::new(&server, None).unwrap();
    assert_eq!(matched(&client, "ships").await, 2497);
    let ship = client.get("/collections/ships/items/s9").await.unwrap();
    assert_eq!(
        (&ship["geometry"]["coordinates"], &ship["properties"]["mmsi"]),
        (&serde_json::json!([9.0, 9.0]), &9.into())
    );
    app.shutdown().await;
}

/// Of some, in vertices.
async fn longest_track(client: &Client) -> usize {
    let page = client.get("/collections/ship_tracks/items?limit=200").await.unwrap();
    let tracks = page["features"].as_array().unwrap().iter();
    tracks.map(|t| t["geometry"]["coordinates"].as_array().unwrap().len()).max().unwrap_or(0)
}

/// So that no round ends during the test.
fn slowly(server: &str) -> ReplayOptions {
    ReplayOptions { speed: 3.0, ..ReplayOptions::to(server) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demos_ships_are_all_there_and_leave_tracks() {
    let dir = tempfile::tempdir().unwrap();
    let app = demo(dir.path()).await;
    let server = format!("http://{}", app.addr());
    let stop = CancellationToken::new();
    let replaying = tokio::spawn(replay::run(slowly(&server), stop.clone()));
    let client = Client::new(&server, None).unwrap();
    let all = async {
        for collection in ["ships", "ship_tracks"] {
            while matched(&client, collection).await < 10_631 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while longest_track(&client).await < 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("not all ships came within a minute");
    stop.cancel();
    replaying.await.unwrap().unwrap();
    app.shutdown().await;

    // Started again, all of it is still there, and goes on from there.
    let app = demo(dir.path()).await;
    let server = format!("http://{}", app.addr());
    let client = Client::new(&server, None).unwrap();
    let ready = async {
        while client.get("/collections/ship_tracks/items?limit=1").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready).await.expect("not ready within a minute");
    let (stop, longest) = (CancellationToken::new(), longest_track(&client).await);
    assert!(longest >= 3, "{longest}");
    let replaying = tokio::spawn(replay::run(slowly(&server), stop.clone()));
    let grows = async {
        loop {
            let now = longest_track(&client).await;
            assert!(now >= longest, "the tracks began anew: {now} after {longest}");
            if now > longest {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), grows).await.expect("no track went on");
    assert_eq!(matched(&client, "ship_tracks").await, 10_631);
    stop.cancel();
    replaying.await.unwrap().unwrap();
    app.shutdown().await;
}
