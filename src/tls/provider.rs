//! The crypto provider: each primitive from the library that `benches/provider.rs` found fastest.
//!
//! Medians of 9 interleaved rounds on a Zen 4 VM, as ratios to aws-lc-rs; less than 0.1 apart means nothing:
//!
//! | | ring | graviola | aws-lc-rs with ring's suites |
//! | --- | --: | --: | --: |
//! | TLS 1.3 full, P-256, X25519 | 0.74 | 1.02 | 1.02 |
//! | TLS 1.3 resumed | 0.71 | 1.05 | 1.08 |
//! | TLS 1.2 full | 0.67 | 1.00 | 0.95 |
//! | TLS 1.2 resumed | 0.92 | 0.92 | 0.93 |
//! | TLS 1.3 full, X25519MLKEM768 | | 1.09 | 1.02 |
//! | AES-128-GCM records, encrypt | 0.89 | 0.92 | 0.89 |
//! | the same, AVX-512 hidden from aws-lc-rs | 1.58 | 1.60 | 1.58 |
//! | AES-128-GCM records, decrypt | 0.97 | 1.00 | 0.98 |
//! | the same, AVX-512 hidden from aws-lc-rs | 1.24 | 1.27 | 1.24 |
//!
//! So key exchange and signatures are aws-lc-rs's everywhere, and the record suites are ring's on processors without AVX-512. graviola wins nothing that
//! counts and is the youngest of the three.

use std::sync::LazyLock;

use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};

use crate::tls::notes;

/// The cipher suites. Where a session shakes hands on a desk, its records are `cipher`'s from the first key on.
static CIPHER_SUITES: LazyLock<Vec<SupportedCipherSuite>> = LazyLock::new(|| {
    let suites = if has_fast_aes_in_aws_lc() {
        aws_lc_rs::default_provider().cipher_suites
    } else {
        ring::ALL_CIPHER_SUITES.to_vec()
    };
    suites.into_iter().map(notes::noting).collect()
});

/// The provider for this machine's processor. The cipher suites and their order are the same on all.
///
/// The first call of a process takes some 60 ms: aws-lc gathers entropy from the processor's jitter, once. Otherwise a lane would wait for that, in its
/// first handshake.
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    // Without randomness every handshake fails, and says so.
    let _ = provider.secure_random.fill(&mut [0; 32]);
    provider.cipher_suites.clone_from(&CIPHER_SUITES);
    provider
}

/// Whether aws-lc's AES-GCM runs on its AVX-512 path: it has none for VAES alone, as ring has.
#[cfg(target_arch = "x86_64")]
fn has_fast_aes_in_aws_lc() -> bool {
    use std::arch::is_x86_feature_detected as has;

    has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("vaes") && has!("vpclmulqdq")
}

/// Not measured on other processors, so nothing is mixed there.
#[cfg(not(target_arch = "x86_64"))]
fn has_fast_aes_in_aws_lc() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_is_offered_the_same_suites() {
        let names =
            |suites: &[rustls::SupportedCipherSuite]| suites.iter().map(|suite| suite.suite()).collect::<Vec<_>>();
        assert_eq!(names(ring::ALL_CIPHER_SUITES), names(&aws_lc_rs::default_provider().cipher_suites));
        assert_eq!(names(&provider().cipher_suites), names(ring::ALL_CIPHER_SUITES));
    }
}
