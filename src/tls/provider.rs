//! The crypto provider: each primitive from the library that `benches/provider.rs` found fastest.
