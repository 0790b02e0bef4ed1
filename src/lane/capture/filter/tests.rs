//! Tests of filters. tests/filter.rs compares them with libpcap's.

use proptest::prelude::*;

use super::super::headers::Headers;
use super::*;

/// An Ethernet frame of an IPv4 packet with ports, behind these VLAN tags.
fn ip(protocol: u8, source: ([u8; 4], u16), destination: ([u8; 4], u16), tags: &[u16]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend_from_slice(&tag.to_be_bytes());
        frame.extend_from_slice(&[0, 7]);
    }
    frame.extend_from_slice(&[0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend_from_slice(&source.0);
    frame.extend_from_slice(&destination.0);
    frame.extend_from_slice(&source.1.to_be_bytes());
    frame.extend_from_slice(&destination.1.to_be_bytes());
    frame.resize(frame.len() + 16, 0);
    frame
}

const CLIENT: [u8; 4] = [198, 18, 0, 1];
const SERVICE: [u8; 4] = [198, 18, 0, 10];

fn matches(text: &str, frame: &[u8]) -> bool {
    Filter::parse(text).unwrap().matches(&Headers::of(frame))
}

#[test]
fn words_mean_what_they_mean_in_pcap_filter() {
    let frame = ip(TCP, (CLIENT, 40_000), (SERVICE, 443), &[]);
    for text in [
        "",
        " ",
        "tcp",
        "ip",
        "host 198.18.0.1",
        "src host 198.18.0.1",
        "dst 198.18.0.10",
        "net 198.18.0.0/15",
        "src and dst net 198.18",
        "port 443",
        "tcp dst port 443",
        "src or dst portrange 400-500",
        "not udp",
        "! udp && port 443",
        "udp or tcp",
        "port 80 or 443",
        "host (198.18.0.9 or 198.18.0.10) and (not port 80)",
        "icmp or arp or ip6 or (udp or (ip and tcp))",
        // Both bind alike, from left to right: with and before or this would not match.
        "not tcp and udp or tcp",
        "not not tcp",
    ] {
        assert!(matches(text, &frame), "{text}");
    }
    for text in [
        "udp",
        "ip6",
        "dst host 198.18.0.1",
        "net 198.19.0.0/16",
        "src port 443",
        "udp port 443",
        "portrange 444-500",
        "src and dst port 443",
        "not (tcp and port 443)",
        "tcp or tcp and udp",
        "ip6 host 2001:db8::1",
        "arp host 198.18.0.1",
    ] {
        assert!(!matches(text, &frame), "{text}");
    }
}

#[test]
fn frames_behind_vlan_tags_are_looked_into() {
    for tags in [&[0x8100][..], &[0x88a8, 0x8100]] {
        let frame = ip(UDP, (CLIENT, 53), (SERVICE, 5353), tags);
        assert!(matches("udp port 53 and dst host 198.18.0.10", &frame));
        assert!(!matches("tcp", &frame));
    }
    let deeper = ip(UDP, (CLIENT, 53), (SERVICE, 5353), &[0x8100; 3]);
    assert!(!matches("udp", &deeper) && matches("", &deeper));
}

#[test]
fn a_later_fragment_has_no_ports_and_a_short_frame_nothing_that_is_not_there() {
    let mut frame = ip(UDP, (CLIENT, 53), (SERVICE, 53), &[]);
    frame[20..22].copy_from_slice(&[0, 1]);
    assert!(matches("udp and host 198.18.0.1", &frame) && !matches("port 53", &frame));
    let whole = ip(TCP, (CLIENT, 40_000), (SERVICE, 443), &[]);
    assert!(matches("ip and not host 198.18.0.1", &whole[..20]));
    assert!(!matches("ip", &whole[..13]) && !matches("port 443", &whole[..36]));
}

#[test]
fn what_is_wrong_is_marked_and_what_would_be_right_is_said() {
    let told = |text: &str| Filter::parse(text).unwrap_err().to_string();
    let expected = "the filter has \"prot\", a word that it does not know; did you mean port?\n  \
                    host 198.18.0.1 and prot 443\n  \
                    \u{20}                   ^~~~";
    assert_eq!(told("host 198.18.0.1 and prot 443"), expected);
    for (text, place, what) in [
        ("198.18.0.1", 0..10, "write host 198.18.0.1"),
        ("tcp 443", 4..7, "join what stands before and behind it"),
        ("host shop.example", 5..17, "write an address"),
        ("host 198.18.0.0/15", 5..18, "write net 198.18.0.0/15"),
        ("net 198.18.0.1/15", 4..17, "write net 198.18.0.0/15, or host 198.18.0.1"),
        ("net 2001:db8::/129", 4..18, "write it like net"),
        ("port https", 5..10, "a number from 0 to 65535"),
        ("port 65536", 5..10, "a number from 0 to 65535"),
        ("port +5", 5..7, "a number from 0 to 65535"),
        ("portrange 90-80", 10..15, "write portrange 80-90"),
        ("portrange 80", 10..12, "portrange 8000-8099"),
        ("tcp host 198.18.0.1", 4..8, "write and between them"),
        ("ip host 2001:db8::1", 8..19, "one of the kind before it"),
        ("port 443 and", 12..12, "ends, where there should be more"),
        ("port 443 and and tcp", 13..16, "where a term should be"),
        ("(port 443", 9..9, "write )"),
        ("port 443)", 8..9, "take it out"),
        ("src or src port 1", 7..10, "write dst"),
        ("port 443 tcp", 9..12, "where and, or or the end should be"),
        ("tcp and 443", 8..11, "write port 443"),
        ("port 443 and https", 13..18, "it knows host, net"),
        ("ether host 1", 0..5, "it knows host, net"),
        ("()", 1..2, "where a term should be"),
        ("port é", 5..7, "write a number"),
        ("host \u{1}\n", 5..6, "write an address"),
    ] {
        let wrong = Filter::parse(text).unwrap_err();
        assert_eq!(wrong.place(), place, "{wrong}");
        assert!(wrong.to_string().contains(what), "{wrong}");
        assert_eq!(wrong.to_string().lines().count(), 3, "{wrong}");
    }
}

#[test]
fn terms_brackets_and_letters_are_bounded() {
    let terms = |count: usize| vec!["port 1"; count].join(" or ");
    assert!(Filter::parse(&terms(TERMS_MAX)).is_ok());
    assert!(Filter::parse(&terms(TERMS_MAX + 1)).unwrap_err().to_string().contains("65th of its terms"));
    let nested = |depth: usize| format!("{}tcp{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&nested(DEPTH_MAX)).is_ok());
    assert!(Filter::parse(&nested(DEPTH_MAX + 1)).unwrap_err().to_string().contains("17th bracket"));
    let long = |len: usize| format!("tcp{}", " ".repeat(len - 3));
    assert!(Filter::parse(&long(TEXT_MAX)).is_ok());
    assert!(Filter::parse(&long(TEXT_MAX + 1)).unwrap_err().to_string().contains("1025 bytes"));
}

/// An expression, and what it is for a frame of which three terms are true or not.
#[derive(Clone, Debug)]
enum Tree {
    Term(usize),
    Not(Box<Tree>),
    Join(bool, Box<Tree>, Box<Tree>),
}

/// Terms of which each is true of some frames only.
const TERMS: [&str; 3] = ["src port 1", "dst host 198.18.0.10", "udp"];

impl Tree {
    fn text(&self) -> String {
        match self {
            Self::Term(term) => TERMS[*term].to_owned(),
            Self::Not(tree) => format!("not ({})", tree.text()),
            Self::Join(and, left, right) => {
                format!("({}) {} ({})", left.text(), if *and { "and" } else { "||" }, right.text())
            }
        }
    }

    fn value(&self, terms: [bool; 3]) -> bool {
        match self {
            Self::Term(term) => terms[*term],
            Self::Not(tree) => !tree.value(terms),
            Self::Join(true, left, right) => left.value(terms) && right.value(terms),
            Self::Join(false, left, right) => left.value(terms) || right.value(terms),
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = (0..3_usize).prop_map(Tree::Term);
    leaf.prop_recursive(8, 24, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
            (any::<bool>(), inner.clone(), inner).prop_map(|(and, left, right)| Tree::Join(
                and,
                Box::new(left),
                Box::new(right)
            )),
        ]
    })
}

proptest! {
    #[test]
    fn steps_say_what_the_expression_says(tree in tree(), terms: [bool; 3]) {
        let frame = ip(
            if terms[2] { UDP } else { TCP },
            (CLIENT, u16::from(terms[0])),
            (if terms[1] { SERVICE } else { CLIENT }, 443),
            &[],
        );
        prop_assume!(tree.text().len() <= TEXT_MAX);
        let filter = Filter::parse(&tree.text()).unwrap();
        prop_assert_eq!(filter.matches(&Headers::of(&frame)), tree.value(terms));
    }

    #[test]
    fn whatever_is_written_is_understood_or_marked(text in "([a-z]{1,5}|[()!&|/.:-]|[0-9]{1,3}|host|port| ){0,40}", frame in prop::collection::vec(any::<u8>(), 0..80)) {
        match Filter::parse(&text) {
            Ok(filter) => drop(filter.matches(&Headers::of(&frame))),
            Err(wrong) => prop_assert!(wrong.place().end <= text.len()),
        }
    }
}
