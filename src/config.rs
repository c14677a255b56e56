//! Settings: plain values, checked before anything starts. Never a component, and nothing is read from here at run time.
//!
//! They come from the built-in defaults (`config/default.toml` says the same and documents every key; a test compares), then a
//! TOML file, then the environment (`ALLUVIUM__SECTION__KEY`), then the command line. A wrong or unknown key is an error that
//! names it.

pub mod layers;
mod memory;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::model::FeatureType;
use crate::model::feature_type::MAX_DECIMALS;
use layers::Error;
pub use layers::PREFIX;
pub use memory::Memory;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub service: Service,
    pub store: Store,
    pub memory: Memory,
    pub telemetry: Telemetry,
    pub kafka: Option<Kafka>,
    pub postgres: Option<Postgres>,
    pub zookeeper: Option<ZooKeeper>,
    /// Feature types that are made when they are not there yet.
    pub feature_types: Vec<FeatureType>,
}

/// The HTTP listener, who may do what, and the limits on requests.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    pub listen: SocketAddr,
    /// The address that clients use, without a slash at its end.
    pub public_url: Option<String>,
    /// Web pages of these origins may read and write.
    pub allowed_origins: Vec<String>,
    /// Whose forwarded headers are believed.
    pub trusted_proxies: Vec<Network>,
    pub allow_anonymous_writes: bool,
    pub allow_anonymous_reads: bool,
    /// A TOML file of names, roles and argon2 hashes.
    pub credentials: Option<PathBuf>,
    pub max_connections: usize,
    /// Requests that are answered at once, of either kind.
    pub max_reads: usize,
    pub max_writes: usize,
    /// Of each kind so many wait for a place; more are refused.
    pub max_waiting: usize,
    /// A read that takes longer is broken off.
    #[serde(deserialize_with = "seconds")]
    pub longest_read: Duration,
    /// Of a body that is taken as a whole: a Feature, a FeatureCollection, a WFS request.
    pub max_body_bytes: usize,
    /// Of one line of an NDJSON upload; its whole may have any length.
    pub max_line_bytes: usize,
    /// Features on a page when the client does not say.
    pub default_limit: u64,
    /// Features on a page at most; a greater limit is clamped.
    pub max_limit: u64,
    /// Of coordinates in answers of text, at most, for the types that do not say; `None`: all that they have.
    pub decimals: Option<u8>,
    /// How long a page may spend on its numberMatched; past it the count is left out.
    #[serde(deserialize_with = "seconds")]
    pub count_budget: Duration,
    /// How long a client may take to send a request's head, or to send nothing of its body.
    #[serde(deserialize_with = "seconds")]
    pub idle_timeout: Duration,
    /// How long requests under way may take to end when the server stops.
    #[serde(deserialize_with = "seconds")]
    pub shutdown_timeout: Duration,
}

/// What the service says of itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    pub title: String,
    pub description: String,
    pub keywords: Vec<String>,
    pub fees: String,
    pub access_constraints: String,
    pub provider: String,
    pub contact_name: Option<String>,
    pub contact_email: Option<String>,
    pub contact_url: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The embedded log and the GeoPackage; not used by the clustered stack.
    pub data_dir: PathBuf,
    #[serde(deserialize_with = "seconds")]
    pub sweep_interval: Duration,
    /// How long a write waits until this instance has applied it, and a read for the position that it asks for.
    #[serde(deserialize_with = "seconds")]
    pub wait_for_apply: Duration,
    /// How long records stay in the log after they are durable in the long-term store.
    #[serde(deserialize_with = "seconds")]
    pub log_window: Duration,
    /// How long after a track has left the index its line in the table is put together with what stands apart of it.
    #[serde(deserialize_with = "seconds")]
    pub track_rest: Duration,
    /// How often the catalogue is asked for feature types that other instances made.
    #[serde(deserialize_with = "seconds")]
    pub catalogue_poll: Duration,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Filter directives, `info,alluvium::store=debug`.
    pub log: String,
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Passed on to librdkafka as they are.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Topics are called this and the name of their log.
    #[serde(default = "alluvium_topics")]
    pub topic_prefix: String,
    /// How many brokers keep each new topic.
    #[serde(default = "one")]
    pub replication: i32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database?sslmode=...`.
    pub url: String,
    /// The schema of the feature tables.
    #[serde(default = "public")]
    pub schema: String,
    /// Every open read holds one.
    #[serde(default = "thirty_two")]
    pub max_connections: u32,
    /// The server ends a statement that takes longer.
    #[serde(default = "a_minute", deserialize_with = "seconds")]
    pub statement_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZooKeeper {
    /// `host:port`, several separated by commas; `tcp+tls://host:port` for TLS.
    pub servers: String,
    /// The path under which everything is kept; the instances of one cluster share it.
    #[serde(default = "alluvium_root")]
    pub root: String,
    /// How long a session outlives its connection.
    #[serde(default = "ten_seconds", deserialize_with = "seconds")]
    pub session_timeout: Duration,
    /// Digest authentication.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password: Option<String>,
}

