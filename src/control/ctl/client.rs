//! One request to an engine's API, over its Unix socket or TCP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::base::Duration;
use crate::control::api::tcp::token_in;
use crate::control::config::FILE_MAX;

/// How long an engine has to answer: a little longer than it takes to give up itself.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// The longest answer that is read: all pools with all servers.
const LENGTH_MAX: usize = 16 * FILE_MAX;

/// Where the engine is.
#[derive(Clone, Debug)]
pub(in crate::control) enum Target {
    /// Its Unix socket.
    Socket(PathBuf),
    /// Its address, and what lets this client in there.
    Address(Address),
}

/// An engine's TCP address.
#[derive(Clone, Debug)]
pub(in crate::control) struct Address {
    /// Whole, as it was given.
    pub(super) url: Uri,
    /// The token that it asks for.
    pub(super) token: Option<Zeroizing<Vec<u8>>>,
    /// With https: what is shown and believed.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// Files that TLS to an engine takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct TlsArgs {
    /// With https: the authorities that the engine's certificate may be from
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// With https: a certificate for an engine that asks for one
    #[arg(long, value_name = "FILE", requires = "key", global = true)]
    certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "certificate", global = true)]
    key: Option<PathBuf>,
}

impl Address {
    pub(super) fn new(url: &str, token_file: Option<&Path>, tls: &TlsArgs) -> anyhow::Result<Self> {
        let url: Uri = url.parse().context("the URL is none; write --url https://198.18.0.1:9901")?;
        url.host().context("the URL names no host; write --url https://198.18.0.1:9901")?;
        let tls = match url.scheme_str() {
            Some("http") => None,
            Some("https") => Some(Arc::new(tls.configuration()?)),
            Some(_) | None => anyhow::bail!("write a URL with http or https"),
        };
        let token = token_file.map(token_in).transpose().map_err(anyhow::Error::msg)?;
        Ok(Self { url, token, tls })
    }

    fn port(&self) -> u16 {
        self.url.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 })
    }

    fn host(&self) -> &str {
        let host = self.url.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    async fn open(&self, question: Question) -> anyhow::Result<Response<Incoming>> {
        let stream = tokio::net::TcpStream::connect((self.host(), self.port())).await;
        let stream = stream.with_context(|| format!("no engine listens at {}", self.url))?;
        let token = self.token.as_ref().map(|token| token.as_slice());
        let host = self.url.authority().map_or("localhost", |authority| authority.as_str());
        let Some(tls) = &self.tls else { return exchange(stream, question, host, token).await };
        let name = ServerName::try_from(self.host().to_owned())?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        exchange(stream.with_context(|| format!("no TLS with {}", self.url))?, question, host, token).await
    }
}

impl TlsArgs {
    fn configuration(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca =
            self.ca.as_deref().context("name the authorities that the engine's certificate may be from, --ca FILE")?;
        for authority in certificates(ca)? {
            roots.add(authority)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let client = client.with_root_certificates(roots);
        Ok(match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("{}", key.display()))?;
                client.with_client_auth_cert(certificates(certificate)?, key)?
            }
            (Some(_), None) | (None, Some(_)) | (None, None) => client.with_no_client_auth(),
        })
    }
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    all.with_context(|| format!("{}", file.display()))
}

/// What is asked.
#[derive(Clone, Debug)]
pub(in crate::control) struct Question {
    pub(super) method: Method,
    pub(super) path: String,
    /// A body and its media type.
    pub(super) body: Option<(&'static str, Vec<u8>)>,
    pub(super) if_match: Option<String>,
}

impl Question {
    pub(in crate::control) fn new(method: Method, path: impl Into<String>) -> Self {
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
pub(in crate::control) struct Answer {
    pub(in crate::control) status: StatusCode,
    pub(in crate::control) body: Bytes,
}

impl Target {
    /// Asks, and waits for the answer.
    pub(in crate::control) fn ask(&self, question: Question) -> anyhow::Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let answer = runtime.block_on(async { tokio::time::timeout(ANSWER_MAX, self.answer(question)).await });
        answer.with_context(|| format!("the engine at {self} does not answer"))?
    }

    async fn answer(&self, question: Question) -> anyhow::Result<Answer> {
        let response = self.open(question).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LENGTH_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer ended early: {error}"))?;
        Ok(Answer { status, body: body.to_bytes() })
    }

    /// Asks, and gives the answer as it begins.
    pub(in crate::control) async fn open(&self, question: Question) -> anyhow::Result<Response<Incoming>> {
        match self {
            Self::Socket(path) => {
                let stream = tokio::net::UnixStream::connect(path).await;
                let stream = stream.with_context(|| format!("no engine listens at {}", path.display()))?;
                exchange(stream, question, "localhost", None).await
            }
            Self::Address(address) => address.open(question).await,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Address(address) => write!(f, "{}", address.url),
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    question: Question,
    host: &str,
    token: Option<&[u8]>,
) -> anyhow::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(question.method).uri(question.path).header(header::HOST, host);
    if let Some(token) = token {
        let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    if let Some(if_match) = question.if_match {
        request = request.header(header::IF_MATCH, if_match);
    }
    let (media_type, body) = question.body.unzip();
    if let Some(media_type) = media_type {
        request = request.header(header::CONTENT_TYPE, media_type);
    }
    let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
    Ok(sender.send_request(request).await?)
}
