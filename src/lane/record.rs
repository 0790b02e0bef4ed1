//! What a lane reports of each connection when it ends. Control makes the log line of it, names and all.

use std::net::SocketAddr;

use crate::base::{Duration, LaneId, PoolId, ServerId, ServiceId, UnixTime};
use crate::persistence::Reason;
use crate::ticket::{KeyId, TlsVersion};
use crate::tls;

/// One ended connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it ran.
    pub lane: LaneId,
    /// When it began.
    pub began: UnixTime,
    /// How long it lasted.
    pub lasted: Duration,
    /// From SYN to the end of the TLS handshake, if it ended.
    pub handshake: Option<Duration>,
    /// The client.
    pub client: SocketAddr,
    /// Where it connected.
    pub local: SocketAddr,
    /// The virtual service.
    pub service: ServiceId,
    /// Server name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// Protocol version, once known.
    pub version: Option<TlsVersion>,
    /// Cipher suite, once known.
    pub cipher: Option<&'static str>,
    /// Whether the session was resumed, once known.
    pub resumed: Option<bool>,
    /// The key of the ticket that was resumed.
    pub key_id: Option<KeyId>,
    /// The server that the client's mapping wanted.
    pub wanted: Option<ServerId>,
    /// The pool and server that it got.
    pub chosen: Option<(PoolId, ServerId)>,
    /// Why.
    pub reason: Option<Reason>,
    /// Bytes of application data from the client.
    pub received: u64,
    /// Bytes of application data to the client.
    pub sent: u64,
    /// How it ended.
    pub end: End,
}

/// How a relayed connection ended, and whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Both sides closed in order.
    Finished,
    /// The client reset the connection.
    ClientReset,
    /// The client stopped answering.
    ClientTimedOut,
    /// The client closed without close_notify before the server was done.
    ClientTruncated,
    /// The TLS handshake or session failed.
    Tls(tls::Failure),
    /// The client did not finish the TLS handshake in time.
    HandshakeTimedOut,
    /// Persistence refused the client: its server is down.
    Refused,
    /// No server was usable.
    NoServer,
    /// The engine's own table or ports were full.
    NoResources,
    /// The server answered the SYN with a reset.
    ServerRefused,
    /// The server did not answer the SYN, or stopped answering.
    ServerTimedOut,
    /// There is no way to the server.
    ServerUnreachable,
    /// The server reset the connection.
    ServerReset,
    /// No byte in either direction for too long.
    IdleTimedOut,
    /// The engine stopped before the connection ended.
    Drained,
}
