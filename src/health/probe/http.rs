//! The probe that asks by HTTP/1.1 (RFC 9112): the code of the answer, and what its body says.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use memchr::memmem;

use crate::health::probe::search::Search;
use crate::health::{Answer, Cause, Outcome};

/// The longest head, with those of interim answers before it.
pub(super) const HEAD_MAX: usize = 8192;

/// Most fields of one.
const FIELDS_MAX: usize = 64;

/// Most bytes of a body that are looked at.
pub(super) const BODY_MAX: u64 = 256 * 1024;

/// The longest line with the size of a chunk.
const SIZE_MAX: usize = 256;

/// What is asked, and what the answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Method.
    pub method: &'static str,
    /// Path.
    pub path: String,
    /// The host that is asked for; `None`: the server's address.
    pub host: Option<String>,
    /// Codes that are right.
    pub codes: Vec<RangeInclusive<u16>>,
    /// What the body must have in its first 256 KiB; empty: anything.
    pub text: Arc<[u8]>,
    /// Codes that say maintenance.
    pub maintenance_codes: Vec<RangeInclusive<u16>>,
}

impl Settings {
    /// The request, to a server at this address.
    pub(super) fn request(&self, target: SocketAddr) -> String {
        let Self { method, path, host, .. } = self;
        let host = host.clone().unwrap_or_else(|| target.to_string());
        let agent = concat!("sealane/", env!("CARGO_PKG_VERSION"));
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
    }
}

/// One probe.
#[derive(Debug)]
pub(super) struct Talk {
    rule: Arc<Settings>,
    text: Option<Search>,
    maintenance: Option<Search>,
    /// Bytes of the head, as far as it has come.
    head: Vec<u8>,
    /// Bytes of interim answers before it (RFC 9110 15.2).
    interim: usize,
    /// Its code, once the head is there.
    code: Option<u16>,
    body: Body,
    /// Bytes of the body that have been looked at.
    seen: u64,
}

/// What is left of a body (RFC 9112 6.3).
#[derive(Debug)]
enum Body {
    /// So many bytes.
    Sized(u64),
    /// Whatever comes until the connection is closed.
    UntilClosed,
    /// Chunks; what has come of the line that says how long the next one is.
    Size(Vec<u8>),
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of the line behind a chunk.
    ChunkEnd,
}

/// Whether there is more.
enum Step {
    More,
    Done,
}

impl Talk {
    /// A probe that takes `maintenance` in the body for a sign of maintenance.
    pub(super) fn new(rule: &Arc<Settings>, maintenance: &Arc<[u8]>) -> Self {
        let search = |text: &Arc<[u8]>| (!text.is_empty()).then(|| Search::new(text));
        Self {
            text: search(&rule.text),
            maintenance: search(maintenance),
            rule: Arc::clone(rule),
            head: Vec::new(),
            interim: 0,
            code: None,
            body: Body::Sized(0),
            seen: 0,
        }
    }

    pub(super) fn on_data(&mut self, mut bytes: &[u8]) -> Option<Outcome> {
        while !bytes.is_empty() {
            let taken = if self.code.is_none() { self.on_head(bytes) } else { self.on_body(bytes) };
            match taken {
                Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
                Err(outcome) => return Some(outcome),
            }
        }
        None
    }

    /// The server says no more.
    pub(super) fn on_end(&self) -> Outcome {
        match (self.code, &self.body) {
            (Some(code), Body::UntilClosed) => self.judge(code),
            (None | Some(_), _) => Err(Cause::Closed),
        }
    }

