"""Metrics: so many visits make so many counts, and both formats are what their readers take for well-formed."""

import json
import re
import socket
import subprocess
import urllib.request

from prometheus_client.openmetrics import parser

from harness.clients import NAME, request
from harness.processes import run
from harness.prometheus import Prometheus
from harness.trial import BANK, SHOP, TO_REFUSING, at
from harness.wait import until
from harness.world import REPOSITORY

VISITS = 12
CONFIGURATIONS = REPOSITORY / "dpdk-config"


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
    port = _speak_plainly(at(SHOP))
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


def what_the_port_counts_is_what_lanes_count_and_what_its_driver_hides_is_said(trial):
    assert trial.client().visit().server

    def agreed():
        # Monitors probe all the time, and what control reads of lanes and of ports is not of the same instant.
        metrics = trial.engine.metrics()
        pairs = [
            (metrics.sum(f"sealane_port_frames_{what}_total", port="front"), metrics.sum(f"sealane_lane_frames_{what}_total"))
            for what in ("received", "sent")
        ]
        return pairs if all(port == lanes > 0 for port, lanes in pairs) else None

    (received, _), (sent, _) = until("ports and lanes to have counted the same", agreed, 10)
    assert trial.engine.metrics().sum("sealane_port_bytes_sent_total", port="front") > sent * 54
    metrics = trial.engine.metrics()
    assert metrics.value("sealane_port_link_up", port="front") == 1
    assert metrics.value("sealane_port_device", port="front", device="net_tap0", driver="net_tap") == 1
    # The kernel drops what a tap's queue has no room for, and net_tap does not tell.
    assert metrics.value("sealane_port_reports", port="front", statistic="missed") == 0
    own = {labels["name"]: value for key, labels, value in metrics.samples if key == "sealane_port_extended"}
    assert own["rx_good_packets"] > 0 and own["tx_good_packets"] > 0, own
    return f"{received:g} frames received, {sent:g} sent"


def every_expression_of_dashboard_and_alerts_has_an_answer_from_a_live_engine(trial):
    """Debian's Prometheus scrapes the engine while clients come, and is asked everything that Grafana would ask."""
    rules = CONFIGURATIONS / "alerts.yml"
    run("promtool", "check", "rules", rules)
    run("promtool", "test", "rules", REPOSITORY / "tests/alerts/cases.yml")
    prometheus = Prometheus(trial.world, trial.engine.settings["engine"]["admin"], rules)
    expressions = _expressions(json.loads((CONFIGURATIONS / "grafana.json").read_text()))
    visitors = [trial.client(version, at(service)) for version in ("1.3", "1.2") for service in (SHOP, BANK)]

    def scraped():
        assert all(visitor.visit().server for visitor in visitors)
        # What only is there once it has happened.
        trial.client(address=at(TO_REFUSING)).visit()
        _speak_plainly(at(SHOP))
        return prometheus.query("count_over_time(up[1m]) >= 4")

    until("Prometheus to have scraped the engine", scraped, 30, every=0.2)
    (target,) = prometheus.targets()
    assert target["health"] == "up" and not target["lastError"], target
    # The names alone, so that one that is misspelt is found also where an empty answer is right.
    there = {labels["__name__"] for labels, _ in prometheus.query('{job="sealane"}')}
    alerts = [rule["query"] for rule in prometheus.rules()]
    named = {name for text in (*expressions, *alerts) for name in re.findall(r"sealane_\w+", text)}
    missing = named - there
    assert not missing, f"not in /metrics: {sorted(missing)}"
    # Some ask for what is wrong, and nothing is.
    silent = [text for text in expressions if not prometheus.query(text) and not re.search(r"(> 0|== [01])$", text)]
    assert not silent, f"no answer to {silent}"
    unhealthy = [rule for rule in prometheus.rules() if rule["health"] != "ok"]
    assert not unhealthy, unhealthy
    for rule in prometheus.rules():
        assert rule["annotations"]["summary"] and rule["annotations"]["runbook"] and rule["labels"]["severity"], rule["name"]
    prometheus.child.stop()
    return f"{len(expressions)} expressions, {len(alerts)} alerts, {len(named)} metrics named of {len(there)}"


def _expressions(dashboard):
    """What Grafana asks, its variables filled in."""
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(texts) > 50
    filled = [text.replace("$__rate_interval", "10s").replace("$instance", ".*").replace("$pool", ".*") for text in texts]
    assert not any("$" in text for text in filled)
    return filled


def _speak_plainly(address):
    with socket.create_connection((address, 443), timeout=10) as client:
        client.sendall(request(NAME))
        while client.recv(4096):
            pass
        return client.getsockname()[1]
