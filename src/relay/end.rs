//! How a relayed connection ended.

use crate::balance::Fault;
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

/// Whose doing an end was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doer {
    /// Client and server closed in order.
    Both,
    /// The client, or the network on its side.
    Client,
    /// The server, or the network on its side.
    Server,
    /// The engine: by its configuration, its bounds, its operator, or a fault of its own.
    Engine,
}

impl Doer {
    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Client => "client",
            Self::Server => "server",
            Self::Engine => "engine",
        }
    }
}

impl End {
    /// Every end.
    pub const ALL: [Self; 43] = [
        Self::Finished,
        Self::ClientReset,
        Self::ClientTimedOut,
        Self::ClientGone,
        Self::ClientTruncated,
        Self::Tls(Failure::NotTls),
        Self::Tls(Failure::UnknownServerName),
        Self::Tls(Failure::NothingInCommon),
        Self::Tls(Failure::AlertReceived),
        Self::Tls(Failure::Protocol),
        Self::Tls(Failure::Client(ClientFault::Missing)),
        Self::Tls(Failure::Client(ClientFault::UnknownAuthority)),
        Self::Tls(Failure::Client(ClientFault::Expired)),
        Self::Tls(Failure::Client(ClientFault::Revoked)),
        Self::Tls(Failure::Client(ClientFault::RevocationUnknown)),
        Self::Tls(Failure::Client(ClientFault::Invalid)),
        Self::Tls(Failure::KeysSpent),
        Self::Tls(Failure::Internal),
        Self::HandshakeTimedOut,
        Self::Refused,
        Self::QueueTimedOut,
        Self::NoServer,
        Self::NoResources,
        Self::ServerRefused,
        Self::ServerTimedOut,
        Self::ServerUnreachable,
        Self::ServerReset,
        Self::ServerTruncated,
        Self::ServerTls(client::Failure::NotTls),
        Self::ServerTls(client::Failure::NothingInCommon),
        Self::ServerTls(client::Failure::UnknownAuthority),
        Self::ServerTls(client::Failure::WrongName),
        Self::ServerTls(client::Failure::Expired),
        Self::ServerTls(client::Failure::InvalidCertificate),
        Self::ServerTls(client::Failure::CertificateRefused),
        Self::ServerTls(client::Failure::AlertReceived),
        Self::ServerTls(client::Failure::Protocol),
        Self::ServerTls(client::Failure::KeysSpent),
        Self::ServerTls(client::Failure::Internal),
        Self::IdleTimedOut,
        Self::ServerDrained,
        Self::ServerDisabled,
        Self::Drained,
    ];

    /// Whether it says something against the server: that it could not be connected to, did not answer, was not who it should be, or cut a stream short.
    /// Evidence for passive health, whether it ended the connection or another server was tried.
    pub fn blames_server(self) -> bool {
        self.fault().is_some()
    }

    /// What it says against the server.
    pub fn fault(self) -> Option<Fault> {
        match self {
            Self::ServerRefused => Some(Fault::Refused),
            Self::ServerTimedOut => Some(Fault::TimedOut),
            Self::ServerUnreachable => Some(Fault::Unreachable),
            Self::ServerReset => Some(Fault::Reset),
            Self::ServerTruncated => Some(Fault::Truncated),
            Self::ServerTls(failure) => match failure {
                client::Failure::NotTls
                | client::Failure::NothingInCommon
                | client::Failure::UnknownAuthority
                | client::Failure::WrongName
                | client::Failure::Expired
                | client::Failure::InvalidCertificate
                | client::Failure::CertificateRefused
                | client::Failure::AlertReceived
                | client::Failure::Protocol => Some(Fault::Tls),
                client::Failure::KeysSpent | client::Failure::Internal => None,
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
            | Self::Drained => None,
        }
    }

    /// Whose doing it was. A silence in which neither side says a word is the engine's to end.
    pub fn doer(self) -> Doer {
        match self {
            Self::Finished => Doer::Both,
            Self::Tls(Failure::KeysSpent | Failure::Internal) => Doer::Engine,
            Self::ClientReset
            | Self::ClientTimedOut
            | Self::ClientGone
            | Self::ClientTruncated
            | Self::Tls(_)
            | Self::HandshakeTimedOut => Doer::Client,
            Self::ServerTls(client::Failure::KeysSpent | client::Failure::Internal) => Doer::Engine,
            Self::ServerRefused
            | Self::ServerTimedOut
            | Self::ServerUnreachable
            | Self::ServerReset
            | Self::ServerTruncated
            | Self::ServerTls(_) => Doer::Server,
            Self::Refused
            | Self::QueueTimedOut
            | Self::NoServer
            | Self::NoResources
            | Self::IdleTimedOut
            | Self::ServerDrained
            | Self::ServerDisabled
            | Self::Drained => Doer::Engine,
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_end_has_a_name_of_its_own_and_is_in_the_list() {
        let names: HashSet<_> = End::ALL.iter().map(|end| end.name()).collect();
        assert_eq!(names.len(), End::ALL.len());
        for failure in client::Failure::ALL {
            assert!(End::ALL.contains(&End::ServerTls(failure)), "{failure:?}");
        }
    }

    #[test]
    fn what_is_said_against_a_server_is_its_doing() {
        assert!(End::ALL.iter().filter(|end| end.blames_server()).all(|end| end.doer() == Doer::Server));
        let servers: Vec<_> = End::ALL.iter().filter(|end| end.doer() == Doer::Server).collect();
        assert!(servers.iter().all(|end| end.blames_server()), "{servers:?}");
    }
}
