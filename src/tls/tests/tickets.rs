//! Lines H and S of the specification, as a client meets them.

use std::sync::Arc;

use crate::balance::{Health, ServerIndex, Slot};
use crate::base::{Duration, EngineId, Random, ServiceId};
use crate::persistence::{Reason, SelectNewServer};
use crate::ticket::{Key, Ring, Schedule, TICKET_MAX, TlsVersion};
use crate::tls::desk::Step;
use crate::tls::service::{Settings, policy_hash};
use crate::tls::testing::{
    CLIENT, Engine, HOUR, Identity, Link, NAME, NOW, SHOP, TLS12, TLS13, client, client_of, profile, ring, settings,
};
use crate::tls::{Service, Versions};

const BOTH: [&[&rustls::SupportedProtocolVersion]; 2] = [TLS12, TLS13];

fn engine() -> Engine {
    Engine::new(settings(), &ring(1), 1)
}

/// A first visit to server 0, after which any other client would get server 2.
fn first_visit(engine: &mut Engine, client: &Arc<rustls::ClientConfig>) {
    engine.next_is(ServerIndex(0));
    let first = engine.visit(client);
    assert!(!first.resumed);
    assert_eq!((first.decision.server, first.decision.reason), (Some(ServerIndex(0)), Reason::NoMapping));
    assert_eq!((first.wanted, first.key_id, first.issuer), (None, None, None));
    engine.next_is(ServerIndex(2));
}

/// Asserts that the next visit is a full handshake for `counter`'s reason, and that the mapping is forgotten.
fn assert_starts_afresh(engine: &mut Engine, client: &Arc<rustls::ClientConfig>, counter: &str) {
    let before = engine.count(counter);
    engine.next_is(ServerIndex(2));
    let visit = engine.visit(client);
    assert!(!visit.resumed, "{counter}");
    assert_eq!((visit.decision.server, visit.decision.reason), (Some(ServerIndex(2)), Reason::NoMapping), "{counter}");
    assert_eq!((visit.wanted, visit.key_id), (None, None), "{counter}");
    assert!(engine.count(counter) > before, "{counter}");
}

#[test]
fn a_resumed_client_keeps_its_server() {
    for versions in BOTH {
        let (mut engine, client) = (engine(), client(versions));
        first_visit(&mut engine, &client);
        for _ in 0..5 {
            let again = engine.visit(&client);
            assert!(again.resumed);
            assert_eq!((again.decision.server, again.decision.reason), (Some(ServerIndex(0)), Reason::Persisted));
            assert_eq!(again.wanted, Some(engine.service.pool().servers[0].id));
            assert_eq!(again.issuer, Some(EngineId(1)));
            assert_eq!(again.version, if versions == TLS12 { TlsVersion::Tls12 } else { TlsVersion::Tls13 });
        }
        assert_eq!((engine.count("handshakes_full"), engine.count("handshakes_resumed")), (1, 5));
    }
}

#[test]
fn any_engine_with_the_ring_opens_the_others_tickets() {
    for versions in BOTH {
        let ring = ring(1);
        let (mut one, mut two) = (Engine::new(settings(), &ring, 1), Engine::new(settings(), &ring, 2));
        let client = client(versions);
        first_visit(&mut one, &client);
        two.next_is(ServerIndex(1));
        let there = two.visit(&client);
        assert!(there.resumed);
        assert_eq!((there.decision.server, there.issuer), (Some(ServerIndex(0)), Some(EngineId(1))));
        let back = one.visit(&client);
        assert_eq!((back.decision.server, back.issuer), (Some(ServerIndex(0)), Some(EngineId(2))));
    }
}

#[test]
fn a_service_without_persistence_resumes_and_carries_no_mapping() {
    for versions in BOTH {
        let mut engine = Engine::new(Settings { profile: None, ..settings() }, &ring(1), 1);
        let client = client(versions);
        engine.visit(&client);
        engine.next_is(ServerIndex(1));
        let again = engine.visit(&client);
        assert!(again.resumed);
        assert_eq!(
            (again.decision.server, again.decision.reason, again.wanted),
            (Some(ServerIndex(1)), Reason::Off, None)
        );
    }
}

