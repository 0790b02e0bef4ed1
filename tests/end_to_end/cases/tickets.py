"""Tickets that are forged, cut, foreign or old: a full handshake like a first visit's, and a counter that says why."""

import time

from harness import sessions, world
from harness.trial import BANK, SHOP, Trial, at
from harness.wait import until

# No ticket of the engine's is longer; whatever a ticket holds fits into it.
LONGEST = 16384
# Seconds that a ticket lives, where it is to expire.
LIFETIME = 5
REFUSED = "sealane_ticket_refused_({})_total"


def _flip(index):
    def change(ticket):
        return ticket[:index] + bytes([ticket[index] ^ 1]) + ticket[index + 1 :]

    return change


# What is done to a ticket of the layout version(1) | key id(8) | nonce(24) | ciphertext | tag(16), and how it is counted.
EDITS = {
    "version": (_flip(0), "version"),
    "key id": (_flip(4), "unknown_key"),
    "nonce": (_flip(12), "forged"),
    "ciphertext": (lambda ticket: _flip(len(ticket) // 2)(ticket), "forged"),
    "tag": (_flip(-2), "forged"),
    "cut within the header": (lambda ticket: ticket[:20], "length"),
    "cut by one byte": (lambda ticket: ticket[:-1], "forged|length"),
    "far too long": (lambda ticket: ticket + bytes(LONGEST), "length"),
}


def forged_and_truncated_tickets_make_a_full_handshake(trial):
    for version in ("1.3", "1.2"):
        client = trial.openssl(version)
        assert client.visit().error is None
        good = trial.world.directory / "good.session"
        good.write_bytes(client.file.read_bytes())
        assert client.visit(good).resumed, "the session that is edited here does not resume unedited"
        for name, (change, counter) in EDITS.items():
            with trial.undisturbed(), trial.counted(REFUSED.format(counter)):
                _refused(trial, client, sessions.edit(good, trial.world.directory / "edited.session", change), f"{name}, TLS {version}")
    return f"{2 * len(EDITS)} tickets"


def a_ticket_of_another_service_makes_a_full_handshake(trial):
    for version in ("1.3", "1.2"):
        stranger = trial.openssl(version, at(BANK))
        assert stranger.visit().error is None
        with trial.counted(REFUSED.format("forged")):
            _refused(trial, trial.openssl(version, at(SHOP)), stranger.file, f"foreign, TLS {version}")


def an_expired_ticket_makes_a_full_handshake(trial):
    """Also shows two engines at once, each in a world of its own."""
    with world.World("test") as other:
        own = Trial(other, source="own", rotation="6h", lifetime=f"{LIFETIME}s")
        for version in ("1.3", "1.2"):
            client = own.openssl(version)
            assert client.visit().error is None
            # The client itself would not bring an expired ticket: its copy says that there is plenty of time.
            kept = sessions.edit(client.file, other.directory / "kept.session", lifetime=90000)
            # Tickets count in whole seconds, and a lane keeps its reading of the wall clock for 0.1 s: only then have all lanes seen it expire.
            over = time.time() + LIFETIME + 1.2
            until("the ticket to expire", lambda over=over: time.time() >= over, 30)
            with own.counted(REFUSED.format("expired|session_aged")):
                _refused(own, client, kept, f"expired, TLS {version}")


def _refused(trial, client, session, name):
    mark = trial.engine.records.mark()
    visit = client.visit(session)
    assert visit.error is None and visit.server and visit.resumed is False, f"{name}: {visit}"
    record = trial.engine.records.of(visit.port, mark)
    assert record.resumed is False and record.reason == "no-mapping", f"{name}: {record}"
