//! The admin API on a kernel address: `/metrics` for Prometheus, `/healthz` for whoever decides whether this engine gets clients,
//! `/trace` for `sealane trace`: what connections have just done, addresses but no data; beside them, from [`api`](super::api), the status page.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::control::api::browser;
use crate::control::metrics::{CLASSIC_TYPE, CONTENT_TYPE, Metrics, View, classic};
use crate::control::trace::Traces;

/// Why the admin API cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("engine.admin: cannot listen on {address} ({error}); stop who listens there, or write another address")]
pub struct Unbound {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub error: io::Error,
}

/// Takes the admin address, so that a clash is known before anything starts.
///
/// # Errors
/// [`Unbound`] names the address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, Unbound> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|error| Unbound { address, error })
}

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    view: watch::Receiver<View>,
    traces: Traces,
}

/// The routes.
pub fn router(metrics: Metrics, view: watch::Receiver<View>, traces: Traces) -> Router {
    let shown = Shown { metrics: Arc::new(metrics), view, traces };
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(health_page))
        .route("/trace", get(trace_page))
        .with_state(shown)
}

/// Serves the routes for as long as the runtime lives. A loopback address is asked for by its number or as localhost.
///
/// # Errors
/// When the listener cannot be given to tokio.
pub async fn serve(listener: TcpListener, router: Router) -> io::Result<()> {
    let is_loopback = listener.local_addr()?.ip().is_loopback();
    let known = axum::middleware::from_fn(browser::under_known_name);
    let router = if is_loopback { router.layer(known) } else { router };
    axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
}

async fn metrics_page(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    let wants_classic = accepted.contains("text/plain") && !accepted.contains("application/openmetrics-text");
    match shown.metrics.encode() {
        Ok(text) if wants_classic => ([(header::CONTENT_TYPE, CLASSIC_TYPE)], classic(&text)).into_response(),
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn health_page(State(shown): State<Shown>) -> (StatusCode, String) {
    match &shown.view.borrow().unfit {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn trace_page(State(shown): State<Shown>) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], shown.traces.document().encode()).into_response()
}
