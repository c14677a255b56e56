//! Coordination over ZooKeeper (3.6 or newer).
//!
//! Below the root node: `members/{instance}` and `leases/{resource}`, both ephemeral, so that they are gone with the session
//! of the instance that made them; and `agreement`, which stays. One supervised task owns the session: it connects, registers,
//! keeps the cached list of members and the agreement fresh and, when the session is lost, begins again with a new one.
//!
//! Invariants:
//! - A lease belongs to the session in which it was taken, and is lost with it.
//! - A session counts as good for two thirds of its time-out after the last request that the server has answered, counted
//!   from when it was sent. So a holder that is cut off, or whose process stood still, knows that it may have lost its leases
//!   before the server gives them to another.
//! - A member's node holds the version of the agreement that it has confirmed in this session, none at first: the agreement is
//!   read when the node is there, so who changes it either finds the node or is read. A version is the change's zxid.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use zookeeper_client::{Acls, AddWatchMode, Client, CreateMode, CreateOptions, Error};

use super::{Agreement, CoordinationError, Coordinator, Lease, fair_owner};
use crate::task::{TaskStatus, Tasks};

/// How to reach ZooKeeper.
#[derive(Clone, Debug)]
pub struct ZooKeeperSettings {
    /// `host:port,host:port`; `tcp+tls://host:port` for TLS. A path at the end goes before `root`.
    pub servers: String,
    /// An absolute path. It is made when it is not there.
    pub root: String,
    /// How long a dead instance keeps its leases. The server may shorten or lengthen it.
    pub session_timeout: Duration,
    /// Scheme and credentials, as `("digest", "user:password")`. With these only the same user may read and change our nodes.
    pub auth: Option<(String, String)>,
}

impl Default for ZooKeeperSettings {
    fn default() -> Self {
        ZooKeeperSettings {
            servers: "127.0.0.1:2181".into(),
            root: "/alluvium".into(),
            session_timeout: Duration::from_secs(10),
            auth: None,
        }
    }
}

/// Where the path at the end of a list of servers begins; its length when it has none.
fn path_of(servers: &str) -> usize {
    let last = servers.rfind(',').map_or(0, |comma| comma + 1);
    let host = servers[last..].find("://").map_or(last, |scheme| last + scheme + "://".len());
    servers[host..].find('/').map_or(servers.len(), |slash| host + slash)
}

/// `host`, `host:port` or `[address]:port`, perhaps with a scheme before it.
fn is_address(server: &str) -> bool {
    let address = server.split_once("://").map_or(server, |(_, address)| address);
    let (host, port) = address.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).unwrap_or((address, "0"));
    !host.is_empty() && port.parse::<u16>().is_ok()
}

/// An instance among others. Dropped, it closes its session: it leaves, and its leases are free.
pub struct ZooKeeper {
    instance: String,
    current: Arc<Mutex<Option<Arc<Session>>>>,
    /// Told when there is another session, or another agreement.
    news: Arc<Notify>,
    /// The one that keeps the session.
    tasks: Tasks,
}

impl ZooKeeper {
    /// Begins to connect, in the background: until that has worked [`Coordinator::members`] and [`Coordinator::acquire`] are
    /// errors. An error here is one of the settings. Must be called inside a tokio runtime.
    pub fn start(mut settings: ZooKeeperSettings, instance: &str) -> Result<ZooKeeper, CoordinationError> {
        // Left to the client such a path would have to be there already.
        let at = path_of(&settings.servers);
        let path = settings.servers.split_off(at);
        settings.root = format!("{}{}", path.trim_end_matches('/'), settings.root);
        if let Some(bad) = settings.servers.split(',').find(|server| !is_address(server)) {
            return Err(CoordinationError(format!("'{bad}' is not like host:port")));
        }
        let root = &settings.root;
        if !root.starts_with('/') || root.len() == 1 || root.ends_with('/') || root.contains("//") {
            return Err(CoordinationError(format!("root '{root}' is not an absolute path below '/'")));
        }
        if instance.is_empty() {
            return Err(CoordinationError("an instance needs an id".into()));
        }
        let current: Arc<Mutex<Option<Arc<Session>>>> = Arc::default();
        let tasks = Tasks::of(instance);
        let news: Arc<Notify> = Arc::default();
        let (kept, told, id) = (current.clone(), news.clone(), instance.to_owned());
        let servers = settings.servers.clone();
        let settings = Arc::new(settings);
        let step = move || keep_session(settings.clone(), id.clone(), kept.clone(), told.clone());
        let failed = move |why: &str| tracing::warn!(servers, "no session with ZooKeeper, will be tried again: {why}");
        tasks.supervise("coordination", step, failed);
        Ok(ZooKeeper { instance: instance.to_owned(), current, news, tasks })
    }

