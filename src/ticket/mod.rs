//! Session tickets sealed so that only engines of this cluster open them: format, keys, ring. See the seal's own page in [`seal`].

pub mod envelope;
pub mod key;
pub mod ring;
pub mod seal;
pub mod xaes;

pub use envelope::{Envelope, Mapping, TlsVersion};
pub use key::{Key, KeyId};
pub use ring::Ring;
pub use seal::{Refusal, Scope, TICKET_MAX, open, seal};
