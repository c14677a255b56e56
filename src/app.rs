//! The composition root: the one file that names implementations, and the order in which they start and stop.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::web::{self, listener};

/// A running server.
pub struct App {
    addr: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    /// Held as long as the data directory is in use.
    _data_lock: Option<File>,
}

impl App {
    /// Binds the address and serves; the store comes up behind it, and `/health/ready` tells when.
    pub async fn start(config: Config) -> anyhow::Result<App> {
        let data_lock = match config.cluster() {
            None => Some(lock(&config.store.data_dir)?),
            Some(_) => None,
        };
        let tcp = TcpListener::bind(config.server.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.server.listen))?;
        let addr = tcp.local_addr()?;
        let stop = CancellationToken::new();
        let limits = listener::Limits {
            max_connections: config.server.max_connections,
            header_timeout: config.server.idle_timeout,
            shutdown_timeout: config.server.shutdown_timeout,
        };
        let serving = tokio::spawn(listener::serve(tcp, web::router(), limits, stop.clone()));
        Ok(App { addr, stop, serving, _data_lock: data_lock })
    }

    /// Where it listens, with the port that was given when 0 was asked.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops taking requests, lets those under way end within the time that the settings give, and closes the store.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.serving.await.context("the listener ended badly")
    }
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
