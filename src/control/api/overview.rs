//! How everything is, in one answer: what the status page and `sealane top` show. It holds nothing that is secret.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::Api;
use super::engine::LaneShown;
use super::keys::RingShown;
use super::problem::{Always, Problem};
use super::queue::Moment;
use super::state::{PoolState, ServiceState, Status, service_state, slots};
use super::{browser, in_time};
use crate::control::keys::file;
use crate::control::{Control, page};

/// Every route of this module.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(overview))
}

/// The status page and what it shows, without a token, for an address where nothing can be changed.
pub(in crate::control) fn shown(api: Api) -> Router {
    // Nobody who is let in without a token takes more than one of the places in control's queue.
    let turn = Arc::new(Semaphore::new(1));
    Router::new()
        .route("/v1/overview", get(overview))
        .with_state(api)
        .layer(axum::middleware::from_fn_with_state(turn, in_turn))
        .layer(axum::middleware::from_fn(in_time))
        .layer(axum::middleware::map_response(browser::kept_to_itself))
        .merge(page::routes(page::Access::Read))
}

async fn in_turn(State(turn): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(_turn) = turn.acquire().await else { return Problem::stopping().into_response() };
    next.run(request).await
}

/// Everything at one time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct Overview {
    /// How long the engine has run. Between two answers, counters grow over the difference.
    pub(in crate::control) uptime_milliseconds: u64,
    /// The engine's clock, to the second.
    pub(in crate::control) time: String,
    pub(in crate::control) engine: Status,
    pub(in crate::control) lanes: Vec<LaneShown>,
    pub(in crate::control) pools: Vec<NamedPool>,
    pub(in crate::control) virtual_services: Vec<NamedService>,
    pub(in crate::control) ticket_keys: RingShown,
}

/// A pool by its name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct NamedPool {
    pub(in crate::control) name: String,
    #[serde(flatten)]
    pub(in crate::control) state: PoolState,
}

/// A virtual service by its name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct NamedService {
    pub(in crate::control) name: String,
    #[serde(flatten)]
    pub(in crate::control) state: ServiceState,
}

/// How everything is, at one time: engine, lanes, pools with their servers, virtual services, ticket keys
#[utoipa::path(get, path = "/v1/overview", operation_id = "getOverview", tag = "engine", responses((status = 200, body = Overview), Always))]
async fn overview(State(api): State<Api>) -> Result<Response, Problem> {
    let shown = api.control().ask(|control, moment| control.overview(moment)).await?;
    Ok(axum::Json(shown).into_response())
}

impl Control {
    fn overview(&self, moment: Moment) -> Overview {
        let lanes = self.lanes_shown();
        let ring = self.ring_shown();
        let in_force = lanes.iter().all(|lane| lane.ring_version >= ring.version);
        let view = self.view.borrow();
        let slots = slots(view.servers.iter());
        let pool = |pool: &_| self.pool_state_by(&view, &slots, pool);
        let pools = self.configuration.pools.iter();
        let pools: Vec<_> = pools.map(|one| NamedPool { name: one.name.clone(), state: pool(one) }).collect();
        let usable =
            |name: &str| pools.iter().find(|pool| pool.name == name).map_or(0, |pool| pool.state.servers_usable);
        let services = self.configuration.services.iter().map(|service| NamedService {
            name: service.name.clone(),
            state: service_state(service, usable(&service.pool.name)),
        });
        Overview {
            uptime_milliseconds: u64::try_from(moment.now.since(self.began).as_millis()).unwrap_or(u64::MAX),
            time: file::date(moment.wall),
            engine: self.status(),
            lanes,
            virtual_services: services.collect(),
            pools,
            ticket_keys: RingShown { in_force, ..ring },
        }
    }
}
