//! What the host's kernel is told by netlink (rtnetlink(7)): interfaces beside ports come up with the ports' addresses, and routes in a table of their own name the
//! virtual addresses that this engine serves, for routing daemons to export.
//!
//! Control says what is [`Wanted`]; [`keep`] makes it so, and goes on trying once a second while the kernel refuses. The routes lead over the interfaces beside ports, which
//! go with the process: nothing is left behind, however it ends.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::sync::watch;

use crate::control::metrics::{Counters, View};

/// By what routes of ours are known beside their table, as `ip route` shows it: one of the numbers that nobody has registered (rtnetlink.h).
pub const ROUTE_PROTOCOL: u8 = 198;

/// How long after a refusal the kernel is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// What the kernel is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Interfaces that are to be up.
    pub interfaces: Vec<Interface>,
    /// Routes to virtual addresses.
    pub routes: BTreeSet<Route>,
}

/// An interface beside a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The longest IP packet, in bytes.
    pub mtu: usize,
    /// The port's addresses.
    pub addresses: Vec<IpNet>,
}

/// A route that says: this engine serves that address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The virtual address.
    pub address: IpAddr,
    /// The interface that it leads over.
    pub interface: String,
    /// The kernel's routing table.
    pub table: u32,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {} table {}", self.address, self.interface, self.table)
    }
}

/// What the kernel refuses.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Refused {
    #[error("interface {0} does not come up: {1}")]
    Interface(String, String),
    #[error("interface {0} does not take the address {1}: {2}")]
    Address(String, IpNet, String),
    #[error("{0} is not announced: the kernel does not take the route: {1}")]
    Route(Route, String),
    #[error("{0} stays announced: the kernel does not give the route up: {1}")]
    Stays(Route, String),
}

/// Makes the kernel have what is wanted, until nobody wants anything any more. What is announced is shown in `view`.
pub async fn keep(mut wanted: watch::Receiver<Wanted>, view: watch::Sender<View>, counters: Arc<Counters>) {
    let handle = match rtnetlink::new_connection() {
        Ok((connection, handle, _)) => {
            tokio::spawn(connection);
            handle
        }
        Err(error) => {
            counters.kernel_refusals.increment();
            tracing::error!("the kernel cannot be told of interfaces and routes: netlink does not open: {error}");
            return;
        }
    };
    let (mut kernel, mut told) = (Kernel { handle, has: Wanted::default() }, None);
    loop {
        let next = wanted.borrow_and_update().clone();
        let outcome = kernel.follow(&next).await;
        let announced: BTreeSet<_> = kernel.has.routes.iter().map(|route| route.address).collect();
        view.send_if_modified(|view| {
            let changes = view.announced != announced;
            view.announced = announced;
            changes
        });
        let refused = outcome.err();
        if let Some(refused) = &refused {
            counters.kernel_refusals.increment();
            if told.as_ref() != Some(refused) {
                tracing::error!("{refused}");
            }
        }
        let is_done = refused.is_none();
        told = refused;
        let changed =
            if is_done { Ok(wanted.changed().await) } else { tokio::time::timeout(RETRY, wanted.changed()).await };
        if let Ok(Err(_)) = changed {
            return;
        }
    }
}

struct Kernel {
    handle: Handle,
    has: Wanted,
}

impl Kernel {
    /// Makes the kernel have `next`, step by step: what is withdrawn first. Stops at the first refusal.
    async fn follow(&mut self, next: &Wanted) -> Result<(), Refused> {
        for route in &self.has.routes.clone() - &next.routes {
            self.withdraw(route).await?;
        }
        for interface in &next.interfaces {
            let had = self.has.interfaces.iter().find(|had| had.name == interface.name);
            if had != Some(interface) {
                self.bring_up(interface, had).await?;
                self.has.interfaces.retain(|had| had.name != interface.name);
                self.has.interfaces.push(interface.clone());
            }
        }
        for route in &next.routes - &self.has.routes {
            self.announce(route).await?;
        }
        Ok(())
    }

    async fn bring_up(&self, interface: &Interface, had: Option<&Interface>) -> Result<(), Refused> {
        let Interface { name, mtu, addresses } = interface;
        let refused = |error: String| Refused::Interface(name.clone(), error);
        let index = index_of(name).map_err(|error| refused(error.to_string()))?;
        let message = LinkUnspec::new_with_index(index).mtu(u32::try_from(*mtu).unwrap_or(u32::MAX)).up().build();
        self.handle.link().set(message).execute().await.map_err(|error| refused(say(&error)))?;
        for address in addresses {
            let added = self.handle.address().add(index, address.addr(), address.prefix_len()).replace().execute();
            added.await.map_err(|error| Refused::Address(name.clone(), *address, say(&error)))?;
        }
        for gone in had.into_iter().flat_map(|had| &had.addresses).filter(|had| !addresses.contains(had)) {
            let mut message = self.handle.address().add(index, gone.addr(), gone.prefix_len());
            let removed = self.handle.address().del(std::mem::take(message.message_mut())).execute();
            removed.await.or_else(gone_already).map_err(|error| Refused::Address(name.clone(), *gone, say(&error)))?;
        }
        tracing::info!(interface = name, mtu, addresses = %listed(addresses), "the kernel's interface is up");
        Ok(())
    }

    async fn announce(&mut self, route: Route) -> Result<(), Refused> {
        let index = index_of(&route.interface).map_err(|error| Refused::Route(route.clone(), error.to_string()))?;
        let added = self.handle.route().add(message(&route, index)).replace().execute().await;
        added.map_err(|error| Refused::Route(route.clone(), say(&error)))?;
        tracing::info!(address = %route.address, table = route.table, "announced");
        self.has.routes.insert(route);
        Ok(())
    }

    async fn withdraw(&mut self, route: Route) -> Result<(), Refused> {
        // Without its interface the route is gone, too.
        if let Ok(index) = index_of(&route.interface) {
            let removed = self.handle.route().del(message(&route, index)).execute().await;
            removed.or_else(gone_already).map_err(|error| Refused::Stays(route.clone(), say(&error)))?;
        }
        tracing::info!(address = %route.address, table = route.table, "withdrawn");
        self.has.routes.remove(&route);
        Ok(())
    }
}

fn message(route: &Route, index: u32) -> RouteMessage {
    let protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    match route.address {
        IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .protocol(protocol)
            .table_id(route.table)
            .build(),
        IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(address, 128)
            .output_interface(index)
            .protocol(protocol)
            .table_id(route.table)
            .build(),
    }
}

fn index_of(interface: &str) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(interface).map_err(io::Error::from)
}

/// What is to go is not there: somebody was faster.
fn gone_already(error: rtnetlink::Error) -> Result<(), rtnetlink::Error> {
    let code = if let rtnetlink::Error::NetlinkError(message) = &error { -message.raw_code() } else { 0 };
    if [libc::ESRCH, libc::ENOENT, libc::ENODEV, libc::EADDRNOTAVAIL].contains(&code) { Ok(()) } else { Err(error) }
}

/// An error as an operator knows it.
fn say(error: &rtnetlink::Error) -> String {
    if let rtnetlink::Error::NetlinkError(message) = error { message.to_io().to_string() } else { error.to_string() }
}

fn listed(addresses: &[IpNet]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
