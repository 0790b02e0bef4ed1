"""The demo: three nginx servers, one engine with two lanes on a tap, and clients that come back. Started by scripts/demo."""

import collections
import concurrent.futures
import pathlib
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/end_to_end"))

from harness import config, world  # noqa: E402
from harness.certificates import Authority  # noqa: E402
from harness.clients import NAME, CurlClient, OpensslClient, PythonClient  # noqa: E402
from harness.engine import Engine  # noqa: E402
from harness.nginx import Nginx  # noqa: E402
from harness.processes import Failed, run  # noqa: E402
from harness.wait import until  # noqa: E402

VISITS = 5
SERVERS = {"a": ("198.18.1.11", 8000), "b": ("198.18.1.12", 8000), "c": ("198.18.1.13", 8000)}
SHOP, BANK = "198.18.0.10", "198.18.0.11"
PLAN = [  # service, its address, client program, TLS version, how many
    # curl comes with TLS 1.3 only: it switches tickets off in TLS 1.2 (SSL_OP_NO_TICKET), so nothing could bring it back.
    ("shop", SHOP, CurlClient, "1.3", 4),
    *(("shop", SHOP, program, version, 4) for program in (OpensslClient, PythonClient) for version in ("1.3", "1.2")),
    *(("bank", BANK, program, version, 3) for program in (OpensslClient, PythonClient) for version in ("1.3", "1.2")),
]
COLUMNS = "{:<26} {:>6}  {:<8} {:<7} {}"

# The engine's reasons, as it logs them, in more words.
REASONS = {
    "no-mapping": "it brought no ticket that counts, so the next server in turn",
    "persisted": "its ticket names this server",
    "switched-down": "its ticket's server is down; another one, and a new ticket that says so",
    "refused-down": "its ticket's server is down, and it may go to no other",
    "pool-down": "no server is up",
}


def say(text):
    print(f"\n{time.strftime('%H:%M:%S')}  {text}", flush=True)


class Client:
    """A client of the demo with all its visits, each a pair of what the client saw and what the engine recorded."""

    def __init__(self, world_, authority, number, service, address, program, version):
        self.service, self.program = service, program
        self.name = f"{service} {number:>2} {program.program.split()[0]} {version}"
        self.browser = program(world_, version, address, authority)
        self.visits = []

    @property
    def server(self):
        """The server it was last sent to."""
        return next((visit.server for visit, _ in reversed(self.visits) if visit.server), None)


class Table:
    """Prints visits as they come, a row for visits in a row that went alike."""

    def __init__(self):
        print("\n" + COLUMNS.format("client", "visit", "TLS", "server", "why (from the engine's record of the connection)"))
        print("─" * 110)

    def event(self, text):
        print(f"── {text} " + "─" * max(0, 106 - len(text)), flush=True)

    def rows(self, client, first):
        """The client's visits from number `first` on."""
        groups = []
        for number, (visit, record) in enumerate(client.visits[first - 1 :], first):
            handshake = "reset" if visit.error else "resumed" if visit.resumed else "full"
            if visit.error == "reset" and record.resumed is not None:
                handshake = "resumed" if record.resumed else "full"
            reason = record.reason
            why = f"{reason}: {REASONS[reason]}" if reason in REASONS else str(reason)
            if visit.error not in (None, "reset"):
                why = f"{visit.error} ({why})"
            cells = (handshake, visit.server or ("reset" if visit.refused else "none"), why)
            if groups and groups[-1][2] == cells:
                groups[-1][1] = number
            else:
                groups.append([number, number, cells])
        for begin, end, cells in groups:
            print(COLUMNS.format(client.name, f"{begin}" if begin == end else f"{begin}-{end}", *cells), flush=True)


