//! `alluvium demo`: what a newcomer sees first. Loads the countries when they are not there yet and replays the ships, both
//! through the HTTP API of the server, like any other client.

use std::io::Read;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, ClientError};
use crate::replay::{self, ReplayOptions};

/// Natural Earth's countries, 1:110m; see demo/ATTRIBUTION.md.
const COUNTRIES: &[u8] = include_bytes!("../demo/countries.geojson.gz");

/// Runs against the server at this address until it is cancelled.
pub async fn run(server: String, shutdown: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        loaded = load_countries(&server) => loaded.context("the countries could not be loaded")?,
    }
    replay::run(ReplayOptions::to(server), shutdown).await
}

async fn load_countries(server: &str) -> anyhow::Result<()> {
    let client = Client::new(server, None)?;
    let there = loop {
        match client.get("/collections/countries/items?limit=1").await {
            // It is catching up with its log.
            Err(ClientError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            answer => break answer?,
        }
    };
    if there["numberReturned"].as_u64() != Some(0) {
        return Ok(());
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(COUNTRIES).read_to_string(&mut text)?;
    let collection: serde_json::Value = serde_json::from_str(&text)?;
    let mut lines = Vec::new();
    for feature in collection["features"].as_array().context("a FeatureCollection has features")? {
        let mut feature = feature.clone();
        feature["id"] = feature["properties"]["ADM0_A3"].clone();
        serde_json::to_writer(&mut lines, &feature)?;
        lines.push(b'\n');
    }
    let summary = client.post_lines("countries", Bytes::from(lines)).await?;
    match summary.errors.first() {
        None => Ok(()),
        Some(e) => anyhow::bail!("line {}: {}", e.line, e.detail),
    }
}
