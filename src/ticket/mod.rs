//! Session tickets sealed so that only engines of this cluster open them: format, keys, ring.
//!
//! When a ring or a service arrives, derive the service's keys with [`Ring::for_service`]; with those [`seal()`] an [`Envelope`] and [`open()`] a ticket.
//! The layout is described at [`mod@seal`], what is inside at [`envelope`].

pub mod credential;
pub mod envelope;
pub mod key;
pub mod life;
pub mod ring;
pub mod schedule;
pub mod seal;
pub mod vault;
pub mod xaes;

pub use credential::{CertificateId, Credential};
pub use envelope::{Envelope, Mapping, TlsVersion};
pub use key::{Key, KeyId};
pub use ring::Ring;
pub use schedule::Schedule;
pub use seal::{Refusal, Scope, ServiceKeys, TICKET_MAX, open, seal};
