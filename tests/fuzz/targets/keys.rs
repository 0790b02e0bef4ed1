//! Feeds arbitrary text to `control::keys::file::parse`.
//!
//! A ring that is read has one active key and within its bound, and is written to a file that reads the same. A refusal says why, and never
//! shows a secret.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sealane::control::keys::file::{parse, render};
use sealane::ticket::Ring;
use sealane::ticket::ring::{KEYS_MAX, State};

fuzz_target!(|text: &str| {
    match parse(Path::new("keys.ring"), text) {
        Ok(ring) => {
            assert!(ring.entries().len() <= KEYS_MAX);
            assert_eq!(ring.entries().iter().filter(|entry| entry.state == State::Active).count(), 1);
            let again = parse(Path::new("keys.ring"), &render(&ring)).expect("what is written can be read");
            assert_eq!(facts(&again), facts(&ring));
        }
        Err(error) => {
            assert!(!error.0.is_empty());
            let shown = error.to_string();
            for secret in secrets(text) {
                assert!(!shown.contains(secret), "a secret is shown");
            }
        }
    }
});

/// All that a ring holds, to compare.
fn facts(ring: &Ring) -> (u64, Vec<impl PartialEq + std::fmt::Debug + use<>>) {
    let entries = ring.entries().iter().map(|entry| {
        (entry.key.id(), *entry.key.secret(), entry.state, entry.created, entry.activated, entry.not_after)
    });
    (ring.version(), entries.collect())
}

/// What stands in quotes behind `secret =`, where it is long enough to be one and stands nowhere else.
fn secrets(text: &str) -> impl Iterator<Item = &str> {
    let values = text.lines().filter_map(|line| line.trim().strip_prefix("secret")?.trim_start().strip_prefix('='));
    let quoted = values.filter_map(|value| value.trim().strip_prefix('"')?.split('"').next());
    quoted.filter(move |secret| secret.len() >= 16 && text.matches(secret).count() == 1)
}
