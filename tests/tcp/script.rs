//! What a dialogue's lines say: segments as they are written, what no emitter of ours would write, and the rules of first lines.

use sealane::wire::segment::{IPV4_HEADER, IPV6_HEADER};
use sealane::wire::{Ecn, Flags, SegmentOptions, Seq, Timestamp};
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket};

use crate::Outcome;

/// How scripts write the ECN field.
pub(crate) const MARKS: [(&str, Ecn); 3] = [("[ect1]", Ecn::Ect1), ("[ect0]", Ecn::Ect0), ("[ce]", Ecn::Ce)];

/// A segment as a script writes it.
pub(crate) struct Written {
    pub(crate) ecn: Ecn,
    pub(crate) flags: Flags,
    pub(crate) seq: u32,
    pub(crate) len: usize,
    pub(crate) ack: Option<u32>,
    pub(crate) window: Option<u16>,
    pub(crate) options: Option<SegmentOptions>,
    /// The urgent pointer, with the URG bit.
    pub(crate) urgent: Option<u16>,
    /// Bytes of options that stand before the others as they are.
    pub(crate) raw: Vec<u8>,
}

impl Written {
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        let mut raw = Vec::new();
        let (head, options) = match text.split_once('<') {
            Some((head, options)) => {
                let list = options.strip_suffix('>').ok_or("> expected")?;
                (head, Some(parse_options(list, &mut raw)?))
            }
            None => (text, None),
        };
        let mut words = head.split_whitespace();
        let mut letters = words.next().ok_or("flags expected")?;
        let mark = MARKS.iter().find(|(mark, _)| *mark == letters);
        if mark.is_some() {
            letters = words.next().ok_or("flags expected")?;
        }
        let ecn = mark.map_or(Ecn::NotEct, |(_, ecn)| *ecn);
        let mut flags = Flags::default();
        for letter in letters.chars() {
            match letter {
                'S' => flags.syn = true,
                'F' => flags.fin = true,
                'R' => flags.rst = true,
                'P' => flags.psh = true,
                'E' => flags.ece = true,
                'W' => flags.cwr = true,
                '.' | '-' | 'U' => {}
                _ => return Err(format!("no flag {letter}")),
            }
        }
        let range = words.next().ok_or("first:last(length) expected")?;
        let (seq, len) = parse_range(range).ok_or_else(|| format!("first:last(length) expected, not {range}"))?;
        let mut written = Self { ecn, flags, seq, len, ack: None, window: None, options, urgent: None, raw };
        while let Some(word) = words.next() {
            let value: u32 = words.next().and_then(|value| value.parse().ok()).ok_or("a number expected")?;
            match word {
                "ack" => written.ack = Some(value),
                "urg" => written.urgent = Some(u16::try_from(value).map_err(|_| "the field has 16 bits")?),
                "win" => written.window = Some(u16::try_from(value).map_err(|_| "the field has 16 bits")?),
                _ => return Err(format!("no field {word}")),
            }
        }
        if letters.contains('.') != written.ack.is_some() {
            return Err("`.` and `ack` go together".to_owned());
        }
        if letters.contains('U') != written.urgent.is_some() {
            return Err("`U` and `urg` go together".to_owned());
        }
        Ok(written)
    }
}

/// Puts into an IP packet what a sender of ours never writes: options as they are, padded in front by "no operation", and an urgent pointer.
pub(crate) fn disfigure(packet: &[u8], raw: &[u8], urgent: Option<u16>) -> Vec<u8> {
    let header = if packet[0] >> 4 == 4 { IPV4_HEADER } else { IPV6_HEADER };
    let (before, behind) = packet.split_at(header + 20);
    let padding = vec![1; raw.len().next_multiple_of(4) - raw.len()];
    let mut bytes = [before, &padding, raw, behind].concat();
    bytes[header + 12] += ((padding.len() + raw.len()) << 2) as u8;
    if let Some(urgent) = urgent {
        bytes[header + 13] |= 0x20;
        bytes[header + 18..header + 20].copy_from_slice(&urgent.to_be_bytes());
    }
    let len = bytes.len();
    let (source, destination) = if header == IPV4_HEADER {
        let mut ip = Ipv4Packet::new_unchecked(&mut bytes);
        ip.set_total_len(len as u16);
        ip.fill_checksum();
        (IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr()))
    } else {
        let mut ip = Ipv6Packet::new_unchecked(&mut bytes);
        ip.set_payload_len((len - header) as u16);
        (IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr()))
    };
    TcpPacket::new_unchecked(&mut bytes[header..]).fill_checksum(&source, &destination);
    bytes
}

/// A rule that a dialogue shows: the number of its RFC, its section, and that as it is written.
pub(crate) type Rule = (u32, Vec<u32>, String);

/// The rules that a first line names: `# RFC 5681 4.1, RFC 9438 5.8: …` names two.
pub(crate) fn rules(first: &str) -> Vec<Rule> {
    let head = first.trim_start_matches("# ").split(':').next().unwrap_or_default();
    let mut rules: Vec<Rule> = Vec::new();
    for part in head.split(", ") {
        let mut words = part.strip_prefix("RFC ").unwrap_or_default().split(' ');
        match (words.next().unwrap_or_default().parse(), rules.last_mut()) {
            (Ok(rfc), _) => {
                let section = words.next().unwrap_or_default().split('.').filter_map(|number| number.parse().ok());
                rules.push((rfc, section.collect(), part.to_owned()));
            }
            (Err(_), Some((_, _, written))) => *written = format!("{written}, {part}"),
            (Err(_), None) => {}
        }
    }
    rules
}

fn parse_range(text: &str) -> Option<(u32, usize)> {
    let (first, rest) = text.split_once(':')?;
    let (last, len) = rest.strip_suffix(')')?.split_once('(')?;
    let (first, last, len): (i64, i64, i64) = (first.parse().ok()?, last.parse().ok()?, len.parse().ok()?);
    (last - first == len).then_some(((first & 0xffff_ffff) as u32, len as usize))
}

fn parse_options(list: &str, raw: &mut Vec<u8>) -> Outcome<SegmentOptions> {
    let mut options = SegmentOptions::default();
    for option in list.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let words: Vec<&str> = option.split_whitespace().collect();
        let number = |word: &str| word.parse::<u32>().map_err(|_| format!("a number expected, not {word}"));
        match words[..] {
            ["mss", mss] => options.mss = Some(number(mss)? as u16),
            ["wscale", shift] => options.window_scale = Some(number(shift)? as u8),
            ["raw", ref bytes @ ..] => {
                for byte in bytes {
                    raw.push(u8::from_str_radix(byte, 16).map_err(|_| format!("two hex digits expected, not {byte}"))?);
                }
            }
            ["sackOK"] => options.sack_permitted = true,
            ["ts", value, echo] => options.timestamp = Some(Timestamp { value: number(value)?, echo: number(echo)? }),
            ["sack", ref ranges @ ..] if ranges.len() <= 4 => {
                for (block, range) in options.sack.iter_mut().zip(ranges) {
                    let (left, right) = range.split_once(':').ok_or("left:right expected")?;
                    *block = Some((Seq(number(left)?), Seq(number(right)?)));
                }
            }
            _ => return Err(format!("no option {option}")),
        }
    }
    Ok(options)
}
