"""The kernel's interface beside a port, and engines that announce over it which addresses they serve: real routing daemons on both sides."""

import contextlib
import hashlib
import os
import signal
import socket
import threading
import time

from harness import frames, world
from harness.processes import run
from harness.routed import FRONT, ROUTER, ROUTER6, SHOP, SHOP6, Site
from harness.wait import until
from harness.world import HOST

SSH = 2222


def the_kernel_has_what_is_not_the_engines_both_ways(_):
    with world.World("test") as stage:
        # More than the transfers below bring at once.
        site = Site(stage, 1, rate=200_000)
        host, engine = site.hosts[0], site.engines[0]
        site.wait_for([host.front])
        client = site.client()
        first = until("a visit", lambda: _served(client.visit()), 20)

        # One host to its neighbours: one Ethernet address, whoever answers.
        assert frames.ping(host.front) == 3 and frames.ping(host.front6) == 3 and frames.ping(SHOP) == 3
        lladdr = run("ip", "neighbour", "show", host.front).stdout.split("lladdr ")[1].split()[0]
        assert f"link/ether {lladdr} " in host.ip("link", "show", FRONT).stdout
        addresses = host.ip("address", "show", FRONT).stdout
        assert f"{host.front}/24" in addresses and f"{host.front6}/64" in addresses and SHOP not in addresses, addresses
        with host.inside():
            assert frames.ping(ROUTER) == 3 and frames.ping(ROUTER6) == 3, "the kernel's own ping"

        # TCP and UDP to the address that both share, from outside and from inside, in packets of every length, fragments among them.
        data = os.urandom(3 << 20)
        for address, router in ((host.front, ROUTER), (host.front6, ROUTER6)):
            with host.inside():
                inner = _listen(address)
            with inner as listener:
                assert _through(listener.getsockname(), data) == _digest(data)
            with _listen(router) as listener, host.inside():
                assert _through(listener.getsockname(), data) == _digest(data)
            _echo_datagrams(host, address, router)
        # Nobody listens there: the kernel says so, at once.
        began = time.monotonic()
        try:
            socket.create_connection((host.front, SSH), 5).close()
            raise AssertionError("somebody took the connection")
        except ConnectionRefusedError:
            assert time.monotonic() - began < 2

        visit = client.visit()
        assert (visit.error, visit.resumed, visit.server) == (None, True, first.server), visit
        metrics = engine.metrics()
        given, taken = (metrics.sum(f"sealane_kernel_{name}_total") for name in ("given", "taken"))
        assert given > 1000 and taken > 1000
        assert metrics.matching(r"sealane_kernel_\w+_limited_total") == 0
        assert engine.stop() == 0
        assert host.ip("link", "show", FRONT, check=False).returncode != 0, "the interface outlives the engine"
        return f"{given:.0f} frames to the kernel, {taken:.0f} back"


def a_flood_that_is_not_ours_is_limited_and_ends_no_routing_session(_):
    with world.World("test") as stage:
        site = Site(stage, 1, rate=1000)
        host, engine, client = site.hosts[0], site.engines[0], site.client()
        site.wait_for([host.front])
        visits, errors, stop = [], [], threading.Event()

        def visit():
            try:
                while not stop.is_set():
                    visits.append(client.visit())
            except OSError as error:
                errors.append(error)

        thread = threading.Thread(target=visit, daemon=True)
        thread.start()
        sent, limited = 0, 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            # From beyond the engine's own networks.
            flood.bind((HOST, 0))
            flood.connect((host.front, 9))
            # Longer than the sessions' hold time.
            until_, began = time.monotonic() + 12, time.monotonic()
            while time.monotonic() < until_:
                # Twenty times what is let through, and less than lanes take out of their queues on a busy machine.
                while sent < 20_000 * (time.monotonic() - began) and time.monotonic() < until_:
                    with contextlib.suppress(ConnectionRefusedError):
                        flood.send(b"not for you")
                    sent += 1
                assert site.next_hops() == [host.front], "the routing session ended"
        lasted = time.monotonic() - began
        stop.set()
        thread.join(20)
        errors += [visit for visit in visits if visit.error]
        assert visits and not errors, errors[:1]
        metrics = engine.metrics()
        limited = metrics.sum("sealane_kernel_strangers_limited_total")
        assert limited > sent / 2, f"{limited} of {sent}"
        assert metrics.sum("sealane_kernel_given_total") < 2 * (1000 * lasted + 256) + 2000
        assert metrics.sum("sealane_kernel_neighbours_limited_total") == 0
        assert site.router.is_established("engine1v4") and site.router.is_established("engine1v6")
        return f"{limited:.0f} of {sent} frames limited in {lasted:.0f} s, {len(visits)} visits meanwhile"


