//! The processor's instructions for TLS, and how fast what an engine does with them is here.

use std::hint::black_box;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::SignatureScheme;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Finding, Host};
use crate::base::Duration;
use crate::control::clock;
use crate::tls::provider::provider;

const ABOUT: &str = "crypto";

/// How long one thing is measured.
const MEASURED: Duration = Duration::from_millis(200);

/// As many bytes as a record has at most (RFC 8446 5.1).
const RECORD: usize = 16_384;

/// Below so many bytes a second AES is not the processor's own.
const SLOW: f64 = 500e6;

/// What the processor says that it has.
pub(super) fn instructions(host: &Host) -> Vec<Finding> {
    let info = host.read("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| info.lines().find_map(|line| Some(line.strip_prefix(name)?.split_once(':')?.1.trim()));
    let flags: Vec<_> = field("flags").unwrap_or_default().split(' ').collect();
    let has = |flag| flags.contains(&flag);
    let model = field("model name").unwrap_or("a processor without a name");
    let missing: Vec<_> = ["aes", "pclmulqdq", "avx2", "bmi2", "adx"].into_iter().filter(|flag| !has(flag)).collect();
    if !missing.is_empty() {
        let what = format!(
            "{model} has no {}: what is done in hardware elsewhere takes several times as long",
            missing.join(", ")
        );
        return vec![Finding::weak(
            ABOUT,
            what,
            "in a virtual machine: give it the host's processor (`-cpu host`, `<cpu mode='host-passthrough'/>`)",
        )];
    }
    let more: Vec<_> =
        ["vaes", "vpclmulqdq", "avx512f", "avx512ifma", "sha_ni"].into_iter().filter(|flag| has(flag)).collect();
    vec![Finding::good(
        ABOUT,
        format!(
            "{model}: AES and multiplication in hardware{}{}",
            if more.is_empty() { "" } else { ", and " },
            more.join(", ")
        ),
    )]
}

/// Measures on the core that this runs on. Another program on the same core makes it less.
pub(super) fn measure() -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, algorithm) in
        [("AES-128-GCM", &AES_128_GCM), ("AES-256-GCM", &AES_256_GCM), ("ChaCha20-Poly1305", &CHACHA20_POLY1305)]
    {
        let Some(rate) = sealed(algorithm) else { continue };
        let what = format!("{name}: {:.2} GB/s in records of 16 KiB", rate / 1e9);
        findings.push(if rate < SLOW && algorithm != &CHACHA20_POLY1305 {
            Finding::weak(
                ABOUT,
                what,
                "see the instructions above; virtual_service.ciphers may prefer TLS13_CHACHA20_POLY1305_SHA256 here",
            )
        } else {
            Finding::good(ABOUT, what)
        });
    }
    for group in provider().kx_groups {
        let rate = per_second(|| group.start().is_ok());
        findings.extend(rate.map(|rate| Finding::good(ABOUT, format!("{:?}: {rate:.0} key shares/s", group.name()))));
    }
    findings.extend(signatures("ECDSA P-256", generated(), SignatureScheme::ECDSA_NISTP256_SHA256));
    findings
}

/// Bytes a second that are sealed.
fn sealed(algorithm: &'static Algorithm) -> Option<f64> {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, black_box(&vec![7; algorithm.key_len()])).ok()?);
    let mut record = vec![0; RECORD];
    let rate = per_second(|| {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        key.seal_in_place_separate_tag(nonce, Aad::empty(), black_box(&mut record)).is_ok()
    })?;
    Some(rate * f64::from(u32::try_from(RECORD).unwrap_or(u32::MAX)))
}

fn generated() -> Option<PrivateKeyDer<'static>> {
    let random = ring::rand::SystemRandom::new();
    let pkcs8 =
        ring::signature::EcdsaKeyPair::generate_pkcs8(&ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .ok()?;
    Some(PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec())))
}

fn signatures(name: &str, key: Option<PrivateKeyDer<'static>>, scheme: SignatureScheme) -> Option<Finding> {
    let key = provider().key_provider.load_private_key(key?).ok()?;
    let signer = key.choose_scheme(&[scheme])?;
    let rate = per_second(|| signer.sign(black_box(&[0; 64])).is_ok())?;
    Some(Finding::good(ABOUT, format!("{name}: {rate:.0} signatures/s, one a full handshake with such a certificate")))
}

/// How often `work` can be done in a second; `None` when it fails.
fn per_second(mut work: impl FnMut() -> bool) -> Option<f64> {
    // The first time fills caches and tables.
    if !work() {
        return None;
    }
    let began = clock::now();
    let mut done = 0_u32;
    loop {
        for _ in 0..16 {
            if !work() {
                return None;
            }
        }
        done += 16;
        let took = clock::now().since(began);
        if took >= MEASURED {
            return Some(f64::from(done) / took.as_secs_f64());
        }
    }
}
