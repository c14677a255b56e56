//! Who may do what.
//!
//! Owns the rule and the credentials; the handlers ask ([`Caller::may`]) where they read, write or administer, since only they
//! know which it is. Rules:
//! - on a loopback address, or with `allow_anonymous_writes`, everybody may do everything; elsewhere writing and
//!   administration need credentials. A request that a proxy passed on is not local, whatever address it comes from;
//! - a web page may write only if its origin is this server or is allowed, on loopback too: browsers send whatever any page
//!   tells them, and what they may reach includes loopback.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use argon2::{Argon2, PasswordVerifier};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::Engine;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::config;

/// What one may do; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Reader,
    /// Writes features.
    Editor,
    /// Makes and removes feature types, sees the state of the server.
    Admin,
}

/// An entry of the credentials file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// No dot in it: an API key is `name.secret`.
    pub name: String,
    pub role: Role,
    /// The feature types that the role holds for; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// PHC string of argon2.
    pub hash: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialsFile {
    #[serde(default)]
    credentials: Vec<Credential>,
}

impl Credential {
    /// An entry for `secret`, with a fresh salt.
    pub fn new(name: &str, role: Role, types: Vec<String>, secret: &str) -> anyhow::Result<Credential> {
        use argon2::PasswordHasher;
        if name.is_empty() || name.contains(['.', ':']) || name.chars().any(char::is_control) {
            anyhow::bail!("'{name}' cannot be a name: no '.', ':' or control characters");
        }
        if secret.is_empty() {
            anyhow::bail!("the secret is empty");
        }
        let hash = Argon2::default().hash_password(secret.as_bytes()).map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(Credential { name: name.to_owned(), role, types, hash: hash.to_string() })
    }

    /// The lines of the credentials file.
    pub fn to_toml(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(&CredentialsFile { credentials: vec![self.clone()] })?)
    }
}

/// The rules of one server.
#[derive(Debug)]
pub struct Access {
    /// Local callers may do everything.
    open_locally: bool,
    anonymous_writes: bool,
    anonymous_reads: bool,
    allowed_origins: Vec<String>,
    public_origin: Option<String>,
    credentials: HashMap<String, Credential>,
    /// The secret last found right under each name, since checking a hash is slow on purpose.
    verified: Mutex<HashMap<String, Box<[u8]>>>,
}

/// Who sent a request, as far as it has shown.
#[derive(Clone, Debug)]
pub struct Caller {
    access: Arc<Access>,
    grant: Grant,
    /// The origin of the web page, where it is not one that may write.
    foreign_origin: Option<String>,
}

#[derive(Clone, Debug)]
enum Grant {
    /// May do everything.
    Open,
    Anonymous,
    Named {
        role: Role,
        types: Vec<String>,
    },
}

impl Access {
    /// Reads the credentials file, if there is one.
    pub fn new(server: &config::Server) -> anyhow::Result<Access> {
        let public_origin = server.public_url.as_deref().map(origin_of);
        let behind_proxy = !server.trusted_proxies.is_empty()
            || public_origin.as_deref().is_some_and(|o| !host_is_loopback(host_of_origin(o)));
        Ok(Access {
            open_locally: server.listen.ip().is_loopback() && !behind_proxy,
            anonymous_writes: server.allow_anonymous_writes,
            anonymous_reads: server.allow_anonymous_reads,
            allowed_origins: server.allowed_origins.clone(),
            public_origin,
            credentials: server.credentials.as_deref().map(read_credentials).transpose()?.unwrap_or_default(),
            verified: Mutex::default(),
        })
    }

    /// True when anonymous callers may not write, and there is nobody else who may: worth a warning at the start.
    pub fn nobody_may_write(&self) -> bool {
        !self.open_locally
            && !self.anonymous_writes
            && !self.credentials.values().any(|credential| credential.role >= Role::Editor)
    }

