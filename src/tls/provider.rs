//! The crypto provider: each primitive from the library that `benches/provider.rs` found fastest.

use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};

/// The provider for this machine's processor.
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !has_wide_aes() {
        provider.cipher_suites = ring::ALL_CIPHER_SUITES.to_vec();
    }
    provider
}

fn has_wide_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512f")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        true
    }
}
