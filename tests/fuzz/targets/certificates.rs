//! Feeds the parsers of certificates arbitrary bytes and damaged ones: a client's CAs, revocation lists, and a service's own chain.
//!
//! What is accepted can be made into client certificates, and their policy hash says so whatever the mode.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rcgen::{BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair};
use sealane::tls::Versions;
use sealane::tls::certificate::Certificate;
use sealane::tls::clients::{Authorities, ClientCertificates, Mode};
use sealane::tls::revocation::RevocationLists;
use sealane::tls::service::policy_hash;

#[derive(Arbitrary, Debug)]
enum Input {
    /// Files as they are.
    Files(Vec<u8>, Vec<u8>),
    /// Files with right bytes but for these, each at a place in the CA's certificate and in the list.
    Damaged(Vec<(u16, u8)>, Vec<(u16, u8)>),
}

/// A CA's certificate and its revocation list, DER.
static RIGHT: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key can be generated");
    let mut params = CertificateParams::new(vec!["ca.example".to_owned()]).expect("it is a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("it can be signed");
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2099, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: (1..3_u64)
            .map(|serial| rcgen::RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: rcgen::date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&Issuer::new(params, key)).expect("it can be signed");
    (certificate.der().to_vec(), list.der().to_vec())
});

fuzz_target!(|input: Input| {
    let (authorities, lists) = match input {
        Input::Files(authorities, lists) => (authorities, lists),
        Input::Damaged(certificate, list) => {
            (damaged("CERTIFICATE", &RIGHT.0, &certificate), damaged("X509 CRL", &RIGHT.1, &list))
        }
    };
    let _ = Certificate::from_pem(&authorities, &lists);
    let lists = RevocationLists::from_pem(&lists);
    let Ok(authorities) = Authorities::from_pem(&authorities) else { return };
    let lists = lists.into_iter().collect::<Vec<_>>();
    let made = |mode| ClientCertificates::new(mode, &authorities, &lists);
    let (Ok(optional), Ok(required)) = (made(Mode::Optional), made(Mode::Required)) else { return };
    let hash = |certificates| policy_hash(Versions::Tls12And13, certificates);
    assert_ne!(hash(Some(&optional)), hash(Some(&required)));
    assert_ne!(hash(Some(&optional)), hash(None));
});

fn damaged(label: &str, der: &[u8], damage: &[(u16, u8)]) -> Vec<u8> {
    let mut der = der.to_vec();
    for (at, byte) in damage {
        let at = usize::from(*at) % der.len().max(1);
        der.iter_mut().skip(at).take(1).for_each(|there| *there = *byte);
    }
    let base64 = data_encoding::BASE64.encode(&der);
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n").into_bytes()
}