    /// Looks at a request's credentials and origin. Wrong credentials are an error even where none are needed.
    pub async fn identify(self: &Arc<Self>, headers: &HeaderMap) -> Result<Caller, Problem> {
        let relayed = ["forwarded", "x-forwarded-for", "x-forwarded-host"].iter().any(|h| headers.contains_key(*h));
        let grant = if self.anonymous_writes || (self.open_locally && !relayed) {
            Grant::Open
        } else {
            match presented(headers)? {
                None => Grant::Anonymous,
                Some((name, secret)) => self.verify(name, secret).await?,
            }
        };
        Ok(Caller { access: self.clone(), grant, foreign_origin: self.foreign_origin(headers) })
    }

    async fn verify(self: &Arc<Self>, name: String, secret: Box<[u8]>) -> Result<Grant, Problem> {
        let wrong = || unauthorized("the name or the secret is wrong");
        let credential = self.credentials.get(&name).ok_or_else(wrong)?.clone();
        let known = self.verified.lock().get(&name).is_some_and(|right| equal(right, &secret));
        if !known {
            let access = self.clone();
            let hash = credential.hash.clone();
            let check = move || {
                let right = Argon2::default().verify_password(&secret, hash.as_str()).is_ok();
                if right {
                    access.verified.lock().insert(name, secret);
                }
                right
            };
            if !tokio::task::spawn_blocking(check).await.unwrap_or(false) {
                return Err(wrong());
            }
        }
        Ok(Grant::Named { role: credential.role, types: credential.types })
    }

    /// The page's origin when it may not write.
    fn foreign_origin(&self, headers: &HeaderMap) -> Option<String> {
        let Some(origin) = headers.get(header::ORIGIN) else {
            // No page of another origin can keep a browser from sending its origin with a write; this is a second lock.
            let cross_site = headers.get("sec-fetch-site").is_some_and(|v| v == "cross-site" || v == "same-site");
            return cross_site.then(|| "of another site".to_owned());
        };
        let origin = origin.to_str().unwrap_or("null");
        (!self.is_own(origin, headers) && !self.is_allowed(origin)).then(|| origin.to_owned())
    }

    /// True when the settings name this origin.
    pub fn is_allowed(&self, origin: &str) -> bool {
        self.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    /// True when a page of this server's own has this origin. A host *name* is taken for ours only when the settings say so:
    /// in DNS, anybody's name may point at this address.
    fn is_own(&self, origin: &str, headers: &HeaderMap) -> bool {
        if self.public_origin.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(origin)) {
            return true;
        }
        let Some((_, authority)) = origin.split_once("://") else { return false };
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let same = host.is_some_and(|h| h.eq_ignore_ascii_case(authority));
        let name = host_of_origin(origin);
        same && (name.parse::<std::net::IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost"))
    }

    /// Whether pages of this origin may read the answers: of every origin where everybody may read over the network anyway.
    pub fn may_read_across(&self, origin: &str) -> bool {
        (!self.open_locally && self.anonymous_reads)
            || self.is_allowed(origin)
            || host_is_loopback(host_of_origin(origin))
    }
}

impl Caller {
    /// `Ok` when the caller may do what the role stands for, with this feature type (`None`: with the server as a whole).
    pub fn may(&self, role: Role, feature_type: Option<&str>) -> Result<(), Problem> {
        if role > Role::Reader
            && let Some(origin) = &self.foreign_origin
        {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!("web pages of the origin {origin} may not write here: it is not among server.allowed_origins"),
            ));
        }
        match &self.grant {
            Grant::Open => Ok(()),
            Grant::Anonymous | Grant::Named { .. } if role == Role::Reader && self.access.anonymous_reads => Ok(()),
            Grant::Anonymous => Err(unauthorized("this needs credentials: HTTP Basic, or an API key in X-API-Key")),
            Grant::Named { role: has, types } => {
                let here = types.is_empty() || feature_type.is_some_and(|name| types.iter().any(|t| t == name));
                if *has >= role && here {
                    Ok(())
                } else {
                    Err(Problem::new(StatusCode::FORBIDDEN, "these credentials do not allow this"))
                }
            }
        }
    }

    pub fn can(&self, role: Role, feature_type: Option<&str>) -> bool {
        self.may(role, feature_type).is_ok()
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Basic realm="alluvium", charset="UTF-8""#))
}

