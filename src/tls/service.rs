//! The TLS side of a virtual service: certificates, versions, ciphers, ALPN and tickets, made into a rustls configuration.

use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use sha2::{Digest, Sha256};

use crate::balance::Pool;
use crate::base::{Duration, UnixTime};
use crate::persistence::Profile;
use crate::ticket::{Envelope, Scope};
use crate::tls::certificate::{self, Resolver};
use crate::tls::clients::ClientCertificates;
use crate::tls::desk::DeskClock;
use crate::tls::notes::SecretsNoted;
use crate::tls::provider;
use crate::tls::secrets::Secrets;
use crate::tls::ticketer::{Terms, Ticketer, Unhonoured};

/// H5: the most tickets that a TLS 1.3 handshake issues.
pub const TICKETS_MAX: usize = 6;

/// Protocol versions that a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// TLS 1.3 only.
    Tls13,
    /// TLS 1.3 and 1.2.
    Tls12And13,
}

/// How a service issues and honours tickets.
#[derive(Clone, Debug)]
pub struct Tickets {
    /// Where its tickets are valid.
    pub scope: Scope,
    /// How many a TLS 1.3 handshake issues, 0 to [`TICKETS_MAX`]; a client may ask for fewer (RFC 9149). 0 turns tickets off, for TLS 1.2 too.
    pub count: usize,
    /// Whether TLS 1.2 sessions get and resume by tickets.
    pub tls12: bool,
    /// How long a ticket is honoured.
    pub lifetime: Duration,
    /// How long after its full handshake a TLS 1.3 session is resumed at most.
    pub session_max: Duration,
    /// The same for TLS 1.2, where every resumption reuses one master secret: two rotation periods.
    pub session_max_tls12: Duration,
}

/// What a service is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Certificate chains with their keys, PEM. The first is the default for an unknown server name.
    pub certificates: Vec<Arc<super::certificate::Certificate>>,
    /// Refuse a handshake for a server name that no certificate covers, or for none, instead of showing the default one.
    pub strict_sni: bool,
    /// Protocol versions.
    pub versions: Versions,
    /// Cipher suites by their IANA names, in order of preference; empty for the default, in the client's order of preference.
    pub ciphers: Vec<String>,
    /// Application protocols, in order of preference; empty for none.
    pub alpn: Vec<Vec<u8>>,
    /// Whether and how clients authenticate themselves; `None` asks them for nothing.
    pub client_certificates: Option<Arc<ClientCertificates>>,
    /// Tickets.
    pub tickets: Tickets,
    /// Where a client may go.
    pub pool: Arc<Pool>,
    /// How it comes back, if it does.
    pub profile: Option<Arc<Profile>>,
}

/// A virtual service's TLS, ready to accept. One instance a lane, so that lanes share no reference count.
#[derive(Debug)]
pub struct Service {
    config: Arc<ServerConfig>,
    terms: Arc<Terms>,
}

impl Service {
    /// Makes a service. It costs some ms where there are RSA keys to be checked, so not in a lane.
    ///
    /// # Errors
    /// [`Invalid`] says what is wrong with the settings.
    pub fn new(settings: Settings) -> Result<Self, Invalid> {
        let Settings { certificates, strict_sni, versions, ciphers, alpn, client_certificates, tickets, pool, profile } =
            settings;
        if certificates.is_empty() {
            return Err(Invalid::NoCertificate);
        }
        if tickets.count > TICKETS_MAX {
            return Err(Invalid::Tickets(tickets.count));
        }
        let mut provider = provider::provider();
        if !ciphers.is_empty() {
            provider.cipher_suites = choose_suites(&provider.cipher_suites, &ciphers, versions)?;
        }
        let resolver = Arc::new(Resolver::new(&certificates, strict_sni, &provider)?);
        let count = tickets.count;
        let has_client_certificates = client_certificates.is_some();
        let builder = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions.of_rustls())
            .map_err(|_| Invalid::NoCipher(versions.name()))?;
        let builder = match &client_certificates {
            Some(certificates) => builder.with_client_cert_verifier(certificates.verifier()),
            None => builder.with_no_client_auth(),
        };
        let terms = Arc::new(Terms { client_certificates, tickets, pool, profile });
        let mut config = builder.with_cert_resolver(resolver);
        config.ignore_client_order = !ciphers.is_empty();
        config.alpn_protocols = alpn;
        config.time_provider = Arc::new(DeskClock);
        // Nothing is kept here of an idle client (P9). Early data stays off: `max_early_data_size` is 0 (H4).
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Records of established sessions are sealed and opened here, not in rustls.
        config.key_log = Arc::new(SecretsNoted::default());
        config.send_tls13_tickets = count;
        config.max_tls13_tickets = count;
        if count > 0 {
            let ticketer: Arc<dyn ProducesTickets> = Arc::new(Ticketer::new(Arc::clone(&terms)));
            config.ticketer = ticketer;
        }
        // RFC 7627 is used with every client that knows it, and rustls resumes such a session only with it. It is required only where clients have
        // certificates: they are what the triple handshake attack forges, and it would shut out OpenSSL before 1.1.0 and Java before 8u161.
        config.require_ems = has_client_certificates;
        Ok(Self { config: Arc::new(config), terms })
    }

    /// The same, which tells its sessions' secrets to whoever wants them, for captures.
    #[must_use]
    pub fn telling(mut self, secrets: Arc<Secrets>) -> Self {
        // Nobody else has it yet.
        if let Some(config) = Arc::get_mut(&mut self.config) {
            config.key_log = Arc::new(SecretsNoted::telling(secrets));
        }
        self
    }

    /// The pool that its clients go to.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.terms.pool
    }

    /// How its clients come back, if they do.
    pub fn profile(&self) -> Option<&Arc<Profile>> {
        self.terms.profile.as_ref()
    }

    /// Whether a ticket of this service that has been opened would resume its session now. Its client has to prove that it holds the session besides.
    ///
    /// # Errors
    /// [`Unhonoured`] says why not.
    pub fn would_resume(&self, envelope: &Envelope, now: UnixTime) -> Result<(), Unhonoured> {
        self.terms.honour(envelope, now)
    }

    pub(super) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    pub(super) fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// The same service, every ticket of which is altered once it is sealed.
    #[cfg(test)]
    pub(super) fn altering_tickets(mut self, alter: fn(Vec<u8>) -> Vec<u8>) -> Self {
        let config = Arc::get_mut(&mut self.config).unwrap();
        config.ticketer = Arc::new(crate::tls::ticketer::Altering { honest: Arc::clone(&config.ticketer), alter });
        self
    }
}

