"""Engines that tell a router by BGP which virtual addresses they serve. BIRD speaks it on both sides, over the engines' own ports.

The world's own namespace is the router, and clients and servers live there, too:

    clients, servers, router 198.18.30.1 ── bridge "lan" ─┬─ tap1 ── engine 1 ── front0 198.18.30.11, BIRD
                                                          └─ tap2 ── engine 2 ── front0 198.18.30.12, BIRD

An engine shares its address with the kernel of the namespace that it runs in, whose interface front0 it makes. A second interface, a veth, is for the test itself.
"""

import json
import pathlib

from . import config
from .certificates import Authority
from .clients import NAME, PythonClient
from .cluster import Host
from .engine import Engine
from .processes import run
from .servers import Servers
from .trial import WEB
from .wait import until
from .world import HOST, REPOSITORY, TAP

ROUTER, ROUTER6 = "198.18.30.1", "2001:db8:30::1"
SHOP, SHOP6 = "198.18.40.10", "2001:db8:40::10"
FRONT = "front0"
BGP_SECONDS = 40

ROUTER_CONFIGURATION = """\
router id {router};
protocol device {{ }}
protocol bfd {{ interface "lan" {{ min rx interval 300 ms; min tx interval 300 ms; multiplier 5; }}; }}
protocol kernel kernel4 {{ merge paths on; scan time 10; ipv4 {{ import none; export all; }}; }}
protocol kernel kernel6 {{ merge paths on; scan time 10; ipv6 {{ import none; export all; }}; }}
template bgp engine {{
    bfd on;
    hold time 9;
    connect delay time 1;
    connect retry time 2;
    error wait time 1, 5;
}}
"""

ROUTER_NEIGHBOUR = """\
protocol bgp engine{number}v4 from engine {{
    local {router} as 65000;
    neighbor {address} as 65001;
    ipv4 {{ import all; export none; }};
}}
protocol bgp engine{number}v6 from engine {{
    local {router6} as 65000;
    neighbor {address6} as 65001;
    ipv6 {{ import all; export none; }};
}}
"""


class RoutedHost(Host):
    """A namespace whose engine is on the router's LAN, and whose kernel is there through the engine."""

    def __init__(self, world, number):
        super().__init__(world, number)
        self.daemon = None
        self.front, self.front6 = f"198.18.30.{10 + number}", f"2001:db8:30::{10 + number}"
        with self.inside():
            for key in ("all", "default"):
                pathlib.Path(f"/proc/sys/net/ipv6/conf/{key}/accept_dad").write_text("0")

    def plug(self):
        return self.ip("link", "show", TAP, check=False).returncode == 0

    def connect(self):
        """Puts the outer end of the engine's port into the router's bridge, once DPDK has started it."""
        name = f"tap{self.number}"
        self.ip("link", "set", "dev", TAP, "netns", self.world.name, "name", name)
        run("ip", "link", "set", name, "master", "lan", "up")
        if self.daemon:
            # As PartOf= has systemd do it: the BFD of BIRD 2.0.12 may stay silent on an interface that was gone.
            self.daemon.restart()

    def bird(self):
        """BIRD beside the engine, as dpdk-config/bird.conf has it."""
        text = (REPOSITORY / "dpdk-config/bird.conf").read_text()
        for there, here in (("2001:db8::1", ROUTER6), ("2001:db8::2", self.front6), ("198.18.0.1", ROUTER), ("198.18.0.2", self.front)):
            text = text.replace(f" {there} ", f" {here} ").replace(f" {there};", f" {here};")
        self.daemon = Bird(self, f"bird-{self.number}", text)
        return self.daemon


class RoutedEngine(Engine):
    def start(self, seconds=30):
        super().start(seconds)
        self.world.connect()


class Bird:
    """One routing daemon, running once made."""

    def __init__(self, world, name, text):
        self.world, self.name, self.socket = world, name, world.directory / f"{name}.ctl"
        self.file = world.directory / f"{name}.conf"
        self.file.write_text(text)
        run("bird", "-p", "-c", self.file)
        self.start()

    def start(self):
        self.child = self.world.child(self.name, ["bird", "-f", "-c", self.file, "-s", self.socket])
        until(f"{self.name} to answer", lambda: self.ask("show", "status"))

    def restart(self):
        self.child.stop()
        self.start()

    def ask(self, *words):
        answer = run("birdc", "-s", self.socket, *words, check=False)
        return answer.stdout if answer.returncode == 0 else ""

    def is_established(self, protocol):
        return "Established" in self.ask("show", "protocols", protocol)


