//! One request to an engine's API, over its Unix socket.

use std::path::PathBuf;

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::base::Duration;
use crate::control::config::FILE_MAX;

/// How long an engine has to answer: a little longer than it takes to give up itself.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// The longest answer that is read: all pools with all servers.
const LENGTH_MAX: usize = 16 * FILE_MAX;

/// Where the engine is.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Its Unix socket.
    Socket(PathBuf),
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) path: String,
    /// A body and its media type.
    pub(super) body: Option<(&'static str, Vec<u8>)>,
    pub(super) if_match: Option<String>,
}

impl Question {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, if_match: None }
    }

    pub(super) fn json(self, body: &Json) -> Self {
        Self { body: Some(("application/json", body.to_string().into_bytes())), ..self }
    }

    pub(super) fn toml(self, text: Vec<u8>) -> Self {
        Self { body: Some(("application/toml", text)), ..self }
    }
}

/// What the engine answers.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Target {
    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, question: Question) -> anyhow::Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let answer = runtime.block_on(async { tokio::time::timeout(ANSWER_MAX, self.answer(question)).await });
        answer.with_context(|| format!("the engine at {self} does not answer"))?
    }

    async fn answer(&self, question: Question) -> anyhow::Result<Answer> {
        match self {
            Self::Socket(path) => {
                let stream = tokio::net::UnixStream::connect(path).await;
                let stream = stream.with_context(|| format!("no engine listens at {}", path.display()))?;
                exchange(stream, question).await
            }
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    question: Question,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(question.method).uri(question.path).header(header::HOST, "sealane");
    if let Some(if_match) = question.if_match {
        request = request.header(header::IF_MATCH, if_match);
    }
    let (media_type, body) = question.body.unzip();
    if let Some(media_type) = media_type {
        request = request.header(header::CONTENT_TYPE, media_type);
    }
    let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LENGTH_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer ended early: {error}"))?;
    Ok(Answer { status, body: body.to_bytes() })
}