impl Versions {
    pub(super) fn of_rustls(self) -> &'static [&'static SupportedProtocolVersion] {
        static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            Self::Tls13 => &TLS13,
            Self::Tls12And13 => &BOTH,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tls13 => "1.3",
            Self::Tls12And13 => "1.2",
        }
    }

    fn speaks(self, suite: &SupportedCipherSuite) -> bool {
        match (self, suite) {
            (_, SupportedCipherSuite::Tls13(_)) | (Self::Tls12And13, SupportedCipherSuite::Tls12(_)) => true,
            (Self::Tls13, SupportedCipherSuite::Tls12(_)) => false,
        }
    }
}

/// The hash of a service's TLS security policy, for [`Scope::policy`]: what a session relied on when it was authenticated, so that a ticket from before
/// a change is refused after it (S3). That is the minimum version and how clients are authenticated: mode and CAs, in any order. Revocation lists are no part of
/// it: whom they name is found out ticket by ticket (see [`clients`](super::clients)), and a new list costs nobody else a full handshake. Nor are server
/// certificates: renewing one invalidates nothing (H7).
pub fn policy_hash(versions: Versions, clients: Option<&ClientCertificates>) -> [u8; 32] {
    let minimum: u16 = match versions {
        Versions::Tls13 => 0x0304,
        Versions::Tls12And13 => 0x0303,
    };
    let mut hash = Sha256::new();
    hash.update(b"sealane tls policy 1\0");
    hash.update(minimum.to_be_bytes());
    match clients {
        Some(clients) => clients.hash_into(&mut hash),
        None => hash.update(b"client-auth none\0"),
    }
    hash.finalize().into()
}

/// A suite's name in IANA's registry. rustls has its own names for those of TLS 1.3.
pub(super) fn iana_name(suite: CipherSuite) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other suites are named as IANA names them")]
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

fn choose_suites(
    offered: &[SupportedCipherSuite],
    names: &[String],
    versions: Versions,
) -> Result<Vec<SupportedCipherSuite>, Invalid> {
    let offered: Vec<_> = offered.iter().copied().filter(|suite| versions.speaks(suite)).collect();
    let mut chosen = Vec::with_capacity(names.len());
    for name in names {
        let suite = offered.iter().find(|suite| iana_name(suite.suite()) == name).ok_or_else(|| Invalid::Cipher {
            name: name.clone(),
            available: offered.iter().map(|suite| iana_name(suite.suite())).collect::<Vec<_>>().join(", "),
        })?;
        chosen.push(*suite);
    }
    if !chosen.iter().any(|suite| suite.tls13().is_some()) {
        return Err(Invalid::NoCipher("1.3"));
    }
    if versions == Versions::Tls12And13 && chosen.iter().all(|suite| suite.tls13().is_some()) {
        return Err(Invalid::NoCipher("1.2"));
    }
    Ok(chosen)
}

/// What is wrong with a service's settings.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// No certificate was given.
    #[error("there is no certificate")]
    NoCertificate,
    /// Not a cipher suite, or not one that is offered.
    #[error("there is no cipher suite {name:?}; choose from {available}")]
    Cipher {
        /// What was asked for.
        name: String,
        /// Every name that works, separated by commas.
        available: String,
    },
    /// The cipher suites leave a protocol version without any.
    #[error("no cipher suite is left for TLS {0}")]
    NoCipher(&'static str),
    /// More tickets than a handshake issues.
    #[error("{0} tickets are too many; choose from 0 to {TICKETS_MAX}")]
    Tickets(usize),
    /// A certificate that cannot be used.
    #[error("a certificate {0}")]
    Certificate(#[from] certificate::Invalid),
}
