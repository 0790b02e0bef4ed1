"""Health monitors of every kind against nginx and HAProxy: what takes a server down, with the reason in the log, and what brings it back."""

import contextlib
import pathlib
import socket

from harness import config
from harness.servers import listens
from harness.wait import TimedOut, until
from harness.world import HOST6

POOL, NGINX, HAPROXY = "watched", "198.18.1.51", "198.18.1.52"
NAME = "web.internal"

NGINX_CONFIGURATION = """\
daemon off;
master_process off;
pid {directory}/watched.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/watched-body;
    proxy_temp_path {directory}/watched-proxy;
    fastcgi_temp_path {directory}/watched-fastcgi;
    uwsgi_temp_path {directory}/watched-uwsgi;
    scgi_temp_path {directory}/watched-scgi;
    server {{
        listen {address}:8000;
        listen {address}:8443 ssl;
        ssl_certificate {directory}/watched.pem;
        ssl_certificate_key {directory}/watched.key;
        default_type text/plain;
        location = /health {{
            if (-f {directory}/ill) {{ return 500 "oh"; }}
            if (-f {directory}/wordless) {{ return 200 "hm"; }}
            if (-f {directory}/maintained) {{ return 503 "later"; }}
            if (-f {directory}/closing) {{ return 404 "we will be back"; }}
            return 200 "all is well";
        }}
        location = /long {{ root {directory}; }}
    }}
}}
"""

HAPROXY_CONFIGURATION = """\
global
    stats socket {directory}/haproxy.sock level admin
defaults
    mode http
    timeout client 5s
    timeout server 5s
    timeout connect 5s
frontend watched
    bind {address}:8000
    bind {address}:8443 ssl crt {directory}/haproxy.pem alpn h2,http/1.1
    acl is_out nbsrv(behind) lt 1
    monitor-uri /health
    monitor fail if is_out
    default_backend behind
backend behind
    server one 127.0.0.1:1
"""


class _Site:
    """A server to be watched, and a pool of it alone."""

    def __init__(self, trial, child):
        self.trial, self.child, self.mark = trial, child, 0

    def is_seen(self, up, reason=None, server="one"):
        """Waits until the monitors say so, and the log says why."""
        metrics = ("sealane_server_monitored", "sealane_server_up")

        def seen():
            now = self.trial.engine.metrics()
            try:
                return [now.value(name, pool=POOL, server=server) for name in metrics] == [1, float(up)]
            except KeyError:
                return False

        self._until(f"the server to be seen {'up' if up else 'down'}", seen)
        if reason:
            self._until(f"a log line with {reason!r}", lambda: any(reason in line and '"watched"' in line for line in self.log()))
        self.mark = len(self.trial.engine.records.lines)

    def log(self):
        self.trial.engine.records.read()
        return self.trial.engine.records.lines[self.mark :]

    def _until(self, what, condition):
        try:
            until(what, condition, 20)
        except TimedOut as error:
            raise AssertionError(f"{error}; the engine said: {self.log()[-5:]}") from None

    @contextlib.contextmanager
    def file(self, name):
        """While the server finds this file it answers otherwise."""
        file = self.trial.world.directory / name
        file.touch()
        try:
            yield
        finally:
            file.unlink()


@contextlib.contextmanager
def _watched(trial, address, monitors, port=8000, **pool):
    """The engine watches the server at an address by these monitors."""
    settings = trial.engine.settings
    monitors = [config.monitor(f"m{number}") | monitor for number, monitor in enumerate(monitors)]
    table = config.pool(POOL, {"one": (address, port)}) | {"health_monitor": [monitor["name"] for monitor in monitors]} | pool
    settings["health_monitor"] += monitors
    settings["pool"].append(table)
    try:
        trial.reload()
        yield
    finally:
        settings["pool"].remove(table)
        for monitor in monitors:
            settings["health_monitor"].remove(monitor)
        trial.reload()


@contextlib.contextmanager
def _nginx(trial):
    directory = trial.world.directory
    trial.world.address(NGINX)
    trial.authority.sign("watched", "ecdsa", NAME)
    file = directory / "watched.conf"
    file.write_text(NGINX_CONFIGURATION.format(directory=directory, address=NGINX))
    child = trial.world.child("watched", ["nginx", "-p", directory, "-c", file])
    try:
        until("nginx to answer", lambda: listens(NGINX, 8443))
        yield _Site(trial, child)
    finally:
        child.stop()


@contextlib.contextmanager
def _haproxy(trial):
    directory = trial.world.directory
    trial.world.address(HAPROXY)
    trial.authority.sign("haproxy-chain", "ecdsa", NAME)
    pair = [(directory / f"haproxy-chain.{kind}").read_text() for kind in ("pem", "key")]
    (directory / "haproxy.pem").write_text("".join(pair))
    file = directory / "haproxy.cfg"
    file.write_text(HAPROXY_CONFIGURATION.format(directory=directory, address=HAPROXY))
    child = trial.world.child("haproxy", ["haproxy", "-db", "-f", file])
    try:
        until("HAProxy to answer", lambda: listens(HAPROXY, 8443))
        yield _Site(trial, child)
    finally:
        child.stop()