    /// Takes bytes up to the end of the head.
    fn on_head(&mut self, bytes: &[u8]) -> Result<usize, Outcome> {
        let before = self.head.len();
        let room = HEAD_MAX.saturating_sub(self.interim + before);
        self.head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let version = b"HTTP/";
        if self.head.iter().zip(version).any(|(is, wanted)| is != wanted) {
            return Err(Err(Cause::NotHttp));
        }
        // Parsed when it is whole, so that a server that sends byte by byte costs no more.
        let Some(end) = end_of_head(&self.head, before) else {
            return if self.interim + self.head.len() < HEAD_MAX { Ok(bytes.len()) } else { Err(Err(Cause::NotHttp)) };
        };
        self.head.truncate(end);
        let head = std::mem::take(&mut self.head);
        let (code, body) = read_head(&head, self.rule.method == "HEAD").ok_or(Err(Cause::NotHttp))?;
        if (100..200).contains(&code) && code != 101 {
            self.interim += end;
        } else {
            self.code = Some(code);
            self.body = body;
            self.on_code(code)?;
        }
        Ok(end - before)
    }

    /// What the head says by itself.
    fn on_code(&self, code: u16) -> Result<(), Outcome> {
        if has(&self.rule.maintenance_codes, code) {
            return Err(Ok(Answer::Maintenance));
        }
        let is_empty = matches!(self.body, Body::Sized(0));
        if is_empty || (self.text.is_none() || !has(&self.rule.codes, code)) && self.maintenance.is_none() {
            return Err(self.judge(code));
        }
        Ok(())
    }

    /// Takes bytes of the body.
    fn on_body(&mut self, bytes: &[u8]) -> Result<usize, Outcome> {
        let Some(code) = self.code else { return Ok(bytes.len()) };
        let (taken, step) = match &mut self.body {
            Body::Sized(left) | Body::Chunk(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                let is_last = *left == 0;
                self.on_content(bytes.get(..taken).unwrap_or(bytes), code)?;
                let step = match &mut self.body {
                    Body::Sized(_) if is_last => Step::Done,
                    body @ Body::Chunk(_) if is_last => {
                        *body = Body::ChunkEnd;
                        Step::More
                    }
                    Body::Sized(_) | Body::Chunk(_) | Body::UntilClosed | Body::Size(_) | Body::ChunkEnd => Step::More,
                };
                (taken, step)
            }
            Body::UntilClosed => {
                self.on_content(bytes, code)?;
                (bytes.len(), Step::More)
            }
            Body::Size(_) | Body::ChunkEnd => self.on_chunk_line(bytes).ok_or(Err(Cause::NotHttp))?,
        };
        match step {
            Step::More => Ok(taken),
            Step::Done => Err(self.judge(code)),
        }
    }

    /// Takes what lies between two chunks (RFC 9112 7.1). The trailer says nothing that is asked for.
    fn on_chunk_line(&mut self, bytes: &[u8]) -> Option<(usize, Step)> {
        let byte = *bytes.first()?;
        match &mut self.body {
            Body::ChunkEnd => match byte {
                b'\r' => {}
                b'\n' => self.body = Body::Size(Vec::new()),
                _ => return None,
            },
            Body::Size(line) => {
                line.push(byte);
                if byte == b'\n' {
                    let httparse::Status::Complete((_, size)) = httparse::parse_chunk_size(line).ok()? else {
                        return None;
                    };
                    if size == 0 {
                        return Some((1, Step::Done));
                    }
                    self.body = Body::Chunk(size);
                } else if line.len() == SIZE_MAX {
                    return None;
                }
            }
            Body::Sized(_) | Body::UntilClosed | Body::Chunk(_) => return None,
        }
        Some((1, Step::More))
    }

