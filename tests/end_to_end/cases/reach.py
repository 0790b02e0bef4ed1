"""The engine can be reached: ICMP echo, IPv4 and IPv6, and servers learn who is there."""

import json

from harness import frames
from harness.trial import PROXY1, PROXY2, SHOP, at, at6


def the_virtual_address_answers_ping(trial):
    assert frames.ping(at(SHOP)) == 3


def the_virtual_address_answers_ping_over_ipv6(trial):
    assert frames.ping(at6(SHOP)) == 3


def an_ipv6_client_returns_to_its_server(trial):
    for version in ("1.3", "1.2"):
        client = trial.client(version, at6(SHOP))
        visits = [client.visit() for _ in range(5)]
        assert all(visit.server and visit.server == visits[0].server for visit in visits), visits
        assert [visit.resumed for visit in visits] == [False] + [True] * 4, visits


def proxy_protocol_1_tells_the_client(trial):
    _proxy(trial, PROXY1, 1)


def proxy_protocol_2_tells_the_client(trial):
    _proxy(trial, PROXY2, 2)


def _proxy(trial, service, version):
    for address in (at(service), at6(service)):
        answer, end = trial.ask("whoami", address=address)
        want = {"version": version, "source": [end[0], end[1]], "destination": [address, 443]}
        assert json.loads(answer) == want, f"{answer.strip()} instead of {want}"
