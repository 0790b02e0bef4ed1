"""Algorithms of pools against real servers: who goes where, and who stays when a server goes."""

import collections
import contextlib
import socket
import threading
import time

from harness import config
from harness.trial import REFUSING, WEB
from harness.wait import until

POOL, HOST = "balanced", 61


@contextlib.contextmanager
def _balanced(trial, algorithm, **more):
    """A service without persistence, whose pool has three servers under an algorithm. Gives the pool's table."""
    settings = trial.engine.settings
    pool = config.pool(POOL, WEB, algorithm=algorithm) | more
    service = config.service(POOL, HOST, POOL, "shop-ecdsa")
    settings["pool"].append(pool)
    settings["virtual_service"].append(service)
    try:
        trial.reload()
        yield pool
    finally:
        settings["pool"].remove(pool)
        settings["virtual_service"].remove(service)
        trial.reload()


def _server_of(trial, source=None):
    visit = trial.client(address=f"198.18.0.{HOST}", source=source).visit()
    assert visit.server and not visit.resumed, visit
    return visit.server


def _set_state(trial, pool, name, state):
    next(server for server in pool["server"] if server["name"] == name)["state"] = state
    trial.reload()


class SlowFront:
    """A listener that hands each connection on to a server and holds back the answer for so many seconds."""

    def __init__(self, world, server, seconds):
        world.address("198.18.1.41")
        self.server, self.seconds = server, seconds
        self.listener = socket.create_server(("198.18.1.41", 8000), backlog=64)
        self.address = "198.18.1.41:8000"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        # Only shutting it down wakes who waits in accept.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(self.server, timeout=10) as server:
            server.sendall(client.recv(65536))
            while part := server.recv(65536):
                time.sleep(self.seconds)
                client.sendall(part)


def consistent_hash_keeps_each_address_at_its_server_and_moves_only_those_whose_server_goes(trial):
    hosts = [f"198.18.44.{number}" for number in range(1, 25)]
    for host in hosts:
        trial.world.address(host)
    with _balanced(trial, "consistent-hash") as pool:
        # Connections from ports of their own arrive on both lanes.
        lanes = {lane: trial.engine.metrics().value("sealane_relay_accepted_total", lane=lane) for lane in ("0", "1")}
        homes = {host: _server_of(trial, host) for host in hosts}
        for _ in range(2):
            assert {host: _server_of(trial, host) for host in hosts} == homes
        for lane, before in lanes.items():
            assert trial.engine.metrics().value("sealane_relay_accepted_total", lane=lane) > before + 10, lane
        assert set(homes.values()) == set(WEB), homes
        _set_state(trial, pool, "b", "disabled")
        moved = {host: _server_of(trial, host) for host in hosts}
        assert all(moved[host] == home if home != "b" else moved[host] != "b" for host, home in homes.items()), (homes, moved)
        assert {moved[host] for host, home in homes.items() if home == "b"} <= {"a", "c"}, moved
        _set_state(trial, pool, "b", "enabled")
        assert {host: _server_of(trial, host) for host in hosts} == homes, "those who had to move are back"


@contextlib.contextmanager
def _with_a_busy_server(trial, algorithm):
    """Eight connections stay open to the first of three servers."""
    with _balanced(trial, algorithm) as pool, contextlib.ExitStack() as held:
        for name in ("b", "c"):
            _set_state(trial, pool, name, "disabled")
        for _ in range(8):
            tls = held.enter_context(trial.client(address=f"198.18.0.{HOST}").connect())
            tls.sendall(b"echo\nhello")
            assert tls.recv(100) == b"hello"
        for name in ("b", "c"):
            _set_state(trial, pool, name, "enabled")
        yield


def power_of_two_gives_new_clients_to_the_less_busy_server(trial):
    """With three servers, a busy one gets a client only when it is drawn against another that is as busy."""
    with _with_a_busy_server(trial, "power-of-two"):
        counts = collections.Counter(_server_of(trial) for _ in range(40))
        assert counts["a"] == 0 and counts["b"] > 5 and counts["c"] > 5, counts


def least_connections_leaves_a_busy_server_alone(trial):
    with _with_a_busy_server(trial, "least-connections"):
        counts = collections.Counter(_server_of(trial) for _ in range(20))
        assert counts["a"] == 0 and counts["b"] > 5 and counts["c"] > 5, counts


def random_draws_servers_by_their_ratios(trial):
    servers = [{"name": name, "address": f"{host}:{port}", "ratio": ratio} for (name, (host, port)), ratio in zip(WEB.items(), (8, 1, 1))]
    with _balanced(trial, "random", server=servers):
        counts = collections.Counter(_server_of(trial) for _ in range(60))
        # 48 of 60 on average, with a deviation of 3: five of these to either side is one run in a million.
        assert 33 <= counts["a"] < 60, counts


