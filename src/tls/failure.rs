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
    /// The keys of a TLS 1.2 session have sealed as many records as they may.
    KeysSpent,
    /// Our own fault or the provider's, not the client's.
    Internal,
}

impl Failure {
    /// Whose fault an error of rustls is.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::NothingInCommon,
            Error::AlertReceived(_) => Self::AlertReceived,
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidEncryptedClientHello(_)
            | Error::InvalidMessage(_)
            | Error::NoCertificatesPresented
            | Error::UnsupportedNameType
            | Error::DecryptError
            | Error::PeerMisbehaved(_)
            | Error::InvalidCertificate(_)
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
