//! Feeds arbitrary bytes to the heads of HTTP/1.1 that `sealane load` reads, from proxies and from those who stand in for them.
//!
//! A head lies within the bytes, is no longer than one may be and a bit, is the same whatever follows it, and is not complete one byte earlier.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sealane::load::http::{HEAD_MAX, Malformed, read_answer, read_request};

fuzz_target!(|bytes: &[u8]| {
    check(bytes, |bytes| read_request(bytes).map(|read| read.map(|read| (read.head, read))));
    check(bytes, |bytes| read_answer(bytes).map(|read| read.map(|read| (read.head, read))));
});

fn check<T: PartialEq + std::fmt::Debug>(bytes: &[u8], read: impl Fn(&[u8]) -> Result<Option<(usize, T)>, Malformed>) {
    match read(bytes) {
        Ok(Some((head, whole))) => {
            let alone = bytes.get(..head).expect("a head lies within the bytes");
            assert_eq!(read(alone), Ok(Some((head, whole))), "what follows a head changes it");
            assert!(!matches!(read(&alone[..head - 1]), Ok(Some(_))), "a head is complete before its end");
        }
        Ok(None) => assert!(bytes.len() < HEAD_MAX, "a head without end is waited for"),
        Err(Malformed) => {}
    }
}
