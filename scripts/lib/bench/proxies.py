"""What is loaded: our engine behind a virtio port, HAProxy and nginx behind kernel sockets. Each on one core, started anew for every measurement."""

import os
import pathlib
import re
import socket
import time
import urllib.request

from harness import config
from harness.engine import Metrics
from harness.processes import Failed
from harness.wait import until
from harness.world import binary

PROXY_CORE, LOAD_CORE = 0, 1
CERTIFICATES = {"P-256": "shop-ecdsa", "RSA-2048": "shop-rsa"}
SERVICE, SERVER = ("198.18.0.10", 443), ("198.18.0.1", 8000)


class Reading:
    """What a proxy has done so far: seconds of work on its core, of the clock, and what it counts itself."""

    def __init__(self, busy, counts=None, core=None):
        self.wall, self.busy, self.counts, self.core = time.monotonic(), busy, counts or {}, core
        self.stolen = [stolen_seconds(core) for core in (PROXY_CORE, LOAD_CORE)]

    def since(self, before):
        """The same for the time between two readings."""
        spent = Reading(self.busy - before.busy, {key: value - before.counts[key] for key, value in self.counts.items()})
        spent.wall = self.wall - before.wall
        spent.core = self.core - before.core
        spent.stolen = [after - before for after, before in zip(self.stolen, before.stolen)]
        return spent


def cpu_seconds(stat):
    """User and system time of a process or thread: fields 14 and 15 of proc(5)'s stat, which follow the name in brackets."""
    fields = pathlib.Path(stat).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def thread_seconds(pid):
    """The same of the thread of a process that has used most: a lane, which polls, or a load."""
    return max(cpu_seconds(thread / "stat") for thread in pathlib.Path("/proc", str(pid), "task").iterdir())


def stolen_seconds(core):
    """What the hypervisor has taken of a core: the eighth figure of its line in proc(5)'s stat."""
    line = re.search(rf"^cpu{core} (.*)", pathlib.Path("/proc/stat").read_text(), re.M)
    return int(line[1].split()[7]) / os.sysconf("SC_CLK_TCK")


class Engine:
    """Ours: one lane on net_virtio_user. The load is the vhost end and makes the socket, so it starts first."""

    name = "sealane"
    loads_first = True

    def __init__(self, world, certificate, tickets, servers=(SERVER,)):
        self.world, self.socket = world, world.directory / "vhost"
        self.load = ["--port", f"net_vhost0,iface={self.socket},queues=1,tso=1", "--long-frames", "--address", f"{SERVER[0]}/16"]
        self.load += [argument for address, port in servers for argument in ("--serve", f"{address}:{port}")]
        settings = config.base()
        # Control shares the load's core: on the lane's, its milliseconds would be the lane's.
        settings["engine"] |= {"cores": [PROXY_CORE], "control_core": LOAD_CORE, "poll": "busy", "hugepages": "require"}
        settings["engine"]["log"]["file"] = "engine.json"
        settings["engine"]["api"] = {"socket": False}
        settings["engine"]["tcp"] = {"connections_max": 1 << 20}
        del settings["engine"]["trace"]
        device = f"net_virtio_user0,path={self.socket},queues=1,queue_size=1024,mac=02:5e:a1:00:00:01"
        settings["port"] = [{"name": "front", "device": device, "addresses": ["198.18.0.2/16"], "gateways": [SERVER[0]], "mtu": 1500}]
        settings["pool"] = [config.pool("web", {f"server-{number}": server for number, server in enumerate(servers)})]
        settings["persistence_profile"] = [config.profile("sticky", "immediate")]
        shop = config.service("shop", 10, "web", CERTIFICATES[certificate], profile="sticky", tickets=tickets)
        settings["virtual_service"] = [shop | {"addresses": [f"{SERVICE[0]}:{SERVICE[1]}"], "alpn": []}]
        self.file = world.directory / "engine.toml"
        self.file.write_text(config.toml(settings) + "\n")

    def start(self):
        until("the load's vhost socket", self.socket.exists, 20)
        self.child = self.world.child("engine", [binary(), "run", "--config", self.file], self.world.directory)
        until("the engine's /metrics", lambda: not self.child.is_running() or self.metrics(), 30)
        if not self.child.is_running():
            raise Failed(f"the engine ended: {self.child.tail()}")
        self.resident_at_start = self.resident()

    def resident(self):
        """Bytes."""
        status = pathlib.Path("/proc", str(self.child.pid), "status").read_text()
        return 1024 * int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)[1])

    def metrics(self):
        try:
            with urllib.request.urlopen(f"http://{config.ADMIN[0]}:{config.ADMIN[1]}/metrics", timeout=5) as page:
                return Metrics(page.read().decode())
        except OSError:
            return None

    def read(self):
        metrics = self.metrics()
        counts = {
            key: metrics.matching(pattern)
            for key, pattern in (
                ("full", r"sealane_relay_handshakes_tls1[23]_full_total"),
                ("resumed", r"sealane_relay_handshakes_tls1[23]_resumed_total"),
            )
        }
        return Reading(metrics.sum("sealane_lane_busy_seconds_total"), counts, thread_seconds(self.child.pid))

    def stop(self):
        # Connections that the load has cut need not be waited for.
        self.child.stop(seconds=3)
        self.socket.unlink(missing_ok=True)


