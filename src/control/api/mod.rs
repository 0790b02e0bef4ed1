//! The API: shows everything that the configuration names, and changes it while the engine runs.
//!
//! | part | what |
//! | --- | --- |
//! | `queue` | how control is asked: a bounded queue, an answer each |
//! | `document` | the configuration as a TOML document that is edited |
//! | `changes` | one change, from `If-Match` to the last lane |
//! | `state` | how things are |
//! | `engine`, `resources`, `keys`, `explain` | the routes |
//! | `extract`, `problem` | what requests are made of, and what refusals look like |
//! | `socket`, `serve` | where it listens, and for how long to whom |
//!
//! Drive it so: [`queue()`] gives an [`Asker`] and the requests that control answers with [`Control::on_request`](crate::control::Control::on_request); [`router`] makes
//! routes over an [`Api`]; [`socket::bind`] takes the socket's place before anything starts, and [`serve::unix`] serves it.

mod changes;
mod document;
mod engine;
mod explain;
mod extract;
mod keys;
mod problem;
mod queue;
mod resources;
pub mod serve;
pub mod socket;
mod state;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use changes::Api;
use problem::Problem;
pub use queue::{Asker, Request as Question, queue};

/// What answers are made of, for `sealane ctl`.
pub(super) mod shapes {
    pub(in crate::control) use super::engine::LaneShown;
    pub(in crate::control) use super::explain::Explained;
    pub(in crate::control) use super::keys::RingShown;
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
        .merge(engine::routes())
        .merge(resources::routes())
        .merge(keys::routes())
        .merge(explain::routes());
    let (router, description) = routes.split_for_parts();
    let description = serde_json::to_value(description).unwrap_or_default();
    router
        .with_state(api)
        .route("/openapi.json", get(move || std::future::ready(Json(description.clone()))))
        .fallback(|| std::future::ready(Problem::missing("see /openapi.json for what there is")))
        .method_not_allowed_fallback(|| std::future::ready(Problem::no_such_method()))
        .layer(axum::middleware::from_fn(in_time))
}

/// A request that takes too long is given up, and what it has begun is finished or refused as a whole.
async fn in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(serve::REQUEST_MAX, next.run(request)).await;
    answer.unwrap_or_else(|_| Problem::late().into_response())
}

#[cfg(test)]
mod tests;