    fn session(&self) -> Result<Arc<Session>, CoordinationError> {
        let session = self.current.lock().clone().filter(|s| s.is_good());
        session.ok_or_else(|| CoordinationError("no session with ZooKeeper".into()))
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        self.tasks.abort();
        if let Some(session) = self.current.lock().take() {
            // The task still holds the session until the runtime comes round to ending it.
            session.left.store(true, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl Coordinator for ZooKeeper {
    fn instance(&self) -> &str {
        &self.instance
    }

    async fn members(&self) -> Result<Vec<String>, CoordinationError> {
        Ok(self.session()?.view.lock().members.clone())
    }

    async fn acquire(&self, resource: &str) -> Result<Option<Box<dyn Lease>>, CoordinationError> {
        let session = self.session()?;
        if !session.should_hold(resource) || !session.taken.lock().insert(resource.to_owned()) {
            return Ok(None);
        }
        // From here on, whatever becomes of this call: dropping the lease sees to it that no node is left behind.
        let lease = Box::new(ZooKeeperLease { session: Arc::downgrade(&session), resource: resource.to_owned() });
        let path = session.lease_path(resource);
        let create = session.client.create(&path, session.instance.as_bytes(), &session.ephemeral());
        match timeout(session.timeout / 3, create).await {
            Ok(Ok(_)) => Ok(Some(lease)),
            Ok(Err(Error::NodeExists)) => {
                lease.forget(&session);
                Ok(None)
            }
            Ok(Err(e)) => Err(CoordinationError(e.to_string())),
            Err(_) => Err(no_answer()),
        }
    }

    async fn agreement(&self) -> Result<Agreement, CoordinationError> {
        let session = self.session()?;
        session
            .in_time(async {
                session.client.sync(&session.agreement_path()).await?;
                session.read_agreement().await
            })
            .await?;
        Ok(session.agreement.lock().clone())
    }

    async fn unconfirmed_agreement(&self) -> Agreement {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            // From here on none are missed, so the present is looked at after it.
            news.as_mut().enable();
            if let Some(unconfirmed) = self.session().ok().and_then(|session| session.unconfirmed()) {
                return unconfirmed;
            }
            news.await;
        }
    }

    async fn agree(&self, instead_of: u64, text: Bytes) -> Result<Option<u64>, CoordinationError> {
        let session = self.session()?;
        session.in_time(session.agree(instead_of, text)).await
    }

    async fn confirm(&self, version: u64) -> Result<(), CoordinationError> {
        let session = self.session()?;
        let (path, text) = (session.member_path(), version.to_string());
        session.in_time(session.client.set_data(&path, text.as_bytes(), None)).await?;
        *session.confirmed.lock() = Some(version);
        Ok(())
    }

    async fn unconfirmed_by(&self, version: u64) -> Result<Vec<String>, CoordinationError> {
        let session = self.session()?;
        session.in_time(session.unconfirmed_by(version)).await
    }

    fn is_consulted(&self) -> bool {
        // An older one was confirmed by who did not know yet that the session was lost and what was agreed on without it.
        let is_of_session = |session: &Session, version| version >= session.first.load(Ordering::SeqCst);
        self.session().is_ok_and(|session| session.confirmed.lock().is_some_and(|v| is_of_session(&session, v)))
    }

    fn tasks(&self) -> Vec<TaskStatus> {
        self.tasks.status()
    }
}

fn no_answer() -> CoordinationError {
    CoordinationError("ZooKeeper does not answer".into())
}

struct ZooKeeperLease {
    session: Weak<Session>,
    resource: String,
}

impl ZooKeeperLease {
    /// Ends a lease whose node is not ours.
    fn forget(mut self, session: &Session) {
        session.taken.lock().remove(&self.resource);
        self.session = Weak::new();
    }
}

#[async_trait]
impl Lease for ZooKeeperLease {
    fn is_held(&self) -> bool {
        self.session.upgrade().is_some_and(|s| s.is_good() && s.should_hold(&self.resource))
    }

    async fn release(self: Box<Self>) {
        let Some(session) = self.session.upgrade() else { return };
        if let Ok(true) = timeout(session.timeout / 3, session.delete_lease(&self.resource)).await {
            self.forget(&session);
        }
    }
}

impl Drop for ZooKeeperLease {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            // The receiver is gone only when the session is about to be.
            let _ = session.abandoned.send(std::mem::take(&mut self.resource));
        }
    }
}

/// One session, from registration until it is lost. The client closes it when the last handle is dropped.
struct Session {
    client: Client,
    root: String,
    instance: String,
    /// As negotiated.
    timeout: Duration,
    guarded: bool,
    left: AtomicBool,
    view: Mutex<View>,
    /// As it was read last.
    agreement: Mutex<Agreement>,
    /// The version of the agreement when the session began.
    first: AtomicU64,
    /// The version that the member's node tells.
    confirmed: Mutex<Option<u64>>,
    news: Arc<Notify>,
    /// Resources of which a node of this session exists, or may exist.
    taken: Mutex<HashSet<String>>,
    /// Leases that were dropped; who keeps the session deletes their nodes.
    abandoned: mpsc::UnboundedSender<String>,
}

struct View {
    members: Vec<String>,
    /// When the last request was sent that has been answered.
    confirmed: Instant,
}

impl Session {
    fn is_good(&self) -> bool {
        !self.left.load(Ordering::SeqCst)
            && !self.client.state().is_terminated()
            && self.view.lock().confirmed.elapsed() < self.timeout * 2 / 3
    }