    /// Looks at what a body says.
    fn on_content(&mut self, bytes: &[u8], code: u16) -> Result<(), Outcome> {
        let room = usize::try_from(BODY_MAX - self.seen).unwrap_or(usize::MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        self.seen += bytes.len() as u64;
        if let Some(text) = &mut self.text {
            text.on_data(bytes);
        }
        if let Some(maintenance) = &mut self.maintenance {
            maintenance.on_data(bytes);
            if maintenance.is_found() {
                return Err(Ok(Answer::Maintenance));
            }
        } else if self.text.as_ref().is_some_and(Search::is_found) {
            return Err(self.judge(code));
        }
        // Beyond the bound nobody looks: it is as if the body ended here.
        if self.seen == BODY_MAX { Err(self.judge(code)) } else { Ok(()) }
    }

    /// What an answer of this code comes to by what has been seen of its body.
    fn judge(&self, code: u16) -> Outcome {
        if !has(&self.rule.codes, code) {
            Err(Cause::WrongCode(code))
        } else if self.text.as_ref().is_some_and(|text| !text.is_found()) {
            Err(Cause::TextMissing)
        } else {
            Ok(Answer::Normal)
        }
    }
}

fn has(codes: &[RangeInclusive<u16>], code: u16) -> bool {
    codes.iter().any(|range| range.contains(&code))
}

/// Where a head ends: behind the first empty line. The first `before` bytes have none.
fn end_of_head(head: &[u8], before: usize) -> Option<usize> {
    let from = before.saturating_sub(3);
    let new = head.get(from..)?;
    let ends = [&b"\n\r\n"[..], b"\n\n"].map(|end| memmem::find(new, end).map(|at| from + at + end.len()));
    ends.into_iter().flatten().min()
}

/// The code of an answer, and what follows its head (RFC 9112 6.3).
fn read_head(head: &[u8], is_head: bool) -> Option<(u16, Body)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(_) = answer.parse(head).ok()? else { return None };
    let code = answer.code?;
    if is_head || matches!(code, 100..200 | 204 | 304) {
        return Some((code, Body::Sized(0)));
    }
    let mut size: Option<u64> = None;
    let mut coding = None;
    for field in answer.headers {
        if field.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(field.value).ok()?.trim();
            let this = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())??;
            if size.is_some_and(|size| size != this) {
                return None;
            }
            size = Some(this);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            coding = Some(field.value.trim_ascii().to_ascii_lowercase().ends_with(b"chunked"));
        }
    }
    let body = match (coding, size) {
        // It overrides the length.
        (Some(true), _) => Body::Size(Vec::new()),
        (Some(false), _) | (None, None) => Body::UntilClosed,
        (None, Some(size)) => Body::Sized(size),
    };
    Some((code, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Settings {
        Settings {
            method: "GET",
            path: "/health".into(),
            host: None,
            codes: vec![200..=299, 404..=404],
            text: text.as_bytes().into(),
            maintenance_codes: vec![503..=503],
        }
    }

    /// What comes of an answer, cut in two at every place, and byte by byte; `maintenance` is the text that says so.
    fn outcome(rule: &Settings, maintenance: &str, answer: &str) -> Outcome {
        let (rule, maintenance) = (Arc::new(rule.clone()), Arc::from(maintenance.as_bytes()));
        let answer = answer.as_bytes();
        let mut all = Vec::new();
        for split in 0..=answer.len() {
            let mut talk = Talk::new(&rule, &maintenance);
            let (one, two) = answer.split_at(split);
            all.push(talk.on_data(one).or_else(|| talk.on_data(two)).unwrap_or_else(|| talk.on_end()));
        }
        let mut talk = Talk::new(&rule, &maintenance);
        let bytewise = answer.iter().find_map(|byte| talk.on_data(&[*byte]));
        all.push(bytewise.unwrap_or_else(|| talk.on_end()));
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]
    }

    const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well.";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n7;a=b\r\nall is \r\n05\r\nwell.\r\n0\r\nx: y\r\n\r\n";
    const UNTIL_CLOSED: &str = "HTTP/1.0 200 Very Well\nServer: old\n\nall is well.";

    #[test]
    fn a_code_is_right_or_wrong_whatever_the_body() {
        assert_eq!(outcome(&rule(""), "", SIZED), Ok(Answer::Normal));
        assert_eq!(outcome(&rule(""), "", "HTTP/1.1 204 No Content\r\n\r\n"), Ok(Answer::Normal));
        assert_eq!(outcome(&rule(""), "", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), Ok(Answer::Normal));
        let wrong = "HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\n";
        assert_eq!(outcome(&rule(""), "", wrong), Err(Cause::WrongCode(500)));
        assert_eq!(outcome(&rule("well"), "", wrong), Err(Cause::WrongCode(500)));
    }

    #[test]
    fn a_text_is_found_in_bodies_of_every_framing_and_missed_in_their_absence() {
        for answer in [SIZED, CHUNKED, UNTIL_CLOSED] {
            assert_eq!(outcome(&rule("is well"), "", answer), Ok(Answer::Normal), "{answer}");
            assert_eq!(outcome(&rule("is unwell"), "", answer), Err(Cause::TextMissing), "{answer}");
            assert_eq!(outcome(&rule("is well"), "tomorrow", answer), Ok(Answer::Normal), "{answer}");
        }
        let none = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(outcome(&rule("well"), "", none), Err(Cause::TextMissing));
        let head = Settings { method: "HEAD", ..rule("") };
        assert_eq!(outcome(&head, "", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Ok(Answer::Normal));
    }

    #[test]
    fn maintenance_is_told_by_a_code_or_by_a_text_under_any_code() {
        assert_eq!(outcome(&rule(""), "", "HTTP/1.1 503 Later\r\n\r\n"), Ok(Answer::Maintenance));
        for answer in [SIZED, CHUNKED, UNTIL_CLOSED] {
            assert_eq!(outcome(&rule(""), "is well", answer), Ok(Answer::Maintenance));
            let bad = answer.replace("200", "500");
            assert_eq!(outcome(&rule("all"), "is well", &bad), Ok(Answer::Maintenance));
            assert_eq!(outcome(&rule("all"), "was well", &bad), Err(Cause::WrongCode(500)));
        }
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(outcome(&rule("well"), "", &format!("{early}{SIZED}")), Ok(Answer::Normal));
        assert_eq!(outcome(&rule(""), "", early), Err(Cause::Closed));
        assert_eq!(outcome(&rule(""), "", "HTTP/1.1 101 Switching\r\n\r\n"), Err(Cause::WrongCode(101)));
    }

    #[test]
    fn what_is_no_http_is_told_so() {
        for answer in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhello",
        ] {
            assert_eq!(outcome(&rule("text"), "", answer), Err(Cause::NotHttp), "{answer}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_MAX));
        let mut talk = Talk::new(&Arc::new(rule("")), &Arc::default());
        assert_eq!(talk.on_data(endless.as_bytes()), Some(Err(Cause::NotHttp)));
        let mut talk = Talk::new(&Arc::new(rule("")), &Arc::default());
        let hints = "HTTP/1.1 103 Early\r\n\r\n".repeat(HEAD_MAX / 10);
        assert_eq!(talk.on_data(hints.as_bytes()), Some(Err(Cause::NotHttp)), "interim answers are bounded together");
    }

    #[test]
    fn a_connection_that_ends_before_the_answer_is_no_answer() {
        for answer in ["", "HTTP/1.1 200 OK\r\n", &SIZED[..SIZED.len() - 1], &CHUNKED[..CHUNKED.len() - 20]] {
            assert_eq!(outcome(&rule("unwell"), "", answer), Err(Cause::Closed), "{answer}");
        }
    }

    #[test]
    fn a_body_is_looked_at_up_to_a_bound() {
        let mut talk = Talk::new(&Arc::new(rule("text")), &Arc::default());
        assert_eq!(talk.on_data(b"HTTP/1.1 200 OK\r\n\r\n"), None);
        let mut taken = 0;
        let outcome = loop {
            taken += 1000;
            if let Some(outcome) = talk.on_data(&[b'y'; 1000]) {
                break outcome;
            }
        };
        assert_eq!((outcome, taken), (Err(Cause::TextMissing), BODY_MAX.next_multiple_of(1000)));
    }

    #[test]
    fn a_request_is_http_with_a_host() {
        let server = "[2001:db8::1]:8001".parse().unwrap();
        assert!(rule("").request(server).contains("\r\nHost: [2001:db8::1]:8001\r\n"));
        let text = Settings { host: Some("shop.example".into()), ..rule("") }.request(server);
        let mut fields = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut fields);
        assert_eq!(request.parse(text.as_bytes()), Ok(httparse::Status::Complete(text.len())));
        assert_eq!((request.method, request.path, request.version), (Some("GET"), Some("/health"), Some(1)));
        assert!(text.contains("\r\nHost: shop.example\r\n"));
    }
}
