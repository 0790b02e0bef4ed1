//! Why would this client go where? A ticket is opened as a lane would open it, and the engine's own code decides over how the servers are now.

use std::net::IpAddr;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::Api;
use super::document::Place;
use super::extract::Asked;
use super::problem::{Absent, Always, Problem};
use super::state::ServerState;
use crate::balance::{Algorithm, Health};
use crate::base::UnixTime;
use crate::control::config::{Pool, VirtualService};
use crate::control::explain::{self, Answer, Reported, Server};
use crate::control::keys::inspect;
use crate::control::{Control, publish};
use crate::persistence::Method;

/// Every route of this module.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(client))
}

/// Which client.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Who {
    /// The virtual service that it comes to
    service: String,
    /// Its address
    #[param(value_type = String, example = "198.18.0.1")]
    client: IpAddr,
    /// The session ticket that it brings, in hexadecimal or base64; without, it is new
    ticket: Option<String>,
}

/// Where a client would go now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct Explained {
    pub(in crate::control) service: String,
    pub(in crate::control) pool: String,
    /// "resumed" or "full".
    pub(in crate::control) handshake: String,
    /// The server that it would get; absent where that is decided only when it comes, or where it gets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::control) server: Option<String>,
    /// The persistence decision, as in the record of its connection.
    pub(in crate::control) reason: String,
    /// The same for a person.
    pub(in crate::control) why: String,
    /// The pool's servers, as they are.
    pub(in crate::control) servers: Vec<ServerState>,
}

/// Where a client would go now, and why. Nothing changes by it
#[utoipa::path(get, path = "/v1/explain", operation_id = "explainClient", tag = "clients", params(Who),
    responses((status = 200, body = Explained), Always, Absent))]
async fn client(State(api): State<Api>, Asked(who): Asked<Who>) -> Result<Response, Problem> {
    let explain = move |control: &mut Control, moment: super::queue::Moment| control.explain(&who, moment.wall);
    Ok(axum::response::IntoResponse::into_response(axum::Json(api.control().ask(explain).await??)))
}

/// What a new client gets.
struct Fresh {
    server: Option<String>,
    why: String,
}

impl Control {
    fn explain(&self, who: &Who, wall: UnixTime) -> Result<Explained, Problem> {
        let service = self.configuration.services.iter().find(|service| service.name == who.service);
        let service =
            service.ok_or_else(|| Problem::missing(format!("there is no virtual service {:?}", who.service)))?;
        let state = self.pool_state(&service.pool);
        let explained = Explained {
            service: service.name.clone(),
            pool: service.pool.name.clone(),
            handshake: "full".to_owned(),
            server: None,
            reason: String::new(),
            why: String::new(),
            servers: state.servers,
        };
        let by_address = service.profile.as_ref().is_some_and(|profile| profile.method != Method::Tls);
        let Some(ticket) = &who.ticket else { return self.as_new(who, service, explained, "it brings no ticket") };
        let ticket = inspect::ticket_in(ticket.as_bytes()).map_err(|error| Problem::malformed(error.to_string()))?;
        let scopes: Vec<_> =
            publish::scopes(&self.configuration).into_iter().filter(|(name, _)| *name == service.name).collect();
        let inspection = inspect::inspect(self.keys.current(), &scopes, &ticket);
        let envelope = match &inspection.outcome {
            Ok((_, envelope)) => envelope,
            Err(refusal) => {
                let why = format!("its ticket is refused: {refusal:?}");
                return self.as_new(who, service, explained, &why);
            }
        };
        let reported: Vec<_> = explained.servers.iter().map(|server| reported(&service.pool, server)).collect();
        let explanation = explain::explain(&self.configuration, Some((&service.name, envelope)), Some(&reported), wall)
            .map_err(|error| Problem::failed(error.to_string()))?;
        let resumed = |server: Option<String>, reason: &str, why: String| Explained {
            handshake: "resumed".to_owned(),
            server,
            reason: reason.to_owned(),
            why,
            ..explained.clone()
        };
        match explanation.answer {
            Answer::Invalid => self.as_new(who, service, explained, "its ticket is not valid here"),
            Answer::Full(why) => self.as_new(who, service, explained, &format!("its ticket does not count: {why}")),
            Answer::Resumed { reason, .. } if by_address => {
                let why =
                    "the session is resumed; its address, and no ticket, says where it belongs, if a lane remembers it";
                Ok(resumed(None, reason.name(), why.to_owned()))
            }
            Answer::Resumed { server: Some(Server::Same(server)), reason } => {
                let why = format!("its ticket says {server}, which takes it");
                Ok(resumed(Some(server), reason.name(), why))
            }
            Answer::Resumed { server: Some(Server::Another(_)), reason } => {
                let fresh = self.fresh(who, service)?;
                let why = format!("its own server does not take it; {}", fresh.why);
                Ok(resumed(fresh.server, reason.name(), why))
            }
            Answer::Resumed { server: None, reason } => {
                Ok(resumed(None, reason.name(), "it is reset: no server takes it under this profile".to_owned()))
            }
        }
    }

