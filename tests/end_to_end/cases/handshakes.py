"""Handshakes with first bytes or names that are wrong, or that come slowly or not at all."""

import socket
import ssl

from harness.clients import NAME, HandshakeFailed, request
from harness.tls import ByHand
from harness.trial import HASTY, SHOP, STRICT, at


def a_client_hello_in_one_byte_segments_is_understood(trial):
    for version in ("1.3", "1.2"):
        with trial.undisturbed(), trial.by_hand(version) as client:
            client.send = client.byte_by_byte
            client.handshake()
            client.send = client.socket.sendall
            client.write(request(NAME))
            assert b"200 OK" in client.read_all()


def plain_http_is_refused(trial):
    mark = trial.engine.records.mark()
    with trial.undisturbed(), trial.counted("sealane_relay_ended_not_tls_total"):
        with socket.create_connection((at(SHOP), 443), timeout=10) as client:
            client.sendall(request(NAME))
            port = client.getsockname()[1]
            _read_to_the_end(client)
    trial.ended(port, mark, "not-tls")


def noise_is_refused(trial):
    mark = trial.engine.records.mark()
    # A TLS record of the right type and length with nothing sensible in it.
    for noise in (
        bytes(200),
        b"\x16\x03\x01\x00\x40" + bytes(64),
        b"\x16\x03\x01\xff\xff" + bytes(65535),
        b"\x80\x2e\x01\x00\x02" + bytes(44),
    ):
        with trial.undisturbed(), socket.create_connection((at(SHOP), 443), timeout=10) as client:
            port = client.getsockname()[1]
            try:
                client.sendall(noise)
            except (ConnectionResetError, BrokenPipeError):
                pass
            _read_to_the_end(client)
        trial.ended(port, mark, "not-tls", "tls-protocol")


def a_client_hello_that_fills_every_buffer_is_refused(trial):
    """Shorter than the longest message that TLS allows, but with its record headers longer than what is kept of it."""
    mark = trial.engine.records.mark()
    hello = b"\x01\x00\xff\xf0" + bytes(0xFFF0)
    pieces = (hello[start : start + 16384] for start in range(0, len(hello), 16384))
    records = b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)
    with trial.undisturbed(), socket.create_connection((at(SHOP), 443), timeout=10) as client:
        port = client.getsockname()[1]
        try:
            client.sendall(records)
        except (ConnectionResetError, BrokenPipeError):
            pass
        _read_to_the_end(client)
    trial.ended(port, mark, "tls-protocol")


def an_unknown_name_gets_the_first_certificate(trial):
    with ByHand(at(SHOP), trial.careless(), "other.example") as client:
        client.handshake()
        client.write(request("other.example"))
        assert b"200 OK" in client.read_all()


def a_strict_service_refuses_an_unknown_name(trial):
    mark = trial.engine.records.mark()
    for version in ("1.3", "1.2"):
        with trial.undisturbed(), trial.counted("sealane_relay_ended_unknown_server_name_total"):
            with ByHand(at(STRICT), trial.careless(version), "other.example") as client:
                port = client.port
                try:
                    client.handshake()
                    raise AssertionError("the handshake went well")
                except ssl.SSLError as error:
                    assert "unrecognized name" in str(error).lower().replace("_", " "), error
        record = trial.ended(port, mark, "unknown-server-name")
        assert "other.example" in str(record), record


def a_strict_service_serves_a_name_it_knows(trial):
    assert trial.client(address=at(STRICT)).visit().server


def a_client_that_distrusts_the_certificate_is_recorded(trial):
    mark = trial.engine.records.mark()
    client = trial.client()
    client.context = ssl.create_default_context()
    try:
        client.connect().close()
        raise AssertionError("the handshake went well")
    except HandshakeFailed as error:
        trial.ended(error.port, mark, "alert-received")


def a_client_that_says_nothing_is_dropped(trial):
    mark = trial.engine.records.mark()
    with trial.undisturbed(), trial.counted("sealane_relay_ended_handshake_timed_out_total"):
        with socket.create_connection((at(HASTY), 443), timeout=10) as client:
            port = client.getsockname()[1]
            _read_to_the_end(client)
    trial.ended(port, mark, "handshake-timed-out")


def _read_to_the_end(client):
    """Takes what comes until the engine closes, in order or by reset. A time-out is an error."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