#[test]
fn a_client_without_tickets_is_given_a_server_when_the_handshake_ends() {
    for versions in BOTH {
        let mut config = client_of(versions, &[&SHOP]);
        config.resumption = rustls::client::Resumption::disabled();
        let client = Arc::new(config);
        let mut engine = engine();
        for server in [1, 2, 0].map(ServerIndex) {
            engine.next_is(server);
            let visit = engine.visit(&client);
            assert_eq!((visit.resumed, visit.decision.server), (false, Some(server)));
        }
    }
}

#[test]
fn h1_a_ticket_whose_binder_is_wrong_routes_nobody() {
    // The same ticket with another client's secret: what a thief of the ticket alone could send. Only the binder is altered here.
    let (mut engine, client) = (engine(), client(TLS13));
    first_visit(&mut engine, &client);
    let mut link = Link::new(&engine, &client, NAME);
    let mut hello = Vec::new();
    link.client.write_tls(&mut hello).unwrap();
    *hello.last_mut().unwrap() ^= 1;
    link.segment = hello.len();
    link.give(&mut engine, &hello);
    assert_eq!(link.failure, Some(crate::tls::Failure::Protocol));
    assert_eq!(engine.count("opened"), 1, "it opened, and then did not count");
    assert!(link.handshake.is_none());
}

#[test]
fn h2_no_server_is_named_before_the_client_has_finished() {
    for versions in BOTH {
        let (mut engine, client) = (engine(), client(versions));
        first_visit(&mut engine, &client);
        let mut link = Link::new(&engine, &client, NAME);
        link.carry_to_server(&mut engine);
        assert!(link.handshake.is_none() && link.session.is_handshaking());
        assert_eq!(engine.count("opened"), 1);
        link.carry_to_client();
        assert!(link.handshake.is_none());
        link.carry_to_server(&mut engine);
        assert!(link.handshake.is_some() && !link.session.is_handshaking());
    }
}

#[test]
fn h3_a_ticket_past_its_lifetime_is_refused() {
    for versions in BOTH {
        let (mut engine, client) = (
            Engine::new(
                {
                    let mut settings = settings();
                    settings.tickets.lifetime = 2 * HOUR;
                    settings
                },
                &ring(1),
                1,
            ),
            client(versions),
        );
        first_visit(&mut engine, &client);
        engine.desk.set_time(NOW + 2 * HOUR);
        assert!(engine.visit(&client).resumed, "at its lifetime it still is honoured");
        engine.desk.set_time(NOW + 4 * HOUR + Duration::from_secs(1));
        assert_starts_afresh(&mut engine, &client, "refused_expired");
    }
}

#[test]
fn h3_a_session_is_not_resumed_for_ever() {
    for (versions, max) in [(TLS12, 12), (TLS13, 72)] {
        let (mut engine, client) = (engine(), client(versions));
        first_visit(&mut engine, &client);
        for hours in (0..=max).step_by(6) {
            engine.desk.set_time(NOW + HOUR * hours);
            let visit = engine.visit(&client);
            assert!(visit.resumed, "after {hours} h");
            assert_eq!(visit.decision.server, Some(ServerIndex(0)));
        }
        engine.desk.set_time(NOW + HOUR * max + Duration::from_secs(1));
        assert_starts_afresh(&mut engine, &client, "refused_session_aged");
    }
}

#[test]
fn h3_no_client_is_told_to_keep_a_ticket_longer_than_its_session_lasts() {
    let (mut engine, client) = (engine(), client(TLS12));
    first_visit(&mut engine, &client);
    engine.desk.set_time(NOW + 11 * HOUR);
    let mut link = Link::new(&engine, &client, NAME);
    link.carry_to_server(&mut engine);
    let mut answer = Vec::new();
    link.session.poll_transmit(|chunk| {
        answer.extend_from_slice(chunk);
        chunk.len()
    });
    // NewSessionTicket (RFC 5077 3.3) is in the clear in TLS 1.2: type 4, length, lifetime in seconds.
    let hint = answer
        .windows(8)
        .find(|bytes| bytes[0] == 4 && bytes[1] == 0 && bytes[4..6] == [0, 0])
        .expect("a ticket is issued");
    assert_eq!(u32::from_be_bytes(hint[4..].try_into().unwrap()), 3600);
}

