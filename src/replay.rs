//! The demo's ships: replays a day's AIS reports to a server, through the HTTP API like any other client.
//!
//! Owns the timing: reports come in their order, faster than life, with long silences cut short, round after round, as if they
//! were made now. When the server is slower than the reports, it gets the latest state of each ship less often; nothing piles up.
//! The tracks are the server's work; each round begins them anew, else a line would lead from where a ship ended to where it
//! begins again. A replay that is started again goes on in the round where the server's ships are.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, ClientError};
use crate::clock::{Clock, SystemClock};
use crate::format::json;
use crate::model::value::parse_instant;

/// AIS reports of 2022-01-03; see demo/ATTRIBUTION.md.
const REPORTS: &[u8] = include_bytes!("../demo/ais-2022-01-03.csv.gz");

/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(100);
/// A silence longer than this, in data time, becomes [`SHORT_GAP`].
const LONG_GAP_MS: i64 = 60_000;
const SHORT_GAP_MS: i64 = 1000;
/// Lines in one request, at most: what the server writes as one batch.
const LINES: usize = 1000;

#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The server's address: `http://127.0.0.1:8080`.
    pub server: String,
    pub api_key: Option<String>,
    /// How much faster than life.
    pub speed: f64,
}

impl ReplayOptions {
    pub fn to(server: impl Into<String>) -> ReplayOptions {
        ReplayOptions { server: server.into(), api_key: None, speed: 30.0 }
    }
}

/// Replays into the collection `ships`, whose tracks are `ship_tracks`, until it is cancelled. A server that is not available is waited for;
/// one that refuses ends the replay.
pub async fn run(options: ReplayOptions, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = Client::new(&options.server, options.api_key.as_deref())?;
    let mut replay = tokio::task::spawn_blocking(|| Replay::new(REPORTS)).await??;
    let latest = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        latest = latest_ships(&client) => latest.context("the replay has ended")?,
    };
    replay.go_on_from(&latest, SystemClock.now_ms());
    let began = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let data_time_ms = began.elapsed().as_secs_f64() * 1000.0 * options.speed;
        replay.advance(data_time_ms as i64, SystemClock.now_ms());
        let sending = async {
            send(&client, &replay.fleet, &mut replay.moved).await?;
            if replay.round_is_over {
                remove_tracks(&client).await?;
                replay.round_is_over = false;
            }
            Ok(())
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            sent = sending => match sent {
                Ok(()) => {}
                Err(ClientError::Unavailable { what, retry_after_s }) => {
                    tracing::warn!("the replay waits: {what}");
                    tokio::time::sleep(Duration::from_secs(retry_after_s.unwrap_or(1).clamp(1, 30))).await;
                }
                Err(e) => return Err(e).context("the replay has ended"),
            },
        }
    }
}

/// More ships than reports are ever due in one tick.
const LATEST: usize = 100;

