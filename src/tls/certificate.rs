//! Certificates of a virtual service, chosen by SNI (RFC 6066 3) and by what the client can verify.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureAlgorithm, SignatureScheme};
use smallvec::SmallVec;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::base::UnixTime;
use crate::tls::notes::{Admission, Hello, note_hello};
use crate::tls::provider;

/// A certificate chain with its private key.
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<PrivateKeyDer<'static>>,
    names: Vec<String>,
    not_after: UnixTime,
}

impl Certificate {
    /// Reads a PEM chain (leaf first) and its PEM private key (PKCS#8, PKCS#1 or SEC1) and proves that they belong together.
    ///
    /// # Errors
    /// [`Invalid`] says what is wrong, so that the configuration check can name the file.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Invalid> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Invalid::Certificate(error.to_string()))?;
        let leaf = chain.first().ok_or(Invalid::NoCertificate)?;
        let (names, not_after) = read_leaf(leaf)?;
        for issuer in chain.iter().skip(1) {
            parse(issuer)?;
        }
        let no_items = |error: &PemError| matches!(error, PemError::NoItemsFound);
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| if no_items(&error) { Invalid::NoKey } else { Invalid::Key(error.to_string()) })?;
        let certificate = Self { chain, key: Zeroizing::new(key), names, not_after };
        certificate.certified_key(&provider::provider())?;
        Ok(certificate)
    }

    /// DNS names and IP addresses that the leaf is valid for, as text, in lower case. Its common name if it has no alternative name.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// The chain with a signing key of its own: every lane's service loads the key anew, so that no lane counts references in another's cache lines.
    pub(super) fn certified_key(&self, provider: &CryptoProvider) -> Result<CertifiedKey, Invalid> {
        let key = provider
            .key_provider
            .load_private_key(self.key.clone_key())
            .map_err(|error| Invalid::Key(error.to_string()))?;
        let certified = CertifiedKey::new(self.chain.clone(), key);
        match certified.keys_match() {
            Ok(()) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Invalid::Mismatch),
            Err(error) => Err(Invalid::Key(error.to_string())),
        }
    }
}

impl std::fmt::Debug for Certificate {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The chain holds no certificate.
    #[error("holds no PEM certificate")]
    NoCertificate,
    /// The key file holds no private key.
    #[error("holds no PEM private key")]
    NoKey,
    /// A certificate does not parse.
    #[error("holds a certificate that does not parse: {0}")]
    Certificate(String),
    /// The leaf may not sign handshakes (RFC 5280 4.2.1.3), which every cipher suite here needs.
    #[error("holds a certificate whose key usage lacks digitalSignature, so that clients would refuse it")]
    KeyUsage,
    /// A key of a kind or size that the provider does not take.
    #[error("holds a private key that cannot be used: {0}")]
    Key(String),
    /// The key is not that of the leaf certificate.
    #[error("is not the key of the certificate")]
    Mismatch,
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Invalid> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Invalid::Certificate("there are bytes behind its end".to_owned())),
        Err(error) => Err(Invalid::Certificate(error.to_string())),
    }
}

fn read_leaf(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, UnixTime), Invalid> {
    let leaf = parse(leaf)?;
    let malformed = |error: x509_parser::error::X509Error| Invalid::Certificate(error.to_string());
    // TLS 1.3 and the ECDHE suites of TLS 1.2 all sign with the leaf's key (RFC 8446 4.4.2.2); no suite here encrypts to it.
    if leaf.key_usage().map_err(malformed)?.is_some_and(|usage| !usage.value.digital_signature()) {
        return Err(Invalid::KeyUsage);
    }
    let names = match leaf.subject_alternative_name().map_err(malformed)? {
        Some(alternatives) => alternatives.value.general_names.iter().filter_map(name_of).collect(),
        None => leaf
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok())
            .map(str::to_ascii_lowercase)
            .collect(),
    };
    // A leaf that expired before 1970 has expired all the same.
    let not_after = UnixTime(u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0));
    Ok((names, not_after))
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds of name mean nothing to a TLS client")]
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(octets) => match (<[u8; 4]>::try_from(*octets), <[u8; 16]>::try_from(*octets)) {
            (Ok(v4), _) => Some(IpAddr::from(v4).to_string()),
            (_, Ok(v6)) => Some(IpAddr::from(v6).to_string()),
            (Err(_), Err(_)) => None,
        },
        _ => None,
    }
}