class Claims:
    """What was promised, and whether it is so."""

    def __init__(self):
        self.all = []

    def add(self, text, good, bad=()):
        """A claim holds when `good` does; `bad` names those for which it does not."""
        names = [str(name) for name in bad]
        self.all.append((text, bool(good) and not names, names))

    def close(self):
        print("\nWhat was shown")
        for text, good, names in self.all:
            print(f"  {'ok    ' if good else 'FAILED'}  {text}")
            for name in names[:8]:
                print(f"            not so: {name}")
        return all(good for _, good, _ in self.all)


class Demo:
    """The play, an act a method."""

    def __init__(self, stage):
        self.world = stage
        self.claims = Claims()

    def play(self):
        self.set_up()
        self.table = Table()
        self.first_visits()
        self.look_into_a_ticket()
        self.strangers()
        self.server_dies()
        self.server_returns()
        self.keys_rotate()
        self.engine_restarts()
        self.close()
        return self.claims.close()

    def set_up(self):
        say(f"Setting up in the network namespace {self.world.name} (look in with `ip netns exec {self.world.name} …`)")
        print("  certificates: an ECDSA and an RSA one")
        self.authority = Authority(self.world.directory)
        for kind in ("ecdsa", "rsa"):
            self.authority.sign(f"shop-{kind}", kind, NAME)
        print("  nginx servers: " + ", ".join(f"{name} at {host}:{port}" for name, (host, port) in SERVERS.items()))
        self.nginx = {name: Nginx(self.world, name, *address) for name, address in SERVERS.items()}
        self.keys = self.world.directory / "keys.ring"
        run(world.binary(), "keys", "new", self.keys)
        settings = config.base(source="file", file=str(self.keys), rotation="6h", lifetime="24h")
        settings["pool"] = [config.pool("web", SERVERS, monitor="connect")]
        settings["health_monitor"] = [config.monitor("connect")]
        settings["persistence_profile"] = [config.profile("move", "immediate"), config.profile("wait", "never")]
        stems = ("shop-ecdsa", "shop-rsa")
        settings["virtual_service"] = [
            config.service("shop", 10, "web", *stems, profile="move"),
            config.service("bank", 11, "web", *stems, profile="wait"),
        ]
        print("  engine: two lanes on net_tap, services shop (select_new_server_when_persistent_server_down = immediate) and bank (never)")
        self.engine = Engine(self.world, settings)
        self.wait_for_servers(SERVERS)
        self.buffers = self.engine.metrics().sum("sealane_lane_buffers_in_use")
        self.clients = []
        for plan in PLAN:
            *who, count = plan
            self.clients += [Client(self.world, self.authority.certificate, len(self.clients) + n + 1, *who) for n in range(count)]
        self.patient = [client for client in self.clients if client.program.repeatable]

    def wait_for_servers(self, names, up=True):
        for name in names:
            self.engine.wait_for_server("web", name, up)

    def visit(self, clients, count=1):
        """Lets clients visit, several at once, and prints their rows. Gives the number of the first visit of these."""
        mark = self.engine.records.mark()
        first = {client.name: len(client.visits) + 1 for client in clients}

        def visits(client):
            if client.program.repeatable:
                return client, [client.browser.visit() for _ in range(count)]
            return client, client.browser.visits(count)

        crowd = concurrent.futures.ThreadPoolExecutor(4)
        try:
            for client, seen in crowd.map(visits, clients):
                for visit in seen:
                    client.visits.append((visit, self.engine.records.of(visit.port, mark)))
                self.table.rows(client, first[client.name])
        finally:
            # Whoever interrupts does not wait for visits that have not begun.
            crowd.shutdown(cancel_futures=True)

    def of(self, service, clients=None):
        return [client for client in clients or self.clients if client.service == service]

    def stayed(self, before, clients=None):
        """Clients that were not, on their last visit, resumed and sent to the server of `before`."""
        return [
            f"{client.name} was at {before[client.name]}, came to {client.visits[-1][0].server or client.visits[-1][0].error}"
            for client in clients or self.patient
            if not (client.visits[-1][0].server == before[client.name] and client.visits[-1][0].resumed)
        ]

    def places(self):
        return {client.name: client.server for client in self.clients}

    def spread(self, servers, least):
        """The distribution in words, and whether every server got its share."""
        counts = collections.Counter(servers)
        return ", ".join(f"{name} {counts[name]}" for name in SERVERS), all(counts[name] >= least for name in SERVERS)

    def first_visits(self):
        self.table.event(f"{len(self.clients)} clients, {VISITS} visits each; all come from {world.HOST}: their addresses say nothing")
        self.visit(self.clients, VISITS)
        returns = [(client, visit, record) for client in self.clients for visit, record in client.visits[1:]]
        lost = [client.name for client, visit, record in returns if visit.server is None or visit.server != client.visits[0][0].server]
        full = [client.name for client, visit, record in returns if not visit.resumed or not record.resumed]
        eager = [client.name for client in self.clients if client.visits[0][0].resumed]
        other = [c.name for c in self.clients for visit, record in c.visits if record.server != visit.server]
        odd = [c.name for c in self.clients if [record.reason for _, record in c.visits] != ["no-mapping"] + ["persisted"] * (VISITS - 1)]
        good = len(returns) - len(lost)
        self.claims.add(
            f"a returning client gets its server: {len(self.clients)} clients x {VISITS} visits, {good} of {len(returns)} returns "
            f"({100 * good / len(returns):.0f} %)",
            len(self.clients) >= 20,
            lost,
        )
        self.claims.add(
            "the first visit is a full handshake, every return a resumed one, as client and engine both say", True, full + eager
        )
        self.claims.add("the engine recorded the server that answered, and why: first no-mapping, then persisted", True, other + odd)
        text, even = self.spread([client.visits[0][0].server for client in self.clients], len(self.clients) // 6)
        self.claims.add(f"first visits are spread over the servers: {text}", even)

    def look_into_a_ticket(self):
        client = next(client for client in self.clients if client.program is OpensslClient)
        self.table.event(f"what is sealed in the ticket of {client.name}: sealane ticket inspect")
        command = ["ticket", "inspect", "--keys", self.keys, "--config", self.engine.file, "--session", client.browser.file]
        result = run(world.binary(), *command, check=False)
        print("".join(f"    {line}\n" for line in (result.stdout + result.stderr).splitlines()), end="")
        found = re.search(rf"\bserver (?:web/)?{client.server}\b", result.stdout)
        self.claims.add("`sealane ticket inspect` opens the ticket that openssl saved and finds its server in it", found)

    def strangers(self):
        self.table.event("one client that never keeps a ticket")
        stranger = Client(self.world, self.authority.certificate, 0, "shop", SHOP, PythonClient, "1.3")
        stranger.name = "a stranger, Python 1.3"
        mark = self.engine.records.mark()
        for _ in range(12):
            visit = stranger.browser.visit(keep=False)
            stranger.visits.append((visit, self.engine.records.of(visit.port, mark)))
        self.table.rows(stranger, 1)
        text, even = self.spread([visit.server for visit, _ in stranger.visits], 2)
        self.claims.add(f"a client without a ticket is spread, 12 visits: {text}", even)

    def server_dies(self):
        here = self.places()
        homes = [collections.Counter(here[c.name] for c in self.of(service, self.patient)) for service in ("shop", "bank")]
        self.victim = max(SERVERS, key=lambda name: min(counter[name] for counter in homes))
        self.before = here
        self.movers = [c for c in self.of("shop", self.patient) if here[c.name] == self.victim]
        self.waiters = [c for c in self.of("bank", self.patient) if here[c.name] == self.victim]
        others = [c for c in self.patient if here[c.name] != self.victim]
        nginx = self.nginx[self.victim]
        self.table.event(f"server {self.victim} dies: its nginx, pid {nginx.child.pid}, is killed")
        nginx.stop()
        self.wait_for_servers([self.victim], up=False)
        self.visit(self.movers + self.waiters + others)
        moved = [c.name for c in self.movers if not (c.visits[-1][0].server not in (None, self.victim) and c.visits[-1][0].resumed)]
        self.claims.add(
            f"immediate: {len(self.movers)} clients of the dead server move to another, without a full handshake", self.movers, moved
        )
        self.refused_all("never: {} clients of the dead server are refused with a reset")
        self.claims.add(f"the other {len(others)} clients notice nothing", others, self.stayed(here, others))
        self.table.event(f"server {self.victim} is still down: next visit")
        self.moved_to = self.places()
        self.visit(self.movers + self.waiters)
        self.claims.add("immediate: those that moved stay where they moved to", self.movers, self.stayed(self.moved_to, self.movers))
        self.refused_all("never: {} clients are refused again")

    def refused_all(self, text):
        wrong = [c.name for c in self.waiters if not (c.visits[-1][0].refused and c.visits[-1][1].reason == "refused-down")]
        self.claims.add(text.format(len(self.waiters)), self.waiters, wrong)

    def server_returns(self):
        self.table.event(f"server {self.victim} is back")
        self.nginx[self.victim].start()
        self.wait_for_servers([self.victim])
        self.visit(self.movers + self.waiters)
        self.claims.add("immediate: no fail-back, those that moved stay", self.movers, self.stayed(self.moved_to, self.movers))
        self.claims.add("never: those that were refused return to their server", self.waiters, self.stayed(self.before, self.waiters))

    def keys_rotate(self):
        self.table.event("the ticket keys rotate: sealane keys rotate")
        here = self.places()
        old = self.sealing_key()
        run(world.binary(), "keys", "rotate", self.keys)
        until("the engine to seal with the new key", lambda: self.sealing_key() != old, 20, every=0.3)
        self.visit(self.patient, 2)
        self.claims.add("the keys rotate: nobody moves, tickets of the old key are honoured", True, self.stayed(here))
        stale = [c.name for c in self.patient if c.visits[-2][1].key_id != old or c.visits[-1][1].key_id == old]
        self.claims.add("the first visit after it was by a ticket of the old key, the second by one of the new key", True, stale)

    def sealing_key(self):
        """The key that the engine seals with now, seen from outside: a new client's ticket names it on the second visit."""
        probe = PythonClient(self.world, "1.3", SHOP, self.authority.certificate)
        probe.visit()
        mark = self.engine.records.mark()
        return self.engine.records.of(probe.visit().port, mark).key_id

    def engine_restarts(self):
        self.table.event("the engine stops and starts again with its key file")
        here = self.places()
        status = self.engine.stop()
        self.engine.start()
        self.wait_for_servers(SERVERS)
        self.visit(self.patient)
        self.claims.add("the engine drained and ended with status 0", status == 0, [] if status == 0 else [f"status {status}"])
        self.claims.add("the engine restarts with its key file: nobody moves", True, self.stayed(here))

    def close(self):
        def idle():
            metrics = self.engine.metrics()
            left = metrics.sum("sealane_lane_buffers_in_use") - self.buffers
            return left <= 0 and metrics.sum("sealane_tcp_connections") == 0 and metrics.sum("sealane_relay_open") == 0

        try:
            until("all buffers back and all connections gone", idle)
            self.claims.add("every packet buffer is back and no connection is left", True)
        except AssertionError as error:
            self.claims.add("every packet buffer is back and no connection is left", False, [error])


def main():
    world.require_root()
    world.interruptible()
    began = time.monotonic()
    stage = world.World("demo")
    try:
        with stage:
            good = Demo(stage).play()
    except KeyboardInterrupt as signal_:
        print(f"\nStopped ({signal_ or 'Ctrl-C'}); everything is cleaned up.")
        return 130
    except (Failed, AssertionError, OSError) as error:
        print(f"\nFAILED: {error}")
        return 1
    print(f"\n{'All of it holds' if good else 'Not all of it holds'}; {time.monotonic() - began:.0f} s. Everything is cleaned up.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