/// The ships that were written last: their id, position and time.
async fn latest_ships(client: &Client) -> Result<Vec<LatestShip>, ClientError> {
    let path = format!("/collections/ships/items?sortby=-time&limit={LATEST}&f=json");
    let answer = loop {
        match client.get(&path).await {
            Err(ClientError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            answer => break answer?,
        }
    };
    let ship = |f: &serde_json::Value| {
        let at = |i: usize| f["geometry"]["coordinates"][i].as_f64();
        let time = f["properties"]["time"].as_str()?.to_owned();
        Some(LatestShip { mmsi: f["properties"]["mmsi"].as_i64()?, position: [at(0)?, at(1)?], time })
    };
    Ok(answer["features"].as_array().into_iter().flatten().filter_map(ship).collect())
}

struct LatestShip {
    mmsi: i64,
    position: [f64; 2],
    time: String,
}

/// Sends those ships that are marked, and takes the mark from those that the server has.
async fn send(client: &Client, fleet: &[Ship], marked: &mut BTreeSet<usize>) -> Result<(), ClientError> {
    while !marked.is_empty() {
        let batch: Vec<usize> = marked.iter().copied().take(LINES).collect();
        let mut lines = Vec::new();
        for ship in &batch {
            fleet[*ship].write(&mut lines);
            lines.push(b'\n');
        }
        let summary = client.post_lines("ships", Bytes::from(lines)).await?;
        if let Some(error) = summary.errors.first() {
            tracing::warn!(rejected = summary.rejected, "the server took not every ship: {}", error.detail);
        }
        batch.iter().for_each(|ship| {
            marked.remove(ship);
        });
    }
    Ok(())
}

/// Every track, in one transaction.
async fn remove_tracks(client: &Client) -> Result<(), ClientError> {
    let request = r#"<Transaction service="WFS" version="2.0.0" xmlns="http://www.opengis.net/wfs/2.0">
        <Delete typeName="ship_tracks"><Filter xmlns="http://www.opengis.net/fes/2.0">
            <Not><PropertyIsNull><ValueReference>mmsi</ValueReference></PropertyIsNull></Not>
        </Filter></Delete></Transaction>"#;
    client.post_wfs(request.to_owned()).await
}

/// The reports and where in them the replay is. Pure: the clock comes in as a number.
struct Replay {
    /// In the order of their time. The replay's own time of each, milliseconds from the first, without the long silences.
    reports: Vec<(i64, Report)>,
    fleet: Vec<Ship>,
    next: usize,
    /// When the present round began, in the replay's time.
    round_ms: i64,
    /// Nothing more is played until the tracks have been removed.
    round_is_over: bool,
    /// Ships whose position the server has yet to be told.
    moved: BTreeSet<usize>,
}

/// What a ship said.
struct Report {
    ship: usize,
    position: [f64; 2],
    /// `sog`, `cog`, `heading` and `status` as JSON.
    members: String,
}

/// A ship and what is known of it now.
#[derive(Default)]
struct Ship {
    mmsi: i64,
    name: Option<String>,
    /// What does not change: `callsign`, `vessel_type`, `length`, `width`, `draft` as JSON.
    members: String,
    /// The latest report's.
    position: [f64; 2],
    report: String,
    /// Milliseconds since the epoch.
    time_ms: i64,
}

impl Replay {
    /// Reads the gzipped CSV. Every ship begins at the place of its first report, so that all are on the map at once.
    fn new(csv_gz: &[u8]) -> anyhow::Result<Replay> {
        let mut reports = Vec::new();
        let mut fleet: Vec<Ship> = Vec::new();
        let mut known = std::collections::HashMap::new();
        let mut rows = csv::Reader::from_reader(flate2::read::GzDecoder::new(csv_gz));
        let header = rows.headers()?.clone();
        let column = |name: &str| header.iter().position(|h| h == name).with_context(|| format!("no column {name}"));
        let columns = Columns {
            mmsi: column("MMSI")?,
            time: column("BaseDateTime")?,
            lat: column("LAT")?,
            lon: column("LON")?,
            name: column("VesselName")?,
        };
        let (of_ship, of_report) = (Member::find(&OF_SHIP, &header)?, Member::find(&OF_REPORT, &header)?);
        let mut row = csv::StringRecord::new();
        while rows.read_record(&mut row)? {
            let Some((mmsi, time_ms, position)) = columns.read(&row) else { continue };
            let ship = *known.entry(mmsi).or_insert_with(|| {
                let name = row.get(columns.name).map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned);
                fleet.push(Ship { mmsi, name, members: Member::json(&of_ship, &row), ..Ship::default() });
                fleet.len() - 1
            });
            reports.push((time_ms, Report { ship, position, members: Member::json(&of_report, &row) }));
        }
        reports.sort_by_key(|(time, _)| *time);
        let (mut before, mut at) = (reports.first().map_or(0, |(t, _)| *t), 0);
        for (time, report) in &mut reports {
            let gap = *time - before;
            before = *time;
            at += if gap > LONG_GAP_MS { SHORT_GAP_MS } else { gap };
            *time = at;
            let ship = &mut fleet[report.ship];
            if ship.report.is_empty() {
                (ship.position, ship.report) = (report.position, report.members.clone());
            }
        }
        // Tracks of an earlier run may be there.
        Ok(Replay { reports, fleet, next: 0, round_ms: 0, round_is_over: true, moved: BTreeSet::new() })
    }

    /// Goes on behind the last report that the server has, when that can be told from the ships that were written last;
    /// otherwise the replay stays at its beginning.
    fn go_on_from(&mut self, latest: &[LatestShip], now_ms: i64) {
        let Some(newest) = latest.first() else { return };
        let last_tick = latest.iter().take_while(|s| s.time == newest.time);
        // A beginning puts all ships in their places at one time.
        if last_tick.clone().count() == LATEST {
            return;
        }
        // A ship at anchor tells the same place again and again: the first time is certain to have been played.
        let played = last_tick.filter_map(|s| {
            let is_it = |(_, r): &(i64, Report)| r.position == s.position && self.fleet[r.ship].mmsi == s.mmsi;
            self.reports.iter().position(is_it)
        });
        let Some(last) = played.max() else { return };
        for (_, report) in &self.reports[..=last] {
            let ship = &mut self.fleet[report.ship];
            ship.position = report.position;
            ship.report.clone_from(&report.members);
        }
        self.fleet.iter_mut().for_each(|ship| ship.time_ms = now_ms);
        self.round_ms = -self.reports[last].0;
        self.next = (last + 1) % self.reports.len();
        self.round_is_over = self.next == 0;
    }

    /// Plays what is due at `replay_ms` after the beginning, at the wall clock's `now_ms`, to the end of the round at most.
    fn advance(&mut self, replay_ms: i64, now_ms: i64) {
        if self.round_is_over {
            return;
        }
        for (i, ship) in self.fleet.iter_mut().enumerate().filter(|(_, ship)| ship.time_ms == 0) {
            ship.time_ms = now_ms;
            self.moved.insert(i);
        }
        while let Some((at, report)) = self.reports.get(self.next).filter(|_| !self.round_is_over) {
            if self.round_ms + at > replay_ms {
                return;
            }
            let ship = &mut self.fleet[report.ship];
            ship.position = report.position;
            ship.report.clone_from(&report.members);
            ship.time_ms = now_ms;
            self.moved.insert(report.ship);
            self.next += 1;
            if self.next == self.reports.len() {
                let next_round = self.round_ms + at + SHORT_GAP_MS;
                // A machine that slept takes up where it was instead of playing all rounds it missed.
                self.round_ms = if replay_ms - next_round > *at { replay_ms } else { next_round };
                (self.next, self.round_is_over) = (0, true);
            }
        }
    }
}

