//! Serves the API's routes, so many connections at once and each for so long: nobody who is slow keeps others out for good.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::tcp;

/// How long a request may take, and how long a connection may be silent between two.
pub const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long a connection may last.
const CONNECTION_MAX: Duration = Duration::from_secs(300);
/// Most connections at once. Further ones wait in the listener's queue.
const CONNECTIONS_MAX: usize = super::queue::REQUESTS_MAX;
/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 64 << 10;
/// How long nobody is accepted after a failure, such as the want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` at a Unix socket for as long as the runtime lives.
///
/// # Errors
/// When the listener cannot be given to tokio.
pub async fn unix(listener: UnixListener, router: Router) -> std::io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let places = places();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, router.clone(), place))),
            Err(error) => pause(&error).await,
        }
    }
    Ok(())
}

/// Serves `router` over TCP, to whom the listener's access admits.
///
/// # Errors
/// When the listener cannot be given to tokio.
pub async fn tcp(bound: tcp::Bound, router: Router) -> std::io::Result<()> {
    let tcp::Bound { listener, access } = bound;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let tls = access.tls().map(TlsAcceptor::from);
    let router = router.layer(axum::middleware::from_fn_with_state(access, tcp::admit));
    let places = places();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match (listener.accept().await, tls.clone()) {
            (Ok((stream, _)), None) => drop(tokio::spawn(connection(stream, router.clone(), place))),
            (Ok((stream, _)), Some(tls)) => drop(tokio::spawn(secured(tls, stream, router.clone(), place))),
            (Err(error), _) => pause(&error).await,
        }
    }
    Ok(())
}

/// A connection that begins with a handshake.
async fn secured(tls: TlsAcceptor, stream: TcpStream, router: Router, place: OwnedSemaphorePermit) {
    // Who cannot shake hands, or has no certificate that it takes, is nobody to answer.
    if let Ok(Ok(stream)) = tokio::time::timeout(REQUEST_MAX, tls.accept(stream)).await {
        connection(stream, router, place).await;
    }
}

/// Places for connections.
fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTIONS_MAX))
}

async fn pause(error: &std::io::Error) {
    tracing::warn!("the API takes no connection for a moment: {error}");
    tokio::time::sleep(PAUSE).await;
}

/// One connection, until it ends or has lasted too long.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, _place: OwnedSemaphorePermit) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_MAX).max_buf_size(HEAD_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A client's errors are its own.
    let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
}
