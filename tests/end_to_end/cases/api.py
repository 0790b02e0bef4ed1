"""The API: what it shows and changes while clients come and go, and `sealane ctl`."""

import contextlib
import itertools
import json
import os
import socket
import ssl
import stat
import subprocess
import threading
import time

from harness.api import Refused
from harness.clients import NAME, read_all
from harness.processes import Failed
from harness.trial import WEB
from harness.wait import until
from harness.world import REPOSITORY, binary

CHANGES = 100
IN_FORCE_SECONDS = 1.0


def the_api_changes_a_server_and_its_connections_live_on(trial):
    api = trial.engine.api
    mode = os.stat(api.path)
    assert stat.S_ISSOCK(mode.st_mode) and stat.S_IMODE(mode.st_mode) == 0o600, "the socket is others' too"
    with _as_it_was(trial), trial.client().connect() as old:
        old.sendall(b"echo\nbefore")
        assert old.recv(100) == b"before"
        home = next(server for server in WEB if _state(trial, server)["connections"] == 1)
        for change in ({"state": "draining"}, {"ratio": 20}):
            api.change("PATCH", f"/v1/pools/web/servers/{home}", change)
        others = {trial.client().visit().server for _ in range(12)}
        assert others == set(WEB) - {home}, f"new clients went to {others} with {home} drained"
        api.change("DELETE", f"/v1/pools/web/servers/{home}")
        old.sendall(b"after")
        assert old.recv(100) == b"after", "a connection should outlive its server's removal"
        try:
            _state(trial, home)
        except Refused as refused:
            assert refused.status == 404, refused
        else:
            raise AssertionError("a server that was removed is still shown")
    assert {trial.client().visit().server for _ in range(12)} == set(WEB)


def whoever_is_overtaken_or_wrong_changes_nothing_over_the_api(trial):
    api = trial.engine.api
    before = api.request("GET", "/v1/configuration")
    wrong = [
        (412, "PATCH", "/v1/pools/web", {"algorithm": "least-connections"}, {"If-Match": '"0-0"'}),
        (422, "PATCH", "/v1/pools/web/servers/a", {"ratio": 21}, {}),
        (422, "DELETE", "/v1/pools/web", None, {}),
        (422, "PUT", "/v1/configuration", before[2].replace('name = "engine-1"', 'name = "another"'), {}),
        (404, "DELETE", "/v1/pools/nowhere", None, {}),
    ]
    with trial.undisturbed():
        for status, method, path, body, headers in wrong:
            answer = api.request(method, path, body, **headers)
            assert answer[0] == status, answer
            problem = json.loads(answer[2])
            assert answer[1]["Content-Type"] == "application/problem+json" and problem["status"] == status, answer
            if status == 422:
                assert all(fault["line"] and fault["key"] and fault["remedy"] for fault in problem["faults"]), problem
    after = api.request("GET", "/v1/configuration")
    assert (before[1]["ETag"], before[2]) == (after[1]["ETag"], after[2])


def a_hundred_changes_in_a_row_fail_no_request(trial):
    """SIGHUP and the API in turn, under clients that come without a pause and connections that stay."""
    slowest, steps = 0.0, itertools.cycle(_steps(trial))
    with _as_it_was(trial), _load(trial) as load:
        for number in range(CHANGES):
            change = next(steps)(number)
            served, began = load.served, time.monotonic()
            change()
            took = time.monotonic() - began
            slowest = max(slowest, took)
            assert took < IN_FORCE_SECONDS, f"change {number} took {took:.2f} s until it was in force on all lanes"
            # Each change meets clients.
            until("a client to be served", lambda: load.failed or load.served > served + 2, 10)
    assert not load.failed, f"{len(load.failed)} of {load.served + len(load.failed)} requests failed: {load.failed[0]}"
    return f"{load.served} requests, slowest change {slowest * 1000:.0f} ms"


