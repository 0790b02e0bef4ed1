"""Clients that prove who they are by a certificate, or fail to, and tickets that stand for one."""

import functools
import json

from harness import config
from harness.certificates import ClientAuthority
from harness.trial import ASKING, CERTIFIED, SHOP, TELLING, at

VERSIONS = ("1.3", "1.2")
REFUSED = "sealane_ticket_refused_{}_total"

# What openssl says of each alert, and how the connection is recorded.
WRONG = {
    "expired": ("certificate expired", "client-certificate-expired"),
    "revoked": ("certificate revoked", "client-certificate-revoked"),
    "foreign": ("unknown ca", "client-certificate-unknown-ca"),
}


@functools.cache
def _people(trial):
    """Certificates of clients, by what is wrong with them."""
    foreign = ClientAuthority(trial.world.directory, "foreigners")
    people = {name: trial.clients.sign(name) for name in ("alice", "bob", "revoked")}
    people["expired"] = trial.clients.sign("expired", "expired")
    people["foreign"] = foreign.sign("foreign")
    trial.clients.revoke("revoked")
    trial.reload()
    return people


def a_client_with_a_certificate_is_known_and_stays_so_when_it_resumes(trial):
    alice = _people(trial)["alice"]
    for service in (CERTIFIED, ASKING):
        for version in VERSIONS:
            for make in (trial.client, trial.openssl):
                mark, client = trial.engine.records.mark(), make(version, at(service), alice)
                visits = [client.visit() for _ in range(3)]
                assert [visit.resumed for visit in visits] == [False, True, True], visits
                assert visits[0].server and all(visit.server == visits[0].server for visit in visits), visits
                for visit in visits:
                    _known(trial, visit, mark, "CN=alice,O=Shop")
            mark = trial.engine.records.mark()
            for visit in trial.curl(version, at(service), alice).visits(3):
                assert visit.server, visit
                _known(trial, visit, mark, "CN=alice,O=Shop")


def _known(trial, visit, mark, subject):
    record = trial.engine.records.of(visit.port, mark)
    assert record.fields["client_certificate"] == subject, record


def a_client_without_a_certificate_is_refused_or_not(trial):
    _people(trial)
    for version, words in (("1.3", "certificate required"), ("1.2", "handshake failure")):
        _refused(trial, trial.openssl(version, at(CERTIFIED)), words, "client-certificate-missing")
        mark, client = trial.engine.records.mark(), trial.openssl(version, at(ASKING))
        for resumed in (False, True):
            visit = client.visit()
            assert (visit.resumed, visit.error) == (resumed, None), visit
            _known(trial, visit, mark, None)


def a_certificate_that_is_wrong_is_refused_with_its_own_alert(trial):
    people = _people(trial)
    for service in (CERTIFIED, ASKING):
        for version in VERSIONS:
            for name, (words, end) in WRONG.items():
                _refused(trial, trial.openssl(version, at(service), people[name]), words, end)


def _refused(trial, client, words, end):
    counter = f"sealane_relay_ended_{end.replace('-', '_')}_total"
    mark = trial.engine.records.mark()
    with trial.undisturbed(), trial.counted(counter):
        visit = client.visit()
        assert visit.server is None and words in visit.error.lower(), f"{words} is not what {visit} says"
    trial.ended(visit.port, mark, end)


def a_new_revocation_list_stops_whom_it_names_and_nobody_else(trial):
    people = _people(trial)
    for version in VERSIONS:
        name = f"revoked-later-{version[2]}"
        clients = [trial.openssl(version, at(CERTIFIED), identity) for identity in (people["alice"], trial.clients.sign(name))]
        for client in clients:
            assert client.visit().error is None and client.visit().resumed
        trial.clients.revoke(name)
        trial.reload()
        assert clients[0].visit().resumed, "a list that does not name a client cost it its ticket"
        with trial.counted(REFUSED.format("client_revoked")):
            _refused(trial, clients[1], "certificate revoked", "client-certificate-revoked")


def cve_2025_23419_a_ticket_carried_to_a_service_with_client_certificates_makes_a_full_handshake(trial):
    alice = _people(trial)["alice"]
    for version in VERSIONS:
        for origin, identity in ((SHOP, None), (ASKING, None), (ASKING, alice)):
            stranger = trial.openssl(version, at(origin), identity)
            assert stranger.visit().error is None
            with trial.counted(REFUSED.format("forged")):
                visit = trial.openssl(version, at(CERTIFIED)).visit(stranger.file)
                assert visit.server is None and not visit.resumed, f"a ticket passed for a certificate: {visit}"
            with trial.counted(REFUSED.format("forged")):
                visit = trial.openssl(version, at(CERTIFIED), alice).visit(stranger.file)
                assert visit.server and visit.resumed is False, visit


def a_change_of_policy_makes_every_client_shake_hands_in_full_once(trial):
    people = _people(trial)
    service = next(one for one in trial.engine.settings["virtual_service"] if one["name"] == "asking")
    clients = [(trial.openssl(version, at(ASKING)), trial.openssl(version, at(ASKING), people["alice"])) for version in VERSIONS]
    for pair in clients:
        for client in pair:
            assert client.visit().error is None and client.visit().resumed
    before = service["client_certificates"]
    try:
        service["client_certificates"] = config.clients("required")
        trial.reload()
        for anonymous, alice in clients:
            with trial.counted(REFUSED.format("forged"), 2):
                visit = anonymous.visit()
                assert visit.server is None and not visit.resumed, f"a ticket passed for a certificate: {visit}"
                visit = alice.visit()
                assert visit.server and visit.resumed is False, visit
            assert alice.visit().resumed
        # Other CAs: those who were known are so no longer, ticket or not.
        service["client_certificates"] = config.clients("required", "foreigners")
        trial.reload()
        for _, alice in clients:
            with trial.counted(REFUSED.format("forged")):
                visit = alice.visit()
                assert visit.server is None and "unknown ca" in visit.error.lower(), visit
    finally:
        service["client_certificates"] = before
        trial.reload()


def servers_learn_who_the_client_has_proven_to_be(trial):
    alice = _people(trial)["alice"]
    for version in VERSIONS:
        for identity, want in (
            (None, {"flags": 1, "verify": 1}),
            (alice, {"flags": 7, "verify": 0, "cn": "alice"}),
        ):
            answer, _ = trial.ask("whoami", version, at(TELLING), identity)
            assert json.loads(answer)["ssl"] == want | {"version": f"TLSv{version}"}, answer