    fn should_hold(&self, resource: &str) -> bool {
        fair_owner(&self.view.lock().members, resource) == Some(&self.instance)
    }

    fn members_path(&self) -> String {
        format!("{}/members", self.root)
    }

    fn member_path(&self) -> String {
        format!("{}/{}", self.members_path(), node_name(&self.instance))
    }

    fn agreement_path(&self) -> String {
        format!("{}/agreement", self.root)
    }

    /// What comes of a request within the time that it may take.
    async fn in_time<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, CoordinationError> {
        let answer = timeout(self.timeout / 3, request).await.map_err(|_| no_answer())?;
        answer.map_err(|e| CoordinationError(e.to_string()))
    }

    fn lease_path(&self, resource: &str) -> String {
        format!("{}/leases/{}", self.root, node_name(resource))
    }

    fn acls(&self) -> Acls<'static> {
        if self.guarded { Acls::creator_all() } else { Acls::anyone_all() }
    }

    fn ephemeral(&self) -> CreateOptions<'static> {
        CreateMode::Ephemeral.with_acls(self.acls())
    }

    /// True when the node is gone.
    async fn delete_lease(&self, resource: &str) -> bool {
        matches!(self.client.delete(&self.lease_path(resource), None).await, Ok(()) | Err(Error::NoNode))
    }

    /// Connects and registers; returns the session and the queue of its dropped leases.
    async fn begin(
        settings: &ZooKeeperSettings,
        instance: &str,
        news: Arc<Notify>,
    ) -> Result<(Arc<Session>, mpsc::UnboundedReceiver<String>), Error> {
        let mut connector = Client::connector().with_session_timeout(settings.session_timeout);
        if let Some((scheme, auth)) = &settings.auth {
            connector = connector.with_auth(scheme, auth.as_bytes());
        }
        let client = connector.connect(&settings.servers).await?;
        let (abandoned, queue) = mpsc::unbounded_channel();
        let session = Session {
            timeout: client.session_timeout(),
            client,
            root: settings.root.clone(),
            instance: instance.to_owned(),
            guarded: settings.auth.is_some(),
            left: AtomicBool::new(false),
            view: Mutex::new(View { members: Vec::new(), confirmed: Instant::now() }),
            agreement: Mutex::default(),
            first: AtomicU64::default(),
            confirmed: Mutex::default(),
            news,
            taken: Mutex::default(),
            abandoned,
        };
        let directory = CreateMode::Persistent.with_acls(session.acls());
        session.client.mkdir(&session.members_path(), &directory).await?;
        session.client.mkdir(&format!("{}/leases", session.root), &directory).await?;
        match session.client.create(&session.agreement_path(), b"", &directory).await {
            Ok(_) | Err(Error::NodeExists) => {}
            Err(e) => return Err(e),
        }
        session.register().await?;
        session.refresh().await?;
        session.first.store(session.agreement.lock().version, Ordering::SeqCst);
        Ok((Arc::new(session), queue))
    }

    /// A node of that name may be left of the instance's last session, for as long as that one lasts.
    async fn register(&self) -> Result<(), Error> {
        let path = self.member_path();
        let since = Instant::now();
        loop {
            match self.client.create(&path, b"", &self.ephemeral()).await {
                Err(Error::NodeExists) if since.elapsed() < self.timeout * 2 => sleep(self.timeout / 10).await,
                Err(Error::NodeExists) => {
                    return Err(Error::UnexpectedError(format!("another instance '{}' is alive", self.instance)));
                }
                other => return other.map(drop),
            }
        }
    }

    /// Reads who is alive, which also proves that the session is, and what is agreed on.
    async fn refresh(&self) -> Result<(), Error> {
        let confirmed = Instant::now();
        let nodes = self.client.list_children(&self.members_path()).await?;
        let mut members: Vec<String> = nodes.iter().map(|n| name_of_node(n)).collect();
        members.sort_unstable();
        if !members.contains(&self.instance) {
            // Somebody removed our node: without it the others do not count us.
            return Err(Error::SessionExpired);
        }
        *self.view.lock() = View { members, confirmed };
        self.read_agreement().await
    }

    /// The text of the agreement only if it is another one than was read last: it may be long.
    async fn read_agreement(&self) -> Result<(), Error> {
        let path = self.agreement_path();
        let stat = self.client.check_stat(&path).await?;
        if stat.is_some_and(|stat| stat.mzxid as u64 == self.agreement.lock().version) {
            return Ok(());
        }
        let (text, stat) = self.client.get_data(&path).await?;
        self.learn(Agreement { version: stat.mzxid as u64, text: text.into() });
        Ok(())
    }

    /// Answers may be handled in another order than they came in.
    fn learn(&self, read: Agreement) {
        let mut known = self.agreement.lock();
        if read.version > known.version {
            *known = read;
            self.news.notify_waiters();
        }
    }

    fn unconfirmed(&self) -> Option<Agreement> {
        let (agreement, confirmed) = (self.agreement.lock(), *self.confirmed.lock());
        confirmed.is_none_or(|version| version < agreement.version).then(|| agreement.clone())
    }

    async fn agree(&self, instead_of: u64, text: Bytes) -> Result<Option<u64>, Error> {
        let path = self.agreement_path();
        let stat = self.client.check_stat(&path).await?.ok_or(Error::NoNode)?;
        if stat.mzxid as u64 != instead_of {
            return Ok(None);
        }
        match self.client.set_data(&path, &text, Some(stat.version)).await {
            Ok(stat) => {
                let version = stat.mzxid as u64;
                self.learn(Agreement { version, text });
                Ok(Some(version))
            }
            Err(Error::BadVersion) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn unconfirmed_by(&self, version: u64) -> Result<Vec<String>, Error> {
        let mut behind = Vec::new();
        for node in self.client.list_children(&self.members_path()).await? {
            let told = match self.client.get_data(&format!("{}/{node}", self.members_path())).await {
                Ok((text, _)) => text,
                // It has gone meanwhile.
                Err(Error::NoNode) => continue,
                Err(e) => return Err(e),
            };
            // An instance of an earlier program never tells any: it knows of no agreement.
            let confirmed = std::str::from_utf8(&told).ok().and_then(|text| text.parse::<u64>().ok());
            if confirmed.is_none_or(|confirmed| confirmed < version) {
                behind.push(name_of_node(&node));
            }
        }
        Ok(behind)
    }

    /// Keeps the session until it is lost; returns why it was.
    async fn attend(&self, queue: &mut mpsc::UnboundedReceiver<String>) -> Error {
        let mut changes = match self.client.watch(&self.members_path(), AddWatchMode::Persistent).await {
            Ok(watcher) => watcher,
            Err(e) => return e,
        };
        let mut agreed = match self.client.watch(&self.agreement_path(), AddWatchMode::Persistent).await {
            Ok(watcher) => watcher,
            Err(e) => return e,
        };
        let mut state = self.client.state_watcher();
        let mut beat = interval(self.timeout / 6);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let refreshed = tokio::select! {
                _ = beat.tick() => self.refresh().await,
                _ = changes.changed() => self.refresh().await,
                _ = agreed.changed() => self.read_agreement().await,
                _ = state.changed() => Ok(()),
                Some(resource) = queue.recv() => {
                    self.delete_abandoned(resource).await;
                    Ok(())
                }
            };
            match refreshed {
                Err(Error::SessionExpired) => return Error::SessionExpired,
                // Anything else the client mends by itself, within the time that the session has.
                _ if self.client.state().is_terminated() => return Error::SessionExpired,
                _ => {}
            }
        }
    }

    async fn delete_abandoned(&self, resource: String) {
        if self.delete_lease(&resource).await {
            self.taken.lock().remove(&resource);
        } else if !self.client.state().is_terminated() {
            sleep(self.timeout / 20).await;
            let _ = self.abandoned.send(resource);
        }
    }
}

