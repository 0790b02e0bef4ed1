"""Three engines with the same keys behind an ECMP router: a client that returns keeps its server, whichever engine it meets, whatever becomes of engines and keys."""

import hashlib
import re
import shutil
import signal
import time

from harness import world
from harness.clients import OpensslClient
from harness.cluster import SHOP, Cluster
from harness.etcd import Etcd
from harness.processes import run
from harness.wait import until
from harness.world import binary

CLIENTS = 16


def returning_clients_keep_their_server_whichever_engine_they_meet_over_key_files(_):
    with world.World("test") as stage:
        keys = KeyFiles(stage)
        cluster = Cluster(stage, keys.section)
        cohort = Cohort(cluster)
        cohort.return_times(4)
        met = cluster.resumed()
        assert all(count > 0 for count in met), f"the router leaves engines out: {met}"
        _tickets_of_others_are_counted_as_theirs(cluster)

        # A new ring arrives at one engine after the other, and clients come back in between.
        for order in ((0, 1, 2), (2, 0, 1)):
            keys.rotate()
            for number in order:
                keys.deliver(cluster, number)
                cohort.return_times(1)
            cohort.join(cluster)

        _all_engines_explain_the_same(stage, cluster, keys)

        # An engine dies: its share of the clients meets the others.
        cluster.engines[1].child.stop(signal.SIGKILL)
        cluster.spread([cluster.hosts[0], cluster.hosts[2]])
        cohort.return_times(1)
        # It misses a rotation and comes back, with the ring that it had when it died, before it hears of the new one.
        keys.rotate()
        keys.deliver(cluster, 0)
        keys.deliver(cluster, 2)
        cohort.return_times(1)
        cluster.engines[1].start()
        cluster.ready(cluster.engines[1])
        cluster.spread(cluster.hosts)
        cohort.return_times(2)
        keys.deliver(cluster, 1)
        cohort.return_times(1)
        return f"{cohort.visits} visits of {len(cohort.servers)} clients, resumed {'/'.join(f'{count:.0f}' for count in cluster.resumed())} by engine"


def returning_clients_keep_their_server_whichever_engine_they_meet_over_etcd(_):
    with world.World("test") as stage:
        etcd = Etcd(stage)
        kek = stage.directory / "cluster.kek"
        run(binary(), "keys", "new-kek", kek)
        # A rotation takes longer than an engine's lease, as it does with the default of hours.
        section = {"source": "etcd", "endpoints": [etcd.endpoint], "key_encryption_key": str(kek), "rotation": "15s", "lifetime": "10m"}
        cluster = Cluster(stage, lambda _: section)
        cohort = Cohort(cluster, tls12_seconds=2 * 15 - 5)

        # Two rotations, and clients come back all the time, before, between and behind the engines' acknowledgements.
        _return_until_rotated(cluster, cohort, 2, cluster.engines)

        # The engine that rotates dies. Another one does, and clients of the dead one's tickets are at home with the others.
        dead = until("an engine to lead", lambda: next((engine for engine in cluster.engines if _leads(engine)), None), 20)
        dead.child.stop(signal.SIGKILL)
        alive = [engine for engine in cluster.engines if engine is not dead]
        cluster.spread([engine.world for engine in alive])
        _return_until_rotated(cluster, cohort, 1, alive)
        assert any(_leads(engine) for engine in alive)
        dead.start()
        cluster.ready(dead)
        cluster.spread(cluster.hosts)
        cohort.return_times(2)

        # An engine is cut off from etcd, and the others rotate once without it: it has the key that they seal with, which was pending.
        with cluster.hosts[0].cut_off(etcd.address):
            _return_until_rotated(cluster, cohort, 1, cluster.engines[1:])
            until("the alarm of the engine that is cut off", lambda: _alarm(cluster.engines[0], "unreachable"), 20)
        until("it to catch up", lambda: len(set(map(_version, cluster.engines))) == 1 and not _alarm(cluster.engines[0], "unreachable"), 30)
        cohort.return_times(1)

        # etcd dies and comes back. Nobody rotates meanwhile, and clients do not notice.
        etcd.stop()
        before = [_version(engine) for engine in cluster.engines]
        until("every engine's alarm", lambda: all(_alarm(engine, "unreachable") for engine in cluster.engines), 20)
        cohort.return_times(2)
        assert [_version(engine) for engine in cluster.engines] == before
        etcd.start()
        _return_until_rotated(cluster, cohort, 1, cluster.engines)
        return f"{cohort.visits} visits of {len(cohort.servers)} clients, ring {_version(cluster.engines[0]):.0f} at the end"


