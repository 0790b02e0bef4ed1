//! The engine as a TLS client: towards the servers of a pool, and towards what health monitors look at.
//!
//! [`Settings`] make a [`Connector`], a connector makes a [`Target`] of each server, and a target begins a [`Session`]. Drive a session so: let it work with
//! [`Session::advance`] (the first time it says ClientHello; a step of the handshake costs some 100 µs, the step that verifies the server's certificates most), take
//! its messages with [`Session::poll_transmit`], give it what comes with [`Session::on_data`] and let it work on that. Plaintext comes by [`Session::take`] and
//! goes by [`Session::seal`].
//!
//! Connectors and targets are a lane's own: lanes share no tickets and no reference counts.

mod failure;
mod session;
mod tickets;
mod verifier;

use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;

use crate::tls::certificate::{self, Certificate};
use crate::tls::clients::{self, Authorities};
use crate::tls::notes::{SecretsNoted, note};
use crate::tls::secrets::Secrets;
use crate::tls::{Versions, provider};

pub use failure::Failure;
pub use session::{HANDSHAKE_MAX, Handshake, INPUT_MAX, Progress, Session};
pub use tickets::TICKETS_MAX;

use tickets::Tickets;
use verifier::Anyone;

/// Whom a server's certificate must come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// One of these CAs, by a path of at most six intermediate certificates, each within its time; and it must be for the name.
    Authorities(Arc<Authorities>),
    /// Nobody: whoever answers at the server's address is believed. For networks in which nobody else can.
    Anyone,
}

/// How servers are spoken to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose certificates are believed.
    pub trust: Trust,
    /// The certificate that is shown to servers that ask for one.
    pub certificate: Option<Arc<Certificate>>,
    /// Protocol versions.
    pub versions: Versions,
    /// Application protocols, in order of preference; empty for none.
    pub alpn: Vec<Vec<u8>>,
    /// Whether sessions are resumed, by at most [`TICKETS_MAX`] tickets a server. A resumed session shows no certificate: it is that of the session before.
    pub resumption: bool,
}

/// What is wrong with settings.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The CAs.
    #[error(transparent)]
    Authorities(#[from] clients::Invalid),
    /// The own certificate.
    #[error(transparent)]
    Certificate(#[from] certificate::Invalid),
    /// rustls says so.
    #[error("TLS towards servers cannot be made of this: {0}")]
    Combination(#[from] rustls::Error),
}

/// The name of a server: what is asked for by SNI (RFC 6066 3) and what its certificate must be for. An address is never asked for, but a certificate can be for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(ServerName<'static>);

impl Name {
    /// A DNS name, or an address as text.
    pub fn parse(text: &str) -> Option<Self> {
        ServerName::try_from(text.to_owned()).ok().map(Self)
    }

    /// The name of a server that has none.
    pub fn of(address: IpAddr) -> Self {
        Self(ServerName::from(address))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_str())
    }
}

/// What all servers of a pool are spoken to with.
#[derive(Debug)]
pub struct Connector {
    config: ClientConfig,
    resumption: bool,
}

impl Connector {
    /// Makes a connector. It costs some ms where there is an RSA key to be checked, so not in a lane.
    ///
    /// # Errors
    /// [`Invalid`] says what is wrong with the settings.
    pub fn new(settings: &Settings) -> Result<Self, Invalid> {
        let provider = Arc::new(provider::provider());
        let verifier: Arc<dyn ServerCertVerifier> = match &settings.trust {
            Trust::Authorities(authorities) => {
                let roots = Arc::new(authorities.roots()?);
                // It fails without roots, and for revocation lists that cannot be read: there are none.
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(|error| clients::Invalid::Authority(error.to_string()))?
            }
            Trust::Anyone => Arc::new(Anyone::new(&provider)),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(settings.versions.of_rustls())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &settings.certificate {
            Some(certificate) => {
                let certified = certificate.certified_key(&provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&settings.alpn);
        config.time_provider = Arc::new(Clock);
        // Records of established sessions are sealed and opened here, not in rustls; tickets that come later it takes by its API for that.
        config.key_log = Arc::new(SecretsNoted::default());
        config.enable_secret_extraction = settings.resumption;
        config.resumption = Resumption::disabled();
        Ok(Self { config, resumption: settings.resumption })
    }

    /// The same, which tells its sessions' secrets to whoever wants them, for captures.
    #[must_use]
    pub fn telling(mut self, secrets: Arc<Secrets>) -> Self {
        self.config.key_log = Arc::new(SecretsNoted::telling(secrets));
        self
    }

    /// A server of this name. What is kept of sessions with it, to resume them, is its own.
    pub fn target(&self, name: &Name) -> Target {
        let mut config = self.config.clone();
        if self.resumption {
            config.resumption = Resumption::store(Arc::new(Tickets::default()));
        }
        Target { config: Arc::new(config), name: name.clone(), resumption: self.resumption }
    }
}

/// One server, as one lane speaks to it.
#[derive(Debug)]
pub struct Target {
    config: Arc<ClientConfig>,
    name: Name,
    resumption: bool,
}

impl Target {
    /// What it is asked for by, and must show.
    pub fn name(&self) -> &Name {
        &self.name
    }
}

/// rustls's clock: the wall clock that [`Session::advance`] was given.
#[derive(Debug)]
struct Clock;

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let now = note(|notes| notes.now).flatten()?;
        Some(rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.0)))
    }
}

#[cfg(test)]
mod tests;
