//! Feeds `sealane ticket inspect` what a user may give it: sessions of `openssl s_client -sess_out` as PEM and DER, tickets in hexadecimal,
//! base64 and raw; and the page of metrics that an engine, or whoever is at its address, answers with.
//!
//! A ticket that is found is no longer than the input, DER means the same inside PEM, and what is shown never holds the session's secret.

#![no_main]

use std::fmt::Write as _;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sealane::base::ServiceId;
use sealane::control::explain;
use sealane::control::keys::Names;
use sealane::control::keys::inspect::{NoTicket, inspect, ticket_in};
use sealane::ticket::seal::key_id;
use sealane::ticket::{Ring, Scope};
use sealane_fuzz::{SCOPE, ring};

static RING: LazyLock<Ring> = LazyLock::new(ring);

fuzz_target!(|input: &[u8]| {
    let page = String::from_utf8_lossy(input);
    assert!(explain::read(&page).len() <= page.lines().count());
    let found = ticket_in(input);
    if let Ok(ticket) = &found {
        assert!(ticket.len() <= input.len());
        let scopes = [("other".to_owned(), Scope { service: ServiceId(9), ..SCOPE }), ("shop".to_owned(), SCOPE)];
        let inspection = inspect(&RING, &scopes, ticket);
        let shown = inspection.shown(&RING, &Names::default(), false).to_string();
        assert!(shown.lines().count() >= 2 && shown.is_ascii());
        if let Ok((_, envelope)) = &inspection.outcome {
            let secret = String::from_utf8_lossy(&envelope.session);
            assert!(secret.len() < 16 || !shown.contains(&*secret), "the session is shown");
        }
    }
    if input.is_empty() || input.starts_with(b"-----") {
        return;
    }
    let in_pem = ticket_in(pem(input).as_bytes());
    match (&in_pem, found) {
        // What is no session may still be a ticket by itself, but not within PEM.
        (Err(NoTicket::NotASession), _) => {}
        (Err(NoTicket::SessionWithoutTicket), found) => assert_eq!(found, Err(NoTicket::SessionWithoutTicket)),
        (Err(error), _) => panic!("a session in PEM is taken for something else: {error}"),
        (Ok(ticket), found) => {
            assert_eq!(found.as_ref(), Ok(ticket));
            let _ = key_id(ticket);
        }
    }
});

fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = "-----BEGIN SSL SESSION PARAMETERS-----\n".to_owned();
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
            for place in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= group.len() { digit.into() } else { '=' });
            }
        }
        text.push('\n');
    }
    let _ = writeln!(text, "-----END SSL SESSION PARAMETERS-----");
    text
}
