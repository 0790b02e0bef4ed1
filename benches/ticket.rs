//! What a ticket costs: our seal and open beside rustls's own ticketer (aws-lc-rs: AES-256-CBC with HMAC-SHA256), both with a 145-byte session.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sealane::base::{EngineId, Generation, PoolId, Random, ServerId, ServiceId, UnixTime};
use sealane::ticket::{Envelope, Mapping, Ring, Scope, TlsVersion, open, seal};
use zeroize::Zeroizing;

/// What rustls's ticket for a TLS 1.3 session without client certificate comes to.
const SESSION_SIZE: usize = 145;

fn envelope() -> Envelope {
    Envelope {
        version: TlsVersion::Tls13,
        mapping: Some(Mapping {
            pool: PoolId(1),
            server: ServerId(2),
            generation: Generation(0),
            assigned: UnixTime(1_700_000_000),
        }),
        original_handshake: UnixTime(1_700_000_000),
        issued: UnixTime(1_700_000_000),
        issuer: EngineId(3),
        client: None,
        session: Zeroizing::new(vec![0x5a; SESSION_SIZE]),
    }
}

fn tickets(criterion: &mut Criterion) {
    let mut random = Random::from_os().expect("the system has randomness");
    let ring = Ring::generate(UnixTime(1_700_000_000), &mut random);
    let scope = Scope { cluster: [1; 32], service: ServiceId(2), policy: [3; 32] };
    let keys = ring.for_service(&scope);
    let envelope = envelope();
    let ticket = seal(&keys, &envelope, &mut random).expect("the ring seals");
    let mut group = criterion.benchmark_group("ticket");
    group.bench_function("sealane seal", |bencher| bencher.iter(|| seal(&keys, black_box(&envelope), &mut random)));
    group.bench_function("sealane open", |bencher| bencher.iter(|| open(&keys, black_box(&ticket))));
    group.bench_function("sealane seal and open", |bencher| {
        bencher.iter(|| {
            let ticket = seal(&keys, black_box(&envelope), &mut random).expect("the ring seals");
            open(&keys, black_box(&ticket)).expect("it opens")
        });
    });
    let mut forged = ticket.clone();
    forged.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1);
    group.bench_function("sealane refuse a forged one", |bencher| bencher.iter(|| open(&keys, black_box(&forged))));
    group.bench_function("sealane derive a service's key", |bencher| {
        bencher.iter(|| ring.for_service(black_box(&scope)))
    });

    let theirs = rustls::crypto::aws_lc_rs::Ticketer::new().expect("a ticketer");
    let session = vec![0x5a; SESSION_SIZE];
    group.bench_function("rustls seal and open", |bencher| {
        bencher.iter(|| {
            let ticket = theirs.encrypt(black_box(&session)).expect("it seals");
            theirs.decrypt(black_box(&ticket)).expect("it opens")
        });
    });
    group.finish();
}

criterion_group!(benches, tickets);
criterion_main!(benches);
