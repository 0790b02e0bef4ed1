"""Connection limits and drains, which a reload brings and takes away again: where clients go whose server is full or drained."""

import concurrent.futures
import contextlib

from harness import config
from harness.clients import HandshakeFailed, told
from harness.trial import WEB
from harness.wait import until

POOL, HOST = "small", 60
SERVERS = {name: WEB[name] for name in ("a", "b")}


@contextlib.contextmanager
def _small(trial, max_connections, policy="immediate", **profile):
    """A service with two servers that have so many places each. Gives its pool's table."""
    pool = config.pool(POOL, SERVERS, monitor="connect")
    for server in pool["server"]:
        server["max_connections"] = max_connections
    with trial.added(
        pool=pool,
        persistence_profile=config.profile(POOL, policy) | profile,
        virtual_service=config.service(POOL, HOST, POOL, "shop-ecdsa", profile=POOL),
    ):
        yield pool


def _client(trial, version="1.3"):
    """A client that has visited, and its server."""
    client = trial.client(version, f"198.18.0.{HOST}")
    server = client.visit().server
    _until_open(trial, server, 0)
    return client, server


def _hold(client):
    """A connection to the client's server that stays open."""
    tls = client.connect(session=client.session)
    tls.sendall(b"echo\nhello")
    if tls.recv(100) != b"hello":
        raise AssertionError("the server does not answer")
    return tls


def _value(trial, name, server):
    return trial.engine.metrics().value(name, pool=POOL, server=server)


def _until_open(trial, server, count):
    until(f"{count} connections to {server}", lambda: _value(trial, "sealane_server_connections", server) == count)


def _record(trial, port, mark, reason, end):
    """What the engine says of a connection, and that it says why."""
    record = trial.ended(port, mark, end)
    assert record.reason == reason, f"{record} should say {reason}"
    return record


@contextlib.contextmanager
def _full(trial, version="1.3"):
    """A client, its server, and the two connections that fill it."""
    client, server = _client(trial, version)
    with _hold(client) as first, _hold(client) as second:
        _until_open(trial, server, 2)
        yield client, server, (first, second)
    _until_open(trial, server, 0)


def a_full_servers_client_is_switched_for_good(trial):
    for version in ("1.3", "1.2"):
        with trial.undisturbed(), _small(trial, 2, on_limit="switch"):
            mark = trial.engine.records.mark()
            with trial.counted("sealane_relay_decided_switched_limit_total"), _full(trial, version) as (client, server, _):
                switched = client.visit()
                assert switched.resumed and switched.server != server, switched
                record = _record(trial, switched.port, mark, "switched-limit", "finished")
                assert record.persistence["wanted"] == f"{POOL}/{server}", record
                assert _value(trial, "sealane_server_connections_max", server) == 2
            back = client.visit()
            assert back.resumed and back.server == switched.server, f"it went back: {back}"


def a_full_servers_client_is_spilled_once(trial):
    with trial.undisturbed(), _small(trial, 2, on_limit="spill"):
        mark = trial.engine.records.mark()
        with trial.counted("sealane_relay_decided_spilled_total"), _full(trial) as (client, server, _):
            spilled = client.visit()
            assert spilled.resumed and spilled.server != server, spilled
            _record(trial, spilled.port, mark, "spilled", "finished")
        back = client.visit()
        assert back.resumed and back.server == server, f"it did not go back: {back}"


def a_full_servers_client_is_refused(trial):
    for policy in ("immediate", "never", "never-even-if-down"):
        with trial.undisturbed(), _small(trial, 2, policy, on_limit="refuse"):
            mark = trial.engine.records.mark()
            with trial.counted("sealane_relay_decided_refused_limit_total"), _full(trial) as (client, server, held):
                refused = client.visit()
                assert refused.refused, refused
                record = _record(trial, refused.port, mark, "refused-limit", "refused")
                assert record.server is None, record
                held[0].close()
                _until_open(trial, server, 1)
                back = client.visit()
                assert back.resumed and back.server == server, back


