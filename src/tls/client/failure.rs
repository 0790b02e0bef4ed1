//! Why a session with a server failed, and what rustls's errors mean.

use rustls::{CertificateError, Error};

use crate::tls::failure as session;

/// Alerts by which a server refuses our certificate, or that there is none: bad_certificate to certificate_unknown, unknown_ca, access_denied and
/// certificate_required (RFC 8446 6.2).
const OF_CERTIFICATES: &[u8] = &[42, 43, 44, 45, 46, 48, 49, 116];

/// Why a session with a server failed. A counter and a log reason each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The first byte is not TLS, for example that of a plain HTTP answer.
    NotTls,
    /// No protocol version, cipher suite, key share, signature scheme or application protocol in common.
    NothingInCommon,
    /// No path leads from the server's certificate to one of the CAs.
    UnknownAuthority,
    /// The server's certificate is for other names.
    WrongName,
    /// The server's certificate, or one of its path, has expired or is not valid yet.
    Expired,
    /// Anything else that is wrong with the server's certificate or its signature.
    InvalidCertificate,
    /// The server refuses our certificate, or that there is none.
    CertificateRefused,
    /// The server sent another fatal alert.
    AlertReceived,
    /// A message that TLS does not allow here, or that does not decrypt.
    Protocol,
    /// The keys of a TLS 1.2 session have sealed as many records as they may.
    KeysSpent,
    /// Our own fault or the provider's, not the server's.
    Internal,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NotTls,
        Self::NothingInCommon,
        Self::UnknownAuthority,
        Self::WrongName,
        Self::Expired,
        Self::InvalidCertificate,
        Self::CertificateRefused,
        Self::AlertReceived,
        Self::Protocol,
        Self::KeysSpent,
        Self::Internal,
    ];

    /// The reason as logs and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotTls => "server-not-tls",
            Self::NothingInCommon => "server-nothing-in-common",
            Self::UnknownAuthority => "server-certificate-unknown-ca",
            Self::WrongName => "server-certificate-wrong-name",
            Self::Expired => "server-certificate-expired",
            Self::InvalidCertificate => "server-certificate-invalid",
            Self::CertificateRefused => "server-refused-certificate",
            Self::AlertReceived => "server-alert-received",
            Self::Protocol => "server-tls-protocol",
            Self::KeysSpent => "server-tls-keys-spent",
            Self::Internal => "server-tls-internal",
        }
    }

    pub(super) fn of_alert(description: u8) -> Self {
        if OF_CERTIFICATES.contains(&description) { Self::CertificateRefused } else { Self::AlertReceived }
    }

    /// What an error of rustls's says of the server.
    pub(super) fn of(error: &Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "what is no certificate is the same from both sides")]
        match error {
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::AlertReceived(description) => Self::of_alert((*description).into()),
            // It verifies nobody that shows nothing.
            Error::NoCertificatesPresented => Self::InvalidCertificate,
            error => Self::from(session::Failure::of(error)),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "whatever else is wrong with it, and what later releases tell apart"
        )]
        match error {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            _ => Self::InvalidCertificate,
        }
    }
}

impl From<session::Failure> for Failure {
    /// Of a record, or of rustls's errors what both sides have in common.
    fn from(failure: session::Failure) -> Self {
        match failure {
            session::Failure::NotTls => Self::NotTls,
            session::Failure::NothingInCommon => Self::NothingInCommon,
            session::Failure::AlertReceived => Self::AlertReceived,
            session::Failure::Protocol => Self::Protocol,
            session::Failure::KeysSpent => Self::KeysSpent,
            session::Failure::Client(_) | session::Failure::UnknownServerName | session::Failure::Internal => {
                Self::Internal
            }
        }
    }
}
