//! The event log on standard error: start, reload, errors, health changes, key rings. Connections have a log of their own, in [`records`](super::records).

use std::io;

use tracing_subscriber::EnvFilter;

use crate::control::config::LogFormat;

/// The environment variable that says which events are written, for example `debug` or `warn,sealane::control=debug`.
pub const FILTER: &str = "SEALANE_LOG";

/// Begins to write events, in the same format as the connection log. Call it once; a second call changes nothing.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let events = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // It fails only when events are written already.
    let _ = match format {
        LogFormat::Text => events.try_init(),
        LogFormat::Json => events.json().flatten_event(true).try_init(),
    };
}