#[test]
fn k5_a_ticket_of_an_engine_whose_clock_is_far_ahead_is_refused() {
    for versions in BOTH {
        let ring = ring(1);
        let (mut ahead, mut here) = (Engine::new(settings(), &ring, 1), Engine::new(settings(), &ring, 2));
        let client = client(versions);
        ahead.desk.set_time(NOW + Duration::from_secs(60));
        first_visit(&mut ahead, &client);
        assert!(here.visit(&client).resumed, "a minute is tolerated");
        ahead.desk.set_time(NOW + Duration::from_secs(61));
        assert!(ahead.visit(&client).resumed);
        assert_starts_afresh(&mut here, &client, "refused_future");
    }
}

#[test]
fn h4_early_data_is_never_offered() {
    let (mut engine, mut config) = (engine(), client_of(TLS13, &[&SHOP]));
    config.enable_early_data = true;
    let client = Arc::new(config);
    first_visit(&mut engine, &client);
    let mut link = Link::new(&engine, &client, NAME);
    assert!(link.client.early_data().is_none());
    link.pump(&mut engine);
    assert!(link.handshake.unwrap().resumed);
}

#[test]
fn h5_as_many_tickets_are_issued_as_configured() {
    for count in 0..=6 {
        let mut settings = settings();
        settings.tickets.count = count;
        let mut engine = Engine::new(settings, &ring(1), 1);
        let mut link = Link::new(&engine, &client(TLS13), NAME);
        link.pump(&mut engine);
        assert_eq!(usize::try_from(link.client.tls13_tickets_received()).unwrap(), count);
        assert_eq!(engine.count("sealed"), u64::try_from(count).unwrap());
    }
    let mut too_many = settings();
    too_many.tickets.count = 7;
    assert!(Service::new(too_many).is_err());
}

#[test]
fn h5_a_client_may_ask_for_fewer_tickets_and_not_for_more() {
    for (asked, issued) in [(0, 0), (1, 1), (2, 2), (5, 2)] {
        let mut config = client_of(TLS13, &[&SHOP]);
        config.send_ticket_request =
            Some(rustls::client::TicketRequest { new_session_count: asked, resumption_count: asked });
        let mut engine = engine();
        let link = engine.connect(&Arc::new(config), NAME);
        assert_eq!(link.client.tls13_tickets_received(), issued, "RFC 9149: {asked} were asked for");
    }
}

#[test]
fn h5_no_tickets_means_none_in_tls_12_either() {
    for versions in BOTH {
        let mut settings = settings();
        settings.tickets.count = 0;
        let (mut engine, client) = (Engine::new(settings, &ring(1), 1), client(versions));
        for _ in 0..2 {
            assert!(!engine.visit(&client).resumed);
        }
        assert_eq!(engine.count("sealed"), 0);
    }
}

#[test]
fn h7_renewing_the_certificate_invalidates_nothing() {
    let renewed = Identity::ecdsa(&[NAME]);
    for versions in BOTH {
        let ring = ring(1);
        let client = client(versions);
        let mut before = Engine::new(settings(), &ring, 1);
        first_visit(&mut before, &client);
        let mut after = Engine::new(Settings { certificates: vec![renewed.certificate()], ..settings() }, &ring, 1);
        after.next_is(ServerIndex(2));
        let visit = after.visit(&client);
        assert_eq!((visit.resumed, visit.decision.server), (true, Some(ServerIndex(0))));
    }
}

