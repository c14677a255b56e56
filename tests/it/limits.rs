//! What a server refuses when it has enough to do: writes when memory is full, requests when too many are under way, reads that
//! take too long.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{Answer, Server};

const ITEMS: &str = "/collections/ships/items";
const GET_FEATURE: &str = "/wfs?service=WFS&version=2.0.0&request=GetFeature&typeNames=ships";

fn ship(id: &str) -> Value {
    json!({ "type": "Feature", "id": id, "geometry": { "type": "Point", "coordinates": [1, 2] }, "properties": {} })
}

fn settings(more: &str) -> String {
    format!(
        "{more}\n[[feature_types]]\nname = 'ships'\ngeometry = {{ type = 'Point' }}\nexpiry = 3600\n\
         properties = [{{ name = 'name', type = 'string' }}]"
    )
}

/// A refusal that says when to come again, in the form of the protocol.
fn come_again(answer: &Answer, says: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"), "{}", answer.text());
    assert!(answer.text().contains(says), "{}", answer.text());
    match answer.header("content-type") {
        "application/problem+json" => assert_eq!(answer.json()["status"], 503),
        xml => assert!(xml.starts_with("text/xml") && answer.text().contains("ows:ExceptionReport"), "{xml}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_memory_refuses_every_kind_of_write() {
    // The first feature is more than that.
    let limits = "[server]\nidle_timeout = 0.5\n[memory]\nsoft_limit = 1\nhard_limit = 2";
    let server = Server::start(&settings(limits)).await;
    server.post(ITEMS, &ship("a")).await.expect(201);
    let one = format!("{ITEMS}/a");
    let json = [("content-type", "application/geo+json")];
    for (method, path, body) in [
        ("POST", ITEMS, ship("b").to_string()),
        ("POST", ITEMS, json!({ "type": "FeatureCollection", "features": [ship("b")] }).to_string()),
        ("PUT", one.as_str(), ship("a").to_string()),
        ("PATCH", one.as_str(), json!({ "properties": { "name": "Ada" } }).to_string()),
        ("DELETE", one.as_str(), String::new()),
    ] {
        come_again(&server.send(method, path, &json, body).await, "memory.hard_limit");
    }
    let lines = format!("{}\n{}\n", ship("b"), ship("c"));
    let upload = server.send("POST", ITEMS, &[("content-type", "application/x-ndjson")], lines).await;
    come_again(&upload, "0 lines were written, all of them before line 1");
    let delete = "<Transaction xmlns='http://www.opengis.net/wfs/2.0' service='WFS' version='2.0.0'>\
                  <Delete typeName='ships'><Filter xmlns='http://www.opengis.net/fes/2.0'>\
                  <ResourceId rid='ships.a'/></Filter></Delete></Transaction>";
    let transaction = server.send("POST", "/wfs", &[("content-type", "text/xml")], delete).await;
    come_again(&transaction, "memory.hard_limit");
    assert_eq!(server.get(ITEMS).await.expect(200).json()["numberMatched"], 1);
}

/// Much more than what the sockets between two programs take.
const MANY: usize = 20_000;

async fn with_many(limits: &str) -> Server {
    let server = Server::start(&settings(&format!("{limits}\nmax_limit = {MANY}"))).await;
    let name = "x".repeat(2_000);
    let line = |n| {
        let mut ship = ship(&format!("s{n}"));
        ship["properties"]["name"] = json!(name);
        format!("{ship}\n")
    };
    let lines: String = (0..MANY).map(line).collect();
    server.send("POST", ITEMS, &[("content-type", "application/x-ndjson")], lines).await.expect(200);
    server
}

/// A client that reads the beginning of a long answer and then nothing.
async fn stalled(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.app.addr()).await.unwrap();
    let request = format!("GET {ITEMS}?limit={MANY} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut beginning = [0; 1_000];
    stream.read_exact(&mut beginning).await.unwrap();
    assert!(beginning.starts_with(b"HTTP/1.1 200"));
    stream
}

async fn until_answered(server: &Server) {
    let answered = async {
        while server.get(&format!("{ITEMS}/s1")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("the place is not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_are_told_to_come_again() {
    let server = with_many("[server]\nmax_reads = 1\nmax_waiting = 0").await;
    let reader = stalled(&server).await;
    for path in [ITEMS, "/collections", "/collections/ships/items/s1", GET_FEATURE] {
        come_again(&server.get(path).await, "server.max_reads");
    }
    for path in ["/health/ready", "/metrics", "/"] {
        server.get(path).await.expect(200);
    }
    server.post(ITEMS, &ship("another")).await.expect(201);
    drop(reader);
    until_answered(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_to_wait_a_little_is_answered() {
    let server = with_many("[server]\nmax_reads = 1\nmax_waiting = 1").await;
    let reader = stalled(&server).await;
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(reader);
    };
    let path = format!("{ITEMS}/s1");
    let (answer, ()) = tokio::join!(server.get(&path), leaving);
    answer.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_takes_too_long_is_broken_off() {
    let server = with_many("[server]\nmax_reads = 1\nmax_waiting = 0\nlongest_read = 2").await;
    let mut reader = stalled(&server).await;
    until_answered(&server).await;
    let mut rest = Vec::new();
    // An end in the middle, or a reset.
    let _ = reader.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n") && rest.len() < MANY * 2_000, "{} bytes, as if that were all", rest.len());
}
