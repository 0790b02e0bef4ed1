//! A filter's words made into steps, and what is wrong where they make none.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::{DEPTH_MAX, End, Kind, Step, TERMS_MAX, TEXT_MAX, Term};

/// What is wrong with a filter, where, and what would be right. It is shown with the place marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    text: String,
    place: Range<usize>,
    what: String,
    remedy: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Characters, not bytes, are what stands above the mark. One that would end the line, or move what follows it, is a space here.
        let plain: String = self.text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        let before = self.text.get(..self.place.start).unwrap_or_default().chars().count();
        let marked = self.text.get(self.place.clone()).unwrap_or_default().chars().count();
        let mark = format!("^{}", "~".repeat(marked.saturating_sub(1)));
        write!(f, "the filter {}; {}\n  {plain}\n  {}{mark}", self.what, self.remedy, " ".repeat(before))
    }
}

impl std::error::Error for Wrong {}

impl Wrong {
    /// Where in the text, in bytes.
    pub fn place(&self) -> Range<usize> {
        self.place.clone()
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Host,
    Net,
    Port,
    PortRange,
}

/// The words before a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Qualifiers {
    kind: Option<Kind>,
    end: End,
    of: Type,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Join {
    And,
    Or,
}

/// Words and signs; words with their places.
struct Words<'t> {
    text: &'t str,
    words: Vec<(&'t str, Range<usize>)>,
    at: usize,
}

impl<'t> Words<'t> {
    fn of(text: &'t str) -> Self {
        let mut words = Vec::new();
        let mut begin = None;
        let mut taken_to = 0;
        let mut push = |range: Range<usize>| words.extend(text.get(range.clone()).map(|word| (word, range)));
        for (at, letter) in text.char_indices() {
            if at < taken_to {
                continue;
            }
            let two = text.get(at..at + 2).filter(|two| matches!(*two, "&&" | "||"));
            let sign = match (two, letter) {
                (Some(_), _) => 2,
                (None, '(' | ')' | '!') => 1,
                (None, _) => 0,
            };
            if sign > 0 || letter.is_whitespace() {
                if let Some(begin) = begin.take() {
                    push(begin..at);
                }
                if sign > 0 {
                    push(at..at + sign);
                }
                taken_to = at + sign;
            } else if begin.is_none() {
                begin = Some(at);
            }
        }
        if let Some(begin) = begin {
            push(begin..text.len());
        }
        Self { text, words, at: 0 }
    }

    fn peek(&self) -> Option<&'t str> {
        self.words.get(self.at).map(|(word, _)| *word)
    }

    fn next_is(&self, wanted: &[&str]) -> bool {
        self.peek().is_some_and(|word| wanted.contains(&word))
    }

    fn take(&mut self, wanted: &[&str]) -> bool {
        let is = self.next_is(wanted);
        self.at += usize::from(is);
        is
    }

    /// Blames the next word, or the end where there is none.
    fn blame(&self, what: impl fmt::Display, remedy: impl Into<String>) -> Wrong {
        let end = self.text.trim_end().len();
        let place = self.words.get(self.at).map_or(end..end, |(_, place)| place.clone());
        let what = match self.peek() {
            Some(word) => format!("has {word:?}, {what}"),
            None => format!("ends, {what}"),
        };
        Wrong { text: self.text.to_owned(), place, what, remedy: remedy.into() }
    }
}

const AND: [&str; 2] = ["and", "&&"];
const OR: [&str; 2] = ["or", "||"];
const NOT: [&str; 2] = ["not", "!"];
const ENDS: [&str; 2] = ["src", "dst"];

const EXAMPLE: &str = "write it like \"host 198.18.0.1 and port 443\"";

