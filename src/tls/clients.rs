//! Client certificates: whose are taken, how that is verified, and what a ticket must hold for a client to be taken again without showing them (H6).
//!
//! A full handshake verifies by webpki: a path of at most six intermediate certificates to one of the CAs, every certificate of it within its time and, where
//! there are revocation lists, cleared by the list of its issuer. No list, or one that has ended, clears nobody: as in nginx, HAProxy and Envoy. The CAs
//! themselves are trusted as they are, whatever time is written in them.
//!
//! A resumption verifies nothing anew: its ticket says until when the client's certificates are valid and who they are ([`Credential`]), and both are held against the time and
//! the lists of *now*. So a new list shuts out whom it names at once, and nobody else loses a ticket over it, for the policy hash leaves lists out.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{self, CertificateDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::base::UnixTime;
use crate::ticket::credential::{CERTIFICATES_MAX, CertificateId, Credential};
use crate::tls::failure::ClientFault;
use crate::tls::notes::{Shown, note_client};
use crate::tls::revocation::{self, RevocationLists, Revoked, Status};
use crate::tls::{provider, subject};

/// Most bytes of CA names that a CertificateRequest lists: RFC 5246 7.4.4 has room for 65,535, and every handshake carries them.
pub const CA_NAMES_MAX: usize = 16 * 1024;

/// Whether a client must show a certificate. A service that asks for none has no [`ClientCertificates`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It may. One that it shows must be right.
    Optional,
    /// It must.
    Required,
}

/// The CAs that certificates are verified by: those of clients, and of servers.
#[derive(PartialEq, Eq)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    names: Vec<Vec<u8>>,
    not_after: UnixTime,
}

impl Authorities {
    /// Reads PEM certificates.
    ///
    /// # Errors
    /// [`Invalid`] says what is wrong, so that the configuration check can name the file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Invalid> {
        let mut certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Invalid::Authority(error.to_string()))?;
        // One that is there twice is one.
        certificates.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        certificates.dedup();
        let (mut names, mut not_after) = (Vec::new(), UnixTime(u64::MAX));
        for certificate in &certificates {
            let parsed = parse(certificate).map_err(Invalid::Authority)?;
            let constraints = parsed.basic_constraints().map_err(|error| Invalid::Authority(error.to_string()))?;
            if constraints.is_some_and(|constraints| !constraints.value.ca) {
                return Err(Invalid::NotAnAuthority(subject::line_of(parsed.subject()).into()));
            }
            names.push(parsed.subject().as_raw().to_vec());
            not_after = not_after.min(not_after_of(&parsed));
        }
        if names.iter().map(|name| name.len() + 2).sum::<usize>() > CA_NAMES_MAX {
            return Err(Invalid::TooManyAuthorities);
        }
        if certificates.is_empty() {
            return Err(Invalid::NoAuthority);
        }
        Ok(Self { certificates, names, not_after })
    }

    /// When the first of them expires.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// The same as rustls verifies by them.
    pub(super) fn roots(&self) -> Result<RootCertStore, Invalid> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.certificates {
            roots.add(certificate.clone()).map_err(|error| Invalid::Authority(error.to_string()))?;
        }
        Ok(roots)
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

/// How a service authenticates its clients. Lanes share it: it never changes, and no lane counts references to it while it works.
#[derive(Debug)]
pub struct ClientCertificates {
    mode: Mode,
    /// Hash of the CAs, whatever order they came in.
    authorities: [u8; 32],
    /// CAs of which there is no revocation list although there are lists.
    without_list: Vec<Box<str>>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// `None` without revocation lists.
    revoked: Option<Revoked>,
}

/// Why a ticket's client is not taken again without its certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// It has shown none where one is required, or some where none is asked for.
    #[error("its client has shown no certificate where one is required, or one where none is asked for")]
    Mode,
    /// One of them has expired.
    #[error("a certificate of its client has expired")]
    Expired,
    /// One of them has been revoked.
    #[error("a certificate of its client has been revoked")]
    Revoked,
    /// Of one of them nothing is known: there is no list of its issuer, or one that has ended.
    #[error("of a certificate of its client no revocation list tells anything now")]
    Unknown,
}

