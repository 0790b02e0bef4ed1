//! The seal: version(1) | key id(8) | nonce(24) | ciphertext | tag(16).

use crate::base::{Random, ServiceId};
use crate::ticket::{Envelope, KeyId, Ring};

/// The longest ticket that is sealed or looked at, in bytes. A TLS 1.2 ticket's length field allows 65,535.
pub const TICKET_MAX: usize = 16_384;

/// Where a ticket is valid: authenticated with it, not carried in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// SHA-256 of the cluster's name.
    pub cluster: [u8; 32],
    /// The virtual service.
    pub service: ServiceId,
    /// Hash of the service's TLS security policy.
    pub policy: [u8; 32],
}

/// Why a ticket was not opened. To the client they all look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Longer than [`TICKET_MAX`] or shorter than the shortest ticket.
    Length,
    /// A seal version that this engine does not read.
    Version,
    /// No such key in the ring, or one that may not open.
    UnknownKey,
    /// Not sealed with that key for this scope, or altered.
    Forged,
    /// Sealed rightly but not an envelope that this version reads.
    Envelope,
}

/// Seals an envelope with the ring's active key; `None` when the ring may not seal.
pub fn seal(ring: &Ring, scope: &Scope, envelope: &Envelope, random: &mut Random) -> Option<Vec<u8>> {
    let _ = (ring, scope, envelope, random);
    todo!()
}

/// Opens a ticket and says which key it was under.
///
/// # Errors
/// [`Refusal`] says why not.
pub fn open(ring: &Ring, scope: &Scope, ticket: &[u8]) -> Result<(Envelope, KeyId), Refusal> {
    let _ = (ring, scope, ticket);
    todo!()
}
