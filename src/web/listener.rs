//! Accepts connections and serves them: HTTP/1.1 with header names in title case (QGIS up to 3.40.6 looks for `Location` with
//! a capital L) and HTTP/2 without TLS. `axum::serve` has neither that switch nor a limit on connections.
//!
//! Invariant: a client that sends nothing holds its connection for `header_timeout`, no longer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::starting::Routes;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: usize,
    /// A request's head must have come within this.
    pub header_timeout: Duration,
    /// Connections that have not ended so long after the stop are cut.
    pub shutdown_timeout: Duration,
}

/// Serves until `stop`, then lets the requests under way end. Handlers find the peer in the extension
/// `ConnectInfo<SocketAddr>`.
pub async fn serve(tcp: TcpListener, routes: Routes, limits: Limits, stop: CancellationToken) {
    let builder = builder(limits);
    let starting = routes.starting();
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let graceful = GracefulShutdown::new();
    let cut = CancellationToken::new();
    loop {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, say: other connections may end meanwhile.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (builder, routes, watcher, cut) = (builder.clone(), routes.clone(), graceful.watcher(), cut.clone());
        let (starting, stop) = (starting.clone(), stop.clone());
        tokio::spawn(async move {
            let serving = async {
                let opened = stop.run_until_cancelled(opening(&stream, limits.header_timeout)).await;
                let Some(Some(version)) = opened else { return };
                let connection = watcher.watch(connection(builder, version, stream, peer, (routes, starting)));
                if let Err(error) = connection.await {
                    tracing::debug!(%peer, %error, "a connection ended early");
                }
            };
            tokio::select! {
                () = serving => {}
                () = cut.cancelled() => {}
            }
            drop(slot);
        });
    }
    drop(tcp);
    if tokio::time::timeout(limits.shutdown_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(waited_ms = limits.shutdown_timeout.as_millis() as u64, "cutting requests that did not end");
    }
    cut.cancel();
}

fn builder(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .keep_alive(true);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(limits.header_timeout).max_concurrent_streams(256);
    builder
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// Which version the first bytes are of; `None`: none came in time. hyper can tell too, but waits for them for ever.
async fn opening(stream: &TcpStream, patience: Duration) -> Option<Version> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let look = async {
        let mut first = [0; PREFACE.len()];
        loop {
            match stream.peek(&mut first).await {
                Ok(0) | Err(_) => return None,
                Ok(n) if !PREFACE.starts_with(&first[..n]) => return Some(Version::Http1),
                Ok(n) if n == PREFACE.len() => return Some(Version::Http2),
                // Seldom: a preface in pieces. Peeking returns at once what is there already.
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(patience, look).await.ok().flatten()
}

fn connection(
    builder: Builder<TokioExecutor>,
    version: Version,
    stream: TcpStream,
    peer: SocketAddr,
    (routes, starting): (Routes, Router),
) -> hyper_util::server::conn::auto::Connection<
    'static,
    TokioIo<TcpStream>,
    impl hyper::service::Service<
        http::Request<Incoming>,
        Response = axum::response::Response,
        Error = std::convert::Infallible,
        Future: Send,
    > + use<>,
    TokioExecutor,
> {
    // Answers are written whole or in large pieces: waiting to fill a packet only delays their ends.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "could not set TCP_NODELAY");
    }
    let service = service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.running().unwrap_or(&starting).clone().call(request)
    });
    let builder = match version {
        Version::Http1 => builder.http1_only(),
        Version::Http2 => builder.http2_only(),
    };
    builder.serve_connection(TokioIo::new(stream), service).into_owned()
}
