//! What a lane reports of each connection when it ends. Control makes the log line of it, names and all.

use std::net::SocketAddr;

use crate::base::{Duration, EngineId, LaneId, PoolId, ServerId, ServiceId, UnixTime};
use crate::persistence::Reason;
use crate::relay::{End, Times};
use crate::ticket::{KeyId, TlsVersion};

/// One ended connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it ran.
    pub lane: LaneId,
    /// When it began.
    pub began: UnixTime,
    /// How long it lasted.
    pub lasted: Duration,
    /// Where its time went.
    pub times: Times,
    /// The client.
    pub client: SocketAddr,
    /// Where it connected.
    pub local: SocketAddr,
    /// The virtual service.
    pub service: ServiceId,
    /// Server name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// Subject of the client's certificate, if it has shown one that was right.
    pub client_subject: Option<Box<str>>,
    /// Protocol version, once known.
    pub version: Option<TlsVersion>,
    /// Cipher suite, once known.
    pub cipher: Option<&'static str>,
    /// Whether the session was resumed, once known.
    pub resumed: Option<bool>,
    /// The key of the ticket that was resumed.
    pub key_id: Option<KeyId>,
    /// The engine that issued that ticket.
    pub issuer: Option<EngineId>,
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
