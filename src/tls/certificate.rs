//! Certificates of a virtual service, chosen by SNI and by what the client can verify.

/// A certificate chain with its private key.
#[derive(Debug)]
pub struct Certificate {}

impl Certificate {
    /// Reads a PEM chain (leaf first) and its PEM private key (PKCS#8, PKCS#1 or SEC1) and proves that they belong together.
    ///
    /// # Errors
    /// [`Invalid`] says what is wrong, so that the configuration check can name the file.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Invalid> {
        let _ = (chain, key);
        todo!()
    }

    /// DNS names and IP addresses that the leaf is valid for, as text.
    pub fn names(&self) -> &[String] {
        todo!()
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> crate::base::UnixTime {
        todo!()
    }
}

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The chain holds no certificate.
    #[error("holds no PEM certificate")]
    NoCertificate,
    /// The key file holds no private key.
    #[error("holds no PEM private key")]
    NoKey,
    /// A certificate does not parse.
    #[error("holds a certificate that does not parse: {0}")]
    Certificate(String),
    /// A key of a kind or size that the provider does not take.
    #[error("holds a private key that cannot be used: {0}")]
    Key(String),
    /// The key is not that of the leaf certificate.
    #[error("is not the key of the certificate")]
    Mismatch,
}
