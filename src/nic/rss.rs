//! Receive-side scaling in software: the Toeplitz hash that NICs compute, and from it the lane that owns a flow.
//!
//! NICs differ in nothing here when they are given this key and this indirection table, so a frame that the hardware
//! steered and one that software steers belong to the same lane.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::base::{Flow, LaneId};

/// The key that Microsoft published with the verification suite of receive-side scaling; NIC drivers default to it.
pub const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];

/// Entries of the indirection table. Entry `i` names lane `i % lanes`, as drivers fill it by default.
pub const INDIRECTION_ENTRIES: u32 = 128;

/// The source ports that connections to servers use.
pub const EPHEMERAL: RangeInclusive<u16> = 16384..=65535;

/// The longest hash input: two IPv6 addresses and two ports.
const INPUT_MAX: usize = 36;

/// What each byte value adds to the hash at each position of the input. IPv4 uses the first 12 positions only (12 KiB).
static TABLES: [[u32; 256]; INPUT_MAX] = tables();

/// The lane, of `lanes`, to which frames of `flow` belong.
///
/// The flow is hashed as the NIC sees an arriving frame: from remote to local.
///
/// # Panics
/// When `lanes` is 0.
pub fn lane_of(flow: &Flow, lanes: u16) -> LaneId {
    if lanes == 1 {
        return LaneId(0);
    }
    let entry = hash(flow.remote(), flow.local()) % INDIRECTION_ENTRIES;
    LaneId(u16::try_from(entry % u32::from(lanes)).expect("smaller than lanes, which is 16 bits wide"))
}

/// The [`EPHEMERAL`] source ports at `local` whose connections to `remote` belong to `lane`, each once, beginning at a
/// random `start` and wrapping around.
///
/// Servers' replies to such a connection arrive on the lane that opened it. One port in `lanes` qualifies.
///
/// # Panics
/// When `lanes` is 0.
pub fn local_ports_for(
    lane: LaneId,
    lanes: u16,
    remote: SocketAddr,
    local: IpAddr,
    start: u16,
) -> impl Iterator<Item = u16> {
    let (first, last) = EPHEMERAL.into_inner();
    let start = if EPHEMERAL.contains(&start) { start } else { first + start % (last - first) };
    (start..=last)
        .chain(first..start)
        .filter(move |&port| lane_of(&Flow::new(SocketAddr::new(local, port), remote), lanes) == lane)
}

/// The Toeplitz hash of a TCP segment from `source` to `destination`. Both are of one address family.
pub fn hash(source: SocketAddr, destination: SocketAddr) -> u32 {
    let mut input = [0; INPUT_MAX];
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        for (to, from) in input.iter_mut().skip(len).zip(bytes) {
            *to = *from;
        }
        len += bytes.len();
    };
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            put(&source.octets());
            put(&destination.octets());
        }
        (IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) | (IpAddr::V4(_), IpAddr::V6(_)) => {
            put(&as_ipv6(source.ip()));
            put(&as_ipv6(destination.ip()));
        }
    }
    put(&source.port().to_be_bytes());
    put(&destination.port().to_be_bytes());
    input.iter().take(len).zip(&TABLES).fold(0, |hash, (byte, table)| hash ^ entry(table, *byte))
}

fn as_ipv6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[expect(clippy::indexing_slicing, reason = "256 entries have one for every byte")]
fn entry(table: &[u32; 256], byte: u8) -> u32 {
    table[usize::from(byte)]
}

/// The hash is linear over XOR, so the part of each input byte can be computed beforehand: for every bit set, the 32 bits
/// of the key that begin at that bit's position.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which proves every index")]
#[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are what the shift is for")]
const fn tables() -> [[u32; 256]; INPUT_MAX] {
    let mut tables = [[0; 256]; INPUT_MAX];
    let mut position = 0;
    while position < INPUT_MAX {
        let mut window = 0u64;
        let mut i = 0;
        while i < 5 {
            // The last position needs the key's last byte, no more: INPUT_MAX + 4 is the key's length.
            window = window << 8 | KEY[position + i] as u64;
            i += 1;
        }
        let mut value = 0;
        while value < 256 {
            let mut bit = 0;
            while bit < 8 {
                if value & (0x80 >> bit) != 0 {
                    tables[position][value] ^= (window >> (8 - bit)) as u32;
                }
                bit += 1;
            }
            value += 1;
        }
        position += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_verification_vectors_hold() {
        // "Verifying the RSS Hash Calculation" of the Windows driver documentation: source, destination, hash with TCP ports.
        for (source, destination, expected) in [
            ("66.9.149.187:2794", "161.142.100.80:1766", 0x51cc_c178),
            ("199.92.111.2:14230", "65.69.140.83:4739", 0xc626_b0ea),
            ("24.19.198.95:12898", "12.22.207.184:38024", 0x5c2b_394a),
            ("38.27.205.30:48228", "209.142.163.6:2217", 0xafc7_327f),
            ("153.39.163.191:44251", "202.188.127.2:1303", 0x10e8_28a2),
            ("[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x4020_7d3d),
            ("[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0xdde5_1bbf),
            ("[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", "[fe80::200:f8ff:fe21:67cf]:38024", 0x02d1_feef),
        ] {
            assert_eq!(hash(source.parse().unwrap(), destination.parse().unwrap()), expected, "{source}");
        }
    }

    #[test]
    fn every_offered_port_maps_to_the_lane_and_is_offered_once() {
        for (local, remote) in [("198.18.0.1", "198.18.0.9:443"), ("2001:db8::1", "[2001:db8::9]:443")] {
            let (local, remote): (IpAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
            let mut offered = Vec::new();
            for lane in 0..3 {
                for port in local_ports_for(LaneId(lane), 3, remote, local, 40_000) {
                    let flow = Flow::new(SocketAddr::new(local, port), remote);
                    assert_eq!(lane_of(&flow, 3), LaneId(lane));
                    offered.push(port);
                }
            }
            offered.sort_unstable();
            assert_eq!(offered, EPHEMERAL.collect::<Vec<_>>(), "each port belongs to exactly one lane");
        }
    }

    #[test]
    fn any_start_is_good_and_spreads_the_first_choice() {
        let remote = "198.18.0.9:443".parse().unwrap();
        let local = "198.18.0.1".parse().unwrap();
        for start in [0, 1, 16383, 16384, 65535] {
            let first = local_ports_for(LaneId(0), 1, remote, local, start).next().unwrap();
            assert!(EPHEMERAL.contains(&first));
            if EPHEMERAL.contains(&start) {
                assert_eq!(first, start);
            }
            assert_eq!(local_ports_for(LaneId(0), 1, remote, local, start).count(), EPHEMERAL.len());
        }
    }

    #[test]
    fn clients_spread_over_lanes() {
        for lanes in [2u16, 3, 4, 8] {
            let mut count = vec![0u32; usize::from(lanes)];
            for client in 0..40u8 {
                for port in (1024..65000).step_by(640) {
                    let remote = SocketAddr::from(([198, 19, client, 7], port));
                    let flow = Flow::new("198.18.0.1:443".parse().unwrap(), remote);
                    count[usize::from(lane_of(&flow, lanes).0)] += 1;
                }
            }
            let fair = count.iter().sum::<u32>() / u32::from(lanes);
            assert!(count.iter().all(|&n| n > fair * 8 / 10 && n < fair * 12 / 10), "{lanes} lanes: {count:?}");
        }
    }
}
