"""What the end-to-end cases share: a world with obliging servers and an engine with a virtual service for every need."""

import contextlib
import ssl
import threading
import time

from . import config
from .certificates import Authority, ClientAuthority
from .clients import NAME, CurlClient, OpensslClient, PythonClient, read_all
from .engine import Engine
from .processes import run
from .servers import Servers
from .tls import ByHand
from .wait import TimedOut, until

WEB = {"a": ("198.18.1.11", 8000), "b": ("198.18.1.12", 8000), "c": ("198.18.1.13", 8000)}
PROXIED = ("198.18.1.21", 8000)
REFUSING = ("198.18.1.31", 9)
UNANSWERED = ("198.18.1.32", 8000)
UNREACHABLE = ("198.18.77.77", 8000)

# Virtual services, by the last part of their addresses.
SHOP, BANK, STRICT, PROXY1, PROXY2, TO_REFUSING, TO_UNREACHABLE, TO_UNANSWERED, HASTY = range(10, 19)
# Those whose clients have certificates.
CERTIFIED, ASKING, TELLING = range(40, 43)
# Whose clients are known by their addresses.
BY_ADDRESS = 43


def at(service):
    """The IPv4 address of a virtual service."""
    return f"198.18.0.{service}"


def at6(service):
    return f"2001:db8::{service}"


