//! Client certificates: who is taken, with which alert the others leave, and when a ticket stands for a certificate (lines S3 and H6).

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ClientConfig, Error, SupportedProtocolVersion};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::balance::ServerIndex;
use crate::base::{Duration, Random, ServiceId, UnixTime};
use crate::persistence::Reason;
use crate::ticket::credential::CERTIFICATES_MAX;
use crate::ticket::envelope::tests::sample;
use crate::ticket::{CertificateId, Credential, Envelope, seal};
use crate::tls::clients::{Authorities, CA_NAMES_MAX, Invalid, Mode};
use crate::tls::desk::Step;
use crate::tls::revocation::RevocationLists;
use crate::tls::service::{Settings, policy_hash};
use crate::tls::testing::{CLIENT, Engine, HOUR, Link, NAME, NOW, SHOP, TLS12, TLS13, client_of, ring, settings};
use crate::tls::{ClientCertificates, ClientFault, Failure, Service, Versions};

const BOTH: [&[&SupportedProtocolVersion]; 2] = [TLS12, TLS13];

/// One second later than `time`.
fn after(time: UnixTime) -> UnixTime {
    time + Duration::from_secs(1)
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((NOW + 1000 * HOUR).0);
    params
}

/// A CA of clients, or one below it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// What its clients send behind their own certificate.
    path: String,
}

impl Authority {
    fn params(name: &str) -> CertificateParams {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn root(name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, path: String::new() }
    }

