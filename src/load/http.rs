//! The HTTP/1.1 that clients and servers of a load speak (RFC 9112): a head and a body of a known length, each way.

/// The longest head that is read. Proxies add a few lines.
pub const HEAD_MAX: usize = 4096;

/// Most fields of one.
const FIELDS_MAX: usize = 32;

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A request, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the head.
    pub head: usize,
    /// Bytes that follow it.
    pub body: u64,
    /// Bytes that it asks for.
    pub answer: u64,
    /// Whether the connection ends with the answer.
    pub closes: bool,
}

/// An answer's head, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes of the head.
    pub head: usize,
    /// Bytes that follow it.
    pub body: u64,
    /// Its status.
    pub status: u16,
    /// Whether the connection ends with it.
    pub closes: bool,
}

/// A request for `answer` bytes that brings `body` bytes.
pub fn request(host: &str, answer: u64, body: u64, closes: bool) -> String {
    let close = if closes { "Connection: close\r\n" } else { "" };
    if body == 0 {
        format!("GET /{answer} HTTP/1.1\r\nHost: {host}\r\n{close}\r\n")
    } else {
        format!("POST /{answer} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {body}\r\n{close}\r\n")
    }
}

/// The head of an answer with so many bytes.
pub fn answer(body: u64, closes: bool) -> String {
    let close = if closes { "Connection: close\r\n" } else { "" };
    format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n{close}\r\n")
}

/// Reads a request; `None` while it is not complete.
///
/// # Errors
/// [`Malformed`] when it cannot become one.
pub fn read_request(bytes: &[u8]) -> Result<Option<Request>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(bytes).map_err(|_| Malformed)? else { return whole(bytes) };
    let answer = request.path.and_then(|path| path.strip_prefix('/')).and_then(|path| path.parse().ok());
    let fields = Fields::read(request.headers)?;
    // HTTP/1.0, which nginx speaks to servers unless told otherwise, closes.
    let closes = fields.closes || request.version == Some(0);
    Ok(Some(Request { head, body: fields.body.unwrap_or(0), answer: answer.unwrap_or(0), closes }))
}

/// Reads an answer's head; `None` while it is not complete.
///
/// # Errors
/// [`Malformed`] when it cannot become one.
pub fn read_answer(bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = answer.parse(bytes).map_err(|_| Malformed)? else { return whole(bytes) };
    let fields = Fields::read(answer.headers)?;
    let status = answer.code.ok_or(Malformed)?;
    let body = fields.body.ok_or(Malformed)?;
    Ok(Some(Answer { head, body, status, closes: fields.closes }))
}

/// A head that is not complete may become so, unless it is too long.
fn whole<T>(bytes: &[u8]) -> Result<Option<T>, Malformed> {
    if bytes.len() < HEAD_MAX { Ok(None) } else { Err(Malformed) }
}

/// What a head's fields say that matters here.
#[derive(Default)]
struct Fields {
    body: Option<u64>,
    closes: bool,
}

impl Fields {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for field in fields {
            let value = std::str::from_utf8(field.value).map_err(|_| Malformed)?.trim();
            if field.name.eq_ignore_ascii_case("content-length") {
                read.body = Some(value.parse().map_err(|_| Malformed)?);
            } else if field.name.eq_ignore_ascii_case("connection") {
                read.closes = value.eq_ignore_ascii_case("close");
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_it_brings_and_what_it_wants() {
        let text = request("shop.example", 7, 9, true);
        let read = Request { head: text.len(), body: 9, answer: 7, closes: true };
        assert_eq!(read_request(text.as_bytes()), Ok(Some(read)));
        assert_eq!(read_request(&text.as_bytes()[..text.len() - 1]), Ok(None));
        let text = request("shop.example", 7, 0, false);
        assert_eq!(
            read_request(text.as_bytes()),
            Ok(Some(Request { head: text.len(), body: 0, answer: 7, closes: false }))
        );
    }

    #[test]
    fn a_proxy_may_write_fields_as_it_likes() {
        let text = "HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length:  12 \r\nCONNECTION: Close\r\n\r\n";
        let read = Answer { head: text.len(), body: 12, status: 200, closes: true };
        assert_eq!(read_answer(text.as_bytes()), Ok(Some(read)));
        assert_eq!(
            read_request(b"GET /3 HTTP/1.0\r\n\r\n"),
            Ok(Some(Request { head: 19, body: 0, answer: 3, closes: true }))
        );
    }

    #[test]
    fn an_answer_reads_as_it_was_written() {
        let text = answer(5, false);
        let read = Answer { head: text.len(), body: 5, status: 200, closes: false };
        assert_eq!(read_answer(text.as_bytes()), Ok(Some(read)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_the_readers(bytes in proptest::collection::vec(0_u8.., 0..200), status in 0_u16.., len in 0_u64..) {
            let real = format!("HTTP/1.1 {status} OK\r\nContent-Length: {len}\r\n\r\n").into_bytes();
            for bytes in [&bytes, &[real, bytes.clone()].concat(), &[b"GET /1 HTTP/1.1\r\n", &bytes[..]].concat()] {
                if let Ok(Some(request)) = read_request(bytes) {
                    proptest::prop_assert!(request.head <= bytes.len());
                }
                if let Ok(Some(answer)) = read_answer(bytes) {
                    proptest::prop_assert!(answer.head <= bytes.len());
                }
            }
        }
    }

    #[test]
    fn a_head_without_length_or_end_is_refused() {
        assert_eq!(read_answer(b"HTTP/1.1 200 OK\r\n\r\n"), Err(Malformed));
        assert_eq!(read_answer(b"SSH-2.0\r\n\r\n"), Err(Malformed));
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_MAX));
        assert_eq!(read_answer(endless.as_bytes()), Err(Malformed));
    }
}
