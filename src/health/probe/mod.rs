//! Probes as machines of bytes, one file a kind: what is said to a server once it is connected, and what its answer comes to.
//!
//! A [`Machine`] begins with [`on_open`](Machine::on_open); give it what comes with [`on_data`](Machine::on_data) and [`on_end`](Machine::on_end), and take what it says
//! with [`poll_transmit`](Machine::poll_transmit) after each. The first outcome is the last.

pub mod http;
mod ping;
mod search;
mod secure;
pub mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::base::UnixTime;
use crate::health::{Cause, Kind, Monitor, Outcome, Ping};
use secure::Channel;

pub use secure::Secure;

/// One probe over one connection.
#[derive(Debug)]
pub(super) struct Machine {
    channel: Option<Box<Channel>>,
    talk: Talk,
    /// What is to be said, in plain, and how much of it has been.
    request: Arc<[u8]>,
    said: usize,
}

#[derive(Debug)]
enum Talk {
    Tcp(tcp::Talk),
    Http(http::Talk),
    Ping(ping::Talk),
}

impl Machine {
    /// A probe of the server at this address; `ping` is what it says if it asks for an echo.
    pub(super) fn new(monitor: &Monitor, target: SocketAddr, ping: Ping) -> Self {
        let (talk, request) = match &monitor.kind {
            Kind::Tcp(settings) => {
                let talk = tcp::Talk::new(settings, &monitor.maintenance_text);
                (Talk::Tcp(talk), Arc::clone(&settings.send))
            }
            Kind::Http(settings) => {
                let talk = http::Talk::new(settings, &monitor.maintenance_text);
                (Talk::Http(talk), settings.request(target).into_bytes().into())
            }
            Kind::Ping => (Talk::Ping(ping::Talk::new(target.ip(), ping)), Arc::default()),
        };
        let channel = monitor.tls.as_ref().map(|secure| Box::new(secure.begin(target.ip())));
        Self { channel, talk, request, said: 0 }
    }

    /// The connection is established.
    pub(super) fn on_open(&mut self, unix: UnixTime) -> Option<Outcome> {
        match &mut self.channel {
            None => self.talk.on_open(),
            Some(channel) => channel.begin(unix).err().map(Err),
        }
    }

    /// Takes what the server says.
    pub(super) fn on_data(&mut self, bytes: &[u8], unix: UnixTime) -> Option<Outcome> {
        let Some(channel) = &mut self.channel else { return self.talk.on_data(bytes) };
        let talk = &mut self.talk;
        match channel.on_data(bytes, unix, |plaintext| talk.on_data(plaintext)) {
            Ok(secure::Heard::Opened) => talk.on_open(),
            Ok(secure::Heard::Outcome(outcome)) => Some(outcome),
            Ok(secure::Heard::Nothing) if channel.has_ended() => Some(self.on_end()),
            Ok(secure::Heard::Nothing) => None,
            Err(cause) => Some(Err(cause)),
        }
    }

    /// An echo has come.
    pub(super) fn on_echo(&self, from: IpAddr, ping: Ping) -> Option<Outcome> {
        match &self.talk {
            Talk::Ping(talk) => talk.on_echo(from, ping),
            Talk::Tcp(_) | Talk::Http(_) => None,
        }
    }

    /// The server says no more.
    pub(super) fn on_end(&mut self) -> Outcome {
        if self.channel.as_ref().is_some_and(|channel| !channel.is_open()) {
            return Err(Cause::Closed);
        }
        match &self.talk {
            Talk::Tcp(talk) => talk.on_end(),
            Talk::Http(talk) => talk.on_end(),
            Talk::Ping(_) => Err(Cause::Closed),
        }
    }

    /// The time is up.
    pub(super) fn on_timeout(&self) -> Cause {
        match &self.talk {
            Talk::Tcp(talk) => talk.on_timeout(),
            Talk::Http(_) | Talk::Ping(_) => Cause::NoAnswer,
        }
    }

    /// Hands what is to be said to `take`, which gives how many bytes it took.
    pub(super) fn poll_transmit(&mut self, mut take: impl FnMut(&[u8]) -> usize) -> Result<(), Cause> {
        let left = self.request.get(self.said..).unwrap_or_default();
        match &mut self.channel {
            None => {
                if !left.is_empty() {
                    self.said += take(left);
                }
                Ok(())
            }
            Some(channel) => {
                self.said += channel.poll_transmit(left, take)?;
                Ok(())
            }
        }
    }
}

impl Talk {
    fn on_open(&self) -> Option<Outcome> {
        match self {
            Self::Tcp(talk) => talk.on_open(),
            Self::Http(_) | Self::Ping(_) => None,
        }
    }

    fn on_data(&mut self, bytes: &[u8]) -> Option<Outcome> {
        match self {
            Self::Tcp(talk) => talk.on_data(bytes),
            Self::Http(talk) => talk.on_data(bytes),
            Self::Ping(_) => None,
        }
    }
}