impl Ship {
    /// Appends the ship as a GeoJSON Feature.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"type":"Feature","id":""#);
        json::integer(out, self.mmsi);
        out.extend_from_slice(br#"","geometry":{"type":"Point","coordinates":["#);
        json::number(out, self.position[0]);
        out.push(b',');
        json::number(out, self.position[1]);
        out.extend_from_slice(br#"]},"properties":{"mmsi":"#);
        json::integer(out, self.mmsi);
        out.extend_from_slice(br#","name":"#);
        match &self.name {
            Some(name) => json::string(out, name),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(self.members.as_bytes());
        out.extend_from_slice(self.report.as_bytes());
        out.extend_from_slice(br#","time":""#);
        json::instant(out, self.time_ms * 1000);
        out.extend_from_slice(br#""}}"#);
    }
}

/// Where in a row what is read of every report stands.
struct Columns {
    mmsi: usize,
    time: usize,
    lat: usize,
    lon: usize,
    name: usize,
}

impl Columns {
    /// The ship, the time in milliseconds, the position; `None` of a row that lacks one of them.
    fn read(&self, row: &csv::StringRecord) -> Option<(i64, i64, [f64; 2])> {
        let position = [row.get(self.lon)?.parse().ok()?, row.get(self.lat)?.parse().ok()?];
        let time_ms = parse_instant(row.get(self.time)?)? / 1000;
        Some((row.get(self.mmsi)?.parse().ok()?, time_ms, position))
    }
}

/// How a property is read.
struct Member {
    property: &'static str,
    column: &'static str,
    kind: Kind,
}

enum Kind {
    Text,
    /// A number; the one given stands for 'not available' in AIS.
    Number(f64),
}

const fn number(property: &'static str, column: &'static str, unavailable: f64) -> Member {
    Member { property, column, kind: Kind::Number(unavailable) }
}

const OF_SHIP: [Member; 5] = [
    Member { property: "callsign", column: "CallSign", kind: Kind::Text },
    number("vessel_type", "VesselType", 0.0),
    number("length", "Length", 0.0),
    number("width", "Width", 0.0),
    number("draft", "Draft", 0.0),
];
const OF_REPORT: [Member; 4] = [
    number("status", "Status", 15.0),
    number("sog", "SOG", 102.3),
    number("cog", "COG", 360.0),
    number("heading", "Heading", 511.0),
];

impl Member {
    fn find(members: &'static [Member], header: &csv::StringRecord) -> anyhow::Result<Vec<(usize, &'static Member)>> {
        let place = |m: &'static Member| {
            let at = header.iter().position(|h| h == m.column);
            Ok((at.with_context(|| format!("no column {}", m.column))?, m))
        };
        members.iter().map(place).collect()
    }

    /// Members of a JSON object, each with a comma before it; what is not available is left out.
    fn json(members: &[(usize, &Member)], row: &csv::StringRecord) -> String {
        let mut out = Vec::new();
        for (at, member) in members {
            let text = row.get(*at).unwrap_or("").trim();
            let mut value = Vec::new();
            match member.kind {
                Kind::Text if !text.is_empty() => json::string(&mut value, text),
                Kind::Text => continue,
                Kind::Number(unavailable) => match text.parse::<f64>() {
                    Ok(n) if n.is_finite() && n != unavailable => json::number(&mut value, n),
                    _ => continue,
                },
            }
            out.push(b',');
            json::string(&mut out, member.property);
            out.push(b':');
            out.extend_from_slice(&value);
        }
        String::from_utf8(out).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::Value;

    use super::*;

    fn replay(rows: &str) -> Replay {
        let header =
            "MMSI,BaseDateTime,LAT,LON,SOG,COG,Heading,VesselName,CallSign,VesselType,Status,Length,Width,Draft";
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        write!(gz, "{header}\n{rows}").unwrap();
        Replay::new(&gz.finish().unwrap()).unwrap()
    }

    fn json(write: impl Fn(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        write(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    const ROWS: &str = "1,2022-01-03T00:00:00,10.5,20.5,3.5,360.0,511,\"A \"\"B\"\"\",XY1,70,5,100,,6.1\n\
                        2,2022-01-03T00:00:10,11,21,0,90,90,,,,,,,\n\
                        bad,row,,,,,,,,,,,,\n\
                        1,2022-01-03T00:00:20,10.6,20.5,4,1,2,,,,,,,\n\
                        1,2022-01-03T20:00:00,10.7,20.5,4,1,2,,,,,,,\n";

    #[test]
    fn every_ship_is_there_at_once() {
        let mut replay = replay(ROWS);
        replay.round_is_over = false;
        replay.advance(0, 1_000_000);
        assert_eq!(replay.moved, BTreeSet::from([0, 1]));
        let feature = json(|out| replay.fleet[0].write(out));
        let expected = serde_json::json!({
            "type": "Feature", "id": "1", "geometry": {"type": "Point", "coordinates": [20.5, 10.5]},
            "properties": {"mmsi": 1, "name": "A \"B\"", "callsign": "XY1", "vessel_type": 70.0, "length": 100.0, "draft": 6.1,
                           "status": 5.0, "sog": 3.5, "time": "1970-01-01T00:16:40Z"}
        });
        assert_eq!(feature, expected);
    }

    #[test]
    fn reports_come_when_they_are_due_and_a_silence_is_cut_short() {
        let mut replay = replay(ROWS);
        replay.round_is_over = false;
        replay.advance(0, 1000);
        replay.moved.clear();
        replay.advance(19_999, 2000);
        assert_eq!(replay.moved, BTreeSet::from([1]));
        replay.advance(20_000, 3000);
        assert_eq!(replay.moved, BTreeSet::from([0, 1]));
        assert_eq!((replay.fleet[0].position, replay.fleet[0].time_ms), ([20.5, 10.6], 3000));
        // Twenty hours of silence take a second. The next round waits until the tracks are gone.
        replay.advance(22_000, 4000);
        assert_eq!((replay.next, replay.round_is_over, replay.fleet[0].position), (0, true, [20.5, 10.7]));
        replay.round_is_over = false;
        replay.advance(22_000, 5000);
        assert_eq!((replay.next, replay.fleet[0].position), (1, [20.5, 10.5]));
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut replay = replay(ROWS);
        replay.round_is_over = false;
        replay.advance(1_000_000_000, 1000);
        assert_eq!(replay.round_ms, 1_000_000_000);
    }

    fn latest(ships: &[(i64, [f64; 2], i64)]) -> Vec<LatestShip> {
        let ship = |&(mmsi, position, time): &(i64, _, i64)| LatestShip { mmsi, position, time: time.to_string() };
        ships.iter().map(ship).collect()
    }

    #[test]
    fn a_replay_that_is_started_again_goes_on_where_the_ships_are() {
        let mut replay = replay(ROWS);
        replay.go_on_from(&latest(&[(1, [20.5, 10.6], 9), (2, [21.0, 11.0], 5)]), 1000);
        assert_eq!((replay.next, replay.round_is_over), (3, false));
        replay.advance(0, 1000);
        assert!(replay.moved.is_empty(), "the server has these ships: {:?}", replay.moved);
        replay.advance(1000, 2000);
        assert_eq!((replay.moved.clone(), replay.fleet[0].position), (BTreeSet::from([0]), [20.5, 10.7]));
    }

    #[test]
    fn a_replay_begins_where_nothing_can_be_told_and_when_the_round_was_over() {
        let at_once = vec![(1, [20.5, 10.6], 9); LATEST];
        for (ships, why) in [(vec![], "none"), (vec![(3, [0.0, 0.0], 9)], "others"), (at_once, "a beginning")] {
            let mut replay = replay(ROWS);
            replay.go_on_from(&latest(&ships), 1000);
            assert_eq!((replay.next, replay.round_is_over, replay.fleet[0].time_ms), (0, true, 0), "{why}");
        }
        let mut replay = replay(ROWS);
        replay.go_on_from(&latest(&[(1, [20.5, 10.7], 9)]), 1000);
        assert_eq!((replay.next, replay.round_is_over), (0, true));
    }

    #[test]
    fn the_demos_own_reports_are_read() {
        let replay = Replay::new(REPORTS).unwrap();
        assert_eq!((replay.reports.len(), replay.fleet.len()), (99_999, 10_631));
        let length = replay.reports.last().unwrap().0;
        assert!((20 * 60_000..60 * 60_000).contains(&length), "{length} ms");
    }
}