class Kernel:
    """A proxy behind the kernel's sockets: one thread on one core, in the load's own network namespace."""

    loads_first = False
    load = ["--kernel", "--serve", f"{SERVER[0]}:{SERVER[1]}"]

    def __init__(self, world, certificate, tickets):
        self.world = world
        stem = CERTIFICATES[certificate]
        for address in (SERVICE[0], SERVER[0]):
            world.address(address)
        both = world.directory / f"{stem}.both"
        both.write_text((world.directory / f"{stem}.pem").read_text() + (world.directory / f"{stem}.key").read_text())
        self.file = world.directory / f"{self.name.replace(' ', '-')}.conf"
        self.file.write_text(self.configuration(stem, both))

    def start(self):
        self.child = self.world.child(self.name.replace(" ", "-"), ["taskset", "-c", str(PROXY_CORE), *self.command()])
        until(f"{self.name} to listen", lambda: not self.child.is_running() or listens(), 15)
        if not self.child.is_running():
            raise Failed(f"{self.name} ended: {self.child.tail()}")

    def read(self):
        # setpriv and taskset have made way for the proxy.
        busy = cpu_seconds(f"/proc/{self.child.pid}/stat")
        return Reading(busy, core=busy)

    def stop(self):
        self.child.stop(seconds=3)


def listens():
    try:
        with socket.create_connection(SERVICE, timeout=1):
            return True
    except OSError:
        return False


class Haproxy(Kernel):
    """As its "Performance considerations" say for one thread: nothing logged, TCP_NODELAY (http-no-delay is for HTTP), connections to servers reused in HTTP."""

    mode = None

    def configuration(self, stem, both):
        http = "    option http-keep-alive\n    http-reuse always\n    option http-no-delay\n" if self.mode == "http" else ""
        return f"""\
global
    nbthread 1
    maxconn 8000
    tune.ssl.cachesize 0
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode {self.mode}
    timeout connect 10s
    timeout client 60s
    timeout server 60s
{http}\
frontend shop
    bind {SERVICE[0]}:{SERVICE[1]} ssl crt {both} curves X25519:P-256 backlog 4096
    default_backend web
backend web
    server a {SERVER[0]}:{SERVER[1]}
"""

    def command(self):
        return ["haproxy", "-db", "-f", self.file]


class HaproxyTcp(Haproxy):
    name, mode = "haproxy tcp", "tcp"


class HaproxyHttp(Haproxy):
    name, mode = "haproxy http", "http"


class Nginx(Kernel):
    """As its guides say: one worker, no access log, many connections, connections to servers kept in HTTP."""

    body = None

    def configuration(self, stem, both):
        directory = self.world.directory
        tls = f"ssl_certificate {both}; ssl_certificate_key {both}; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off;"
        return f"""\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 18000;
events {{ worker_connections 8192; multi_accept on; use epoll; }}
{self.body.format(listen=f"{SERVICE[0]}:{SERVICE[1]}", server=f"{SERVER[0]}:{SERVER[1]}", tls=tls, directory=directory)}
"""

    def command(self):
        return ["nginx", "-p", self.world.directory, "-c", self.file]


class NginxStream(Nginx):
    name = "nginx stream"
    body = """\
stream {{
    server {{ listen {listen} ssl backlog=4096; {tls} tcp_nodelay on; proxy_pass {server}; }}
}}"""


class NginxHttp(Nginx):
    name = "nginx http"
    body = """\
http {{
    access_log off;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    upstream web {{ server {server}; keepalive 256; keepalive_requests 1000000; }}
    server {{
        listen {listen} ssl backlog=4096; {tls}
        location / {{
            proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off; proxy_max_temp_file_size 0;
        }}
    }}
}}"""


PEERS = {"haproxy": [HaproxyTcp, HaproxyHttp], "nginx": [NginxStream, NginxHttp]}
