//! The API: shows everything that the configuration names, and changes it while the engine runs.
//!
//! | part | what |
//! | --- | --- |
//! | `queue` | how control is asked: a bounded queue, an answer each |
//! | `document` | the configuration as a TOML document that is edited |
//! | `changes` | one change, from `If-Match` to the last lane |
//! | `state` | how things are |
//! | `overview` | how everything is, in one answer |
//! | `engine`, `resources`, `keys`, `explain`, `captures` | the other routes |
//! | `extract`, `problem` | what requests are made of, and what refusals look like |
//! | `socket`, `tcp`, `serve` | where it listens, to whom, and for how long |
//! | `browser` | what a page that an operator visits cannot make his browser do here |
//!
//! Drive it so: [`queue()`] gives an [`Asker`] and the requests that control answers with [`Control::on_request`](crate::control::Control::on_request); [`router`] makes
//! routes over an [`Api`]; [`bind`] takes its places before anything starts.

pub(super) mod browser;
mod captures;
mod changes;
mod document;
mod engine;
mod explain;
mod extract;
mod keys;
mod overview;
mod problem;
mod queue;
mod resources;
pub mod serve;
pub mod socket;
mod state;
pub mod tcp;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::control::config;
pub use changes::Api;
pub(super) use overview::shown;
use problem::Problem;
pub use queue::{Asker, Request as Question, queue};

/// Where the API is served.
#[derive(Debug, Default)]
pub struct Listeners {
    /// The Unix socket.
    pub socket: Option<socket::Bound>,
    /// The TCP address.
    pub tcp: Option<tcp::Bound>,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Unbound {
    /// The socket.
    #[error(transparent)]
    Socket(#[from] socket::Unbound),
    /// The address.
    #[error(transparent)]
    Tcp(#[from] tcp::Unbound),
}

/// Takes every place where the API is to be served, so that a clash is known before anything starts.
///
/// # Errors
/// [`Unbound`] says why not.
pub fn bind(settings: &config::Api) -> Result<Listeners, Unbound> {
    let tcp = settings.tcp.as_ref().map(tcp::bind).transpose()?;
    let socket = settings.socket.as_deref().map(socket::bind).transpose()?;
    Ok(Listeners { socket, tcp })
}

impl Listeners {
    /// Serves the routes at all of them for as long as the runtime lives. The socket's file stays for as long as this does.
    ///
    /// # Errors
    /// When a listener cannot be used.
    pub(super) fn serve(&mut self, api: Api) -> std::io::Result<()> {
        if self.socket.is_none() && self.tcp.is_none() {
            return Ok(());
        }
        let router = router(api);
        if let Some(socket) = &self.socket {
            let served = serve::unix(socket.listener()?, router.clone());
            tracing::info!(socket = %socket.path().display(), "API is served");
            tokio::spawn(told(served));
        }
        if let Some(tcp) = self.tcp.take() {
            tracing::info!(address = %tcp.address()?, "API is served over TCP");
            tokio::spawn(told(serve::tcp(tcp, router)));
        }
        Ok(())
    }
}

async fn told(served: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = served.await {
        tracing::error!("the API ended: {error}");
    }
}

/// What answers are made of, for `sealane ctl`.
pub(super) mod shapes {
    pub(in crate::control) use super::captures::ID as CAPTURE_ID;
    pub(in crate::control) use super::engine::LaneShown;
    pub(in crate::control) use super::explain::Explained;
    pub(in crate::control) use super::keys::RingShown;
    pub(in crate::control) use super::overview::{NamedService, Overview};
    pub(in crate::control) use super::problem::Problem;
    pub(in crate::control) use super::state::{
        Changed, PoolShown, ReferredShown, ServerState, ServiceShown, Status, Version,
    };
}

/// What the OpenAPI document says of the whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sealane",
        description = "Shows and changes a running service engine. Every change goes through the same proof as its configuration file, is put in force on all lanes at \
        once, and leaves established connections as they are. It holds until the file is read again, unless it is saved.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(problem::Problem, problem::Fault))
)]
struct Description;

/// Every route of the API, and its OpenAPI document at `/openapi.json`.
pub fn router(api: Api) -> Router {
    let routes = OpenApiRouter::with_openapi(Description::openapi())
        .merge(overview::routes())
        .merge(engine::routes())
        .merge(resources::routes())
        .merge(keys::routes())
        .merge(explain::routes())
        .merge(captures::routes());
    let (router, description) = routes.split_for_parts();
    let description = serde_json::to_value(description).unwrap_or_default();
    router
        .with_state(api)
        .route("/openapi.json", get(move || std::future::ready(Json(description.clone()))))
        .fallback(|| std::future::ready(Problem::missing("see /openapi.json for what there is")))
        .method_not_allowed_fallback(|| std::future::ready(Problem::no_such_method()))
        .layer(axum::middleware::from_fn(in_time))
        .layer(axum::middleware::map_response(browser::kept_to_itself))
}

/// A request that takes too long is given up, and what it has begun is finished or refused as a whole.
async fn in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(serve::REQUEST_MAX, next.run(request)).await;
    answer.unwrap_or_else(|_| Problem::late().into_response())
}

#[cfg(test)]
mod tests;
