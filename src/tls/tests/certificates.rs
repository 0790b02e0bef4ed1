//! Certificates: which one a client is shown, and which ones are refused.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, KeyUsagePurpose};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::{AlertDescription, ClientConfig, SignatureScheme};

use crate::tls::Failure;
use crate::tls::certificate::{Certificate, Invalid};
use crate::tls::service::Settings;
use crate::tls::testing::{Engine, Identity, Link, NAME, SHOP, TLS12, TLS13, client, client_of, ring, settings};

fn engine(identities: &[&Identity], strict_sni: bool) -> Engine {
    let certificates = identities.iter().map(|identity| identity.certificate()).collect();
    Engine::new(Settings { certificates, strict_sni, ..settings() }, &ring(1), 1)
}

/// What a client that asks for `name` and trusts all `identities` is shown: an index into them.
fn shown(engine: &mut Engine, client: &Arc<ClientConfig>, name: &str, identities: &[&Identity]) -> Option<usize> {
    let link = engine.connect(client, name);
    let leaf = link.client.peer_certificates()?.first()?.clone();
    identities.iter().position(|identity| identity.der == leaf)
}

#[test]
fn the_server_name_chooses_exact_before_wildcard_before_default() {
    let identities = [
        &Identity::ecdsa(&["first.example"]),
        &Identity::ecdsa(&["*.shop.example"]),
        &Identity::ecdsa(&["a.shop.example"]),
    ];
    for versions in [TLS12, TLS13] {
        let client = Arc::new(client_of(versions, &identities));
        let mut engine = engine(&identities, false);
        let mut shown = |name| shown(&mut engine, &client, name, &identities);
        assert_eq!(shown("a.shop.example"), Some(2));
        assert_eq!(shown("A.Shop.Example"), Some(2));
        assert_eq!(shown("b.shop.example"), Some(1));
        assert_eq!(shown("first.example"), Some(0));
    }
}

#[test]
fn a_wildcard_stands_for_one_label() {
    let identities = [&Identity::ecdsa(&["*.shop.example"])];
    let mut engine = engine(&identities, true);
    let client = Arc::new(client_of(TLS13, &identities));
    for name in ["shop.example", "a.b.shop.example"] {
        assert_eq!(engine.connect(&client, name).failure, Some(Failure::UnknownServerName), "{name}");
    }
    assert_eq!(engine.connect(&client, "b.shop.example").failure, None);
}

#[test]
fn an_unknown_name_is_refused_where_that_is_strict() {
    for versions in [TLS12, TLS13] {
        let mut engine = engine(&[&SHOP], true);
        let link = engine.connect(&client(versions), "other.example");
        assert_eq!(link.failure, Some(Failure::UnknownServerName));
        assert_eq!(link.client_error, Some(rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)));
        // Clients that name no server are not covered either. rustls's client names none for an address.
        assert_eq!(engine.connect(&client(versions), "198.18.0.1").failure, Some(Failure::UnknownServerName));
        assert_eq!(engine.count("server_names_unknown"), 2);
        assert_eq!(engine.connect(&client(versions), NAME).failure, None);
    }
}

#[test]
fn the_name_that_was_asked_for_is_known_however_the_handshake_ends() {
    for versions in [TLS12, TLS13] {
        let client_of_all = client(versions);
        let cannot_verify = verifying_only(versions, &[SignatureScheme::RSA_PSS_SHA256], &[&SHOP]);
        let stranger = Arc::new(client_of(versions, &[&Identity::ecdsa(&[NAME])]));
        for (client, name, strict, failure) in [
            (&client_of_all, NAME, false, None),
            (&client_of_all, "other.example", true, Some(Failure::UnknownServerName)),
            (&cannot_verify, NAME, false, Some(Failure::NothingInCommon)),
            (&stranger, NAME, false, Some(Failure::AlertReceived)),
        ] {
            let mut engine = engine(&[&SHOP], strict);
            assert_eq!(Link::new(&engine, client, name).session.server_name(), None, "nothing has come yet");
            let link = engine.connect(client, name);
            assert_eq!(link.failure, failure);
            let known = link.handshake.as_ref().map_or(link.session.server_name(), |it| it.server_name.as_deref());
            assert_eq!(known, Some(name), "{failure:?}");
        }
    }
}

#[test]
fn an_unknown_name_is_shown_the_default_where_it_is_not_strict() {
    for versions in [TLS12, TLS13] {
        let mut engine = engine(&[&SHOP], false);
        let link = engine.connect(&client(versions), "other.example");
        // It is the client that ends it.
        assert!(matches!(link.client_error, Some(rustls::Error::InvalidCertificate(_))));
        assert_eq!(link.failure, Some(Failure::AlertReceived));
        assert_eq!(engine.count("server_names_unknown"), 1);
        engine.connect(&client(versions), "198.18.0.1");
        assert_eq!(engine.count("server_names_unknown"), 1, "no name is not an unknown one");
    }
}

/// A client that verifies signatures of `schemes` only.
fn verifying_only(
    versions: &[&'static rustls::SupportedProtocolVersion],
    schemes: &[SignatureScheme],
    roots: &[&Identity],
) -> Arc<ClientConfig> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let known = provider.signature_verification_algorithms;
    let mapping: Vec<_> = known.mapping.iter().copied().filter(|(scheme, _)| schemes.contains(scheme)).collect();
    provider.signature_verification_algorithms =
        rustls::crypto::WebPkiSupportedAlgorithms { all: known.all, mapping: Vec::leak(mapping) };
    let verifier = {
        let mut store = rustls::RootCertStore::empty();
        roots.iter().for_each(|root| store.add(root.der.clone()).unwrap());
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::new(provider.clone()))
            .build()
            .unwrap()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.time_provider = Arc::clone(&client_of(versions, &[]).time_provider);
    Arc::new(config)
}

