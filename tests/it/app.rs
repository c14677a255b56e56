//! The server as a program: it starts in this process on a port of its own, is asked over real connections, and stops.

use std::time::Duration;

use alluvium::app::App;
use alluvium::config::Config;
use alluvium::store::Parts;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running embedded server with its client.
pub struct Server {
    pub app: App,
    client: Client,
    dir: TempDir,
}

type Client = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;

fn client() -> Client {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http()
}

async fn send(client: &Client, request: Request<Full<Bytes>>) -> Result<Answer, hyper_util::client::legacy::Error> {
    let (parts, body) = client.request(request).await?.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// Fails unless the status is this one.
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }
}

impl Server {
    /// With these settings (TOML), on a free port, with a data directory of its own.
    pub async fn start(settings: &str) -> Server {
        Server::start_in(tempfile::tempdir().unwrap(), settings).await
    }

    /// Over these parts instead of the embedded ones.
    pub async fn over(parts: Parts, settings: &str) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let app = App::start_with(config(&dir, settings), parts).await.unwrap();
        Server::of(app, dir)
    }

    pub async fn start_in(dir: TempDir, settings: &str) -> Server {
        let app = App::start(config(&dir, settings)).await.unwrap();
        Server::of(app, dir)
    }

    fn of(app: App, dir: TempDir) -> Server {
        Server { app, client: client(), dir }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.addr())
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(&self.client, request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// A GeoJSON body by POST.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/geo+json")], body.to_string()).await
    }

    pub fn data_dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Stops it and starts it again over the same data.
    pub async fn restart(self, settings: &str) -> Server {
        self.app.shutdown().await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            match App::start(config(&self.dir, settings)).await {
                Ok(app) => return Server::of(app, self.dir),
                // What a request that was broken off still holds is let go a moment later; a process would have ended.
                Err(e) if tokio::time::Instant::now() > deadline => panic!("{e:#}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

fn config(dir: &TempDir, settings: &str) -> Config {
    let mut config = Config::read("test", settings, &[]).unwrap();
    if config.server.listen.port() == 8080 {
        config.server.listen.set_port(0);
    }
    config.store.data_dir = dir.path().to_owned();
    config
}

const SHIPS: &str = r#"
[store]
sweep_interval = 0.05
[[feature_types]]
name = "ships"
geometry = { type = "Point" }
expiry = 0.2
properties = [{ name = "name", type = "string" }]
"#;

fn ship(id: &str, x: f64) -> Value {
    json!({ "type": "Feature", "id": id, "geometry": { "type": "Point", "coordinates": [x, 1.5] }, "properties": { "name": id } })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_after_a_restart() {
    let server = Server::start(SHIPS).await;
    server.get("/health/live").await.expect(200);
    server.post("/collections/ships/items", &ship("a", 1.0)).await.expect(201);
    let server = server.restart(SHIPS).await;
    wait_until_ready(&server).await;
    let item = server.get("/collections/ships/items/a").await.expect(200);
    assert_eq!(item.json()["geometry"]["coordinates"], json!([1.0, 1.5]));
    server.app.shutdown().await;
}

pub async fn wait_until_ready(server: &Server) {
    for _ in 0..200 {
        if server.get("/health/ready").await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not ready in time: {}", server.get("/health/ready").await.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_serves_one_process_at_a_time() {
    let server = Server::start(SHIPS).await;
    let Err(error) = App::start(config(&server.dir, SHIPS)).await else { panic!("two servers in one directory") };
    assert!(error.to_string().contains(&server.dir.path().display().to_string()), "{error}");
    let server = server.restart(SHIPS).await;
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir, "");
    config.server.listen = address;
    let Err(error) = App::start(config).await else { panic!("two servers on one port") };
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_that_differs_from_the_catalogue_is_refused() {
    let server = Server::start(SHIPS).await;
    server.app.shutdown().await;
    let other = SHIPS.replace("\"Point\"", "\"LineString\"");
    let Err(error) = App::start(config(&server.dir, &other)).await else { panic!("a point became a line") };
    assert!(format!("{error:#}").contains("ships"), "{error:#}");
}

/// Of a cluster whose parts are away.
#[cfg(feature = "cluster")]
fn lonely(listen: &str, postgres: &str) -> String {
    format!(
        "[server]\nlisten = '{listen}'\n[kafka]\nbrokers = '127.0.0.1:1'\n[postgres]\nurl = '{postgres}'\n\
         [zookeeper]\nservers = '127.0.0.1:1'\n"
    )
}

#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn while_its_parts_are_away_a_server_lives_and_names_them() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let starting = App::start(config(&dir, &lonely(&free, "postgres://nobody@127.0.0.1:1/none")));
    let client = client();
    let get = async |path: &str| {
        let request = || Request::get(format!("http://{free}{path}")).body(Full::default()).unwrap();
        loop {
            match send(&client, request()).await {
                Ok(answer) => return answer,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let asking = async {
        get("/health/live").await.expect(200);
        loop {
            let ready = get("/health/ready").await.expect(503).text();
            if ready.contains("PostGIS: ") && ready.contains("Kafka: ") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let refused = get("/collections/ships/items").await.expect(503);
        assert_eq!((refused.header("content-type"), refused.header("retry-after")), ("application/problem+json", "1"));
        let refused = get("/wfs?service=WFS&request=GetCapabilities").await.expect(503);
        assert!(refused.text().contains("ows:ExceptionReport") && refused.header("retry-after") == "1", "{refused:?}");
        let old = get("/wfs?service=WFS&version=1.0.0&request=GetCapabilities").await.expect(200);
        assert!(old.text().contains("ServiceExceptionReport"), "{}", old.text());
    };
    tokio::select! {
        ended = starting => panic!("it ended: {:?}", ended.err()),
        done = tokio::time::timeout(Duration::from_secs(30), asking) => done.unwrap(),
    }
}

#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_right_are_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0";
    let away = "postgres://nobody@127.0.0.1:1/none";
    for (settings, what) in [
        (lonely(listen, "postgres//nobody"), "URL of PostgreSQL"),
        (lonely(listen, away).replace("servers = '127.0.0.1:1'", "servers = 'here:there'"), "here:there"),
        (lonely(listen, away).replace("[postgres]", "[kafka.properties]\nno_such = '1'\n[postgres]"), "no_such"),
    ] {
        let error = App::start(config(&dir, &settings)).await.err().unwrap_or_else(|| panic!("it started: {settings}"));
        assert!(format!("{error:#}").contains(what), "{error:#}");
    }
}

/// Header names as old QGIS wants them, and requests under way are answered before the server ends.
#[tokio::test(flavor = "multi_thread")]
async fn the_wire_is_as_clients_expect_it() {
    let server = Server::start(SHIPS).await;
    let mut raw = TcpStream::connect(server.app.addr()).await.unwrap();
    let body = ship("loud", 2.0).to_string();
    let head = format!(
        "POST /collections/ships/items HTTP/1.1\r\nHost: x.example\r\nContent-Type: application/geo+json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    raw.write_all(&body.as_bytes()[..10]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopping = tokio::spawn(server.app.shutdown());
    tokio::time::sleep(Duration::from_millis(100)).await;
    raw.write_all(&body.as_bytes()[10..]).await.unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(answer.contains("\r\nLocation: http://x.example/collections/ships/items/loud\r\n"), "{answer}");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait() {
    let settings = format!("[server]\nmax_connections = 1\nidle_timeout = 0.5\n{SHIPS}");
    let server = Server::start(&settings).await;
    let silent = TcpStream::connect(server.app.addr()).await.unwrap();
    // Served when the silent one has been given up.
    server.get("/health/live").await.expect(200);
    drop(silent);
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_can_be_watched() {
    let server = Server::start(SHIPS).await;
    server.post("/collections/ships/items", &ship("a", 1.0)).await.expect(201);
    let status = server.get("/admin/status").await.expect(200).json();
    assert_eq!(status["partitions"][0]["feature_type"], "ships");
    let metrics = server.get("/metrics").await.expect(200).text();
    for line in [
        "alluvium_ready 1",
        r#"alluvium_written_features_total{type="ships",action="insert"}"#,
        r#"alluvium_applied_position{type="ships",partition="0"}"#,
        r#"alluvium_lag_offsets{type="ships",partition="0"} 0"#,
        r#"route="/collections/{collection}/items",method="POST",status="201""#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_and_kept_by_browsers() {
    let server = Server::start("").await;
    let page = server.send("GET", "/", &[("accept", "text/html,*/*;q=0.8")], "").await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"), "{:?}", page.headers);
    assert!(page.text().contains("<title>Alluvium</title>"));
    let script = server.get("/static/app.js").await.expect(200);
    assert!(script.header("content-type").starts_with("text/javascript"));
    let again = [("if-none-match", script.header("etag"))];
    assert!(server.send("GET", "/static/app.js", &again, "").await.expect(304).body.is_empty());
    let packed = server.send("GET", "/static/app.js", &[("accept-encoding", "gzip")], "").await.expect(200);
    assert_eq!(packed.header("content-encoding"), "gzip");
    server.get("/static/../Cargo.toml").await.expect(404);
    server.get("/static/nothing.js").await.expect(404);
    server.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_trusted_tells_the_address() {
    let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "geo.example"), ("x-forwarded-prefix", "/f")];
    let self_link = async |settings: &str| {
        let server = Server::start(settings).await;
        let landing = server.send("GET", "/?f=json", &forwarded, "").await.expect(200).json();
        let own = server.url("");
        server.app.shutdown().await;
        landing["links"][0]["href"].as_str().unwrap().replace(&own, "OWN")
    };
    assert_eq!(self_link("").await, "OWN/?f=json");
    assert_eq!(self_link("[server]\ntrusted_proxies = ['127.0.0.0/8']").await, "https://geo.example/f/?f=json");
    assert_eq!(self_link("[server]\npublic_url = 'https://maps.example/a/'").await, "https://maps.example/a/?f=json");
}
