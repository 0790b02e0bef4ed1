//! Path MTUs that a connection has learned from routers, for those that follow it to the same host (RFC 1191 6.2, RFC 8201 5.2).

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::base::{Duration, Instant, Random};
use crate::tcp::isn::Keyed;

/// RFC 1191 6.3, RFC 8201 5.3: after so long the path may be another. Both forbid less than five minutes.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

/// Most hosts that are remembered, in half a MiB. Beyond it the one that has been known longest is forgotten and counted.
pub(super) const PATHS_MAX: usize = 4096;

/// The longest packet that a host's path lets through, and until when that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) mtu: u32,
    pub(super) until: Instant,
}

/// All that are known: hosts by a keyed hash, for anybody may make us remember theirs.
#[derive(Debug)]
pub(super) struct Paths {
    known: HashMap<IpAddr, Known, Keyed>,
    /// Each host once, in the order in which they came.
    order: VecDeque<IpAddr>,
}

impl Paths {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { known: HashMap::with_hasher(Keyed::new(random)), order: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Hosts in the order of their coming.
    pub(super) fn in_order(&self) -> impl ExactSizeIterator<Item = &IpAddr> {
        self.order.iter()
    }

    /// What is known of the path to a host.
    pub(super) fn find(&self, host: IpAddr, now: Instant) -> Option<Known> {
        // Nearly always nothing is known of anybody.
        if self.known.is_empty() {
            return None;
        }
        self.known.get(&host).copied().filter(|known| now < known.until)
    }

    /// A router has named the MTU of a link on the way to a host. Gives whether another host had to be forgotten before its time.
    pub(super) fn learn(&mut self, host: IpAddr, mtu: u32, now: Instant) -> bool {
        let until = now + LIFETIME;
        if let Some(known) = self.known.get_mut(&host) {
            *known = Known { mtu, until };
            return false;
        }
        while let Some(oldest) = self.order.front()
            && self.known.get(oldest).is_none_or(|known| known.until <= now)
        {
            self.known.remove(oldest);
            self.order.pop_front();
        }
        let full = self.order.len() >= PATHS_MAX;
        if full && let Some(oldest) = self.order.pop_front() {
            self.known.remove(&oldest);
        }
        self.known.insert(host, Known { mtu, until });
        self.order.push_back(host);
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0xc612_0000 + number).into()
    }

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_path_is_known_for_ten_minutes_and_from_the_last_word_on() {
        let mut paths = Paths::new(&mut Random::from_seed(1));
        assert_eq!(paths.find(host(1), at(0)), None);
        assert!(!paths.learn(host(1), 1400, at(0)));
        assert_eq!(paths.find(host(1), at(599)), Some(Known { mtu: 1400, until: at(600) }));
        assert_eq!((paths.find(host(1), at(600)), paths.find(host(2), at(0))), (None, None));
        assert!(!paths.learn(host(1), 1300, at(500)));
        assert_eq!(paths.find(host(1), at(1099)).map(|known| known.mtu), Some(1300));
        assert_eq!((paths.find(host(1), at(1100)), paths.len()), (None, 1));
        // What has expired makes room as others come.
        assert!(!paths.learn(host(2), 1300, at(1100)));
        assert_eq!((paths.len(), paths.in_order().len()), (1, 1));
    }

    #[test]
    fn at_the_bound_the_oldest_makes_room() {
        let mut paths = Paths::new(&mut Random::from_seed(1));
        let max = u32::try_from(PATHS_MAX).unwrap();
        assert!((0..max).all(|number| !paths.learn(host(number), 1400, at(1))));
        assert!(!paths.learn(host(0), 1400, at(2)), "known already");
        assert!(paths.learn(host(max), 1400, at(3)));
        assert_eq!((paths.len(), paths.in_order().len()), (PATHS_MAX, PATHS_MAX));
        assert_eq!((paths.find(host(0), at(3)), paths.find(host(1), at(3)).is_some()), (None, true));
        // When they have expired, nobody is forgotten before its time.
        assert!(!paths.learn(host(max + 1), 1400, at(601)));
        assert_eq!(paths.len(), 2);
    }
}
