//! The composition root: the one file that names implementations, and the order in which they start and stop.

mod waiting;

use std::convert::Infallible;
use std::fs::{File, TryLockError};
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;

use self::waiting::until_there;
use crate::clock::{Clock, SystemClock};
use crate::config::{Cluster, Config};
use crate::coordination::local::LocalCoordinator;
use crate::delegate::embedded::GeoPackage;
use crate::format::archive::{self, Piece};
use crate::log::embedded::EmbeddedLog;
#[cfg(feature = "cluster")]
use crate::model::FeatureType;
use crate::store::{MemoryLimits, Parts, Settings, Store};
use crate::task::Tasks;
use crate::telemetry;
use crate::web::access::Access;
use crate::web::starting::{Awaited, Routes};
use crate::web::{self, Places, Web, listener};

/// A running server.
pub struct App {
    addr: SocketAddr,
    store: Arc<Store>,
    /// The listener and what else runs beside the store.
    tasks: Tasks,
    /// Held as long as the data directory is in use.
    _data_lock: Option<File>,
}

impl App {
    /// Listens, waits for the parts that the settings name, brings up the store and serves. Until the store has its catalogue
    /// requests are answered by 503, and `/health/ready` names what is awaited; then it tells when the store has caught up with
    /// its logs. An error is one of the settings, or of data that do not go together: what is away is waited for.
    pub async fn start(config: Config) -> anyhow::Result<App> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let front = Front::open(&config).await?;
        let (parts, data_lock) = match config.cluster() {
            None => {
                let lock = lock(&config.store.data_dir)?;
                (embedded(&config.store.data_dir, clock).await?, Some(lock))
            }
            Some(cluster) => (clustered(cluster, clock, front.routes.awaited()).await?, None),
        };
        App::serve(config, front, parts, data_lock).await
    }

    /// The same over parts that are there already.
    pub async fn start_with(config: Config, parts: Parts) -> anyhow::Result<App> {
        let front = Front::open(&config).await?;
        App::serve(config, front, parts, None).await
    }

    async fn serve(config: Config, front: Front, parts: Parts, data_lock: Option<File>) -> anyhow::Result<App> {
        let Front { addr, routes, access, tasks } = front;
        let metrics = telemetry::metrics()?;
        let clock = parts.clock.clone();
        let (soft, hard) = config.memory.limits();
        let settings = Settings {
            memory: MemoryLimits { soft, hard },
            sweep_interval: config.store.sweep_interval,
            log_window: config.store.log_window,
            track_rest: config.store.track_rest,
            catalogue_interval: config.store.catalogue_poll,
            apply_wait: config.store.wait_for_apply,
            read_wait: config.store.wait_for_apply,
            ..Settings::default()
        };
        let bring_up = || Store::start(parts.clone(), settings.clone(), config.feature_types.clone());
        let store = until_there(routes.awaited(), "the feature types", bring_up).await?;
        let web = Arc::new(Web {
            store: store.clone(),
            clock,
            places: Places::new(&config.server),
            server: config.server,
            service: config.service,
            access,
            metrics: metrics.clone(),
        });
        routes.run(web::router(web));
        // Latencies pile up in the recorder until somebody folds them into their histograms.
        let upkeep = move || {
            let metrics = metrics.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                metrics.run_upkeep();
                Ok::<(), Infallible>(())
            }
        };
        store.tasks().supervise("metrics", upkeep, |e| tracing::warn!(error = %e, "the metrics' upkeep failed"));
        Ok(App { addr, store, tasks, _data_lock: data_lock })
    }

    /// Where it listens, with the port that was given when 0 was asked.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Stops taking requests, lets those under way end within the time that the settings give, and closes the store.
    pub async fn shutdown(self) {
        self.tasks.shutdown().await;
        self.store.shutdown().await;
    }

    /// Ends everything at once, as a crash would.
    pub fn abort(self) {
        self.tasks.abort();
        self.store.abort();
    }
}

/// What clients meet first: it answers from the beginning, whatever else is there.
struct Front {
    addr: SocketAddr,
    routes: Routes,
    access: Arc<Access>,
    tasks: Tasks,
}

impl Front {
    async fn open(config: &Config) -> anyhow::Result<Front> {
        let server = &config.server;
        let tcp =
            TcpListener::bind(server.listen).await.with_context(|| format!("cannot listen on {}", server.listen))?;
        let addr = tcp.local_addr()?;
        let access = Access::new(server)?;
        if access.nobody_may_write() {
            tracing::warn!(
                "nobody may write: the address is not a loopback one, and neither server.credentials nor \
                 server.allow_anonymous_writes is set"
            );
        }
        let limits = listener::Limits {
            max_connections: server.max_connections,
            header_timeout: server.idle_timeout,
            shutdown_timeout: server.shutdown_timeout,
        };
        let (routes, tasks) = (Routes::default(), Tasks::default());
        tasks.spawn(listener::serve(tcp, routes.clone(), limits, tasks.token()));
        tracing::info!("listening on http://{addr}");
        Ok(Front { addr, routes, access: Arc::new(access), tasks })
    }
}