type NameAndSecret = (String, Box<[u8]>);

/// The name and the secret that a request carries: an API key `name.secret` in `X-API-Key` or as the user of HTTP Basic with an
/// empty password, or name and password of HTTP Basic.
fn presented(headers: &HeaderMap) -> Result<Option<NameAndSecret>, Problem> {
    let split = |key: &str| {
        let (name, secret) = key.split_once('.')?;
        Some((name.to_owned(), Box::from(secret.as_bytes())))
    };
    if let Some(key) = headers.get("x-api-key") {
        let pair = key.to_str().ok().and_then(split);
        return pair.map(Some).ok_or_else(|| unauthorized("the API key is not like name.secret"));
    }
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let bad = || unauthorized("the header Authorization is not HTTP Basic");
    let (scheme, encoded) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(bad)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(bad());
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).map_err(|_| bad())?;
    let text = String::from_utf8(decoded).map_err(|_| bad())?;
    match text.split_once(':') {
        Some((key, "")) => split(key).map(Some).ok_or_else(bad),
        Some((name, password)) => Ok(Some((name.to_owned(), Box::from(password.as_bytes())))),
        None => Err(bad()),
    }
}

fn read_credentials(path: &Path) -> anyhow::Result<HashMap<String, Credential>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("server.credentials: {shown}: {e}"))?;
    let file: CredentialsFile =
        toml::from_str(&text).map_err(|e| anyhow::anyhow!("server.credentials: {shown}: {}", e.message()))?;
    let mut by_name = HashMap::new();
    for credential in file.credentials {
        let name = credential.name.clone();
        if !credential.hash.starts_with("$argon2") {
            anyhow::bail!("server.credentials: {shown}: '{name}': the hash is not one of argon2");
        }
        if by_name.insert(name.clone(), credential).is_some() {
            anyhow::bail!("server.credentials: {shown}: '{name}' is there twice");
        }
    }
    Ok(by_name)
}

/// Compares in a time that does not tell where the difference is.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

/// `https://example.org` of `https://example.org/features`.
fn origin_of(url: &str) -> String {
    let after_scheme = url.find("://").map_or(0, |i| i + 3);
    let end = url[after_scheme..].find('/').map_or(url.len(), |i| after_scheme + i);
    url[..end].to_owned()
}

