//! WFS over HTTP, against a whole embedded server: requests as clients send them, answers as they must be.

mod capabilities;
mod dialects;
mod endpoints;
mod errors;
mod joins;
mod leaflet;
mod locks;
mod reading;
mod schemas;
mod settings;
mod standard_properties;
mod stored_queries;
mod transactions;
mod versions;

use alluvium::format::xml::{self, Element};
use axum::http::StatusCode;

use self::schemas::{CAPABILITIES_10, OGC_10, OWS_10, OWS_11, WFS_10, WFS_11, WFS_20, validate};
use crate::app;

const URN: &str = "urn:ogc:def:crs:EPSG::4326";

const SETTINGS: &str = r#"
[server]
max_body_bytes = 20000000
[service]
title = "Ships & more"
keywords = ["AIS", "<b>"]
contact_email = "me@example.org"
[[feature_types]]
name = "ships"
title = "Ships & boats"
geometry = { type = "Point" }
properties = [
  { name = "name", type = "string" },
  { name = "sog", type = "number" },
  { name = "crew", type = "int32" },
  { name = "seen", type = "date-time" },
  { name = "day", type = "date" },
  { name = "afloat", type = "boolean" },
]
[[feature_types]]
name = "roads"
geometry = { type = "MultiLineString", epsg = 3857, dimension = "XYZ" }
properties = [{ name = "name", type = "string", nullable = false }]
[[feature_types]]
name = "notes"
properties = [{ name = "text", type = "string" }]
"#;

/// A server that is asked at `/wfs`.
struct Server(app::Server);

struct Answer {
    status: StatusCode,
    content_type: String,
    position: Option<String>,
    text: String,
}

impl Answer {
    #[track_caller]
    fn xml(&self) -> Element {
        xml::parse(self.text.as_bytes(), Default::default()).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

impl Server {
    async fn start() -> Server {
        Server::with(SETTINGS).await
    }

    /// With these settings.
    async fn with(settings: &str) -> Server {
        Server(app::Server::start(settings).await)
    }

    async fn send(&self, method: &str, query: &str, body: &str) -> Answer {
        let query: String = query.chars().map(encoded).collect();
        let answer = self.0.send(method, &format!("/wfs{query}"), &[], body.to_owned()).await;
        Answer {
            status: answer.status,
            content_type: answer.header("content-type").to_owned(),
            position: Some(answer.header("alluvium-position").to_owned()).filter(|p| !p.is_empty()),
            text: answer.text(),
        }
    }

    async fn get(&self, query: &str) -> Answer {
        self.ask("2.0.0", query).await
    }

    async fn ask(&self, version: &str, query: &str) -> Answer {
        self.send("GET", &format!("?service=WFS&version={version}&{query}"), "").await
    }

    async fn post(&self, body: &str) -> Answer {
        self.send("POST", "", body).await
    }

    async fn transaction(&self, actions: &str) -> Answer {
        self.post(&format!(
            "<wfs:Transaction service=\"WFS\" version=\"2.0.0\" xmlns:wfs=\"http://www.opengis.net/wfs/2.0\" \
             xmlns:fes=\"http://www.opengis.net/fes/2.0\" xmlns:gml=\"http://www.opengis.net/gml/3.2\" \
             xmlns:app=\"urn:alluvium:app\">{actions}</wfs:Transaction>"
        ))
        .await
    }

    /// Five ships, from 20°E 60°N eastwards, of ids s1 to s5.
    async fn with_ships() -> Server {
        let server = Server::start().await;
        let ships: String = (1..=5)
            .map(|n| {
                let name = if n == 3 { String::new() } else { format!("<app:name>R&amp;D {n}</app:name>") };
                format!(
                    "<app:ships gml:id=\"ships.s{n}\"><app:geom><gml:Point><gml:pos>60 {}</gml:pos></gml:Point></app:geom>\
                     {name}<app:sog>{}.5</app:sog><app:crew>{}</app:crew><app:seen>2026-01-0{n}T00:00:00Z</app:seen></app:ships>",
                    19 + n,
                    n,
                    n % 2
                )
            })
            .collect();
        let answer = server.transaction(&format!("<wfs:Insert idgen=\"UseExisting\">{ships}</wfs:Insert>")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        server
    }

    /// The names of the ships that a GetFeature gives, in its order.
    async fn ids(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("request=GetFeature&typeNames=app:ships&{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let members = answer.xml().children;
        members.iter().map(|m| m.children[0].attribute("id").unwrap().to_owned()).collect()
    }
}

/// What may not stand in an address as it is, so that filters can be written readably.
fn encoded(c: char) -> String {
    match c {
        '<' | '>' | ' ' | '\'' | '"' | '#' | '{' | '}' => format!("%{:02X}", u32::from(c)),
        c => c.into(),
    }
}

#[track_caller]
fn exception(answer: &Answer, status: u16, code: &str, locator: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    assert!(answer.content_type.starts_with("text/xml"));
    let root = answer.xml();
    assert_eq!((&*root.prefix, &*root.local), ("ows", "ExceptionReport"));
    let e = root.child("Exception").unwrap();
    assert_eq!((e.attribute("exceptionCode"), e.attribute("locator")), (Some(code), Some(locator)), "{}", answer.text);
    assert!(!e.child("ExceptionText").unwrap().text.is_empty());
    validate(&answer.text, if status == 200 { OWS_10 } else { OWS_11 }, None);
}