def _of_server(trial, name, server):
    return trial.engine.metrics().value(name, pool=POOL, server=server)


def failures_of_live_connections_lower_a_servers_share_and_no_client_notices(trial):
    """One of two servers refuses, and no monitor looks: clients are tried at the other one, and soon hardly any goes to the first."""
    servers = [{"name": name, "address": f"{host}:{port}"} for name, (host, port) in {"a": WEB["a"], "gone": REFUSING}.items()]
    with _balanced(trial, "round-robin", server=servers):
        assert _of_server(trial, "sealane_server_share_percent", "gone") == 100
        assert {_server_of(trial) for _ in range(30)} == {"a"}
        until("the share to be the least", lambda: _of_server(trial, "sealane_server_share_percent", "gone") == 6, 5)
        failed = _of_server(trial, "sealane_server_failures_total", "gone")
        assert failed >= 7, failed
        assert {_server_of(trial) for _ in range(32)} == {"a"}
        more = _of_server(trial, "sealane_server_failures_total", "gone") - failed
        # By turns it would be half of them, with a sixteenth of the ratio it is two or three on each lane.
        assert 1 <= more <= 8, f"{more} of 32 visits went there first"
        assert _of_server(trial, "sealane_server_up", "gone") == 1, "it is never down by itself"
        assert _of_server(trial, "sealane_server_share_percent", "a") == 100


def passive_health_takes_a_server_out_where_that_is_asked_for(trial):
    servers = [{"name": name, "address": f"{host}:{port}"} for name, (host, port) in {"a": WEB["a"], "gone": REFUSING}.items()]
    with _balanced(trial, "round-robin", server=servers, passive_health="down", passive_down_time="5s"):
        deadline = 60
        while _of_server(trial, "sealane_server_out", "gone") == 0:
            assert _server_of(trial) == "a" and deadline > 0, "it is not taken out"
            deadline -= 1
        assert _of_server(trial, "sealane_server_up", "gone") == 0
        failed = _of_server(trial, "sealane_server_failures_total", "gone")
        assert [_server_of(trial) for _ in range(6)] == ["a"] * 6
        assert _of_server(trial, "sealane_server_failures_total", "gone") == failed, "nobody is sent there"
        until("the server to be back", lambda: _of_server(trial, "sealane_server_up", "gone") == 1, 10)


def a_server_that_a_reload_enables_starts_slowly(trial):
    with _balanced(trial, "round-robin", slow_start="6s") as pool:
        # A pool that a reload brings starts slowly as a whole.
        until("all to have their shares", lambda: all(_of_server(trial, "sealane_server_share_percent", name) == 100 for name in WEB), 10)
        _set_state(trial, pool, "b", "disabled")
        _set_state(trial, pool, "b", "enabled")
        counts = collections.Counter(_server_of(trial) for _ in range(18))
        assert counts["b"] < 4, f"a third of the visits at once: {counts}"
        assert _of_server(trial, "sealane_server_share_percent", "b") < 100
        assert _of_server(trial, "sealane_server_share_percent", "a") == 100
        until("the whole share", lambda: _of_server(trial, "sealane_server_share_percent", "b") == 100, 10)
        counts = collections.Counter(_server_of(trial) for _ in range(30))
        assert counts["b"] >= 8, counts


def the_fastest_server_gets_most_new_clients(trial):
    """The relay in front of one server holds back what it says, as a slow server does."""
    with _balanced(trial, "fastest"), SlowFront(trial.world, WEB["b"], 0.15) as slow:
        pool = next(one for one in trial.engine.settings["pool"] if one["name"] == POOL)
        next(server for server in pool["server"] if server["name"] == "b")["address"] = slow.address
        trial.reload()
        before = [_of_server(trial, f"sealane_server_{name}_total", "b") for name in ("answer_seconds", "answers")]
        for _ in range(30):
            _server_of(trial)
        until("shares to follow", lambda: _of_server(trial, "sealane_server_share_percent", "b") < 40, 5)
        counts = collections.Counter(_server_of(trial) for _ in range(40))
        assert counts["b"] < counts["a"] / 2 and counts["b"] < counts["c"] / 2, counts
        after = [_of_server(trial, f"sealane_server_{name}_total", "b") for name in ("answer_seconds", "answers")]
        seconds, answers = (now - then for now, then in zip(after, before))
        assert seconds / answers >= 0.15, f"an average of {seconds / answers} s"
