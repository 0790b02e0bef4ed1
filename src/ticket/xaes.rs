//! XAES-256-GCM (C2SP): AES-256-GCM with 192-bit nonces.