def _steps(trial):
    """What prepares a change and gives it. Each leaves a pool that serves, and together they leave all as it was."""
    engine = trial.engine
    server, spare = "/v1/pools/web/servers/c", "/v1/pools/spare"
    address = "{}:{}".format(*WEB["c"])

    def api(method, path, body=None):
        return lambda _: lambda: engine.api.change(method, path, body)

    def hangup(number):
        engine.settings["pool"][0]["server"][0]["ratio"] = 1 + number % 3
        versions = "sealane_lane_configuration_version"
        before = min(engine.metrics().select(versions))
        engine.write()

        def change():
            engine.reload()
            until("the file to be in force", lambda: min(engine.metrics().select(versions)) > before, 10)

        return change

    def certificate(_):
        service = engine.api.get("/v1/virtual_services/shop")["configuration"]
        trial.authority.sign("shop-ecdsa", "ecdsa", NAME)
        return lambda: engine.api.change("PUT", "/v1/virtual_services/shop", service)

    service = engine.api.get("/v1/virtual_services/shop")["configuration"] | {"name": "spare", "pool": "spare", "addresses": ["198.18.0.77:443"]}
    return [
        hangup,
        api("PATCH", server, {"state": "draining"}),
        api("PATCH", server, {"state": "enabled", "ratio": 3}),
        api("PUT", spare, {"server": [{"name": "x", "address": address}]}),
        api("PUT", "/v1/virtual_services/spare", service),
        certificate,
        api("DELETE", server),
        api("PUT", server, {"address": address}),
        api("DELETE", "/v1/virtual_services/spare"),
        api("DELETE", spare),
    ]


class _Load:
    def __init__(self):
        self.served, self.failed, self.stop = 0, [], threading.Event()


