//! Feeds `sealane trace` what a file may hold, or whoever answers at an admin address.
//!
//! What is read survives its bytes, every record has a line of its own, and its packet is no longer than its headers can be and no shorter than it says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sealane::tcp::trace::{Document, Kind, Show};
use sealane::wire::{Packet, Segment};

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = Document::parse(bytes) else { return };
    // Records have bits that mean nothing; what they mean is kept.
    let encoded = document.encode();
    assert_eq!(encoded.len(), bytes.len());
    assert_eq!(Document::parse(&encoded).as_ref(), Ok(&document));
    for lane in &document.lanes {
        let mut show = Show::new(document.epoch, lane.lane);
        for record in &lane.reading.records {
            let line = show.line(record);
            assert!(!line.contains('\n'), "{line}");
            // None of an event, and of what no packet has room for.
            let Some(headers) = record.headers() else { continue };
            assert!(matches!(record.kind, Kind::Received | Kind::Sent(_)));
            assert!(headers.bytes.len() >= 40 && headers.bytes.len() <= 100);
            assert_eq!(headers.original, headers.bytes.len() + usize::try_from(record.len).expect("it has 24 bits"));
            // Addresses and ports that no host has are shown, and parsed by nobody.
            if record.len == 0
                && let Ok(packet) = Packet::parse(&headers.bytes, false)
                && let Ok((_, segment)) = Segment::parse(&packet, false)
            {
                assert_eq!((segment.seq, segment.ack, segment.window), (record.seq, record.ack, record.window));
            }
        }
    }
});