class Trial:
    """A world, its servers and its engine. Cases get one that all share."""

    def __init__(self, world, **ticket_keys):
        self.world = world
        self.authority = Authority(world.directory)
        for kind in ("ecdsa", "rsa"):
            self.authority.sign(f"shop-{kind}", kind, NAME)
        self.clients = ClientAuthority(world.directory, "clients")
        listeners = {name: (*address, False) for name, address in WEB.items()}
        self.servers = Servers(world, listeners | {"proxied": (*PROXIED, True), "unanswered": (*UNANSWERED, False)})
        world.address(REFUSING[0])
        # What this server answers to the engine never leaves the host.
        run("ip", "rule", "add", "from", UNANSWERED[0], "to", "198.18.0.2", "blackhole")
        self.engine = Engine(world, self.settings(**ticket_keys))
        for name in WEB:
            self.engine.wait_for_server("web", name, True)
        self.buffers = self.engine.metrics().sum("sealane_lane_buffers_in_use")

    @staticmethod
    def settings(**ticket_keys):
        settings = config.base(**ticket_keys)
        settings["health_monitor"] = [config.monitor("connect")]
        settings["persistence_profile"] = [config.profile("move", "immediate"), config.profile("wait", "never"), config.by_address("address")]
        settings["pool"] = [
            config.pool("web", WEB, monitor="connect"),
            config.pool("proxied", {"proxied": PROXIED}),
            config.pool("refusing", {"refusing": REFUSING}),
            config.pool("unreachable", {"unreachable": UNREACHABLE}),
            config.pool("unanswered", {"unanswered": UNANSWERED}),
        ]
        stems = ("shop-ecdsa", "shop-rsa")
        settings["virtual_service"] = [
            config.service("shop", SHOP, "web", *stems, profile="move"),
            config.service("bank", BANK, "web", *stems, profile="wait"),
            config.service("strict", STRICT, "web", *stems, strict_sni=True),
            config.service("proxy-1", PROXY1, "proxied", *stems, proxy_protocol="v1"),
            config.service("proxy-2", PROXY2, "proxied", *stems, proxy_protocol="v2"),
            config.service("to-refusing", TO_REFUSING, "refusing", *stems),
            config.service("to-unreachable", TO_UNREACHABLE, "unreachable", *stems, connect_timeout="20s"),
            config.service("to-unanswered", TO_UNANSWERED, "unanswered", *stems, connect_timeout="1s"),
            config.service(
                "hasty", HASTY, "web", *stems, handshake_timeout="1s", idle_timeout="2s", half_closed_timeout="2s", profile="move"
            ),
            config.service("by-address", BY_ADDRESS, "web", *stems, profile="address"),
            config.service("certified", CERTIFIED, "web", *stems, profile="move", client_certificates=config.clients("required")),
            config.service("asking", ASKING, "web", *stems, profile="move", client_certificates=config.clients("optional")),
            config.service("telling", TELLING, "proxied", *stems, proxy_protocol="v2-ssl", client_certificates=config.clients("optional")),
        ]
        return settings

    def client(self, version="1.3", address=None, identity=None, source=None):
        return PythonClient(self.world, version, address or at(SHOP), self.authority.certificate, identity=identity, source=source)

    def openssl(self, version="1.3", address=None, identity=None):
        return OpensslClient(self.world, version, address or at(SHOP), self.authority.certificate, identity=identity)

    def curl(self, version="1.3", address=None, identity=None):
        return CurlClient(self.world, version, address or at(SHOP), self.authority.certificate, identity=identity)

    def by_hand(self, version="1.3", address=None, name=NAME):
        return ByHand(address or at(SHOP), self.client(version).context, name)

    def ask(self, command, version="1.3", address=None, identity=None):
        """Sends a command in a connection of its own and gives the whole answer, and the client's end of the connection."""
        with self.client(version, address, identity).connect() as tls:
            tls.sendall(command.encode() + b"\n")
            return read_all(tls).decode(), tls.getsockname()

    def reload(self):
        """Has the engine read its files anew, and waits until every lane uses them."""
        versions = "sealane_lane_configuration_version"
        before = min(self.engine.metrics().select(versions))
        self.engine.write()
        self.engine.reload()
        until("the new configuration", lambda: min(self.engine.metrics().select(versions)) > before, 10)

    def ended(self, port, mark, *ends):
        """Requires that the engine's record of a connection says that it ended in one of these ways."""
        record = self.engine.records.of(port, mark)
        if record.end not in ends:
            raise AssertionError(f"the connection should have ended with {' or '.join(ends)}: {record}")
        return record

    @contextlib.contextmanager
    def counted(self, pattern, least=1):
        """Requires that the metrics whose names match grow by `least` in total."""
        before = self.engine.metrics().matching(pattern)
        yield
        try:
            until("a metric", lambda: self.engine.metrics().matching(pattern) >= before + least, 5)
        except TimedOut:
            grown = self.engine.metrics().matching(pattern) - before
            raise AssertionError(f"metrics {pattern} grew by {grown:g} and not by {least}") from None

    def reload(self):
        """Has every lane take the configuration as it is now."""
        name = "sealane_lane_configuration_version"
        before = self.engine.metrics().select(name)
        self.engine.write()
        self.engine.reload()
        try:
            until("every lane to have the new configuration", lambda: min(self.engine.metrics().select(name)) > max(before), 10)
        except TimedOut as error:
            self.engine.records.read()
            raise AssertionError(f"{error}; the engine said: {self.engine.records.lines[-3:]}") from None

    @contextlib.contextmanager
    def added(self, **tables):
        """The configuration with these tables more, each by the name of its list; one table or several."""
        listed = [(kind, table) for kind, some in tables.items() for table in (some if isinstance(some, list) else [some])]
        try:
            for kind, table in listed:
                self.engine.settings[kind].append(table)
            self.reload()
            yield
        finally:
            for kind, table in listed:
                self.engine.settings[kind].remove(table)
            self.reload()

    @contextlib.contextmanager
    def undisturbed(self):
        """Requires that another client's visits, the whole time, all go well and stay on one server."""
        client, stop, errors, seen = self.client(), threading.Event(), [], []

        def visit():
            while not stop.is_set():
                try:
                    result = client.visit()
                    if result.error or not result.server or (seen and (result.server != seen[0] or not result.resumed)):
                        errors.append(result)
                    seen.append(result.server)
                except OSError as error:
                    errors.append(error)
                stop.wait(0.02)

        thread = threading.Thread(target=visit, daemon=True)
        thread.start()
        try:
            yield
            # At least two visits see the end of what was done.
            count = len(seen)
            until("the undisturbed client's next visits", lambda: errors or len(seen) >= count + 2, 20)
        finally:
            stop.set()
            thread.join(20)
        if errors:
            raise AssertionError(f"another client was disturbed, {len(errors)} times in {len(seen) + len(errors)} visits: {errors[0]}")

    def careless(self, version="1.3"):
        """A TLS context that takes any certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        number = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
        context.minimum_version = context.maximum_version = number
        return context


class Stopwatch:
    """Seconds, and what they make of bytes."""

    def __init__(self):
        self.began = time.monotonic()

    @property
    def seconds(self):
        return time.monotonic() - self.began

    def rate(self, length):
        return f"{length / self.seconds / 1e6:.0f} MB/s"