#[test]
fn h8_a_tls_12_resumption_issues_a_ticket_with_the_current_mapping() {
    let (mut engine, client) = (engine(), client(TLS12));
    first_visit(&mut engine, &client);
    let sealed = engine.count("sealed");
    engine.board.publish(Slot(0), Health::Down);
    let moved = engine.visit(&client);
    assert!(moved.resumed);
    assert_eq!((moved.decision.server, moved.decision.reason), (Some(ServerIndex(2)), Reason::SwitchedDown));
    assert_eq!(engine.count("sealed"), sealed + 1);
    engine.board.publish(Slot(0), Health::Up);
    engine.next_is(ServerIndex(1));
    let stays = engine.visit(&client);
    assert_eq!((stays.resumed, stays.decision.server), (true, Some(ServerIndex(2))));
}

#[test]
fn p2_a_tls_13_resumption_issues_tickets_with_the_switched_mapping() {
    let (mut engine, client) = (engine(), client(TLS13));
    first_visit(&mut engine, &client);
    engine.board.publish(Slot(0), Health::Down);
    // The two tickets of the first visit are used up, or still name the old server: so two visits switch.
    for _ in 0..2 {
        let moved = engine.visit(&client);
        assert_eq!((moved.resumed, moved.decision.server), (true, Some(ServerIndex(2))));
    }
    engine.board.publish(Slot(0), Health::Up);
    engine.next_is(ServerIndex(1));
    let stays = engine.visit(&client);
    assert_eq!((stays.resumed, stays.decision.server), (true, Some(ServerIndex(2))));
}

#[test]
fn h8_tls_12_without_tickets_issues_and_resumes_none() {
    let ring = ring(1);
    let mut settings_without = settings();
    settings_without.tickets.tls12 = false;
    let (mut with, mut without) = (Engine::new(settings(), &ring, 1), Engine::new(settings_without, &ring, 1));
    let old = client(TLS12);
    first_visit(&mut with, &old);
    assert_starts_afresh(&mut without, &old, "refused_tls12");
    assert_eq!((without.count("sealed"), without.count("withheld_tls12")), (0, 1));
    // TLS 1.3 is not concerned.
    let new = client(TLS13);
    without.visit(&new);
    assert!(without.visit(&new).resumed);
}

#[test]
fn h9_a_ticket_that_was_opened_and_not_selected_routes_nobody() {
    // The client comes back with another cipher suite, for which rustls does not resume; the ticket opens all the same.
    for versions in BOTH {
        let ring = ring(1);
        let client = client(versions);
        let suites =
            |tls13: &str, tls12: &str| Settings { ciphers: vec![tls13.to_owned(), tls12.to_owned()], ..settings() };
        let mut first =
            Engine::new(suites("TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"), &ring, 1);
        first_visit(&mut first, &client);
        let other = suites("TLS_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384");
        let mut second = Engine::new(other, &ring, 1);
        assert_starts_afresh(&mut second, &client, "opened_not_selected");
        assert!(second.count("opened") > 0);
    }
}

#[test]
fn h10_a_ticket_under_an_old_key_is_issued_anew_under_the_active_one() {
    let schedule = Schedule::new(6 * HOUR, 24 * HOUR).unwrap();
    for versions in BOTH {
        let old = ring(1);
        let (mut engine, client) = (Engine::new(settings(), &old, 1), client(versions));
        first_visit(&mut engine, &client);
        let new = Arc::new(old.rotate(NOW, &mut Random::from_seed(9), &schedule));
        engine.desk.set_ring(Arc::clone(&new));
        // A TLS 1.3 client has two tickets of the first visit.
        let visits: Vec<_> = (0..3).map(|_| engine.visit(&client)).collect();
        assert!(visits.iter().all(|visit| visit.resumed && visit.decision.server == Some(ServerIndex(0))));
        assert_eq!(visits.first().unwrap().key_id, old.active().map(|entry| entry.key.id()));
        assert_eq!(visits.last().unwrap().key_id, new.active().map(|entry| entry.key.id()));
        assert_ne!(old.active().unwrap().key.id(), new.active().unwrap().key.id());
    }
}