/// Holds one session, in `current`, until it is lost.
async fn keep_session(
    settings: Arc<ZooKeeperSettings>,
    instance: String,
    current: Arc<Mutex<Option<Arc<Session>>>>,
    news: Arc<Notify>,
) -> Result<(), Error> {
    // One that a fault has left behind would be in the way of the new one.
    current.lock().take();
    let (session, mut queue) = Session::begin(&settings, &instance, news.clone()).await?;
    tracing::info!(instance, members = session.view.lock().members.len(), "registered with ZooKeeper");
    *current.lock() = Some(session.clone());
    news.notify_waiters();
    let lost = session.attend(&mut queue).await;
    *current.lock() = None;
    Err(lost)
}

/// A node's name may hold neither '/' nor most of what is not ASCII: percent-encoded.
fn node_name(text: &str) -> String {
    use std::fmt::Write;
    let mut name = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':') {
            name.push(char::from(b));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(name, "%{b:02X}");
        }
    }
    name
}

fn name_of_node(node: &str) -> String {
    let mut bytes = Vec::with_capacity(node.len());
    let mut rest = node.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'%').then(|| tail.get(..2)).flatten();
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stands_at_the_end_of_the_servers() {
        for (servers, path) in [
            ("a:1,b:2", ""),
            ("a:1,b:2/x/y", "/x/y"),
            ("tcp+tls://a:1,tcp+tls://b:2", ""),
            ("tcp+tls://a:1,tcp+tls://b:2/x", "/x"),
        ] {
            assert_eq!(&servers[path_of(servers)..], path, "{servers}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_at_once() {
        for good in ["a", "a:1", "[::1]:2181", "[::1]", "tcp+tls://a:1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", ":1", "a:", "a:x", "a:70000", "tcp://"] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn node_names_are_read_back() {
        for text in ["ships/0", "..", "host-1:8080", "ö%2F", "%", "100%"] {
            assert!(!node_name(text).contains(['/', '.']));
            assert_eq!(name_of_node(&node_name(text)), text);
        }
    }
}