impl Server {
    /// Features on a page of this type at most.
    pub fn max_limit_of(&self, ft: &FeatureType) -> u64 {
        ft.max_limit.unwrap_or(self.max_limit)
    }

    /// Features on a page of this type when the client does not say.
    pub fn default_limit_of(&self, ft: &FeatureType) -> u64 {
        ft.default_limit.unwrap_or(self.default_limit).min(self.max_limit_of(ft))
    }
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            allow_anonymous_writes: false,
            allow_anonymous_reads: true,
            credentials: None,
            max_connections: 4096,
            max_reads: 512,
            max_writes: 512,
            max_waiting: 1024,
            longest_read: Duration::from_secs(3600),
            max_body_bytes: 64 << 20,
            max_line_bytes: 4 << 20,
            default_limit: 10,
            max_limit: 10_000,
            decimals: None,
            count_budget: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Service {
    fn default() -> Self {
        Service {
            title: "Alluvium".into(),
            description: "Geospatial features that change all the time and are kept for good.".into(),
            keywords: Vec::new(),
            fees: "NONE".into(),
            access_constraints: "NONE".into(),
            provider: "Alluvium".into(),
            contact_name: None,
            contact_email: None,
            contact_url: None,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Store {
            data_dir: "alluvium-data".into(),
            sweep_interval: Duration::from_secs(1),
            wait_for_apply: Duration::from_secs(5),
            log_window: Duration::from_secs(3600),
            track_rest: Duration::from_secs(3600),
            catalogue_poll: Duration::from_millis(500),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry { log: "info".into(), log_format: LogFormat::Text }
    }
}

/// An address or a block of them, `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |a: IpAddr| match a {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, true),
            IpAddr::V6(v6) => (v6.to_bits(), false),
        };
        let ((net, net_is_v4), (one, one_is_v4)) = (bits(self.address), bits(address.to_canonical()));
        net_is_v4 == one_is_v4 && (self.prefix == 0 || (net ^ one) >> (128 - u32::from(self.prefix)) == 0)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("'{text}' is not an address, nor a network like 10.0.0.0/8");
        let (address, prefix) = text.split_once('/').map_or((text.as_str(), None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), |p| p.parse().map_err(|_| bad()))?;
        if prefix <= most { Ok(Network { address, prefix }) } else { Err(bad()) }
    }
}

/// The settings of the demo, compiled in.
pub const DEMO: &str = include_str!("../config/demo.toml");

/// The names that the clustered stack needs, all or none.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    pub kafka: &'a Kafka,
    pub postgres: &'a Postgres,
    pub zookeeper: &'a ZooKeeper,
}