#[test]
fn of_two_certificates_for_a_name_the_client_gets_the_one_that_it_can_verify() {
    let identities = [&Identity::rsa(&[NAME]), &Identity::ecdsa(&[NAME])];
    for versions in [TLS12, TLS13] {
        let mut engine = engine(&identities, false);
        let rsa = verifying_only(versions, &[SignatureScheme::RSA_PSS_SHA256], &identities);
        assert_eq!(shown(&mut engine, &rsa, NAME, &identities), Some(0));
        let ecdsa = verifying_only(versions, &[SignatureScheme::ECDSA_NISTP256_SHA256], &identities);
        assert_eq!(shown(&mut engine, &ecdsa, NAME, &identities), Some(1));
        let both = Arc::new(client_of(versions, &identities));
        assert_eq!(shown(&mut engine, &both, NAME, &identities), Some(1), "ECDSA costs less");
    }
}

#[test]
fn the_default_is_chosen_by_what_the_client_can_verify_too() {
    let identities = [&Identity::ecdsa(&["198.18.0.1", NAME]), &Identity::rsa(&["198.18.0.1", NAME])];
    let mut engine = engine(&identities, false);
    let rsa = verifying_only(TLS13, &[SignatureScheme::RSA_PSS_SHA256], &identities);
    assert_eq!(shown(&mut engine, &rsa, "198.18.0.1", &identities), Some(1));
}

#[test]
fn a_client_that_can_verify_no_certificate_has_nothing_in_common() {
    for versions in [TLS12, TLS13] {
        // The service's key is of P-256.
        for scheme in [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384] {
            let mut engine = engine(&[&SHOP], false);
            let other = verifying_only(versions, &[scheme], &[&SHOP]);
            let link = engine.connect(&other, NAME);
            assert_eq!(link.failure, Some(Failure::NothingInCommon), "{scheme:?}");
            let alert = rustls::Error::AlertReceived(AlertDescription::HandshakeFailure);
            assert_eq!(link.client_error, Some(alert), "{scheme:?}");
        }
    }
}

#[test]
fn a_certificate_says_its_names_and_its_end() {
    let mut params =
        CertificateParams::new(vec!["Shop.Example".to_owned(), "2001:db8::1".to_owned(), "198.18.0.1".to_owned()])
            .unwrap();
    params.not_after = rcgen::date_time_ymd(2030, 1, 2);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let certificate = Certificate::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    assert_eq!(certificate.names(), ["shop.example", "2001:db8::1", "198.18.0.1"]);
    assert_eq!(certificate.not_after().0, 1_893_542_400);
    assert!(!format!("{certificate:?}").contains("key"));
}

#[test]
fn a_certificate_without_alternative_names_goes_by_its_common_name() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Old.Example");
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    assert_eq!(Certificate::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap().names(), ["old.example"]);
}

#[test]
fn what_is_wrong_with_a_certificate_or_its_key_is_said() {
    let (one, two) = (Identity::ecdsa(&[NAME]), Identity::ecdsa(&[NAME]));
    let read =
        |chain: &str, key: &str| Certificate::from_pem(chain.as_bytes(), key.as_bytes()).map(|_| ()).unwrap_err();
    assert!(matches!(read(&one.chain, &two.key), Invalid::Mismatch));
    assert!(matches!(read(&one.chain, &Identity::rsa(&[NAME]).key), Invalid::Mismatch));
    assert!(matches!(read("", &one.key), Invalid::NoCertificate));
    assert!(matches!(read(&one.key, &one.key), Invalid::NoCertificate));
    assert!(matches!(read(&one.chain, ""), Invalid::NoKey));
    assert!(matches!(read(&one.chain, &one.chain), Invalid::NoKey));
    assert!(matches!(
        read("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &one.key),
        Invalid::Certificate(_)
    ));
    assert!(matches!(
        read("-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n", &one.key),
        Invalid::Certificate(_)
    ));
    assert!(matches!(
        read(&one.chain, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        Invalid::Key(_)
    ));
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let key = KeyPair::generate().unwrap();
    assert!(matches!(read(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem()), Invalid::KeyUsage));
}

#[test]
fn every_pem_form_of_a_key_is_read() {
    // PKCS#8, which all other tests use, wraps a SEC 1 (RFC 5915) or PKCS#1 (RFC 8017) key, which older tools write.
    for (identity, label) in [(Identity::ecdsa(&[NAME]), "EC"), (Identity::rsa(&[NAME]), "RSA")] {
        let wrapped = rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let (_, sequence) = x509_parser::der_parser::parse_der(wrapped.secret_pkcs8_der()).unwrap();
        let inner = sequence.as_sequence().unwrap()[2].as_slice().unwrap();
        let pem = format!("-----BEGIN {label} PRIVATE KEY-----\n{}-----END {label} PRIVATE KEY-----\n", base64(inner));
        Certificate::from_pem(identity.chain.as_bytes(), pem.as_bytes()).unwrap();
    }
}

/// RFC 4648 4, in lines of 64.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for line in bytes.chunks(48) {
        for group in line.chunks(3) {
            let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
            for at in 0..4 {
                let index = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap();
                text.push(if at > group.len() { '=' } else { char::from(ALPHABET[index]) });
            }
        }
        text.push('\n');
    }
    text
}
