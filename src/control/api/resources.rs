//! What the configuration has under a name: pools with their servers, virtual services, health monitors, persistence profiles.
//!
//! A body is the table in JSON, with the keys that the configuration file has.

use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::Api;
use super::document::{Document, Place, Put};
use super::extract::{Expected, IfMatch, Named, Object, Table};
use super::problem::{Absent, Always, Problem, Unmade};
use super::state::{Changed, MonitorShown, PoolShown, ProfileShown, ServerShown, ServiceShown, Shown};

/// Every route of this module.
pub(super) fn routes() -> OpenApiRouter<Api> {
    pools::routes()
        .merge(virtual_services::routes())
        .merge(health_monitors::routes())
        .merge(persistence_profiles::routes())
        .routes(routes!(find_server, put_server, patch_server, remove_server))
}

/// Handlers of one array of tables of the configuration, in a module of their own.
macro_rules! tables {
    ($module:ident, $shown:ident, $tag:literal, $list:literal, $one:literal, $example:literal,
     [$all_id:literal, $find_id:literal, $put_id:literal, $patch_id:literal, $remove_id:literal]) => {
        mod $module {
            use super::*;

            const KEY: &str = <$shown as Shown>::KEY;

            pub(super) fn routes() -> OpenApiRouter<Api> {
                OpenApiRouter::new().routes(routes!(all)).routes(routes!(find, put, patch, remove))
            }

            /// All of them, as written and as they are
            #[utoipa::path(get, path = $list, operation_id = $all_id, tag = $tag, responses((status = 200, body = Vec<$shown>), Always))]
            async fn all(State(api): State<Api>) -> Result<Response, Problem> {
                api.show(|control| control.all::<$shown>()).await
            }

            /// One of them, as written and as it is
            #[utoipa::path(get, path = $one, operation_id = $find_id, tag = $tag, params(("name" = String, Path, description = "its name", example = $example)),
                responses((status = 200, body = $shown), Always, Absent))]
            async fn find(State(api): State<Api>, Named(name): Named<String>) -> Result<Response, Problem> {
                api.show(move |control| {
                    let mut document = control.document()?;
                    let configuration = document.find(&Place::Named(KEY, name))?;
                    $shown::of(control, &document, configuration).ok_or_else(|| Problem::missing("it is no longer there"))
                })
                .await
            }

            /// Makes it what the body says, whether it was there or not
            #[utoipa::path(put, path = $one, operation_id = $put_id, tag = $tag, request_body = Table,
                params(("name" = String, Path, description = "its name", example = $example), IfMatch),
                responses((status = 200, body = Changed), (status = 201, body = Changed), (status = 202, body = Changed), Always, Absent, Unmade))]
            async fn put(
                State(api): State<Api>,
                Named(name): Named<String>,
                expected: Expected,
                Object(body): Object,
            ) -> Result<Response, Problem> {
                api.change(expected, move |document| document.put(&Place::Named(KEY, name), body)).await
            }

            /// Changes the keys that the body has, and takes out those that are null (RFC 7396)
            #[utoipa::path(patch, path = $one, operation_id = $patch_id, tag = $tag, request_body = Table,
                params(("name" = String, Path, description = "its name", example = $example), IfMatch),
                responses((status = 200, body = Changed), (status = 202, body = Changed), Always, Absent, Unmade))]
            async fn patch(
                State(api): State<Api>,
                Named(name): Named<String>,
                expected: Expected,
                Object(body): Object,
            ) -> Result<Response, Problem> {
                let edit = move |document: &mut Document| document.patch(&Place::Named(KEY, name), body);
                api.change(expected, move |document| edit(document).map(|()| Put::Replaced)).await
            }

            /// Takes it out. Connections that it has live on
            #[utoipa::path(delete, path = $one, operation_id = $remove_id, tag = $tag,
                params(("name" = String, Path, description = "its name", example = $example), IfMatch),
                responses((status = 200, body = Changed), (status = 202, body = Changed), Always, Absent, Unmade))]
            async fn remove(
                State(api): State<Api>,
                Named(name): Named<String>,
                expected: Expected,
            ) -> Result<Response, Problem> {
                let edit = move |document: &mut Document| document.remove(&Place::Named(KEY, name));
                api.change(expected, move |document| edit(document).map(|()| Put::Replaced)).await
            }
        }
    };
}