#[test]
fn k7_a_ring_that_may_not_seal_still_opens() {
    for versions in BOTH {
        let ring = ring(1);
        let (mut engine, client) = (Engine::new(settings(), &ring, 1), client(versions));
        first_visit(&mut engine, &client);
        engine.desk.set_ring(Arc::new(ring.opening_only()));
        assert_eq!(engine.visit(&client).decision.server, Some(ServerIndex(0)));
        assert!(engine.count("withheld_ring") > 0);
    }
}

#[test]
fn s1_a_ticket_under_an_unknown_key_is_refused() {
    for versions in BOTH {
        let (mut engine, client) = (engine(), client(versions));
        first_visit(&mut engine, &client);
        engine.desk.set_ring(ring(2));
        assert_starts_afresh(&mut engine, &client, "refused_unknown_key");
    }
}

#[test]
fn s3_a_forged_ticket_is_refused() {
    // Another secret under the same id.
    let real = ring(1);
    let mut entries = real.entries().to_vec();
    let forger = Key::new(entries[0].key.id(), &Random::from_seed(5).array::<32>()).unwrap();
    entries[0].key = forger;
    let forged = Arc::new(Ring::new(1, entries, Vec::new()).unwrap());
    for versions in BOTH {
        let (mut engine, client) = (Engine::new(settings(), &forged, 1), client(versions));
        first_visit(&mut engine, &client);
        engine.desk.set_ring(Arc::clone(&real));
        assert_starts_afresh(&mut engine, &client, "refused_forged");
    }
}

#[test]
fn s3_a_ticket_of_another_service_is_refused() {
    for versions in BOTH {
        let ring = ring(1);
        let mut other = settings();
        other.tickets.scope.service = ServiceId(3);
        let (mut here, mut there, client) =
            (Engine::new(settings(), &ring, 1), Engine::new(other, &ring, 1), client(versions));
        first_visit(&mut here, &client);
        assert_starts_afresh(&mut there, &client, "refused_forged");
    }
}

#[test]
fn s3_a_ticket_from_before_a_change_of_policy_is_refused() {
    let ring = ring(1);
    let mut strict = Settings { versions: Versions::Tls13, ..settings() };
    strict.tickets.scope.policy = policy_hash(Versions::Tls13, None);
    let (mut before, mut after, client) =
        (Engine::new(settings(), &ring, 1), Engine::new(strict, &ring, 1), client(TLS13));
    first_visit(&mut before, &client);
    assert_starts_afresh(&mut after, &client, "refused_forged");
}

#[test]
fn an_altered_ticket_is_refused_whatever_was_altered() {
    type Alter = fn(Vec<u8>) -> Vec<u8>;
    let alterations: [(&str, Alter); 6] = [
        ("refused_version", |mut ticket| {
            ticket[0] ^= 0x80;
            ticket
        }),
        ("refused_unknown_key", |mut ticket| {
            ticket[1] ^= 1;
            ticket
        }),
        ("refused_forged", |mut ticket| {
            *ticket.last_mut().unwrap() ^= 1;
            ticket
        }),
        ("refused_forged", |mut ticket| {
            ticket.pop();
            ticket
        }),
        ("refused_length", |mut ticket| {
            ticket.truncate(40);
            ticket
        }),
        ("refused_length", |mut ticket| {
            ticket.resize(TICKET_MAX + 1, 0);
            ticket
        }),
    ];
    for versions in BOTH {
        for (counter, alter) in alterations {
            let ring = ring(1);
            let client = client(versions);
            let mut altering = Engine::of(Service::new(settings()).unwrap().altering_tickets(alter), &ring, 1);
            first_visit(&mut altering, &client);
            let mut engine = Engine::new(settings(), &ring, 1);
            assert_starts_afresh(&mut engine, &client, counter);
            assert_eq!(engine.count("opened"), 0);
        }
    }
}