/// A log and a GeoPackage in the data directory.
async fn embedded(dir: &Path, clock: Arc<dyn Clock>) -> anyhow::Result<Parts> {
    let dir = dir.to_owned();
    let opening = move || -> anyhow::Result<Parts> {
        Ok(Parts {
            log: Arc::new(EmbeddedLog::open(&dir.join("log"), clock.clone())?),
            delegate: Arc::new(GeoPackage::open(&dir.join("alluvium.gpkg"))?),
            coordinator: Arc::new(LocalCoordinator::kept_in(&dir.join("locks.json"), "embedded")?),
            clock,
        })
    };
    tokio::task::spawn_blocking(opening).await?
}

/// How long an instance that starts waits to learn what is locked.
#[cfg(feature = "cluster")]
const WAIT_FOR_LOCKS: Duration = Duration::from_secs(5);

/// Kafka, PostGIS and ZooKeeper.
#[cfg(feature = "cluster")]
async fn clustered(cluster: Cluster<'_>, clock: Arc<dyn Clock>, awaited: &Awaited) -> anyhow::Result<Parts> {
    use crate::coordination::Coordinator;
    use crate::coordination::zookeeper::{ZooKeeper, ZooKeeperSettings};
    use crate::delegate::postgis::{PostGis, PostGisSettings};
    use crate::log::kafka::{KafkaLog, KafkaSettings};

    // The crates that speak TLS agree on a provider only when one is named. Already set: fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let instance = uuid::Uuid::now_v7().to_string();
    let Cluster { kafka, postgres, zookeeper } = cluster;
    let log = KafkaLog::new(KafkaSettings {
        brokers: kafka.brokers.clone(),
        properties: kafka.properties.clone(),
        topic_prefix: kafka.topic_prefix.clone(),
        replication: kafka.replication,
    })?;
    let database = PostGisSettings {
        url: postgres.url.clone(),
        schema: postgres.schema.clone(),
        max_connections: postgres.max_connections,
        statement_timeout: postgres.statement_timeout,
        ..PostGisSettings::default()
    };
    let user = zookeeper.user.as_deref().unwrap_or_default();
    let password = zookeeper.password.as_deref().unwrap_or_default();
    let coordinator = ZooKeeper::start(
        ZooKeeperSettings {
            servers: zookeeper.servers.clone(),
            root: zookeeper.root.clone(),
            session_timeout: zookeeper.session_timeout,
            auth: zookeeper.user.as_ref().map(|_| ("digest".to_owned(), format!("{user}:{password}"))),
        },
        &instance,
    )?;
    let (delegate, ()) = tokio::try_join!(
        until_there(awaited, "PostGIS", || PostGis::connect(database.clone())),
        until_there(awaited, "Kafka", || log.reach()),
    )?;
    // ZooKeeper is not waited for long: without it nothing is swept and no lock is known, and all else goes on.
    let _ = tokio::time::timeout(WAIT_FOR_LOCKS, coordinator.unconfirmed_agreement()).await;
    Ok(Parts { log: Arc::new(log), delegate: Arc::new(delegate), coordinator: Arc::new(coordinator), clock })
}

#[cfg(not(feature = "cluster"))]
async fn clustered(_: Cluster<'_>, _: Arc<dyn Clock>, _: &Awaited) -> anyhow::Result<Parts> {
    bail!("this program was built without the feature 'cluster': it has no Kafka, PostGIS and ZooKeeper")
}

/// The declaration of a feature type over a table that is there.
#[cfg(feature = "cluster")]
pub async fn describe_table(
    database: String,
    schema: String,
    table: &str,
    collection: &str,
    key: Option<&str>,
) -> anyhow::Result<FeatureType> {
    use crate::delegate::postgis::{PostGis, PostGisSettings};

    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = PostGisSettings { url: database, schema, max_connections: 1, ..PostGisSettings::default() };
    Ok(PostGis::describe_table(settings, table, collection, key).await?)
}

/// Makes the data directory `dir`, where there is no data yet, of a backup. All of it or nothing.
pub fn restore(backup: &Path, dir: &Path) -> anyhow::Result<()> {
    let shown = dir.display();
    let _lock = lock(dir)?;
    let (log, package) = (dir.join("log"), dir.join("alluvium.gpkg"));
    if log.exists() || package.exists() {
        bail!("there is data in {shown} already: name another directory with --data-dir");
    }
    let (half_log, half_package) = (dir.join("log.restoring"), dir.join("alluvium.gpkg.restoring"));
    // Of an attempt that was broken off.
    if half_log.exists() {
        std::fs::remove_dir_all(&half_log)?;
    }
    let from = File::open(backup).with_context(|| format!("cannot read {}", backup.display()))?;
    let mut geopackage = File::create(&half_package)?;
    let restoring = EmbeddedLog::restore(&half_log)?;
    archive::read(BufReader::new(from), |piece| match piece {
        Piece::GeoPackage(bytes) => geopackage.write_all(&bytes),
        Piece::Log(entries) => restoring.add(entries).map_err(std::io::Error::other),
    })
    .with_context(|| format!("{} cannot be restored", backup.display()))?;
    geopackage.sync_all()?;
    restoring.finish()?;
    std::fs::rename(&half_log, &log)?;
    std::fs::rename(&half_package, &package)?;
    #[cfg(unix)]
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// Takes the data directory for this process.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let shown = dir.display();
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the data directory {shown}"))?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("lock"))
        .with_context(|| format!("cannot write in the data directory {shown}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "the data directory {shown} is in use by another alluvium process: stop that one, or name another directory with --data-dir"
        ),
        Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock the data directory {shown}")),
    }
}
