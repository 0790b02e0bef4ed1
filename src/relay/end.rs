//! How a relayed connection ended.

use crate::tls::{ClientFault, Failure, client};

/// How a relayed connection ended, and whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Both sides closed in order.
    Finished,
    /// The client reset the connection.
    ClientReset,
    /// The client stopped answering.
    ClientTimedOut,
    /// The client closed before its TLS handshake ended.
    ClientGone,
    /// The client closed without close_notify before the server was done.
    ClientTruncated,
    /// The TLS handshake or session failed.
    Tls(Failure),
    /// The client did not finish the TLS handshake in time.
    HandshakeTimedOut,
    /// Persistence refused the client: its server is down, drained, disabled or full.
    Refused,
    /// The client waited too long for a place at its server.
    QueueTimedOut,
    /// No server was usable, or none had a place.
    NoServer,
    /// The engine had no table entry or source port left for the server's connection.
    NoResources,
    /// The server answered the SYN with a reset.
    ServerRefused,
    /// The server did not answer the SYN, or stopped answering.
    ServerTimedOut,
    /// There is no way to the server.
    ServerUnreachable,
    /// The server reset the connection.
    ServerReset,
    /// The server closed without close_notify, or before its TLS handshake ended.
    ServerTruncated,
    /// The TLS handshake or session with the server failed.
    ServerTls(client::Failure),
    /// No byte in either direction for too long.
    IdleTimedOut,
    /// The server was drained, and the time for that was up.
    ServerDrained,
    /// The operator disabled the server.
    ServerDisabled,
    /// The engine stopped before the connection ended.
    Drained,
}

impl End {
    /// Whether it says something against the server: that it could not be connected to, did not answer, was not who it should be, or cut a stream short.
    /// Evidence for passive health, whether it ended the connection or another server was tried.
    pub fn blames_server(self) -> bool {
        match self {
            Self::ServerRefused
            | Self::ServerTimedOut
            | Self::ServerUnreachable
            | Self::ServerReset
            | Self::ServerTruncated => true,
            Self::ServerTls(failure) => match failure {
                client::Failure::NotTls
                | client::Failure::NothingInCommon
                | client::Failure::UnknownAuthority
                | client::Failure::WrongName
                | client::Failure::Expired
                | client::Failure::InvalidCertificate
                | client::Failure::CertificateRefused
                | client::Failure::AlertReceived
                | client::Failure::Protocol => true,
                client::Failure::KeysSpent | client::Failure::Internal => false,
            },
            Self::Finished
            | Self::ClientReset
            | Self::ClientTimedOut
            | Self::ClientGone
            | Self::ClientTruncated
            | Self::Tls(_)
            | Self::HandshakeTimedOut
            | Self::Refused
            | Self::QueueTimedOut
            | Self::NoServer
            | Self::NoResources
            | Self::IdleTimedOut
            | Self::ServerDrained
            | Self::ServerDisabled
            | Self::Drained => false,
        }
    }

    /// The reason as logs and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ClientReset => "client-reset",
            Self::ClientTimedOut => "client-timed-out",
            Self::ClientGone => "client-gone",
            Self::ClientTruncated => "client-truncated",
            Self::Tls(Failure::NotTls) => "not-tls",
            Self::Tls(Failure::UnknownServerName) => "unknown-server-name",
            Self::Tls(Failure::NothingInCommon) => "nothing-in-common",
            Self::Tls(Failure::AlertReceived) => "alert-received",
            Self::Tls(Failure::Protocol) => "tls-protocol",
            Self::Tls(Failure::Client(ClientFault::Missing)) => "client-certificate-missing",
            Self::Tls(Failure::Client(ClientFault::UnknownAuthority)) => "client-certificate-unknown-ca",
            Self::Tls(Failure::Client(ClientFault::Expired)) => "client-certificate-expired",
            Self::Tls(Failure::Client(ClientFault::Revoked)) => "client-certificate-revoked",
            Self::Tls(Failure::Client(ClientFault::RevocationUnknown)) => "client-certificate-revocation-unknown",
            Self::Tls(Failure::Client(ClientFault::Invalid)) => "client-certificate-invalid",
            Self::Tls(Failure::KeysSpent) => "tls-keys-spent",
            Self::Tls(Failure::Internal) => "tls-internal",
            Self::HandshakeTimedOut => "handshake-timed-out",
            Self::Refused => "refused",
            Self::QueueTimedOut => "queue-timed-out",
            Self::NoServer => "no-server",
            Self::NoResources => "no-resources",
            Self::ServerRefused => "server-refused",
            Self::ServerTimedOut => "server-timed-out",
            Self::ServerUnreachable => "server-unreachable",
            Self::ServerReset => "server-reset",
            Self::ServerTruncated => "server-truncated",
            Self::ServerTls(failure) => failure.name(),
            Self::IdleTimedOut => "idle-timed-out",
            Self::ServerDrained => "server-drained",
            Self::ServerDisabled => "server-disabled",
            Self::Drained => "drained",
        }
    }
}