@contextlib.contextmanager
def _load(trial):
    """Clients of both versions that come again at once, those with a session and those without, and one who stays."""
    load = _Load()

    def visit(client, returns):
        while not load.stop.is_set() and not load.failed:
            try:
                result = client.visit(keep=returns)
                if result.error or result.server not in WEB:
                    load.failed.append(result)
                    return
                load.served += 1
            except OSError as error:
                load.failed.append(error)

    def stay():
        with trial.client().connect() as tls:
            tls.sendall(b"echo\n")
            while not load.stop.wait(0.05):
                tls.sendall(b"still")
                if tls.recv(5) != b"still":
                    load.failed.append("a connection that stayed was lost")
                    return

    threads = [threading.Thread(target=visit, args=(trial.client(version), returns)) for version in ("1.2", "1.3") for returns in (True, False)]
    threads += [threading.Thread(target=stay) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join(20)


def ctl_shows_and_changes_the_engine(trial):
    with _as_it_was(trial):
        status = _ctl(trial, "status")
        assert "engine-1 of cluster trial, ready" in status and "as in the file" in status, status
        row = next(line.split() for line in _ctl(trial, "pools").splitlines() if line.startswith("web/b "))
        assert row[1:5] == ["{}:{}".format(*WEB["b"]), "enabled", "up", "1"], row
        said = _ctl(trial, "server", "web/b", "drain")
        assert "in force on all lanes" in said and "not saved" in said, said
        shown = json.loads(_ctl(trial, "server", "web/b", "--json"))
        assert shown["configuration"]["state"] == "draining" and not shown["state"]["usable"], shown
        refused = _ctl(trial, "server", "web/b", "ratio", "77", fails=True)
        assert "pool.server.ratio: is 77, which is out of range; write a number from 1 to 20" in refused, refused
        assert "discarded" in _ctl(trial, "reload")
        assert _state(trial, "b")["state"] == "enabled"
        _ctl(trial, "server", "web/b", "limit", "500")
        _ctl(trial, "save")
        assert "max_connections = 500" in trial.engine.file.read_text()


def keys_are_rotated_and_clients_explained_over_the_api(trial):
    api, client = trial.engine.api, trial.client()
    home = client.visit().server
    before = api.get("/v1/ticket_keys")
    with trial.undisturbed():
        rotated = api.ask("POST", "/v1/ticket_keys/rotate")
        assert rotated["in_force"] and rotated["version"] > before["version"], rotated
    visit = client.visit()
    assert visit.resumed and visit.server == home, f"a rotation lost a session: {visit}"
    said = _ctl(trial, "explain", "shop", "198.18.0.1")
    assert "no-mapping" in said and all(f"web/{server}" in said for server in WEB), said
    active = next(key["id"] for key in rotated["keys"] if key["state"] == "active")
    purged = api.ask("POST", "/v1/ticket_keys/purge", {"key": active})
    assert purged["in_force"] and active not in str(purged), purged
    visit = client.visit()
    assert visit.server and not visit.resumed, f"a ticket under a purged key counted: {visit}"
    assert client.visit().resumed
    assert active not in _ctl(trial, "keys", "list")


def whatever_the_openapi_document_allows_gets_an_answer_that_it_names(trial):
    """Schemathesis makes requests, right ones and wrong ones, of the document of the running engine."""
    program = REPOSITORY / "target/schemathesis/bin/schemathesis"
    if not program.exists():
        raise Failed(f"{program} is not there: run scripts/setup")
    with _as_it_was(trial), trial.engine.api.over_tcp() as url:
        # A drain ends the engine: another case has it. Whether a table holds is for the configuration's proof to say, not for a schema.
        # A capture lasts as long as it is asked to.
        settings = trial.world.directory / "schemathesis.toml"
        settings.write_text('[[operations]]\ninclude-path = "/v1/captures"\nparameters = { "query.seconds" = 1, "query.count" = 1 }\n')
        command = [program, "--config-file", settings, "run", f"{url}/openapi.json", "--exclude-path", "/v1/drain", "--exclude-checks", "positive_data_acceptance"]
        command += ["--max-examples", "20", "--seed", "6", "--workers", "4", "--generation-deterministic", "--no-color", "--request-timeout", "15"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=170, cwd=trial.world.directory)
        finally:
            trial.engine.require_running()
        if done.returncode != 0:
            raise AssertionError(f"schemathesis ended with {done.returncode}:\n{done.stdout[-6000:]}{done.stderr[-2000:]}")
    assert trial.client().visit().server in WEB
    return next((line.strip() for line in done.stdout.splitlines() if " generated, " in line), "")


def over_tcp_nobody_gets_in_without_the_token_and_a_certificate(trial):
    """Where the API is cannot change while the engine runs, so it is started anew, twice."""
    directory, engine, url = trial.world.directory, trial.engine, "https://localhost:9911"
    before = dict(engine.settings["engine"]["api"])
    token = directory / "api.token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    token.chmod(0o600)
    trial.authority.sign("api", "ecdsa", "localhost")
    (directory / "api.key").chmod(0o600)
    pair = trial.clients.sign("operator")
    tcp = {"listen": "127.0.0.1:9911", "token_file": "api.token", "certificate": "api.pem", "key": "api.key", "client_ca": "clients.pem"}
    assert engine.stop() == 0
    try:
        engine.settings["engine"]["api"] = before | tcp
        engine.start()
        said = _over_tls(trial, token.read_text().strip(), pair)
        assert said.startswith("HTTP/1.1 200 ") and '"engine":"engine-1"' in said, said
        for wrong in (None, "0" * 32):
            said = _over_tls(trial, wrong, pair)
            assert said.startswith("HTTP/1.1 401 ") and "www-authenticate: bearer" in said.lower() and "engine-1" not in said, said
        try:
            said = _over_tls(trial, token.read_text().strip(), None)
        except ssl.SSLError as error:
            assert "certificate required" in str(error).lower().replace("_", " "), error
        else:
            raise AssertionError(f"no certificate was shown, and the API said {said!r}")
        with socket.create_connection(("127.0.0.1", 9911), 5) as plain:
            plain.sendall(b"GET /v1/status HTTP/1.1\r\nHost: sealane\r\n\r\n")
            assert b"HTTP" not in plain.recv(1000), "the API is served without TLS"
        command = [binary(), "ctl", "--url", url, "--token-file", token, "--ca", trial.authority.certificate]
        command += ["--certificate", pair[0], "--key", pair[1], "status"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0 and "engine-1 of cluster trial" in done.stdout, done
    finally:
        engine.stop()
        engine.settings["engine"]["api"] = before
        engine.start()
        for server in WEB:
            engine.wait_for_server("web", server, True)


def _over_tls(trial, token, pair):
    """What the API says to a request for its status."""
    context = ssl.create_default_context(cafile=trial.authority.certificate)
    if pair:
        context.load_cert_chain(*pair)
    with socket.create_connection(("127.0.0.1", 9911), 5) as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        tls.sendall(f"GET /v1/status HTTP/1.1\r\nHost: sealane\r\nConnection: close\r\n{authorization}\r\n".encode())
        return read_all(tls).decode()


def _ctl(trial, *words, fails=False):
    command = [binary(), "ctl", "--socket", trial.engine.api.path, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if (done.returncode != 0) != fails:
        raise Failed(f"sealane ctl {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _state(trial, server):
    return trial.engine.api.get(f"/v1/pools/web/servers/{server}")["state"]


@contextlib.contextmanager
def _as_it_was(trial):
    """Puts the engine's configuration back in the end."""
    servers = [dict(server) for server in trial.engine.settings["pool"][0]["server"]]
    try:
        yield
    finally:
        trial.engine.settings["pool"][0]["server"] = servers
        trial.reload()
        for server in WEB:
            trial.engine.wait_for_server("web", server, True)
