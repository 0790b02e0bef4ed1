"""Metrics: so many visits make so many counts, and both formats are what their readers take for well-formed."""

import socket
import subprocess
import urllib.request

from prometheus_client.openmetrics import parser

from harness.clients import NAME, request
from harness.trial import BANK, SHOP, TO_REFUSING, at
from harness.wait import until

VISITS = 12


def openmetrics_is_well_formed_and_promtool_finds_nothing_in_the_format_of_before(trial):
    mark, visit = trial.engine.records.mark(), trial.client().visit()
    assert visit.server
    # Once the record is there, all that the visit brings has been counted.
    trial.engine.records.of(visit.port, mark)
    text = _page(trial, "application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert text.endswith("# EOF\n") and len(families) > 200, len(families)
    histograms = [name for name, family in families.items() if family.type == "histogram"]
    assert histograms == ["sealane_lane_breath_seconds", "sealane_lane_run_queue_delay_seconds"], histograms
    classic = _page(trial, "text/plain;version=0.0.4")
    linted = subprocess.run(["promtool", "check", "metrics"], input=classic, capture_output=True, text=True, timeout=20)
    assert linted.returncode == 0 and not linted.stderr, linted.stderr
    samples = sum(not line.startswith("#") for line in text.splitlines())
    assert samples == sum(not line.startswith("#") for line in classic.splitlines())
    return f"{len(families)} metrics, {samples} samples"


def so_many_visits_make_so_many_counts(trial):
    """Of the lane, the service, the server, the tickets by key and by issuer, what became of mappings, and the times."""
    clients = [trial.client(version, at(BANK)) for version in ("1.3", "1.2") for _ in range(2)]
    before, mark = trial.engine.metrics(), trial.engine.records.mark()
    visits = [client.visit() for _ in range(VISITS // len(clients)) for client in clients]
    assert all(visit.server for visit in visits), visits
    records = [trial.engine.records.of(visit.port, mark) for visit in visits]
    after = trial.engine.metrics()

    def grown(name, **labels):
        return after.sum(name, **labels) - sum(before.select(name, **labels))

    resumed = sum(visit.resumed for visit in visits)
    assert resumed == VISITS - len(clients)
    assert grown("sealane_service_connections_total", service="bank") == VISITS
    assert after.value("sealane_service_open", service="bank") == 0
    assert grown("sealane_service_handshakes_full_total", service="bank") == len(clients)
    assert grown("sealane_service_handshakes_resumed_total", service="bank") == resumed
    assert grown("sealane_service_ended_total", service="bank", by="both", reason="finished") == VISITS
    assert after.value("sealane_service_up", service="bank") == 1 and after.value("sealane_pool_up", pool="web") == 1
    assert after.value("sealane_pool_servers_up", pool="web") == 3
    # Nobody else has visited meanwhile but the health monitors, whose connections are not clients'.
    for server in {visit.server for visit in visits}:
        here = [record for record in records if record.server == server]
        assert grown("sealane_server_connections_opened_total", pool="web", server=server) == len(here)
        for direction, field in (("to", "bytes_received"), ("from", "bytes_sent")):
            assert grown("sealane_server_bytes_total", pool="web", server=server, direction=direction) == sum(
                record.fields[field] for record in here
            ), (server, direction)
    for name, field in (("received", "bytes_received"), ("sent", "bytes_sent")):
        assert grown(f"sealane_service_bytes_{name}_total", service="bank") == sum(record.fields[field] for record in records)
        assert grown(f"sealane_relay_bytes_{name}_total") == sum(record.fields[field] for record in records)
    assert grown("sealane_relay_decided_total", outcome="new", reason="no-mapping") == len(clients)
    assert grown("sealane_relay_decided_total", outcome="hit", reason="persisted") == resumed
    keys = {record.key_id for record in records if record.key_id}
    assert len(keys) == 1
    assert grown("sealane_ticket_key_opened_total", key_id=keys.pop()) == grown("sealane_ticket_opened_total") == resumed
    assert grown("sealane_ticket_key_sealed_total") == grown("sealane_ticket_sealed_total") > 0
    assert grown("sealane_ticket_issuer_resumed_total", issuer="engine-1") == resumed
    _times(grown)
    return f"{VISITS} visits, {resumed} resumed"


def _times(grown):
    """Every ClientHello has had its turn, and every breath that was busy is in the histogram with all its time."""
    assert grown("sealane_lane_run_queue_delay_seconds_count", queue="hellos") >= VISITS
    assert grown("sealane_lane_run_queue_delay_seconds_bucket", queue="hellos", le="+Inf") >= VISITS
    breaths = grown("sealane_lane_breath_seconds_count")
    assert 0 < breaths <= grown("sealane_lane_breaths_total")
    assert grown("sealane_lane_breath_seconds_sum") > 0


def a_handshake_that_fails_and_a_server_that_refuses_are_counted_as_what_they_are(trial):
    before = trial.engine.metrics()
    mark = trial.engine.records.mark()
    with socket.create_connection((at(SHOP), 443), timeout=10) as client:
        port = client.getsockname()[1]
        client.sendall(request(NAME))
        while client.recv(4096):
            pass
    assert trial.client(address=at(TO_REFUSING)).visit().refused
    trial.engine.records.of(port, mark)
    trial.engine.records.since(mark, 2)
    after = trial.engine.metrics()

    def grown(name, **labels):
        return after.sum(name, **labels) - sum(before.select(name, **labels))

    assert grown("sealane_relay_handshakes_failed_total") == grown("sealane_relay_handshakes_failed_total", reason="not-tls") == 1
    assert grown("sealane_service_handshakes_failed_total", service="shop", reason="not-tls") == 1
    assert grown("sealane_service_ended_total", service="shop", by="client", reason="not-tls") == 1
    assert grown("sealane_relay_ended_total", by="client", reason="not-tls") == 1
    assert grown("sealane_service_ended_total", service="to-refusing", by="server", reason="server-refused") == 1
    assert grown("sealane_server_faults_total", pool="refusing", reason="refused") == 1
    assert grown("sealane_server_faults_total", pool="web") == 0


def tables_say_how_full_they_are_and_how_full_they_may_be(trial):
    with trial.client(address=at(BANK)).connect() as tls:
        tls.sendall(b"name\n")
        metrics = until("the connection to be seen", lambda: _open(trial), 5)
        for table in ("connections", "half_open", "time_wait", "buffered_bytes"):
            assert metrics.sum(f"sealane_tcp_{table}_max") > 0
            assert metrics.sum(f"sealane_tcp_{table}") <= metrics.sum(f"sealane_tcp_{table}_max")
    return f"{metrics.sum('sealane_tcp_connections'):g} of {metrics.sum('sealane_tcp_connections_max'):g} connections"


def _open(trial):
    metrics = trial.engine.metrics()
    return metrics if metrics.value("sealane_service_open", service="bank") == 1 else None


def _page(trial, accept):
    asked = urllib.request.Request(f"http://{trial.engine.settings['engine']['admin']}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(asked, timeout=5) as response:
        assert response.headers["Content-Type"].split(";")[0] == accept.split(";")[0], response.headers["Content-Type"]
        return response.read().decode()
