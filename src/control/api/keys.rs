//! Ticket keys: their ids and states, never their secrets, and what an operator does to them.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::Api;
use super::extract::Object;
use super::problem::{Absent, Always, Problem, Unmade};
use crate::base::UnixTime;
use crate::control::Control;
use crate::control::config::KeySource;
use crate::control::keys::file;
use crate::control::keys::source::Unchangeable;
use crate::ticket::KeyId;
use crate::ticket::life::Refused;

/// Every route of this module.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(keys)).routes(routes!(rotate)).routes(routes!(purge))
}

/// The ticket key ring.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct RingShown {
    /// It grows with each change.
    pub(in crate::control) version: u64,
    /// `ticket_keys.source`
    pub(in crate::control) source: String,
    /// Whether every lane has it.
    pub(in crate::control) in_force: bool,
    pub(in crate::control) keys: Vec<KeyShown>,
    /// What is wrong with keys, while clients are served all the same.
    pub(in crate::control) alarms: Vec<String>,
}

/// A ticket key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct KeyShown {
    /// In the clear in every ticket under it.
    pub(in crate::control) id: String,
    /// "pending", "active" (one at most) or "retiring".
    pub(in crate::control) state: String,
    /// When it was activated, or made if it never was.
    pub(in crate::control) since: String,
}

/// The ticket keys that are in use
#[utoipa::path(get, path = "/v1/ticket_keys", operation_id = "getTicketKeys", tag = "ticket keys", responses((status = 200, body = RingShown), Always))]
async fn keys(State(api): State<Api>) -> Result<Response, Problem> {
    let shown = api.control().ask(|control, _| control.ring_shown()).await?;
    told(&api, shown).await
}

/// Activates the pending key, or a new one, and retires the active one: no client notices. Only where this engine makes its keys itself
#[utoipa::path(post, path = "/v1/ticket_keys/rotate", operation_id = "rotateTicketKeys", tag = "ticket keys",
    responses((status = 200, body = RingShown), Always, Unmade))]
async fn rotate(State(api): State<Api>) -> Result<Response, Problem> {
    let rotate = |control: &mut Control, moment: super::queue::Moment| {
        control.poll_keys(moment.wall);
        let ring = control.keys.rotate(moment.wall)?;
        control.publish_ring(&ring);
        control.flush();
        Ok::<_, Problem>(control.ring_shown())
    };
    let shown = api.control().ask(rotate).await??;
    told(&api, shown).await
}

/// Which key is purged.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it is read by the derive alone")]
struct Purged {
    /// Its id.
    #[schema(example = "0123456789abcdef", pattern = "^[0-9a-f]{16}$")]
    key: String,
}

/// Destroys a key at once and for good: tickets under it are worth nothing, connections go on. Only where this engine makes its keys itself
#[utoipa::path(post, path = "/v1/ticket_keys/purge", operation_id = "purgeTicketKey", tag = "ticket keys", request_body = Purged,
    responses((status = 200, body = RingShown), Always, Absent, Unmade))]
async fn purge(State(api): State<Api>, Object(body): Object) -> Result<Response, Problem> {
    let key = body.get("key").and_then(|key| key.as_str()).filter(|_| body.len() == 1);
    let key = key.and_then(|key| key.parse::<KeyId>().ok());
    let key =
        key.ok_or_else(|| Problem::malformed("write the key's id, {\"key\": \"0123456789abcdef\"}, and nothing else"))?;
    let purge = move |control: &mut Control, moment: super::queue::Moment| control.purge_key(key, moment.wall);
    let shown = api.control().ask(purge).await??;
    told(&api, shown).await
}

/// The ring, once every lane has it.
async fn told(api: &Api, shown: RingShown) -> Result<Response, Problem> {
    let version = shown.version;
    let in_force = api.on_lanes(|lane| lane.lane.ring_version.value() >= version).await;
    Ok(Json(RingShown { in_force, ..shown }).into_response())
}

impl Control {
    pub(super) fn ring_shown(&self) -> RingShown {
        let ring = self.keys.current();
        let source = match &self.configuration.ticket_keys.source {
            KeySource::Own(_) => "own",
            KeySource::File(_) => "file",
            KeySource::Etcd(_) => "etcd",
        };
        let key = |entry: &crate::ticket::ring::Entry| KeyShown {
            id: entry.key.id().to_string(),
            state: file::state_name(entry.state).to_owned(),
            since: file::date(entry.since()),
        };
        RingShown {
            version: ring.version(),
            source: source.to_owned(),
            in_force: false,
            keys: ring.entries().iter().map(key).collect(),
            alarms: self.view.borrow().ring_alarms.iter().map(|alarm| alarm.name().to_owned()).collect(),
        }
    }

    fn purge_key(&mut self, key: KeyId, wall: UnixTime) -> Result<RingShown, Problem> {
        self.poll_keys(wall);
        let ring = self.keys.purge(key, wall)?;
        self.publish_ring(&ring);
        self.flush();
        tracing::warn!(%key, "ticket key purged over the API");
        Ok(self.ring_shown())
    }
}

impl From<Unchangeable> for Problem {
    fn from(unchangeable: Unchangeable) -> Self {
        let detail = unchangeable.to_string();
        match unchangeable {
            Unchangeable::Refused(Refused::NoSuchKey(_)) => Self::missing(detail),
            Unchangeable::File(_) | Unchangeable::Cluster | Unchangeable::Refused(_) => Self::conflict(detail),
            Unchangeable::Failed(_) => Self::failed(detail),
        }
    }
}