def _command(trial, text):
    """Tells HAProxy something."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(trial.world.directory / "haproxy.sock"))
        connection.sendall(text.encode() + b"\n")
        connection.recv(1000)


PAGE = {"type": "http", "path": "/health", "codes": [200], "text": "all is well"}


def an_http_monitor_tells_wrong_codes_missing_texts_and_a_server_that_is_gone(trial):
    with _nginx(trial) as site:
        with _watched(trial, NGINX, [PAGE]):
            site.is_seen(up=True)
            with site.file("ill"):
                site.is_seen(False, "m0: wrong code 500")
            site.is_seen(True, "server is up")
            with site.file("wordless"):
                site.is_seen(False, "m0: text missing")
            site.is_seen(True, "server is up")
            site.child.stop()
            site.is_seen(False, "m0: refused")


def an_http_monitor_knows_maintenance_by_its_code_and_by_its_text(trial):
    told = PAGE | {"maintenance_codes": [503], "maintenance_text": "be back"}
    with _nginx(trial) as site, _watched(trial, NGINX, [told]):
        site.is_seen(up=True)
        for file in ("maintained", "closing"):
            with site.file(file):
                site.is_seen(False, "server is in maintenance")
                assert trial.engine.metrics().value("sealane_server_in_maintenance", pool=POOL, server="one") == 1
            site.is_seen(True, "server is up")


def haproxys_own_monitor_page_says_maintenance(trial):
    told = {"type": "http", "path": "/health", "codes": [200], "maintenance_codes": [503]}
    with _haproxy(trial) as site, _watched(trial, HAPROXY, [told]):
        site.is_seen(up=True)
        _command(trial, "disable server behind/one")
        site.is_seen(False, "server is in maintenance")
        _command(trial, "enable server behind/one")
        site.is_seen(True, "server is up")


def a_tcp_monitor_says_something_and_expects_an_answer(trial):
    asks = {"type": "tcp", "send": "GET /health HTTP/1.0\r\n\r\n", "expect": "all is well"}
    with _nginx(trial) as site, _watched(trial, NGINX, [asks]):
        site.is_seen(up=True)
        with site.file("ill"):
            site.is_seen(False, "m0: text missing")
        site.is_seen(True, "server is up")


def a_long_page_is_read_to_the_text_at_its_end(trial):
    (trial.world.directory / "long").write_text("-" * 200_000 + "the end")
    with _nginx(trial) as site, _watched(trial, NGINX, [PAGE | {"path": "/long", "text": "the end"}]):
        site.is_seen(up=True)


def a_tls_monitor_shakes_hands_with_whom_it_believes_and_no_others(trial):
    for start, address in ((_nginx, NGINX), (_haproxy, HAPROXY)):
        with start(trial) as site:
            good = {"type": "tls", "ca": "authority.pem", "server_name": NAME}
            with _watched(trial, address, [good], port=8443):
                site.is_seen(up=True)
            with _watched(trial, address, [good | {"server_name": "another.internal"}], port=8443):
                site.is_seen(False, "TLS: server-certificate-wrong-name")
            with _watched(trial, address, [good | {"ca": "clients.pem"}], port=8443):
                site.is_seen(False, "TLS: server-certificate-unknown-ca")
            with _watched(trial, address, [{"type": "tls", "verify": False}], port=8443):
                site.is_seen(up=True)
            with _watched(trial, address, [good], port=8000):
                site.is_seen(False, "TLS: server-not-tls")


def an_https_monitor_reads_pages_and_verifies_whose_they_are(trial):
    page = PAGE | {"type": "https", "ca": "authority.pem", "server_name": NAME, "maintenance_codes": [503]}
    with _nginx(trial) as site:
        with _watched(trial, NGINX, [page], port=8443):
            site.is_seen(up=True)
            with site.file("ill"):
                site.is_seen(False, "m0: wrong code 500")
            site.is_seen(True, "server is up")
            with site.file("maintained"):
                site.is_seen(False, "server is in maintenance")
            site.is_seen(True, "server is up")
        with _watched(trial, NGINX, [page | {"server_name": "another.internal"}], port=8443):
            site.is_seen(False, "TLS: server-certificate-wrong-name")
    with _haproxy(trial) as site, _watched(trial, HAPROXY, [page | {"text": "200 OK"}], port=8443):
        site.is_seen(up=True)


def a_ping_monitor_hears_an_echo_by_either_family(trial):
    trial.world.address("198.18.1.53")
    for address, switch in (("198.18.1.53", "ipv4/icmp_echo_ignore_all"), (f"[{HOST6}]", "ipv6/icmp/echo_ignore_all")):
        file, site = pathlib.Path("/proc/sys/net") / switch, _Site(trial, None)
        with _watched(trial, address, [{"type": "ping"}]):
            site.is_seen(up=True)
            file.write_text("1")
            try:
                site.is_seen(False, "m0: timed out")
            finally:
                file.write_text("0")
            site.is_seen(True, "server is up")


def several_monitors_look_at_their_own_ports_and_a_minimum_of_them_decides(trial):
    three = [PAGE | {"port": 8000}, {"type": "tls", "verify": False, "port": 8443}, {"type": "tcp", "port": 9}]
    with _nginx(trial) as site:
        with _watched(trial, NGINX, three):
            site.is_seen(False, "m2: refused")
        with _watched(trial, NGINX, three, monitors_up_min=2):
            site.is_seen(up=True)
            with site.file("ill"):
                site.is_seen(False, "m0: wrong code 500, m2: refused")
            site.is_seen(True, "server is up")
