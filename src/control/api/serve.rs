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

use super::{browser, tcp};
use crate::control::page;

/// How long a request may take, and how long a connection may be silent between two.
pub const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long a connection may last.
const CONNECTION_MAX: Duration = Duration::from_secs(300);
/// Most connections at once. Further ones wait in the listener's queue.
const CONNECTIONS_MAX: usize = super::queue::REQUESTS_MAX;
/// So many bytes of a head are read, and what comes with the last of them; then it must be whole.
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
    // The page itself is no secret, and a browser shows no token before it has the page.
    let page = page::routes(if access.asks_for_token() { page::Access::Token } else { page::Access::Open });
    let router = page.fallback_service(router.layer(axum::middleware::from_fn_with_state(access, tcp::admit)));
    let router = router.layer(axum::middleware::from_fn(browser::from_here));
    // Under TLS a browser proves the name by the certificate.
    let router =
        if tls.is_some() { router } else { router.layer(axum::middleware::from_fn(browser::under_known_name)) };
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    /// Runs a client against a served route that says "here".
    fn served<F: Future<Output = ()>>(client: impl FnOnce(std::path::PathBuf) -> F) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = UnixListener::bind(&path).unwrap();
            listener.set_nonblocking(true).unwrap();
            tokio::spawn(unix(listener, Router::new().route("/", get(|| std::future::ready("here")))));
            client(path).await;
        });
    }

    async fn ask(stream: &mut UnixStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: engine\r\n\r\n").await.unwrap();
    }

    async fn answer(stream: &mut UnixStream) -> String {
        let mut all = Vec::new();
        // Behind a refusal there is a reset where not all was read.
        while !all.ends_with(b"here") && stream.read_buf(&mut all).await.unwrap_or(0) > 0 {}
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn the_connection_behind_the_last_place_waits_until_another_is_closed() {
        served(|path| async move {
            let mut open = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                let mut stream = UnixStream::connect(&path).await.unwrap();
                ask(&mut stream).await;
                assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
                open.push(stream);
            }
            let mut late = UnixStream::connect(&path).await.unwrap();
            ask(&mut late).await;
            // Those that are in are served meanwhile.
            for stream in &mut open {
                ask(stream).await;
                assert!(answer(stream).await.ends_with("here"));
            }
            let early = late.try_read(&mut [0; 1]);
            assert!(early.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
            drop(open.pop());
            assert!(answer(&mut late).await.ends_with("here"));
        });
    }

    #[test]
    fn over_tcp_the_page_is_anybodys_and_the_rest_is_for_who_has_the_token_and_comes_from_here() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let token = "0123456789abcdef0123456789abcdef";
        std::fs::write(&file, token).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let listen = ([127, 0, 0, 1], 0).into();
        let bound = tcp::bind(&crate::control::config::ApiTcp { listen, token_file: Some(file), tls: None }).unwrap();
        let address = bound.address().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let here = || std::future::ready("here");
            tokio::spawn(tcp(bound, Router::new().route("/v1/it", get(here).post(here))));
            let ask = |head: String| async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                answer
            };
            let page = ask("GET / HTTP/1.1\r\nhost: localhost".to_owned()).await;
            assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("data-access=\"token\""), "{page}");
            let shown = format!("authorization: Bearer {token}");
            for (status, head) in [
                (401, "GET /v1/it HTTP/1.1\r\nhost: localhost".to_owned()),
                (401, "GET /nothing HTTP/1.1\r\nhost: localhost".to_owned()),
                (200, format!("GET /v1/it HTTP/1.1\r\nhost: localhost\r\n{shown}")),
                (200, format!("POST /v1/it HTTP/1.1\r\nhost: localhost\r\n{shown}")),
                (403, format!("POST /v1/it HTTP/1.1\r\nhost: localhost\r\n{shown}\r\nsec-fetch-site: same-site")),
                (403, "POST /v1/it HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example".to_owned()),
                (421, format!("GET /v1/it HTTP/1.1\r\nhost: evil.example\r\n{shown}")),
                (421, "GET / HTTP/1.1\r\nhost: evil.example".to_owned()),
            ] {
                let answer = ask(head.clone()).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
            }
        });
    }

    #[test]
    fn a_head_that_is_too_long_is_refused() {
        for (len, status) in [(HEAD_MAX / 2, "200"), (3 * HEAD_MAX, "431")] {
            served(|path| async move {
                let mut stream = UnixStream::connect(&path).await.unwrap();
                let head = format!("GET / HTTP/1.1\r\nhost: engine\r\nx: {}\r\n\r\n", "x".repeat(len));
                // The server may have closed before the last of it.
                let _ = stream.write_all(head.as_bytes()).await;
                let answer = answer(&mut stream).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{len}: {answer}");
            });
        }
    }
}
