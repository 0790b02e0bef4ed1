//! etcd's client as a [`Mirror`] needs it: looks, and transactions under one lease. Every request has an end.

use std::path::Path;

use etcd_client::{
    Certificate, Compare, CompareOp, ConnectOptions, GetOptions, Identity, KeyValue, PutOptions, ResponseHeader,
    TlsOptions, Txn, TxnOp,
};
use zeroize::Zeroizing;

use super::etcd::Settings;
use super::file;
use super::finding::{Error, Finding};
use super::mirror::{Action, Leader, Look, Mirror, Peer, Stored};
use crate::base::Duration;

/// How long an engine counts as living after it was last heard of, in seconds.
pub const LEASE_SECONDS: u64 = 10;
/// How long a request takes at most.
const REQUEST_MAX: Duration = Duration::from_secs(2);
/// How long the word that an engine leaves may take.
const LEAVE_MAX: Duration = Duration::from_secs(1);
/// Most engines of a cluster. With more, or with that many strange keys among theirs, nobody knows for whom to wait, and nothing is rotated.
const ENGINES_MAX: i64 = 1024;
/// The longest PEM or password file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Why etcd was of no use.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// It did not answer in time.
    #[error("no answer within {} s", REQUEST_MAX.as_secs())]
    Silent,
    /// It answered that it would not, or nobody could be reached.
    #[error("{}", causes(.0))]
    Refused(#[from] etcd_client::Error),
    /// More than [`ENGINES_MAX`] keys of engines.
    #[error("it has more than {ENGINES_MAX} keys below {0}: somebody else writes there")]
    Crowded(String),
}

impl Failed {
    /// Whether it is no use to try again: a user or a password is wrong.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Silent | Self::Crowded(_) => false,
            Self::Refused(error) => matches!(
                error,
                etcd_client::Error::GRpcStatus(status) if status.message().contains("authentication failed")
                    || status.message().contains("permission denied") || status.message().contains("user name is empty")
            ),
        }
    }
}

/// The whole chain: the client's own message leaves out what TLS or the socket says.
fn causes(error: &etcd_client::Error) -> String {
    let mut text = error.to_string();
    // The client's error does not say that a status is its cause.
    let mut source = if let etcd_client::Error::GRpcStatus(status) = error {
        std::error::Error::source(status)
    } else {
        std::error::Error::source(error)
    };
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text.replace(['\n', '\r'], " ")
}

/// How to reach etcd.
#[derive(Clone)]
pub struct Connector {
    endpoints: Vec<String>,
    options: ConnectOptions,
    prefix: String,
    engine: String,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Connector {
    /// Reads the files that `settings` name.
    ///
    /// # Errors
    /// [`Error`] when one cannot be read, or others may read a secret.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(REQUEST_MAX)
            .with_timeout(REQUEST_MAX)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if settings.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &settings.ca {
                tls = tls.ca_certificate(Certificate::from_pem(public(ca)?));
            }
            if let Some((certificate, key)) = &settings.identity {
                tls = tls.identity(Identity::from_pem(public(certificate)?, secret(key)?.as_bytes()));
            }
            options = options.with_tls(tls);
        }
        if let Some((user, password)) = &settings.user {
            options = options.with_user(user, secret(password)?.trim_end_matches(['\n', '\r']));
        }
        let prefix = settings.prefix.trim_end_matches('/').to_owned();
        Ok(Self { endpoints: settings.endpoints.clone(), options, prefix, engine: settings.engine.clone() })
    }

    /// Connects, with a new lease.
    ///
    /// # Errors
    /// [`Failed`] says why not.
    pub async fn connect(&self) -> Result<Client, Failed> {
        let mut client = self.visit().await?;
        let granted = timed(client.etcd.lease_grant(i64::try_from(LEASE_SECONDS).unwrap_or(i64::MAX), None)).await?;
        client.lease = granted.id();
        Ok(client)
    }

    /// Connects without a lease: for somebody who is no engine.
    ///
    /// # Errors
    /// [`Failed`] says why not.
    pub async fn visit(&self) -> Result<Client, Failed> {
        let etcd = timed(etcd_client::Client::connect(&self.endpoints, Some(self.options.clone()))).await?;
        Ok(Client { etcd, lease: 0, prefix: self.prefix.clone(), engine: self.engine.clone() })
    }
}

fn public(path: &Path) -> Result<Vec<u8>, Error> {
    let remedy = "name a PEM file that this user may read";
    let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if size > FILE_MAX {
        return Err(Finding::error(path, format!("is longer than {FILE_MAX} bytes"), remedy).into());
    }
    std::fs::read(path).map_err(|error| Finding::error(path, format!("cannot be read: {error}"), remedy).into())
}

fn secret(path: &Path) -> Result<Zeroizing<String>, Error> {
    let (text, mode) = file::read_text(path)?;
    mode.map_or(Ok(text), |open_to_others| Err(open_to_others.into()))
}

async fn timed<T>(request: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, Failed> {
    match tokio::time::timeout(REQUEST_MAX, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failed::Silent),
    }
}

/// A connection, and the lease under which this engine lives.
pub struct Client {
    etcd: etcd_client::Client,
    lease: i64,
    prefix: String,
    engine: String,
}