tables!(
    pools,
    PoolShown,
    "pools",
    "/v1/pools",
    "/v1/pools/{name}",
    "web",
    ["listPools", "getPool", "putPool", "patchPool", "deletePool"]
);
tables!(
    virtual_services,
    ServiceShown,
    "virtual services",
    "/v1/virtual_services",
    "/v1/virtual_services/{name}",
    "shop",
    ["listVirtualServices", "getVirtualService", "putVirtualService", "patchVirtualService", "deleteVirtualService"]
);
tables!(
    health_monitors,
    MonitorShown,
    "health monitors",
    "/v1/health_monitors",
    "/v1/health_monitors/{name}",
    "connect",
    ["listHealthMonitors", "getHealthMonitor", "putHealthMonitor", "patchHealthMonitor", "deleteHealthMonitor"]
);
tables!(
    persistence_profiles,
    ProfileShown,
    "persistence profiles",
    "/v1/persistence_profiles",
    "/v1/persistence_profiles/{name}",
    "sticky",
    [
        "listPersistenceProfiles",
        "getPersistenceProfile",
        "putPersistenceProfile",
        "patchPersistenceProfile",
        "deletePersistenceProfile"
    ]
);

/// One server, as written and as it is
#[utoipa::path(get, path = "/v1/pools/{pool}/servers/{server}", operation_id = "getServer", tag = "pools",
    params(("pool" = String, Path, description = "the pool's name", example = "web"), ("server" = String, Path, description = "its name", example = "a")),
    responses((status = 200, body = ServerShown), Always, Absent))]
async fn find_server(
    State(api): State<Api>,
    Named((pool, server)): Named<(String, String)>,
) -> Result<Response, Problem> {
    api.show(move |control| {
        let mut document = control.document()?;
        let whole = document.find(&Place::Named(PoolShown::KEY, pool.clone()))?;
        let configuration = document.find(&Place::Server { pool, server: server.clone() })?;
        let states = PoolShown::of(control, &document, whole).map(|pool| pool.state.servers).unwrap_or_default();
        let state = states.into_iter().find(|state| state.name == server);
        let state = state.ok_or_else(|| Problem::missing("it is no longer there"))?;
        Ok(ServerShown { configuration, state })
    })
    .await
}

/// Makes a server what the body says, whether it was there or not
#[utoipa::path(put, path = "/v1/pools/{pool}/servers/{server}", operation_id = "putServer", tag = "pools", request_body = Table,
    params(("pool" = String, Path, description = "the pool's name", example = "web"), ("server" = String, Path, description = "its name", example = "a"), IfMatch),
    responses((status = 200, body = Changed), (status = 201, body = Changed), (status = 202, body = Changed), Always, Absent, Unmade))]
async fn put_server(
    State(api): State<Api>,
    Named((pool, server)): Named<(String, String)>,
    expected: Expected,
    Object(body): Object,
) -> Result<Response, Problem> {
    api.change(expected, move |document| document.put(&Place::Server { pool, server }, body)).await
}

/// Changes the keys of a server that the body has, such as {"state": "draining"}, and takes out those that are null (RFC 7396)
#[utoipa::path(patch, path = "/v1/pools/{pool}/servers/{server}", operation_id = "patchServer", tag = "pools", request_body = Table,
    params(("pool" = String, Path, description = "the pool's name", example = "web"), ("server" = String, Path, description = "its name", example = "a"), IfMatch),
    responses((status = 200, body = Changed), (status = 202, body = Changed), Always, Absent, Unmade))]
async fn patch_server(
    State(api): State<Api>,
    Named((pool, server)): Named<(String, String)>,
    expected: Expected,
    Object(body): Object,
) -> Result<Response, Problem> {
    let edit = move |document: &mut Document| document.patch(&Place::Server { pool, server }, body);
    api.change(expected, move |document| edit(document).map(|()| Put::Replaced)).await
}

/// Takes a server out. Connections to it live on, and no mapping leads to it any more
#[utoipa::path(delete, path = "/v1/pools/{pool}/servers/{server}", operation_id = "deleteServer", tag = "pools",
    params(("pool" = String, Path, description = "the pool's name", example = "web"), ("server" = String, Path, description = "its name", example = "a"), IfMatch),
    responses((status = 200, body = Changed), (status = 202, body = Changed), Always, Absent, Unmade))]
async fn remove_server(
    State(api): State<Api>,
    Named((pool, server)): Named<(String, String)>,
    expected: Expected,
) -> Result<Response, Problem> {
    let edit = move |document: &mut Document| document.remove(&Place::Server { pool, server });
    api.change(expected, move |document| edit(document).map(|()| Put::Replaced)).await
}
