//! The engine itself: how it is, its lanes, its configuration as a whole, and how it is drained.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::Api;
use super::document::Put;
use super::extract::{Asked, Expected, IfMatch, Text, tag};
use super::problem::{Always, Problem, Unmade};
use super::state::{Changed, Status, Version};
use crate::base::Counter;
use crate::control::Control;

/// Every route of this module.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(lanes))
        .routes(routes!(drain))
        .routes(routes!(configuration, put_configuration))
        .routes(routes!(reload))
        .routes(routes!(save))
}

/// How the engine is
#[utoipa::path(get, path = "/v1/status", operation_id = "getStatus", tag = "engine", responses((status = 200, body = Status), Always))]
async fn status(State(api): State<Api>) -> Result<Response, Problem> {
    api.show(|control| Ok(control.status())).await
}

/// A lane.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct LaneShown {
    /// Its number.
    pub(in crate::control) lane: u16,
    /// The core that it runs on.
    pub(in crate::control) core: usize,
    /// Turns of its loop.
    pub(in crate::control) breaths: u64,
    /// The configuration that it has in force.
    pub(in crate::control) configuration_version: u64,
    /// The ticket key ring that it has in force.
    pub(in crate::control) ring_version: u64,
    /// Connections that clients have open on it.
    pub(in crate::control) connections: u64,
    /// Nanoseconds in breaths that found something to do.
    pub(in crate::control) busy_nanoseconds: u64,
    /// Nanoseconds in breaths that found nothing, sleep included.
    pub(in crate::control) idle_nanoseconds: u64,
    #[serde(default, flatten)]
    pub(in crate::control) traffic: Traffic,
}

/// What a lane has done since the engine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(in crate::control) struct Traffic {
    /// Connections that it has accepted from clients.
    pub(in crate::control) accepted: u64,
    /// Full handshakes with clients, of any version.
    pub(in crate::control) handshakes_full: u64,
    /// Resumed ones.
    pub(in crate::control) handshakes_resumed: u64,
    /// Handshakes that wait for their turn now.
    pub(in crate::control) handshakes_waiting: u64,
    /// Bytes of application data from clients.
    pub(in crate::control) bytes_received: u64,
    /// Bytes of application data to clients.
    pub(in crate::control) bytes_sent: u64,
    /// Frames received from ports.
    pub(in crate::control) frames_received: u64,
    /// Frames given to ports.
    pub(in crate::control) frames_sent: u64,
    /// Frames lost for want of room: in a transmit queue, in packet buffers, or on the way to another lane.
    pub(in crate::control) frames_dropped: u64,
    /// Frames that were not as their protocols say.
    pub(in crate::control) frames_malformed: u64,
}

impl Traffic {
    fn of(counters: &crate::lane::Counters) -> Self {
        let (lane, relay) = (&counters.lane, &counters.relay);
        let sum = |all: &[&Counter]| all.iter().map(|counter| counter.value()).fold(0, u64::wrapping_add);
        Self {
            accepted: relay.accepted.value(),
            handshakes_full: sum(&[&relay.handshakes_tls13_full, &relay.handshakes_tls12_full]),
            handshakes_resumed: sum(&[&relay.handshakes_tls13_resumed, &relay.handshakes_tls12_resumed]),
            handshakes_waiting: lane.handshakes_waiting.value(),
            bytes_received: relay.bytes_received.value(),
            bytes_sent: relay.bytes_sent.value(),
            frames_received: lane.frames_received.value(),
            frames_sent: lane.frames_sent.value(),
            frames_dropped: sum(&[&lane.frames_unsent, &lane.frames_unmade, &lane.frames_not_handed_over]),
            frames_malformed: sum(&[
                &lane.malformed_truncated,
                &lane.malformed_field,
                &lane.malformed_checksum,
                &lane.malformed_fragment,
                &lane.malformed_source,
            ]),
        }
    }
}

/// Every lane
#[utoipa::path(get, path = "/v1/lanes", operation_id = "listLanes", tag = "engine", responses((status = 200, body = Vec<LaneShown>), Always))]
async fn lanes(State(api): State<Api>) -> Result<Response, Problem> {
    api.show(|control| Ok(control.lanes_shown())).await
}