def a_router_learns_who_serves_an_address_and_who_stops_to(_):
    with world.World("test") as stage:
        site = Site(stage, 1)
        host, engine = site.hosts[0], site.engines[0]
        site.wait_for([host.front])
        site.wait_for([host.front6], address=SHOP6)
        assert engine.metrics().sum("sealane_announced") == 2
        client, client6 = site.client(), site.client(address=SHOP6, source=None)
        assert client.visit().error is None and client6.visit().error is None

        # The pool is down, and up again.
        site.servers.stop()
        site.wait_for([])
        site.wait_for([], address=SHOP6)
        assert engine.metrics().sum("sealane_announced") == 0
        site.serve()
        site.wait_for([host.front])

        # A drain: the route goes first, and whoever has a route still, a connection or a new one, is served meanwhile.
        assert site.client().visit().error is None
        run("ip", "route", "add", "198.18.40.0/24", "via", host.front)
        began = time.monotonic()
        engine.child.send(signal.SIGTERM)
        site.wait_for([], 4)
        withdrawn = time.monotonic() - began
        assert site.client().visit().error is None, "a connection behind the withdrawal is refused"
        assert engine.child.process.wait(20) == 0
        assert host.ip("link", "show", FRONT, check=False).returncode != 0

        # It comes back, and is killed: BFD notices.
        engine.start()
        site.wait_for([host.front])
        site.wait_for_bfd(host)
        began = time.monotonic()
        engine.child.stop(signal.SIGKILL)
        assert not host.ip("route", "show", "table", "198", check=False).stdout
        site.wait_for([], 5)
        return f"withdrawn {withdrawn:.1f} s after SIGTERM, {time.monotonic() - began:.1f} s after SIGKILL"


def two_engines_that_announce_an_address_share_its_clients(_):
    with world.World("test") as stage:
        run(world.binary(), "keys", "new", stage.directory / "ring.toml")
        site = Site(stage, 2)
        both = [host.front for host in site.hosts]
        site.wait_for(both)
        clients = [site.client(("1.3", "1.2")[number % 2]) for number in range(12)]
        servers = [until("a visit", lambda client=client: _served(client.visit()), 20).server for client in clients]
        _return(clients, servers, 4)
        met = [engine.metrics().matching(r"sealane_relay_handshakes_tls1[23]_resumed_total") for engine in site.engines]
        assert all(count > 0 for count in met), f"the router leaves engines out: {met}"

        # One drains, and its clients are at home at the other one.
        site.engines[0].child.send(signal.SIGTERM)
        site.wait_for(both[1:], 4)
        _return(clients, servers, 2)
        assert site.engines[0].child.process.wait(20) == 0
        _return(clients, servers, 1)
        # And back, with the other one killed.
        site.engines[0].start()
        site.wait_for(both)
        site.wait_for_bfd(site.hosts[1])
        site.engines[1].child.stop(signal.SIGKILL)
        site.wait_for(both[:1], 5)
        _return(clients, servers, 2)
        return f"{len(clients)} clients, resumed {'/'.join(f'{count:.0f}' for count in met)} by engine"


def _return(clients, servers, times):
    for _ in range(times):
        for client, server in zip(clients, servers, strict=True):
            visit = client.visit()
            assert (visit.error, visit.resumed, visit.server) == (None, True, server), f"TLS {client.version}, its server {server}: {visit}"


def _served(visit):
    return visit if visit.error is None else None


def _digest(data):
    return hashlib.sha256(data).hexdigest()


def _listen(address):
    """A listener that answers one connection with a digest of what it was sent."""
    listener = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)

    def answer():
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                hasher = hashlib.sha256()
                while part := connection.recv(65536):
                    hasher.update(part)
                connection.sendall(hasher.hexdigest().encode())

    threading.Thread(target=answer, daemon=True).start()
    return listener


def _through(where, data):
    with socket.create_connection(where[:2], 15) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(4096):
            answer += part
        return answer.decode()


def _echo_datagrams(host, address, router):
    """Datagrams of a few lengths, the longest in three fragments, to the host and back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.inside():
        inner = socket.socket(family, socket.SOCK_DGRAM)
        inner.bind((address, 0))
    with inner, socket.socket(family, socket.SOCK_DGRAM) as outer:
        outer.bind((router, 0))
        inner.settimeout(5)
        outer.settimeout(5)
        for length in (1, 1000, 1472, 4000):
            said = os.urandom(length)
            outer.sendto(said, inner.getsockname())
            heard, back = inner.recvfrom(8192)
            assert heard == said
            inner.sendto(heard, back)
            assert outer.recv(8192) == said