class Site:
    """A router and so many engines that announce the shop to it."""

    def __init__(self, world, engines, rate=10_000):
        self.world = world
        self.authority = Authority(world.directory)
        self.authority.sign("shop-ecdsa", "ecdsa", NAME)
        run("ip", "link", "add", "lan", "type", "bridge")
        run("ip", "address", "add", f"{ROUTER}/24", "dev", "lan")
        run("ip", "-6", "address", "add", f"{ROUTER6}/64", "dev", "lan", "nodad")
        # One more port, so that the bridge, as a switch does, stays up without engines.
        run("ip", "link", "add", "other", "type", "veth", "peer", "name", "beyond")
        run("ip", "link", "set", "beyond", "up")
        run("ip", "link", "set", "other", "master", "lan", "up")
        run("ip", "link", "set", "lan", "up")
        world.address(HOST)
        for key, value in {"ipv4/ip_forward": 1, "ipv4/fib_multipath_hash_policy": 1, "ipv6/fib_multipath_hash_policy": 1}.items():
            pathlib.Path(f"/proc/sys/net/{key}").write_text(str(value))
        self.serve()
        self.ring = world.directory / "ring.toml"
        self.rate = rate
        self.hosts = [RoutedHost(world, number) for number in range(1, engines + 1)]
        self.engines = [RoutedEngine(host, self.settings(host, engines), f"engine-{host.number}") for host in self.hosts]
        self.neighbours = [host.bird() for host in self.hosts]
        text = ROUTER_CONFIGURATION.format(router=ROUTER)
        for host in self.hosts:
            text += ROUTER_NEIGHBOUR.format(number=host.number, router=ROUTER, router6=ROUTER6, address=host.front, address6=host.front6)
        self.router = Bird(world, "bird-router", text)

    def serve(self):
        """Starts the servers; `self.servers.stop()` takes the whole pool down."""
        self.servers = Servers(self.world, {name: (*address, False) for name, address in WEB.items()})

    def settings(self, host, engines):
        settings = config.base(**({"source": "file", "file": str(self.ring), "rotation": "6h", "lifetime": "24h"} if engines > 1 else {}))
        settings["engine"] |= {
            "name": f"engine-{host.number}",
            "admin": f"{host.address}:9900",
            "hugepages": "never",
            "buffers": 4096,
            "drain_delay": "5s",
            "announce": {"table": 198},
            "trace": {"one_in": 0},
        }
        if engines == 1:
            # It goes on telling the kernel, without root's rights.
            settings["engine"]["user"] = "nobody"
        settings["port"][0] |= {
            "addresses": [f"{host.front}/24", f"{host.front6}/64"],
            "gateways": [ROUTER, ROUTER6],
            "kernel": {"interface": FRONT, "rate": self.rate},
        }
        settings["health_monitor"] = [config.monitor("connect")]
        settings["persistence_profile"] = [config.profile("move", "immediate")]
        settings["pool"] = [config.pool("web", WEB, monitor="connect")]
        shop = config.service("shop", 10, "web", "shop-ecdsa", profile="move") | {"addresses": [f"{SHOP}:443", f"[{SHOP6}]:443"]}
        settings["virtual_service"] = [shop]
        return settings

    def client(self, version="1.3", address=SHOP, source=HOST):
        return PythonClient(self.world, version, address, self.authority.certificate, source=source)

    def next_hops(self, address=SHOP):
        """Where the router sends packets for an address, as BGP has told it."""
        found = json.loads(run("ip", "-json", "-6" if ":" in address else "-4", "route", "show", address, "proto", "bird").stdout or "[]")
        return sorted(hop["gateway"] for route in found for hop in route.get("nexthops", [route]))

    def wait_for(self, hops, seconds=BGP_SECONDS, address=SHOP):
        """Waits until the router sends packets for the shop to these engines and no others."""
        until(f"next hops {hops} to {address}", lambda: self.next_hops(address) == sorted(hops), seconds)

    def wait_for_bfd(self, host):
        """Waits until the router would notice that an engine is gone."""

        def is_up():
            lines = self.router.ask("show", "bfd", "sessions").splitlines()
            return any(line.split()[:1] == [host.front] and " Up " in line for line in lines)

        until("BFD to be up", is_up, BGP_SECONDS)
