"""Three engines with the same keys behind an ECMP router: a client that returns keeps its server, whichever engine it meets, whatever becomes of engines and keys."""

import re
import shutil
import signal

from harness import world
from harness.clients import OpensslClient
from harness.cluster import SHOP, Cluster
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

    def __init__(self, cluster):
        self.servers, self.visits = {}, 0
        for engine in cluster.engines:
            cluster.ready(engine)
        self.join(cluster)

    def join(self, cluster):
        """New clients come."""
        for client in cluster.clients(CLIENTS):
            visit = client.visit()
            assert visit.error is None and visit.resumed is False, visit
            self.servers[client] = visit.server
            self.visits += 1
        assert len(set(self.servers.values())) > 1, "all clients were given one server"

    def return_times(self, times):
        for _ in range(times):
            for client, server in self.servers.items():
                visit = client.visit()
                assert (visit.error, visit.resumed, visit.server) == (None, True, server), f"TLS {client.version}, its server {server}: {visit}"
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