impl Client {
    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Renews the lease.
    ///
    /// # Errors
    /// Also when it has ended meanwhile.
    pub async fn renew(&mut self) -> Result<(), Failed> {
        timed(self.etcd.lease_keep_alive(self.lease)).await.map(|_| ())
    }

    /// Gives the lease up: this engine lives no more, and leads no more. If that does not arrive the lease ends by itself.
    pub async fn leave(mut self) {
        let _ = tokio::time::timeout(LEAVE_MAX, self.etcd.lease_revoke(self.lease)).await;
    }

    /// The ring, who leads and who lives, at one revision. Each is asked for by its name, so that nothing else below the prefix is in the way.
    ///
    /// # Errors
    /// [`Failed`] says why not.
    pub async fn look(&mut self) -> Result<Look, Failed> {
        let (ring, leader, engines) = (self.key("ring"), self.key("leader"), self.key("engines/"));
        let answer = timed(self.etcd.get(ring, None)).await?;
        let revision = answer.header().map_or(0, ResponseHeader::revision);
        let then = GetOptions::new().with_revision(revision);
        let stored = |found: &KeyValue| Stored { bytes: found.value().to_vec(), revision: found.mod_revision() };
        let mut look = Look { ring: answer.kvs().first().map(stored), ..Look::default() };
        let answer = timed(self.etcd.get(leader, Some(then.clone()))).await?;
        look.leader = match answer.kvs().first() {
            None => Leader::Nobody,
            Some(found) if found.lease() == self.lease => Leader::Own,
            Some(_) => Leader::Other,
        };
        let everybody = then.with_prefix().with_limit(ENGINES_MAX);
        let answer = timed(self.etcd.get(engines.clone(), Some(everybody))).await?;
        if answer.more() {
            return Err(Failed::Crowded(engines));
        }
        for found in answer.kvs() {
            // Without a lease it is no engine, and nobody would ever hear of it again.
            let Some(name) = found.key().strip_prefix(engines.as_bytes()).filter(|_| found.lease() != 0) else {
                continue;
            };
            let acknowledged = found.value_str().ok().and_then(|version| version.parse().ok());
            look.engines.push(Peer {
                name: String::from_utf8_lossy(name).into_owned(),
                acknowledged: acknowledged.unwrap_or(0),
                is_own: found.lease() == self.lease,
            });
        }
        Ok(look)
    }

    /// Does what a mirror says. Gives whether it was done.
    ///
    /// # Errors
    /// When it is not known whether it was done.
    pub async fn act(&mut self, action: Action, mirror: &mut Mirror) -> Result<bool, Failed> {
        let leader = self.key("leader");
        match action {
            Action::Campaign => {
                let nobody = Compare::create_revision(leader.clone(), CompareOp::Equal, 0);
                let put = TxnOp::put(leader, self.engine.clone(), Some(PutOptions::new().with_lease(self.lease)));
                self.transact(vec![nobody], put).await
            }
            Action::Resign => {
                let own = Compare::lease(leader.clone(), CompareOp::Equal, self.lease);
                self.transact(vec![own], TxnOp::delete(leader, None)).await
            }
            Action::Acknowledge(version) => self.acknowledge(version).await,
            Action::Write { ring, over } => {
                let leads = Compare::lease(leader, CompareOp::Equal, self.lease);
                let bytes = mirror.seal(&ring);
                self.write(vec![leads], bytes, over).await
            }
        }
    }

    /// Says that this engine lives and has `version` in force. Gives whether it could: another one may have the name.
    ///
    /// # Errors
    /// [`Failed`] says why not.
    pub async fn acknowledge(&mut self, version: u64) -> Result<bool, Failed> {
        let key = self.key(&format!("engines/{}", self.engine));
        let put = || TxnOp::put(key.clone(), version.to_string(), Some(PutOptions::new().with_lease(self.lease)));
        let (put_first, put_again) = (put(), put());
        let is_free = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
        let is_own = Compare::lease(key, CompareOp::Equal, self.lease);
        if self.transact(vec![is_free], put_first).await? {
            return Ok(true);
        }
        self.transact(vec![is_own], put_again).await
    }

    /// Puts a sealed ring over the one of this revision, also without leading: for an operator's command.
    ///
    /// # Errors
    /// When it is not known whether it was done.
    pub async fn replace(&mut self, bytes: Vec<u8>, over: i64) -> Result<bool, Failed> {
        self.write(Vec::new(), bytes, over).await
    }

    async fn write(&mut self, mut conditions: Vec<Compare>, bytes: Vec<u8>, over: i64) -> Result<bool, Failed> {
        let ring = self.key("ring");
        // A key that is not there has the revision 0.
        conditions.push(Compare::mod_revision(ring.clone(), CompareOp::Equal, over));
        self.transact(conditions, TxnOp::put(ring, bytes, None)).await
    }

    async fn transact(&mut self, conditions: Vec<Compare>, operation: TxnOp) -> Result<bool, Failed> {
        let transaction = Txn::new().when(conditions).and_then(vec![operation]);
        timed(self.etcd.txn(transaction)).await.map(|answer| answer.succeeded())
    }
}
