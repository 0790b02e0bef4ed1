//! What a ticket says of the certificates that a client has shown: enough to refuse it once one of them has expired or has been revoked.

use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::base::UnixTime;

/// Most certificates that a ticket speaks of: the client's own, the six intermediate ones that a path may have, and the root that some clients send along.
pub const CERTIFICATES_MAX: usize = 8;

/// One certificate, by the two things that revocation lists name it by.
///
/// Both are the first 16 bytes of a SHA-256: nobody finds a second certificate for one in fewer than 2^128 tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CertificateId {
    /// Of the issuer's name.
    pub issuer: [u8; 16],
    /// Of the issuer's name and the serial number, which no two certificates share (RFC 5280 4.1.2.2).
    pub serial: [u8; 16],
}

impl CertificateId {
    /// Of a certificate with this issuer, as DER has its name, and this serial number.
    pub fn new(issuer: &[u8], serial: &[u8]) -> Self {
        // Some write a number with zeros before it, which it does not change.
        let zeros = serial.iter().take_while(|byte| **byte == 0).count();
        let serial = serial.get(zeros..).unwrap_or_default();
        let serial = Sha256::new()
            .chain_update((issuer.len() as u64).to_be_bytes())
            .chain_update(issuer)
            .chain_update(serial)
            .finalize();
        Self { issuer: issuer_id(issuer), serial: first_half(&serial.into()) }
    }
}

/// The issuer's part of a [`CertificateId`].
pub fn issuer_id(issuer: &[u8]) -> [u8; 16] {
    first_half(&Sha256::digest(issuer).into())
}

fn first_half(digest: &[u8; 32]) -> [u8; 16] {
    let [first @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *digest;
    first
}

/// The certificates that a client has shown in its full handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// When the first of them expires.
    pub not_after: UnixTime,
    /// All of them, 1 to [`CERTIFICATES_MAX`], the client's own first. Some may be none that its path needed: they count all the same.
    pub certificates: SmallVec<[CertificateId; 3]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_its_issuer_and_its_serial_number() {
        let id = CertificateId::new(b"issuer", &[1, 2]);
        assert_eq!(id.issuer, issuer_id(b"issuer"));
        assert_eq!(id, CertificateId::new(b"issuer", &[0, 0, 1, 2]));
        assert_ne!(id.serial, CertificateId::new(b"issuer", &[1, 2, 0]).serial);
        assert_ne!(id.serial, CertificateId::new(b"issuer\x01", &[2]).serial);
        assert_ne!(id.issuer, issuer_id(b"Issuer"));
    }
}