#[test]
fn p3_a_refused_client_gets_no_ticket_and_returns_with_its_old_one() {
    for versions in BOTH {
        let never = Settings { profile: Some(profile(SelectNewServer::Never)), ..settings() };
        let (mut engine, client) = (Engine::new(never, &ring(1), 1), client(versions));
        first_visit(&mut engine, &client);
        engine.board.publish(Slot(0), Health::Down);
        let sealed = engine.count("sealed");
        let refused = engine.visit(&client);
        assert!(refused.resumed);
        assert_eq!((refused.decision.server, refused.decision.reason), (None, Reason::RefusedDown));
        assert_eq!(refused.wanted, Some(engine.service.pool().servers[0].id));
        assert_eq!(engine.count("sealed"), sealed);
        assert!(engine.count("withheld_refused") > 0);
        engine.board.publish(Slot(0), Health::Up);
        let back = engine.visit(&client);
        assert_eq!((back.resumed, back.decision.server), (true, Some(ServerIndex(0))));
    }
}

#[test]
fn p3_a_client_for_whom_there_is_no_server_gets_no_ticket() {
    for versions in BOTH {
        let (mut engine, client) = (engine(), client(versions));
        (0..3).for_each(|slot| engine.board.publish(Slot(slot), Health::Down));
        let visit = engine.visit(&client);
        assert_eq!((visit.decision.server, visit.decision.reason), (None, Reason::PoolDown));
        assert_eq!(engine.count("sealed"), 0);
    }
}

/// Four honest tickets, as a client would store them.
fn sealed(engine: &mut Engine, version: TlsVersion) -> Vec<Vec<u8>> {
    let ticketer = Arc::clone(&engine.service.config().ticketer);
    let mut step = Step { version: Some(version), ..Step::new(CLIENT) };
    engine.desk.during(&mut step, &mut None, &engine.backend, || {
        (0..4).map(|n: u8| ticketer.encrypt(&[n; 100]).unwrap()).collect()
    })
}

#[test]
fn s4_at_most_four_tickets_of_a_client_hello_are_opened() {
    let mut engine = engine();
    let ticketer = Arc::clone(&engine.service.config().ticketer);
    let tickets = sealed(&mut engine, TlsVersion::Tls13);
    let mut step = Step::new(CLIENT);
    engine.desk.during(&mut step, &mut None, &engine.backend, || {
        for _ in 0..20 {
            // What costs no cryptography does not count.
            assert_eq!(ticketer.decrypt(&[0; 200]), None);
        }
        for (n, ticket) in (0..).zip(&tickets) {
            assert_eq!(ticketer.decrypt(ticket), Some(vec![n; 100]));
        }
        assert_eq!(ticketer.decrypt(&tickets[0]), None);
    });
    assert_eq!((engine.count("opened"), engine.count("refused_too_many")), (4, 1));
    // The next ClientHello begins anew, as does one after a HelloRetryRequest.
    engine.desk.during(&mut step, &mut None, &engine.backend, || assert!(ticketer.decrypt(&tickets[0]).is_some()));
}

#[test]
fn s4_forged_tickets_count_as_opened_ones_do() {
    let mut engine = engine();
    let ticketer = Arc::clone(&engine.service.config().ticketer);
    let mut tickets = sealed(&mut engine, TlsVersion::Tls13);
    let honest = tickets[0].clone();
    for ticket in &mut tickets {
        *ticket.last_mut().unwrap() ^= 1;
    }
    engine.desk.during(&mut Step::new(CLIENT), &mut None, &engine.backend, || {
        assert!(tickets.iter().all(|ticket| ticketer.decrypt(ticket).is_none()));
        assert_eq!(ticketer.decrypt(&honest), None);
    });
    assert_eq!((engine.count("refused_forged"), engine.count("refused_too_many")), (4, 1));
}

#[test]
fn h9_of_several_identities_the_last_that_opened_is_the_selected_one() {
    let mut engine = engine();
    let ticketer = Arc::clone(&engine.service.config().ticketer);
    let first = sealed(&mut engine, TlsVersion::Tls13).remove(0);
    engine.desk.set_time(NOW + HOUR);
    let second = sealed(&mut engine, TlsVersion::Tls13).remove(0);
    let mut step = Step::new(CLIENT);
    engine.desk.during(&mut step, &mut None, &engine.backend, || {
        assert!(ticketer.decrypt(&first).is_some());
        assert!(ticketer.decrypt(&second).is_some());
        // rustls goes on to another identity only if it does not take this one; that it does not open changes nothing.
        assert!(ticketer.decrypt(&[0; 300]).is_none());
    });
    assert_eq!(step.opened.unwrap().original_handshake, NOW + HOUR);
}

