//! Captures: begun, streamed and ended.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::changes::Api;
use super::extract::{Asked, Named};
use super::problem::{Absent, Always, Problem};
use crate::control::Control;
use crate::control::capture::session::{PIECES_MAX, stream};
use crate::control::capture::{
    BYTE_RATE, BYTE_RATE_MAX, BYTES, BYTES_MAX, FRAMES, FRAMES_MAX, RATE, RATE_MAX, Refused, Running, SECONDS,
    SECONDS_MAX, Side, Wanted,
};
use crate::lane::capture::filter::TEXT_MAX;
use crate::lane::capture::tap::{SNAP_LEN_MAX, SNAP_LEN_MIN};

/// The header that says which capture the answer is of.
pub(in crate::control) const ID: &str = "sealane-capture";

/// The media type of a capture.
const MEDIA_TYPE: &str = "application/x-pcapng";

/// Every route of this module.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, begin)).routes(routes!(end))
}

/// A capture that goes on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct CaptureShown {
    /// Its number.
    pub(in crate::control) id: u64,
    /// Its filter.
    pub(in crate::control) filter: String,
    /// Which side it captures.
    pub(in crate::control) side: Side,
    /// Frames that lanes have captured.
    pub(in crate::control) captured: u64,
    /// Frames that they have left out.
    pub(in crate::control) left_out: u64,
}

/// Every capture that goes on
#[utoipa::path(get, path = "/v1/captures", operation_id = "listCaptures", tag = "captures", responses((status = 200, body = Vec<CaptureShown>), Always))]
async fn list(State(api): State<Api>) -> Result<Response, Problem> {
    let shown = |running: &std::sync::Arc<Running>| {
        let (captured, left_out) = running.counts();
        let (filter, side) = (running.wanted.filter.clone(), running.wanted.side);
        CaptureShown { id: running.id, filter, side, captured, left_out }
    };
    let all =
        api.control().ask(move |control: &mut Control, _| control.captures.running().map(shown).collect::<Vec<_>>());
    Ok(axum::Json(all.await?).into_response())
}

/// What is to be captured.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Asking {
    /// Which frames, in the words of pcap-filter(7); all without
    #[serde(default)]
    #[param(max_length = 1024, example = "host 198.18.0.1 and port 443")]
    filter: String,
    /// Which side: "client", "server" or "both"
    #[serde(default = "both")]
    #[param(default = "both")]
    side: Side,
    /// Numbers of lanes with commas between them; all without
    #[param(example = "0,1")]
    lanes: Option<String>,
    /// Names of ports with commas between them; all without
    #[param(example = "front")]
    ports: Option<String>,
    /// Most frames
    #[serde(default = "frames")]
    #[param(default = 1_000_000, minimum = 1, maximum = 100_000_000)]
    count: u64,
    /// Most bytes of the whole answer but for its end
    #[serde(default = "bytes")]
    #[param(default = 268_435_456, minimum = 1024, maximum = 68_719_476_736_u64)]
    bytes: u64,
    /// How long
    #[serde(default = "seconds")]
    #[param(default = 60, minimum = 1, maximum = 240)]
    seconds: u64,
    /// Most frames a second of each lane
    #[serde(default = "rate")]
    #[param(default = 20_000, minimum = 1, maximum = 2_000_000)]
    rate: u32,
    /// Most bytes a second of each lane
    #[serde(default = "byte_rate")]
    #[param(default = 33_554_432, minimum = 1024, maximum = 1_073_741_824)]
    byte_rate: u32,
    /// Most bytes that are kept of a frame
    #[serde(default = "snap_len")]
    #[param(default = 16_384, minimum = 64, maximum = 16_384)]
    snap_len: usize,
    /// Whether it holds TLS secrets of sessions that are established meanwhile and whose ClientHello it holds, where the configuration allows that
    #[serde(default)]
    #[param(default = false)]
    tls_secrets: bool,
}

fn both() -> Side {
    Side::Both
}

