//! The control core: configuration, reload, key ring sources, metrics, admin, logs. It may block and allocate; lanes never wait for it.
//!
//! Drive it so: [`config::load`] a configuration, make what outlives it ([`publish::Shared`]) and a [`Handle`](crate::lane::Handle) for each
//! lane, give them to [`Control::new`], start the lanes, then [`Control::start`]. Signals reach it as [`Command`]s.

pub mod admin;
pub mod announce;
pub mod api;
pub mod capture;
mod change;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod doctor;
mod drain;
pub mod events;
pub mod explain;
pub mod health;
pub mod identity;
pub mod kernel;
pub mod keys;
pub mod metrics;
pub mod outbox;
mod page;
pub mod publish;
pub mod records;
pub mod run;
mod service_manager;
pub mod syslog;
pub mod top;
pub mod trace;
pub mod user;

pub use run::{Command, Control, Parts, Unstartable};
