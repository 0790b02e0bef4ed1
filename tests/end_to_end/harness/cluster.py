"""Several engines of one cluster, each in a network namespace of its own, behind a router that spreads connections over them by ECMP.

The world's own namespace is the router, and clients and servers live there, too:

    clients, servers, router 198.18.0.1 ── veth 198.18.2N.0/30 ── host of engine N ── tap 198.18.3N.0/24 ── engine N
                                           198.18.2N.1   .2                           .1               .2

All engines answer for the same virtual address, to which the router has one route with a next hop for each engine. It hashes addresses and ports, so a
client's next connection may meet any engine, as one rehash after the other would have it.
"""

import contextlib
import os
import pathlib

from . import config
from .clients import NAME, PythonClient
from .certificates import Authority
from .engine import Engine
from .processes import Child, run
from .trial import WEB
from .servers import Servers
from .world import HOST, TAP, enter

SHOP = "198.18.0.10"


class Host:
    """The namespace in which one engine runs. To an [`Engine`] it is its world."""

    def __init__(self, world, number):
        self.world, self.number = world, number
        self.name = f"{world.name}-engine{number}"
        self.directory = world.directory
        self.uplink, self.address = f"198.18.2{number}.1", f"198.18.2{number}.2"
        self.tap, self.engine = f"198.18.3{number}.1", f"198.18.3{number}.2"
        world.stack.callback(run, "ip", "netns", "delete", self.name, check=False)
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", f"to{number}", "type", "veth", "peer", "name", "front", "netns", self.name)
        run("ip", "address", "add", f"{self.uplink}/30", "dev", f"to{number}")
        run("ip", "link", "set", f"to{number}", "up")
        self.ip("link", "set", "lo", "up")
        self.ip("address", "add", f"{self.address}/30", "dev", "front")
        self.ip("link", "set", "front", "up")
        self.ip("route", "add", "default", "via", self.uplink)
        run("ip", "route", "add", f"198.18.3{number}.0/24", "via", self.address)
        with self.inside():
            pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def ip(self, *arguments, check=True):
        return run("ip", "-netns", self.name, *arguments, check=check)

    @contextlib.contextmanager
    def inside(self):
        """This process is in the host's namespace meanwhile."""
        home, there = (os.open(path, os.O_RDONLY) for path in ("/proc/self/ns/net", f"/run/netns/{self.name}"))
        try:
            enter(there)
            yield
        finally:
            enter(home)
            os.close(home)
            os.close(there)

    def child(self, name, command, cwd=None):
        with self.inside():
            child = Child(name, command, self.directory / f"{name}.log", cwd)
        self.world.stack.callback(child.stop)
        return child

    def plug(self):
        if self.ip("link", "show", TAP, check=False).returncode != 0:
            return False
        self.ip("link", "set", TAP, "up")
        self.ip("address", "replace", f"{self.tap}/24", "dev", TAP)
        self.ip("route", "replace", SHOP, "via", self.engine, "dev", TAP)
        return True

    @contextlib.contextmanager
    def cut_off(self, address):
        """Nothing that the host sends arrives at an address meanwhile, nor any answer at the host."""
        self.ip("route", "add", "blackhole", address)
        try:
            yield
        finally:
            self.ip("route", "delete", "blackhole", address)


class Cluster:
    """Three engines and what is around them. `ticket_keys(number)` is that section of an engine's configuration."""

    def __init__(self, world, ticket_keys, engines=3):
        self.world = world
        self.authority = Authority(world.directory)
        self.authority.sign("shop-ecdsa", "ecdsa", NAME)
        self.servers = Servers(world, {name: (*address, False) for name, address in WEB.items()})
        world.address(HOST)
        for key, value in {"ip_forward": 1, "fib_multipath_hash_policy": 1}.items():
            pathlib.Path(f"/proc/sys/net/ipv4/{key}").write_text(str(value))
        self.ticket_keys = ticket_keys
        self.hosts = [Host(world, number) for number in range(1, engines + 1)]
        self.engines = [self.engine(host) for host in self.hosts]
        self.spread(self.hosts)

    def engine(self, host):
        settings = config.base(**self.ticket_keys(host.number))
        core = settings["engine"]["cores"][host.number % 2]
        settings["engine"] |= {
            "name": f"engine-{host.number}",
            "cores": [core],
            "control_core": core,
            "admin": f"{host.address}:9900",
            # The three of them share the machine's memory with whatever else runs.
            "hugepages": "never",
            "buffers": 4096,
            "trace": {"one_in": 0},
        }
        settings["port"][0] |= {"addresses": [f"{host.engine}/24"], "gateways": [host.tap]}
        settings["health_monitor"] = [config.monitor("connect")]
        settings["persistence_profile"] = [config.profile("move", "immediate")]
        settings["pool"] = [config.pool("web", WEB, monitor="connect")]
        settings["virtual_service"] = [config.service("shop", 10, "web", "shop-ecdsa", profile="move") | {"addresses": [f"{SHOP}:443"]}]
        return Engine(host, settings, f"engine-{host.number}")

    def ready(self, engine):
        """Waits until an engine's monitors have seen every server."""
        for name in WEB:
            engine.wait_for_server("web", name, True)

    def spread(self, hosts):
        """Has the router spread connections over these engines and no others."""
        hops = [word for host in hosts for word in ("nexthop", "via", host.address)]
        run("ip", "route", "replace", SHOP, "src", HOST, *hops)

    def clients(self, count):
        """Half of them of TLS 1.3, half of TLS 1.2."""
        return [PythonClient(self.world, ("1.3", "1.2")[number % 2], SHOP, self.authority.certificate) for number in range(count)]

    def account(self, visit):
        """What engines have written of a visit, and of servers and keys of late."""

        def of(engine):
            engine.records.read()
            told = [line for line in engine.records.lines if "server is" in line or "alarm" in line or "ring" in line]
            return [f"{engine.name}: {engine.records.find(visit.port)}", *told[-12:]]

        return "\n".join(line for engine in self.engines for line in of(engine))

    def resumed(self):
        """How many sessions each engine has resumed."""
        return [engine.metrics().matching(r"sealane_relay_handshakes_tls1[23]_resumed_total") for engine in self.engines]