def a_full_servers_client_waits_for_a_place(trial):
    with trial.undisturbed(), _small(trial, 2, "never", on_limit="queue", queue_max=1, queue_timeout="30s"):
        mark = trial.engine.records.mark()
        with concurrent.futures.ThreadPoolExecutor() as pool, _full(trial) as (client, server, held):
            waiting = pool.submit(client.visit, keep=False)
            until("it to wait", lambda: _value(trial, "sealane_server_waiting", server) == 1)
            # One may wait.
            refused = client.visit(keep=False)
            assert refused.refused, refused
            _record(trial, refused.port, mark, "refused-queue", "refused")
            assert not waiting.done()
            held[1].close()
            visit = waiting.result(20)
            assert visit.resumed and visit.server == server, visit
            _record(trial, visit.port, mark, "queued", "finished")
            assert _value(trial, "sealane_server_waiting", server) == 0


def a_client_that_waits_too_long_is_refused(trial):
    with trial.undisturbed(), _small(trial, 2, on_limit="queue", queue_timeout="1s"):
        mark = trial.engine.records.mark()
        with trial.counted("sealane_relay_ended_queue_timed_out_total"), _full(trial) as (client, _, __):
            visit = client.visit()
            assert visit.refused, visit
            record = _record(trial, visit.port, mark, "queued", "queue-timed-out")
            assert record.server is None and record.fields["duration_ms"] >= 1000, record


def clients_that_come_at_once_never_exceed_a_limit(trial):
    with trial.undisturbed(), _small(trial, 2, on_limit="refuse"), contextlib.ExitStack() as stack:
        clients = [trial.client(address=f"198.18.0.{HOST}") for _ in range(24)]

        def come(client):
            try:
                return _hold(client)
            except (HandshakeFailed, OSError):
                return None

        with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool, trial.counted("sealane_relay_decided_pool_full_total", 20):
            came = list(pool.map(come, clients))
        held = [stack.enter_context(tls) for tls in came if tls]
        assert len(held) == 4, f"{len(held)} got one of 4 places"
        for name in SERVERS:
            _until_open(trial, name, 2)
        # A place that is given back is the next client's.
        held[0].close()
        until("the place", lambda: sum(_value(trial, "sealane_server_connections", name) for name in SERVERS) == 3)
        visit = trial.client(address=f"198.18.0.{HOST}").visit()
        assert visit.server, visit
    for name in SERVERS:
        assert _value(trial, "sealane_server_connections", name) is None, "the pool is gone"


def a_reload_drains_a_server_and_its_time_is_up(trial):
    with trial.undisturbed(), _small(trial, 0) as pool:
        client, server = _client(trial)
        mark = trial.engine.records.mark()
        with _hold(client) as held:
            port = held.getsockname()[1]
            next(table for table in pool["server"] if table["name"] == server)["state"] = "draining"
            pool["drain_timeout"] = "never"
            trial.reload()
            switched = client.visit(keep=False)
            assert switched.resumed and switched.server != server, switched
            _record(trial, switched.port, mark, "switched-draining", "finished")
            held.sendall(b"still here")
            assert held.recv(100) == b"still here"
            # Its persisted clients may come, until the time is up.
            pool |= {"drain_admission": "allow-persisted", "drain_timeout": "1h"}
            trial.reload()
            same = client.visit(keep=False)
            assert same.resumed and same.server == server, same
            _record(trial, same.port, mark, "persisted-draining", "finished")
            for _ in range(4):
                new = trial.client(address=f"198.18.0.{HOST}").visit()
                assert new.server and new.server != server, new
            with trial.counted("sealane_relay_ended_server_drained_total"):
                pool["drain_timeout"] = "0s"
                trial.reload()
                trial.ended(port, mark, "server-drained")
            try:
                left = held.recv(100)
                raise AssertionError(f"the connection lives: {left}")
            except OSError:
                pass
            last = client.visit()
            assert last.resumed and last.server != server, last


def a_disabled_server_gets_nobody_and_what_is_open_is_reset(trial):
    with trial.undisturbed(), _small(trial, 0, "never") as pool:
        client, server = _client(trial)
        mark = trial.engine.records.mark()
        table = next(table for table in pool["server"] if table["name"] == server)
        with _hold(client) as held:
            port = held.getsockname()[1]
            with trial.counted("sealane_relay_ended_server_disabled_total"):
                table["state"] = "disabled"
                trial.reload()
                trial.ended(port, mark, "server-disabled")
            try:
                left = held.recv(100)
                raise AssertionError(f"the connection lives: {left}")
            except OSError as error:
                assert told(held, error) == "reset", error
            refused = client.visit()
            assert refused.refused, refused
            _record(trial, refused.port, mark, "refused-disabled", "refused")
        table["state"] = "enabled"
        trial.reload()
        back = client.visit()
        assert back.resumed and back.server == server, back