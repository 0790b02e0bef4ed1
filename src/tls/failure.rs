//! Why a session failed, and what rustls's errors mean.

use rustls::Error;

/// Why a session failed. A counter and a log reason each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The first byte is not TLS, for example that of a plain HTTP request. No alert is sent.
    NotTls,
    /// No certificate for the server name, and the service is strict.
    UnknownServerName,
    /// No protocol version, cipher suite, key share, signature scheme or application protocol in common.
    NothingInCommon,
    /// The client sent a fatal alert.
    AlertReceived,
    /// A message that TLS does not allow here, or that does not decrypt.
    Protocol,
    /// The service takes no client without a certificate, or not with this one.
    Client(ClientFault),
    /// The keys of a TLS 1.2 session have sealed as many records as they may.
    KeysSpent,
    /// Our own fault or the provider's, not the client's.
    Internal,
}

/// What was wrong with a client's certificate, each with the alert that the client is sent (RFC 8446 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientFault {
    /// It showed none where one is required: certificate_required, in TLS 1.2 handshake_failure.
    Missing,
    /// No path leads from it to one of the CAs: unknown_ca.
    UnknownAuthority,
    /// It, or one of its path, has expired or is not valid yet: certificate_expired.
    Expired,
    /// It, or one of its path, has been revoked: certificate_revoked.
    Revoked,
    /// There are revocation lists, and none of an issuer of its path, or one that has ended or is not signed by it: unknown_ca.
    RevocationUnknown,
    /// Anything else, such as a purpose other than that of clients, or a signature that is wrong: bad_certificate, unsupported_certificate, decrypt_error.
    Invalid,
}

impl Failure {
    /// Whose fault an error of rustls is.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::NothingInCommon,
            Error::AlertReceived(_) => Self::AlertReceived,
            Error::NoCertificatesPresented => Self::Client(ClientFault::Missing),
            // A server verifies no other certificates.
            Error::InvalidCertificate(error) => Self::Client(ClientFault::of(error)),
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidEncryptedClientHello(_)
            | Error::InvalidMessage(_)
            | Error::UnsupportedNameType
            | Error::DecryptError
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord => Self::Protocol,
            Error::EncryptError
            | Error::InvalidCertRevocationList(_)
            | Error::General(_)
            | Error::FailedToGetCurrentTime
            | Error::FailedToGetRandomBytes
            | Error::HandshakeNotComplete
            | Error::BadMaxFragmentSize
            | Error::InconsistentKeys(_)
            | Error::Other(_) => Self::Internal,
            // Of a later rustls.
            _ => Self::Protocol,
        }
    }
}