pub(super) fn parse(text: &str) -> Result<Box<[Step]>, Wrong> {
    let mut parser = Parser { words: Words::of(text), steps: Vec::new(), terms: 0, depth: 0 };
    if text.len() > TEXT_MAX {
        parser.words.at = parser.words.words.len();
        return Err(parser.words.blame(
            format_args!("but has {} bytes, more than {TEXT_MAX}", text.len()),
            "take a network instead of its hosts",
        ));
    }
    if parser.words.peek().is_some() {
        parser.expression(None, false)?;
        if parser.words.peek().is_some() {
            let (what, remedy) = if parser.words.next_is(&[")"]) {
                ("which closes nothing", "take it out, or open a bracket before")
            } else {
                ("where and, or or the end should be", "join what stands before and behind it")
            };
            return Err(parser.words.blame(what, remedy));
        }
    }
    Ok(parser.steps.into())
}

struct Parser<'t> {
    words: Words<'t>,
    steps: Vec<Step>,
    terms: usize,
    depth: usize,
}

impl Parser<'_> {
    /// Terms with joins between them. Values alone have these words before them, if any; with `values_only` there is nothing else.
    fn expression(&mut self, mut before: Option<Qualifiers>, values_only: bool) -> Result<(), Wrong> {
        let mut join = None;
        loop {
            before = self.item(before, values_only)?;
            match join {
                Some(Join::And) => self.steps.push(Step::And),
                Some(Join::Or) => self.steps.push(Step::Or),
                None => {}
            }
            join = if self.words.take(&AND) {
                Some(Join::And)
            } else if self.words.take(&OR) {
                Some(Join::Or)
            } else {
                return Ok(());
            };
        }
    }

    /// One term or bracket, perhaps negated. Gives the words that a value behind it has.
    fn item(&mut self, before: Option<Qualifiers>, values_only: bool) -> Result<Option<Qualifiers>, Wrong> {
        let mut is_negated = false;
        while self.words.take(&NOT) {
            is_negated = !is_negated;
        }
        let after = if self.words.next_is(&["("]) {
            self.bracket(before, values_only)?;
            before
        } else if values_only {
            self.value(before)?;
            before
        } else {
            self.term(before)?
        };
        if is_negated {
            self.steps.push(Step::Not);
        }
        Ok(after)
    }

    fn bracket(&mut self, before: Option<Qualifiers>, values_only: bool) -> Result<(), Wrong> {
        if self.depth >= DEPTH_MAX {
            let what = format_args!("the {}th bracket within others", DEPTH_MAX + 1);
            return Err(self.words.blame(what, "write it with fewer"));
        }
        self.words.at += 1;
        self.depth += 1;
        self.expression(before, values_only)?;
        if !self.words.take(&[")"]) {
            return Err(self.words.blame("where a bracket is to be closed", "write )"));
        }
        self.depth -= 1;
        Ok(())
    }

    fn term(&mut self, before: Option<Qualifiers>) -> Result<Option<Qualifiers>, Wrong> {
        let kind = self.words.peek().and_then(kind);
        if kind.is_some() {
            self.words.at += 1;
        }
        let end = self.end()?;
        let of = match self.words.peek() {
            Some("host") => Some(Type::Host),
            Some("net") => Some(Type::Net),
            Some("port") => Some(Type::Port),
            Some("portrange") => Some(Type::PortRange),
            Some(_) | None => None,
        };
        match (kind, end, of) {
            (Some(kind), None, None) => {
                self.push(Term::Kind(kind))?;
                Ok(None)
            }
            (None, None, None) => {
                // What is no value, but looks like a word, is a slip of one.
                let is_word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_alphabetic());
                if let Some(word) = self.words.peek().filter(is_word) {
                    return Err(self.unknown(word));
                }
                self.value(before)?;
                Ok(before)
            }
            (kind, end, of) => {
                self.prove_fit(kind, of.unwrap_or(Type::Host))?;
                self.words.at += usize::from(of.is_some());
                // Without a type the value is a host.
                let qualifiers = Qualifiers { kind, end: end.unwrap_or(End::Either), of: of.unwrap_or(Type::Host) };
                if self.words.next_is(&["("]) {
                    self.bracket(Some(qualifiers), true)?;
                } else {
                    self.value(Some(qualifiers))?;
                }
                Ok(Some(qualifiers))
            }
        }
    }

    fn end(&mut self) -> Result<Option<End>, Wrong> {
        let Some(first) = self.words.peek().filter(|word| ENDS.contains(word)) else { return Ok(None) };
        self.words.at += 1;
        let join = if self.words.take(&AND) {
            End::Both
        } else if self.words.take(&OR) {
            End::Either
        } else {
            return Ok(Some(if first == "src" { End::Source } else { End::Destination }));
        };
        let other = if first == "src" { "dst" } else { "src" };
        if !self.words.take(&[other]) {
            return Err(self.words.blame(format_args!("where {other} should be"), format!("write {other}")));
        }
        Ok(Some(join))
    }

    /// Hosts and networks have no transport, ports no network.
    fn prove_fit(&self, kind: Option<Kind>, of: Type) -> Result<(), Wrong> {
        let fits = match (kind, of) {
            (None, _)
            | (Some(Kind::Ip | Kind::Ip6 | Kind::Arp), Type::Host | Type::Net)
            | (Some(Kind::Tcp | Kind::Udp), Type::Port | Type::PortRange) => true,
            (
                Some(Kind::Ip | Kind::Ip6 | Kind::Arp | Kind::Tcp | Kind::Udp | Kind::Icmp | Kind::Icmp6),
                Type::Host | Type::Net | Type::Port | Type::PortRange,
            ) => false,
        };
        if fits {
            return Ok(());
        }
        Err(self.words.blame("which does not go with the word before it", "write and between them"))
    }

    /// One value as the words before it say.
    fn value(&mut self, qualifiers: Option<Qualifiers>) -> Result<(), Wrong> {
        let Some(word) = self.words.peek() else {
            return Err(self.words.blame("where there should be more", EXAMPLE));
        };
        let Some(Qualifiers { kind, end, of }) = qualifiers else { return Err(self.unknown(word)) };
        let term = match of {
            Type::Host => {
                let address: IpAddr = word.parse().map_err(|_| self.no_address(word))?;
                self.network(kind, end, address, u32::MAX)?
            }
            Type::Net => {
                let (address, length) = self.net(word)?;
                self.network(kind, end, address, length)?
            }
            Type::Port => {
                let port = self.port(word, word)?;
                Term::Ports { kind, first: port, last: port, end }
            }
            Type::PortRange => {
                let remedy = "write two numbers with a minus between them, as in portrange 8000-8099";
                let parts = word.split_once('-').ok_or_else(|| self.words.blame("which is no range", remedy))?;
                let (first, last) = (self.port(word, parts.0)?, self.port(word, parts.1)?);
                if first > last {
                    let remedy = format!("write portrange {last}-{first}");
                    return Err(self.words.blame("which ends before it begins", remedy));
                }
                Term::Ports { kind, first, last, end }
            }
        };
        self.push(term)?;
        self.words.at += 1;
        Ok(())
    }

    fn network(&self, kind: Option<Kind>, end: End, address: IpAddr, length: u32) -> Result<Term, Wrong> {
        let fits = match kind {
            None => true,
            Some(Kind::Ip | Kind::Arp) => address.is_ipv4(),
            Some(Kind::Ip6) => address.is_ipv6(),
            Some(Kind::Tcp | Kind::Udp | Kind::Icmp | Kind::Icmp6) => false,
        };
        if !fits {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            return Err(self.words.blame(format_args!("an {family} address"), "write one of the kind before it"));
        }
        let (bits, number) = match address {
            IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (128, v6.to_bits()),
        };
        let all = u128::MAX >> (128 - bits);
        let mask = if length >= bits { all } else { all & !(all >> length) };
        if number & !mask != 0 {
            let network = match address {
                IpAddr::V4(v4) => IpAddr::from(Ipv4Addr::from_bits(v4.to_bits() & u32::try_from(mask).unwrap_or(0))),
                IpAddr::V6(v6) => IpAddr::from(std::net::Ipv6Addr::from_bits(v6.to_bits() & mask)),
            };
            let remedy = format!("write net {network}/{length}, or host {address}");
            return Err(self.words.blame("which has bits behind its prefix", remedy));
        }
        Ok(Term::Network { kind, is_ipv6: address.is_ipv6(), address: number, mask, end })
    }

    /// An address with the length of its prefix. Of an IPv4 address octets at the end may be missing, and the prefix is what is there.
    fn net(&self, word: &str) -> Result<(IpAddr, u32), Wrong> {
        let wrong = || self.words.blame("which is no network", "write it like net 198.18.0.0/15");
        let (address, length) = match word.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().map_err(|_| wrong())?)),
            None => (word, None),
        };
        if let Ok(address) = address.parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let length = length.unwrap_or(bits);
            return if length <= bits { Ok((address, length)) } else { Err(wrong()) };
        }
        let octets: Option<Vec<u8>> = address.split('.').map(|part| part.parse().ok()).collect();
        match octets.as_deref() {
            Some(&[a]) if length.is_none() => Ok((Ipv4Addr::new(a, 0, 0, 0).into(), 8)),
            Some(&[a, b]) if length.is_none() => Ok((Ipv4Addr::new(a, b, 0, 0).into(), 16)),
            Some(&[a, b, c]) if length.is_none() => Ok((Ipv4Addr::new(a, b, c, 0).into(), 24)),
            Some(_) | None => Err(wrong()),
        }
    }

    fn port(&self, word: &str, part: &str) -> Result<u16, Wrong> {
        let is_name = word.starts_with(|letter: char| letter.is_ascii_alphabetic());
        let what = if is_name { "which is no number" } else { "which is no port" };
        // Rust reads a sign before a number, too.
        let digits = Some(part).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let port = digits.and_then(|part| part.parse().ok());
        port.ok_or_else(|| self.words.blame(what, "write a number from 0 to 65535, as in port 443"))
    }

    fn no_address(&self, word: &str) -> Wrong {
        let remedy = if word.contains('/') {
            format!("write net {word}")
        } else {
            "write an address, as in host 198.18.0.1".to_owned()
        };
        self.words.blame("which is no address", remedy)
    }

    /// A word that nothing before it explains.
    fn unknown(&self, word: &str) -> Wrong {
        if word.parse::<IpAddr>().is_ok() {
            return self.words.blame("and nothing says what it is", format!("write host {word}"));
        }
        if word.contains('/') && self.net(word).is_ok() {
            return self.words.blame("and nothing says what it is", format!("write net {word}"));
        }
        if word.parse::<u16>().is_ok() {
            return self.words.blame("and nothing says what it is", format!("write port {word}"));
        }
        if AND.contains(&word) || OR.contains(&word) || word == ")" {
            return self.words.blame("where a term should be", EXAMPLE);
        }
        let near = WORDS.iter().map(|known| (strsim::damerau_levenshtein(word, known), *known)).min();
        match near {
            Some((distance, known)) if distance <= 2 => {
                self.words.blame("a word that it does not know", format!("did you mean {known}?"))
            }
            Some(_) | None => {
                self.words.blame("a word that it does not know", format!("it knows {}", WORDS.join(", ")))
            }
        }
    }

    fn push(&mut self, term: Term) -> Result<(), Wrong> {
        if self.terms >= TERMS_MAX {
            let what = format_args!("the {}th of its terms", TERMS_MAX + 1);
            return Err(self.words.blame(what, "take networks and ranges of ports instead of single ones"));
        }
        self.terms += 1;
        self.steps.push(Step::Term(term));
        Ok(())
    }
}

const WORDS: [&str; 16] = [
    "host",
    "net",
    "port",
    "portrange",
    "src",
    "dst",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "arp",
    "ip",
    "ip6",
    "and",
    "or",
    "not",
];

fn kind(word: &str) -> Option<Kind> {
    Some(match word {
        "ip" => Kind::Ip,
        "ip6" => Kind::Ip6,
        "arp" => Kind::Arp,
        "tcp" => Kind::Tcp,
        "udp" => Kind::Udp,
        "icmp" => Kind::Icmp,
        "icmp6" => Kind::Icmp6,
        _ => return None,
    })
}
