//! The control core: configuration, reload, key ring sources, metrics, admin, logs. It may block and allocate; lanes never wait for it.

pub mod keys;
pub mod clock;
pub mod config;
pub mod identity;
pub mod publish;
pub mod records;