fn frames() -> u64 {
    FRAMES
}

fn bytes() -> u64 {
    BYTES
}

fn seconds() -> u64 {
    SECONDS
}

fn rate() -> u32 {
    RATE
}

fn byte_rate() -> u32 {
    BYTE_RATE
}

fn snap_len() -> usize {
    SNAP_LEN_MAX
}

/// Captures frames, and streams them as pcapng until a bound is reached or the capture is ended. Who closes the connection ends it, too
///
/// Behind the last frame there is an Interface Statistics Block of each port, whose comment says why it ended and what was left out.
#[utoipa::path(post, path = "/v1/captures", operation_id = "beginCapture", tag = "captures", params(Asking),
    responses((status = 200, body = Vec<u8>, content_type = "application/x-pcapng", headers(("Sealane-Capture" = u64, description = "its number"))),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "There are as many as may be, or it may have no secrets"), Always))]
async fn begin(State(api): State<Api>, Asked(asking): Asked<Asking>) -> Result<Response, Problem> {
    let wanted = asking.proven()?;
    let running = api.control().ask(move |control: &mut Control, _| control.begin_capture(wanted)).await??;
    let id = HeaderValue::from(running.id);
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    tokio::spawn(stream(running, sender));
    let mut response = Response::new(Body::new(Pieces(pieces)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response.headers_mut().insert(ID, id);
    Ok(response)
}

/// Ends a capture in order: what has been captured is streamed to its end
#[utoipa::path(delete, path = "/v1/captures/{id}", operation_id = "endCapture", tag = "captures", params(("id" = u64, Path, description = "its number")),
    responses((status = 202, description = "It ends"), Always, Absent))]
async fn end(State(api): State<Api>, Named(id): Named<u64>) -> Result<Response, Problem> {
    let ends = api.control().ask(move |control: &mut Control, _| control.end_capture(id)).await?;
    if ends {
        Ok(StatusCode::ACCEPTED.into_response())
    } else {
        Err(Problem::missing(format!("there is no capture {id}")))
    }
}

impl Asking {
    fn proven(self) -> Result<Wanted, Problem> {
        if self.filter.len() > TEXT_MAX {
            return Err(Problem::malformed(format!("filter has more than {TEXT_MAX} bytes")));
        }
        let within = |what: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Problem::malformed(format!("{what} is {value}; write a number from {least} to {most}")))
        };
        within("count", self.count, 1, FRAMES_MAX)?;
        within("bytes", self.bytes, 1024, BYTES_MAX)?;
        within("seconds", self.seconds, 1, SECONDS_MAX)?;
        within("rate", self.rate.into(), 1, RATE_MAX.into())?;
        within("byte_rate", self.byte_rate.into(), 1024, BYTE_RATE_MAX.into())?;
        within("snap_len", self.snap_len as u64, SNAP_LEN_MIN as u64, SNAP_LEN_MAX as u64)?;
        let lanes = self.lanes.as_deref().map(|all| all.split(',').map(str::parse).collect()).transpose();
        let lanes = lanes.map_err(|_| Problem::malformed("lanes are numbers with commas between them, as in 0,1"))?;
        Ok(Wanted {
            filter: self.filter,
            side: self.side,
            lanes: lanes.unwrap_or_default(),
            ports: self.ports.map(|all| all.split(',').map(str::to_owned).collect()).unwrap_or_default(),
            frames: self.count,
            bytes: self.bytes,
            seconds: self.seconds,
            frames_per_second: self.rate,
            bytes_per_second: self.byte_rate,
            snap_len: self.snap_len,
            tls_secrets: self.tls_secrets,
        })
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match &refused {
            Refused::Filter(_) | Refused::NoLane(..) | Refused::NoPort(..) => Self::malformed(refused.to_string()),
            Refused::TooMany | Refused::NoSecrets | Refused::SecretsTaken => Self::conflict(refused.to_string()),
        }
    }
}

/// A body that comes in pieces, as somebody makes them.
struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
