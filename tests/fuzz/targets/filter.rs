//! Feeds a capture's filter what a person may write, and what it makes of it frames; and what a capture is read with a file in pieces.
//!
//! Words are understood or one of them is marked, and what is said of it has three lines. A filter says of every frame that it is wanted or not, its opposite
//! the opposite, and however a file is cut its blocks are the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sealane::lane::capture::Filter;
use sealane::lane::capture::filter::TEXT_MAX;
use sealane::lane::capture::headers::Headers;
use sealane::nic::pcapng::Reader;

fuzz_target!(|input: (&str, &[u8])| {
    let (text, frame) = input;
    let headers = Headers::of(frame);
    if let Some(payload) = headers.tcp_payload(frame) {
        assert!(frame.ends_with(payload));
    }
    match Filter::parse(text) {
        Ok(filter) => {
            let opposite = format!("not ({text})");
            if !text.trim().is_empty()
                && opposite.len() <= TEXT_MAX
                && let Ok(opposite) = Filter::parse(&opposite)
            {
                assert_ne!(filter.matches(&headers), opposite.matches(&headers));
            }
        }
        Err(wrong) => {
            assert!(text.get(wrong.place()).is_some(), "no place in the text");
            assert_eq!(wrong.to_string().lines().count(), 3);
        }
    }
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let done = Reader::default().on_data(frame, |block| whole.push(block));
    let mut reader = Reader::default();
    let mut last = Ok(());
    for piece in frame.chunks(3) {
        last = reader.on_data(piece, |block| pieces.push(block));
        if last.is_err() {
            break;
        }
    }
    assert_eq!((done, whole), (last, pieces));
});