impl ClientCertificates {
    /// Puts it together. With many revoked certificates that takes a while, so not in a lane.
    ///
    /// # Errors
    /// [`Invalid`] says what is wrong.
    pub fn new(mode: Mode, authorities: &Authorities, lists: &[RevocationLists]) -> Result<Self, Invalid> {
        let roots = authorities.roots()?;
        let mut hash = Sha256::new();
        for certificate in &authorities.certificates {
            hash.update(Sha256::digest(certificate));
        }
        let has_list = |name: &Vec<u8>| lists.iter().any(|lists| lists.issuers().contains(name));
        let without_list = authorities.names.iter().filter(|name| !lists.is_empty() && !has_list(name));
        let name_of = |der: &Vec<u8>| {
            x509_parser::x509::X509Name::from_der(der)
                .map_or_else(|_| Box::default(), |(_, name)| subject::line_of(&name))
        };
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider::provider()))
            .with_crls(lists.iter().flat_map(|lists| lists.lists.iter().cloned()))
            .enforce_revocation_expiration();
        if mode == Mode::Optional {
            builder = builder.allow_unauthenticated();
        }
        let inner = builder.build().map_err(|error| Invalid::List(revocation::Invalid::List(error.to_string())))?;
        Ok(Self {
            mode,
            authorities: hash.finalize().into(),
            without_list: without_list.map(name_of).collect(),
            verifier: Arc::new(Verifier { inner }),
            revoked: (!lists.is_empty()).then(|| Revoked::new(lists.iter())).transpose()?,
        })
    }

    /// The CAs of which there is no revocation list, although there are lists: nobody whose certificate is theirs is taken.
    pub fn without_list(&self) -> &[Box<str>] {
        &self.without_list
    }

    /// What a session relied on, for [`policy_hash`](super::service::policy_hash): mode and CAs.
    pub(super) fn hash_into(&self, hash: &mut Sha256) {
        hash.update(match self.mode {
            Mode::Optional => &b"client-auth optional\0"[..],
            Mode::Required => b"client-auth required\0",
        });
        hash.update(self.authorities);
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// Why a client that has shown `credential` in its full handshake may not resume now.
    fn refuse(&self, credential: Option<&Credential>, now: UnixTime) -> Option<Stale> {
        let Some(credential) = credential else { return (self.mode == Mode::Required).then_some(Stale::Mode) };
        // webpki, too, takes a certificate in its last second.
        if now > credential.not_after {
            return Some(Stale::Expired);
        }
        let revoked = self.revoked.as_ref()?;
        let statuses = credential.certificates.iter().map(|certificate| revoked.status(certificate, now));
        statuses.fold(None, |worst, status| match (worst, status) {
            (Some(Stale::Revoked), _) | (_, Status::Revoked) => Some(Stale::Revoked),
            (_, Status::Unknown) => Some(Stale::Unknown),
            (worst, Status::Good) => worst,
        })
    }
}

/// Why a service, with these client certificates or none, may not resume a session whose ticket has this credential or none (H6).
pub(super) fn refuse(
    service: Option<&ClientCertificates>,
    credential: Option<&Credential>,
    now: UnixTime,
) -> Option<Stale> {
    match service {
        Some(certificates) => certificates.refuse(credential, now),
        None => credential.is_some().then_some(Stale::Mode),
    }
}

/// What is wrong with a service's client certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No CA.
    #[error("holds no PEM certificate")]
    NoAuthority,
    /// A CA that does not parse.
    #[error("holds a certificate that cannot be used: {0}")]
    Authority(String),
    /// A certificate that may not sign others (RFC 5280 4.2.1.9).
    #[error("holds the certificate of {0:?}, which is not a CA's")]
    NotAnAuthority(String),
    /// Their names do not fit.
    #[error("holds so many CAs that their names take more than {CA_NAMES_MAX} bytes of every handshake")]
    TooManyAuthorities,
    /// Revocation lists.
    #[error(transparent)]
    List(#[from] revocation::Invalid),
}

/// webpki's verifier, which notes on the desk whom it has verified.
#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: pki_types::UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now).map_err(|error| {
            // A list that its issuer has not signed clears nobody; the client did nothing wrong that it could be told.
            let is_of_list = matches!(error, Error::InvalidCertRevocationList(_));
            if is_of_list { CertificateError::UnknownRevocationStatus.into() } else { error }
        })?;
        note_client(credential(end_entity, intermediates).map_or(Shown::TooMuch, Shown::Credential));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// What a ticket will say of these certificates; `None` of more than it can, and of any that only webpki can read.
fn credential(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Option<Credential> {
    if intermediates.len() >= CERTIFICATES_MAX {
        return None;
    }
    let mut not_after = UnixTime(u64::MAX);
    let mut certificates = SmallVec::new();
    for certificate in std::iter::once(end_entity).chain(intermediates) {
        let parsed = parse(certificate).ok()?;
        not_after = not_after.min(not_after_of(&parsed));
        certificates.push(CertificateId::new(parsed.issuer().as_raw(), parsed.raw_serial()));
    }
    Some(Credential { not_after, certificates })
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("there are bytes behind its end".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn not_after_of(certificate: &X509Certificate<'_>) -> UnixTime {
    // What expired before 1970 has expired all the same.
    UnixTime(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0))
}

/// A client that has proven who it is, as logs and servers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The subject of its certificate, as RFC 4514 writes it, at most [`SUBJECT_MAX`](subject::SUBJECT_MAX) bytes.
    pub subject: Box<str>,
    /// The common name in it, if there is one of at most [`COMMON_NAME_MAX`](subject::COMMON_NAME_MAX) bytes. It may hold any character.
    pub common_name: Option<Box<str>>,
}

impl Client {
    /// Of the chain that a client has shown.
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let name = |certificate: X509Certificate<'_>| Self {
            subject: subject::line_of(certificate.subject()),
            common_name: subject::common_name_of(certificate.subject()),
        };
        // webpki has read it. Should this parser refuse it all the same, there was a client with a certificate, and it has no name.
        let unnamed = || Self { subject: Box::default(), common_name: None };
        chain.first().map(|leaf| parse(leaf).map_or_else(|_| unnamed(), name))
    }
}

impl ClientFault {
    /// What was wrong with a client's certificate.
    pub(super) fn of(error: &CertificateError) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "whatever else is wrong with it, and what later releases tell apart"
        )]
        match error {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::RevocationUnknown,
            _ => Self::Invalid,
        }
    }
}