def _tickets_of_others_are_counted_as_theirs(cluster):
    """Every engine counts sessions that it has resumed by the engine that issued their tickets: itself by name, others by the hash that tickets carry."""
    numbers = {engine.name: hashlib.sha256(engine.name.encode()).hexdigest()[:16] for engine in cluster.engines}
    for engine, resumed in zip(cluster.engines, cluster.resumed(), strict=True):
        metrics = engine.metrics()
        for other in cluster.engines:
            issuer = other.name if other is engine else numbers[other.name]
            assert metrics.sum("sealane_ticket_issuer_resumed_total", issuer=issuer) > 0, f"{engine.name} has resumed nothing of {other.name}"
        assert metrics.sum("sealane_ticket_issuer_resumed_total") == resumed, f"{engine.name}: all that is resumed is somebody's"


def _return_until_rotated(cluster, cohort, rotations, engines):
    """Has clients come back, over and over, until each of these engines has seen so many rotations; then new ones come."""
    active = {engine: [_active(engine)] for engine in engines}

    def done():
        cohort.return_times(1)
        for engine, seen in active.items():
            key = _active(engine)
            if key != seen[-1]:
                seen.append(key)
        return all(len(seen) > rotations for seen in active.values())

    until(f"{rotations} rotations", done, 60 * rotations, every=0)
    cohort.join(cluster)


def _active(engine):
    """The key that an engine seals with."""
    return next(labels["key_id"] for name, labels, _ in engine.metrics().samples if name.startswith("sealane_ticket_active_key"))


def _version(engine):
    return engine.metrics().sum("sealane_ticket_ring_version")


def _leads(engine):
    return engine.child.is_running() and engine.metrics().sum("sealane_ticket_leader") == 1


def _alarm(engine, name):
    return engine.metrics().sum("sealane_ticket_alarm", alarm=name) == 1


def _all_engines_explain_the_same(stage, cluster, keys):
    """What `sealane ticket inspect` says of a ticket that openssl has saved: every engine would resume it and choose the same server."""
    client = OpensslClient(stage, "1.3", SHOP, cluster.authority.certificate)
    server = client.visit().server
    configurations = [word for engine in cluster.engines for word in ("--config", engine.file)]
    said = run(binary(), "ticket", "inspect", "--keys", keys.ring, *configurations, "--session", client.file).stdout
    engines = [line for line in said.splitlines() if line.startswith("at ")]
    assert len(engines) == len(cluster.engines), said
    for engine, line in zip(cluster.engines, engines, strict=True):
        admin = engine.settings["engine"]["admin"]
        assert line == f"at {engine.name:<13} resumed, to web/{server} (persisted); health as {admin} has it", said
    session = re.search(r"TLS session +(\d+) bytes, secret\n", said)
    assert session and int(session[1]) > 32, said


class Cohort:
    """Clients that must resume and find their server again each time."""

    def __init__(self, cluster, tls12_seconds=None):
        """TLS 1.2 sessions stay for so long only: two rotations after their full handshake the engine wants another one."""
        self.cluster = cluster
        self.servers, self.visits, self.tls12_seconds, self.joined = {}, 0, tls12_seconds, {}
        for engine in cluster.engines:
            cluster.ready(engine)
        self.join(cluster)

    def join(self, cluster):
        """New clients come."""
        for client in cluster.clients(CLIENTS):
            visit = client.visit()
            assert visit.error is None and visit.resumed is False, visit
            self.servers[client], self.joined[client] = visit.server, time.monotonic()
            self.visits += 1
        assert len(set(self.servers.values())) > 1, "all clients were given one server"

    def return_times(self, times):
        for _ in range(times):
            for client, server in list(self.servers.items()):
                if self.tls12_seconds and client.version == "1.2" and time.monotonic() > self.joined[client] + self.tls12_seconds:
                    del self.servers[client]
                    continue
                visit = client.visit()
                if (visit.error, visit.resumed, visit.server) != (None, True, server):
                    raise AssertionError(f"TLS {client.version}, its server {server}: {visit}\n{self.cluster.account(visit)}")
                self.visits += 1


class KeyFiles:
    """One ring, and each engine's copy of it, which somebody carries there."""

    def __init__(self, stage):
        self.directory, self.ring = stage.directory, stage.directory / "ring.toml"
        run(binary(), "keys", "new", self.ring)

    def section(self, number):
        shutil.copy2(self.ring, self._copy(number))
        return {"source": "file", "file": str(self._copy(number)), "rotation": "6h", "lifetime": "24h"}

    def _copy(self, number):
        return self.directory / f"ring-{number}.toml"

    def rotate(self):
        run(binary(), "keys", "rotate", self.ring)

    def deliver(self, cluster, place):
        """Puts the newest ring in the place of an engine's, whole and at once, and waits until the engine has it."""
        copy = self._copy(place + 1)
        fresh = copy.with_suffix(".new")
        shutil.copy2(self.ring, fresh)
        version = int(run(binary(), "keys", "list", self.ring).stdout.split()[1])
        fresh.rename(copy)
        engine = cluster.engines[place]
        until(f"ring {version} at engine {place + 1}", lambda: engine.metrics().sum("sealane_ticket_ring_version") == version, 5)
