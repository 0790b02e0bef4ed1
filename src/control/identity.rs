//! Stable identities from names: the first 8 bytes of SHA-256, so that every engine of a cluster computes the same.

use sha2::{Digest, Sha256};

use crate::base::{EngineId, PoolId, ServerId, ServiceId};

/// The identity of the engine of this name.
pub fn engine(name: &str) -> EngineId {
    EngineId(first_8(&sha256(name.as_bytes())))
}

/// The identity of the virtual service of this name.
pub fn service(name: &str) -> ServiceId {
    ServiceId(first_8(&sha256(name.as_bytes())))
}

/// The identity of the pool of this name.
pub fn pool(name: &str) -> PoolId {
    PoolId(first_8(&sha256(name.as_bytes())))
}

/// The identity of a server, by its pool's name and its own. Names have no NUL, so that no two pairs run together.
pub fn server(pool: &str, name: &str) -> ServerId {
    ServerId(first_8(&sha256(format!("{pool}\0{name}").as_bytes())))
}

/// The cluster that tickets are bound to.
pub fn cluster(name: &str) -> [u8; 32] {
    sha256(name.as_bytes())
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn first_8(digest: &[u8; 32]) -> u64 {
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_the_first_bytes_of_the_digest_of_the_name() {
        // FIPS 180-4's example: SHA-256("abc") begins with ba7816bf 8f01cfea.
        assert_eq!(service("abc"), ServiceId(0xba78_16bf_8f01_cfea));
        assert_eq!(pool("abc"), PoolId(0xba78_16bf_8f01_cfea));
        assert_eq!(engine("abc"), EngineId(0xba78_16bf_8f01_cfea));
    }

    #[test]
    fn servers_of_two_pools_never_share_an_identity() {
        assert_ne!(server("a", "bc"), server("ab", "c"));
        assert_ne!(server("a", "b"), server("b", "a"));
    }
}
