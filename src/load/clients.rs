//! Who the clients are to rustls: versions, suites and key exchange of the load's choice, and a ticket store for each client.

use std::sync::Arc;

use crossbeam::atomic::AtomicCell;
use crossbeam::queue::ArrayQueue;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::tls::provider;

/// Most TLS 1.3 tickets that a client keeps: what servers commonly issue at once. A newer one displaces the oldest.
const TICKETS_MAX: usize = 2;

/// A protocol version, the only one that the clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    /// TLS 1.2
    #[value(name = "1.2")]
    Tls12,
    /// TLS 1.3
    #[value(name = "1.3")]
    Tls13,
}

impl Version {
    fn of_rustls(self) -> &'static [&'static SupportedProtocolVersion] {
        static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
        static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::Tls12 => &TLS12,
            Self::Tls13 => &TLS13,
        }
    }
}

/// A key exchange, the one that the clients offer; in TLS 1.2 the one that they prefer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// X25519
    X25519,
    /// secp256r1
    P256,
    /// secp384r1
    P384,
    /// X25519MLKEM768, in TLS 1.3
    X25519mlkem768,
}

impl Group {
    fn of_rustls(self) -> NamedGroup {
        match self {
            Self::X25519 => NamedGroup::X25519,
            Self::P256 => NamedGroup::secp256r1,
            Self::P384 => NamedGroup::secp384r1,
            Self::X25519mlkem768 => NamedGroup::X25519MLKEM768,
        }
    }
}

/// A record cipher, the only one that the clients offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cipher {
    /// AES-128-GCM
    Aes128,
    /// AES-256-GCM
    Aes256,
    /// ChaCha20-Poly1305
    Chacha20,
}

impl Cipher {
    fn suites(self) -> [CipherSuite; 3] {
        match self {
            Self::Aes128 => [
                CipherSuite::TLS13_AES_128_GCM_SHA256,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            ],
            Self::Aes256 => [
                CipherSuite::TLS13_AES_256_GCM_SHA384,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            ],
            Self::Chacha20 => [
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ],
        }
    }
}

/// What all clients have in common.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The server name that they ask for.
    pub name: String,
    /// Their version.
    pub version: Version,
    /// Their key exchange.
    pub group: Group,
    /// Their cipher.
    pub cipher: Cipher,
    /// PEM certificates of the roots that they trust. Without, they believe everything and spare themselves the cost of verifying it.
    pub roots: Option<Vec<u8>>,
}

/// Why there are no such clients.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Not a server name.
    #[error("`{0}` is no server name; write a host name such as shop.example, or an IP address")]
    Name(String),
    /// A version without the cipher or the key exchange.
    #[error("this version of TLS, key exchange and cipher do not go together: {0}")]
    Combination(rustls::Error),
    /// The roots are no certificates.
    #[error("the roots to trust cannot be read: {0}")]
    Roots(String),
}

/// Makes clients.
#[derive(Debug)]
pub struct Clients {
    name: ServerName<'static>,
    host: String,
    config: Arc<ClientConfig>,
    /// Those that a crowd is copies of.
    crowd: Vec<Client>,
}

impl Clients {
    /// Clients of this identity.
    ///
    /// # Errors
    /// [`Invalid`] says what is wrong with it.
    pub fn new(identity: &Identity) -> Result<Self, Invalid> {
        let name = ServerName::try_from(identity.name.clone()).map_err(|_| Invalid::Name(identity.name.clone()))?;
        let mut provider = provider::provider();
        let group = identity.group.of_rustls();
        match identity.version {
            Version::Tls13 => provider.kx_groups.retain(|other| other.name() == group),
            // Here the groups say also which certificates a client can verify (RFC 8422 5.1.1), and OpenSSL refuses one whose own is not among them. Servers
            // take the first that they know.
            Version::Tls12 => provider.kx_groups.sort_by_key(|other| other.name() != group),
        }
        let suites = identity.cipher.suites();
        provider.cipher_suites.retain(|suite| suites.contains(&suite.suite()));
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(identity.version.of_rustls())
            .map_err(Invalid::Combination)?;
        let builder = match &identity.roots {
            Some(roots) => builder.with_root_certificates(read_roots(roots)?),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Credulous(provider))),
        };
        let mut config = builder.with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self { name, host: identity.name.clone(), config: Arc::new(config), crowd: Vec::new() })
    }

    /// The same clients as a crowd that is there to hold connections: they share so many TLS 1.2 tickets, which may be used more than once (RFC 5077), and forget
    /// their session as soon as they have nothing to say. A million of them are soon there and take little memory.
    #[must_use]
    pub fn crowd(mut self, tickets: usize) -> Self {
        self.crowd = (0..tickets).map(|_| self.returning()).collect();
        self
    }

    /// Whether they forget their session once they only hold their connection.
    pub(super) fn is_crowd(&self) -> bool {
        !self.crowd.is_empty()
    }

    /// The server name that they ask for.
    pub(super) fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// The same as text.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// A client that never comes back, or the one of this number in a crowd. All who never come back share one configuration.
    pub(super) fn forgetful(&self, number: usize) -> Client {
        let copied = number.checked_rem(self.crowd.len()).and_then(|number| self.crowd.get(number));
        copied.cloned().unwrap_or_else(|| Client { config: Arc::clone(&self.config), tickets: None })
    }

    /// A client that comes back with a ticket.
    pub(super) fn returning(&self) -> Client {
        let tickets = Arc::new(Tickets::default());
        let mut config = (*self.config).clone();
        config.resumption = Resumption::store(Arc::<Tickets>::clone(&tickets));
        Client { config: Arc::new(config), tickets: Some(tickets) }
    }
}

/// One client.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) config: Arc<ClientConfig>,
    tickets: Option<Arc<Tickets>>,
}

impl Client {
    /// Whether it has a session to resume.
    pub(super) fn has_ticket(&self) -> bool {
        self.tickets.as_ref().is_some_and(|tickets| tickets.has_any())
    }
}

fn read_roots(pem: &[u8]) -> Result<RootCertStore, Invalid> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| Invalid::Roots(error.to_string()))?;
        roots.add(certificate).map_err(|error| Invalid::Roots(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(Invalid::Roots("there is no certificate".to_owned()));
    }
    Ok(roots)
}

/// The sessions of one client with the one server that it knows.
///
/// Its cells are what rustls asks of a store that threads could share. A load has one thread.
struct Tickets {
    tls13: ArrayQueue<Tls13ClientSessionValue>,
    tls12: AtomicCell<Option<Tls12ClientSessionValue>>,
    group: AtomicCell<Option<NamedGroup>>,
}

impl Default for Tickets {
    fn default() -> Self {
        Self { tls13: ArrayQueue::new(TICKETS_MAX), tls12: AtomicCell::new(None), group: AtomicCell::new(None) }
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    fn has_any(&self) -> bool {
        !self.tls13.is_empty() || self.peek_tls12().is_some()
    }

    /// RFC 5077 lets a client use a TLS 1.2 ticket more than once.
    fn peek_tls12(&self) -> Option<Tls12ClientSessionValue> {
        let session = self.tls12.take();
        self.tls12.store(session.clone());
        session
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.group.store(Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.group.load()
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.tls12.store(Some(value));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.peek_tls12()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.tls12.store(None);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tls13.force_push(value);
    }

    /// RFC 8446 C.4: a ticket is used once.
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tls13.pop()
    }
}

/// Believes every certificate and every signature, and verifies none: what a client saves that way it does not take from the server's core.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
