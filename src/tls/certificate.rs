//! Certificates of a virtual service, chosen by SNI and by what the client can verify.

/// A certificate chain with its private key.
#[derive(Debug)]
pub struct Certificate {}