/// The host of an origin or a URL without a path, its port cut off, IPv6 without its brackets.
fn host_of_origin(origin: &str) -> &str {
    let authority = origin.split_once("://").map_or(origin, |(_, a)| a);
    if let Some(v6) = authority.strip_prefix('[') {
        return v6.split_once(']').map_or(v6, |(host, _)| host);
    }
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

fn host_is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(change: impl FnOnce(&mut config::Server)) -> Arc<Access> {
        let mut server = config::Server::default();
        change(&mut server);
        Arc::new(Access::new(&server).unwrap())
    }

    async fn status(access: &Arc<Access>, role: Role, headers: &[(&str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(axum::http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        match access.identify(&map).await {
            Ok(caller) => caller.may(role, Some("ships")).map_or_else(|p| p.status().as_u16(), |()| 200),
            Err(problem) => problem.status().as_u16(),
        }
    }

    #[tokio::test]
    async fn writes_are_open_on_loopback_alone() {
        let local = access(|_| {});
        let public = access(|s| s.listen = "0.0.0.0:80".parse().unwrap());
        let proxied = access(|s| s.public_url = Some("https://example.org".into()));
        let anybody = access(|s| {
            s.listen = "0.0.0.0:80".parse().unwrap();
            s.allow_anonymous_writes = true;
        });
        assert_eq!(status(&local, Role::Admin, &[]).await, 200);
        assert_eq!(status(&local, Role::Editor, &[("x-forwarded-for", "10.1.1.1")]).await, 401);
        assert_eq!(status(&public, Role::Editor, &[]).await, 401);
        assert_eq!(status(&public, Role::Reader, &[]).await, 200);
        assert_eq!(status(&proxied, Role::Editor, &[]).await, 401);
        assert_eq!(status(&anybody, Role::Editor, &[]).await, 200);
        let closed = access(|s| {
            s.listen = "0.0.0.0:80".parse().unwrap();
            s.allow_anonymous_reads = false;
        });
        assert_eq!(status(&closed, Role::Reader, &[]).await, 401);
    }

    #[tokio::test]
    async fn pages_of_other_origins_may_not_write() {
        let local = access(|s| s.allowed_origins = vec!["https://map.example".into()]);
        let write =
            async |origin: &str, host: &str| status(&local, Role::Editor, &[("origin", origin), ("host", host)]).await;
        assert_eq!(write("http://127.0.0.1:8080", "127.0.0.1:8080").await, 200);
        assert_eq!(write("http://localhost:8080", "localhost:8080").await, 200);
        assert_eq!(write("https://map.example", "127.0.0.1:8080").await, 200);
        assert_eq!(write("https://evil.example", "127.0.0.1:8080").await, 403);
        assert_eq!(write("http://127.0.0.1:3000", "127.0.0.1:8080").await, 403);
        assert_eq!(write("null", "127.0.0.1:8080").await, 403);
        // A name of the attacker's that points here.
        assert_eq!(write("http://evil.example:8080", "evil.example:8080").await, 403);
        let read = [("origin", "https://evil.example"), ("host", "127.0.0.1:8080")];
        assert_eq!(status(&local, Role::Reader, &read).await, 200);
        assert!(!local.may_read_across("https://evil.example"));
        assert_eq!(status(&local, Role::Editor, &[("sec-fetch-site", "cross-site")]).await, 403);
    }

    #[tokio::test]
    async fn credentials_give_their_role() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials.toml");
        let anna = Credential::new("anna", Role::Editor, vec!["ships".into()], "s3cret").unwrap();
        let root = Credential::new("root", Role::Admin, vec![], "k.e.y").unwrap();
        std::fs::write(&file, anna.to_toml().unwrap() + &root.to_toml().unwrap()).unwrap();
        let public = access(|s| {
            s.listen = "0.0.0.0:80".parse().unwrap();
            s.credentials = Some(file);
        });
        assert!(!public.nobody_may_write());
        let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        for (header, value, role, expected) in [
            ("x-api-key", "anna.s3cret".to_owned(), Role::Editor, 200),
            ("x-api-key", "anna.s3cret".to_owned(), Role::Admin, 403),
            ("x-api-key", "anna.wrong".to_owned(), Role::Editor, 401),
            ("x-api-key", "anna.wrong".to_owned(), Role::Reader, 401),
            ("x-api-key", "nobody".to_owned(), Role::Editor, 401),
            ("x-api-key", "root.k.e.y".to_owned(), Role::Admin, 200),
            ("authorization", basic("anna:s3cret"), Role::Editor, 200),
            ("authorization", basic("anna.s3cret:"), Role::Editor, 200),
            ("authorization", basic("anna:wrong"), Role::Editor, 401),
            ("authorization", "Bearer x".to_owned(), Role::Editor, 401),
        ] {
            // Twice: the second time the secret is remembered.
            for _ in 0..2 {
                assert_eq!(status(&public, role, &[(header, &value)]).await, expected, "{header} {value} {role:?}");
            }
        }
        let caller = public
            .identify(&HeaderMap::from_iter([("x-api-key".parse().unwrap(), "anna.s3cret".parse().unwrap())]))
            .await
            .unwrap();
        assert!(!caller.can(Role::Editor, Some("tracks")), "the role is for ships alone");
    }
}