    /// A CA whose certificate is this one's, with this serial number.
    fn below(&self, name: &str, serial: u64) -> Self {
        let (mut params, key) = (Self::params(name), KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        params.serial_number = Some(SerialNumber::from(serial));
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self { issuer: Issuer::new(params, key), path: format!("{pem}{}", self.path), pem }
    }

    fn client(&self, name: &str, serial: u64, alter: impl FnOnce(&mut CertificateParams)) -> Person {
        let (mut params, key) = (params(name), KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        alter(&mut params);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Person { chain: format!("{pem}{}", self.path), key: key.serialize_pem() }
    }

    /// A revocation list that names these serial numbers and holds for so long from now.
    fn list(&self, serials: &[u64], lasts: Duration) -> RevocationLists {
        RevocationLists::from_pem(self.list_pem(serials, lasts).as_bytes()).unwrap()
    }

    fn list_pem(&self, serials: &[u64], lasts: Duration) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((NOW + lasts).0),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn authorities(of: &[&Authority]) -> Authorities {
    let pem: String = of.iter().map(|authority| authority.pem.as_str()).collect();
    Authorities::from_pem(pem.as_bytes()).unwrap()
}

fn certificates(mode: Mode, of: &[&Authority], lists: &[RevocationLists]) -> Option<Arc<ClientCertificates>> {
    Some(Arc::new(ClientCertificates::new(mode, &authorities(of), lists).unwrap()))
}

/// What a client has to show.
struct Person {
    chain: String,
    key: String,
}

impl Person {
    /// A client that keeps its tickets from visit to visit, and shows this.
    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut config = client_of(versions, &[&SHOP]);
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let certified = CertifiedKey::from_der(chain, key, config.crypto_provider()).unwrap();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Arc::new(config)
    }
}

fn nobody(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    Arc::new(client_of(versions, &[&SHOP]))
}

fn settings_with(client_certificates: Option<Arc<ClientCertificates>>) -> Settings {
    let mut settings = Settings { client_certificates, ..settings() };
    settings.tickets.scope.policy = policy_hash(settings.versions, settings.client_certificates.as_deref());
    settings
}

fn engine(client_certificates: Option<Arc<ClientCertificates>>) -> Engine {
    Engine::new(settings_with(client_certificates), &ring(1), 1)
}

/// Asserts that a client's handshake fails so, and that the client is told.
fn assert_refused(engine: &mut Engine, client: &Arc<ClientConfig>, fault: ClientFault, alert: AlertDescription) {
    let link = engine.connect(client, NAME);
    assert!(link.handshake.is_none());
    assert_eq!(link.failure, Some(Failure::Client(fault)));
    assert_eq!(link.client_error, Some(Error::AlertReceived(alert)), "{fault:?}");
}

/// A first visit to server 0, after which any other client would get server 2.
fn first_visit(engine: &mut Engine, client: &Arc<ClientConfig>) {
    engine.next_is(ServerIndex(0));
    assert!(!engine.visit(client).resumed);
    engine.next_is(ServerIndex(2));
}

/// Asserts that a visit is a full handshake for this counter's reason, and that the mapping is forgotten.
fn assert_starts_afresh(engine: &mut Engine, client: &Arc<ClientConfig>, counter: &str) -> Link {
    let before = engine.count(counter);
    engine.next_is(ServerIndex(2));
    let link = engine.connect(client, NAME);
    assert!(engine.count(counter) > before, "{counter}");
    if let Some(handshake) = &link.handshake {
        assert!(!handshake.resumed && handshake.decision.reason == Reason::NoMapping, "{counter}");
    }
    link
}

#[test]
fn a_client_with_a_certificate_is_known_and_stays_so_when_it_resumes() {
    let authority = Authority::root("clients");
    let below = authority.below("below", 7);
    let alice = below.client("alice", 1, |params| {
        params.distinguished_name.push(DnType::OrganizationName, "Shop");
    });
    for mode in [Mode::Optional, Mode::Required] {
        for versions in BOTH {
            let (mut engine, client) = (engine(certificates(mode, &[&authority], &[])), alice.client(versions));
            engine.next_is(ServerIndex(0));
            let first = engine.visit(&client);
            let known = first.client.clone().unwrap();
            assert_eq!((&*known.subject, known.common_name.as_deref()), ("O=Shop,CN=alice", Some("alice")));
            engine.next_is(ServerIndex(2));
            for _ in 0..4 {
                let again = engine.visit(&client);
                assert_eq!((again.resumed, again.decision.server), (true, Some(ServerIndex(0))));
                assert_eq!(again.client.as_ref(), Some(&known));
            }
        }
    }
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_required_and_no_one_where_it_is_optional() {
    let authority = Authority::root("clients");
    for (versions, alert) in
        [(TLS13, AlertDescription::CertificateRequired), (TLS12, AlertDescription::HandshakeFailure)]
    {
        let mut required = engine(certificates(Mode::Required, &[&authority], &[]));
        assert_refused(&mut required, &nobody(versions), ClientFault::Missing, alert);
        let (mut optional, client) = (engine(certificates(Mode::Optional, &[&authority], &[])), nobody(versions));
        first_visit(&mut optional, &client);
        let again = optional.visit(&client);
        assert_eq!((again.resumed, again.client, again.decision.server), (true, None, Some(ServerIndex(0))));
    }
}

#[test]
fn a_certificate_that_is_wrong_is_refused_with_its_own_alert_also_where_it_is_optional() {
    use {AlertDescription as Alert, ClientFault as Fault};
    let (authority, foreign) = (Authority::root("clients"), Authority::root("others"));
    let at = |seconds: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let expired = authority.client("expired", 1, |params| params.not_after = at(NOW.0 - 1));
    let early = authority.client("early", 2, |params| params.not_before = at(NOW.0 + 1));
    let server =
        authority.client("server", 3, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let revoked = authority.client("revoked", 4, |_| {});
    let stranger = foreign.client("stranger", 5, |_| {});
    let lists = || [authority.list(&[4, 400], HOUR)];
    for mode in [Mode::Optional, Mode::Required] {
        for versions in BOTH {
            let mut engine = engine(certificates(mode, &[&authority], &lists()));
            for (person, fault, alert) in [
                (&expired, Fault::Expired, Alert::CertificateExpired),
                (&early, Fault::Expired, Alert::CertificateExpired),
                (&server, Fault::Invalid, Alert::UnsupportedCertificate),
                (&revoked, Fault::Revoked, Alert::CertificateRevoked),
                (&stranger, Fault::UnknownAuthority, Alert::UnknownCA),
            ] {
                assert_refused(&mut engine, &person.client(versions), fault, alert);
            }
            assert_eq!(engine.count("sealed"), 0);
        }
    }
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let authority = Authority::root("clients");
    let (mut alice, bob) = (authority.client("alice", 1, |_| {}), authority.client("bob", 2, |_| {}));
    alice.key.clone_from(&bob.key);
    for versions in BOTH {
        let mut config = client_of(versions, &[&SHOP]);
        let chain = CertificateDer::pem_slice_iter(alice.chain.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(alice.key.as_bytes()).unwrap();
        let key = config.crypto_provider().key_provider.load_private_key(key).unwrap();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        let mut engine = engine(certificates(Mode::Required, &[&authority], &[]));
        let alert = AlertDescription::DecryptError;
        assert_refused(&mut engine, &Arc::new(config), ClientFault::Invalid, alert);
    }
}

#[test]
fn where_there_are_lists_nobody_is_taken_whose_issuers_list_is_absent_ended_or_forged() {
    let (authority, other) = (Authority::root("clients"), Authority::root("others"));
    let below = authority.below("below", 7);
    // Of the same name, and with another key.
    let forger = Authority::root("clients");
    let (alice, carol) = (authority.client("alice", 1, |_| {}), below.client("carol", 3, |_| {}));
    for versions in BOTH {
        for lists in [other.list(&[], HOUR), authority.list(&[], Duration::ZERO), forger.list(&[], HOUR)] {
            let mut engine = engine(certificates(Mode::Required, &[&authority], &[lists]));
            let (fault, alert) = (ClientFault::RevocationUnknown, AlertDescription::UnknownCA);
            assert_refused(&mut engine, &alice.client(versions), fault, alert);
        }
        // The whole path counts: below has no list here.
        let mut engine = engine(certificates(Mode::Required, &[&authority], &[authority.list(&[], HOUR)]));
        assert!(engine.visit(&alice.client(versions)).client.is_some());
        assert_refused(
            &mut engine,
            &carol.client(versions),
            ClientFault::RevocationUnknown,
            AlertDescription::UnknownCA,
        );
    }
}

#[test]
fn h6_a_client_whose_certificate_has_expired_since_does_not_resume() {
    let authority = Authority::root("clients");
    let ends = NOW + 2 * HOUR;
    let end = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(ends.0);
    let alice = authority.client("alice", 1, |params| params.not_after = end);
    for versions in BOTH {
        let (mut engine, client) = (engine(certificates(Mode::Required, &[&authority], &[])), alice.client(versions));
        first_visit(&mut engine, &client);
        engine.desk.set_time(ends);
        assert!(engine.visit(&client).resumed, "in its last second it is still valid");
        engine.desk.set_time(after(ends));
        let link = assert_starts_afresh(&mut engine, &client, "refused_client_expired");
        assert_eq!(link.failure, Some(Failure::Client(ClientFault::Expired)));
    }
}

#[test]
fn h6_no_client_is_told_to_keep_a_ticket_longer_than_its_certificate_lasts() {
    let authority = Authority::root("clients");
    let end = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((NOW + 2 * HOUR).0);
    let alice = authority.client("alice", 1, |params| params.not_after = end);
    let client = alice.client(TLS12);
    let mut engine = engine(certificates(Mode::Required, &[&authority], &[]));
    first_visit(&mut engine, &client);
    engine.desk.set_time(NOW + HOUR);
    let mut link = Link::new(&engine, &client, NAME);
    link.carry_to_server(&mut engine);
    let mut answer = Vec::new();
    link.session.poll_transmit(|chunk| {
        answer.extend_from_slice(chunk);
        chunk.len()
    });
    // NewSessionTicket (RFC 5077 3.3) is in the clear in TLS 1.2: type 4, length, lifetime in seconds.
    let hint =
        answer.windows(8).find(|bytes| bytes[..2] == [4, 0] && bytes[4..6] == [0, 0]).expect("a ticket is issued");
    assert_eq!(u32::from_be_bytes(hint[4..].try_into().unwrap()), 3600);
}

#[test]
fn h6_a_new_list_stops_whom_it_names_and_nobody_else() {
    let authority = Authority::root("clients");
    let below = authority.below("below", 7);
    let people =
        [authority.client("alice", 1, |_| {}), authority.client("bob", 2, |_| {}), below.client("carol", 1, |_| {})];
    let lists = |of_root: &[u64]| [authority.list(of_root, HOUR), below.list(&[], HOUR)];
    for versions in BOTH {
        let ring = ring(1);
        let settings = |of_root: &[u64]| settings_with(certificates(Mode::Required, &[&authority], &lists(of_root)));
        let mut engine = Engine::new(settings(&[]), &ring, 1);
        let clients = people.each_ref().map(|person| person.client(versions));
        clients.iter().for_each(|client| first_visit(&mut engine, client));
        // Bob's serial number, and none of below's.
        engine = Engine::new(settings(&[2, 3]), &ring, 1);
        let [alice, bob, carol] = &clients;
        assert!(engine.visit(alice).resumed && engine.visit(carol).resumed);
        let link = assert_starts_afresh(&mut engine, bob, "refused_client_revoked");
        assert_eq!(link.failure, Some(Failure::Client(ClientFault::Revoked)));
        // A CA is revoked, and with it everybody whose path it is in.
        engine = Engine::new(settings(&[7]), &ring, 1);
        assert!(engine.visit(alice).resumed);
        let link = assert_starts_afresh(&mut engine, carol, "refused_client_revoked");
        assert_eq!(link.failure, Some(Failure::Client(ClientFault::Revoked)));
    }
}

#[test]
fn h6_a_ticket_from_before_there_were_lists_is_held_against_them() {
    let authority = Authority::root("clients");
    let (alice, bob) = (authority.client("alice", 1, |_| {}), authority.client("bob", 2, |_| {}));
    for versions in BOTH {
        let ring = ring(1);
        let mut engine = Engine::new(settings_with(certificates(Mode::Required, &[&authority], &[])), &ring, 1);
        let clients = [&alice, &bob].map(|person| person.client(versions));
        clients.iter().for_each(|client| first_visit(&mut engine, client));
        let lists = [authority.list(&[2], HOUR)];
        engine = Engine::new(settings_with(certificates(Mode::Required, &[&authority], &lists)), &ring, 1);
        assert!(engine.visit(&clients[0]).resumed);
        assert_starts_afresh(&mut engine, &clients[1], "refused_client_revoked");
        // Once the list has ended, a ticket says no more than a certificate.
        engine.desk.set_time(NOW + HOUR);
        let link = assert_starts_afresh(&mut engine, &clients[0], "refused_client_unknown");
        assert_eq!(link.failure, Some(Failure::Client(ClientFault::RevocationUnknown)));
    }
}

#[test]
fn cve_2025_23419_a_ticket_carried_to_a_service_that_requires_a_certificate_gets_a_full_handshake() {
    let (authority, other) = (Authority::root("clients"), Authority::root("others"));
    let alice = authority.client("alice", 1, |_| {});
    for versions in BOTH {
        for asked in [None, Some(Mode::Optional), Some(Mode::Required)] {
            // The same engine and another virtual service; then the same service, and a policy that has changed since.
            for service in [ServiceId(99), settings().tickets.scope.service] {
                let ring = ring(1);
                let asked = asked.and_then(|mode| certificates(mode, &[&authority], &[]));
                let mut from = Engine::new(settings_with(asked), &ring, 1);
                let mut required = settings_with(certificates(Mode::Required, &[&other], &[]));
                required.tickets.scope.service = service;
                let mut to = Engine::new(required, &ring, 1);
                let client = alice.client(versions);
                first_visit(&mut from, &client);
                let link = assert_starts_afresh(&mut to, &client, "refused_forged");
                assert_eq!(link.failure, Some(Failure::Client(ClientFault::UnknownAuthority)));
                assert_eq!((to.count("opened"), link.handshake), (0, None));
            }
        }
        // And without any certificate, for which the service that the client comes from has never asked.
        for service in [ServiceId(99), settings().tickets.scope.service] {
            let ring = ring(1);
            let mut from = Engine::new(settings_with(None), &ring, 1);
            let mut required = settings_with(certificates(Mode::Required, &[&authority], &[]));
            required.tickets.scope.service = service;
            let mut to = Engine::new(required, &ring, 1);
            let client = nobody(versions);
            first_visit(&mut from, &client);
            let link = assert_starts_afresh(&mut to, &client, "refused_forged");
            assert_eq!(link.failure, Some(Failure::Client(ClientFault::Missing)));
        }
    }
}

#[test]
fn s3_mode_and_cas_are_of_the_policy_and_neither_their_order_nor_lists() {
    let [one, two] = ["one", "two"].map(Authority::root);
    let hash = |mode, of: &[&Authority], lists: &[RevocationLists]| {
        policy_hash(Versions::Tls12And13, certificates(mode, of, lists).as_deref())
    };
    let both = hash(Mode::Required, &[&one, &two], &[]);
    assert_eq!(both, hash(Mode::Required, &[&two, &one, &two], &[]));
    assert_eq!(both, hash(Mode::Required, &[&one, &two], &[one.list(&[1], HOUR), two.list(&[], HOUR)]));
    let renewed = Authority::root("one");
    let all = [
        policy_hash(Versions::Tls12And13, None),
        both,
        hash(Mode::Optional, &[&one, &two], &[]),
        hash(Mode::Required, &[&one], &[]),
        hash(Mode::Required, &[&two], &[]),
        hash(Mode::Required, &[&renewed, &two], &[]),
        policy_hash(Versions::Tls13, certificates(Mode::Required, &[&one, &two], &[]).as_deref()),
    ];
    assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
}

#[test]
fn s5_a_chain_that_does_not_fit_into_a_ticket_is_served_without_one() {
    let authority = Authority::root("clients");
    let names =
        |count: usize| (0..count).map(|n| SanType::DnsName(format!("{n:0>60}.example").try_into().unwrap())).collect();
    let long = authority.client("long", 1, |params| params.subject_alt_names = names(240));
    let longest = authority.client("longest", 2, |params| params.subject_alt_names = names(200));
    for versions in BOTH {
        let mut engine = engine(certificates(Mode::Required, &[&authority], &[]));
        let client = long.client(versions);
        for _ in 0..2 {
            let visit = engine.visit(&client);
            assert!(!visit.resumed && visit.client.is_some());
        }
        assert_eq!(engine.count("sealed"), 0);
        assert!(engine.count("withheld_length") >= 2);
        let client = longest.client(versions);
        engine.visit(&client);
        assert!(engine.visit(&client).resumed, "what fits is kept");
    }
}

#[test]
fn s5_more_certificates_than_a_ticket_can_speak_of_are_served_without_one() {
    let authority = Authority::root("clients");
    let other = Authority::root("others");
    for versions in BOTH {
        for (count, resumes) in [(CERTIFICATES_MAX, true), (CERTIFICATES_MAX + 1, false)] {
            let mut alice = authority.client("alice", 1, |_| {});
            // None of the path, and sent all the same.
            alice.chain.extend(std::iter::repeat_n(other.pem.as_str(), count - 1));
            let mut engine = engine(certificates(Mode::Required, &[&authority], &[]));
            let client = alice.client(versions);
            assert!(engine.visit(&client).client.is_some());
            assert_eq!(engine.visit(&client).resumed, resumes, "{count} certificates");
            assert_eq!(engine.count("withheld_length") == 0, resumes);
        }
    }
}

#[test]
fn h6_a_ticket_that_lacks_what_its_service_requires_is_refused_by_itself() {
    // The policy hash lets no such ticket come this far. Were there ever one, it would not count.
    let authority = Authority::root("clients");
    let credential = Credential {
        not_after: NOW + HOUR,
        certificates: std::iter::once(CertificateId::new(b"issuer", &[1])).collect(),
    };
    let modes = [None, Some(Mode::Optional), Some(Mode::Required)];
    for (mode, bare_opens, filled_opens) in modes
        .into_iter()
        .zip([(true, false), (true, true), (false, true)])
        .map(|(mode, (bare, filled))| (mode, bare, filled))
    {
        let settings = settings_with(mode.and_then(|mode| certificates(mode, &[&authority], &[])));
        let keys = ring(1).for_service(&settings.tickets.scope);
        let mut engine = Engine::new(settings, &ring(1), 1);
        let ticketer = Arc::clone(&engine.service.config().ticketer);
        for (client, opens) in [(None, bare_opens), (Some(credential.clone()), filled_opens)] {
            let envelope = Envelope { issued: NOW, original_handshake: NOW, client, ..sample(50) };
            let ticket = seal(&keys, &envelope, &mut Random::from_seed(3)).unwrap();
            let before = engine.count("refused_client_mode");
            let opened = engine
                .desk
                .during(&mut Step::new(CLIENT), &mut None, &engine.backend, || ticketer.decrypt(&ticket).is_some());
            assert_eq!(opened, opens, "{mode:?}");
            assert_eq!(engine.count("refused_client_mode") == before, opens);
        }
    }
}

#[test]
fn a_tls12_client_without_extended_master_secret_is_refused_where_clients_have_certificates() {
    // RFC 7627 1: the triple handshake attack passes one client's certificate off as another's.
    let authority = Authority::root("clients");
    for (certificates, refused) in [(None, false), (certificates(Mode::Optional, &[&authority], &[]), true)] {
        let mut engine = engine(certificates);
        let mut link = Link::new(&engine, &nobody(TLS12), NAME);
        let mut hello = link.flight();
        let at = hello.windows(4).position(|bytes| bytes == [0, 23, 0, 0]).expect("rustls's client offers it");
        // An extension that nobody knows, in its place.
        hello[at] = 0xfa;
        link.give(&mut engine, &hello);
        assert_eq!(link.failure, refused.then_some(Failure::NothingInCommon));
    }
}

#[test]
fn what_cannot_be_a_ca_is_said_so() {
    let authority = Authority::root("clients");
    let alice = authority.client("alice", 1, |params| params.is_ca = IsCa::ExplicitNoCa);
    let invalid = |pem: &str| Authorities::from_pem(pem.as_bytes()).unwrap_err();
    assert_eq!(invalid(""), Invalid::NoAuthority);
    assert_eq!(invalid(&alice.chain), Invalid::NotAnAuthority("CN=alice".to_owned()));
    assert!(matches!(invalid("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), Invalid::Authority(_)));
    let many: Vec<_> = (10..80).map(|n| Authority::root(&format!("{n}{}", "x".repeat(300))).pem).collect();
    let first = CertificateDer::from_pem_slice(many[0].as_bytes()).unwrap();
    let name = X509Certificate::from_der(&first).unwrap().1.subject().as_raw().len();
    let most = CA_NAMES_MAX / (name + 2);
    assert!(Authorities::from_pem(many[..most].concat().as_bytes()).is_ok());
    assert_eq!(invalid(&many[..=most].concat()), Invalid::TooManyAuthorities);
}

#[test]
fn a_ca_without_a_list_among_others_with_one_is_named() {
    let [one, two] = ["one", "two"].map(Authority::root);
    let without = |lists: &[RevocationLists]| {
        let certificates = certificates(Mode::Required, &[&one, &two], lists).unwrap();
        certificates.without_list().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(without(&[]), [""; 0]);
    assert_eq!(without(&[one.list(&[], HOUR)]), ["CN=two"]);
    assert_eq!(without(&[one.list(&[], HOUR), two.list(&[], HOUR)]), [""; 0]);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, at in 0..2000_usize, byte: u8) {
        let authority = Authority::root("clients");
        let damaged = |text: &str| {
            let mut der = CertificateDer::from_pem_slice(text.as_bytes()).map_or(bytes.clone(), |der| der.to_vec());
            let at = at % der.len().max(1);
            der.iter_mut().skip(at).take(1).for_each(|there| *there = byte);
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", data_encoding::BASE64.encode(&der))
        };
        let _ = Authorities::from_pem(damaged(&authority.pem).as_bytes())
            .and_then(|authorities| ClientCertificates::new(Mode::Required, &authorities, &[]));
        let _ = RevocationLists::from_pem(&bytes);
        let list = authority.list_pem(&[1, 2], HOUR);
        let mut der = data_encoding::BASE64
            .decode(list.lines().filter(|line| !line.starts_with('-')).collect::<String>().trim().as_bytes())
            .unwrap();
        let at = at % der.len();
        der[at] = byte;
        let pem = format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", data_encoding::BASE64.encode(&der));
        if let Ok(lists) = RevocationLists::from_pem(pem.as_bytes()) {
            let _ = ClientCertificates::new(Mode::Required, &authorities(&[&authority]), &[lists]);
        }
    }
}

#[test]
fn a_service_with_client_certificates_can_be_made_of_any_versions() {
    let authority = Authority::root("clients");
    for versions in [Versions::Tls13, Versions::Tls12And13] {
        let settings = Settings { versions, ..settings_with(certificates(Mode::Required, &[&authority], &[])) };
        assert!(Service::new(settings).is_ok());
    }
}