#[test]
fn outside_of_a_call_there_are_no_tickets() {
    let mut engine = engine();
    let ticket = sealed(&mut engine, TlsVersion::Tls13).remove(0);
    let ticketer = &engine.service.config().ticketer;
    assert_eq!((ticketer.encrypt(&[1; 100]), ticketer.decrypt(&ticket)), (None, None));
}

#[test]
fn s10_tickets_of_one_handshake_share_their_header_only() {
    let mut engine = engine();
    let tickets = sealed(&mut engine, TlsVersion::Tls13);
    let [one, two, ..] = tickets.as_slice() else { panic!("there are four") };
    assert_eq!(one.len(), two.len());
    assert_eq!(one[..9], two[..9]);
    assert!(one[9..].windows(8).zip(two[9..].windows(8)).all(|(one, two)| one != two));
}

#[test]
fn a_new_ring_is_used_by_every_service_at_once() {
    let mut engine = engine();
    let before = sealed(&mut engine, TlsVersion::Tls13).remove(0);
    engine.desk.set_ring(ring(2));
    let after = sealed(&mut engine, TlsVersion::Tls13).remove(0);
    assert_ne!(before[1..9], after[1..9]);
}

#[test]
fn handshakes_that_take_turns_at_one_desk_do_not_see_each_others_tickets() {
    for versions in BOTH {
        let mut engine = engine();
        let clients: Vec<_> = (0..3).map(|_| client(versions)).collect();
        for (server, client) in (0..).map(ServerIndex).zip(&clients) {
            engine.next_is(server);
            assert_eq!(engine.visit(client).decision.server, Some(server));
        }
        // Three return and a stranger comes, all a byte at a time.
        engine.next_is(ServerIndex(1));
        let stranger = client(versions);
        let mut links: Vec<_> =
            clients.iter().chain([&stranger]).map(|client| Link::new(&engine, client, NAME)).collect();
        for _ in 0..4 {
            let flights: Vec<Vec<u8>> = links.iter_mut().map(Link::flight).collect();
            for at in 0..flights.iter().map(Vec::len).max().unwrap_or(0) {
                for (link, flight) in links.iter_mut().zip(&flights) {
                    if let Some(byte) = flight.get(at..=at) {
                        link.give(&mut engine, byte);
                    }
                }
            }
            for link in &mut links {
                link.carry_to_client();
            }
        }
        let decisions: Vec<_> =
            links.iter().map(|link| link.handshake.as_ref().unwrap().decision.server.unwrap().0).collect();
        assert_eq!(decisions, [0, 1, 2, 1]);
        assert_eq!((engine.count("handshakes_resumed"), engine.count("handshakes_full")), (3, 4));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn no_altered_client_hello_panics_or_gets_a_server(tls13: bool, cut: Option<u16>, flips in proptest::collection::vec((0..2000_usize, 1..=255_u8), 0..4)) {
        let versions = if tls13 { TLS13 } else { TLS12 };
        let (mut engine, client) = (engine(), client(versions));
        first_visit(&mut engine, &client);
        let mut link = Link::new(&engine, &client, NAME);
        let mut hello = link.flight();
        let honest = hello.clone();
        hello.truncate(cut.map_or(usize::MAX, usize::from));
        for (at, bits) in flips {
            // The record's header says nothing that a handshake would prove.
            let at = 5 + at % hello.len().max(6).saturating_sub(5);
            if let Some(byte) = hello.get_mut(at) {
                *byte ^= bits;
            }
        }
        proptest::prop_assume!(hello != honest);
        link.give(&mut engine, &hello);
        if link.client_error.is_none() {
            link.pump(&mut engine);
        }
        proptest::prop_assert!(link.handshake.is_none());
    }
}
