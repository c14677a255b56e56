//! Accepts connections and serves them: HTTP/1.1 with header names in title case (QGIS up to 3.40.6 looks for `Location` with
//! a capital L) and HTTP/2 without TLS. `axum::serve` has neither that switch nor a limit on connections.

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
pub async fn serve(tcp: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .keep_alive(true);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(limits.header_timeout).max_concurrent_streams(256);
    let builder = Arc::new(builder);
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
        let (builder, router, watcher) = (builder.clone(), router.clone(), graceful.watcher());
        let (stop, cut) = (stop.clone(), cut.clone());
        tokio::spawn(async move {
            // hyper waits for the first byte for ever: it has to know the protocol before its own time limit begins.
            let mut first_byte = [0];
            let first_byte = tokio::time::timeout(limits.header_timeout, stream.peek(&mut first_byte));
            let speaks = tokio::select! {
                peeked = first_byte => matches!(peeked, Ok(Ok(1))),
                () = stop.cancelled() => false,
            };
            if !speaks {
                return;
            }
            tokio::select! {
                ended = watcher.watch(connection(&builder, stream, peer, router)) => if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a connection ended early");
                },
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

fn connection(
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
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
        router.clone().call(request)
    });
    builder.serve_connection(TokioIo::new(stream), service).into_owned()
}