impl Config {
    /// Reads the file, if one is named, and the environment over it.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Config> {
        let text = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                text.map_err(|e| anyhow::anyhow!("cannot read the settings in {}: {e}", path.display()))?
            }
            None => String::new(),
        };
        let name = file.map_or_else(|| "settings".to_owned(), |p| p.display().to_string());
        Config::read(&name, &text, &environment())
    }

    /// Reads settings from text, and `variables` over it. `name` is for messages.
    pub fn read(name: &str, text: &str, variables: &[(String, String)]) -> anyhow::Result<Config> {
        let explain = |e: Error| match e.variable(variables) {
            Some(variable) => anyhow::anyhow!("environment variable {variable}: {e}"),
            None => anyhow::anyhow!("{name}: {e}"),
        };
        let mut tree = layers::from_toml(text, &layers::system_lookup).map_err(explain)?;
        tree.overlay(variables);
        let config = Config::deserialize(tree).map_err(explain)?;
        config.check().map_err(explain)?;
        Ok(config)
    }

    /// The clustered stack's parts; `None`: the embedded one. [`Config::read`] has seen to it that there are all or none.
    pub fn cluster(&self) -> Option<Cluster<'_>> {
        match (&self.kafka, &self.postgres, &self.zookeeper) {
            (Some(kafka), Some(postgres), Some(zookeeper)) => Some(Cluster { kafka, postgres, zookeeper }),
            _ => None,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let parts = [
            ("kafka", self.kafka.is_some()),
            ("postgres", self.postgres.is_some()),
            ("zookeeper", self.zookeeper.is_some()),
        ];
        if parts.iter().any(|p| p.1)
            && let Some((missing, _)) = parts.iter().find(|p| !p.1)
        {
            let what = "the clustered stack needs the sections kafka, postgres and zookeeper; this one is missing";
            return Err(Error::at(missing, what));
        }
        self.server.check()?;
        self.memory.check()?;
        for (key, duration) in [
            ("store.sweep_interval", self.store.sweep_interval),
            ("store.wait_for_apply", self.store.wait_for_apply),
            ("store.catalogue_poll", self.store.catalogue_poll),
        ] {
            if duration.is_zero() {
                return Err(Error::at(key, "must be more than 0 seconds"));
            }
        }
        for (i, t) in self.feature_types.iter().enumerate() {
            t.check_declaration().map_err(|e| Error::at(&format!("feature_types.{}.{}", t.name, e.locator), e.what))?;
            if self.feature_types[..i].iter().any(|other| other.name == t.name) {
                return Err(Error::at(&format!("feature_types.{}", t.name), "declared twice"));
            }
        }
        Ok(())
    }
}

impl Server {
    fn check(&self) -> Result<(), Error> {
        if let Some(url) = &self.public_url {
            let ok = url.parse::<http::Uri>().is_ok_and(|u| {
                matches!(u.scheme_str(), Some("http" | "https")) && u.authority().is_some() && u.query().is_none()
            });
            if !ok {
                return Err(Error::at("server.public_url", format!("'{url}' is not like https://example.org/path")));
            }
        }
        for origin in &self.allowed_origins {
            let ok = origin.parse::<http::Uri>().is_ok_and(|u| {
                u.scheme().is_some()
                    && u.authority().is_some()
                    && matches!(u.path(), "" | "/")
                    && !origin.ends_with('/')
            });
            if !ok {
                return Err(Error::at(
                    "server.allowed_origins",
                    format!("'{origin}' is not an origin like https://example.org"),
                ));
            }
        }
        for (key, n) in [
            ("server.max_connections", self.max_connections as u64),
            ("server.max_reads", self.max_reads as u64),
            ("server.max_writes", self.max_writes as u64),
            ("server.longest_read", self.longest_read.as_millis() as u64),
            ("server.max_body_bytes", self.max_body_bytes as u64),
            ("server.max_line_bytes", self.max_line_bytes as u64),
            ("server.default_limit", self.default_limit),
            ("server.max_limit", self.max_limit),
        ] {
            if n == 0 {
                return Err(Error::at(key, "must be more than 0"));
            }
        }
        if self.default_limit > self.max_limit {
            return Err(Error::at("server.default_limit", "is greater than server.max_limit"));
        }
        if self.decimals.is_some_and(|n| n > MAX_DECIMALS) {
            return Err(Error::at("server.decimals", format!("at most {MAX_DECIMALS} decimals")));
        }
        Ok(())
    }
}

/// The environment's settings.
pub fn environment() -> Vec<(String, String)> {
    let readable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    std::env::vars_os().filter_map(readable).filter(|(name, _)| name.starts_with(PREFIX)).collect()
}

fn seconds<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let n = f64::deserialize(d)?;
    Duration::try_from_secs_f64(n).map_err(|_| serde::de::Error::custom(format!("{n} is not a number of seconds")))
}

fn public() -> String {
    "public".into()
}
fn alluvium_topics() -> String {
    "alluvium.".into()
}
fn one() -> i32 {
    1
}
fn thirty_two() -> u32 {
    32
}
fn a_minute() -> Duration {
    Duration::from_secs(60)
}
fn alluvium_root() -> String {
    "/alluvium".into()
}
fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

#[cfg(test)]
mod tests;
