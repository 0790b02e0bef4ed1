//! What a ticket says once it is open: the mapping, when it was made, and rustls's own ticket.

use crate::base::{EngineId, Generation, PoolId, ServerId, UnixTime};

/// Which server a client belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The pool.
    pub pool: PoolId,
    /// The server.
    pub server: ServerId,
    /// Its incarnation.
    pub generation: Generation,
    /// When the client was first given this server.
    pub assigned: UnixTime,
}

/// The protocol version of the session that a ticket resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// A ticket's plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Protocol version of the session.
    pub version: TlsVersion,
    /// The mapping; `None` when the service has no persistence.
    pub mapping: Option<Mapping>,
    /// When the session's full handshake was.
    pub original_handshake: UnixTime,
    /// When this ticket was issued.
    pub issued: UnixTime,
    /// Who issued it.
    pub issuer: EngineId,
    /// rustls's own ticket: secrets. Zeroized when dropped.
    pub session: zeroize::Zeroizing<Vec<u8>>,
}