/// The certificates for one name, those that the server would rather show first.
type Choices = SmallVec<[Arc<CertifiedKey>; 2]>;

/// Finds a certificate for a ClientHello: by exact name, then by wildcard over one label (RFC 6125 6.4.3), then the default.
///
/// rustls asks it once a ClientHello that has a protocol version in common with us: it notes what the client asks for.
#[derive(Debug)]
pub(super) struct Resolver {
    strict_sni: bool,
    exact: HashMap<Box<str>, Choices>,
    /// By what follows `*.`.
    wildcards: HashMap<Box<str>, Choices>,
    default: Choices,
}

impl Resolver {
    /// A resolver over `certificates`. The first is the default, together with those of another key type for its first name.
    pub(super) fn new(
        certificates: &[Arc<Certificate>],
        strict_sni: bool,
        provider: &CryptoProvider,
    ) -> Result<Self, Invalid> {
        let first = certificates.first().ok_or(Invalid::NoCertificate)?;
        let default_name = first.names().first();
        let mut resolver =
            Self { strict_sni, exact: HashMap::new(), wildcards: HashMap::new(), default: Choices::new() };
        for certificate in certificates {
            let certified = Arc::new(certificate.certified_key(provider)?);
            for name in certificate.names() {
                let choices = match name.strip_prefix("*.") {
                    Some(suffix) => resolver.wildcards.entry(suffix.into()).or_default(),
                    None => resolver.exact.entry(name.as_str().into()).or_default(),
                };
                choices.push(Arc::clone(&certified));
            }
            if Arc::ptr_eq(certificate, first) || default_name.is_some_and(|name| certificate.names().contains(name)) {
                resolver.default.push(certified);
            }
        }
        let all = resolver.exact.values_mut().chain(resolver.wildcards.values_mut());
        all.chain(std::iter::once(&mut resolver.default))
            .for_each(|choices| choices.sort_by_key(|choice| rank(choice)));
        Ok(resolver)
    }

    fn named(&self, server_name: &str) -> Option<&Choices> {
        let name = server_name.strip_suffix('.').unwrap_or(server_name);
        self.exact.get(name).or_else(|| self.wildcards.get(name.split_once('.')?.1))
    }
}

fn choose(choices: &Choices, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
    let chosen = match choices.as_slice() {
        [only] => Some(only),
        several => several.iter().find(|choice| choice.key.choose_scheme(schemes).is_some()).or(several.first()),
    };
    // RFC 8446 4.4.2.2: with no chain that the client can verify, one is shown all the same. rustls then ends the handshake
    // with handshake_failure, which says more than the access_denied that it would send for no certificate.
    chosen.cloned()
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (server_name, schemes) = (hello.server_name(), hello.signature_schemes());
        let named = server_name.and_then(|name| self.named(name));
        let (admission, choices) = match (named, server_name, self.strict_sni) {
            (Some(named), _, _) => (Admission::Known, Some(named)),
            (None, _, true) => (Admission::Refused, None),
            (None, Some(_), false) => (Admission::Unknown, Some(&self.default)),
            (None, None, false) => (Admission::Known, Some(&self.default)),
        };
        let chosen = choices.and_then(|choices| choose(choices, schemes));
        let can_verify_us = chosen.as_ref().is_some_and(|chosen| chosen.key.choose_scheme(schemes).is_some());
        note_hello(Hello { server_name: server_name.map(Box::from), admission, can_verify_us });
        chosen
    }
}

/// ECDSA and EdDSA before RSA: a signature with P-256 costs a tenth of one with RSA-2048, and the chain is shorter.
fn rank(certified: &CertifiedKey) -> u8 {
    match certified.key.algorithm() {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 | SignatureAlgorithm::ED448 => 1,
        SignatureAlgorithm::RSA => 2,
        SignatureAlgorithm::Anonymous | SignatureAlgorithm::DSA | SignatureAlgorithm::Unknown(_) | _ => 3,
    }
}