impl Control {
    pub(super) fn lanes_shown(&self) -> Vec<LaneShown> {
        let cores = &self.configuration.engine.cores;
        let shown = |(lane, core): (&crate::control::run::Lane, &usize)| {
            let (handle, counters) = (&lane.handle, &lane.handle.counters);
            LaneShown {
                lane: handle.lane.0,
                core: *core,
                breaths: counters.lane.breaths.value(),
                configuration_version: counters.lane.configuration_version.value(),
                ring_version: counters.lane.ring_version.value(),
                connections: counters.relay.open.value(),
                busy_nanoseconds: counters.lane.busy_nanoseconds.value(),
                idle_nanoseconds: counters.lane.idle_nanoseconds.value(),
                traffic: Traffic::of(counters),
            }
        };
        self.lanes.iter().zip(cores).map(shown).collect()
    }
}

/// Lets connections end, then stops the engine, as SIGTERM does. Asked twice, it stops at once
#[utoipa::path(post, path = "/v1/drain", operation_id = "drainEngine", tag = "engine", responses((status = 202, body = Status), Always))]
async fn drain(State(api): State<Api>) -> Result<Response, Problem> {
    let drain = |control: &mut Control, moment: super::queue::Moment| {
        control.begin_drain(moment.now);
        control.flush();
        control.status()
    };
    let status = api.control().ask(drain).await?;
    Ok((axum::http::StatusCode::ACCEPTED, axum::Json(status)).into_response())
}

/// The configuration that is in force, as text
#[utoipa::path(get, path = "/v1/configuration", operation_id = "getConfiguration", tag = "configuration",
    responses((status = 200, body = String, content_type = "application/toml", headers(("ETag" = String, description = "its revision"))), Always))]
async fn configuration(State(api): State<Api>) -> Result<Response, Problem> {
    let text = |control: &mut Control, _| (control.configuration.text.clone(), tag(control.revision()));
    let (text, tag) = api.control().ask(text).await?;
    let headers = [(header::CONTENT_TYPE, "application/toml".to_owned()), (header::ETAG, tag)];
    Ok((headers, text).into_response())
}

/// Puts a whole configuration in force. Files that it names are read again
#[utoipa::path(put, path = "/v1/configuration", operation_id = "putConfiguration", tag = "configuration", params(IfMatch),
    request_body(content((String = "application/toml"), (String = "text/plain"))),
    responses((status = 200, body = Changed), (status = 202, body = Changed), Always, Unmade))]
async fn put_configuration(State(api): State<Api>, expected: Expected, Text(text): Text) -> Result<Response, Problem> {
    api.make(expected, move |control, wall| {
        control.change(&text, wall)?;
        Ok((Put::Replaced, false))
    })
    .await
}

/// Reads the configuration's file again, and the files that it names, as SIGHUP does. Changes that were not saved are discarded, and the answer says so
#[utoipa::path(post, path = "/v1/configuration/reload", operation_id = "reloadConfiguration", tag = "configuration", params(IfMatch),
    responses((status = 200, body = Changed), (status = 202, body = Changed), Always, Unmade))]
async fn reload(State(api): State<Api>, expected: Expected) -> Result<Response, Problem> {
    api.make(expected, |control, wall| Ok((Put::Replaced, control.reload(wall)?))).await
}

/// How a configuration is saved.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Saving {
    /// Write over the file even if somebody else has changed it since this engine has read it
    #[serde(default)]
    #[param(default = false)]
    force: bool,
}

/// Writes the configuration that is in force to its file, whole or not at all
#[utoipa::path(post, path = "/v1/configuration/save", operation_id = "saveConfiguration", tag = "configuration", params(Saving, IfMatch),
    responses((status = 200, body = Version), Always, Unmade))]
async fn save(State(api): State<Api>, expected: Expected, Asked(saving): Asked<Saving>) -> Result<Response, Problem> {
    let save = move |control: &mut Control, _| {
        expected.prove(control.revision())?;
        control.save(saving.force)?;
        Ok::<_, Problem>(control.shown_version())
    };
    Ok(axum::Json(api.control().ask(save).await??).into_response())
}