    fn as_new(
        &self,
        who: &Who,
        service: &VirtualService,
        explained: Explained,
        because: &str,
    ) -> Result<Explained, Problem> {
        let fresh = self.fresh(who, service)?;
        let by_address = service.profile.as_ref().is_some_and(|profile| profile.method != Method::Tls);
        let (reason, server, why) = if by_address {
            let why =
                format!("{because}; if a lane remembers its address it goes where that belongs; else {}", fresh.why);
            ("recalling", None, why)
        } else if service.profile.is_none() {
            ("off", fresh.server, format!("the service has no persistence; {}", fresh.why))
        } else {
            ("no-mapping", fresh.server, format!("{because}, so it is new; {}", fresh.why))
        };
        Ok(Explained { reason: reason.to_owned(), server, why, ..explained })
    }

    /// What the pool's algorithm gives a client that belongs nowhere.
    fn fresh(&self, who: &Who, service: &VirtualService) -> Result<Fresh, Problem> {
        let pool = &service.pool;
        let state = self.pool_state(pool);
        let usable: Vec<_> = state.servers.iter().filter(|server| server.usable).collect();
        if usable.is_empty() {
            let why = format!(
                "no server of pool {} is enabled, up and below its limit: what pool_down_action says",
                pool.name
            );
            return Ok(Fresh { server: None, why });
        }
        if let [only] = usable.as_slice() {
            return Ok(Fresh {
                server: Some(format!("{}/{}", pool.name, only.name)),
                why: format!("{}/{} is the only server that takes new clients", pool.name, only.name),
            });
        }
        if pool.algorithm == Algorithm::ConsistentHash {
            let reported: Vec<_> = state.servers.iter().map(|server| reported(pool, server)).collect();
            let server = explain::hashed(&self.configuration, &service.name, who.client, &reported)
                .map_err(|error| Problem::failed(error.to_string()))?;
            let why = format!("its address {} is hashed, the same on every lane and engine", who.client);
            return Ok(Fresh { server, why });
        }
        let shares: u32 = usable.iter().map(|server| u32::from(server.ratio)).sum();
        let each = usable.iter().map(|server| {
            let (connections, ratio) = (server.connections, server.ratio);
            format!("{} with {connections} connections and {ratio} of {shares} shares", server.name)
        });
        let each = each.collect::<Vec<_>>().join(", ");
        let written = self.document()?.find(&Place::Named("pool", pool.name.clone()))?;
        let algorithm = written.get("algorithm").and_then(|word| word.as_str()).unwrap_or("round-robin");
        let why = format!("the lane on which it arrives chooses by {algorithm} from {each}");
        Ok(Fresh { server: None, why })
    }
}

fn reported(pool: &Pool, server: &ServerState) -> Reported {
    Reported {
        pool: pool.name.clone(),
        server: server.name.clone(),
        health: match server.health.as_str() {
            "down" => Health::Down,
            "maintenance" => Health::Maintenance,
            // What is not monitored is taken as up, as lanes do.
            _ => Health::Up,
        },
        connections: server.connections,
    }
}
